"""How sure a metric is: intervals by resampling whole days, since flights of one day are not independent."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_assets.core.encoding import Task
from ml_assets.core.evaluation import log_losses

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
_CELLS_AT_ONCE = 400_000  # rows x resamples; 3 MB an array, which a cache holds: four times as fast as 30 MB


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where a metric lies with a confidence of 95 %, were other days drawn."""

    low: float
    high: float


def day_resamples(n_days: int, *, n_resamples: int, seed: int) -> Floats:
    """Return how often each day is drawn in each resample, shape (n_days, n_resamples); every column sums to n_days.

    Two models are compared by the same draws: take the difference of their ``resampled_metrics``.

    >>> day_resamples(3, n_resamples=4, seed=1).sum(axis=0).tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    draws = np.random.default_rng(seed).multinomial(n_days, np.full(n_days, 1 / n_days), size=n_resamples)
    return np.ascontiguousarray(draws.T, dtype=np.float64)


def resampled_metrics(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, day_index: npt.NDArray[np.int64], draws: Floats
) -> Mapping[str, Floats]:
    """Return roc_auc, pr_auc, log_loss and brier on every resample, each of shape (n_resamples,).

    A row counts as often as its day was drawn. A metric is NaN for a resample without rows, and a ranking for one
    without both classes.

    Args:
        labels: shape (n,), booleans or 0 and 1.
        predictions: shape (n,), probabilities.
        day_index: shape (n,), the row of ``draws`` that is a row's day.
        draws: what ``day_resamples`` returns.
    """
    y, p = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    n_days, n_resamples = draws.shape
    n_rows = np.bincount(day_index, minlength=n_days) @ draws
    logarithmic, quadratic = log_losses(y, p), (p - y) ** 2
    parts: list[tuple[Floats, Floats]] = []
    width = max(1, _CELLS_AT_ONCE // max(1, len(y)))
    for start in range(0, n_resamples, width):
        parts.append(_rankings(y, p, day_index, draws[:, start : start + width]))
    with np.errstate(invalid="ignore"):
        return {
            "roc_auc": np.concatenate([roc for roc, _ in parts]),
            "pr_auc": np.concatenate([pr for _, pr in parts]),
            "log_loss": np.bincount(day_index, logarithmic, n_days) @ draws / n_rows,
            "brier": np.bincount(day_index, quadratic, n_days) @ draws / n_rows,
        }


def resampled_regression_metrics(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, day_index: npt.NDArray[np.int64], draws: Floats
) -> Mapping[str, Floats]:
    """Return rmse, mae, bias and r2 on every resample, each of shape (n_resamples,); arguments as above.

    A metric is NaN for a resample without rows, ``r2`` also where all labels of a resample are equal.
    """
    y, p = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)

    def total(values: Floats) -> Floats:
        return np.bincount(day_index, values, len(draws)) @ draws

    # Sums of squares about the mean of all rows lose no digits, wherever the labels lie.
    error, centred = p - y, y - (y.mean() if len(y) else 0.0)
    n_rows, squared = total(np.ones(len(y))), total(error**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        variation = total(centred**2) - total(centred) ** 2 / n_rows
        return {
            "rmse": np.sqrt(squared / n_rows),
            "mae": total(np.abs(error)) / n_rows,
            "bias": total(error) / n_rows,
            "r2": np.where(variation > 1e-12 * n_rows * np.var(y), 1 - squared / variation, np.nan),
        }


def confidence_intervals(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    days: npt.ArrayLike,
    *,
    seed: int,
    n_resamples: int = 200,
    task: Task = "binary_classification",
) -> dict[str, Interval]:
    """Return the 95 % intervals of roc_auc, pr_auc, log_loss and brier, or for a regression of rmse, mae, bias and r2.

    The cluster bootstrap with percentile limits (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    sections 3.8 and 5.3): whole days are drawn with replacement, as many as there are. What links one day to the next
    is not kept, so that a spell of bad weather makes the intervals somewhat too narrow; and 200 resamples place a
    limit to about a tenth of the interval's width. A metric that more than half of the resamples leave undefined has
    no interval, and none has one where all rows are of one day.

    Args:
        labels: shape (n,), booleans or 0 and 1, or for a regression numbers.
        predictions: shape (n,), probabilities, or for a regression numbers.
        days: shape (n,), the day of each row; anything that sorts.
        seed: of the draws; the same gives the same intervals.
        n_resamples: how many draws of days.
        task: what is predicted.
    """
    distinct, day_index = np.unique(np.asarray(days), return_inverse=True)
    if len(distinct) < 2:
        return {}
    draws = day_resamples(len(distinct), n_resamples=n_resamples, seed=seed)
    found: dict[str, Interval] = {}
    resampled = resampled_regression_metrics if task == "regression" else resampled_metrics
    for name, values in resampled(labels, predictions, day_index.astype(np.int64), draws).items():
        defined = values[~np.isnan(values)]
        if 2 * len(defined) > n_resamples:
            low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            found[name] = Interval(low=float(low), high=float(high))
    return found


def _rankings(y: Floats, p: Floats, day_index: npt.NDArray[np.int64], draws: Floats) -> tuple[Floats, Floats]:
    """Return ROC AUC and average precision of these resamples, as core.evaluation defines them, rows weighted."""
    order = np.argsort(-p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=np.inf))
    weights = draws[day_index[order]]
    selected = np.cumsum(np.add.reduceat(weights, starts, axis=0), axis=0)
    weights *= y[order, None]
    positive = np.add.reduceat(weights, starts, axis=0)
    found = np.cumsum(positive, axis=0)
    n_positive, n_negative = found[-1], selected[-1] - found[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        # A positive outranks the negatives below its own group, and half of those in it.
        negatives_above = selected - found
        below = n_negative - negatives_above + np.diff(negatives_above, axis=0, prepend=0) / 2
        roc_auc = np.einsum("ij,ij->j", positive, below) / (n_positive * n_negative)
        precision = np.divide(found, selected, out=np.zeros_like(found), where=selected > 0)
        pr_auc = np.einsum("ij,ij->j", precision, positive) / n_positive
    pr_auc[n_negative == 0] = np.nan
    return roc_auc, pr_auc
