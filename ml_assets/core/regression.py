"""How good predicted numbers are: the metrics of a regression, in the unit of its label, and its errors by decile."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_assets.core.evaluation import Floats, equal_count_bins


@dataclass(frozen=True, kw_only=True)
class RegressionMetrics:
    """The quality of predicted numbers on labelled rows, in the unit of the label unless said otherwise.

    ``rmse`` is the root of the mean squared error, the loss that trainers minimise and candidates are compared by.
    ``bias`` is the mean prediction less the mean label. ``r2`` (no unit) is the share of the labels' variance that is
    explained: 0 is as good as their mean, below 0 worse; None where all labels are equal. ``calibration_error`` is the
    mean distance between mean prediction and mean label over 10 equal-count bins of the predictions.
    """

    rmse: float
    mae: float
    median_absolute_error: float
    r2: float | None
    bias: float
    calibration_error: float
    n_rows: int
    mean_label: float
    label_spread: float


@dataclass(frozen=True, kw_only=True)
class PredictionBin:
    """Rows of similar prediction: what was predicted and what happened on average, and how far the two lie apart."""

    mean_prediction: float
    mean_label: float
    mean_absolute_error: float
    n_rows: int

    @property
    def bias(self) -> float:
        """The mean prediction less the mean label."""
        return self.mean_prediction - self.mean_label


def evaluate_regression(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> RegressionMetrics:
    """Measure predicted numbers against what happened; both of shape (n,), in the same unit.

    ``label_spread`` is the standard deviation of the labels. Raises ValueError for no rows, unequal lengths, or a
    number that is not finite.

    >>> found = evaluate_regression([100, 200, 300], [110, 190, 330])
    >>> (round(found.rmse, 2), round(found.mae, 2), found.median_absolute_error, round(found.r2, 3), found.bias)
    (19.15, 16.67, 10.0, 0.945, 10.0)
    """
    y, p = _checked(labels, predictions)
    error = p - y
    variance = float(np.var(y))
    bins = prediction_bins(y, p)
    return RegressionMetrics(
        rmse=float(np.sqrt(np.mean(error**2))),
        mae=float(np.mean(np.abs(error))),
        median_absolute_error=float(np.median(np.abs(error))),
        r2=1 - float(np.mean(error**2)) / variance if np.ptp(y) > 0 else None,
        bias=float(np.mean(error)),
        calibration_error=sum(b.n_rows * abs(b.bias) for b in bins) / len(y),
        n_rows=len(y),
        mean_label=float(y.mean()),
        label_spread=float(np.sqrt(variance)),
    )


def rmse(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the root of the mean squared error, in the unit of the label."""
    y, p = _checked(labels, predictions)
    return float(np.sqrt(np.mean((p - y) ** 2)))


def prediction_bins(labels: npt.ArrayLike, predictions: npt.ArrayLike, n_bins: int = 10) -> tuple[PredictionBin, ...]:
    """Group rows into bins of equal count by prediction, lowest first; equal predictions share a bin.

    >>> [(b.mean_prediction, b.mean_label, b.mean_absolute_error) for b in prediction_bins([1, 3, 9], [2, 2, 8], 2)]
    [(2.0, 2.0, 1.0), (8.0, 9.0, 1.0)]
    """
    y, p = _checked(labels, predictions)
    index, counts = equal_count_bins(p, n_bins)
    predicted, happened, distance = (np.bincount(index, v, len(counts)) for v in (p, y, np.abs(p - y)))
    return tuple(
        PredictionBin(
            mean_prediction=float(predicted[i] / counts[i]),
            mean_label=float(happened[i] / counts[i]),
            mean_absolute_error=float(distance[i] / counts[i]),
            n_rows=int(counts[i]),
        )
        for i in np.flatnonzero(counts)
    )


def _checked(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[Floats, Floats]:
    y, p = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    if y.ndim != 1 or y.shape != p.shape or not len(y):
        raise ValueError(f"found labels of shape {y.shape} and predictions of shape {p.shape}; expected (n,), n >= 1")
    for name, values in (("label", y), ("prediction", p)):
        n_bad = int(np.count_nonzero(~np.isfinite(values)))
        if n_bad:
            raise ValueError(f"found {n_bad} of {len(values)} {name}s that are no finite number; evaluate others only")
    return y, p
