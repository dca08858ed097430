"""How good the predicted numbers of a day proved to be: figures that add up over days, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.core.baselines import labels_of
from ml_assets.core.drift_tests import percent
from ml_assets.core.evaluation import Floats
from ml_assets.core.quality_noise import HoldoutNoise, jackknife, quantile
from ml_assets.core.regression import PredictionBin, RegressionMetrics, evaluate_regression

# Judgement: errors grow with the weather, and a week of them says little; a quarter more is a model that has aged.
RMSE_TOLERANCE = 0.25


@dataclass(frozen=True, kw_only=True)
class QualityFinding:
    """What some days say of a model in one sentence, whether that is alarming, and how much it is.

    ``is_large``: more than twice what is tolerated, and beyond the noise. ``is_far``: more than four times what is
    tolerated, and more than twice the noise.
    """

    is_failed: bool
    words: str
    is_large: bool = False
    is_far: bool = False


@dataclass(frozen=True, kw_only=True)
class ErrorBins:
    """Labelled predictions added up in fixed bins, so that days can be pooled without their rows.

    ``edges`` are the upper edges of the bins but the last, ascending; every other tuple has one number more: the rows,
    and the sums of labels, predictions and absolute errors.
    """

    edges: tuple[float, ...]
    n_rows: tuple[int, ...]
    label_sum: tuple[float, ...]
    prediction_sum: tuple[float, ...]
    absolute_error_sum: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PooledErrors:
    """The figures of several days together, as ``RegressionMetrics`` defines them."""

    rmse: float
    mae: float
    bias: float
    r2: float | None
    mean_label: float
    label_spread: float
    n_rows: int

    def rmse_of(self, constant: float) -> float:
        """Return the RMSE of predicting one number for everyone."""
        return float(np.hypot(self.label_spread, self.mean_label - constant))


def regression_quality(labelled: pa.Table, edges: Sequence[float]) -> dict[str, object]:
    """Return the columns of ``monitoring.performance`` that a regression fills, of the labelled rows of one day."""
    y, p = labels_of(labelled), np.asarray(labelled.column("prediction").to_numpy(), np.float64)
    metrics = evaluate_regression(y, p)
    index, n_bins = np.searchsorted(np.asarray(edges, np.float64), p, side="left"), len(edges) + 1

    def sums(values: Floats) -> tuple[float, ...]:
        return tuple(np.bincount(index, values, n_bins).round(6).tolist())

    bins = ErrorBins(
        edges=tuple(edges),
        n_rows=tuple(np.bincount(index, minlength=n_bins).tolist()),
        label_sum=sums(y),
        prediction_sum=sums(p),
        absolute_error_sum=sums(np.abs(p - y)),
    )
    return {
        "mean_prediction": float(p.mean()),
        "mean_label": metrics.mean_label,
        "label_spread": metrics.label_spread,
        "rmse": metrics.rmse,
        "mae": metrics.mae,
        "median_absolute_error": metrics.median_absolute_error,
        "r2": metrics.r2,
        "bias": metrics.bias,
        "error_bins": msgspec.json.encode(bins).decode(),
    }


def pool_errors(labelled: pa.Table) -> PooledErrors:
    """Return the figures of all rows of these days together, from the days' own; each day has labelled rows.

    The mean squared error of a pool is the mean of the days', weighted by rows; the variance of its labels is the mean
    of the days' variances and of the squared distances of their means.
    """
    names = ("n_labelled", "rmse", "mae", "bias", "mean_label", "label_spread")
    n_rows, rmse, mae, bias, mean, spread = (np.asarray(labelled.column(n).to_numpy(), np.float64) for n in names)
    share = n_rows / n_rows.sum()
    squared, mean_label = float(share @ rmse**2), float(share @ mean)
    variance = float(share @ (spread**2 + (mean - mean_label) ** 2))
    return PooledErrors(
        rmse=float(np.sqrt(squared)),
        mae=float(share @ mae),
        bias=float(share @ bias),
        r2=1 - squared / variance if variance > 0 else None,
        mean_label=mean_label,
        label_spread=float(np.sqrt(variance)),
        n_rows=int(n_rows.sum()),
    )


def pool_error_bins(performance: pa.Table) -> tuple[PredictionBin, ...]:
    """Add up the error bins of several days of one model, lowest predictions first; bins without rows are left out.

    Raises ValueError where the days have other bins than each other: they are of different models.
    """
    texts = performance.column("error_bins").drop_null().to_pylist()
    days = [msgspec.json.decode(text, type=ErrorBins) for text in texts]
    if len({day.edges for day in days}) > 1:
        raise ValueError("found days of different bins; pool the days of one model version only")
    columns = [[day.n_rows, day.label_sum, day.prediction_sum, day.absolute_error_sum] for day in days]
    if not columns:
        return ()
    n_rows, labels, predictions, errors = np.sum(np.asarray(columns, np.float64), axis=0)
    return tuple(
        PredictionBin(
            mean_prediction=float(predictions[i] / n_rows[i]),
            mean_label=float(labels[i] / n_rows[i]),
            mean_absolute_error=float(errors[i] / n_rows[i]),
            n_rows=int(n_rows[i]),
        )
        for i in np.flatnonzero(n_rows)
    )


def regression_findings(
    labelled: pa.Table, holdout: RegressionMetrics, noise: HoldoutNoise, period: str, unit: str | None
) -> tuple[QualityFinding, QualityFinding]:
    """Return what these days say of the model: against the holdout's mean for everyone, and against the holdout.

    Alarming is an RMSE above that of the mean, or more than a quarter above the holdout's, by more than the noise.
    """
    in_unit = f" {unit}" if unit else ""

    def lost(days: pa.Table) -> float:
        found = pool_errors(days)
        constant = found.rmse_of(holdout.mean_label)
        return found.rmse / constant - 1 if constant > 0 else 0.0

    loss, rmse = lost(labelled), pool_errors(labelled).rmse
    margin = noise.margin("rmse", labelled, lambda days: pool_errors(days).rmse)
    allowed, gap = max(RMSE_TOLERANCE * holdout.rmse, margin), rmse - holdout.rmse
    share = allowed / holdout.rmse if holdout.rmse > 0 else RMSE_TOLERANCE
    is_high, side = gap > allowed, "below" if loss < 0 else "above"
    return (
        QualityFinding(
            is_failed=loss >= 0 and loss >= quantile(labelled.num_rows) * jackknife(labelled, lost),
            words=f"{period}, the RMSE is {percent(abs(loss))} {side} that of predicting the holdout's mean",
        ),
        QualityFinding(
            is_failed=is_high,
            is_large=gap > max(2 * RMSE_TOLERANCE * holdout.rmse, margin),
            is_far=gap > max(4 * RMSE_TOLERANCE * holdout.rmse, 2 * margin),
            words=f"{period}, RMSE {rmse:.4g}{in_unit} is {'more than' if is_high else 'at most'} "
            f"{percent(share)} above the holdout's {holdout.rmse:.4g}",
        ),
    )
