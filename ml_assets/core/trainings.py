"""One training: its recipe, what the champion lends to it, and its fits, from nothing and from what is lent."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from ml_assets.core import registry
from ml_assets.core.coded_sets import CodedSet, RecordsFolder, code_training_set
from ml_assets.core.encoding import Signature, Vocabulary
from ml_assets.core.feature_views import Feature
from ml_assets.core.package import ModelPackage, Recipe, load_package
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.records import answers
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import meaning_of
from ml_assets.core.trainers import FittedModel, WarmStart, name_of, trainer_named
from ml_assets.core.trainers.launch import Launch
from ml_assets.core.trainers.refusals import refuse_unlearnable
from ml_assets.core.trainers.segmented import SegmentedTrainer, start_of_parent
from ml_assets.core.trainers.starts import OnStartEpoch, Started, StartName, fit_both
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.tuned_parameters import tuned_or


def recipe_of(
    training_set: TrainingSet, use_case: UseCase, store: ArtifactStore, code_version: str, parent: ModelPackage | None
) -> Recipe:
    """Return everything that decides what a training yields, with the best hyperparameters that are known."""
    return Recipe(
        use_case=use_case.name,
        training_set=training_set.fingerprint,
        trainer=name_of(use_case.trainer),
        hyperparameters=tuned_or(
            trainer_named(use_case.trainer).resolve(use_case.hyperparameters),
            trainer=name_of(use_case.trainer),
            space=use_case.tuned_space,
            training_set=training_set,
            store=store,
            champion=parent,
        ),
        seed=use_case.seed,
        code_version=code_version,
        parent_version=parent.version if parent else None,
        segments=use_case.segments,
    )


def fit_starts(
    training_set: TrainingSet,
    use_case: UseCase,
    inputs: Sequence[Feature],
    recipe: Recipe,
    parent: ModelPackage | None,
    on_epoch: OnStartEpoch,
    work_folder: Path,
    launch: Launch,
    *,
    records: RecordsFolder | None = None,
) -> tuple[CodedSet, Started]:
    """Code the training set, with what the champion knew where it lends its weights, and fit from each start."""
    trainer = trainer_named(use_case.trainer, launch)
    signature = Signature.of(inputs, use_case.output)
    lent, not_lent = lent_by(parent, training_set)
    if use_case.segments:
        trainer = SegmentedTrainer(trainer, use_case.segments)
    else:
        lent = start_of_parent(lent)
    known = lent.vocabulary if lent else None
    vocabulary = Vocabulary.of(training_set.train, signature, known)
    coded = code_training_set(training_set, signature, vocabulary, folder=records)
    refuse_unlearnable(coded.train, coded.validation, task=use_case.task)

    def fit(start: StartName, warm_start: WarmStart | None) -> FittedModel:
        return trainer.fit(
            coded.train,
            coded.validation,
            signature=signature,
            vocabulary=coded.vocabulary,
            hyperparameters=recipe.hyperparameters,
            seed=recipe.seed,
            warm_start=warm_start,
            on_epoch=lambda number, metrics: on_epoch(start, number, metrics),
            work_folder=work_folder / use_case.name / recipe.version(training_set.as_of),
        )

    def validation_loss(fitted: FittedModel) -> float:
        predicted = answers(fitted.predict, coded.validation.inputs)
        return meaning_of(use_case.task).loss_of(coded.validation.labels, predicted)

    return coded, fit_both(fit, lent=lent, not_lent=not_lent, loss=validation_loss)


def lent_by(parent: ModelPackage | None, training_set: TrainingSet) -> tuple[WarmStart | None, str]:
    """Return what the champion lends; or None, and why it lends nothing (no reason where there is no champion)."""
    if parent is None:
        return None, ""
    days, earlier = training_set.days, parent.manifest
    if earlier.last_train_day >= days.validation[0] or earlier.last_validation_day >= days.test[0]:
        return None, f"the champion {parent.version} has seen days that this candidate is judged on"
    from safetensors.numpy import load

    weights = load(parent.weights)
    if not weights:
        return (
            None,
            f"the champion {parent.version} has no weights to start from; its trainer is {earlier.recipe.trainer}",
        )
    return WarmStart(weights=weights, signature=parent.signature, vocabulary=parent.vocabulary), ""


def champion_before(store: ArtifactStore, use_case_name: str, as_of: date) -> ModelPackage | None:
    """Return who was in charge on the day before: a re-run must not find its own candidate there."""
    entry = registry.champion_on(store, use_case_name, as_of - timedelta(days=1))
    if entry is None:
        return None
    return load_package(store, use_case_name, entry.version, expected_hash=entry.package_hash)
