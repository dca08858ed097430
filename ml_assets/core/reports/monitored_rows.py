"""What the monitoring tables say, as the pages read it: every row typed, and a table that is not there yet empty."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput
from ml_assets.core.monitored import (
    ALARMS,
    DATA_QUALITY,
    DRIFT,
    ESTIMATED,
    PERFORMANCE,
    RETRAINING,
    SHADOWS,
    SKEW,
    SLICES,
)
from ml_assets.core.performance import PERFORMANCE_SCHEMA
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Warehouse

# A slice of one day has few rows: slices are judged over four weeks. So long a blocked day is looked back on.
FOUR_WEEKS = timedelta(days=27)
_Row = TypeVar("_Row")

# The columns of the drift of many days; all others are read of the days that are written.
_DRIFT_OVERVIEW = ("partition_on", "model_version", "feature", "view", "kind", "is_drifted", "moved_share")


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One row of ``monitoring.alarms``: an alarm that stands on a day, since the first day of its incident."""

    partition_on: date
    kind: str
    subject: str
    severity: str
    explanation: str
    since: date
    incident: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of ``monitoring.data_quality``: what a check of a raw table found on a day."""

    partition_on: date
    table_name: str
    check_name: str
    column_name: str | None = None
    severity: str | None = ""
    is_blocking: bool | None = False
    released_by: str | None = None
    explanation: str | None = ""

    @property
    def blocks(self) -> bool:
        """Whether it still keeps everything downstream from running."""
        return bool(self.is_blocking) and not self.released_by


@dataclass(frozen=True, kw_only=True)
class SkewRow:
    """One row of ``monitoring.skew``: a feature as served beside the same feature recomputed."""

    partition_on: date
    view: str
    feature: str
    n_compared: int
    n_different: int
    decision_id: str | None = None
    served: str | None = None
    recomputed: str | None = None
    explanation: str | None = ""


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """One row of ``monitoring.slice_performance``: the decisions of a day with one value of one column."""

    partition_on: date
    slice: str
    value: str
    n_decisions: int
    n_labelled: int
    positive_share: float | None = None
    mean_label: float | None = None
    mean_prediction: float | None = None
    log_loss: float | None = None
    roc_auc: float | None = None
    rmse: float | None = None

    @property
    def happened(self) -> float | None:
        """What came true on average."""
        return self.mean_label if self.positive_share is None else self.positive_share


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One row of ``monitoring.estimated_performance``: a metric before the labels are known, and what came true."""

    partition_on: date
    metric: str
    estimated: float | None = None
    low: float | None = None
    high: float | None = None
    realised: float | None = None
    error: float | None = None
    explanation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One row of ``monitoring.retraining_decisions``."""

    partition_on: date
    decision: str
    reason: str
    as_of: date
    last_training_on: date | None = None
    evidence: str | None = None


@dataclass(frozen=True, kw_only=True)
class DriftRow:
    """One row of ``monitoring.drift``: a feature of a day against training."""

    feature: str
    kind: str
    view: str | None = ""
    n_rows: int
    mean: float | None = None
    missing_share: float | None = None
    reference_missing_share: float | None = None
    bin_counts: str | None = None
    psi: float | None = None
    p_value: float | None = None
    moved_share: float | None = None
    is_drifted: bool | None = False
    severity: str | None = ""
    explanation: str | None = ""

    @property
    def counts(self) -> Sequence[int]:
        """The day's rows in each bin of training; empty where they were not kept."""
        return msgspec.json.decode(self.bin_counts, type=list[int]) if self.bin_counts else []


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """The monitoring of a use case up to a day; ``absent`` names the tables that the warehouse does not have."""

    drift: pa.Table
    performance: pa.Table
    drift_of_days: pa.Table
    shadows: pa.Table
    alarms: Sequence[Alarm] = ()
    faults: Sequence[Fault] = ()
    skew: Sequence[SkewRow] = ()
    slices: Sequence[SliceRow] = ()
    estimates: Sequence[Estimate] = ()
    decisions: Sequence[Decided] = ()
    absent: frozenset[str] = field(default_factory=frozenset[str])

    def until(self, day: date) -> "Monitored":
        """Return what there was up to a day."""

        def kept(rows: "Sequence[_Dated]") -> "Sequence[_Dated]":
            return [row for row in rows if row.partition_on <= day]

        earlier = pc.field("partition_on") <= pa.scalar(day)
        return replace(
            self,
            drift=self.drift.filter(earlier),
            drift_of_days=self.drift_of_days.filter(earlier),
            performance=self.performance.filter(earlier),
            shadows=self.shadows.filter(earlier) if self.shadows.num_rows else self.shadows,
            alarms=kept(self.alarms),
            faults=kept(self.faults),
            skew=kept(self.skew),
            slices=kept(self.slices),
            estimates=kept(self.estimates),
            decisions=kept(self.decisions),
        )

    def drift_on(self, day: date) -> Sequence[DriftRow]:
        """Return the drift of one day."""
        return typed(self.drift_of_days.filter(pc.field("partition_on") == pa.scalar(day)), DriftRow)

    def faults_on(self, day: date) -> Sequence[Fault]:
        """Return the faults of a day's data, and those of the four weeks before that still hold up what needs them."""
        first = day - FOUR_WEEKS
        found = [
            f for f in self.faults if f.severity and (f.partition_on == day or (f.blocks and f.partition_on >= first))
        ]
        return sorted(found, key=lambda f: (not f.blocks, f.severity != "severe", f.partition_on, f.table_name))

    def alarms_on(self, day: date) -> Sequence[Alarm]:
        """Return the alarms that stand on a day, the severe ones and then the oldest first."""
        found = [alarm for alarm in self.alarms if alarm.partition_on == day]
        return sorted(found, key=lambda a: (a.severity != "severe", a.since, a.kind, a.subject))


