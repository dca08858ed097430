"""When the calibration of a week is an alarm: what is predicted no longer comes true, however well it still ranks."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.calibration import N_DAYS_POOLED
from ml_assets.core.drift_alarms import N_DAYS, N_DAYS_DRIFTED
from ml_assets.core.incidents import Alarm
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.tasks import AnyMetrics

# What an incident is about: a model has one calibration.
SUBJECT = "predictions"
# Judgement: a threshold that acts on the predictions then acts on another share of the decisions.
LARGE_SHARE = 0.25

_COLUMNS = ("partition_on", "model_version", "is_miscalibrated", "week_gap", "week_gap_margin", "week_explanation")
_WEEK = timedelta(days=N_DAYS_POOLED)


def calibration_alarms(performance: pa.Table, day: date, version: str, holdout: AnyMetrics) -> Iterator[Alarm]:
    """Yield one where the last week was miscalibrated, beyond its band of 99 %, on two of the last three days.

    Args:
        performance: rows of ``monitoring.performance``; those of later days and of other versions do not count, and
            where the columns of the week are missing or null nothing is judged.
        day: the local day on which it would stand.
        version: the model that predicted the day.
        holdout: what that model showed on the holdout it was promoted on.

    It is severe where the mean label left the band, by at least a quarter of the holdout's positive share (of a
    regression, of its RMSE), on two of the three days, and left it to the same side in the week before each: no week of
    weather lasts two. A slope that is off is a warning however far: the ranking is judged by itself.
    """
    rows = _rows(performance, day, version)
    bad = [row for each, row in rows.items() if each > day - timedelta(days=N_DAYS) and row["is_miscalibrated"]]
    if len(bad) < N_DAYS_DRIFTED:
        return
    least = LARGE_SHARE * (holdout.rmse if isinstance(holdout, RegressionMetrics) else holdout.positive_share)
    n_lasting = sum(_is_lasting(row, rows.get(cast("date", row["partition_on"]) - _WEEK), least) for row in bad)
    is_severe, said = n_lasting >= N_DAYS_DRIFTED, cast("str", bad[-1]["week_explanation"])
    yield Alarm(
        kind="calibration",
        subject=SUBJECT,
        severity="severe" if is_severe else "warning",
        explanation=f"{said}; the week before was off the same way" if is_severe else said,
        since=cast("date", bad[0]["partition_on"]),
    )


def _rows(performance: pa.Table, day: date, version: str) -> Mapping[date, Mapping[str, object]]:
    """Return what a version's rows up to a day say of their weeks, by day, oldest first."""
    if not set(_COLUMNS) <= set(performance.column_names):
        return {}
    of_version = (pc.field("model_version") == version) & (pc.field("partition_on") <= pa.scalar(day))
    found = performance.select(_COLUMNS).filter(of_version).sort_by("partition_on")
    return {row["partition_on"]: row for row in found.to_pylist()}


def _is_lasting(row: Mapping[str, object], before: Mapping[str, object] | None, least: float) -> bool:
    """Tell whether a week is off by so much at least, and the week before it to the same side."""
    gap, gap_before = _gap(row), _gap(before) if before else 0.0
    return abs(gap) >= least and gap * gap_before > 0


def _gap(row: Mapping[str, object]) -> float:
    """Return by how much the mean label of a week lies off its mean prediction; 0 where it is within its band."""
    gap, margin = cast("float | None", row["week_gap"]), cast("float | None", row["week_gap_margin"])
    return gap if gap is not None and margin is not None and abs(gap) > margin else 0.0
