"""The log of trainings and searches: two immutable files for each attempt, one before it and one after.

``experiments/<use case>/<start>-<id>.started.json`` says what is tried, ``....ended.json`` what came of it. An attempt
without the second file runs still, or was killed. What is known from elsewhere is not kept here: trials lie with the
tuned parameters, decisions in the ledger; ``experiment_rows`` puts all of it together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

import msgspec

from ml_assets.core.fingerprints import environment_hash, json_hash
from ml_assets.core.intervals import Interval
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.package import ModelPackage, Recipe
from ml_assets.core.ports import ArtifactStore, Tracker
from ml_assets.core.registry import ACTING, LedgerEntry
from ml_assets.core.tracked_artifacts import tracked_model
from ml_assets.core.training_sets import TrainingSet

FOLDER = "experiments"
STARTED, ENDED = ".started.json", ".ended.json"
_LONGEST_ERROR = 2000

AttemptKind = Literal["training", "search"]
Ending = Literal["complete", "reused", "failed"]


@dataclass(frozen=True, kw_only=True)
class StartedAttempt:
    """What is about to be tried.

    ``version`` is that of the model, empty for a search; ``n_rows`` is by part of the training set, ``started_at`` UTC,
    ``run_id`` Dagster's.
    """

    id: str
    kind: AttemptKind
    as_of: date
    version: str
    recipe: Recipe
    n_rows: Mapping[str, int]
    first_day: date
    last_day: date
    environment_hash: str
    started_at: datetime
    recorded_by: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class EndedAttempt:
    """What came of it. ``seconds`` is wall time, ``error`` its type and message, empty where it did not fail."""

    status: Ending
    ended_at: datetime
    seconds: float
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    intervals: Mapping[str, Interval] = field(default_factory=dict[str, Interval])


@dataclass(frozen=True, kw_only=True)
class ExperimentLog:
    """Where attempts are recorded, for whom, by which clock (UTC, with its time zone)."""

    store: ArtifactStore
    now: Callable[[], datetime]
    recorded_by: str
    run_id: str = ""

    def begin(self, recipe: Recipe, training_set: TrainingSet, *, kind: AttemptKind = "training") -> "Attempt":
        """Record that an attempt begins."""
        started_at = self.now()
        version = recipe.version(training_set.as_of)
        started = StartedAttempt(
            id=json_hash([kind, version, self.run_id, started_at])[:10],
            kind=kind,
            as_of=training_set.as_of,
            version=version if kind == "training" else "",
            recipe=recipe,
            n_rows={**training_set.counts},
            first_day=training_set.days.train[0],
            last_day=training_set.days.test[-1],
            environment_hash=environment_hash(),
            started_at=started_at,
            recorded_by=self.recorded_by,
            run_id=self.run_id,
        )
        name = f"{started_at:%Y%m%dt%H%M%S.%fz}-{started.id}"
        path = artifact_path(f"{FOLDER}/{identifier(recipe.use_case)}/{name}")
        self.store.create(f"{path}{STARTED}", msgspec.json.format(msgspec.json.encode(started)))
        return Attempt(self, path, started_at)


class Attempt:
    """An attempt that has begun. Without a log nothing is recorded of it; the first end it comes to is the one kept."""

    def __init__(self, log: ExperimentLog | None, path: str, started_at: datetime | None) -> None:
        self._log = log
        self._path = path
        self._started_at = started_at

    def complete(self, metrics: Mapping[str, float], package: ModelPackage | None = None) -> None:
        """Record that it came to its end, with these figures and those of its package.

        The prefix ``holdout_`` is left out: the candidate's own figures are called what they are.
        """
        self._end("complete", metrics=_figures(metrics, package), package=package)

    def reuse(self, package: ModelPackage) -> None:
        """Record that the package of the same recipe was there already."""
        holdout = msgspec.to_builtins(package.metrics.holdout)
        self._end("reused", metrics=_figures(holdout, package), package=package)

    def fail(self, error: BaseException) -> None:
        """Record that it was given up, and why. Where that fails too, the error says so and stays the one to raise."""
        try:
            self._end("failed", error=f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
        except Exception as unwritten:
            error.add_note(f"the record of this attempt could not be ended either: {unwritten}")

    def _end(
        self,
        status: Ending,
        *,
        error: str = "",
        metrics: Mapping[str, float] | None = None,
        package: ModelPackage | None = None,
    ) -> None:
        if self._log is None or self._started_at is None:
            return
        ended_at = self._log.now()
        ended = EndedAttempt(
            status=status,
            ended_at=ended_at,
            seconds=(ended_at - self._started_at).total_seconds(),
            error=error,
            metrics=metrics or {},
            intervals=package.metrics.intervals if package else {},
        )
        self._log.store.create(f"{self._path}{ENDED}", msgspec.json.format(msgspec.json.encode(ended, order="sorted")))
        self._log = None


def begin_training(log: ExperimentLog | None, recipe: Recipe, training_set: TrainingSet) -> Attempt:
    """Record that a training begins, where there is a log."""
    return log.begin(recipe, training_set) if log else Attempt(None, "", None)


def has_failed(store: ArtifactStore, use_case_name: str, as_of: date) -> bool:
    """Tell whether trainings as of a date were tried and every one that ended has failed."""
    ended: list[Ending] = []
    folder = f"{FOLDER}/{identifier(use_case_name)}"
    paths = store.list(folder)
    for path in (path for path in paths if path.endswith(STARTED)):
        started = msgspec.json.decode(store.get(path), type=StartedAttempt)
        end = path.removesuffix(STARTED) + ENDED
        if (started.kind, started.as_of) == ("training", as_of) and end in paths:
            ended.append(msgspec.json.decode(store.get(end), type=EndedAttempt).status)
    return bool(ended) and set(ended) == {"failed"}


def track_decision(tracker: Tracker, entry: LedgerEntry, store: ArtifactStore) -> None:
    """Tell the tracker of a decision: on which model, and what each gate found where gates decided.

    A model that was put in charge, or back in charge, is called champion there from then on; who is in charge on a day
    only the ledger says.
    """
    run = tracker.start(
        use_case=entry.use_case,
        run_name=f"{entry.action} {entry.version}",
        parameters={**entry.facts, "as_of": entry.as_of},
        job_type="promotion",
    )
    alias = "champion" if entry.action in ACTING else "candidate"
    run.used(tracked_model(entry.use_case, entry.version, entry.package_hash, entry.as_of, store, alias=alias))
    figures = {gate.name: gate.found for gate in entry.gates if gate.found is not None}
    run.finish({"ledger_sequence": entry.sequence, **figures})  # a person's decision has no other figure


def _figures(metrics: Mapping[str, object], package: ModelPackage | None) -> dict[str, float]:
    """Return what is a number, of any task, by name."""
    found = {name.removeprefix("holdout_"): value for name, value in metrics.items()}
    if package:
        found |= {
            "n_train": package.metrics.n_train,
            "n_epochs": package.metrics.n_epochs,
            "best_epoch": package.metrics.best_epoch,
            "validation_loss": package.metrics.validation_loss,
            "largest_parity_difference": package.metrics.largest_parity_difference,
        }
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
