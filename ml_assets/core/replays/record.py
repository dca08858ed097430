"""What a replay writes of its days beside what production writes: its tables, and where it stands."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from time import process_time
from typing import Literal, cast

import pyarrow as pa

from ml_assets.core.days import DayRange
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Parameter, Warehouse
from ml_assets.core.spec import UseCase

# One row per lived day, written last: a day that has one is complete.
DAYS = "replay.days"
# What each part of a day took, in CPU seconds; no part of the record, since no two runs agree on it.
COSTS = "replay.costs"
# One row per decision: what would have been predicted by those that are not in charge.
RIVALS = "replay.rivals"
# One row per week, rival and measure.
WEEKS = "replay.weeks"

DAYS_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "model_version": pa.string(),
        "n_decisions": pa.int64(),
        "n_labelled": pa.int64(),
        "outcome": pa.string(),
        "candidate": pa.string(),
        "outcome_reason": pa.string(),
        "decision": pa.string(),
        "reason": pa.string(),
        "n_alarms": pa.int64(),
        "n_severe": pa.int64(),
    }
)
COSTS_SCHEMA = pa.schema(
    {"use_case": pa.string(), "partition_on": pa.date32(), "part": pa.string(), "cpu_seconds": pa.float64()}
)

Outcome = Literal["", "promoted", "refused", "waits", "impossible"]


@dataclass(frozen=True, kw_only=True)
class LivedDay:
    """What one day came to.

    Attributes:
        use_case: whose day it is.
        partition_on: the local day.
        model_version: who predicted it; empty where nobody was in charge when its decisions were taken.
        n_decisions: how many were predicted.
        n_labelled: how many of them have a label by the next morning.
        outcome: what came of the training that the day began with, if the day before asked for one; ``impossible``
            where too little was known to train on.
        candidate: the version it made.
        outcome_reason: the ledger's reason.
        decision: whether the day asks for a training as of the next one (``retrain``), or why not; empty on a day on
            which somebody was in charge and nothing was predicted.
        reason: why, or why not.
        n_alarms: how many alarms stand on the day.
        n_severe: how many of them are severe.
    """

    use_case: str
    partition_on: date
    model_version: str = ""
    n_decisions: int = 0
    n_labelled: int = 0
    outcome: Outcome = ""
    candidate: str = ""
    outcome_reason: str = ""
    decision: str = ""
    reason: str = ""
    n_alarms: int = 0
    n_severe: int = 0


@dataclass
class Costs:
    """CPU seconds of this process by what they went into."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def of(self, part: str) -> Generator[None]:
        """Add what happens inside to a part."""
        started = process_time()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + process_time() - started


def mark_complete(warehouse: Warehouse, use_case: UseCase, lived: LivedDay, costs: Costs) -> None:
    """Write that a day is complete, with what it took; the last thing written of it."""
    key = {"use_case": use_case.name, "partition_on": lived.partition_on}
    took = [{**key, "part": part, "cpu_seconds": seconds} for part, seconds in costs.seconds.items()]
    writes = {
        DAYS: pa.Table.from_pylist([asdict(lived)], schema=DAYS_SCHEMA),
        COSTS: pa.Table.from_pylist(took, schema=COSTS_SCHEMA),
    }
    warehouse.replace_days(writes, DayRange(first=lived.partition_on, last=lived.partition_on), use_case=use_case.name)


def lived_days(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> list[LivedDay]:
    """Return the complete days of these, oldest first."""
    rows = rows_of(warehouse, DAYS, use_case, days)
    return [LivedDay(**row) for row in cast("list[dict[str, str]]", rows.to_pylist())]  # pyright: ignore[reportArgumentType] - the schema is the dataclass


def days_left(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> DayRange | None:
    """Return the days after the last complete one, or None where all are."""
    lived = lived_days(warehouse, use_case, days)
    first = lived[-1].partition_on + timedelta(days=1) if lived else days.first
    return DayRange(first=first, last=days.last) if first <= days.last else None


def rows_of(warehouse: Warehouse, table: str, use_case: UseCase, days: DayRange) -> pa.Table:
    """Return a use case's rows of a table on these days, in an order that is always the same; none without a table."""
    columns = warehouse.columns(table)
    if columns is None:
        return pa.table({})
    marked = Sql(dialect=warehouse.dialect)
    order = ", ".join(marked.names([name]) for name in columns)
    sql = f"""
        select * from {table} where use_case = {marked.parameter("use_case")} and {marked.of_days()}
        order by partition_on, {order}
    """  # noqa: S608 - constants and the table's own columns
    bounds: Mapping[str, Parameter] = {"use_case": use_case.name, "first_day": days.first, "last_day": days.last}
    return warehouse.query(sql, bounds)
