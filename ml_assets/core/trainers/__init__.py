"""Trainers: what turns coded examples into a fitted model, whatever the library. All end as one ONNX graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Protocol

import numpy as np

from ml_assets.core.encoding import Coded, Signature, Vocabulary
from ml_assets.core.errors import InvalidDeclaration

Hyperparameters = Mapping[str, float | int | str]
OnEpoch = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Coded examples with their labels, float32 [n]: 0 and 1, or for a regression numbers in the unit of the label."""

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
    """The losses after one pass over train, or one round of boosting.

    The mean log loss in nats, or for a regression the root mean squared error in the unit of the label.
    """

    number: int
    train_loss: float
    validation_loss: float


class FittedModel(Protocol):
    """A model as its own library sees it, and how it leaves that library.

    A class that inherits from this needs ``predict`` and ``to_onnx`` only.
    """

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The passes over train, oldest first; empty for a library without any."""
        return ()

    @property
    def is_warm_started(self) -> bool:
        """Whether weights of the earlier model were taken over."""
        return False

    @property
    def libraries(self) -> Mapping[str, str]:
        """The version of each library that fitted the model, by its name."""
        return {}

    @property
    def thresholds(self) -> Mapping[int, np.ndarray]:
        """The learned numbers at which an answer may jump or bend, float64, by position of the numeric column.

        The parity gate compares ONNX with the library at each of them and at its neighbours.
        """
        return {}

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return probabilities or numbers, float64 [n], computed by the library that fitted the model."""
        ...

    def to_onnx(self) -> bytes:
        """Return one ONNX graph: ``numeric``, ``categorical`` -> ``prediction``, any number of rows."""
        ...

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return the arrays a later training can start from, by name; empty where there are none."""
        return {}


class Trainer(Protocol):
    """One way to fit a model. A class that inherits from this without a ``resolve`` has no hyperparameters."""

    def resolve(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Return all hyperparameters, defaults filled in; raise InvalidDeclaration for one it does not know."""
        if hyperparameters:
            raise InvalidDeclaration(
                f"{type(self).__name__} has no hyperparameters {sorted(hyperparameters)}; it has none"
            )
        return {}

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

        ``signature.output.task`` says what the model answers; a trainer that cannot raises InvalidDeclaration.
        Scratch files, if any, go below ``work_folder``.
        """
        ...


def trainer_named(choice: "str | Trainer | type[Trainer]") -> Trainer:
    """Return the trainer a use case names or declares; raise InvalidDeclaration for one there is not."""
    from ml_assets.core.trainers.keras import KerasTrainer
    from ml_assets.core.trainers.lightning import LightningTrainer
    from ml_assets.core.trainers.sklearn_interface import SklearnTrainer

    trainers: dict[str, Callable[[], Trainer]] = {
        "keras": KerasTrainer,
        "lightning": LightningTrainer,
        "sklearn": SklearnTrainer,
    }
    if not isinstance(choice, str):
        trainer = choice() if isinstance(choice, type) else choice
        absent = [name for name in ("resolve", "fit") if not callable(getattr(trainer, name, None))]
        if absent:
            raise InvalidDeclaration(f"{name_of(choice)} is no Trainer: it lacks {absent}; let it inherit from Trainer")
        return trainer
    if choice not in trainers:
        raise InvalidDeclaration(
            f"there is no trainer {choice!r}; there are {sorted(trainers)}, or give a Trainer class of your own"
        )
    return trainers[choice]()


def name_of(choice: "str | Trainer | type[Trainer]") -> str:
    """Return what a recipe calls a trainer: its name, or that of its class."""
    if isinstance(choice, str):
        return choice
    return (choice if isinstance(choice, type) else type(choice)).__qualname__


def versions_of(*distributions: str) -> Mapping[str, str]:
    """Return the installed version of each distribution."""
    return {name: installed_version(name) for name in distributions}
