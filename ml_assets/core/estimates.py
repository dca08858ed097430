"""How good predictions ought to be, before anybody knows what happened: estimates from the predictions alone.

Of a classification it is confidence-based performance estimation (CBPE): a calibrated probability says how often its
own row is right, hence what every metric will be on average. NannyML describes it so for ROC AUC and others; here the
log loss and the Brier score come with it, the terms of a row with itself are left out of the ROC AUC, and each estimate
has the standard error that chance alone gives it. Of a regression it is direct loss estimation (DLE) kept simple: the
errors that the model showed on days it was not fitted on, by the height of its prediction.

What no such estimate can see is a changed relation between features and outcome (concept drift): it takes the
probabilities, or the errors, to mean what they meant. It does see that the days have become harder or easier.

References: NannyML, "Confidence-based Performance Estimation" and "Direct Loss Estimation"; Platt 1999 and Cox 1958 on
logistic recalibration; Hanley & McNeil 1982 and DeLong 1988 on the variance of a ROC AUC, of which this is the form for
outcomes that are independent and differ in their probability.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ml_assets.core.encoding import Task
from ml_assets.core.evaluation import Floats

# Closer to 0 or 1 than this a probability is taken for certain by mistake: its logit is kept finite.
_CLOSEST = 1e-6
_NEWTON_STEPS = 50
# Judgement: squared errors in tenths of the predictions; more would be noise on a holdout of weeks.
_N_LEVELS = 10


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a metric will be on average, and how far chance alone moves it around that."""

    value: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """A probability made honest: ``logit(c) = intercept + slope logit(p)``. 0 and 1 leave it as it is."""

    intercept: float = 0.0
    slope: float = 1.0

    def apply(self, p: Floats) -> Floats:
        """Return the recalibrated probabilities.

        >>> Recalibration(intercept=float(np.log(2))).apply(np.array([0.5])).round(4).tolist()
        [0.6667]
        """
        if (self.intercept, self.slope) == (0.0, 1.0):
            return p
        return sigmoid(self.intercept + self.slope * logit(p))


@dataclass(frozen=True, kw_only=True)
class ErrorLevels:
    """The errors a regression showed on held-out days, by the height of its prediction.

    ``edges`` are the upper edges of the levels but the last, ascending; every other tuple has one number more. ``bias``
    is the mean prediction less the mean label, the variances are of the squared and of the absolute errors.
    """

    edges: tuple[float, ...]
    n_rows: tuple[int, ...]
    bias: tuple[float, ...]
    squared_error: tuple[float, ...]
    squared_error_variance: tuple[float, ...]
    absolute_error: tuple[float, ...]
    absolute_error_variance: tuple[float, ...]

    @classmethod
    def of(cls, y: Floats, p: Floats) -> "ErrorLevels":
        """Measure the errors in levels of equal count; equal predictions share a level."""
        edges = np.unique(np.quantile(p, np.linspace(0, 1, _N_LEVELS + 1)[1:-1], method="lower"))
        edges = edges[edges < p.max()]  # or the highest level would be empty
        level, n_levels, error = np.searchsorted(edges, p, side="left"), len(edges) + 1, p - y
        n_rows = np.bincount(level, minlength=n_levels)

        def mean(values: Floats) -> Floats:
            return np.bincount(level, values, n_levels) / n_rows

        squared, absolute = mean(error**2), mean(np.abs(error))
        return cls(
            edges=tuple(edges.tolist()),
            n_rows=tuple(n_rows.tolist()),
            bias=tuple(mean(error).tolist()),
            squared_error=tuple(squared.tolist()),
            squared_error_variance=tuple(np.maximum(mean(error**4) - squared**2, 0).tolist()),
            absolute_error=tuple(absolute.tolist()),
            absolute_error_variance=tuple(np.maximum(squared - absolute**2, 0).tolist()),
        )

    def expected(self, p: Floats) -> Mapping[str, Expected]:
        """Estimate RMSE, MAE and mean label of rows with these predictions, shape (n,), n >= 1."""
        level = np.searchsorted(np.asarray(self.edges), p, side="left")

        def of(values: tuple[float, ...]) -> Floats:
            return np.asarray(values)[level]

        n_rows, squared, bias = len(p), of(self.squared_error), of(self.bias)
        rmse = float(np.sqrt(squared.mean()))
        # The root of a mean moves by half its relative error: the delta method.
        rmse_error = float(np.sqrt(of(self.squared_error_variance).sum()) / n_rows / (2 * rmse)) if rmse else 0.0
        mae_error = float(np.sqrt(of(self.absolute_error_variance).sum()) / n_rows)
        mean_error = float(np.sqrt(np.maximum(squared - bias**2, 0).sum()) / n_rows)
        return {
            "rmse": Expected(value=rmse, standard_error=rmse_error),
            "mae": Expected(value=float(of(self.absolute_error).mean()), standard_error=mae_error),
            "mean_label": Expected(value=float((p - bias).mean()), standard_error=mean_error),
        }


