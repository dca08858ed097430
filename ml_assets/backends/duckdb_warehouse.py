"""The warehouse as one DuckDB file, or in memory: short connections, one transaction per write, Arrow in and out."""

import re
import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import cast

import duckdb
import pyarrow as pa
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from ml_assets.core.contracts import PARTITION
from ml_assets.core.days import DayRange
from ml_assets.core.errors import DataMissing, StorageFull, WarehouseBusy
from ml_assets.core.names import table_name
from ml_assets.core.ports import Dialect, Parameter, Rows
from ml_assets.core.writes import at_hand, refuse_other_columns, refuse_other_days, typed_columns

# Judgement: a backfill of another stage waits this long before it gives up; a day's write takes well under a second.
_LOCK_PATIENCE = timedelta(seconds=30)
# Judgement: room for a checkpoint of the log beside the rows themselves.
_SPARE_BYTES = 64 * 2**20
# Judgement: what DuckDB keeps of a stream in memory before it writes to its file; more did not make it faster.
_STREAMING_MEMORY = "256MB"
# Judgement: a day's joins and statistics take less; of a larger table, no more is kept than this.
_SESSION_MEMORY = "1GB"
# Judgement: a checkpoint writes whole parts of a table anew, half a second for a year of examples, and DuckDB's own
# 16 MB are soon full. What a killed session leaves of it is read when the file is next opened: 39 MB took 0.4 s.
_SESSION_LOG = "64MB"
_DISK_IS_FULL = re.compile(r"No space left on device|File too large|quota exceeded|max_temp_directory_size", re.I)


