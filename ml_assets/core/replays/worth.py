"""What the trainings of a replay were worth, by quarter and in all, against the models that are trained once."""

from collections.abc import Iterator
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.ports import Warehouse
from ml_assets.core.replays.record import COSTS, lived_days, rows_of
from ml_assets.core.replays.rivals import compare, compared_rows
from ml_assets.core.spec import UseCase


def periods_of(days: DayRange) -> Iterator[tuple[str, DayRange]]:
    """Yield each calendar quarter that has some of the days, cut to them, and last all days; each with its name.

    >>> [name for name, _ in periods_of(DayRange(first=date(2013, 2, 1), last=date(2013, 7, 9)))]
    ['2013 Q1', '2013 Q2', '2013 Q3', 'all days']
    """
    first = days.first
    while first <= days.last:
        quarter = (first.month - 1) // 3
        begins_next = date(first.year + quarter // 3, 3 * ((quarter + 1) % 4) + 1, 1)
        last = min(days.last, begins_next.fromordinal(begins_next.toordinal() - 1))
        yield f"{first.year} Q{quarter + 1}", DayRange(first=first, last=last)
        first = begins_next
    yield "all days", days


def worth(warehouse: Warehouse, use_case: UseCase, days: DayRange, *, known_before: datetime) -> pa.Table:
    """Compare production with its rivals by quarter and in all, on the labels that became known by a moment.

    The rows are those of ``compare`` with the name of the ``period`` beside them. This is hindsight, for people: no
    decision reads it.
    """
    rows = compared_rows(warehouse, use_case, days, known_before=known_before)
    parts: list[pa.Table] = []
    for name, period in periods_of(days):
        inside = (pc.field("partition_on") >= pa.scalar(period.first)) & (
            pc.field("partition_on") <= pa.scalar(period.last)
        )
        found = compare(rows.filter(inside) if rows.num_rows else rows, use_case, period)
        parts.append(found.append_column("period", pa.array([name] * found.num_rows, pa.string())))
    return pa.concat_tables(parts)


def spent(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> dict[str, float]:
    """Return the CPU seconds that each part of the complete days took."""
    costs = rows_of(warehouse, COSTS, use_case, days)
    found: dict[str, float] = {}
    for row in costs.to_pylist():
        found[row["part"]] = found.get(row["part"], 0.0) + row["cpu_seconds"]
    return found


def n_trainings(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> dict[str, int]:
    """Return how many trainings came to each outcome."""
    outcomes = [day.outcome for day in lived_days(warehouse, use_case, days) if day.outcome]
    return {outcome: outcomes.count(outcome) for outcome in ("promoted", "refused", "waits", "impossible")}
