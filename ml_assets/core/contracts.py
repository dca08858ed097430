"""Column contracts of raw tables: what a source promised, and what happens to rows that break it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.errors import ContractBroken

PARTITION = "partition_on"
QUARANTINE_SCHEMA = pa.schema(
    [("table_name", pa.string()), (PARTITION, pa.date32()), ("reason", pa.string()), ("row_json", pa.string())]
)

_DAYS_NAMED_IN_A_WARNING = 5
# Judgement: single bad rows are a sensor's fault or a typing error; a fifth of a day is another kind of table.
_LARGEST_BAD_SHARE = 0.2
_FEWEST_ROWS_JUDGED = 20


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a raw table. Numbers outside [minimum, maximum] and unexpected nulls are quarantined.

    A NaN or an infinity is outside every range, declared or not. A sparse column is mostly null even when all is well,
    so that a day without any value of it is no news.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    is_sparse: bool = False
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

    @property
    def schema(self) -> pa.Schema:
        """The promised columns in the promised order, as an Arrow schema."""
        return pa.schema([pa.field(c.name, c.type) for c in self.columns])


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Rows sorted by their contract.

    ``accepted`` has the contract's columns in the contract's order. ``quarantined`` has QUARANTINE_SCHEMA, one row per
    refused row, in the order they came. ``warnings`` are sentences about rows that were accepted all the same.
    """

    accepted: pa.Table
    quarantined: pa.Table
    ignored_columns: tuple[str, ...]
    warnings: tuple[str, ...]


def check(rows: pa.Table, contract: Contract, *, days: DayRange | None) -> Checked:
    """Part the rows of a source into those that keep the contract and those to set aside, each with its reasons.

    Set aside are rows with an unexpected null, a number out of range, a day outside ``days``, and all but the last of
    several sound rows with one key: the last is the source's correction of the ones before. A refused row outside
    ``days`` is filed under the nearest day of the range, so that writing the range again replaces it.

    Raises ContractBroken where a column is missing or has another type; where more than a fifth of a day's rows have an
    unexpected null or a number out of range, since those that happen to pass are then no better; and for any bad row of
    an unpartitioned table, which has no day to set it aside for. ``days`` is None exactly for an unpartitioned table.
    """
    if contract.is_partitioned != (days is not None):
        raise ValueError(f"{contract.table}: days must be given for a partitioned table and for no other")
    table = _contracted(rows, contract)
    reasons = [*_null_reasons(table, contract), *_range_reasons(table, contract)]
    _refuse_spoilt_days(table, reasons, contract)
    reasons += _day_reasons(table, days)
    reasons += _duplicate_reasons(table, contract, is_bad=_any([mask for _, mask in reasons]))
    is_bad = _any([mask for _, mask in reasons])
    bad = pa.array([], pa.int64()) if is_bad is None else pc.indices_nonzero(is_bad)
    quarantined = _quarantined(table, bad, reasons, contract, days)
    if not contract.is_partitioned and len(bad):
        raise ContractBroken(
            f"{contract.table}: {len(bad)} of {table.num_rows} rows break the contract, the first one because "
            f"{quarantined['reason'][0]}: {quarantined['row_json'][0]}; correct the source, the table is left as it was"
        )
    accepted = table if is_bad is None else table.filter(pc.invert(is_bad))
    return Checked(
        accepted=accepted,
        quarantined=quarantined,
        ignored_columns=tuple(name for name in rows.column_names if name not in table.column_names),
        warnings=(*_empty_day_warnings(accepted, days), *_null_column_warnings(accepted, contract)),
    )


_Reason = tuple[str, pa.ChunkedArray]  # what is wrong, and a boolean per row, never null


def _contracted(rows: pa.Table, contract: Contract) -> pa.Table:
    """Return the contract's columns in its order; raise ContractBroken where one is missing or retyped."""
    found = {field.name: field.type for field in rows.schema}
    faults = [
        f"column {c.name!r} is missing"
        if c.name not in found
        else f"column {c.name!r} is {found[c.name]}, not {c.type}"
        for c in contract.columns
        if found.get(c.name) != c.type
    ]
    if faults:
        raise ContractBroken(
            f"{contract.table}: {'; '.join(faults)}. Found {', '.join(f'{n} {t}' for n, t in found.items())}. "
            "Nothing was written: correct the source, or change its contract and the dbt models that read the column"
        )
    return rows.select([c.name for c in contract.columns])