class DuckDBWarehouse:
    """The Warehouse port on a DuckDB file, which one process at a time may hold open.

    Every operation opens the file, works and closes it again, so that other processes get their turn; inside
    ``session`` the operations of this thread share one connection. A file that another process holds is tried again
    for ``lock_patience`` before WarehouseBusy is raised. ``free_bytes`` tells how much room is left beside a path.

    Without a path the tables are in memory, for tests and notebooks: this object's alone, and gone with it.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        lock_patience: timedelta = _LOCK_PATIENCE,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self._path = path
        self._memory = duckdb.connect(":memory:") if path is None else None
        self._lock_patience = lock_patience
        self._free_bytes = free_bytes
        self._of_thread = threading.local()

    @property
    def dialect(self) -> Dialect:
        """Which SQL the queries must be written in."""
        return "duckdb"

    @contextmanager
    def session(self) -> Generator[None]:
        """Share one connection between the operations of this thread; the file stays locked until the end.

        It is for small work, as of one day: DuckDB keeps to one thread, since two would mostly wait for each other, and
        of a file to 1 GB of memory, however large the table that is read: what needs more spills to disk.
        """
        if self._shared() is not None:
            yield
            return
        connection = self._open()
        connection.execute("SET threads=1")
        connection.execute(f"SET checkpoint_threshold='{_SESSION_LOG}'")
        self._of_thread.connection = connection
        try:
            connection.execute(self._usual_memory)
            yield
        finally:
            self._of_thread.connection = None
            connection.close()

    def query(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> pa.Table:
        """Return the rows of a SELECT, with parameters ``$name``; raise DataMissing where a table is not there.

        Timestamps come out as ``timestamp[us, tz=UTC]``.
        """
        with self._connection() as connection:
            return connection.sql(sql, params=dict(parameters or {})).to_arrow_table()

    def columns(self, table: str) -> Mapping[str, str] | None:
        """Return column name -> SQL type of a table, or None where there is no such table."""
        table_name(table)
        if self._path is not None and not self._path.exists():
            return None
        with self._connection() as connection:
            return _columns(connection, table)

    def replace_days(self, writes: Mapping[str, Rows], days: DayRange, *, use_case: str | None = None) -> None:
        """Replace the days in every named table with these rows, all in one transaction.

        The batches of a reader are written as they come, never all held in memory; where one cannot be had, its error
        is raised and nothing is changed.

        Where several use cases share the tables, only the rows whose ``use_case`` column says this one are replaced,
        and a column that such a table does not have yet is added to it, null in the rows it has.

        Creates a missing schema or table from the rows' Arrow schema. A day without rows ends up empty.
        Raises SchemaChanged where the columns differ from the table's, ValueError for a row outside the days.
        """
        for table, rows in writes.items():
            refuse_other_days(table_name(table), at_hand(rows), days)
        self._refuse_without_room(writes)
        is_streaming = any(isinstance(rows, pa.RecordBatchReader) for rows in writes.values())
        with self._transaction(is_streaming=is_streaming) as connection:
            for table, rows in writes.items():
                with _incoming(connection, rows, lambda batch, table=table: refuse_other_days(table, batch, days)):
                    columns = _columns_of_query(connection, "SELECT * FROM incoming", {})
                    self._fit(connection, table, columns, may_grow=use_case is not None)
                    self._delete(connection, table, days, use_case)
                    self._insert(connection, table, "SELECT * FROM incoming", {})

    def replace_days_with_query(
        self, table: str, sql: str, days: DayRange, parameters: Mapping[str, Parameter] | None = None
    ) -> int:
        """Replace the days of one table with the rows of a SELECT inside the warehouse; return how many.

        The SELECT must not read the table itself: it would find these days empty already. Raises as ``replace_days``.
        """
        table_name(table)
        bound = dict(parameters or {})
        self._refuse_without_room({})
        with self._transaction() as connection:
            self._fit(connection, table, _columns_of_query(connection, sql, bound))
            self._delete(connection, table, days)
            n_rows = self._insert(connection, table, sql, bound)
            # The days were empty a moment ago, so fewer rows in them than inserted means rows on other days.
            if _count(connection, table, days) != n_rows:
                raise ValueError(f"{table}: the query returned rows whose {PARTITION} is null or outside {days}")
        return n_rows

    def replace_table(self, writes: Mapping[str, pa.Table]) -> None:
        """Replace whole unpartitioned tables, columns included, with these rows, in one transaction."""
        for table in writes:
            table_name(table)
        self._refuse_without_room(writes)
        with self._transaction() as connection:
            for table, rows in writes.items():
                with _incoming(connection, rows):
                    self._create(connection, table, _columns_of_query(connection, "SELECT * FROM incoming", {}))
                    self._insert(connection, table, "SELECT * FROM incoming", {})

    def _shared(self) -> duckdb.DuckDBPyConnection | None:
        return cast("duckdb.DuckDBPyConnection | None", getattr(self._of_thread, "connection", None))

    @contextmanager
    def _connection(self) -> Generator[duckdb.DuckDBPyConnection]:
        shared = self._shared()
        with self._known_errors():
            if shared is not None:
                yield shared
                return
            with self._open() as connection:
                yield connection

    @contextmanager
    def _transaction(self, *, is_streaming: bool = False) -> Generator[duckdb.DuckDBPyConnection]:
        limit = _STREAMING_MEMORY if is_streaming else None
        with self._connection() as connection, _memory(connection, limit, self._usual_memory):
            connection.begin()
            try:
                yield connection
                connection.commit()
            except BaseException:
                # A full disk can end the connection itself; what was not committed is gone either way.
                with suppress(duckdb.Error):
                    connection.rollback()
                raise

    @contextmanager
    def _known_errors(self) -> Generator[None]:
        """Say in the project's words what went wrong, where it is known what that means."""
        try:
            yield
        except duckdb.CatalogException as error:
            if re.search(r"(Table|Schema) with name .* does not exist", str(error)):
                raise DataMissing(f"{_first_line(error)}; materialize the asset that writes it first") from error
            raise
        except duckdb.TransactionException as error:
            raise WarehouseBusy(f"another thread wrote to {self._place} at once; try again: {error}") from error
        except duckdb.Error as error:
            if _DISK_IS_FULL.search(str(error)):
                raise StorageFull(f"{_first_line(error)}; nothing was changed, free some space and retry") from error
            raise

    @property
    def _usual_memory(self) -> str:
        """The statement that sets how much memory DuckDB may take where nothing is streamed; in memory, all tables."""
        is_bound = self._path is not None and self._shared() is not None
        return f"SET memory_limit='{_SESSION_MEMORY}'" if is_bound else "RESET memory_limit"

    @property
    def _place(self) -> str:
        return str(self._path or "the tables in memory")

    def _open(self) -> duckdb.DuckDBPyConnection:
        connection = self._memory.cursor() if self._memory else self._open_file(cast("Path", self._path))
        # The second setting keeps a name in SQL from reaching a Python variable that happens to be called the same.
        connection.execute("SET TimeZone='UTC'; SET python_enable_replacements=false")
        return connection

    def _open_file(self, path: Path) -> duckdb.DuckDBPyConnection:
        path.parent.mkdir(parents=True, exist_ok=True)
        retrying = Retrying(
            retry=retry_if_exception(_is_locked),
            stop=stop_after_delay(self._lock_patience),
            wait=wait_random_exponential(multiplier=0.02, max=0.5),
        )
        try:
            connection = retrying(duckdb.connect, path)
        except RetryError as error:
            reason = _first_line(cast("BaseException", error.last_attempt.exception()))
            raise WarehouseBusy(
                f"{path} is held by another process, and still was after "
                f"{self._lock_patience.total_seconds():g} s: {reason}. Wait for that process or end it"
            ) from error
        # What spills while a query runs shares the disk with the warehouse, the artifacts and Dagster's own state.
        spill = max(self._free_bytes(path.parent) // 2, 2**20)
        connection.execute(f"SET max_temp_directory_size='{spill // 2**20}MiB'")
        return connection

    def _refuse_without_room(self, writes: Mapping[str, Rows]) -> None:
        if self._path is None:
            return
        folder = next(parent for parent in self._path.absolute().parents if parent.exists())
        needed = _SPARE_BYTES + 2 * sum(at_hand(rows).nbytes for rows in writes.values())
        free = self._free_bytes(folder)
        if free < needed:
            raise StorageFull(
                f"{folder} has {free / 2**20:.0f} MiB free and the write needs {needed / 2**20:.0f}; "
                "nothing was changed, free some space and retry"
            )

    def _fit(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        incoming: Mapping[str, str | None],
        *,
        may_grow: bool = False,
    ) -> None:
        """Create the table if there is none; raise SchemaChanged where the rows would not fit the one there is.

        ``may_grow`` adds the columns it lacks.
        """
        found = _columns(connection, table)
        if found is None:
            self._create(connection, table, incoming)
            return
        new = {name: kind for name, kind in incoming.items() if may_grow and name not in found}
        refuse_other_columns(table, found | {name: kind or "" for name, kind in new.items()}, incoming)
        for name, kind in typed_columns(table, new).items():
            connection.execute(f"ALTER TABLE {_quoted_table(table)} ADD COLUMN {_quoted(name)} {kind}")

    def _create(self, connection: duckdb.DuckDBPyConnection, table: str, incoming: Mapping[str, str | None]) -> None:
        columns = typed_columns(table, incoming).items()
        declared = ", ".join(f"{_quoted(column)} {kind}" for column, kind in columns)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(table.partition('.')[0])}")
        connection.execute(f"CREATE OR REPLACE TABLE {_quoted_table(table)} ({declared})")

    def _delete(
        self, connection: duckdb.DuckDBPyConnection, table: str, days: DayRange, use_case: str | None = None
    ) -> None:
        sql, bounds = f"DELETE FROM {_quoted_table(table)} WHERE {_IN_DAYS}", _bounds(days)  # noqa: S608 - quoted
        if use_case is None:
            connection.execute(sql, bounds)
        else:
            connection.execute(f"{sql} AND use_case = $use_case", {**bounds, "use_case": use_case})

    def _insert(
        self, connection: duckdb.DuckDBPyConnection, table: str, sql: str, parameters: Mapping[str, Parameter]
    ) -> int:
        # The newline ends a comment on the query's last line.
        statement = f"INSERT INTO {_quoted_table(table)} BY NAME {sql}\n"
        return _number(connection.execute(statement, dict(parameters)))


