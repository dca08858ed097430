"""From a training set to a candidate: fit, export, compare ONNX with the library, evaluate, and package."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.core import package as packages
from ml_assets.core.coded_sets import CodedSet, code_training_set
from ml_assets.core.encoding import Signature, Vocabulary
from ml_assets.core.errors import DataMissing, PackageRefused
from ml_assets.core.feature_views import Feature
from ml_assets.core.fingerprints import environment_hash
from ml_assets.core.intervals import confidence_intervals
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.package import Manifest, ModelPackage, PackageMetrics, Recipe, load_package, save_package
from ml_assets.core.parity import answer_scale, largest_difference
from ml_assets.core.portable_parity import verified_portable
from ml_assets.core.ports import ArtifactStore, Parameter, Tracker
from ml_assets.core.reference import build_reference
from ml_assets.core.scoring import score_coded
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyMetrics, meaning_of
from ml_assets.core.trainers import (
    Epoch,
    FittedModel,
    OnEpoch,
    WarmStart,
    name_of,
    trainer_named,
    versions_of,
)
from ml_assets.core.trainers.refusals import refuse_unlearnable
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.tuned_parameters import tuned_or

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class TrainedCandidate:
    """A candidate in the artifact store. ``seconds`` is the wall time of this call, ``history`` of its training."""

    package: ModelPackage
    is_reused: bool
    seconds: float
    history: tuple[Epoch, ...]


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
) -> TrainedCandidate:
    """Fit the use case's trainer on a training set and save the model as a verified package.

    The package holds the portable graph too; PackageRefused where that differs from the coded one by more than 1e-6.
    Differences of a regression are in standard deviations of the training labels.

    A whole package of the same recipe is used again. The newest tuned parameters take the place of the use case's where
    ``tuned_or`` finds that they apply. ``parent``, the champion, lends its weights if it was fitted on
    days before the validation days and chosen on days before the test days. Raises PackageRefused where the ONNX graph
    differs from the library by more than 1e-5 on any row of validation and test, or at a learned threshold, with nulls
    and unseen categories added.
    """
    started = perf_counter()
    trainer = trainer_named(use_case.trainer)
    recipe = Recipe(
        use_case=use_case.name,
        training_set=training_set.fingerprint,
        trainer=name_of(use_case.trainer),
        hyperparameters=tuned_or(
            trainer.resolve(use_case.hyperparameters),
            trainer=name_of(use_case.trainer),
            space=use_case.tuned_space,
            training_set=training_set,
            store=store,
        ),
        seed=use_case.seed,
        code_version=code_version,
        parent_version=parent.version if parent else None,
    )
    version = recipe.version(training_set.as_of)
    existing = _existing(store, use_case.name, version)
    if existing:
        store.put(_pointer_path(use_case.name, training_set.as_of), msgspec.json.encode(version))
        history = tuple(
            Epoch(number=number, train_loss=train, validation_loss=validation)
            for number, train, validation in existing.metrics.epochs
        )
        return TrainedCandidate(package=existing, is_reused=True, seconds=perf_counter() - started, history=history)
    run = tracker.start(use_case=use_case.name, run_name=version, parameters=_parameters(recipe))

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        run.log(metrics, step=epoch)
        on_epoch(epoch, metrics)

    summary: Mapping[str, float] = {}
    try:
        signature = Signature.of(inputs, use_case.output)
        coded = code_training_set(training_set, signature, Vocabulary.of(training_set.train, signature))
        refuse_unlearnable(coded.train, coded.validation, task=use_case.task)
        fitted = trainer.fit(
            coded.train,
            coded.validation,
            signature=signature,
            vocabulary=coded.vocabulary,
            hyperparameters=recipe.hyperparameters,
            seed=recipe.seed,
            warm_start=_warm_start(parent, training_set),
            on_epoch=report,
            work_folder=work_folder,
        )
        package = _package(training_set, use_case, inputs, recipe, coded, fitted, store)
        store.put(_pointer_path(use_case.name, training_set.as_of), msgspec.json.encode(version))
        summary = _summary(package)
    finally:
        run.finish(summary)
    return TrainedCandidate(package=package, is_reused=False, seconds=perf_counter() - started, history=fitted.history)


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
    fitted: FittedModel,
    store: ArtifactStore,
) -> ModelPackage:
    """Export the fitted model, hold it against its library, evaluate it, and save it."""
    model, meaning = fitted.to_onnx(), meaning_of(use_case.task)
    scale = answer_scale(coded.train.labels, use_case.task)
    difference = largest_difference(model, fitted, [coded.validation.inputs, coded.test.inputs], scale=scale)
    judged = [training_set.validation, training_set.test]
    portable = verified_portable(model, judged, signature=coded.signature, vocabulary=coded.vocabulary, scale=scale)
    train, validation, test = (score_coded(model, p.inputs) for p in (coded.train, coded.validation, coded.test))
    best = min(fitted.history, key=lambda epoch: epoch.validation_loss, default=None)
    baseline_features = use_case.baseline_features or tuple(feature.name for feature in inputs)
    baselines = meaning.baselines(training_set.train, training_set.test, baseline_features)
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
        largest_parity_difference=difference,
        epochs=tuple((e.number, e.train_loss, e.validation_loss) for e in fitted.history),
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
    }
    return save_package(store, manifest, content)


def _parameters(recipe: Recipe) -> dict[str, Parameter]:
    return {
        **recipe.hyperparameters,
        "seed": recipe.seed,
        "training_set": recipe.training_set,
        "code_version": recipe.code_version,
        "parent_version": recipe.parent_version,
    }


def _warm_start(parent: ModelPackage | None, training_set: TrainingSet) -> WarmStart | None:
    """Return what the champion lends, or None where its weights have seen a day this candidate is judged on."""
    if parent is None:
        return None
    days, earlier = training_set.days, parent.manifest
    if earlier.last_train_day >= days.validation[0] or earlier.last_validation_day >= days.test[0]:
        return None
    from safetensors.numpy import load

    return WarmStart(weights=load(parent.weights), signature=parent.signature, vocabulary=parent.vocabulary)


def _safetensors(weights: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in sorted(weights.items())})


def _summary(package: ModelPackage) -> dict[str, float]:
    """Return the holdout metrics as the tracker wants them: flat, numbers only."""
    meaning = meaning_of(package.signature.output.task)
    rows = {"holdout": package.metrics.holdout, **package.metrics.baselines}
    values = {f"{row}_{name}": v for row, found in rows.items() for name, v in meaning.figures(found).items()}
    return {name: value for name, value in values.items() if value is not None}
