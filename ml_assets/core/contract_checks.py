"""The rows of a raw table held against its contract: which are accepted, which are set aside, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.contracts import PARTITION, QUARANTINE_SCHEMA, Column, Contract, leaving_out, left_out_of
from ml_assets.core.day_tallies import AcceptedDays, SpoiltDays
from ml_assets.core.days import DayRange
from ml_assets.core.errors import ContractBroken

RowsT = TypeVar("RowsT")


@dataclass(frozen=True, kw_only=True)
class Checked(Generic[RowsT]):
    """Rows sorted by their contract, at once or as streams.

    ``accepted`` has the contract's columns in the contract's order. ``quarantined`` has QUARANTINE_SCHEMA, one row per
    refused row. ``n_by_day`` counts the accepted rows of every day of the range, ``n_by_reason`` the refused ones;
    ``state_by_day`` tells the accepted rows of each day from any others.
    ``warnings`` are sentences about rows that were accepted all the same.
    """

    accepted: RowsT
    quarantined: RowsT
    n_by_day: Mapping[date, int]
    state_by_day: Mapping[date, str]
    n_by_reason: Mapping[str, int]
    ignored_columns: tuple[str, ...]
    warnings: tuple[str, ...]


def check(rows: pa.Table, contract: Contract, *, days: DayRange | None) -> Checked[pa.Table]:
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
    table = contracted(rows, contract)
    reasons = row_reasons(table, contract)
    if reasons and contract.is_partitioned:
        spoilt = SpoiltDays(contract.table)
        spoilt.add(table, any_of(reasons), reasons)
        spoilt.refuse()
    reasons += day_reasons(table, days)
    reasons += duplicate_reasons(table, contract, is_bad=any_of(reasons))
    is_bad = any_of(reasons)
    quarantined = quarantine(table, reasons, contract, days)
    if not contract.is_partitioned and quarantined.num_rows:
        raise ContractBroken(
            f"{contract.table}: {quarantined.num_rows} of {table.num_rows} rows break the contract, the first one "
            f"because {quarantined['reason'][0]}: {quarantined['row_json'][0]}; correct the source, the table is left "
            "as it was"
        )
    accepted = table if is_bad is None else table.filter(pc.invert(is_bad))
    accepted_days = AcceptedDays(contract)
    accepted_days.add(accepted)
    return Checked(
        accepted=accepted,
        quarantined=quarantined,
        n_by_day=accepted_days.n_by_day(days),
        state_by_day=accepted_days.states(days),
        n_by_reason=Counter(cast("list[str]", quarantined["reason"].to_pylist())),
        ignored_columns=ignored_columns(rows, contract),
        warnings=accepted_days.warnings(days),
    )


Reason = tuple[str, pa.ChunkedArray]  # what is wrong, and a boolean per row, never null


def contracted(rows: pa.Table, contract: Contract) -> pa.Table:
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
    return rows.select([c.name for c in contract.columns]).replace_schema_metadata(None)


def ignored_columns(rows: pa.Table, contract: Contract) -> tuple[str, ...]:
    """Name the columns of which the contract says nothing, be they there or left out by the source."""
    extra = (name for name in rows.column_names if name not in contract.schema.names)
    return tuple(dict.fromkeys((*left_out_of(rows.schema), *extra)))


def joined(parts: Iterable[pa.Table], contract: Contract) -> pa.Table:
    """Return parts in the contract's columns as one table; what any of them left out, the whole leaves out."""
    tables = list(parts)
    left_out = dict.fromkeys(name for rows in tables for name in left_out_of(rows.schema))
    schema = leaving_out(contract.schema, left_out)
    return pa.concat_tables([schema.empty_table(), *tables])


def row_reasons(table: pa.Table, contract: Contract) -> list[Reason]:
    """Say which rows have an unexpected null or a number out of range, by reason; only reasons that occur."""
    return [*_null_reasons(table, contract), *_range_reasons(table, contract)]


def _null_reasons(table: pa.Table, contract: Contract) -> list[Reason]:
    return [
        (f"{c.name} is null", pc.is_null(table[c.name]))
        for c in contract.columns
        if not c.nullable and table[c.name].null_count
    ]


def _range_reasons(table: pa.Table, contract: Contract) -> list[Reason]:
    reasons: list[Reason] = []
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


def day_reasons(table: pa.Table, days: DayRange | None) -> list[Reason]:
    """Say which rows lie outside the days that are asked for."""
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


def duplicate_reasons(table: pa.Table, contract: Contract, *, is_bad: pa.ChunkedArray | None) -> list[Reason]:
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


def quarantine(table: pa.Table, reasons: Sequence[Reason], contract: Contract, days: DayRange | None) -> pa.Table:
    """Return the rows that have a reason, in their order and as QUARANTINE_SCHEMA has them."""
    is_bad = any_of(reasons)
    if is_bad is None or not pc.any(is_bad).as_py():
        return QUARANTINE_SCHEMA.empty_table()
    bad = pc.indices_nonzero(is_bad)
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


def _true(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the mask with null ("a null was compared") read as False."""
    return pc.fill_null(mask, False)


def any_of(reasons: Sequence[Reason]) -> pa.ChunkedArray | None:
    """Return which rows have any of the reasons, or None where there is no reason."""
    if not reasons:
        return None
    combined = reasons[0][1]
    for _, mask in reasons[1:]:
        combined = pc.or_(combined, mask)
    return combined


def _mask(rows: pa.ChunkedArray, n_rows: int) -> pa.ChunkedArray:
    """Return a boolean per row: True for the row numbers given."""
    return pc.is_in(pa.chunked_array([pa.array(np.arange(n_rows))]), value_set=rows.combine_chunks())
