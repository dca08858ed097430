"""What every trainer refuses: hyperparameters it cannot use, examples nothing can be learned from, a loss of NaN."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from ml_assets.core.encoding import Task
from ml_assets.core.errors import BadInput, InvalidDeclaration, TrainingDataMissing, TrainingFailed
from ml_assets.core.tasks import meaning_of
from ml_assets.core.trainers import Epoch, Hyperparameters, Labelled

_T = TypeVar("_T")


def settings_of(kind: type[_T], hyperparameters: Hyperparameters, *, trainer: str) -> _T:
    """Return hyperparameters as the dataclass that declares them with types and ranges.

    Raises InvalidDeclaration for an unknown name, another type, a number that is not finite or out of range.
    """
    known = sorted(kind.__dataclass_fields__)  # pyright: ignore[reportAttributeAccessIssue] # every kind is a dataclass
    unknown = sorted(set(hyperparameters) - set(known))
    if unknown:
        raise InvalidDeclaration(f"{trainer} has no hyperparameters {unknown}; it has {known}")
    endless = sorted(n for n, value in hyperparameters.items() if isinstance(value, float) and not math.isfinite(value))
    if endless:
        raise InvalidDeclaration(f"the hyperparameters {endless} of {trainer} are not finite; set them to numbers")
    try:
        return msgspec.convert(hyperparameters, kind)
    except ValueError as error:
        raise InvalidDeclaration(f"the hyperparameters of {trainer} are unusable: {error}") from error


def refuse_unlearnable(train: Labelled, validation: Labelled, *, task: Task = "binary_classification") -> None:
    """Raise for examples nothing can be learned from.

    TrainingDataMissing where train or validation is empty or all labels of train are equal, BadInput for a label that
    is neither 0 nor 1, or for a regression no finite number.
    """
    is_regression = task == "regression"
    kind = "no finite number" if is_regression else "neither 0 nor 1"
    for name, part in {"train": train, "validation": validation}.items():
        if not len(part.labels):
            raise TrainingDataMissing(f"{name} has no example; train on more days")
        is_other = ~np.isfinite(part.labels) if is_regression else (part.labels != 0) & (part.labels != 1)
        n_other = int(np.count_nonzero(is_other))
        if n_other:
            raise BadInput(f"{n_other} of {len(part.labels)} labels of {name} are {kind}; mend the labels")
    if len(np.unique(train.labels)) < 2:
        needs = "a regression needs different ones" if is_regression else "a classifier needs both"
        raise TrainingDataMissing(
            f"all {len(train.labels)} labels of train are {train.labels[0]:g}; {needs}, so train on more days"
        )


def refuse_task(task: Task, *, only: Task, what: str, instead: str) -> None:
    """Raise InvalidDeclaration where ``what`` was asked for a task it cannot do; ``instead`` says what to choose."""
    if task != only:
        raise InvalidDeclaration(f"{what} is for {only}, and this use case is a {task}; {instead}")


def refuse_nan_loss(
    history: Sequence[Epoch], *, hyperparameters: Mapping[str, object], task: Task = "binary_classification"
) -> None:
    """Raise TrainingFailed for an epoch whose loss is no finite number."""
    for epoch in history:
        if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
            raise TrainingFailed(
                f"the {meaning_of(task).loss.words} of epoch {epoch.number} is {epoch.train_loss:g} on train and "
                f"{epoch.validation_loss:g} on validation; lower the learning rate or start cold. "
                f"The hyperparameters were {dict(hyperparameters)}"
            )
