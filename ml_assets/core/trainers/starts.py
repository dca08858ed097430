"""Cold and warm: a training from nothing and one from the champion's weights; validation chooses between the two."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Literal

from ml_assets.core.ports import TrackedRun
from ml_assets.core.trainers import Epoch, FittedModel, WarmStart

StartName = Literal["cold", "warm"]
OnStartEpoch = Callable[[StartName, int, Mapping[str, float]], None]
# Fits once, from what is lent or from nothing, under the name of the start.
Fit = Callable[[StartName, WarmStart | None], FittedModel]


@dataclass(frozen=True, kw_only=True)
class StartOutcome:
    """What one start came to.

    ``epochs_to_other`` is the first epoch whose validation loss is at most the other start's lowest; null if it never
    got there. Epochs are rounds of boosting for trees, and 0 for a library without any.
    """

    validation_loss: float
    n_epochs: int
    best_epoch: int
    epochs_to_other: int | None = None


@dataclass(frozen=True, kw_only=True)
class WarmStartRecord:
    """How a training that had a champion before it started, and what the champion's weights were worth.

    ``reason`` says in one sentence why this start was chosen; ``warm`` is null where there was nothing to start from.
    Nothing here depends on the machine's speed: the same recipe gives the same record.
    """

    chosen: StartName
    reason: str
    cold: StartOutcome
    warm: StartOutcome | None = None

    @property
    def n_epochs_saved(self) -> int | None:
        """How many epochs earlier the warm start was where the cold one was best; null where it never was."""
        if self.warm is None or self.warm.epochs_to_other is None:
            return None
        return self.cold.best_epoch - self.warm.epochs_to_other

    @property
    def facts(self) -> Mapping[str, float | int | str]:
        """The record as flat metadata; what is null is left out."""
        found: dict[str, float | int | str | None] = {
            "start": self.chosen,
            "start_reason": self.reason,
            "cold_validation_loss": self.cold.validation_loss,
            "cold_epochs": self.cold.n_epochs,
            "warm_validation_loss": self.warm.validation_loss if self.warm else None,
            "warm_epochs": self.warm.n_epochs if self.warm else None,
            "warm_epochs_to_cold_loss": self.warm.epochs_to_other if self.warm else None,
            "cold_epochs_to_warm_loss": self.cold.epochs_to_other,
            "epochs_saved_by_warm_start": self.n_epochs_saved,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class StartCost:
    """What one start took here: wall and CPU seconds of this process. What a killed attempt took is not in it."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Started:
    """The chosen model, the record where a champion was there, and the cost of each start that was trained."""

    fitted: FittedModel
    record: WarmStartRecord | None
    costs: Mapping[StartName, StartCost]

    @property
    def figures(self) -> Mapping[str, float]:
        """What the starts came to and cost, flat, numbers only."""
        facts = self.record.facts if self.record else {}
        numbers = {name: float(value) for name, value in facts.items() if not isinstance(value, str)}
        return {**numbers, **cost_facts(self.costs)}


def cost_facts(costs: Mapping[StartName, StartCost]) -> Mapping[str, float]:
    """Return the cost of each start as flat metadata."""
    return {
        f"{start}_{name}": value
        for start, cost in costs.items()
        for name, value in (("seconds", cost.seconds), ("cpu_seconds", cost.cpu_seconds))
    }


class TrackedEpochs:
    """The epochs of both starts on their way to the tracker, under the start's name where there is a champion.

    Whether anything was taken over is known when the first start is done: until then its epochs are held back, and if
    nothing was they are the cold start's.
    """

    def __init__(self, run: TrackedRun, *, has_champion: bool) -> None:
        self._run = run
        self._has_champion = has_champion
        self._held: list[Mapping[str, float]] = []
        self._n_logged = 0

    def named(self, start: StartName, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Return the metrics of an epoch under the names of its start."""
        return {f"{start}_{name}": value for name, value in metrics.items()} if self._has_champion else metrics

    def add(self, start: StartName, metrics: Mapping[str, float]) -> None:
        """Log an epoch, or hold it back. A cold epoch after warm ones tells that these were warm."""
        if start == "warm":
            self._held.append(metrics)
            return
        self.settle("warm")
        self._log(start, metrics)

    def settle(self, start: StartName) -> None:
        """Log what is held back as epochs of this start."""
        held, self._held = self._held, []
        for metrics in held:
            self._log(start, metrics)

    def _log(self, start: StartName, metrics: Mapping[str, float]) -> None:
        # A step may not come twice, so the second start's epochs are counted on.
        self._n_logged += 1
        self._run.log(self.named(start, metrics), step=self._n_logged)


def fit_both(fit: Fit, *, lent: WarmStart | None, not_lent: str, loss: Callable[[FittedModel], float]) -> Started:
    """Fit warm and cold, and choose the one with the lower validation loss; the cold one where both are equal.

    Where nothing is lent, or the trainer takes nothing over from it, one cold model is fitted, and the record says why:
    ``not_lent`` is the reason for the first, empty where there is no champion, and then there is no record.
    """
    costs: dict[StartName, StartCost] = {}

    def timed(name: StartName) -> FittedModel:
        started, cpu_started = perf_counter(), process_time()
        fitted = fit(name, lent if name == "warm" else None)
        costs[name] = StartCost(seconds=perf_counter() - started, cpu_seconds=process_time() - cpu_started)
        return fitted

    warm = timed("warm") if lent else None
    if warm is None or not warm.is_warm_started:
        cold = timed("cold") if warm is None else warm
        if warm is not None:
            costs = {"cold": costs["warm"]}
            not_lent = "the trainer took nothing over: it has no warm start, or the champion's columns or layers differ"
        if not not_lent:
            return Started(fitted=cold, record=None, costs=costs)
        record = WarmStartRecord(chosen="cold", reason=not_lent, cold=_outcome(cold, loss(cold), None))
        return Started(fitted=cold, record=record, costs=costs)
    cold = timed("cold")
    cold_loss, warm_loss = loss(cold), loss(warm)
    chosen: StartName = "warm" if warm_loss < cold_loss else "cold"
    record = WarmStartRecord(
        chosen=chosen,
        reason=f"validation loss {warm_loss:.5f} warm, {cold_loss:.5f} cold",
        cold=_outcome(cold, cold_loss, warm.history),
        warm=_outcome(warm, warm_loss, cold.history),
    )
    return Started(fitted=warm if chosen == "warm" else cold, record=record, costs=costs)


def _outcome(fitted: FittedModel, loss: float, other: Sequence[Epoch] | None) -> StartOutcome:
    goal = min((epoch.validation_loss for epoch in other or ()), default=None)
    reached = (e.number for e in fitted.history if goal is not None and e.validation_loss <= goal)
    best = min(fitted.history, key=lambda epoch: epoch.validation_loss, default=None)
    return StartOutcome(
        validation_loss=loss,
        n_epochs=len(fitted.history),
        best_epoch=best.number if best else 0,
        epochs_to_other=next(reached, None),
    )
