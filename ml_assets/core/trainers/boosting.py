"""What the boosting libraries have in common: joined inputs, centred labels, recorded rounds, the fitted trees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ml_assets.core.encoding import Coded, Task
from ml_assets.core.trainers import Epoch, OnEpoch
from ml_assets.core.trainers.tree_ensemble import TreeEnsemble

# Judgement: hundreds of rounds, each reported, would fill the log of a run.
_ROUNDS_PER_REPORT = 10


@dataclass(kw_only=True)
class Rounds:
    """The rounds of boosting so far; every tenth is told to ``on_epoch``."""

    on_epoch: OnEpoch
    epochs: list[Epoch] = field(default_factory=list[Epoch])

    def add(self, train_loss: float, validation_loss: float) -> None:
        """Record one round, as ``Epoch`` measures losses."""
        number = len(self.epochs) + 1
        epoch = Epoch(number=number, train_loss=train_loss, validation_loss=validation_loss)
        self.epochs.append(epoch)
        if number % _ROUNDS_PER_REPORT == 0:
            self.on_epoch(number, {"train_loss": train_loss, "validation_loss": validation_loss})


@dataclass(frozen=True, kw_only=True)
class FittedTrees:
    """Boosted trees: as their library scores them (``answer`` to joined inputs), and as plain data."""

    ensemble: TreeEnsemble
    answer: Callable[[np.ndarray], np.ndarray]
    history: tuple[Epoch, ...]
    libraries: Mapping[str, str]
    is_warm_started: bool = False

    @property
    def thresholds(self) -> Mapping[int, np.ndarray]:
        """The learned thresholds of each numeric column, float64 ascending."""
        return self.ensemble.thresholds()

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return probabilities or numbers, float64 [n], computed by the library."""
        if not len(inputs):
            return np.empty(0, dtype=np.float64)
        return self.answer(joined(inputs)).astype(np.float64)

    def to_onnx(self) -> bytes:
        """Return the ONNX graph of the trees."""
        return self.ensemble.to_onnx()

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return nothing: trees name categories by codes, which mean others once the vocabulary grows."""
        return {}


@dataclass(frozen=True, kw_only=True)
class CentredLabels:
    """The labels of a regression less the mean of train, float64 [n].

    The leaves of trees then add up to a small number: in float32 a sum near 150 minutes would lose what the last
    hundred trees add. ``mean`` is 0 for a classification, whose labels stay what they are.
    """

    train: np.ndarray
    validation: np.ndarray
    mean: float

    @classmethod
    def of(cls, train: np.ndarray, validation: np.ndarray, *, task: Task) -> "CentredLabels":
        """Centre the labels of a regression."""
        if task != "regression":
            return cls(train=train, validation=validation, mean=0.0)
        mean = float(np.mean(train, dtype=np.float64))
        return cls(train=train.astype(np.float64) - mean, validation=validation.astype(np.float64) - mean, mean=mean)


def joined(inputs: Coded) -> np.ndarray:
    """Return the numbers and then the codes as one float32 array [n, k + m]; float32 holds every code below 2**24."""
    return np.hstack([inputs.numeric, inputs.categorical.astype(np.float32)])
