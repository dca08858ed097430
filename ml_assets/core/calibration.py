"""Calibration over time: whether what was predicted for a week is what happened, beyond what chance brings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml_assets.core.encoding import Task
from ml_assets.core.estimates import fit_recalibration, logit, sigmoid
from ml_assets.core.evaluation import Floats, equal_count_bins
from ml_assets.core.expectations import DayNoise
from ml_assets.core.scored_rows import DayRows

# A single day says nothing: the flights of one day share their weather.
N_DAYS_POOLED = 7
MINIMUM_DAYS = 3
# Judgement, of two sides together: with weeks that overlap, a calibrated model leaves the band for days about once a
# year.
CONFIDENCE = 0.99
_N_BINS = 10


@dataclass(frozen=True, kw_only=True)
class WeekCalibration:
    """How calibrated the days of about a week were, pooled; the columns ``week_...`` of ``monitoring.performance``.

    ``gap`` is the mean label less the mean prediction. ``slope`` and ``intercept`` are those of a recalibration: 1 and
    0 of a calibrated model, a slope below 1 of one that is too sure of itself (Cox 1958; Steyerberg 2019). Each margin
    is the half width of a band of 99 % around what a calibrated model shows. ``error`` is the mean distance between
    mean label and mean prediction over ten bins, ``error_by_chance`` what it would be of a calibrated model.
    """

    n_days: int
    n_labelled: int
    mean_prediction: float
    mean_label: float
    gap: float
    gap_margin: float | None
    slope: float | None
    slope_margin: float | None
    intercept: float | None
    error: float
    error_by_chance: float
    is_miscalibrated: bool

    def as_columns(self) -> dict[str, object]:
        """Return the figures under the names of their columns."""
        named = {f"week_{name}": value for name, value in vars(self).items() if name != "is_miscalibrated"}
        return {**named, "is_miscalibrated": self.is_miscalibrated, "week_explanation": self.explanation}

    @property
    def explanation(self) -> str:
        """What the figures say, in one sentence."""
        told = (
            f"over {self.n_days} days {self.mean_prediction:.4g} was predicted and {self.mean_label:.4g} was realised"
        )
        if self.gap_margin is None:
            return f"{told}: too few days to judge the calibration"
        told += f" on average, {abs(self.gap):.2g} apart where chance allows {self.gap_margin:.2g}"
        if self.slope is not None and self.slope_margin is not None:
            told += f"; slope {self.slope:.2f} (1 is calibrated, give or take {self.slope_margin:.2f})"
        return f"{'miscalibrated' if self.is_miscalibrated else 'no miscalibration shown'}: {told}"


def week_calibration(days: Sequence[DayRows], *, task: Task, noise: DayNoise | None) -> WeekCalibration | None:
    """Pool days of one model and hold them against its predictions; None without days.

    Args:
        days: with at least one known label each.
        task: what is predicted; of a regression the slope is that of the labels on the predictions.
        noise: how far the mean label of single held-out days strayed from its estimate, from the model package.

    The bands are as wide as whole days differ: days are drawn together, not rows (cluster-robust variances, Liang &
    Zeger 1986), and where held-out days differed more than these, the gap's band is as wide as theirs. With fewer than
    three days there are no margins, and nothing is judged.
    """
    if not days:
        return None
    y, p = (np.concatenate(parts) for parts in zip(*(day.known for day in days), strict=True))
    sizes = [int(day.is_known.sum()) for day in days]
    day = np.repeat(np.arange(len(days)), sizes)
    gap = float(y.mean() - p.mean())
    gap_margin = slope = slope_margin = intercept = None
    if len(days) >= MINIMUM_DAYS:
        gap_margin = _gap_margin(y - p, day, noise)
        fitted = _slope(y, p, day, task)
        if fitted is not None:
            intercept, slope, slope_margin = fitted
    off = gap_margin is not None and abs(gap) > gap_margin
    tilted = slope is not None and slope_margin is not None and abs(slope - 1) > slope_margin
    error, error_by_chance = _binned(y, p, task)
    return WeekCalibration(
        n_days=len(days),
        n_labelled=len(y),
        mean_prediction=float(p.mean()),
        mean_label=float(y.mean()),
        gap=gap,
        gap_margin=gap_margin,
        slope=slope,
        slope_margin=slope_margin,
        intercept=intercept,
        error=error,
        error_by_chance=error_by_chance,
        is_miscalibrated=off or tilted,
    )


def _gap_margin(residuals: Floats, day: np.ndarray, noise: DayNoise | None) -> float:
    """Return the half width of the band of a mean residual, by its own days or by held-out ones if those vary more."""
    n_days, n_rows = int(day[-1]) + 1, np.bincount(day)
    centred = np.bincount(day, residuals - residuals.mean())
    own = float(centred @ centred) * n_days / (n_days - 1) / len(residuals) ** 2
    margins = [_quantile(n_days - 1) * np.sqrt(own)]
    if noise is not None and noise.n_days > 1:
        chance = np.bincount(day, (residuals - residuals.mean()) ** 2)
        held_out = float((chance + max(noise.variance, 0.0) * n_rows**2).sum()) / len(residuals) ** 2
        margins.append(_quantile(noise.n_days - 1) * np.sqrt(held_out))
    return float(max(margins))


def _slope(y: Floats, p: Floats, day: np.ndarray, task: Task) -> tuple[float, float, float] | None:
    """Return intercept, slope and the slope's margin; None where labels or predictions do not vary enough."""
    if np.ptp(y) == 0 or np.ptp(p) == 0:
        return None
    if task == "regression":
        x, weight = p, np.ones(len(p))
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
        intercept = float(y.mean() - slope * x.mean())
        missed = y - intercept - slope * x
    else:
        fitted = fit_recalibration(y, p)
        x, (intercept, slope) = logit(p), (fitted.intercept, fitted.slope)
        c = sigmoid(intercept + slope * x)
        weight, missed = c * (1 - c), y - c
    # The sandwich: the slope moves with the missed part of each row, weighed by how far its x is from the mean.
    centred = x - (weight * x).sum() / weight.sum()
    information = float((weight * centred**2).sum())
    if information <= 0:
        return None
    by_day = np.bincount(day, missed * centred)
    n_days = len(by_day)
    variance = float(by_day @ by_day) * n_days / (n_days - 1) / information**2
    return intercept, slope, _quantile(n_days - 1) * float(np.sqrt(variance))


def _binned(y: Floats, p: Floats, task: Task) -> tuple[float, float]:
    """Return the mean distance of ten bins, and what chance alone makes of it: the mean of a half-normal each."""
    index, n_rows = equal_count_bins(p, _N_BINS)
    used = n_rows > 0
    gap, n_rows = np.bincount(index, y - p, len(used))[used], n_rows[used]
    spread = (y - p) ** 2 if task == "regression" else p * (1 - p)
    by_chance = np.sqrt(2 / np.pi * np.bincount(index, spread, len(used))[used])
    return float(np.abs(gap).sum() / len(y)), float(by_chance.sum() / len(y))


def _quantile(n_degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n_degrees, (1 + CONFIDENCE) / 2))
