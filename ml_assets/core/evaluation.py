"""How good predicted probabilities are: metrics, a calibration curve, and the two baselines a model must beat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.errors import TrainingDataMissing

Floats = npt.NDArray[np.float64]
Encoded = npt.NDArray[np.float32]

# A probability of exactly 0 or 1 that proves wrong would cost infinitely much; sklearn.metrics.log_loss clips alike.
_SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
# Judgement: the logistic baseline takes rarer values than the 256 most frequent ones for none of them.
_BASELINE_CATEGORIES = 256


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
    edges = np.unique(np.quantile(p, np.linspace(0, 1, n_bins + 1)[1:-1], method="lower"))
    index = np.searchsorted(edges, p, side="left")
    counts = np.bincount(index, minlength=len(edges) + 1)
    predicted, positive = np.bincount(index, p, len(counts)), np.bincount(index, y, len(counts))
    return tuple(
        CalibrationBin(
            mean_prediction=float(predicted[i] / counts[i]),
            positive_share=float(positive[i] / counts[i]),
            n_rows=int(counts[i]),
        )
        for i in np.flatnonzero(counts)
    )


def evaluate_baselines(train: pa.Table, test: pa.Table, features: Sequence[str]) -> dict[str, Metrics]:
    """Measure on ``test`` the ``baseline_predictions``; both tables have a boolean ``label`` without nulls.

    Raises TrainingDataMissing where the training rows hold one class only.
    """
    y_test = _label(test)
    return {name: evaluate(y_test, p) for name, p in baseline_predictions(train, test, features).items()}


def baseline_predictions(train: pa.Table, test: pa.Table, features: Sequence[str]) -> dict[str, Floats]:
    """Predict each row of ``test`` by what takes no model worth the name, both fitted on ``train`` alone.

    ``base_rate`` predicts the positive share of the training rows for everyone. ``logistic`` is a logistic regression
    on the named columns: numbers standardised with a missing one at the training mean, text one-hot with an unseen or
    missing category as all zeros. ``train`` has a boolean ``label`` without nulls.

    Raises TrainingDataMissing where the training rows hold one class only.
    """
    from sklearn.linear_model import LogisticRegression

    y_train = _label(train)
    positive_share = float(y_train.mean()) if len(y_train) else 0.0
    if not 0 < positive_share < 1:
        raise TrainingDataMissing(
            f"the {len(y_train)} training rows hold {int(y_train.sum())} positive labels; a baseline needs rows "
            "of both classes: train on more days"
        )
    columns = [_encode(train.column(name), test.column(name)) for name in features]
    # newton-cholesky on float32: a few exact steps where rows far outnumber columns, a sixth of the CPU of lbfgs.
    model = LogisticRegression(solver="newton-cholesky").fit(np.hstack([column for column, _ in columns]), y_train)
    logistic = cast("Floats", model.predict_proba(np.hstack([column for _, column in columns]))[:, 1])
    return {"base_rate": np.full(test.num_rows, positive_share), "logistic": logistic}


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


def _label(table: pa.Table) -> Floats:
    return np.asarray(table.column("label").cast(pa.int8()).to_numpy(), np.float64)


def _encode(train: pa.ChunkedArray, test: pa.ChunkedArray) -> tuple[Encoded, Encoded]:
    """Turn a column into standardised numbers or one-hot columns, shapes (n, k), by what the training rows show."""
    if pa.types.is_string(train.type) or pa.types.is_large_string(train.type) or pa.types.is_dictionary(train.type):
        categories = _most_frequent(train.cast(pa.string()).drop_null())
        return _one_hot(train, categories), _one_hot(test, categories)
    fitted, other = _numbers(train), _numbers(test)
    is_known = np.isfinite(fitted)
    mean = fitted[is_known].mean() if is_known.any() else 0.0
    spread = fitted[is_known].std() if is_known.any() else 0.0
    scaled = [np.where(np.isfinite(x), (x - mean) / (spread or 1.0), 0.0)[:, np.newaxis] for x in (fitted, other)]
    return scaled[0].astype(np.float32), scaled[1].astype(np.float32)


def _most_frequent(values: pa.ChunkedArray) -> pa.Array:
    """Return the most frequent values, sorted; a baseline does not need more, and one-hot columns are large."""
    counted = pa.Table.from_struct_array(values.value_counts())
    counted = counted.sort_by([("counts", "descending"), ("values", "ascending")]).slice(0, _BASELINE_CATEGORIES)
    return pa.array(sorted(counted["values"].to_pylist()), pa.string())


def _numbers(column: pa.ChunkedArray) -> Floats:
    """Return a column of numbers; one beyond float32 counts as infinite, as it does for the models."""
    numbers = np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    return np.where(np.abs(numbers) > np.finfo(np.float32).max, np.inf, numbers)


def _one_hot(column: pa.ChunkedArray, categories: pa.Array) -> Encoded:
    options = pc.SetLookupOptions(value_set=categories)
    codes = pc.call_function("index_in", [column.cast(pa.string())], options).fill_null(-1).to_numpy()
    return np.asarray(codes[:, np.newaxis] == np.arange(len(categories)), np.float32)
