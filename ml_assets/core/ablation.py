"""Ablation: what each feature view adds, found by training without it and comparing on the validation days.

The validation days, because a person acts upon the answer: the holdout decides on promotions, and a view that was
dropped for its figures there would make them too good. Validation also chose each model's best epoch, with and without
the view alike. Every model is trained with the use case's own hyperparameters on the same sample of the training rows:
the figures compare these models with each other, not with the candidate, which has all rows.

Two kinds of noise count: of the days (paired bootstrap: the same days drawn for both models), and of the seed, measured
by training every variant several times. A small gain needs no explanation that the band around 0 offers as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml_assets.core.ablation_records import Ablation, ViewGain
from ml_assets.core.coded_sets import CodedSet, code_training_set
from ml_assets.core.encoding import Coded, Input, Signature, Vocabulary
from ml_assets.core.errors import BadInput, DataMissing
from ml_assets.core.evaluation import Floats
from ml_assets.core.feature_views import Feature
from ml_assets.core.importance import LOSSES, Losses, permutation_importance
from ml_assets.core.labelled_examples import is_sampled
from ml_assets.core.paired_bootstrap import DayResamples, Estimate
from ml_assets.core.scoring import score_coded
from ml_assets.core.spec import UseCase
from ml_assets.core.trainers import FittedModel, Labelled, Trainer, trainer_named
from ml_assets.core.training_sets import TrainingSet

_CONFIDENCE = 0.95
_IMPORTANCE_ROWS = 2_000

OnStep = Callable[[str, int, int], None]


def ablate(
    training_set: TrainingSet,
    *,
    use_case: UseCase,
    inputs: Sequence[Feature],
    n_train_rows: int,
    n_seeds: int,
    on_step: OnStep,
    work_folder: Path,
) -> Ablation:
    """Train the full model and one without each view, ``n_seeds`` times each, and tell what each view adds.

    ``n_train_rows`` bounds the training rows, chosen by hash. ``on_step`` is told of each training before it begins:
    what it is, its number from 1, and how many there are. Raises BadInput for fewer than two seeds, which tell no
    noise, and for a use case of one view, without which there is nothing to train on.
    """
    views = list(dict.fromkeys(feature.view for feature in inputs))
    if n_seeds < 2 or len(views) < 2:
        raise BadInput(
            f"an ablation with {n_seeds} seeds over the views {views}: expected at least 2 seeds, to tell the noise of "
            "a training, and at least 2 views"
        )
    signature = Signature.of(inputs, use_case.output)
    coded = code_training_set(training_set, signature, Vocabulary.of(training_set.train, signature))
    chosen = is_sampled(training_set.train["decision_id"], min(1.0, n_train_rows / len(coded.train.labels)))
    fit = _Fit(
        trainer=trainer_named(use_case.trainer),
        use_case=use_case,
        coded=coded,
        train=_rows(coded.train, chosen.to_numpy(zero_copy_only=False)),
        work_folder=work_folder,
    )
    losses, y = LOSSES[use_case.task], coded.validation.labels.astype(np.float64)
    variants = {"all views": signature, **{f"without {view}": _without(signature, view) for view in views}}
    models: list[FittedModel] = []
    found: dict[str, Floats] = {}
    for name, part in variants.items():
        of_seeds: list[Floats] = []
        validation = columns_of(coded.validation.inputs, signature, part)
        for seed in range(use_case.seed, use_case.seed + n_seeds):
            on_step(f"{name}, seed {seed}", len(models) + 1, len(variants) * n_seeds)
            models.append(fit(part, seed=seed))
            of_seeds.append(losses(y, models[-1].predict(validation)))
        found[name] = np.stack(of_seeds)
    seed_noise = float(np.sqrt(np.mean([part.mean(axis=1).var(ddof=1) for part in found.values()])))
    resamples = DayResamples.of(training_set.validation["partition_on"].to_numpy(), seed=use_case.seed)
    importances = _importances(models[0], training_set, coded, losses=losses, seed=use_case.seed)
    full, *without = (part.mean(axis=0) for part in found.values())
    gains: list[ViewGain] = []
    for view, view_losses in zip(views, without, strict=True):
        gain = _gain(view_losses - full, resamples)
        gains.append(
            ViewGain(
                view=view,
                n_columns=sum(feature.view == view for feature in inputs),
                gain=gain.value,
                margin=margin(gain, seed_noise=seed_noise, n_seeds=n_seeds, n_variants=len(variants)),
                importance=importances[view],
            )
        )
    return Ablation(
        use_case=use_case.name,
        as_of=training_set.as_of,
        training_set=training_set.fingerprint,
        first_validation_day=training_set.days.validation[0],
        last_validation_day=training_set.days.validation[-1],
        n_train=len(fit.train.labels),
        n_train_available=len(coded.train.labels),
        n_validation=len(y),
        n_seeds=n_seeds,
        full_loss=float(full.mean()),
        seed_noise=seed_noise,
        views=tuple(sorted(gains, key=lambda gain: (-gain.gain, gain.view))),
    )


def margin(gain: Estimate, *, seed_noise: float, n_seeds: int, n_variants: int) -> float:
    """Return how far a gain may be off to either side, 95 times in 100.

    Both models are means over ``n_seeds`` trainings, so the seed adds twice its variance over ``n_seeds``; it is known
    from ``n_variants`` such means. The two variances add up with the degrees of freedom of Welch and Satterthwaite.
    Raises DataMissing where the days are too few to tell their noise.

    >>> day_noise_only = Estimate(value=0.0, standard_error=0.01, n_days=21)
    >>> round(margin(day_noise_only, seed_noise=0.0, n_seeds=3, n_variants=14), 5)
    0.02086
    """
    from scipy.special import stdtrit

    if gain.standard_error is None:
        raise DataMissing("the validation days are too few to tell their noise; validate on at least 2")
    of_days, of_seed = gain.standard_error**2, 2 * seed_noise**2 / n_seeds
    total = of_days + of_seed
    if total == 0:
        return 0.0
    freedom = total**2 / (of_days**2 / (gain.n_days - 1) + of_seed**2 / (n_variants * (n_seeds - 1)))
    return float(stdtrit(freedom, (1 + _CONFIDENCE) / 2)) * total**0.5


def columns_of(inputs: Coded, signature: Signature, part: Signature) -> Coded:
    """Return the columns of a part of the signature."""

    def places(columns: Sequence[Input], chosen: Sequence[Input]) -> list[int]:
        names = [column.name for column in columns]
        return [names.index(column.name) for column in chosen]

    return Coded(
        numeric=np.ascontiguousarray(inputs.numeric[:, places(signature.numeric, part.numeric)]),
        categorical=np.ascontiguousarray(inputs.categorical[:, places(signature.categorical, part.categorical)]),
    )


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """One training like the candidate's, on these rows and on any part of the columns."""

    trainer: Trainer
    use_case: UseCase
    coded: CodedSet
    train: Labelled
    work_folder: Path

    def __call__(self, part: Signature, *, seed: int) -> FittedModel:
        whole, names = self.coded.signature, {column.name for column in part.categorical}
        known = {name: values for name, values in self.coded.vocabulary.values.items() if name in names}
        train, validation = (
            Labelled(inputs=columns_of(rows.inputs, whole, part), labels=rows.labels)
            for rows in (self.train, self.coded.validation)
        )
        return self.trainer.fit(
            train,
            validation,
            signature=part,
            vocabulary=Vocabulary(values=known),
            hyperparameters=self.trainer.resolve(self.use_case.hyperparameters),
            seed=seed,
            warm_start=None,
            on_epoch=lambda _number, _metrics: None,
            work_folder=self.work_folder,
        )


