"""Trainers: what turns coded examples into a fitted model, whatever the library. All end as one ONNX graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ml_assets.core.encoding import Coded, Signature, Vocabulary
from ml_assets.core.errors import InvalidDeclaration

Hyperparameters = Mapping[str, float | int | str]
OnEpoch = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Coded examples with their labels, float32 [n] of 0 and 1."""

    inputs: Coded
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What a trainer can take over from an earlier model of the same use case."""

    weights: Mapping[str, np.ndarray]
    signature: Signature
    vocabulary: Vocabulary


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The mean log losses (nats) after one pass over train."""

    number: int
    train_log_loss: float
    validation_log_loss: float


class FittedModel(Protocol):
    """A model as its own library sees it, and how it leaves that library."""

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The passes over train, oldest first; empty for a library without any."""
        ...

    @property
    def is_warm_started(self) -> bool:
        """Whether weights of the earlier model were taken over."""
        ...

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return probabilities, float64 [n], computed by the library that fitted the model."""
        ...

    def to_onnx(self) -> bytes:
        """Return one ONNX graph: ``numeric``, ``categorical`` -> ``probability``, any number of rows."""
        ...

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return the arrays a later training can start from, by name; empty where there are none."""
        ...


class Trainer(Protocol):
    """One way to fit a model."""

    def resolve(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Return all hyperparameters, defaults filled in; raise InvalidDeclaration for one it does not know."""
        ...

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        signature: Signature,
        vocabulary: Vocabulary,
        hyperparameters: Hyperparameters,
        seed: int,
        warm_start: WarmStart | None,
        on_epoch: OnEpoch,
        work_folder: Path,
    ) -> FittedModel:
        """Fit on train and choose by validation. The same arguments give the same model, bit by bit, on one machine.

        Scratch files, if any, go below ``work_folder``.
        """
        ...


def trainer_named(name: str) -> Trainer:
    """Return the trainer a use case names; raise InvalidDeclaration for one there is not."""
    from ml_assets.core.trainers.lightning import LightningTrainer

    trainers: dict[str, Callable[[], Trainer]] = {"lightning": LightningTrainer}
    if name not in trainers:
        raise InvalidDeclaration(f"there is no trainer {name!r}; there are {sorted(trainers)}")
    return trainers[name]()
