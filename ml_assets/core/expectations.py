"""What a model is expected to show on days to come: kept in its package, learnt on days it was not fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_assets.core.baselines import Baseline, labels_of
from ml_assets.core.encoding import Task
from ml_assets.core.estimates import (
    ErrorLevels,
    Expected,
    Recalibration,
    expected_of_probabilities,
    fit_recalibration,
    realised_quality,
)
from ml_assets.core.evaluation import Floats
from ml_assets.core.paired_bootstrap import DayResamples
from ml_assets.core.tasks import CLASSIFICATION

# Judgement: a day of fewer labelled rows says more of chance than of the estimate.
MINIMUM_ROWS_OF_A_DAY = 30
# A recalibration is used only where it gains on days it was not fitted on, this surely.
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class DayNoise:
    """How far single days strayed from the estimate beyond chance: the mean squared error less that of chance alone.

    It can be negative where they strayed less; pooled with other days it must stay so.
    """

    variance: float
    n_days: int


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Labelled rows that a model was not fitted on: labels, predictions and local days, each of shape (n,)."""

    labels: Floats
    predictions: Floats
    days: npt.NDArray[np.datetime64]

    @classmethod
    def of(cls, rows: pa.Table, predictions: Floats) -> "HeldOut":
        """Return the rows of one part of a training set, with what the model predicts for them."""
        return cls(labels=labels_of(rows), predictions=predictions, days=rows["partition_on"].to_numpy())


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """What monitoring needs of a model to say how good it ought to be.

    Attributes:
        task: what it answers.
        recalibration: of a classification, what makes its probabilities honest; the identity unless it gains.
        error_levels: of a regression, its errors by the height of the prediction.
        day_noise: of each metric that is estimated, how far the held-out days strayed from their estimates.
        baselines: the baselines it had to beat, as fitted on its training rows.
    """

    task: Task
    recalibration: Recalibration = field(default_factory=Recalibration)
    error_levels: ErrorLevels | None = None
    day_noise: Mapping[str, DayNoise]
    baselines: tuple[Baseline, ...] = ()

    def expected(self, predictions: Floats) -> Mapping[str, Expected]:
        """Estimate each metric of rows with these predictions; of none where there are no rows."""
        if not len(predictions):
            return {}
        if self.error_levels is not None:
            return self.error_levels.expected(predictions)
        if self.task == "regression":
            return {}
        return expected_of_probabilities(predictions, self.recalibration.apply(predictions))


def unknown_expectations(task: Task) -> Expectations:
    """Return what is expected of a package that keeps none: probabilities as they are, of a regression nothing."""
    return Expectations(task=task, day_noise={})


def learn_expectations(
    validation: HeldOut, test: HeldOut, *, task: Task, baselines: Sequence[Baseline], seed: int
) -> Expectations:
    """Learn what to expect of a model on its validation and test days.

    The recalibration is fitted on the validation days and has to gain log loss on the test days, beyond the noise over
    days; then it is fitted again on all of them. Nothing here touches the model itself.
    """
    labels, predictions, days = (
        np.concatenate([getattr(part, name) for part in (validation, test)])
        for name in ("labels", "predictions", "days")
    )
    if task == "regression":
        recalibration, levels = Recalibration(), ErrorLevels.of(labels, predictions)
    else:
        gains = _gains(fit_recalibration(validation.labels, validation.predictions), test, seed)
        recalibration, levels = fit_recalibration(labels, predictions) if gains else Recalibration(), None
    learnt = Expectations(
        task=task, recalibration=recalibration, error_levels=levels, day_noise={}, baselines=tuple(baselines)
    )
    return replace(learnt, day_noise=day_noise(learnt, labels, predictions, days))


def day_noise(
    expectations: Expectations, labels: Floats, predictions: Floats, days: npt.NDArray[np.datetime64]
) -> Mapping[str, DayNoise]:
    """Hold the estimate of each day that has 30 labelled rows against what came true."""
    excess: dict[str, list[float]] = {}
    for day in np.unique(days):
        rows = days == day
        if rows.sum() < MINIMUM_ROWS_OF_A_DAY:
            continue
        expected = expectations.expected(predictions[rows])
        realised = realised_quality(labels[rows], predictions[rows], task=expectations.task)
        for name in expected.keys() & realised.keys():
            of_day = (realised[name] - expected[name].value) ** 2 - expected[name].standard_error ** 2
            excess.setdefault(name, []).append(of_day)
    return {
        name: DayNoise(variance=float(np.mean(values)), n_days=len(values)) for name, values in sorted(excess.items())
    }


def _gains(recalibration: Recalibration, test: HeldOut, seed: int) -> bool:
    resamples = DayResamples.of(test.days, seed=seed)
    found = resamples.gain(CLASSIFICATION.loss, test.labels, recalibration.apply(test.predictions), test.predictions)
    margin = found.margin(_CONFIDENCE) if found else None
    return found is not None and margin is not None and found.value > margin
