"""Every training, search, trial and decision as one row, read from the files each leaves; a damaged one says so."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Literal, TypeVar

import msgspec

from ml_assets.core.errors import MlAssetsError, StoreError
from ml_assets.core.experiments import ENDED, FOLDER, STARTED, EndedAttempt, StartedAttempt
from ml_assets.core.fingerprints import json_hash
from ml_assets.core.intervals import Interval
from ml_assets.core.package import MANIFEST, METRICS, Manifest
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.side_by_side import side_by_side
from ml_assets.core.tuned_parameters import TunedParameters

ExperimentKind = Literal["training", "search", "trial", "promotion"]
KINDS: tuple[ExperimentKind, ...] = ("training", "search", "trial", "promotion")
DAMAGED, UNFINISHED = "damaged", "unfinished"

_T = TypeVar("_T")
_OLDEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One row. What a kind of row does not have, or its file does not say, is None or empty.

    Attributes:
        id: by which ``compare`` finds it: of a training 10 hex digits, or 12 for one that is known by its package only;
            of a trial its study's 6 digits and its number; of a decision its use case and place in the ledger.
        status: of a training or search ``complete``, ``reused``, ``failed`` or ``unfinished`` (it runs, or was killed),
            of a trial its state, of a promotion the ledger's action; ``damaged`` where its file cannot be read.
        started_at: when it began, or was recorded, UTC.
        seconds: wall time.
        parameters: the hyperparameters.
        training_set: the fingerprint.
        n_rows: of the training set, by part.
        metrics: every figure by name, those of the holdout by their own; of a promotion what each gate found.
        intervals: the 95 % intervals of the holdout's figures.
        reason: the error, why a trial failed, or what the ledger says.
        run_id: Dagster's, where one is known.
    """

    id: str
    kind: ExperimentKind
    status: str
    use_case: str
    as_of: date | None = None
    started_at: datetime | None = None
    seconds: float | None = None
    trainer: str = ""
    parameters: Mapping[str, float | int | str] = field(default_factory=dict[str, float | int | str])
    seed: int | None = None
    training_set: str = ""
    n_rows: Mapping[str, int] = field(default_factory=dict[str, int])
    first_day: date | None = None
    last_day: date | None = None
    code_version: str = ""
    environment_hash: str = ""
    version: str = ""
    parent_version: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    intervals: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    recorded_by: str = ""
    reason: str = ""
    run_id: str = ""


def experiments(store: ArtifactStore) -> Sequence[Experiment]:
    """Return every row of every use case, newest first; what has no time comes last, by as-of date."""
    attempts = list(_attempts(store))
    recorded = {(row.use_case, row.version) for row in attempts if row.status in ("complete", "reused")}
    rows = [*attempts, *_packages(store, recorded), *_trials(store), *_decisions(store)]
    return sorted(
        rows, key=lambda row: (row.started_at or _OLDEST, row.as_of or date.min, row.use_case, row.id), reverse=True
    )


def _attempts(store: ArtifactStore) -> Iterator[Experiment]:
    paths = store.list(FOLDER)
    beginnings = [path for path in paths if path.endswith(STARTED)]
    ends = [path for path in paths if path.endswith(ENDED)]
    ended = {path.removesuffix(ENDED): found for path, found in _read_all(store, ends, EndedAttempt)}
    for path, started in _read_all(store, beginnings, StartedAttempt):
        name = path.removesuffix(STARTED)
        if isinstance(started, str):
            yield _damaged("training", name.rpartition("-")[2], path, started)
            continue
        recipe = started.recipe
        row = Experiment(
            id=started.id,
            kind=started.kind,
            status=UNFINISHED,
            use_case=recipe.use_case,
            as_of=started.as_of,
            started_at=started.started_at,
            trainer=recipe.trainer,
            parameters=recipe.hyperparameters,
            seed=recipe.seed,
            training_set=recipe.training_set,
            n_rows=started.n_rows,
            first_day=started.first_day,
            last_day=started.last_day,
            code_version=recipe.code_version,
            environment_hash=started.environment_hash,
            version=started.version,
            parent_version=recipe.parent_version or "",
            recorded_by=started.recorded_by,
            run_id=started.run_id,
        )
        yield _with_end(row, ended[name], f"{name}{ENDED}") if name in ended else row


def _with_end(row: Experiment, ended: EndedAttempt | str, path: str) -> Experiment:
    if isinstance(ended, str):
        return replace(row, status=DAMAGED, reason=f"{path}: {ended}")
    return replace(
        row,
        status=ended.status,
        seconds=ended.seconds,
        metrics=ended.metrics,
        intervals=ended.intervals,
        reason=ended.error,
    )


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """What metrics.json of a package says, whatever the task."""

    holdout: Mapping[str, float | None]
    intervals: Mapping[str, Interval]
    n_epochs: int
    best_epoch: int
    validation_loss: float


