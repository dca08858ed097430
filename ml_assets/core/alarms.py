"""What stands on a day that a person should know: drift that lasts, quality or calibration lost, rows served wrong."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from functools import cache
from typing import cast

import pyarrow as pa

from ml_assets.core.calibration_alarms import calibration_alarms
from ml_assets.core.day_variation import DAYS_OF_A_WEEK
from ml_assets.core.days import DayRange
from ml_assets.core.drift_alarms import N_DAYS, N_DAYS_DRIFTED, DriftHistory
from ml_assets.core.drift_tests import percent
from ml_assets.core.incidents import QUIET_DAYS, Alarm, Incidents
from ml_assets.core.monitored import (
    ALARMS,
    DRIFT,
    ESTIMATED,
    HISTORY,
    PERFORMANCE,
    RETRAINING,
    SKEW,
    recent_rows,
    until,
)
from ml_assets.core.package import ModelPackage
from ml_assets.core.performance import ROC_AUC_TOLERANCE, performance_verdict
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.quality_noise import HoldoutNoise
from ml_assets.core.recalled import recall_package
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.regression_performance import RMSE_TOLERANCE
from ml_assets.core.retraining import DAYS_OF_A_STOP, retraining_alarms
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyMetrics, meaning_of, words_of

ALARMS_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "kind": pa.string(),
        "subject": pa.string(),
        "severity": pa.string(),
        "explanation": pa.string(),
        "since": pa.date32(),
        "incident": pa.string(),
        "model_version": pa.string(),
    }
)

# What a table that nobody has written yet holds.
_NO_ROWS = pa.schema({"partition_on": pa.date32(), "model_version": pa.string()}).empty_table()

# Judgement: one row in a hundred served with another value than recomputed is more than a late correction.
_SEVERE_SKEW_SHARE = 0.01


def write_alarms(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> pa.Table:
    """Judge these days by what monitoring has measured of them, write ``monitoring.alarms`` and return the rows.

    A table that nobody has written yet raises no alarms. A day is judged by itself and the days before it, and by those
    of its own model alone.
    """

    def rows_of(table: str, n_days_before: int, last: date = days.last) -> pa.Table:
        if warehouse.columns(table) is None:
            return _NO_ROWS
        return recent_rows(warehouse, table, use_case, last, since=days.first - timedelta(days=n_days_before))

    watch = Watch(
        use_case,
        drift=rows_of(DRIFT, DAYS_OF_A_WEEK + N_DAYS),
        performance=rows_of(PERFORMANCE, HISTORY.days),
        estimated=rows_of(ESTIMATED, HISTORY.days),
        skew=rows_of(SKEW, 0),
        decisions=rows_of(RETRAINING, DAYS_OF_A_STOP),
        package_of=cache(lambda version: recall_package(store, use_case.name, version)),
    )
    incidents = Incidents(rows_of(ALARMS, QUIET_DAYS, last=days.first - timedelta(days=1)))
    rows: list[dict[str, object]] = []
    for day in sorted(set(days.dates) & set(watch.predicted_by)):
        version = watch.predicted_by[day]
        fixed = {"use_case": use_case.name, "partition_on": day, "model_version": version}
        rows += [{**_row(alarm), **fixed} for alarm in incidents.continued(list(watch.alarms(day)), day, version)]
    table = pa.Table.from_pylist(rows, schema=ALARMS_SCHEMA)
    warehouse.replace_days({ALARMS: table}, days, use_case=use_case.name)
    return table


class Watch:
    """The rows that monitoring has written of some days, and the alarms they come to on each of them.

    Attributes:
        predicted_by: which model predicted each day that has rows.
    """

    def __init__(
        self,
        use_case: UseCase,
        *,
        drift: pa.Table,
        performance: pa.Table,
        package_of: Callable[[str], ModelPackage],
        estimated: pa.Table = _NO_ROWS,
        skew: pa.Table = _NO_ROWS,
        decisions: pa.Table = _NO_ROWS,
    ) -> None:
        self.predicted_by = _versions(drift) | _versions(performance)
        self._use_case, self._package_of = use_case, package_of
        self._performance, self._estimated, self._skew = performance, estimated, skew
        self._drift = DriftHistory(drift, lambda version: package_of(version).reference)
        self._decided = retraining_alarms(decisions)

    def alarms(self, day: date) -> Iterator[Alarm]:
        """Yield what stands on a day that has been predicted; nothing of a later day counts."""
        version = self.predicted_by[day]
        package = self._package_of(version)
        quality = [
            *_quality_alarms(until(self._performance, day), day, package, self._use_case),
            *_estimated_alarms(until(self._estimated, day), day, package),
        ]
        calibration = list(calibration_alarms(self._performance, day, version, package.metrics.holdout))
        # Judgement: a slight miscalibration is too common to make moved inputs costly.
        is_untrue = any(alarm.severity == "severe" for alarm in calibration)
        beside = "while quality is lost" if quality else "while predictions do not come true" if is_untrue else ""
        yield from self._drift.alarms(day, version, beside=beside)
        yield from quality
        yield from calibration
        yield from _skew_alarms(self._skew, day)
        # Whether to retrain is decided after the alarms of a day: what was decided yesterday stands today.
        yield from self._decided.get(day - timedelta(days=1), ())


def _row(alarm: Alarm) -> dict[str, object]:
    return {
        "kind": alarm.kind,
        "subject": alarm.subject,
        "severity": alarm.severity,
        "explanation": alarm.explanation,
        "since": alarm.since,
        "incident": alarm.incident,
    }


def _versions(rows: pa.Table) -> dict[date, str]:
    """Return which model predicted each day."""
    pairs = zip(rows["partition_on"].to_pylist(), rows["model_version"].to_pylist(), strict=True)
    return cast("dict[date, str]", dict(pairs))


def _quality_alarms(performance: pa.Table, day: date, package: ModelPackage, use_case: UseCase) -> Iterator[Alarm]:
    """Yield one where a week of labels shows a quality that is lost."""
    if day not in performance["partition_on"].to_pylist():
        return
    noise = HoldoutNoise.of(package, use_case)
    verdict = performance_verdict(performance, package.metrics.holdout, noise=noise, unit=use_case.label.unit)
    if verdict.is_alarming:
        yield Alarm(
            kind="quality",
            subject=meaning_of(use_case.task).daily.name,
            severity="severe" if verdict.is_severe else "warning",
            explanation="; ".join(verdict.reasons),
            since=day,
        )


def _estimated_alarms(estimated: pa.Table, day: date, package: ModelPackage) -> Iterator[Alarm]:
    """Yield one for each measure whose interval lies beyond what the holdout allows, on two of three days.

    How wide the interval is, the errors of past estimates say. One that those call unreliable says nothing.
    """
    holdout, first = package.metrics.holdout, day - timedelta(days=N_DAYS - 1)
    rows = [row for row in estimated.to_pylist() if row["model_version"] == package.version]
    for metric, limit, is_loss in _limits(holdout):
        bound = "low" if is_loss else "high"
        bad = [
            row
            for row in rows
            if row["metric"] == metric
            and first <= row["partition_on"] <= day
            and row.get("is_reliable") is not False
            and row[bound] is not None
            and (row[bound] > limit if is_loss else row[bound] < limit)
        ]
        if len(bad) >= N_DAYS_DRIFTED:
            newest = bad[-1]
            yield Alarm(
                kind="estimated_quality",
                subject=metric,
                severity="warning",
                explanation=f"{words_of(metric)} of {newest['partition_on']} is estimated at {newest['estimated']:.4g} "
                f"({newest['low']:.4g} to {newest['high']:.4g}), {'above' if is_loss else 'below'} the {limit:.4g} "
                f"that the holdout's {getattr(holdout, metric):.4g} allows",
                since=bad[0]["partition_on"],
            )


def _limits(holdout: AnyMetrics) -> Iterator[tuple[str, float, bool]]:
    """Yield each measure that is estimated and judged, its limit, and whether more of it is worse."""
    if isinstance(holdout, RegressionMetrics):
        yield "rmse", holdout.rmse * (1 + RMSE_TOLERANCE), True
    elif holdout.roc_auc is not None:
        yield "roc_auc", holdout.roc_auc - ROC_AUC_TOLERANCE, False


def _skew_alarms(skew: pa.Table, day: date) -> Iterator[Alarm]:
    """Yield one for each view of which a row was served with other values than are recomputed: no day is too odd."""
    views: dict[str, list[Mapping[str, object]]] = {}
    for row in skew.to_pylist():
        if row["partition_on"] == day and row["n_different"]:
            views.setdefault(row["view"], []).append(row)
    for view, rows in sorted(views.items()):
        worst = max(rows, key=lambda row: _share_different(row))
        share = _share_different(worst)
        yield Alarm(
            kind="skew",
            subject=view,
            severity="severe" if share >= _SEVERE_SKEW_SHARE else "warning",
            explanation=f"{view}: {worst['feature']} was served with another value than is recomputed in "
            f"{percent(share)} of {worst['n_compared']} rows"
            + (f"; so were {len(rows) - 1} more of its features" if len(rows) > 1 else ""),
            since=day,
        )


def _share_different(row: Mapping[str, object]) -> float:
    return cast("int", row["n_different"]) / max(1, cast("int", row["n_compared"]))
