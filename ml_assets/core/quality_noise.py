"""How much of what a week lacks against the holdout is noise: days differ, and so do the weeks made of them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ml_assets.core.intervals import Interval
from ml_assets.core.package import ModelPackage
from ml_assets.core.spec import UseCase

_NORMAL_95 = 1.959964
# Judgement: a week is looked at every day, so one look in 50 must not alarm by chance; t takes few days into account.
CONFIDENCE = 0.98


@dataclass(frozen=True, kw_only=True)
class HoldoutNoise:
    """The 95 % limits of a holdout's figures, over how many days they were drawn, and how many positives these had."""

    limits: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    n_days: int = 1
    n_positive: float = math.inf

    @staticmethod
    def of(package: ModelPackage, use_case: UseCase) -> "HoldoutNoise":
        """Return what a package holds of it; the days of a holdout lie between its gaps."""
        metrics = package.metrics
        apart = (package.as_of - package.manifest.last_validation_day).days
        share = getattr(metrics.holdout, "positive_share", None)
        return HoldoutNoise(
            limits=metrics.intervals,
            n_days=max(1, apart - 1 - 2 * use_case.split.gap_days),
            n_positive=math.inf if share is None else share * metrics.holdout.n_rows,
        )

    def error_of(self, measure: str) -> float:
        """Return the standard error of a figure of the holdout; 0 where its limits are not known."""
        limits = self.limits.get(measure)
        return (limits.high - limits.low) / (2 * _NORMAL_95) if limits else 0.0

    def margin(self, measure: str, week: pa.Table, figure: Callable[[pa.Table], float | None]) -> float:
        """Return how far below or above the holdout a figure of some days may lie by chance.

        The days' own spread counts where it is larger than what the holdout's days and positives tell of as many: a
        week of storms is more uneven than a month, and a calm week of few positives ranks them worse or better by luck.
        """
        of_holdout, n_days = self.error_of(measure), week.num_rows
        scale = self.n_days / n_days
        if math.isfinite(self.n_positive):
            n_positive = float(np.dot(week["n_labelled"].to_numpy(), week["positive_share"].to_numpy()))
            scale = max(scale, self.n_positive / max(1.0, n_positive))
        of_week = max(of_holdout * math.sqrt(scale), jackknife(week, figure))
        return quantile(n_days) * math.hypot(of_holdout, of_week)


def jackknife(days: pa.Table, figure: Callable[[pa.Table], float | None]) -> float:
    """Return the standard error of a figure over days, each left out once; infinite where it is not determined.

    >>> days = pa.table({"x": [1.0, 2.0, 3.0]})
    >>> round(jackknife(days, lambda rows: float(rows["x"].to_numpy().mean())), 4)
    0.5774
    """
    n = days.num_rows
    found = [figure(pa.concat_tables([days.slice(0, i), days.slice(i + 1)])) for i in range(n)]
    values = np.array([np.nan if value is None else value for value in found], np.float64)
    if n < 2 or np.isnan(values).any():
        return math.inf
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))


def quantile(n_days: int) -> float:
    """Return by how many standard errors a figure of some days may be off to one side."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1, n_days - 1), CONFIDENCE))