def _null_reasons(table: pa.Table, contract: Contract) -> list[_Reason]:
    return [
        (f"{c.name} is null", pc.is_null(table[c.name]))
        for c in contract.columns
        if not c.nullable and table[c.name].null_count
    ]


def _range_reasons(table: pa.Table, contract: Contract) -> list[_Reason]:
    reasons: list[_Reason] = []
    for column in contract.columns:
        values = table[column.name]
        if pa.types.is_floating(column.type) and not pc.all(pc.is_finite(values), min_count=0).as_py():
            reasons.append((f"{column.name} is not a finite number", _true(pc.invert(pc.is_finite(values)))))
        # Arrow's min_max skips nulls and NaN; a null range (no value at all) has nothing outside it.
        extremes = cast("dict[str, float | None]", pc.min_max(values).as_py()) if _has_range(column) else {}
        least, greatest = extremes.get("min"), extremes.get("max")
        if column.minimum is not None and least is not None and least < column.minimum:
            limit = pa.scalar(column.minimum, pa.float64())
            reasons.append((f"{column.name} is below {column.minimum:g}", _true(pc.less(values, limit))))
        if column.maximum is not None and greatest is not None and greatest > column.maximum:
            limit = pa.scalar(column.maximum, pa.float64())
            reasons.append((f"{column.name} is above {column.maximum:g}", _true(pc.greater(values, limit))))
    return reasons


def _has_range(column: Column) -> bool:
    return column.minimum is not None or column.maximum is not None


def _refuse_spoilt_days(table: pa.Table, reasons: Sequence[_Reason], contract: Contract) -> None:
    """Raise ContractBroken where so many rows of a day are bad that the source itself must have changed."""
    is_bad = _any([mask for _, mask in reasons])
    if is_bad is None or not contract.is_partitioned:
        return
    days = pa.table({PARTITION: table[PARTITION], "is_bad": is_bad.cast(pa.int64())}).group_by(PARTITION)
    counts = days.aggregate([("is_bad", "sum"), ("is_bad", "count")]).sort_by(PARTITION)
    for day, n_bad, n_rows in zip(*(counts[name].to_pylist() for name in counts.column_names), strict=True):
        if n_rows >= _FEWEST_ROWS_JUDGED and n_bad > _LARGEST_BAD_SHARE * n_rows:
            why = max(reasons, key=lambda reason: cast("int", pc.sum(reason[1]).as_py()))[0]
            raise ContractBroken(
                f"{contract.table}: {n_bad} of the {n_rows} rows of {day} break the contract, mostly because {why}. "
                "Nothing was written: has the source changed its unit or meaning? Correct it, or change its contract"
            )


def _day_reasons(table: pa.Table, days: DayRange | None) -> list[_Reason]:
    if days is None or not table.num_rows:
        return []
    local_days = table[PARTITION]
    extremes = cast("dict[str, date | None]", pc.min_max(local_days).as_py())
    least, greatest = extremes["min"], extremes["max"]
    if least is None or greatest is None or (days.first <= least and greatest <= days.last):
        return []
    outside = pc.or_(
        pc.less(local_days, pa.scalar(days.first, pa.date32())),
        pc.greater(local_days, pa.scalar(days.last, pa.date32())),
    )
    return [(f"{PARTITION} is outside {days}", _true(outside))]


def _duplicate_reasons(table: pa.Table, contract: Contract, *, is_bad: pa.ChunkedArray | None) -> list[_Reason]:
    """Name every sound row that a later sound row with the same key follows: a copy of it, or corrected by it."""
    keys = table.select(list(contract.key)).append_column("_row", pa.array(np.arange(table.num_rows)))
    if is_bad is not None:
        keys = keys.filter(pc.invert(is_bad))
    last = keys.group_by(list(contract.key), use_threads=False).aggregate([("_row", "max")])
    if last.num_rows == keys.num_rows:
        return []
    earlier = keys.join(last, keys=list(contract.key), use_threads=False)
    earlier = earlier.filter(pc.less(earlier["_row"], earlier["_row_max"])).sort_by("_row")
    is_copy = _all_equal(table.take(earlier["_row"]), table.take(earlier["_row_max"]))
    key = ", ".join(contract.key)
    return [
        (f"a copy of another row with the same {key}", _mask(earlier["_row"].filter(is_copy), table.num_rows)),
        (
            f"corrected by a later row with the same {key}",
            _mask(earlier["_row"].filter(pc.invert(is_copy)), table.num_rows),
        ),
    ]


