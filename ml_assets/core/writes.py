"""What every warehouse refuses to write, whatever its technology: rows of other days, columns of another table."""

from collections.abc import Mapping
from datetime import date
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.contracts import PARTITION
from ml_assets.core.days import DayRange
from ml_assets.core.errors import SchemaChanged
from ml_assets.core.ports import Rows


def at_hand(rows: Rows) -> pa.Table:
    """Return the rows that can be looked at without reading a stream: a table's, and none of a reader's."""
    return rows.schema.empty_table() if isinstance(rows, pa.RecordBatchReader) else rows


def refuse_other_days(table: str, rows: pa.Table, days: DayRange) -> None:
    """Raise ValueError if a row has no local day, or one that the write does not replace."""
    if PARTITION not in rows.column_names or not pa.types.is_date(rows[PARTITION].type):
        raise ValueError(f"{table}: the rows have no DATE column {PARTITION!r}, by which days are replaced")
    extremes = cast("dict[str, date | None]", pc.min_max(rows[PARTITION]).as_py())
    earliest, latest, n_null = extremes["min"], extremes["max"], rows[PARTITION].null_count
    if n_null or (earliest and latest and not days.first <= earliest <= latest <= days.last):
        raise ValueError(f"{table}: rows of {earliest}..{latest}, {n_null} without a day, cannot replace {days}")


def refuse_other_columns(table: str, found: Mapping[str, str], incoming: Mapping[str, str | None]) -> None:
    """Raise SchemaChanged if the rows to write have other columns than the table, or a column of another type.

    Both map column name to SQL type. The order does not matter; None is the type of a column without any value, which
    fits every column.

    >>> refuse_other_columns("raw.flights", {"carrier": "VARCHAR", "tailnum": "VARCHAR"}, {"carrier": "INTEGER"})
    Traceback (most recent call last):
        ...
    ml_assets.core.errors.SchemaChanged: raw.flights: tailnum is not in the rows; carrier is INTEGER in the rows, \
VARCHAR in the table. Nothing was changed. If the change is meant, drop the table and materialize its days again
    """
    faults = [f"{name} is not in the rows" for name in found if name not in incoming]
    faults += [f"{name} {kind or ''} is not in the table" for name, kind in incoming.items() if name not in found]
    faults += [
        f"{name} is {kind} in the rows, {found[name]} in the table"
        for name, kind in incoming.items()
        if name in found and kind not in (found[name], None)
    ]
    if faults:
        raise SchemaChanged(
            f"{table}: {'; '.join(faults)}. Nothing was changed. If the change is meant, "
            "drop the table and materialize its days again"
        )


def typed_columns(table: str, incoming: Mapping[str, str | None]) -> Mapping[str, str]:
    """Return the columns of a table to create; raise SchemaChanged where one has no type to create it with."""
    untyped = [name for name, kind in incoming.items() if kind is None]
    if untyped:
        raise SchemaChanged(f"{table} cannot be created: the columns {untyped} have no type; give their rows one")
    return {name: kind for name, kind in incoming.items() if kind is not None}
