"""Column contracts of raw tables: what a source promised of each."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

PARTITION = "partition_on"
_LEFT_OUT = b"ml_assets/left_out_columns"
QUARANTINE_SCHEMA = pa.schema(
    [("table_name", pa.string()), (PARTITION, pa.date32()), ("reason", pa.string()), ("row_json", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a raw table. Numbers outside [minimum, maximum] and unexpected nulls are quarantined.

    A NaN or an infinity is outside every range, declared or not. A sparse column is mostly null even when all is well,
    so that a day without any value of it is no news. Null in an outcome says that something did not happen, as a
    cancelled flight's departure: a storm brings many at once. ``unit`` is one of ``core/data_quality/units.py``, in
    which a change to another unit is then looked for; empty for what is no quantity.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    is_sparse: bool = False
    minimum: float | None = None
    maximum: float | None = None
    is_outcome: bool = False
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a source promises of one table. A partitioned table has a DATE column ``partition_on``.

    ``event_at`` is the timestamp column that says when what a row tells of happened; the last event of a complete day
    lies within its last hours. ``groups`` are text columns, never null, each usual value of which must be heard of
    every day: a station, an airport, a carrier. Both are what the quality of a day is judged by, and may be left out.
    """

    table: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    is_partitioned: bool
    event_at: str = ""
    groups: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The promised columns in the promised order, as an Arrow schema."""
        return pa.schema([pa.field(c.name, c.type) for c in self.columns])


def leaving_out(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    """Return the schema of rows of which their source has these columns as well, but did not hand them out.

    >>> left_out_of(leaving_out(pa.schema([("carrier", pa.string())]), ["gate", "seat"]))
    ('gate', 'seat')
    """
    return schema.with_metadata({_LEFT_OUT: json.dumps(list(columns))})


def left_out_of(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that ``leaving_out`` named; none where the source has said nothing."""
    return tuple(json.loads((schema.metadata or {}).get(_LEFT_OUT, b"[]")))