_Dated = TypeVar("_Dated", Alarm, Fault, SkewRow, SliceRow, Estimate, Decided)


def typed(rows: pa.Table, kind: type[_Row]) -> list[_Row]:
    """Return the rows as a type's; columns it does not name are left out, those that are not there have its default.

    Raises BadInput for a row that is not of this type.
    """
    names = [name for name in rows.column_names if name in kind.__annotations__]
    try:
        return msgspec.convert(rows.select(names).to_pylist(), type=list[kind])
    except msgspec.ValidationError as error:
        raise BadInput(
            f"a row of monitoring is no {kind.__name__} ({error}); materialize the asset that writes it again"
        ) from error


def read_monitored(warehouse: Warehouse, use_case: str, *, days: DayRange, history: DayRange) -> Monitored:
    """Read what monitoring wrote on the days of ``history``; what has many rows a day in full on ``days`` alone."""
    absent = set[str]()
    weeks = DayRange(first=days.first - FOUR_WEEKS, last=days.last)

    def rows(table: str, of: DayRange = history, columns: Sequence[str] = (), *, is_shared: bool = False) -> pa.Table:
        present = warehouse.columns(table)
        if present is None:
            absent.add(table)
            return pa.table({})
        marked = Sql(dialect=warehouse.dialect)
        chosen = ", ".join(name for name in columns if name in present) or "*"
        mine = "" if is_shared else f"use_case = {marked.parameter('use_case')} and "
        sql = f"select {chosen} from {table} where {mine}{marked.of_days()} order by partition_on"  # noqa: S608 - constants
        bounds: dict[str, str | date] = {"first_day": of.first, "last_day": of.last}
        return warehouse.query(sql, bounds if is_shared else {**bounds, "use_case": use_case})

    with warehouse.session():
        return Monitored(
            drift=rows(DRIFT, columns=_DRIFT_OVERVIEW),
            drift_of_days=rows(DRIFT, days),
            performance=PERFORMANCE_SCHEMA.empty_table() if (found := rows(PERFORMANCE)).num_columns == 0 else found,
            shadows=rows(SHADOWS),
            alarms=typed(rows(ALARMS), Alarm),
            faults=typed(rows(DATA_QUALITY, is_shared=True), Fault),
            skew=typed(rows(SKEW, days), SkewRow),
            slices=typed(rows(SLICES, weeks), SliceRow),
            estimates=typed(rows(ESTIMATED), Estimate),
            decisions=typed(rows(RETRAINING), Decided),
            absent=frozenset(absent),
        )
