"""When the calibration of a week is an alarm: what is predicted no longer comes true, however well it still ranks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

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
# Judgement: a week so many times its band away is no weather; in 2013, lived day by day, no model had one.
FAR = 2.0

_COLUMNS = ("partition_on", "model_version", "is_miscalibrated", "week_gap", "week_gap_margin", "week_explanation")
_WEEK = timedelta(days=N_DAYS_POOLED)


@dataclass(frozen=True, kw_only=True)
class _Week:
    """What the row of a day says of the week before it."""

    is_miscalibrated: bool
    gap: float
    margin: float
    explanation: str

    @property
    def side(self) -> int:
        """1 where the mean label lies above its band, -1 below, 0 within."""
        return 0 if abs(self.gap) <= self.margin else 1 if self.gap > 0 else -1


def calibration_alarms(performance: pa.Table, day: date, version: str, holdout: AnyMetrics) -> Iterator[Alarm]:
    """Yield one where the last week was miscalibrated, beyond its band of 99 %, on two of the last three days.

    Args:
        performance: rows of ``monitoring.performance``; those of later days and of other versions do not count, and
            where the columns of the week are missing or null nothing is judged.
        day: the local day on which it would stand.
        version: the model that predicted the day.
        holdout: what that model showed on the holdout it was promoted on.

    It is severe where on two of the three days the mean label left the band by at least a quarter of the holdout's
    positive share (of a regression, of its RMSE), and left it to the same side in the week before: no week of weather
    lasts two. Where it is twice the band away it is severe at once. A slope that is off is a warning however far: the
    ranking is judged by itself.
    """
    weeks = _weeks(performance, day, version)
    bad = [each for each, week in weeks.items() if each > day - timedelta(days=N_DAYS) and week.is_miscalibrated]
    if len(bad) < N_DAYS_DRIFTED:
        return
    least = LARGE_SHARE * (holdout.rmse if isinstance(holdout, RegressionMetrics) else holdout.positive_share)
    large = [each for each in bad if weeks[each].side and abs(weeks[each].gap) >= least]
    lasting = [each for each in large if (before := weeks.get(each - _WEEK)) and before.side == weeks[each].side]
    far = [each for each in large if abs(weeks[each].gap) > FAR * weeks[each].margin]
    is_lasting, is_severe = (len(found) >= N_DAYS_DRIFTED for found in (set(lasting), {*lasting, *far}))
    said = weeks[bad[-1]].explanation
    yield Alarm(
        kind="calibration",
        subject=SUBJECT,
        severity="severe" if is_severe else "warning",
        explanation=f"{said}; the week before was off the same way" if is_lasting else said,
        since=bad[0],
    )


def _weeks(performance: pa.Table, day: date, version: str) -> Mapping[date, _Week]:
    """Return what a version's rows up to a day say of their weeks, by day, oldest first."""
    if not set(_COLUMNS) <= set(performance.column_names):
        return {}
    of_version = (pc.field("model_version") == version) & (pc.field("partition_on") <= pa.scalar(day))
    found = performance.select(_COLUMNS).filter(of_version & pc.field("week_gap_margin").is_valid())
    return {
        row["partition_on"]: _Week(
            is_miscalibrated=row["is_miscalibrated"],
            gap=row["week_gap"],
            margin=row["week_gap_margin"],
            explanation=row["week_explanation"],
        )
        for row in found.sort_by("partition_on").to_pylist()
    }
