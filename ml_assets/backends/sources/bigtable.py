"""One raw table from Bigtable: a day is one range of row keys, a column the newest text in its cell."""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.core.contracts import PARTITION, Column, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput, ContractBroken, InvalidName, SourceDenied, SourceMissing, SourceUnavailable

if TYPE_CHECKING:
    from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, Row
    from google.cloud.bigtable.data.row_filters import RowFilter

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
# A row key is the local day, this, and whatever else tells the rows of a day apart; the character after it ends a day.
_AFTER_THE_DAY, _END_OF_DAY = b"#", b"$"
# Judgement: some megabytes of Python's objects at a time.
_ROWS_AT_ONCE = 10_000
# Judgement: a hundred million cells come in less, and a run that hangs is noticed.
_PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class BigtableSource:
    """The BatchSource port on one table and column family of Bigtable.

    Row keys begin with the New York local day and ``#``, as ``2013-07-01#UA#1545#20130701T10``, so that a day is one
    range that Bigtable reads without touching others; ``partition_on`` is read from the key. Every other column of the
    contract is a cell of that name, in UTF-8 text: ``-12``, ``3.5``, ``true``, ``2013-07-01``,
    ``2013-07-01T10:00:00Z``. Older versions of a cell are not read, nor cells of other names, which
    are therefore not named as ignored; one that is absent is null, and a row without any of the cells is no row.

    ``connect`` makes the client. A stream that breaks off is taken up after its last row; all of one read, with what is
    tried again, takes at most ``patience_seconds``.
    """

    project: str
    instance: str
    table: str
    family: str
    contract: Contract
    connect: "Callable[[], BigtableDataClient]"
    patience_seconds: float = _PATIENCE_SECONDS

    def __post_init__(self) -> None:
        for name in (self.project, self.instance, self.table, self.family):
            if not _NAME.fullmatch(name):
                raise InvalidName(f"{name!r} is no name; expected bigtable://project/instance/table?family=FAMILY")

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contract of the one table."""
        return {self.contract.table: self.contract}

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return the table's rows of these local days, or all rows of an unpartitioned one, by their keys."""
        return pa.concat_tables([self.contract.schema.empty_table(), *self.batches(table, days)])

    def batches(self, table: str, days: DayRange | None = None) -> Iterator[pa.Table]:
        """Yield the rows that ``read`` returns in parts, in the same order.

        Raises ContractBroken for a cell that is not of its column's type and a key that does not begin with a day,
        SourceMissing, SourceDenied or SourceUnavailable where the table cannot be had.
        """
        if table != self.contract.table or self.contract.is_partitioned != (days is not None):
            raise BadInput(f"{self._address} offers {self.contract.table}, by days where it has days")
        with self._known_errors(), self.connect() as client, client.get_table(self.instance, self.table) as found:
            rows = iter(
                found.read_rows_stream(
                    self._query(days),
                    operation_timeout=self.patience_seconds,
                    attempt_timeout=self.patience_seconds,
                )
            )
            while part := list(islice(rows, _ROWS_AT_ONCE)):
                yield self._typed(part)

    def note(self, days: DayRange) -> str:
        """Say in one line where the rows of these days come from."""
        return f"{self._address}, {days} by row key" if self.contract.is_partitioned else self._address

    @property
    def _address(self) -> str:
        return f"bigtable://{self.project}/{self.instance}/{self.table}?family={self.family}"

    def _cells(self) -> list[Column]:
        return [c for c in self.contract.columns if not (self.contract.is_partitioned and c.name == PARTITION)]

    def _query(self, days: DayRange | None) -> "ReadRowsQuery":
        from google.cloud.bigtable.data import ReadRowsQuery, RowRange, row_filters

        names = "|".join(re.escape(column.name) for column in self._cells())
        filters: list[RowFilter] = [
            row_filters.FamilyNameRegexFilter(re.escape(self.family)),
            row_filters.ColumnQualifierRegexFilter(names.encode()),
            row_filters.CellsColumnLimitFilter(1),
        ]
        query = ReadRowsQuery(row_filter=row_filters.RowFilterChain(filters))
        if days is not None:
            first, end = str(days.first).encode() + _AFTER_THE_DAY, str(days.last).encode() + _END_OF_DAY
            query.add_range(RowRange(start_key=first, end_key=end))
        return query

    def _typed(self, rows: "Sequence[Row]") -> pa.Table:
        keys = [row.row_key for row in rows]
        cells = [{cell.qualifier: cell.value for cell in row.cells} for row in rows]
        columns = {column.name: self._column(column, cells, keys) for column in self._cells()}
        if self.contract.is_partitioned:
            columns[PARTITION] = pa.array([self._day(key) for key in keys], pa.date32())
        return pa.table({name: columns[name] for name in self.contract.schema.names})

    def _column(self, column: Column, rows: Sequence[Mapping[bytes, bytes]], keys: Sequence[bytes]) -> pa.Array:
        """Return the cells of a column in its type."""
        cells = [row.get(column.name.encode()) for row in rows]
        try:
            return _parsed(cells, column.type)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            for key, cell in zip(keys, cells, strict=True):
                self._refuse_misfit(key, column, cell)
            raise

    def _refuse_misfit(self, key: bytes, column: Column, cell: bytes | None) -> None:
        try:
            _parsed([cell], column.type)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise ContractBroken(
                f"{self._address}: the cell {column.name!r} of row {key!r} is {cell!r}, expected the UTF-8 text of a "
                f"{column.type}; nothing was written, correct the cell or change the contract"
            ) from error

    def _day(self, key: bytes) -> date:
        text, separator = key[:10], key[10:11]
        try:
            if separator == _AFTER_THE_DAY:
                return date.fromisoformat(text.decode())
        except ValueError:
            pass
        raise ContractBroken(
            f"{self._address}: found the row key {key!r}; expected one that begins with a day, as 2013-07-01#UA#1545"
        )

    @contextmanager
    def _known_errors(self) -> Generator[None]:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except exceptions.NotFound as error:
            raise SourceMissing(f"{self._address} is not there: {error.message}; is the URL right?") from error
        except (exceptions.Forbidden, exceptions.Unauthenticated) as error:
            raise SourceDenied(
                f"{self._address} may not be read: {error.message}; its reader needs bigtable.reader on the table"
            ) from error
        except exceptions.InvalidArgument as error:
            raise SourceMissing(
                f"{self._address} cannot be read as asked: {error.message}; is the family right?"
            ) from error
        except (exceptions.GoogleAPICallError, exceptions.RetryError) as error:
            raise SourceUnavailable(f"{self._address} does not answer: {error}; try again later") from error
        except GoogleAuthError as error:
            raise SourceDenied(
                f"{self._address}: the credentials are missing, wrong or expired: {error}; set "
                "GOOGLE_APPLICATION_CREDENTIALS to a valid file, or ML_ASSETS_CREDENTIALS=attached"
            ) from error


def _parsed(cells: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """Return cells of UTF-8 text as values of a type; raise ArrowInvalid or UnicodeDecodeError where one is none."""
    texts = pa.array([None if cell is None else cell.decode() for cell in cells], pa.string())
    return texts if pa.types.is_string(kind) else texts.cast(kind)
