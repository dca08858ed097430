"""The evidence of each day, gathered as it was known when the day was over, and the decisions made of it.

Nothing later counts: rows of the day and before, labels known before the next local day, and of the ledger, of what was
asked for and of the staleness curves what has an as-of date up to then. So a day decided again decides the same,
whatever was trained since; and a range of days comes to what its days come to one by one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core import registry
from ml_assets.core.days import DayRange
from ml_assets.core.evaluation import Metrics
from ml_assets.core.experiments import has_failed
from ml_assets.core.intervals import Interval
from ml_assets.core.monitored import ALARMS, ESTIMATED, HISTORY, PERFORMANCE, RETRAINING, recent_rows, until
from ml_assets.core.package import ModelPackage
from ml_assets.core.performance import N_DAYS_JUDGED, newest_days, pool_histograms
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.recalled import recall_package
from ml_assets.core.registry import FINAL, LedgerEntry
from ml_assets.core.regression_performance import pool_errors
from ml_assets.core.resumes import Resume, resumes
from ml_assets.core.retraining import (
    RETRAINING_SCHEMA,
    Estimated,
    Evidence,
    Realised,
    StandingAlarm,
    decide,
)
from ml_assets.core.spec import UseCase
from ml_assets.core.staleness_curves import StalenessCurve, curve_dates, load_curve
from ml_assets.core.tasks import AnyMetrics

# What has been trained as of a date, whatever came of it: a rollback trains nothing.
_TRAINED = ("promote", "refuse", "wait")
_MINIMUM_DAYS = 3
_NORMAL_95 = 1.96

StartsAt = Callable[[date], datetime]
Days = npt.NDArray[np.datetime64]


def write_decisions(
    warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange, *, starts_at: StartsAt
) -> pa.Table:
    """Decide each of the days, write the decisions in place of earlier ones of these days, and return them.

    A day on which somebody was in charge and nothing was predicted has none. ``starts_at`` gives the UTC moment at
    which a local day begins.
    """
    gathered = _Gathered.of(warehouse, store, use_case, days, starts_at=starts_at)
    rows: list[dict[str, object]] = []
    for day in days.dates:
        evidence = gathered.evidence(day)
        if evidence is None:
            continue
        decision = decide(evidence, use_case.retraining)
        if decision.decision == "retrain":
            gathered.asked_for.append(decision.as_of)
        rows.append(decision.as_row())
    table = pa.Table.from_pylist(rows, schema=RETRAINING_SCHEMA)
    warehouse.replace_days({RETRAINING: table}, days, use_case=use_case.name)
    return table


def realised_quality(
    performance: pa.Table, holdout: AnyMetrics, limits: Mapping[str, Interval], *, n_holdout_days: int
) -> Realised | None:
    """Return the headline measure over the last seven days; None where fewer than three of them have labels.

    Its noise is told from the 95 % limits of the holdout: what days differ by there, they differ by in a week, and the
    variance of a mean of days falls with their number.
    """
    labelled = newest_days(performance, N_DAYS_JUDGED).filter(pc.field("n_labelled") > 0)
    if labelled.num_rows < _MINIMUM_DAYS:
        return None
    n_days = labelled.num_rows
    if not isinstance(holdout, Metrics):
        noise = _noise(limits.get("rmse"), n_days, n_holdout_days)
        rmse = pool_errors(labelled).rmse
        n_worse = pc.sum(pc.greater(labelled["rmse"], holdout.rmse)).as_py()
        return Realised(
            measure="rmse", found=rmse, holdout=holdout.rmse, n_days=n_days, noise=noise, n_days_worse=n_worse
        )
    found = pool_histograms(labelled).roc_auc
    if found is None or holdout.roc_auc is None:
        return None
    noise = _noise(limits.get("roc_auc"), n_days, n_holdout_days)
    # A day of one class has no ranking, and speaks neither for nor against.
    n_worse = labelled.num_rows - (pc.sum(pc.greater_equal(labelled["roc_auc"], holdout.roc_auc)).as_py() or 0)
    return Realised(
        measure="roc_auc", found=found, holdout=holdout.roc_auc, n_days=n_days, noise=noise, n_days_worse=n_worse
    )


def _noise(limits: Interval | None, n_days: int, n_holdout_days: int) -> float | None:
    """Return the standard error of the distance between some days and a holdout of which the limits are known."""
    if limits is None:
        return None
    of_holdout = (limits.high - limits.low) / (2 * _NORMAL_95)
    return of_holdout * math.sqrt(1 + n_holdout_days / n_days)


@dataclass(frozen=True, kw_only=True)
class _Gathered:
    """All that the evidence of a range of days is made of, read once.

    ``asked_for`` are the as-of dates of the trainings that earlier days asked for; it grows as days are decided.
    """

    store: ArtifactStore
    use_case: UseCase
    starts_at: StartsAt
    performance: pa.Table
    alarms: pa.Table
    estimates: pa.Table
    ledger: Sequence[LedgerEntry]
    resumed: Sequence[Resume]
    curve_dates: Sequence[date]
    asked_for: list[date]
    labelled: "_Labelled"
    packages: dict[str, ModelPackage]
    curves: dict[date, StalenessCurve] = field(default_factory=dict[date, StalenessCurve])

    @staticmethod
    def of(
        warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange, *, starts_at: StartsAt
    ) -> "_Gathered":
        budget, before = timedelta(days=use_case.retraining.budget_days), days.first - timedelta(days=1)
        quality = _rows(warehouse, PERFORMANCE, use_case, days.last, since=days.first - HISTORY)
        asked = _rows(warehouse, RETRAINING, use_case, before, since=before - max(budget, HISTORY))
        ledger = registry.entries(store, use_case.name)
        of_days = quality.filter(pc.field("partition_on") >= pa.scalar(days.first))
        versions = of_days["model_version"].unique().to_pylist() if of_days.num_rows else []
        packages = {version: recall_package(store, use_case.name, version) for version in versions}
        oldest = min((package.as_of for package in packages.values()), default=None)
        return _Gathered(
            store=store,
            use_case=use_case,
            starts_at=starts_at,
            performance=quality,
            alarms=_rows(warehouse, ALARMS, use_case, days.last, since=days.first),
            estimates=_rows(warehouse, ESTIMATED, use_case, days.last, since=days.first - HISTORY),
            ledger=ledger,
            resumed=resumes(store, use_case.name),
            curve_dates=curve_dates(store, use_case.name),
            asked_for=[row["as_of"] for row in asked.to_pylist() if row["decision"] == "retrain"],
            labelled=_Labelled.of(
                warehouse, use_case, oldest if registry.in_charge(ledger, days.first) else None, days
            ),
            packages=packages,
        )

    def evidence(self, day: date) -> Evidence | None:
        """Return what was known of a day when it was over; None where it has nothing to decide on."""
        rule, as_of, known = self.use_case.retraining, day + timedelta(days=1), self._ledger_of(day)
        trained = {entry.as_of for entry in known if entry.action in _TRAINED}
        trained |= {asked for asked in self.asked_for if asked <= day}
        last = max(trained, default=None)
        version = self._version_of(day)
        if version is None and registry.in_charge(self.ledger, day):
            return None
        package = self.packages[version] if version else None
        budget_from = as_of - timedelta(days=rule.budget_days)
        gap, known_before = self.use_case.split.gap_days, self.starts_at(as_of)
        curve = self._curve(as_of) if package else None
        return Evidence(
            use_case=self.use_case.name,
            day=day,
            model_version=version or "",
            model_as_of=package.as_of if package else None,
            alarms=self._alarms(day) if package else (),
            realised=self._realised(day, package) if package else None,
            estimated=self._estimated(day, package) if package else None,
            staleness_cost=curve.cost((as_of - package.as_of).days) if curve and package else None,
            staleness_measured_days=curve.longest_age_days if curve else 0,
            n_new_examples=self.labelled.n_examples(
                package.as_of - timedelta(days=gap), as_of - timedelta(days=gap), known_before
            )
            if package
            else 0,
            n_fitted_examples=package.metrics.n_train + package.metrics.n_validation if package else 0,
            n_labelled_days=0 if package else self.labelled.n_days(as_of - timedelta(days=gap), known_before),
            n_days_for_first=0 if package else self.use_case.split.days_for_whole_parts,
            last_training_on=last,
            has_last_training_failed=self._has_failed(last),
            n_trainings=sum(one > budget_from for one in trained),
            n_refusals=self._n_refusals(known, day),
        )

    def _ledger_of(self, day: date) -> Sequence[LedgerEntry]:
        """Return what was entered of trainings up to a day, in the order of their as-of dates."""
        known = [entry for entry in self.ledger if entry.as_of <= day]
        return sorted(known, key=lambda entry: (entry.as_of, entry.sequence))

    def _has_failed(self, as_of: date | None) -> bool:
        """Tell whether a training that was asked for came to nothing: what has an entry in the ledger did not."""
        if as_of is None or any(entry.as_of == as_of for entry in self.ledger):
            return False
        return has_failed(self.store, self.use_case.name, as_of)

    def _n_refusals(self, known: Sequence[LedgerEntry], day: date) -> int:
        """Count the candidates refused since the last promotion, or since a person said go on."""
        since = max((one.day for one in self.resumed if one.day <= day), default=date.min)
        n_refusals = 0
        for entry in (entry for entry in known if entry.action in FINAL):
            n_refusals = 0 if entry.action == "promote" else n_refusals + (entry.as_of > since)
        return n_refusals

    def _version_of(self, day: date) -> str | None:
        """Return the version that predicted a day, whoever the ledger names by now."""
        of_day = self.performance.filter(pc.field("partition_on") == pa.scalar(day))
        return of_day["model_version"][0].as_py() if of_day.num_rows else None

    def _curve(self, by: date) -> StalenessCurve | None:
        measured = max((as_of for as_of in self.curve_dates if as_of <= by), default=None)
        if measured is None:
            return None
        if measured not in self.curves:
            self.curves[measured] = load_curve(self.store, self.use_case.name, measured)
        return self.curves[measured]

    def _alarms(self, day: date) -> tuple[StandingAlarm, ...]:
        """Return the alarms that stand."""
        of_day = self.alarms.filter(pc.field("partition_on") == pa.scalar(day))
        found = [
            StandingAlarm(**{name: row[name] for name in ("kind", "subject", "severity", "explanation")})
            for row in of_day.to_pylist()
        ]
        return tuple(sorted(found, key=lambda alarm: (alarm.kind, alarm.subject, alarm.explanation)))

    def _realised(self, day: date, package: ModelPackage) -> Realised | None:
        apart = (package.as_of - package.manifest.last_validation_day).days
        n_holdout_days = max(1, apart - 1 - 2 * self.use_case.split.gap_days)
        metrics, performance = package.metrics, until(self.performance, day)
        return realised_quality(performance, metrics.holdout, metrics.intervals, n_holdout_days=n_holdout_days)

    def _estimated(self, day: date, package: ModelPackage) -> Estimated | None:
        """Return the day's estimate, with how far those were off whose labels had time to land."""
        rows = [r for r in until(self.estimates, day).to_pylist() if r["model_version"] == package.version]
        of_day = {row["metric"]: row["estimated"] for row in rows if row["partition_on"] == day}
        known = {name: value for name, value in vars(package.metrics.holdout).items() if name in of_day}
        measure = next((name for name in ("roc_auc", "rmse", "log_loss", *sorted(known)) if name in known), None)
        if measure is None or of_day[measure] is None or known[measure] is None:
            return None
        landed = day - timedelta(days=self.use_case.split.gap_days)
        errors = [
            abs(row["error"])
            for row in rows
            if row["metric"] == measure and row["error"] is not None and row["partition_on"] <= landed
        ]
        return Estimated(
            measure=measure,
            estimated=of_day[measure],
            holdout=float(known[measure]),
            recent_error=float(np.mean(errors)) if errors else None,
        )


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """How many examples of each local day became labelled at each moment: three columns of the same length."""

    partition_on: Days
    known_at: Days
    n_rows: npt.NDArray[np.int64]

    @staticmethod
    def of(warehouse: Warehouse, use_case: UseCase, oldest: date | None, days: DayRange) -> "_Labelled":
        """Count from the as-of date of the oldest model on; without a model all that a first training could use."""
        if warehouse.columns(use_case.examples_table) is None:
            nothing = np.empty(0, "datetime64[D]")
            return _Labelled(partition_on=nothing, known_at=nothing, n_rows=np.empty(0, np.int64))
        rule = use_case.split
        first = oldest - timedelta(days=rule.gap_days) if oldest else days.first - timedelta(days=rule.days_back)
        sql = f"""
            select partition_on, label_known_at, count(*) as n_rows
            from {use_case.examples_table}
            where {Sql(dialect=warehouse.dialect).of_days()} and label is not null
            group by partition_on, label_known_at
        """  # noqa: S608 - validated names
        found = warehouse.query(sql, {"first_day": first, "last_day": days.last})
        return _Labelled(
            partition_on=found["partition_on"].to_numpy().astype("datetime64[D]"),
            known_at=found["label_known_at"].cast(pa.timestamp("us", tz="UTC")).to_numpy(),
            n_rows=found["n_rows"].to_numpy().astype(np.int64),
        )

    def n_examples(self, first: date, until_day: date, known_before: datetime) -> int:
        """Count the examples of these days, the last excluded, whose label was known before a moment."""
        return int(self.n_rows[self._are(first, until_day, known_before)].sum())

    def n_days(self, until_day: date, known_before: datetime) -> int:
        """Count the days before a day that have an example whose label was known before a moment."""
        return len(np.unique(self.partition_on[self._are(date.min, until_day, known_before)]))

    def _are(self, first: date, until_day: date, known_before: datetime) -> npt.NDArray[np.bool_]:
        moment = np.datetime64(known_before.replace(tzinfo=None), "us")
        is_of_days = (self.partition_on >= np.datetime64(first)) & (self.partition_on < np.datetime64(until_day))
        return is_of_days & (self.known_at < moment)


def _rows(warehouse: Warehouse, table: str, use_case: UseCase, last: date, *, since: date) -> pa.Table:
    """Return a use case's rows of a monitoring table; none, without columns to rely on, where there is no table yet."""
    if warehouse.columns(table) is None:
        return pa.table({"partition_on": pa.array([], pa.date32())})
    return recent_rows(warehouse, table, use_case, last, since=since)
