"""The pinned holdout of a candidate: everything that is measured on it, once, for the gates and for the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from ml_assets.core.errors import BadInput
from ml_assets.core.evaluation import Floats
from ml_assets.core.leaks import leak_check
from ml_assets.core.package import ModelPackage
from ml_assets.core.paired_bootstrap import DayResamples
from ml_assets.core.promotion import Evidence
from ml_assets.core.scoring import score
from ml_assets.core.slices import slice_columns, slice_qualities
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import meaning_of
from ml_assets.core.training_sets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class HoldoutScores:
    """The rows of the holdout as each model sees them; all float64 [n], ``champion`` None where nobody is in charge."""

    labels: Floats
    candidate: Floats
    baselines: Mapping[str, Floats]
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
    return HoldoutScores(
        labels=training_set.test["label"].to_numpy().astype(np.float64),
        candidate=score(package, training_set.test),
        baselines=meaning_of(use_case.task).baselines(training_set.train, training_set.test, features),
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
    task, meaning = use_case.task, meaning_of(use_case.task)
    others = dict(scores.baselines) | ({} if scores.champion is None else {"champion": scores.champion})
    compared = {name: resamples.compare(y, candidate, other, task=task) for name, other in others.items()}
    return Evidence(
        output=use_case.output,
        candidate=meaning.evaluate(y, candidate),
        baselines={name: compared[name] for name in scores.baselines},
        champion=compared.get("champion"),
        slices=slice_qualities(
            training_set.test,
            slice_columns(use_case, training_set.manifest.inputs),
            y=y,
            candidate=candidate,
            other=scores.baselines[meaning.simple_baseline] if scores.champion is None else scores.champion,
            resamples=resamples,
            rule=use_case.promotion,
            task=task,
        ),
        largest_parity_difference=package.metrics.largest_parity_difference,
        leaks=leak_check(training_set, package.manifest, as_of_at=as_of_at),
        sample_fraction=training_set.manifest.sample_fraction,
    )
