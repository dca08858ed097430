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
# Judgement: of the holdout's positive share, or of its RMSE. Less than a tenth changes nothing that anybody does; from
# a quarter on, a threshold that acts on the predictions acts on another share of the decisions.
SLIGHT_SHARE, LARGE_SHARE = 0.1, 0.25
# Judgement: a slope nearer to 1 leaves the predictions at both ends about where they were.
SLIGHT_TILT = 0.1
# Judgement: a week so many times its band away is no weather; in 2013, lived day by day, no model had one.
FAR = 2.0

_FIGURES = ("week_gap", "week_gap_margin", "week_slope", "week_slope_margin", "week_explanation")
_COLUMNS = ("partition_on", "model_version", *_FIGURES)
_WEEK = timedelta(days=N_DAYS_POOLED)


@dataclass(frozen=True, kw_only=True)
class _Week:
    """What the row of a day says of the week before it."""

    gap: float
    margin: float
    slope: float | None
    slope_margin: float | None
    explanation: str

    @property
    def side(self) -> int:
        """1 where the mean label lies above its band, -1 below, 0 within."""
        return 0 if abs(self.gap) <= self.margin else 1 if self.gap > 0 else -1

    @property
    def is_tilted(self) -> bool:
        """Whether the slope lies outside of its band, and far enough from 1 to matter."""
        if self.slope is None or self.slope_margin is None:
            return False
        return abs(self.slope - 1) > max(self.slope_margin, SLIGHT_TILT)

    def is_off_by(self, least: float) -> bool:
        """Whether the mean label lies outside of its band, and at least so far from the mean prediction."""
        return self.side != 0 and abs(self.gap) >= least


def calibration_alarms(performance: pa.Table, day: date, version: str, holdout: AnyMetrics) -> Iterator[Alarm]:
    """Yield one where the week was off on two of the last three days: beyond its band, and enough to matter.

    Args:
        performance: rows of ``monitoring.performance``; those of later days and of other versions do not count, and
            where the columns of the week are missing or null nothing is judged.
        day: the local day on which it would stand.
        version: the model that predicted the day.
        holdout: what that model showed on the holdout it was promoted on.

    A week counts where the mean label lies outside of its band of 99 % and a tenth of the holdout's positive share (of
    a regression, of its RMSE) from the mean prediction, or where the slope lies outside of its own and a tenth from 1.
    It is severe where on two of the three days they lie a quarter apart, and either lay outside on the same side in
    the week before (no week of weather lasts two), or lie more than twice the band apart. A slope that is off is a
    warning however far: the ranking is judged by itself.
    """
    weeks = _weeks(performance, day, version)
    whole = holdout.rmse if isinstance(holdout, RegressionMetrics) else holdout.positive_share
    newest = {each: week for each, week in weeks.items() if each > day - timedelta(days=N_DAYS)}
    bad = [each for each, week in newest.items() if week.is_off_by(SLIGHT_SHARE * whole) or week.is_tilted]
    if len(bad) < N_DAYS_DRIFTED:
        return
    large = [each for each in bad if weeks[each].is_off_by(LARGE_SHARE * whole)]
    lasting = [each for each in large if (before := weeks.get(each - _WEEK)) and before.side == weeks[each].side]
    grave = [each for each in large if each in lasting or abs(weeks[each].gap) > FAR * weeks[each].margin]
    is_lasting, is_severe = len(lasting) >= N_DAYS_DRIFTED, len(grave) >= N_DAYS_DRIFTED
    said = weeks[(grave if is_severe else bad)[-1]].explanation
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
            gap=row["week_gap"],
            margin=row["week_gap_margin"],
            slope=row["week_slope"],
            slope_margin=row["week_slope_margin"],
            explanation=row["week_explanation"],
        )
        for row in found.sort_by("partition_on").to_pylist()
    }
