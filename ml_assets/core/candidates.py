"""From a training set to a candidate: fit, export, compare ONNX with the library, evaluate, and package."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.core import package as packages
from ml_assets.core.baselines import predictions_of
from ml_assets.core.coded_sets import CodedSet, RecordsFolder
from ml_assets.core.errors import DataMissing, PackageRefused
from ml_assets.core.expectations import HeldOut, learn_expectations
from ml_assets.core.experiments import ExperimentLog, begin_training
from ml_assets.core.feature_views import Feature
from ml_assets.core.fingerprints import environment_hash
from ml_assets.core.intervals import confidence_intervals
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.package import Manifest, ModelPackage, PackageMetrics, Recipe, load_package, save_package
from ml_assets.core.parity import answer_scale, compare
from ml_assets.core.portable_parity import verified_portable
from ml_assets.core.ports import ArtifactStore, Parameter, Tracker
from ml_assets.core.records import answers
from ml_assets.core.reference import build_reference
from ml_assets.core.scoring import score_coded
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyMetrics, meaning_of
from ml_assets.core.tracked_artifacts import tracked_package, tracked_training_set
from ml_assets.core.trainers import Epoch, OnEpoch, versions_of
from ml_assets.core.trainers.checkpoints import clear_checkpoints
from ml_assets.core.trainers.launch import ONE_PROCESS, Launch
from ml_assets.core.trainers.segmented import FittedSegments
from ml_assets.core.trainers.starts import StartCost, Started, StartName, TrackedEpochs
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.trainings import fit_starts, recipe_of

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class TrainedCandidate:
    """A candidate in the artifact store. ``seconds`` is the wall time of this call, ``history`` of its training.

    ``costs`` are what each start took that was trained here; none for a package that was used again.
    """

    package: ModelPackage
    is_reused: bool
    seconds: float
    history: tuple[Epoch, ...]
    costs: Mapping[StartName, StartCost] = field(default_factory=dict[StartName, StartCost])


def train_candidate(
    training_set: TrainingSet,
    *,
    use_case: UseCase,
    inputs: Sequence[Feature],
    store: ArtifactStore,
    tracker: Tracker,
    code_version: str,
    parent: ModelPackage | None,
    on_epoch: OnEpoch,
    work_folder: Path,
    launch: Launch = ONE_PROCESS,
    records: RecordsFolder | None = None,
    experiments: ExperimentLog | None = None,
) -> TrainedCandidate:
    """Fit the use case's trainer on a training set and save the model as a verified package.

    The package holds the portable graph too; PackageRefused where that differs from the coded one by more than 1e-6.
    Differences of a regression are in standard deviations of the training labels.

    A whole package of the same recipe is used again. The newest tuned parameters take the place of the use case's where
    ``tuned_or`` finds that they apply. ``parent``, the champion, lends its weights if it was fitted on
    days before the validation days and chosen on days before the test days; then a model is trained from them and one
    from nothing, and validation chooses. Raises PackageRefused where the ONNX graph
    differs from the library by more than 1e-5 on any row of validation and test, or at a learned threshold, with nulls
    and unseen categories added. ``experiments`` records the attempt, whatever comes of it.

    A trainer that keeps checkpoints keeps them below ``work_folder``, by version: called again after a kill, it goes on
    there. Of several processes of a ``launch`` this is for the first; the others call ``assist_training``.
    """
    started = perf_counter()
    recipe = recipe_of(training_set, use_case, store, code_version, parent)
    version = recipe.version(training_set.as_of)
    attempt = begin_training(experiments, recipe, training_set)
    existing = _existing(store, use_case.name, version)
    if existing:
        attempt.reuse(existing)
        store.put(_pointer_path(use_case.name, training_set.as_of), msgspec.json.encode(version))
        clear_checkpoints(work_folder / use_case.name, version)
        history = tuple(
            Epoch(number=number, train_loss=train, validation_loss=validation)
            for number, train, validation in existing.metrics.epochs
        )
        return TrainedCandidate(package=existing, is_reused=True, seconds=perf_counter() - started, history=history)
    run = tracker.start(use_case=use_case.name, run_name=version, parameters=_parameters(recipe))
    run.used(tracked_training_set(training_set, store))
    epochs = TrackedEpochs(run, has_champion=parent is not None)

    def report(start: StartName, epoch: int, metrics: Mapping[str, float]) -> None:
        epochs.add(start, metrics)
        on_epoch(epoch, epochs.named(start, metrics))

    summary: Mapping[str, float] = {}
    try:
        coded, done = fit_starts(
            training_set, use_case, inputs, recipe, parent, report, work_folder, launch, records=records
        )
        epochs.settle("warm" if done.record and done.record.warm else "cold")
        package = _package(training_set, use_case, inputs, recipe, coded, done, store, launch)
        store.put(_pointer_path(use_case.name, training_set.as_of), msgspec.json.encode(version))
        clear_checkpoints(work_folder / use_case.name, version)
        run.made(tracked_package(package, store))
        summary = {**_summary(package), **done.figures}
        attempt.complete(summary, package)
    except BaseException as error:
        attempt.fail(error)
        raise
    finally:
        epochs.settle("warm")  # of a start that did not end
        run.finish(summary)
    return TrainedCandidate(
        package=package,
        is_reused=False,
        seconds=perf_counter() - started,
        history=done.fitted.history,
        costs=done.costs,
    )


def assist_training(
    training_set: TrainingSet,
    *,
    use_case: UseCase,
    inputs: Sequence[Feature],
    store: ArtifactStore,
    code_version: str,
    parent: ModelPackage | None,
    work_folder: Path,
    launch: Launch,
    records: RecordsFolder | None = None,
) -> None:
    """Take part in a ``train_candidate`` of the launch's first process: the same fits, nothing written."""
    recipe = recipe_of(training_set, use_case, store, code_version, parent)
    if _existing(store, use_case.name, recipe.version(training_set.as_of)):
        return

    def ignore(start: StartName, epoch: int, metrics: Mapping[str, float]) -> None:
        """Leave reporting to the first process."""

    fit_starts(training_set, use_case, inputs, recipe, parent, ignore, work_folder, launch, records=records)


