"""Reproduction: a model version rebuilt from its record, first its training set, then the model, and held beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from ml_assets.core.candidates import train_candidate
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.days import day_starts_at
from ml_assets.core.feature_views import Feature
from ml_assets.core.package import Manifest, ModelPackage, load_package
from ml_assets.core.ports import ArtifactStore, JobType, Parameter, TrackedArtifact, Warehouse
from ml_assets.core.scoring import score
from ml_assets.core.spec import UseCase
from ml_assets.core.table_differences import DayDifference, differences_by_day
from ml_assets.core.trainers import name_of
from ml_assets.core.training_sets import (
    TrainingSet,
    examples_parameters,
    examples_sql,
    freeze,
    load_training_set,
)

# Reads the labelled examples of a use case with these inputs, as ``examples_sql`` selects them as of a date.
ReadExamples = Callable[[UseCase, Sequence[Feature], date], pa.Table]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing of the record beside the same thing rebuilt.

    Where ``is_cause`` is true it can explain a difference and is none itself: other code may give the same model.
    """

    what: str
    recorded: str
    rebuilt: str
    is_cause: bool = False

    @property
    def is_identical(self) -> bool:
        """Whether both are the same."""
        return self.recorded == self.rebuilt


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of a rebuilding. ``days`` are the days of the training set whose examples differ by now."""

    version: str
    findings: tuple[Finding, ...]
    days: tuple[DayDifference, ...]

    @property
    def is_identical(self) -> bool:
        """Whether training set and model are what the record says, to the last bit."""
        return all(finding.is_identical for finding in self.findings if not finding.is_cause)


def examples_in(warehouse: Warehouse) -> ReadExamples:
    """Return what reads the labelled examples from a warehouse as a training as of a date would today."""

    def read_examples(use_case: UseCase, inputs: Sequence[Feature], as_of: date) -> pa.Table:
        return warehouse.query(
            examples_sql(use_case, inputs, warehouse.dialect),
            examples_parameters(use_case, as_of, day_starts_at(as_of)),
        )

    return read_examples


def reproduce(
    store: ArtifactStore,
    version: str,
    *,
    use_case: UseCase,
    read_examples: ReadExamples,
    scratch: ArtifactStore,
    code_version: str,
    work_folder: Path,
) -> Reproduction:
    """Rebuild the training set and the model of a version in ``scratch``, which is empty; ``store`` is only read.

    The training set is frozen again from the examples as they are now, by the recorded declaration, inputs and sample.
    The model is trained again on the recorded training set with the recorded hyperparameters, seed, parent and memory
    for streamed parts, in one process: where the record says several, that is a cause that is named.
    ``code_version`` is that of the code at hand: the record's own is not kept, so other code is a cause that is named.

    Raises ArtifactMissing and PackageRefused where the record itself is gone or damaged, InvalidDeclaration where its
    trainer or a hyperparameter is none any more, TrainingDataMissing where the examples cannot be frozen any more.
    """
    package = load_package(store, use_case.name, version)
    recipe = package.manifest.recipe
    frozen = load_training_set(store, use_case.name, recipe.training_set)
    parent = load_package(store, use_case.name, recipe.parent_version) if recipe.parent_version else None
    refrozen = _frozen_again(frozen, use_case, read_examples, scratch)
    retrained = _trained_again(package, frozen, parent, use_case=use_case, scratch=scratch, work_folder=work_folder)
    return Reproduction(
        version=version,
        findings=(
            *_of_training_sets(frozen, refrozen, code_version),
            *_of_models(package, retrained, frozen),
            _short("code version", recipe.code_version, code_version, is_cause=True),
            *_of_processes(package.manifest),
            *_of_environments(package.manifest, retrained.manifest),
        ),
        days=differences_by_day(_rows(frozen), _rows(refrozen)) if frozen.fingerprint != refrozen.fingerprint else (),
    )


def _frozen_again(
    frozen: TrainingSet, use_case: UseCase, read_examples: ReadExamples, scratch: ArtifactStore
) -> TrainingSet:
    record = frozen.manifest
    as_declared = replace(use_case, **vars(record.declared))
    return freeze(
        read_examples(as_declared, record.inputs, record.as_of),
        use_case=as_declared,
        inputs=record.inputs,
        as_of=record.as_of,
        sample_fraction=record.sample_fraction,
        code_version=record.code_version,
        store=scratch,
    )


class _NoTracker:
    """A tracker, and its own run, that forgets: what is only trained again is no experiment."""

    def start(
        self, *, use_case: str, run_name: str, parameters: Mapping[str, Parameter], job_type: JobType = "training"
    ) -> "_NoTracker":
        return self

    def used(self, artifact: TrackedArtifact) -> None:
        pass

    def made(self, artifact: TrackedArtifact) -> None:
        pass

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        pass

    def finish(self, summary: Mapping[str, float]) -> None:
        pass


def _trained_again(
    package: ModelPackage,
    frozen: TrainingSet,
    parent: ModelPackage | None,
    *,
    use_case: UseCase,
    scratch: ArtifactStore,
    work_folder: Path,
) -> ModelPackage:
    recipe, streaming_bytes = package.manifest.recipe, package.manifest.streaming_bytes
    as_recorded = replace(
        use_case,
        trainer=use_case.trainer if name_of(use_case.trainer) == recipe.trainer else recipe.trainer,
        hyperparameters=recipe.hyperparameters,
        search_space={},  # the recorded ones are to be used, whatever has been tuned since
        seed=recipe.seed,
        segments=recipe.segments,
    )
    return train_candidate(
        frozen,
        use_case=as_recorded,
        inputs=frozen.manifest.inputs,
        store=scratch,
        tracker=_NoTracker(),
        code_version=recipe.code_version,
        parent=parent,
        on_epoch=lambda _number, _metrics: None,
        work_folder=work_folder,
        records=RecordsFolder(kept=work_folder / "records", work=work_folder, memory_bytes=streaming_bytes)
        if streaming_bytes
        else None,
    ).package


def _of_training_sets(frozen: TrainingSet, refrozen: TrainingSet, code_version: str) -> Sequence[Finding]:
    days = [f"{one.days.train[0]} to {one.days.test[-1]}" for one in (frozen, refrozen)]
    rows = [f"{sum(one.counts.values()):,}" for one in (frozen, refrozen)]
    return (
        Finding(what="training set: days", recorded=days[0], rebuilt=days[1]),
        Finding(what="training set: examples", recorded=rows[0], rebuilt=rows[1]),
        _short("training set: content", frozen.manifest.content_hash, refrozen.manifest.content_hash),
        _short("training set: fingerprint", frozen.fingerprint, refrozen.fingerprint),
        _short("training set: code version", frozen.manifest.code_version, code_version, is_cause=True),
    )


def _of_models(package: ModelPackage, retrained: ModelPackage, frozen: TrainingSet) -> Sequence[Finding]:
    before, after = package.manifest.files, retrained.manifest.files
    names = sorted({*before, *after})
    findings = [
        _short(f"model: {name}", *(of[name].sha256 if name in of else "none" for of in (before, after)))
        for name in names
    ]
    records = [
        replace(one.manifest, files={}, libraries={}, environment_hash="", n_processes=1)
        for one in (package, retrained)
    ]
    if records[0] != records[1]:
        changed = {name for name, value in vars(records[0]).items() if value != getattr(records[1], name)}
        values = [", ".join(f"{name} {getattr(one, name)}" for name in sorted(changed)) for one in records]
        findings.append(Finding(what="model: its record", recorded=values[0], rebuilt=values[1]))
    if before != after:
        held_out = pa.concat_tables([frozen.validation, frozen.test])
        largest = float(np.max(np.abs(score(package, held_out) - score(retrained, held_out))))
        weights = _largest_of_weights(package, retrained)
        findings += [
            Finding(what="model: largest difference of a prediction", recorded="0", rebuilt=f"{largest:.3g}"),
            Finding(what="model: largest difference of a weight", recorded="0", rebuilt=weights),
        ]
    return findings


def _of_processes(manifest: Manifest) -> Sequence[Finding]:
    """Name it as a cause where several processes trained the model; they cannot be started from here."""
    n_processes, recipe = manifest.n_processes, manifest.recipe
    if n_processes == 1:
        return ()
    how = (
        f"1; for the same bits train with as many, in a copy of ML_ASSETS_HOME without this package: torchrun "
        f"--standalone --nproc_per_node={n_processes} --no-python ml-assets train --use-case {recipe.use_case} "
        f"--as-of {manifest.as_of}{'' if recipe.parent_version else ' --cold'}"
    )
    return (Finding(what="processes", recorded=str(n_processes), rebuilt=how, is_cause=True),)


def _largest_of_weights(package: ModelPackage, retrained: ModelPackage) -> str:
    from safetensors.numpy import load

    before, after = load(package.weights), load(retrained.weights)
    shapes = [{name: array.shape for name, array in of.items()} for of in (before, after)]
    if shapes[0] != shapes[1]:
        return "other shapes"
    differences = (np.abs(before[name].astype(np.float64) - after[name]) for name in before)
    return f"{max((float(np.max(one, initial=0.0)) for one in differences), default=0.0):.3g}"


def _of_environments(before: Manifest, after: Manifest) -> Sequence[Finding]:
    names = sorted({*before.libraries, *after.libraries})
    changed = [name for name in names if before.libraries.get(name) != after.libraries.get(name)]
    return (
        _short("environment", before.environment_hash, after.environment_hash, is_cause=True),
        *(
            Finding(
                what=f"environment: {name}",
                recorded=before.libraries.get(name, "none"),
                rebuilt=after.libraries.get(name, "none"),
                is_cause=True,
            )
            for name in changed
        ),
    )


def _short(what: str, recorded: str, rebuilt: str, *, is_cause: bool = False) -> Finding:
    """Return the finding on two hashes, cut to what tells them apart for people."""
    n_digits = 12 if recorded[:12] != rebuilt[:12] or recorded == rebuilt else 64
    return Finding(what=what, recorded=recorded[:n_digits], rebuilt=rebuilt[:n_digits], is_cause=is_cause)


def _rows(training_set: TrainingSet) -> pa.Table:
    return pa.concat_tables([training_set.train, training_set.validation, training_set.test])
