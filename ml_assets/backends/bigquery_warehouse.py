"""The warehouse in BigQuery: rows are loaded aside, then one transaction puts them in the place of the old days."""

import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from ml_assets.backends import bigquery_rows, bigquery_sql
from ml_assets.backends.bigquery_errors import dataset_not_found, in_our_words
from ml_assets.backends.bigquery_jobs import ANSWER_WITHIN, Jobs, JobUsage
from ml_assets.core.contracts import PARTITION
from ml_assets.core.days import DayRange
from ml_assets.core.errors import WarehouseError
from ml_assets.core.names import table_name
from ml_assets.core.ports import Dialect, Parameter, Rows
from ml_assets.core.writes import at_hand, refuse_other_columns, refuse_other_days, typed_columns

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, Dataset, SchemaField
    from google.cloud.bigquery_storage import BigQueryReadClient

# Judgement: dearer than any query of a day by far, and cheaper than a mistake.
_MAXIMUM_BYTES_BILLED = 200 * 2**30
_DEADLINE = timedelta(minutes=15)
_FIRST_PAUSE = timedelta(seconds=0.5)
# Judgement: a load job takes a second or two whatever its size, and a table may be loaded 1,500 times a day.
_PART_BYTES = 128 * 2**20
# Judgement: the operations of a step come within minutes, and a new key in the credentials' file is read soon after.
_CLIENT_IS_KEPT = timedelta(minutes=5)
# New tables are clustered by those of these columns they have: what rows are asked for by, beside their day.
_CLUSTERED_BY = ("use_case", "origin", "decision_id")