def _packages(store: ArtifactStore, recorded: set[tuple[str, str]]) -> Iterator[Experiment]:
    """Yield the models that no attempt is recorded of: trained by a call without a log, or before there was one."""
    manifests = [path for path in store.list("models") if path.endswith(f"/{MANIFEST}")]
    unrecorded = [path for path in manifests if _model_of(path) not in recorded]
    of_figures = [f"{path.removesuffix(MANIFEST)}{METRICS}" for path in unrecorded]
    found_figures = (found for _, found in _read_all(store, of_figures, _Figures))
    for (path, manifest), figures in zip(_read_all(store, unrecorded, Manifest), found_figures, strict=True):
        use_case, version = _model_of(path)
        if isinstance(manifest, str) or isinstance(figures, str):
            found = manifest if isinstance(manifest, str) else str(figures)
            yield _damaged("training", version.rpartition("-")[2], path, found)
            continue
        recipe, metrics = manifest.recipe, {"validation_loss": figures.validation_loss, **figures.holdout}
        yield Experiment(
            id=version.rpartition("-")[2],
            kind="training",
            status="complete",
            use_case=use_case,
            as_of=manifest.as_of,
            trainer=recipe.trainer,
            parameters=recipe.hyperparameters,
            seed=recipe.seed,
            training_set=recipe.training_set,
            code_version=recipe.code_version,
            environment_hash=manifest.environment_hash,
            version=version,
            parent_version=recipe.parent_version or "",
            metrics={
                **{name: value for name, value in metrics.items() if value is not None},
                "n_epochs": float(figures.n_epochs),
                "best_epoch": float(figures.best_epoch),
            },
            intervals=figures.intervals,
        )


def _model_of(path: str) -> tuple[str, str]:
    """Return use case and version of a package's manifest."""
    use_case, _, version = path.removeprefix("models/").removesuffix(f"/{MANIFEST}").partition("/")
    return use_case, version


def _trials(store: ArtifactStore) -> Iterator[Experiment]:
    for path, tuned in _read_all(store, store.list("tuned"), TunedParameters):
        if isinstance(tuned, str):
            yield _damaged("trial", path.rpartition("/")[2].removesuffix(".json"), path, tuned)
            continue
        for trial in tuned.trials:
            loss = {} if trial.loss is None else {"validation_loss": trial.loss}
            yield Experiment(
                id=f"{json_hash(tuned.study)[:6]}.{trial.number}",
                kind="trial",
                status=trial.state,
                use_case=tuned.use_case,
                as_of=tuned.as_of,
                started_at=trial.started_at,
                seconds=trial.seconds,
                trainer=tuned.trainer,
                parameters={**tuned.defaults, **trial.parameters},
                training_set=tuned.training_set,
                metrics={**loss, "n_epochs": float(trial.n_epochs)},
                recorded_by=tuned.study,
                reason=trial.reason,
            )


def _decisions(store: ArtifactStore) -> Iterator[Experiment]:
    for path, entry in _read_all(store, store.list("ledger"), LedgerEntry):
        if isinstance(entry, str):
            folder, _, name = path.rpartition("/")
            number = name.removesuffix(".json").lstrip("0")
            yield _damaged("promotion", f"{folder.rpartition('/')[2]}.{number}", path, entry)
            continue
        yield Experiment(
            id=f"{entry.use_case}.{entry.sequence}",
            kind="promotion",
            status=entry.action,
            use_case=entry.use_case,
            as_of=entry.as_of,
            started_at=entry.recorded_at,
            first_day=entry.effective_from,
            version=entry.version,
            metrics={gate.name: gate.found for gate in entry.gates if gate.found is not None},
            recorded_by=entry.recorded_by,
            reason=entry.reason,
        )


def _damaged(kind: ExperimentKind, row_id: str, path: str, found: str) -> Experiment:
    use_case = path.split("/")[1] if path.count("/") > 1 else ""
    return Experiment(id=row_id, kind=kind, status=DAMAGED, use_case=use_case, reason=f"{path}: {found}")


def _read_all(store: ArtifactStore, paths: Sequence[str], kind: type[_T]) -> Iterator[tuple[str, _T | str]]:
    """Yield each path with what ``_read`` gives for it."""
    found = side_by_side(lambda path: _read(store, path, kind), paths, n_at_once=store.n_reads_at_once)
    return zip(paths, found, strict=True)


def _read(store: ArtifactStore, path: str, kind: type[_T]) -> _T | str:
    """Return what a file holds, or what is wrong with it: one bad file must not hide two thousand good ones.

    A store that cannot be read says nothing about its files: that is raised.
    """
    try:
        return msgspec.json.decode(store.get(path), type=kind)
    except StoreError:
        raise
    except (msgspec.DecodeError, MlAssetsError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