def expected_of_probabilities(p: Floats, calibrated: Floats) -> Mapping[str, Expected]:
    """Estimate log loss, Brier score, ROC AUC and positive share of rows that come true with these probabilities.

    Args:
        p: what was predicted, shape (n,), n >= 1.
        calibrated: how probable the positive class is in truth. Outcomes are taken to be independent given these; with
            0 and 1, what really happened, the metrics are those of the outcomes, and without noise.

    ``roc_auc`` is the expected number of pairs ranked rightly by that of pairs, ties counting half. It is left out
    where less than one positive or less than one negative row is expected.

    >>> found = expected_of_probabilities(np.array([0.2, 0.8]), np.array([0.2, 0.8]))
    >>> {name: round(expected.value, 4) for name, expected in found.items()}
    {'log_loss': 0.5004, 'brier': 0.16, 'positive_share': 0.5, 'roc_auc': 0.9412}
    """
    c, n_rows = calibrated, len(p)
    variance = c * (1 - c)
    q = np.clip(p, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    # A row costs -ln(1 - p) and, where it comes true, another -logit(p); of the Brier score p^2 and 1 - 2 p.
    lost, moved = -np.log1p(-q), np.log1p(-q) - np.log(q)
    found = {
        "log_loss": _mean(lost + c * moved, variance * moved**2),
        "brier": _mean(p**2 + c * (1 - 2 * p), variance * (1 - 2 * p) ** 2),
        "positive_share": _mean(c, variance),
    }
    n_positive = float(c.sum())
    if min(n_positive, n_rows - n_positive) >= 1:
        found["roc_auc"] = _expected_roc_auc(p, c)
    return found


def _expected_roc_auc(p: Floats, c: Floats) -> Expected:
    _, rank = np.unique(p, return_inverse=True)
    positive, negative = np.bincount(rank, c), np.bincount(rank, 1 - c)
    # Of each row: the negatives it would beat were it positive, and the positives it would lose to were it negative.
    beaten = (np.cumsum(negative) - negative / 2)[rank] - (1 - c) / 2
    lost_to = (positive.sum() - np.cumsum(positive) + positive / 2)[rank] - c / 2
    n_positive = float(c.sum())
    n_pairs = n_positive * (len(c) - n_positive) - float((c * (1 - c)).sum())
    value = float(c @ beaten) / n_pairs
    more_pairs = len(c) - 1 - 2 * (n_positive - c)
    slope = (beaten - lost_to - value * more_pairs) / n_pairs
    return Expected(value=value, standard_error=float(np.sqrt((c * (1 - c)) @ slope**2)))


def realised_quality(y: Floats, p: Floats, *, task: Task) -> Mapping[str, float]:
    """Return the metrics that are estimated as they came true, for labelled rows; both of shape (n,), n >= 1."""
    if task == "regression":
        error = p - y
        rmse, mae = float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))
        return {"rmse": rmse, "mae": mae, "mean_label": float(y.mean())}
    return {name: found.value for name, found in expected_of_probabilities(p, y).items()}


def fit_recalibration(y: Floats, p: Floats) -> Recalibration:
    """Fit intercept and slope by maximum likelihood, held to 0 and 1 as one more row each would hold them.

    That keeps them finite where the outcomes are separated, and moves them by nothing that counts where rows are many.
    """
    x, prior = logit(p), np.array([0.0, 1.0])
    weights = prior.copy()
    for _ in range(_NEWTON_STEPS):
        c = sigmoid(weights[0] + weights[1] * x)
        missed, spread = y - c, c * (1 - c)
        # Plain sums: a matrix product gives other bits with another number of threads.
        gradient = np.array([missed.sum(), (missed * x).sum()]) - (weights - prior)
        off = (spread * x).sum()
        curvature = np.array([[spread.sum() + 1, off], [off, (spread * x**2).sum() + 1]])
        step = np.linalg.solve(curvature, gradient)
        size = float(np.abs(step).max())
        # Far from the optimum a full step can overshoot, where all probabilities are near 0 or 1.
        weights += step * min(1.0, 2.0 / size) if size else 0.0
        if size < 1e-10:
            break
    return Recalibration(intercept=float(weights[0]), slope=float(weights[1]))


def logit(p: Floats) -> Floats:
    """Return ln(p / (1 - p)), of a probability kept 1e-6 from 0 and 1."""
    kept = np.clip(p, _CLOSEST, 1 - _CLOSEST)
    return np.log(kept) - np.log1p(-kept)


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def _mean(values: Floats, variances: Floats) -> Expected:
    n_rows = len(values)
    return Expected(value=float(values.mean()), standard_error=float(np.sqrt(variances.sum()) / n_rows))
