"""How good predicted probabilities are: metrics, a calibration curve, and the loss of each row."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A probability of exactly 0 or 1 that proves wrong would cost infinitely much; sklearn.metrics.log_loss clips alike.
_SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The quality of predicted probabilities on labelled rows.

    ``roc_auc`` and ``pr_auc`` rank positives against negatives: they are None where the rows hold one class only.
    ``log_loss`` is in nats. ``calibration_error`` is the expected calibration error over 10 equal-count bins.
    """

    roc_auc: float | None
    pr_auc: float | None
    log_loss: float
    brier: float
    calibration_error: float
    n_rows: int
    positive_share: float


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Rows of similar prediction: what was predicted on average, and which share came true."""

    mean_prediction: float
    positive_share: float
    n_rows: int


def evaluate(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> Metrics:
    """Measure predicted probabilities against what happened.

    Args:
        labels: shape (n,), booleans or 0 and 1.
        predictions: shape (n,), probabilities of the positive class in [0, 1].

    Raises ValueError for no rows, unequal lengths, labels other than 0 and 1, or a prediction outside [0, 1] or NaN.

    >>> evaluate([False, True, False, True], [0.1, 0.9, 0.4, 0.35]).roc_auc
    0.75
    >>> evaluate([True, True], [0.8, 0.9]).roc_auc is None
    True
    """
    y, p = _checked(labels, predictions)
    bins = calibration_curve(y, p)
    has_both_classes = 0 < y.sum() < len(y)
    return Metrics(
        roc_auc=_roc_auc(y, p) if has_both_classes else None,
        pr_auc=_average_precision(y, p) if has_both_classes else None,
        log_loss=log_loss(y, p),
        brier=float(np.mean((p - y) ** 2)),
        calibration_error=sum(b.n_rows * abs(b.mean_prediction - b.positive_share) for b in bins) / len(y),
        n_rows=len(y),
        positive_share=float(y.mean()),
    )


def log_loss(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean negative log-likelihood in nats; predictions are kept one float64 epsilon from 0 and 1."""
    return float(np.mean(log_losses(labels, predictions)))


def log_losses(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> Floats:
    """Return the negative log-likelihood of each row in nats, float64 [n]; its mean is ``log_loss``."""
    y, p = _checked(labels, predictions)
    p = np.clip(p, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return -np.where(y == 1, np.log(p), np.log1p(-p))


def constant_log_loss(positive_share: npt.ArrayLike, prediction: float) -> Floats:
    """Return the log loss of predicting one probability for everyone, for groups of rows with these positive shares.

    >>> constant_log_loss([0.0, 0.5, 1.0], 0.5).round(4).tolist()
    [0.6931, 0.6931, 0.6931]
    """
    share = np.asarray(positive_share, np.float64)
    p = min(max(prediction, _SMALLEST_PROBABILITY), 1 - _SMALLEST_PROBABILITY)
    return -(share * np.log(p) + (1 - share) * np.log1p(-p))


def calibration_curve(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, n_bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Group rows into bins of equal count by prediction, lowest first.

    Bin edges are quantiles of the predictions. Equal predictions share a bin, so there are fewer than ``n_bins`` where
    many are equal, and the order of the rows does not matter.

    >>> [(b.mean_prediction, b.positive_share) for b in calibration_curve([0, 1, 1, 1], [0.2, 0.2, 0.7, 0.7], n_bins=2)]
    [(0.2, 0.5), (0.7, 1.0)]
    """
    y, p = _checked(labels, predictions)
    index, counts = equal_count_bins(p, n_bins)
    predicted, positive = np.bincount(index, p, len(counts)), np.bincount(index, y, len(counts))
    return tuple(
        CalibrationBin(
            mean_prediction=float(predicted[i] / counts[i]),
            positive_share=float(positive[i] / counts[i]),
            n_rows=int(counts[i]),
        )
        for i in np.flatnonzero(counts)
    )


def equal_count_bins(predictions: Floats, n_bins: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the bin of each prediction, int64 [n], lowest first, and how many rows each bin has."""
    edges = np.unique(np.quantile(predictions, np.linspace(0, 1, n_bins + 1)[1:-1], method="lower"))
    index = np.searchsorted(edges, predictions, side="left")
    return index, np.bincount(index, minlength=len(edges) + 1)


def _checked(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[Floats, Floats]:
    y, p = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    if y.ndim != 1 or y.shape != p.shape or not len(y):
        raise ValueError(f"found labels of shape {y.shape} and predictions of shape {p.shape}; expected (n,), n >= 1")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("found a label that is neither 0 nor 1; evaluate labelled rows only")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("found a prediction that is NaN or outside [0, 1]; expected probabilities")
    return y, p


def _roc_auc(y: Floats, p: Floats) -> float:
    """Return the share of (positive, negative) pairs ranked rightly, ties counting half: the Mann-Whitney U."""
    _, index, counts = np.unique(p, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    n_positive = y.sum()
    u = float(mean_rank[index] @ y) - n_positive * (n_positive + 1) / 2
    return float(u / (n_positive * (len(y) - n_positive)))


def _average_precision(y: Floats, p: Floats) -> float:
    """Return the sum over distinct thresholds of precision x gain in recall (no interpolation), as sklearn does."""
    values, index = np.unique(p, return_inverse=True)
    positive = np.bincount(index, y, len(values))[::-1]
    n_selected = np.cumsum(np.bincount(index, minlength=len(values))[::-1])
    return float(np.cumsum(positive) / n_selected @ positive / y.sum())
