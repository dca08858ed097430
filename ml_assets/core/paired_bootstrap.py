"""How much of a difference between two models is noise: a paired bootstrap over the days of the holdout.

The flights of one day share their weather and their queues, so days are drawn, not rows: with replacement, as many as
there are, the same days for both models. What is left out: that days in a row resemble each other too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_assets.core.encoding import Task
from ml_assets.core.evaluation import Floats, log_losses
from ml_assets.core.tasks import AnyMetrics, Measure, meaning_of

N_RESAMPLES = 1000
# Scores are grouped by rank for PR AUC, and rows of one group count as equal: exact up to this many distinct scores.
N_RANKS = 2000

_RANKINGS = ("roc_auc", "pr_auc")

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure measured on a holdout and its standard error over days.

    ``standard_error`` is None where fewer than two days have rows, or where it cannot be computed on most resamples.
    """

    value: float
    standard_error: float | None
    n_days: int

    def margin(self, confidence: float) -> float | None:
        """Return how far the truth may lie to one side with this confidence: t(n_days - 1) times the standard error.

        A confidence of 0.5 takes the figure as it is, whatever the noise. None where the noise is unknown.

        >>> round(Estimate(value=0.5, standard_error=0.1, n_days=21).margin(0.95), 4)
        0.1725
        """
        if confidence == 0.5:
            return 0.0
        if self.standard_error is None:
            return None
        from scipy.special import stdtrit

        return float(stdtrit(self.n_days - 1, confidence)) * self.standard_error


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Another model on the same holdout, and what the candidate gains over it: above 0 the candidate is better.

    ``gains`` are by measure, those that the task compares: of a loss the other's figure less the candidate's, of any
    other measure the candidate's less the other's. One that the holdout does not determine, such as a ranking of one
    class, is left out.
    """

    other: AnyMetrics
    gains: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class DayResamples:
    """Draws of the days of one holdout, the same for every model and figure.

    ``day`` is the place of each row's day, int64 [n]; ``weights`` how often each day was drawn, float64 [1 + b, days],
    of which the first row is the holdout itself: every day once.
    """

    day: Codes
    weights: Floats

    @classmethod
    def of(cls, days: npt.ArrayLike, *, seed: int, n_resamples: int = N_RESAMPLES) -> "DayResamples":
        """Draw the days of these rows; ``days`` names the day of each row, shape (n,)."""
        names, day = np.unique(np.asarray(days), return_inverse=True)
        n_days = len(names)
        drawn = np.random.default_rng(seed).multinomial(n_days, np.full(n_days, 1 / n_days), size=n_resamples)
        return cls(day=day.astype(np.int64), weights=np.vstack([np.ones(n_days), drawn.astype(np.float64)]))

    def only(self, rows: npt.NDArray[np.bool_]) -> "DayResamples":
        """Return the same draws for a part of the rows."""
        return DayResamples(day=self.day[rows], weights=self.weights)

    def log_loss(self, y: Floats, p: Floats) -> Floats:
        """Return the log loss on the holdout and on each resample, float64 [1 + b]; NaN for one without rows."""
        return _ratio(self.weights @ self._by_day(log_losses(y, p)), self.weights @ self._by_day(np.ones(len(y))))

    def roc_auc(self, y: Floats, p: Floats) -> Floats:
        """Return the ROC AUC on the holdout and on each resample, float64 [1 + b]; NaN for one of one class.

        Exact: the pairs ranked rightly are counted once for each two days, and a resample weighs these counts.
        """
        _, rank = np.unique(p, return_inverse=True)
        n_days, n_ranks = self.weights.shape[1], int(rank.max()) + 1
        is_positive = y == 1
        positive_rank, positive_day = rank[is_positive], self.day[is_positive]
        won = np.zeros((n_days, n_days))
        for other in range(n_days):
            negatives = np.bincount(rank[~is_positive & (self.day == other)], minlength=n_ranks)
            # Equal scores count half.
            beaten = (np.cumsum(negatives) - negatives / 2)[positive_rank]
            won[:, other] = np.bincount(positive_day, beaten, n_days)
        n_positive, n_negative = self.weights @ self._by_day(y), self.weights @ self._by_day(1 - y)
        return _ratio(((self.weights @ won) * self.weights).sum(axis=1), n_positive * n_negative)

    def pr_auc(self, y: Floats, p: Floats) -> Floats:
        """Return the average precision on the holdout and on each resample, float64 [1 + b]; NaN without a positive."""
        values, rank = np.unique(p, return_inverse=True)
        if len(values) > N_RANKS:
            rank = rank * N_RANKS // len(values)
        n_days, n_ranks = self.weights.shape[1], int(rank.max()) + 1
        place = self.day * n_ranks + (n_ranks - 1 - rank)
        shape = (n_days, n_ranks)
        positive = self.weights @ np.bincount(place, y, n_days * n_ranks).reshape(shape)
        chosen = self.weights @ np.bincount(place, minlength=n_days * n_ranks).reshape(shape)
        precision = _ratio(np.cumsum(positive, axis=1), np.cumsum(chosen, axis=1))
        return _ratio(np.nansum(precision * positive, axis=1), positive.sum(axis=1))

    def rmse(self, y: Floats, p: Floats) -> Floats:
        """Return the root mean squared error on the holdout and on each resample, float64 [1 + b]; NaN without rows."""
        return np.sqrt(_ratio(self.weights @ self._by_day((p - y) ** 2), self.weights @ self._by_day(np.ones(len(y)))))

    def mae(self, y: Floats, p: Floats) -> Floats:
        """Return the mean absolute error on the holdout and on each resample, float64 [1 + b]; NaN without rows."""
        return _ratio(self.weights @ self._by_day(np.abs(p - y)), self.weights @ self._by_day(np.ones(len(y))))

    def r2(self, y: Floats, p: Floats) -> Floats:
        """Return the share of the variance explained, float64 [1 + b]; NaN where all labels of a resample are equal."""
        n_rows, centred = self.weights @ self._by_day(np.ones(len(y))), y - y.mean()
        mean = _ratio(self.weights @ self._by_day(centred), n_rows)
        variation = self.weights @ self._by_day(centred**2) - n_rows * mean**2
        # What rounding leaves of a variation of 0 is none.
        variation[variation <= 1e-12 * n_rows * centred.var()] = 0.0
        return 1 - _ratio(self.weights @ self._by_day((p - y) ** 2), variation)

    def figure(self, measure: str, y: Floats, p: Floats) -> Floats:
        """Return a measure by its name on the holdout and on each resample, float64 [1 + b]; NaN where undetermined."""
        figures = (self.log_loss, self.roc_auc, self.pr_auc, self.rmse, self.mae, self.r2)
        return next(figure for figure in figures if figure.__name__ == measure)(y, p)

    def estimate(self, figures: Floats) -> Estimate | None:
        """Return the figure of the holdout with its standard error over the resamples; None where it has none.

        The spread of resamples of D days is too small by the factor sqrt((D - 1) / D), which is undone here.
        """
        if not np.isfinite(figures[0]):
            return None
        n_days, drawn = len(np.unique(self.day)), figures[1:][np.isfinite(figures[1:])]
        is_known = n_days > 1 and 2 * len(drawn) > len(figures)
        error = float(np.std(drawn) * np.sqrt(n_days / (n_days - 1))) if is_known else None
        return Estimate(value=float(figures[0]), standard_error=error, n_days=n_days)

    def compare(
        self, y: Floats, candidate: Floats, other: Floats, *, task: Task = "binary_classification"
    ) -> Comparison:
        """Measure another model on the same rows, and what the candidate gains over it; all of shape (n,)."""
        meaning = meaning_of(task)
        gains = {m.name: self.gain(m, y, candidate, other) for m in meaning.compared}
        if gains[meaning.loss.name] is None:
            raise ValueError("the holdout has no rows to compare two models on")
        return Comparison(
            other=meaning.evaluate(y, other),
            gains={name: gain for name, gain in gains.items() if gain is not None},
        )

    def gain(self, measure: Measure, y: Floats, candidate: Floats, other: Floats) -> Estimate | None:
        """Return what the candidate gains over another model in a measure; None where the rows do not determine it."""
        if measure.name in _RANKINGS and not 0 < y.sum() < len(y):
            return None
        ours, theirs = (self.figure(measure.name, y, p) for p in (candidate, other))
        return self.estimate(theirs - ours if measure.is_loss else ours - theirs)

    def _by_day(self, values: Floats) -> Floats:
        return np.bincount(self.day, values, self.weights.shape[1]).astype(np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