def _without(signature: Signature, view: str) -> Signature:
    return Signature(
        numeric=tuple(column for column in signature.numeric if column.view != view),
        categorical=tuple(column for column in signature.categorical if column.view != view),
        output=signature.output,
    )


def _rows(examples: Labelled, chosen: npt.NDArray[np.bool_]) -> Labelled:
    inputs = Coded(numeric=examples.inputs.numeric[chosen], categorical=examples.inputs.categorical[chosen])
    return Labelled(inputs=inputs, labels=examples.labels[chosen])


def _gain(difference: Floats, resamples: DayResamples) -> Estimate:
    """Return the mean of a difference of each row, with its standard error over days."""
    n_days = resamples.weights.shape[1]
    sums, counts = np.bincount(resamples.day, difference, n_days), np.bincount(resamples.day, minlength=n_days)
    found = resamples.estimate((resamples.weights @ sums) / (resamples.weights @ counts))
    if found is None:
        raise DataMissing("a model answers no number on the validation days; train with other hyperparameters")
    return found


def _importances(
    model: FittedModel, training_set: TrainingSet, coded: CodedSet, *, losses: Losses, seed: int
) -> dict[str, Estimate]:
    """Return the permutation importance of each view for a full model, on a sample of the validation days."""
    share = min(1.0, _IMPORTANCE_ROWS / len(coded.validation.labels))
    chosen = is_sampled(training_set.validation["decision_id"], share).to_numpy(zero_copy_only=False)
    rows = _rows(coded.validation, chosen)
    onnx = model.to_onnx()
    found = permutation_importance(
        lambda inputs: score_coded(onnx, inputs),
        rows.inputs,
        rows.labels,
        training_set.validation["partition_on"].to_numpy()[chosen],
        signature=coded.signature,
        losses=losses,
        metric=None,
        seed=seed,
    )
    return {importance.name: importance.loss_increase for importance in found.views}