def candidate_of(store: ArtifactStore, use_case_name: str, as_of: date) -> str:
    """Return the version last trained for an as-of date; raise DataMissing where there is none."""
    path = _pointer_path(use_case_name, as_of)
    if not store.exists(path):
        raise DataMissing(
            f"{use_case_name} has no candidate as of {as_of}; materialize {use_case_name}/candidate for that date first"
        )
    return msgspec.json.decode(store.get(path), type=str)


def _pointer_path(use_case_name: str, as_of: date) -> str:
    return artifact_path(f"candidates/{identifier(use_case_name)}/{as_of.isoformat()}.json")


def _existing(store: ArtifactStore, use_case_name: str, version: str) -> ModelPackage | None:
    """Return the package of this version if it is there and whole; a damaged one is trained again."""
    if not packages.package_exists(store, use_case_name, version):
        return None
    try:
        return load_package(store, use_case_name, version)
    except PackageRefused:
        return None


def _package(
    training_set: TrainingSet,
    use_case: UseCase,
    inputs: Sequence[Feature],
    recipe: Recipe,
    coded: CodedSet,
    done: Started,
    store: ArtifactStore,
    launch: Launch,
) -> ModelPackage:
    """Export the chosen model, hold it against its library, evaluate it, and save it."""
    fitted = done.fitted
    model, meaning = fitted.to_onnx(), meaning_of(use_case.task)
    scale = answer_scale(coded.train.labels, use_case.task)
    parity = compare(model, fitted, [coded.validation.inputs, coded.test.inputs], scale=scale)
    validation, test = parity.answers
    answered = [(training_set.validation, validation), (training_set.test, test)]
    portable = verified_portable(model, answered, signature=coded.signature, vocabulary=coded.vocabulary, scale=scale)
    train = answers(lambda batch: score_coded(model, batch), coded.train.inputs)
    best = min(fitted.history, key=lambda epoch: epoch.validation_loss, default=None)
    baseline_features = use_case.baseline_features or tuple(feature.name for feature in inputs)
    fitted_baselines = meaning.fit_baselines(training_set.train, baseline_features)
    baselines = predictions_of(fitted_baselines, training_set.test)
    metrics = PackageMetrics[AnyMetrics](
        holdout=meaning.evaluate(coded.test.labels, test),
        intervals=confidence_intervals(
            coded.test.labels,
            test,
            training_set.test["partition_on"].to_numpy(),
            seed=recipe.seed,
            task=use_case.task,
        ),
        baselines={name: meaning.evaluate(coded.test.labels, found) for name, found in baselines.items()},
        n_train=len(train),
        n_validation=len(validation),
        n_epochs=len(fitted.history),
        best_epoch=best.number if best else 0,
        validation_loss=meaning.loss_of(coded.validation.labels, validation),
        largest_parity_difference=parity.largest_difference,
        epochs=tuple((e.number, e.train_loss, e.validation_loss) for e in fitted.history),
        warm_start=done.record,
        segments=fitted.outcomes if isinstance(fitted, FittedSegments) else (),
    )
    everything = pa.concat_tables([training_set.train, training_set.validation, training_set.test])
    manifest = Manifest(
        version=recipe.version(training_set.as_of),
        as_of=training_set.as_of,
        recipe=recipe,
        environment_hash=environment_hash(),
        last_train_day=training_set.days.train[-1],
        last_validation_day=training_set.days.validation[-1],
        is_warm_started=fitted.is_warm_started,
        libraries={**versions_of(*_LIBRARIES), **fitted.libraries},
        files={},
        n_processes=launch.n_processes,
        streaming_bytes=coded.streaming_bytes,
    )
    content = {
        packages.MODEL: model,
        packages.PORTABLE: portable,
        packages.WEIGHTS: _safetensors(fitted.weights()),
        packages.VOCABULARY: msgspec.json.encode(coded.vocabulary, order="sorted"),
        packages.SIGNATURE: msgspec.json.format(msgspec.json.encode(coded.signature)),
        packages.REFERENCE: msgspec.json.encode(
            build_reference(everything, inputs, np.concatenate([train, validation, test]))
        ),
        packages.METRICS: msgspec.json.format(msgspec.json.encode(metrics, order="sorted")),
        packages.EXPECTATIONS: msgspec.json.encode(
            learn_expectations(
                HeldOut.of(training_set.validation, validation),
                HeldOut.of(training_set.test, test),
                task=use_case.task,
                baselines=fitted_baselines,
                seed=recipe.seed,
            ),
            order="sorted",
        ),
    }
    return save_package(store, manifest, content)


def _parameters(recipe: Recipe) -> dict[str, Parameter]:
    segments = {} if recipe.segments is None else asdict(recipe.segments)
    return {
        **recipe.hyperparameters,
        **{f"segments_{name}": value for name, value in segments.items()},
        "seed": recipe.seed,
        "training_set": recipe.training_set,
        "code_version": recipe.code_version,
        "parent_version": recipe.parent_version,
    }


def _safetensors(weights: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in sorted(weights.items())})


def _summary(package: ModelPackage) -> dict[str, float]:
    """Return the holdout metrics as the tracker wants them: flat, numbers only."""
    meaning = meaning_of(package.signature.output.task)
    rows = {"holdout": package.metrics.holdout, **package.metrics.baselines}
    values = {f"{row}_{name}": v for row, found in rows.items() for name, v in meaning.figures(found).items()}
    return {name: value for name, value in values.items() if value is not None}
