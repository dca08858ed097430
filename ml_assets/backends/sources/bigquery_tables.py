"""One raw table from a table or view in BigQuery: the days and columns asked for, page by page."""

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.contract_checks import joined
from ml_assets.core.contracts import PARTITION, Contract, leaving_out
from ml_assets.core.days import LOCAL_ZONE_NAME, DayRange
from ml_assets.core.errors import (
    BadInput,
    ContractBroken,
    InvalidName,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, QueryJobConfig, Table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
# Judgement: dearer than the days of a table that is partitioned by day, cheaper than a mistake.
_MOST_BYTES = 200 * 2**30
# What the API calls a column's type, and a test of the Arrow types it can become without loss.
_FITS: Mapping[str, Callable[[pa.DataType], bool]] = {
    **dict.fromkeys(("INTEGER", "INT64"), pa.types.is_integer),
    **dict.fromkeys(("FLOAT", "FLOAT64"), pa.types.is_floating),
    **dict.fromkeys(("BOOLEAN", "BOOL"), pa.types.is_boolean),
    "STRING": pa.types.is_string,
    "BYTES": pa.types.is_binary,
    "DATE": pa.types.is_date,
    "TIMESTAMP": lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    "DATETIME": lambda kind: pa.types.is_timestamp(kind) and kind.tz is None,
    **dict.fromkeys(("NUMERIC", "BIGNUMERIC"), pa.types.is_decimal),
}


@dataclass(frozen=True, kw_only=True)
class BigQueryTablesSource:
    """The BatchSource port on ``project.dataset.table`` of BigQuery, for one table.

    ``day_column`` is a DATE that is the local day, or a TIMESTAMP that falls on it in New York; where the table is
    partitioned by it, BigQuery reads and bills the days asked for alone. A query that would bill more than
    ``most_bytes`` is refused before it runs. It runs in the table's own location, wherever the warehouse is. Rows come
    in no particular order: a table that holds corrections should be offered as a view of the newest row of each key.

    ``connect`` opens a client, as ``dagster_gcp.BigQueryResource.get_client`` does; the client itself tries again what
    may pass, for ten minutes, and asks for a page a second time without one being lost or doubled.
    """

    project: str
    dataset: str
    table: str
    contract: Contract
    connect: "Callable[[], AbstractContextManager[Client]]"
    day_column: str = PARTITION
    most_bytes: int = _MOST_BYTES

    def __post_init__(self) -> None:
        for name in (self.project, self.dataset, self.table):
            if not _NAME.fullmatch(name):
                raise InvalidName(f"{name!r} is no name in BigQuery; expected bigquery://project/dataset/table")
        if not _COLUMN.fullmatch(self.day_column):
            raise InvalidName(f"{self.day_column!r} is no column of BigQuery; expected ?day=COLUMN")

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contract of the one table."""
        return {self.contract.table: self.contract}

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return the table's rows of these local days, or all rows of an unpartitioned one."""
        return joined(self.batches(table, days), self.contract)

    def batches(self, table: str, days: DayRange | None = None) -> Iterator[pa.Table]:
        """Yield the rows that ``read`` returns, one page of the answer after the other.

        Columns that the contract does not have are not asked for, and named as ``contracts.left_out_of`` finds them.
        Raises ContractBroken where a column is missing or has another type, SourceMissing, SourceDenied or
        SourceUnavailable where the table cannot be had, SourceError where the query would bill too much.
        """
        if table != self.contract.table or self.contract.is_partitioned != (days is not None):
            raise BadInput(f"{self._address} offers {self.contract.table}, by days where it has days")
        with self._known_errors(), self.connect() as client:
            found = client.get_table(f"{self.project}.{self.dataset}.{self.table}")
            sql, config = self._query(found, days)
            asked = self._asked.values()
            schema = leaving_out(self.contract.schema, (f.name for f in found.schema if f.name not in asked))
            rows = client.query(sql, job_config=config, location=found.location).result()
            for batch in rows.to_arrow_iterable(bqstorage_client=None):
                if batch.num_rows:
                    yield self._typed(pa.Table.from_batches([batch]), schema)

    def note(self, days: DayRange) -> str:
        """Say in one line where the rows of these days come from."""
        return f"{self._address}, {days} by {self.day_column}" if self.contract.is_partitioned else self._address

    @property
    def _address(self) -> str:
        return f"bigquery://{self.project}/{self.dataset}/{self.table}"

    @property
    def _asked(self) -> Mapping[str, str]:
        """The table's column for each of the contract."""
        return {c.name: self.day_column if c.name == PARTITION else c.name for c in self.contract.columns}

    def _query(self, found: "Table", days: DayRange | None) -> "tuple[str, QueryJobConfig]":
        from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

        types = {field.name: "ARRAY" if field.mode == "REPEATED" else field.field_type for field in found.schema}
        self._refuse_misfits(types)
        selected = ", ".join(f"`{column}` AS `{name}`" for name, column in self._asked.items())
        # Every name in the statement was matched against a pattern or found in the table's own schema.
        sql = f"SELECT {selected} FROM `{self.project}.{self.dataset}.{self.table}`"  # noqa: S608
        config = QueryJobConfig(
            maximum_bytes_billed=self.most_bytes, labels={"ml_assets": f"raw_{self.contract.table}"}
        )
        if days is not None:
            sql += f" WHERE `{self.day_column}` >= @first AND `{self.day_column}` < @end"
            kind, after = types[self.day_column], days.last + timedelta(days=1)
            bounds = (days.first, after) if kind == "DATE" else (_midnight(days.first), _midnight(after))
            config.query_parameters = [
                ScalarQueryParameter(name, kind, bound) for name, bound in zip(("first", "end"), bounds, strict=True)
            ]
        return sql, config

    def _refuse_misfits(self, types: Mapping[str, str]) -> None:
        faults: list[str] = []
        if self.contract.is_partitioned and types.get(self.day_column) not in ("DATE", "TIMESTAMP"):
            kind = types.get(self.day_column, "missing")
            faults.append(f"the day column {self.day_column!r} is {kind}, expected DATE or TIMESTAMP (?day=COLUMN)")
        for column in self.contract.columns:
            if column.name == PARTITION and self.contract.is_partitioned:
                continue
            kind = types.get(column.name)
            if kind is None:
                faults.append(f"column {column.name!r} is missing")
            elif kind not in _FITS or not _FITS[kind](column.type):
                faults.append(f"column {column.name!r} is {kind}, not {column.type}")
        if faults:
            raise ContractBroken(
                f"{self._address}: {'; '.join(faults)}. Found {', '.join(f'{n} {t}' for n, t in types.items())}. "
                "Nothing was written: correct the table, offer a view of it, or change the contract"
            )

    def _typed(self, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        """Return the rows in the contract's types, a moment in the day column as its local day."""
        if self.contract.is_partitioned and pa.types.is_timestamp(rows[PARTITION].type):
            local = pc.local_timestamp(rows[PARTITION].cast(pa.timestamp("us", tz=LOCAL_ZONE_NAME)))
            place = rows.column_names.index(PARTITION)
            rows = rows.set_column(place, PARTITION, local.cast(pa.date32()))
        try:
            return rows.cast(schema)
        except pa.ArrowInvalid as error:
            raise ContractBroken(
                f"{self._address}: a value does not fit its type in the contract: {error}; correct the table, or "
                "change the contract"
            ) from error

    @contextmanager
    def _known_errors(self) -> Generator[None]:
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError, TransportError
        from requests import RequestException

        try:
            yield
        except exceptions.NotFound as error:
            raise SourceMissing(
                f"{self._address} is not there: {_first_line(error)}; expected bigquery://project/dataset/table in "
                "ML_ASSETS_SOURCES"
            ) from error
        except exceptions.GoogleAPICallError as error:
            reasons = {str(detail.get("reason")) for detail in error.errors if isinstance(detail, Mapping)}
            if "bytesBilledLimitExceeded" in reasons or "bytes billed" in str(error):
                raise SourceError(
                    f"{self._address}: reading these days would bill more than {self.most_bytes / 2**30:g} GiB: "
                    f"{_first_line(error)}. Partition the table by {self.day_column}, or offer a view of less"
                ) from error
            if isinstance(error, (exceptions.Forbidden, exceptions.Unauthorized)) and not reasons & {
                "rateLimitExceeded",
                "quotaExceeded",
            }:
                raise SourceDenied(
                    f"{self._address} may not be read: {_first_line(error)}; its reader needs bigquery.jobUser in the "
                    "project and bigquery.dataViewer on the dataset"
                ) from error
            raise SourceUnavailable(
                f"{self._address} cannot be read now: {_first_line(error)}; try again later"
            ) from error
        except TransportError as error:
            raise SourceUnavailable(f"Google's token server does not answer: {error}; try again later") from error
        except GoogleAuthError as error:
            raise SourceDenied(
                f"{self._address}: the credentials are missing, wrong or expired: {error}; set "
                "GOOGLE_APPLICATION_CREDENTIALS to a valid file, or ML_ASSETS_CREDENTIALS=attached"
            ) from error
        except (exceptions.RetryError, RequestException, ConnectionError, TimeoutError) as error:
            raise SourceUnavailable(f"{self._address} does not answer: {error}; try again later") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _midnight(day: date) -> datetime:
    """Return when a New York local day begins, in UTC."""
    return datetime.combine(day, time(), ZoneInfo(LOCAL_ZONE_NAME)).astimezone(UTC)
