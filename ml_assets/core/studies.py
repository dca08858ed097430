"""The port of a study: trials that several processes take, one each, from storage that outlives them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from ml_assets.core.search_spaces import SearchSpace
from ml_assets.core.trainers import Hyperparameters

SamplerName = Literal["tpe", "random", "gp"]
TrialState = Literal["waiting", "running", "complete", "pruned", "failed", "abandoned"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a study looks for better parameters; a later run of the same study may have others.

    Attributes:
        sampler: ``tpe`` learns from a few dozen trials on, ``gp`` from fewer but costs more each, ``random`` never.
        is_pruning: whether a trial stops, from its third epoch on, that is worse than three quarters of the complete
            ones were after as many epochs.
        seed: of the sampler; trial n draws from a generator of its own, whoever runs it and however often others died.
            A ``gp`` study that goes on in another process fits its model anew and draws nearly the same, not the same.
    """

    sampler: SamplerName = "tpe"
    is_pruning: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One attempt that this process has taken: train with these parameters, then tell the study."""

    number: int
    parameters: Hyperparameters


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What a study knows of a trial.

    ``loss`` is the validation loss of a complete trial, the last one reported of any other, or null; ``n_epochs`` is
    how many were reported. ``failed`` is a trial that its parameters made fail, ``abandoned`` one whose process died,
    was interrupted, or came too late: its parameters are in a later trial, and it counts for nothing. ``started_at``
    (UTC) and ``seconds`` (wall time, null until it ended) tell two records of one trial not apart.
    """

    number: int
    state: TrialState
    parameters: Hyperparameters
    loss: float | None
    n_epochs: int
    reason: str
    started_at: datetime | None = field(default=None, compare=False)
    seconds: float | None = field(default=None, compare=False)


class Study(Protocol):
    """One search, shared by all processes that open it by the same name."""

    @property
    def name(self) -> str:
        """The name it was opened by."""
        ...

    @property
    def address(self) -> str:
        """Where it is stored, as a person may read it: without a password."""
        ...

    def release_dead(self) -> int:
        """Abandon the running trials whose process is gone, offer their parameters again, and return how many."""
        ...

    def ask(self) -> Trial:
        """Take a trial, which nobody else gets: the first one ever has the parameters the study was opened with."""
        ...

    def report(self, trial: Trial, *, epoch: int, loss: float) -> bool:
        """Record the validation loss after an epoch, and return whether the trial should be pruned."""
        ...

    def complete(self, trial: Trial, loss: float) -> None:
        """Record the validation loss of the fitted model."""
        ...

    def prune(self, trial: Trial) -> None:
        """Record that the trial was stopped early."""
        ...

    def fail(self, trial: Trial, reason: str) -> None:
        """Record that the parameters could not be trained with, and why."""
        ...

    def abandon(self, trial: Trial, *, is_offered_again: bool) -> None:
        """Give the trial up without a result; its parameters may be offered to the next who asks."""
        ...

    def trials(self) -> Sequence[TrialRecord]:
        """Return all trials by number."""
        ...

    def importances(self, seed: int) -> Mapping[str, float]:
        """Return the share of the loss's variance each parameter explains, largest first; empty if not enough is known.

        The shares add up to 1.
        """
        ...


class Studies(Protocol):
    """Where studies are kept."""

    def open(self, name: str, *, space: SearchSpace, first: Hyperparameters, settings: SearchSettings) -> Study:
        """Return the study of this name, new or as others have left it; ``first`` are the parameters of its trial 0."""
        ...