def _all_equal(left: pa.Table, right: pa.Table) -> pa.ChunkedArray:
    """Return a boolean per row: every column has the same value, or null, on both sides."""
    equal = pa.chunked_array([pa.repeat(True, left.num_rows)])
    for name in left.column_names:
        both_null = pc.and_(pc.is_null(left[name]), pc.is_null(right[name]))
        equal = pc.and_(equal, pc.or_(_true(pc.equal(left[name], right[name])), both_null))
    return equal


def _quarantined(
    table: pa.Table, bad: pa.Array, reasons: Sequence[_Reason], contract: Contract, days: DayRange | None
) -> pa.Table:
    if not len(bad):
        return QUARANTINE_SCHEMA.empty_table()
    rows = table.take(bad)
    # A reason that does not hold for a row is null there, and the join below skips nulls.
    parts = [pc.if_else(mask.take(bad), pa.scalar(why), pa.scalar(None, pa.string())) for why, mask in reasons]
    reason = pc.binary_join_element_wise(*parts, pa.scalar("; "), null_handling="skip")
    if days is None:
        filed_under = pa.nulls(len(bad), pa.date32())
    else:
        first, last = pa.scalar(days.first, pa.date32()), pa.scalar(days.last, pa.date32())
        filed_under = pc.max_element_wise(pc.min_element_wise(pc.fill_null(rows[PARTITION], first), last), first)
    encode = msgspec.json.Encoder().encode
    row_json = pa.array([encode(row).decode() for row in rows.to_pylist()], pa.string())
    columns = [pa.repeat(pa.scalar(contract.table), len(bad)), filed_under, reason, row_json]
    return pa.table(columns, schema=QUARANTINE_SCHEMA)


def _empty_day_warnings(accepted: pa.Table, days: DayRange | None) -> list[str]:
    if days is None:
        return [] if accepted.num_rows else ["the table has no rows"]
    found = set(cast("list[date]", pc.unique(accepted[PARTITION]).to_pylist()))
    empty = [day for day in days.dates if day not in found]
    return [f"there are no rows on {_named(empty)}"] if empty else []


def _null_column_warnings(accepted: pa.Table, contract: Contract) -> list[str]:
    """Name the columns without one value on a whole day (of an unpartitioned table: without any)."""
    names = [c.name for c in contract.columns if c.nullable and not c.is_sparse and accepted[c.name].null_count]
    if not names or not accepted.num_rows:
        return []
    if not contract.is_partitioned:
        empty = [name for name in names if accepted[name].null_count == accepted.num_rows]
        return [f"{name} is null in every row" for name in empty]
    counts = accepted.group_by(PARTITION, use_threads=False).aggregate([(name, "count") for name in names])
    warnings: list[str] = []
    for name in names:
        empty_days = cast("list[date]", counts.filter(pc.equal(counts[f"{name}_count"], 0))[PARTITION].to_pylist())
        if empty_days:
            warnings.append(f"{name} is null in every row of {_named(sorted(empty_days))}")
    return warnings


def _named(days: Sequence[date]) -> str:
    if len(days) <= _DAYS_NAMED_IN_A_WARNING:
        return ", ".join(str(day) for day in days)
    return f"{len(days)} days from {days[0]} to {days[-1]}"


def _true(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the mask with null ("a null was compared") read as False."""
    return pc.fill_null(mask, False)


def _any(masks: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray | None:
    """Return which rows any mask marks, or None where there is no mask."""
    if not masks:
        return None
    combined = masks[0]
    for mask in masks[1:]:
        combined = pc.or_(combined, mask)
    return combined


def _mask(rows: pa.ChunkedArray, n_rows: int) -> pa.ChunkedArray:
    """Return a boolean per row: True for the row numbers given."""
    return pc.is_in(pa.chunked_array([pa.array(np.arange(n_rows))]), value_set=rows.combine_chunks())
