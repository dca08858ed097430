"""Column contracts of raw tables: what a source promised, and what happens to rows that break it."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a raw table. Numbers outside [minimum, maximum] and unexpected nulls are quarantined."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a source promises of one table. A partitioned table has a DATE column ``partition_on``."""

    table: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    is_partitioned: bool
