"""Which of two models answers for a segment: its own where that is better on its validation rows, beyond the noise."""

import numpy as np

from ml_assets.core.encoding import Task
from ml_assets.core.evaluation import Floats, log_losses
from ml_assets.core.trainers import FittedModel, Labelled
from ml_assets.core.trainers.segments import SegmentOutcome

_N_BLOCKS = 10


def compared(
    value: str,
    rows: tuple[Labelled, Labelled],
    parent: FittedModel,
    model: FittedModel,
    *,
    task: Task,
    confidence: float,
) -> SegmentOutcome:
    """Return the outcome of a segment: which of the two models has the lower validation loss, beyond the noise."""
    train, validation = rows
    of_parent, of_own = (
        _losses(validation.labels, fitted.predict(validation.inputs), task) for fitted in (parent, model)
    )
    margin = _margin(of_parent - of_own, confidence)
    gain = float(np.mean(of_parent) - np.mean(of_own))
    is_better = gain > margin
    why = "" if is_better else "its own model is not better" + (" beyond the noise" if gain > 0 else "")
    return SegmentOutcome(
        value=value,
        n_train=len(train.labels),
        n_validation=len(validation.labels),
        has_own_model=is_better,
        parent_loss=float(np.mean(of_parent)),
        own_loss=float(np.mean(of_own)),
        margin=margin,
        why_parent=why,
    )


def _losses(labels: np.ndarray, predictions: np.ndarray, task: Task) -> Floats:
    """Return the loss of each row, float64 [n]: log loss in nats, or for a regression the squared error."""
    if task == "binary_classification":
        return log_losses(labels, predictions)
    return np.square(labels.astype(np.float64) - predictions)


def _margin(gains: Floats, confidence: float) -> float:
    """Return how far the mean of these gains may lie above the truth with this confidence.

    Rows come in the order of time and those of one day share their weather, so not rows but ten blocks of neighbours
    are taken for independent: t(9) times the standard error of the mean of their means.
    """
    if confidence == 0.5:
        return 0.0
    from scipy.special import stdtrit

    means = np.array([block.mean() for block in np.array_split(gains, _N_BLOCKS) if len(block)])
    if len(means) < 2:
        return float("inf")
    return float(stdtrit(len(means) - 1, confidence) * means.std(ddof=1) / np.sqrt(len(means)))