class BigQueryWarehouse:
    """The Warehouse port on BigQuery datasets, one per schema, in one location.

    ``connect`` opens a client, as ``dagster_gcp.BigQueryResource.get_client`` does. The operations of a thread share
    one, and with it one access token, for five minutes or until one of them fails. A table is partitioned by
    ``partition_on`` and clustered by those columns of ``clustered_by`` it has. What a write replaces is chosen by
    constant days, so that BigQuery reads and bills no other partition. Several writers of one table may meet: BigQuery
    aborts the transaction of all but one, and it is tried again.

    Args:
        connect: opens a client of the project.
        location: of every dataset; jobs run there.
        maximum_bytes_billed: what one query may read before it is refused.
        deadline: how long one job may take with all that is tried again.
        first_pause: the longest wait before the second attempt; it doubles from there.
        labels: asked for each job: what to put on the bill beside it.
        on_job: told what each job came to.
        connect_storage: opens a client of the Storage API, by which many rows are read faster; REST without it.
        clustered_by: the columns of ``CLUSTER BY``, in this order.
        answer_within: how long one request waits, if the deadline is not shorter, before it is sent again.
    """

    def __init__(
        self,
        connect: Callable[[], "AbstractContextManager[Client]"],
        *,
        location: str,
        maximum_bytes_billed: int = _MAXIMUM_BYTES_BILLED,
        deadline: timedelta = _DEADLINE,
        first_pause: timedelta = _FIRST_PAUSE,
        labels: Callable[[], Mapping[str, str]] = dict[str, str],
        on_job: Callable[[JobUsage], None] = lambda _usage: None,
        connect_storage: "Callable[[], BigQueryReadClient] | None" = None,
        clustered_by: Sequence[str] = _CLUSTERED_BY,
        answer_within: timedelta = ANSWER_WITHIN,
    ) -> None:
        self._connect = connect
        self._location = location
        self._connect_storage = connect_storage
        self._clustered_by = tuple(clustered_by)
        self._of_thread = threading.local()
        self._jobs = Jobs(
            location=location,
            maximum_bytes_billed=maximum_bytes_billed,
            deadline=deadline,
            first_pause=first_pause,
            labels=labels,
            on_job=on_job,
            answer_within=answer_within,
        )

    @property
    def dialect(self) -> Dialect:
        """Which SQL the queries must be written in."""
        return "bigquery"

    @contextmanager
    def session(self) -> Generator[None]:
        """Share one client between the operations of this thread, however long they take."""
        with ExitStack() as stack:
            if self._shared() is None:
                with self._known_errors():
                    stack.enter_context(self._opened())
            yield

    def query(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> pa.Table:
        """Return the rows of a SELECT, with parameters ``@name``; raise DataMissing where a table is not there.

        Timestamps come out as ``timestamp[us, tz=UTC]``. Raises QuotaExhausted where it would read more than the cap.
        """
        with self._client() as client:
            job = self._jobs.query(client, sql, parameters)
            rows = job.result(retry=self._jobs.retry, job_retry=None, timeout=self._jobs.seconds_to_answer)
            return bigquery_rows.read(job, rows, self._connect_storage, within=self._jobs.deadline)

    def columns(self, table: str) -> Mapping[str, str] | None:
        """Return column name -> SQL type of a table, or None where there is no such table."""
        table_name(table)
        with self._client() as client:
            return self._columns(client, table)

    def replace_days(self, writes: Mapping[str, Rows], days: DayRange, *, use_case: str | None = None) -> None:
        """Replace the days in every named table with these rows, all in one transaction.

        The batches of a reader are loaded as they come, some hundred megabytes at once; where one cannot be had, its
        error is raised and nothing is changed.

        Where several use cases share the tables, only the rows whose ``use_case`` column says this one are replaced,
        and a column that such a table does not have yet is added to it, null in the rows it has.

        Creates a missing schema or table from the rows' Arrow schema. A day without rows ends up empty.
        Raises SchemaChanged where the columns differ from the table's, ValueError for a row outside the days,
        WarehouseError for more than 4,000 days, which BigQuery does not change at once.
        """
        bigquery_sql.refuse_too_many_days(writes, days)
        for table, rows in writes.items():
            refuse_other_days(table_name(table), at_hand(rows), days)
        with self._client() as client, ExitStack() as loaded:
            incoming = {table: bigquery_rows.sql_types(table, rows.schema) for table, rows in writes.items()}
            columns = self._fit(client, incoming, may_grow=use_case is not None)
            statements: list[str] = []
            for table, rows in writes.items():
                of_rows = {name: columns[table][name] for name in rows.schema.names}
                statements.append(bigquery_sql.delete(table, days, use_case))
                if isinstance(rows, pa.RecordBatchReader) or rows.num_rows:
                    parts = _parts(table, rows, days)
                    place = loaded.enter_context(self._loaded(client, table, parts, of_rows))
                    statements.append(bigquery_sql.insert(table, place, of_rows))
            self._jobs.query(client, bigquery_sql.transaction(statements), {"use_case": use_case} if use_case else None)

    def replace_days_with_query(
        self, table: str, sql: str, days: DayRange, parameters: Mapping[str, Parameter] | None = None
    ) -> int:
        """Replace the days of one table with the rows of a SELECT inside the warehouse; return how many.

        Raises as ``replace_days``. The type of a bare NULL is INT64 to BigQuery: cast it.
        """
        bigquery_sql.refuse_too_many_days([table_name(table)], days)
        with self._client() as client, ExitStack() as stack:
            if self._columns(client, table) is None:
                self._require_dataset(client, table)
            place = stack.enter_context(self._aside(client, table))
            self._jobs.query(client, bigquery_sql.create_as(place, sql), parameters)
            found = self._columns(client, place) or {}
            counted = self.query(bigquery_sql.count_inside(place, days)).to_pylist()[0]
            if counted["n_inside"] != counted["n_rows"]:
                raise ValueError(f"{table}: the query returned rows whose {PARTITION} is null or outside {days}")
            self._fit(client, {table: found})
            statements = [bigquery_sql.delete(table, days), bigquery_sql.insert(table, place, found)]
            self._jobs.query(client, bigquery_sql.transaction(statements))
        return cast("int", counted["n_rows"])

    def replace_table(self, writes: Mapping[str, pa.Table]) -> None:
        """Replace whole unpartitioned tables, columns included, with these rows: each by one job, whole or not."""
        for table in writes:
            table_name(table)
        columns = {t: typed_columns(t, bigquery_rows.sql_types(t, rows.schema)) for t, rows in writes.items()}
        with self._client() as client:
            for table, rows in writes.items():
                self._require_dataset(client, table)
                self._load(client, table, rows, columns[table], disposition="WRITE_TRUNCATE")

    def _shared(self) -> "Client | None":
        return cast("Client | None", getattr(self._of_thread, "client", None))

    @contextmanager
    def _opened(self) -> "Generator[Client]":
        """Lend this thread the client that it kept, or a new one; where the context fails it is not kept."""
        of_thread = self._of_thread
        if time.monotonic() >= getattr(of_thread, "kept_until", 0.0):
            self._close_kept()
            with ExitStack() as stack:
                of_thread.kept = client = stack.enter_context(self._connect())
                stack.callback(client.close)
                of_thread.close = stack.pop_all().close
            of_thread.kept_until = time.monotonic() + _CLIENT_IS_KEPT.total_seconds()
        of_thread.client = of_thread.kept
        try:
            yield of_thread.kept
        except BaseException:
            self._close_kept()
            raise
        finally:
            of_thread.client = None

    def _close_kept(self) -> None:
        close = vars(self._of_thread).pop("close", None)
        self._of_thread.kept_until = 0.0
        if close:
            close()

    @contextmanager
    def _client(self) -> "Generator[Client]":
        """Give the client of this thread, the session's or the kept one; what it raises is said in our words."""
        from google.api_core.exceptions import NotFound

        with self._known_errors(), ExitStack() as stack:
            client = self._shared() or stack.enter_context(self._opened())
            try:
                yield client
            except NotFound as error:
                if absent := dataset_not_found(error):
                    with suppress(NotFound):
                        self._refuse_elsewhere(
                            client.get_dataset(absent, retry=self._jobs.retry, timeout=self._jobs.seconds_to_answer)
                        )
                raise

    @contextmanager
    def _known_errors(self) -> Generator[None]:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from requests import RequestException

        try:
            yield
        except (GoogleAPIError, GoogleAuthError, RequestException, ConnectionError, TimeoutError) as error:
            raise in_our_words(error, deadline=self._jobs.deadline) from error

    def _columns(self, client: "Client", table: str) -> dict[str, str] | None:
        from google.api_core.exceptions import NotFound

        try:
            found = client.get_table(table, retry=self._jobs.retry, timeout=self._jobs.seconds_to_answer)
        except NotFound:
            return None
        return {field.name: bigquery_rows.sql_type_of(field) for field in cast("list[SchemaField]", found.schema)}

    def _fit(
        self, client: "Client", incoming: Mapping[str, Mapping[str, str | None]], *, may_grow: bool = False
    ) -> Mapping[str, Mapping[str, str]]:
        """Return each table's columns, having created it or added columns; raise SchemaChanged before any of that."""
        found = {table: self._columns(client, table) for table in incoming}
        new: dict[str, Mapping[str, str]] = {}
        for table, of_rows in incoming.items():
            there = found[table]
            if there is None:
                new[table] = typed_columns(table, of_rows)
                continue
            added = {name: kind for name, kind in of_rows.items() if may_grow and name not in there}
            refuse_other_columns(table, there | {name: kind or "" for name, kind in added.items()}, of_rows)
            new[table] = typed_columns(table, added)
        for table, columns in new.items():
            if found[table] is None:
                self._create(client, table, columns)
            elif columns:
                self._jobs.query(client, bigquery_sql.add_columns(table, columns))
        return {table: {**(found[table] or {}), **columns} for table, columns in new.items()}

    def _require_dataset(self, client: "Client", table: str) -> None:
        """Create the dataset of a table if there is none; who may not create one needs it to be there."""
        from google.api_core.exceptions import NotFound
        from google.cloud.bigquery import Dataset

        dataset = Dataset(f"{client.project}.{table.partition('.')[0]}")
        try:
            found = client.get_dataset(dataset.reference, retry=self._jobs.retry, timeout=self._jobs.seconds_to_answer)
        except NotFound:
            dataset.location = self._location
            found = client.create_dataset(
                dataset, exists_ok=True, retry=self._jobs.retry, timeout=self._jobs.seconds_to_answer
            )
        self._refuse_elsewhere(found)

    def _refuse_elsewhere(self, dataset: "Dataset") -> None:
        """Raise WarehouseError for a dataset in another location: BigQuery calls it absent to the jobs of this one."""
        location = str(dataset.location)
        if location.lower() != self._location.lower():
            raise WarehouseError(
                f"the dataset {dataset.dataset_id} lies in {location}, this environment's jobs run in "
                f"{self._location}; set ML_ASSETS_LOCATION={location}, or copy the datasets to {self._location}"
            )

    def _create(self, client: "Client", table: str, columns: Mapping[str, str]) -> None:
        from google.cloud.bigquery import Table, TimePartitioning

        self._require_dataset(client, table)
        created = Table(f"{client.project}.{table}", schema=_schema(columns))
        created.time_partitioning = TimePartitioning(field=PARTITION)
        created.clustering_fields = [name for name in self._clustered_by if columns.get(name) == "STRING"] or None
        client.create_table(created, exists_ok=True, retry=self._jobs.retry, timeout=self._jobs.seconds_to_answer)

    @contextmanager
    def _aside(self, client: "Client", table: str) -> Generator[str]:
        """Give the name of a table beside this one, dropped at the end; it expires where that end never comes."""
        schema, _, name = table.partition(".")
        place = f"{schema}.loaded_{name}_{uuid.uuid4().hex[:12]}"
        try:
            yield place
        finally:
            client.delete_table(place, not_found_ok=True, retry=self._jobs.retry, timeout=self._jobs.seconds_to_answer)

    @contextmanager
    def _loaded(
        self, client: "Client", table: str, parts: Iterator[pa.Table], columns: Mapping[str, str]
    ) -> Generator[str]:
        """Load rows into a table of their own, and give its name."""
        from google.cloud.bigquery import Table

        with self._aside(client, table) as place:
            created = Table(f"{client.project}.{place}", schema=_schema(columns))
            created.expires = datetime.now(UTC) + bigquery_sql.LOADED_ROWS_EXPIRE_AFTER
            client.create_table(created, exists_ok=True, retry=self._jobs.retry, timeout=self._jobs.seconds_to_answer)
            for rows in parts:
                self._load(client, place, rows, columns, disposition="WRITE_APPEND")
            yield place

    def _load(
        self, client: "Client", table: str, rows: pa.Table, columns: Mapping[str, str], *, disposition: str
    ) -> None:
        from google.cloud.bigquery import LoadJobConfig, SourceFormat

        config = LoadJobConfig(
            source_format=SourceFormat.PARQUET, schema=_schema(columns), write_disposition=disposition
        )
        self._jobs.load(client, table, bigquery_rows.as_parquet(rows, columns), config)


def _parts(table: str, rows: Rows, days: DayRange) -> Iterator[pa.Table]:
    """Yield a table, or the batches of a reader in parts that are worth a job; refuse the rows of other days."""
    if isinstance(rows, pa.Table):
        yield rows
        return
    kept: list[pa.Table] = []
    for batch in rows:
        kept.append(pa.Table.from_batches([batch]))
        refuse_other_days(table, kept[-1], days)
        if sum(part.nbytes for part in kept) >= _PART_BYTES:
            yield pa.concat_tables(kept)
            kept = []
    if kept:
        yield pa.concat_tables(kept)


def _schema(columns: Mapping[str, str]) -> "list[SchemaField]":
    from google.cloud.bigquery import SchemaField

    return [SchemaField(name, kind) for name, kind in columns.items()]
