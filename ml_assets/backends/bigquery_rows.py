"""Arrow rows as BigQuery stores them: column types in both directions, Parquet to load, results to Arrow."""

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ml_assets.core.errors import SchemaChanged

if TYPE_CHECKING:
    from google.cloud.bigquery import QueryJob, SchemaField, TableReference
    from google.cloud.bigquery.table import RowIterator
    from google.cloud.bigquery_storage import BigQueryReadClient

# What the API calls a type in a schema, where SQL calls it otherwise.
_SQL_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_ARROW: Mapping[str, pa.DataType] = {
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "BOOL": pa.bool_(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    "DATETIME": pa.timestamp("us"),
    "NUMERIC": pa.decimal128(38, 9),
}
# Judgement: so many rows come with few requests; opening a read session of the Storage API takes about a second.
_ROWS_BY_REST = 20_000
# Judgement: a Storage API that can be reached opens a session within a second or two.
_STORAGE_ANSWERS_WITHIN_SECONDS = 20.0

_log = logging.getLogger(__name__)


def sql_types(table: str, schema: pa.Schema) -> dict[str, str | None]:
    """Return column name -> SQL type for rows to write; None for a column without any value.

    Raises SchemaChanged for a type that BigQuery would not give back as it was, such as a list: it knows no null list.

    >>> sql_types("raw.seen", pa.schema([("n", pa.int32()), ("at", pa.timestamp("ns", "UTC")), ("x", pa.null())]))
    {'n': 'INT64', 'at': 'TIMESTAMP', 'x': None}
    """
    return {field.name: _sql_type(table, field) for field in schema}


def _sql_type(table: str, field: "pa.Field[pa.DataType]") -> str | None:
    kind = cast("pa.DictionaryType", field.type).value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if cast("pa.TimestampType", kind).tz else "DATETIME"
    tests = {
        "STRING": pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "BYTES": pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
        "BOOL": pa.types.is_boolean(kind),
        "INT64": pa.types.is_integer(kind),
        "FLOAT64": pa.types.is_floating(kind),
        "DATE": pa.types.is_date(kind),
        "NUMERIC": pa.types.is_decimal(kind),
    }
    found = next((name for name, is_it in tests.items() if is_it), None)
    if found is None:
        raise SchemaChanged(
            f"{table}: the column {field.name} is {kind}, which BigQuery would not give back as it was; "
            f"expected one of {', '.join(_ARROW).lower()}: store a list or a structure as JSON text"
        )
    return found


def sql_type_of(field: "SchemaField") -> str:
    """Return the SQL type of a column as the API describes it."""
    kind = _SQL_NAMES.get(field.field_type, field.field_type)
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind


def as_parquet(rows: pa.Table, columns: Mapping[str, str]) -> bytes:
    """Return the rows as a Parquet file in which every column has the type of the table to load it into."""
    schema = pa.schema([(name, _ARROW[kind]) for name, kind in columns.items()])
    sink = pa.BufferOutputStream()
    pq.write_table(rows.select(list(columns)).cast(schema), sink, coerce_timestamps="us")
    return sink.getvalue().to_pybytes()


def read(
    job: "QueryJob",
    rows: "RowIterator",
    connect_storage: "Callable[[], BigQueryReadClient] | None",
    *,
    within: timedelta,
) -> pa.Table:
    """Return the rows of a finished query: many of them by the Storage API, where there is a client for it, or by REST.

    The Storage API reads one stream, which keeps the order of the rows. Where it cannot be reached or used, takes
    longer than ``within`` or gives another number of rows than the query has, this is logged as a warning and the rows
    come by REST: slower, and the same.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    if connect_storage is not None and (rows.total_rows or 0) > _ROWS_BY_REST:
        try:
            storage = connect_storage()
            with storage:
                found = _by_storage(job, storage, within)
            if found.num_rows == rows.total_rows:
                return _plain(found)
            told = "the Storage API of BigQuery gave %d rows of %d, all come by REST"
            _log.warning(told, found.num_rows, rows.total_rows)
        except (GoogleAPIError, GoogleAuthError) as error:
            _log.warning("the Storage API of BigQuery cannot be used, the rows come by REST: %s", error)
    return _plain(rows.to_arrow(create_bqstorage_client=False))


def _by_storage(job: "QueryJob", storage: "BigQueryReadClient", within: timedelta) -> pa.Table:
    from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.types import DataFormat, ReadSession

    place = cast("TableReference", job.destination)
    session = storage.create_read_session(
        parent=f"projects/{job.project}",
        read_session=ReadSession(table=place.to_bqstorage(), data_format=DataFormat.ARROW),
        max_stream_count=1,
        retry=None,
        timeout=_STORAGE_ANSWERS_WITHIN_SECONDS,
    )
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    # The client's own reader takes up a stream that is unavailable again and again, without an end: this one asks once.
    answers = BigQueryReadClient.read_rows(
        storage, read_stream=session.streams[0].name, retry=None, timeout=within.total_seconds()
    )
    parts = (pa.py_buffer(answer.arrow_record_batch.serialized_record_batch) for answer in answers)
    return pa.Table.from_batches([pa.ipc.read_record_batch(part, schema) for part in parts], schema)


def _plain(table: pa.Table) -> pa.Table:
    """Return the rows with nothing but names and types in their schema, as every other warehouse does."""
    return table.cast(pa.schema([(field.name, field.type) for field in table.schema]))