_IN_DAYS = f"{PARTITION} BETWEEN $first_day AND $last_day"


def _bounds(days: DayRange) -> dict[str, date]:
    return {"first_day": days.first, "last_day": days.last}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted_table(table: str) -> str:
    return ".".join(_quoted(part) for part in table_name(table).split("."))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and "Could not set lock" in str(error)


def _number(result: duckdb.DuckDBPyConnection) -> int:
    row = result.fetchone()
    return cast("int", row[0]) if row else 0


def _count(connection: duckdb.DuckDBPyConnection, table: str, days: DayRange) -> int:
    sql = f"SELECT count(*) FROM {_quoted_table(table)} WHERE {_IN_DAYS}"  # noqa: S608 - quoted
    return _number(connection.execute(sql, _bounds(days)))


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str] | None:
    """Return the columns that a table has by what is committed, or None where there is no such table.

    Asked of a connection of its own: that a table is missing would else end the transaction of this one. Listing the
    catalogue would not, and takes four times as long, the longer the more tables there are.
    """
    with connection.cursor() as cursor:
        try:
            found = cursor.execute(f"DESCRIBE {_quoted_table(table)}").fetchall()
        except duckdb.CatalogException:
            return None
    return {name: kind for name, kind, *_ in cast("list[tuple[str, str]]", found)}


def _columns_of_query(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Parameter]
) -> dict[str, str | None]:
    """Return column name -> SQL type of a query's rows; the type of a bare NULL is None."""
    described = connection.execute(f"DESCRIBE {sql}\n", dict(parameters)).fetchall()
    columns = cast("list[tuple[str, str]]", [row[:2] for row in described])
    return {name: None if kind == '"NULL"' else kind for name, kind in columns}


@contextmanager
def _incoming(
    connection: duckdb.DuckDBPyConnection, rows: Rows, refuse: Callable[[pa.Table], None] = lambda _batch: None
) -> Generator[None]:
    """Let SQL read the rows as ``incoming``; ``refuse`` sees each batch of a reader before it is handed out."""
    failures: list[Exception] = []

    def batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                refuse(pa.Table.from_batches([batch]))
                yield batch
        except Exception as error:
            failures.append(error)
            raise

    is_stream = isinstance(rows, pa.RecordBatchReader)
    connection.register(
        "incoming", pa.RecordBatchReader.from_batches(rows.schema, batches(rows)) if is_stream else rows
    )
    try:
        yield
    except duckdb.Error as error:
        # DuckDB tells of an error in the stream as one of its own, with the traceback in its text.
        if failures:
            raise failures[0] from error
        raise
    finally:
        with suppress(duckdb.Error):
            connection.unregister("incoming")


@contextmanager
def _memory(connection: duckdb.DuckDBPyConnection, limit: str | None, afterwards: str) -> Generator[None]:
    """Bound what DuckDB keeps in memory, until it has moved what was committed to its place: that takes most."""
    if limit is None:
        yield
        return
    connection.execute(f"SET memory_limit='{limit}'")
    try:
        yield
    finally:
        # It is refused while another thread writes, and then left to the last one that closes the file.
        with suppress(duckdb.Error):
            connection.execute("CHECKPOINT")
        with suppress(duckdb.Error):
            connection.execute(afterwards)
