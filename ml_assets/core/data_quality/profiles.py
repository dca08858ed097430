"""What the days of a raw table look like: rows, nulls, newest event, and the different values of each quantity.

The warehouse counts, in two statements a table whatever the number of days and columns, each one scan; nothing is
summed in floating point, so that every warehouse gives the same bits, and every figure is derived from the counts here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.contracts import PARTITION, Contract
from ml_assets.core.data_quality.units import Values
from ml_assets.core.days import DayRange
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Warehouse


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What was counted of some rows of a day.

    ``n_values`` are those that are not null, by column. ``n_alone`` are the rows in which an outcome is null although
    most other outcomes of the same row are there. ``newest`` is the last event, UTC.
    """

    n_rows: int
    n_values: Mapping[str, int]
    n_alone: Mapping[str, int]
    newest: datetime | None


@dataclass(frozen=True, kw_only=True)
class DayProfile:
    """One day of a raw table; ``groups`` are the rows of each value of its group columns, by (column, value)."""

    day: date
    whole: Tally
    groups: Mapping[tuple[str, str], Tally] = field(default_factory=dict[tuple[str, str], Tally])
    values: Mapping[str, Values] = field(default_factory=dict[str, Values])


def profile_days(warehouse: Warehouse, contract: Contract, days: DayRange) -> Mapping[date, DayProfile]:
    """Return the profile of each of these days that has rows."""
    bounds = {"first_day": days.first, "last_day": days.last}
    wholes: dict[date, Tally] = {}
    groups: dict[date, dict[tuple[str, str], Tally]] = {}
    for row in warehouse.query(tallies_sql(contract, Sql(dialect=warehouse.dialect)), bounds).to_pylist():
        member = next(((column, row[column]) for column in contract.groups if row[column] is not None), None)
        if member is None:
            wholes[row[PARTITION]] = _tally(row)
        else:
            groups.setdefault(row[PARTITION], {})[member] = _tally(row)
    values: dict[date, dict[str, Values]] = {}
    if quantities(contract):
        counted = warehouse.query(values_sql(contract, Sql(dialect=warehouse.dialect)), bounds)
        for column in quantities(contract):
            for day, of_day in _values_by_day(counted, column):
                values.setdefault(day, {})[column] = of_day
    return {
        day: DayProfile(day=day, whole=whole, groups=groups.get(day, {}), values=values.get(day, {}))
        for day, whole in sorted(wholes.items())
    }


def quantities(contract: Contract) -> tuple[str, ...]:
    """Return the columns that have a unit."""
    return tuple(column.name for column in contract.columns if column.unit)


def tallies_sql(contract: Contract, sql: Sql) -> str:
    """Return the SELECT of a row per day, and one per day and value of each group column, the other ones null there."""
    optional = [column for column in contract.columns if column.nullable]
    outcomes = [column.name for column in optional if column.is_outcome]
    counts = ["count(*) AS n_rows"]
    counts += [f"count({sql.name(column.name)}) AS n_{column.name}" for column in optional]
    for name in outcomes if len(outcomes) > 1 else ():
        others = [f"CASE WHEN {sql.name(other)} IS NULL THEN 0 ELSE 1 END" for other in outcomes if other != name]
        are_there = f"2 * ({' + '.join(others)}) > {len(others)}"
        counts.append(f"count(CASE WHEN {sql.name(name)} IS NULL AND {are_there} THEN 1 END) AS alone_{name}")
    if contract.event_at:
        counts.append(f"max({sql.name(contract.event_at)}) AS newest")
    sets = [PARTITION, *(f"{PARTITION}, {sql.name(column)}" for column in contract.groups)]
    return f"""
        SELECT {", ".join([PARTITION, *map(sql.name, contract.groups), *counts])}
        FROM {sql.table(f"raw.{contract.table}")} WHERE {sql.of_days()}
        GROUP BY GROUPING SETS ({", ".join(f"({each})" for each in sets)})
    """  # noqa: S608 - validated names


def values_sql(contract: Contract, sql: Sql) -> str:
    """Return the SELECT of a row per day, quantity and different value of it, the other quantities null there."""
    columns = [sql.name(column) for column in quantities(contract)]
    return f"""
        SELECT {", ".join([PARTITION, *columns])}, count(*) AS n_rows
        FROM {sql.table(f"raw.{contract.table}")} WHERE {sql.of_days()}
        GROUP BY GROUPING SETS ({", ".join(f"({PARTITION}, {column})" for column in columns)})
    """  # noqa: S608 - validated names


def _tally(row: Mapping[str, object]) -> Tally:
    counts = {name: value for name, value in row.items() if isinstance(value, int)}
    newest = row.get("newest")
    return Tally(
        n_rows=counts["n_rows"],
        n_values={
            name.removeprefix("n_"): n for name, n in counts.items() if name.startswith("n_") and name != "n_rows"
        },
        n_alone={name.removeprefix("alone_"): n for name, n in counts.items() if name.startswith("alone_")},
        newest=newest if isinstance(newest, datetime) else None,
    )


def _values_by_day(counted: pa.Table, column: str) -> Iterator[tuple[date, Values]]:
    """Yield each day with the values of a column, ascending."""
    rows = counted.select([PARTITION, column, "n_rows"]).filter(pc.is_valid(counted[column]))
    if not rows.num_rows:
        return
    days = rows[PARTITION].to_numpy()
    values, counts = (rows[name].to_numpy() for name in (column, "n_rows"))
    order = np.lexsort((values, days))
    found, starts = np.unique(days[order], return_index=True)
    ends = [*starts.tolist(), len(order)][1:]
    for day, start, end in zip(found.astype("datetime64[D]").tolist(), starts.tolist(), ends, strict=True):
        of_day = order[start:end]
        yield (
            day,
            Values(values=values[of_day].astype(np.float64), counts=counts[of_day].astype(np.int64)),
        )
