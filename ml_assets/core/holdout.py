"""The pinned holdout of a candidate: everything that is measured on it, once, for the gates and for the report."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from ml_assets.core.errors import BadInput
from ml_assets.core.evaluation import Floats, baseline_predictions, evaluate
from ml_assets.core.leaks import leak_check
from ml_assets.core.package import ModelPackage
from ml_assets.core.paired_bootstrap import DayResamples
from ml_assets.core.promotion import Evidence
from ml_assets.core.scoring import score
from ml_assets.core.slices import slice_columns, slice_qualities
from ml_assets.core.spec import UseCase
from ml_assets.core.training_sets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class HoldoutScores:
    """The rows of the holdout as each model sees them; all float64 [n], ``champion`` None where nobody is in charge."""

    labels: Floats
    candidate: Floats
    base_rate: Floats
    logistic: Floats
    champion: Floats | None


def score_holdout(
    package: ModelPackage, champion: ModelPackage | None, training_set: TrainingSet, use_case: UseCase
) -> HoldoutScores:
    """Predict the test days of a training set with the candidate, the baselines and the champion.

    Raises BadInput where the candidate was trained on another training set: it may have seen these days.
    """
    if package.manifest.recipe.training_set != training_set.fingerprint:
        raise BadInput(
            f"{package.version} was trained on the training set {package.manifest.recipe.training_set[:12]}, and "
            f"{training_set.as_of} now has {training_set.fingerprint[:12]}; materialize {package.use_case}/candidate "
            "for that date again"
        )
    features = use_case.baseline_features or tuple(feature.name for feature in training_set.manifest.inputs)
    baselines = baseline_predictions(training_set.train, training_set.test, features)
    return HoldoutScores(
        labels=training_set.test["label"].to_numpy().astype(np.float64),
        candidate=score(package, training_set.test),
        base_rate=baselines["base_rate"],
        logistic=baselines["logistic"],
        champion=score(champion, training_set.test) if champion else None,
    )


def evidence_on(
    package: ModelPackage,
    champion: ModelPackage | None,
    training_set: TrainingSet,
    use_case: UseCase,
    *,
    as_of_at: datetime,
) -> Evidence:
    """Measure a candidate beside the baselines and the champion; the same input gives the same figures.

    ``as_of_at`` is the UTC moment at which the as-of date begins. Raises BadInput where the candidate was trained on
    another training set, TrainingDataMissing where the training rows hold one class only.
    """
    scores = score_holdout(package, champion, training_set, use_case)
    resamples = DayResamples.of(training_set.test["partition_on"].to_numpy(), seed=use_case.seed)
    y, candidate = scores.labels, scores.candidate
    return Evidence(
        candidate=evaluate(y, candidate),
        baselines={
            "base_rate": resamples.compare(y, candidate, scores.base_rate),
            "logistic": resamples.compare(y, candidate, scores.logistic),
        },
        champion=resamples.compare(y, candidate, scores.champion) if scores.champion is not None else None,
        slices=slice_qualities(
            training_set.test,
            slice_columns(use_case, training_set.manifest.inputs),
            y=y,
            candidate=candidate,
            other=scores.logistic if scores.champion is None else scores.champion,
            resamples=resamples,
            rule=use_case.promotion,
        ),
        largest_parity_difference=package.metrics.largest_parity_difference,
        leaks=leak_check(training_set, package.manifest, as_of_at=as_of_at),
        sample_fraction=training_set.manifest.sample_fraction,
    )
