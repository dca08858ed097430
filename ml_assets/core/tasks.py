"""What a task means: its metrics and their words, the loss that decides, and the baselines a model must beat."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy.typing as npt
import pyarrow as pa

from ml_assets.core.baselines import (
    Baseline,
    fit_classification_baselines,
    fit_regression_baselines,
    predictions_of,
)
from ml_assets.core.encoding import Task
from ml_assets.core.evaluation import CalibrationBin, Floats, Metrics, calibration_curve, evaluate
from ml_assets.core.regression import PredictionBin, RegressionMetrics, evaluate_regression, prediction_bins

AnyMetrics = Metrics | RegressionMetrics
AnyCurve = Sequence[CalibrationBin] | Sequence[PredictionBin]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of a task's metrics: the field that holds it, and how people read it.

    ``is_loss`` tells that lower is better, ``has_unit`` that it is in the unit of the label.
    """

    name: str
    words: str
    is_loss: bool
    has_unit: bool = False

    def title(self, unit: str | None) -> str:
        """Return the title of an axis or a column, with the unit where there is one.

        >>> Measure(name="log_loss", words="log loss", is_loss=True).title("minutes")
        'Log loss'
        """
        words = f"{self.words[:1].upper()}{self.words[1:]}"
        return f"{words} ({unit})" if unit and self.has_unit else words

    def write(self, value: float, unit: str | None = None) -> str:
        """Write a value of this measure for people, with the unit where it has one.

        >>> Measure(name="rmse", words="RMSE", is_loss=True, has_unit=True).write(12.3456, "minutes")
        '12.35 minutes'
        """
        if not self.has_unit:
            return f"{value:.4f}"
        # What rounding leaves of a zero is none.
        return f"{0.0 if abs(value) < 1e-9 else value:.4g}" + (f" {unit}" if unit else "")


@dataclass(frozen=True, kw_only=True)
class TaskMeaning:
    """All that depends on the task, once.

    Attributes:
        task: which one.
        evaluate: labels and predictions, each [n] -> the metrics.
        curve: labels and predictions -> what was predicted and what happened, in tenths of the predictions.
        fit_baselines: training rows, columns -> the baselines, fitted.
        baseline_words: what people call each baseline: the constant prediction first, then the simple model.
        measures: the metrics of a table, the most telling first; each is a field of what ``evaluate`` returns.
        loss: what candidates are compared by.
        daily: what is shown of a single day: of a classification its ranking, of a regression its loss.
        compared: the measures in which gains over other models are estimated.
        sliced: those of them in which no slice may fall below its floor.
        beats: each baseline with the measures in which it must be beaten.
    """

    task: Task
    evaluate: Callable[[npt.ArrayLike, npt.ArrayLike], AnyMetrics]
    curve: Callable[[npt.ArrayLike, npt.ArrayLike], AnyCurve]
    fit_baselines: Callable[[pa.Table, Sequence[str]], Sequence[Baseline]]
    baseline_words: Mapping[str, str]
    measures: tuple[Measure, ...]
    loss: Measure
    daily: Measure
    compared: tuple[Measure, ...]
    sliced: tuple[Measure, ...]
    beats: tuple[tuple[str, Measure], ...]

    @property
    def simple_baseline(self) -> str:
        """The name of the baseline that is a model: slices are held against it where nobody is in charge."""
        return list(self.baseline_words)[-1]

    def baselines(self, train: pa.Table, rows: pa.Table, features: Sequence[str]) -> dict[str, Floats]:
        """Return what each baseline, fitted on the training rows, predicts for other rows: [n] by name."""
        return predictions_of(self.fit_baselines(train, features), rows)

    def loss_of(self, labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
        """Return the loss of these predictions; raise ValueError where they are none."""
        return float(getattr(self.evaluate(labels, predictions), self.loss.name))

    def loss_title(self, unit: str | None) -> str:
        """Return the title of an axis that shows losses.

        >>> CLASSIFICATION.loss_title(None), REGRESSION.loss_title("minutes")
        ('Log loss (nats)', 'RMSE (minutes)')
        """
        return self.loss.title(unit) if self.loss.has_unit else f"{self.loss.title(None)} (nats)"

    def figures(self, metrics: AnyMetrics) -> Mapping[str, float | None]:
        """Return the value of each measure by its name; None where the rows do not determine it."""
        return {measure.name: getattr(metrics, measure.name) for measure in self.measures}

    def sentence(self, metrics: AnyMetrics, unit: str | None, *, n_measures: int = 3) -> str:
        """Say the first measures in one line, such as ``RMSE 12.35 minutes, MAE 9.2 minutes, R2 0.9812``."""
        found = self.figures(metrics)
        shown = [(measure, found[measure.name]) for measure in self.measures[:n_measures]]
        return ", ".join(f"{m.words} {'-' if value is None else m.write(value, unit)}" for m, value in shown)


_LOG_LOSS = Measure(name="log_loss", words="log loss", is_loss=True)
_ROC_AUC = Measure(name="roc_auc", words="ROC AUC", is_loss=False)
_PR_AUC = Measure(name="pr_auc", words="PR AUC", is_loss=False)
_BRIER = Measure(name="brier", words="Brier score", is_loss=True)
_CALIBRATION_ERROR = Measure(name="calibration_error", words="calibration error", is_loss=True)

CLASSIFICATION = TaskMeaning(
    task="binary_classification",
    evaluate=evaluate,
    curve=calibration_curve,
    fit_baselines=fit_classification_baselines,
    baseline_words={"base_rate": "the base rate", "logistic": "the logistic baseline"},
    measures=(_ROC_AUC, _PR_AUC, _LOG_LOSS, _BRIER, _CALIBRATION_ERROR),
    loss=_LOG_LOSS,
    daily=_ROC_AUC,
    compared=(_LOG_LOSS, _ROC_AUC, _PR_AUC),
    sliced=(_LOG_LOSS, _ROC_AUC),
    # The average precision of a constant prediction is the positive share of the holdout; its ROC AUC is 0.5.
    beats=(("base_rate", _PR_AUC), ("base_rate", _LOG_LOSS), ("logistic", _ROC_AUC), ("logistic", _LOG_LOSS)),
)

_RMSE = Measure(name="rmse", words="RMSE", is_loss=True, has_unit=True)
_MAE = Measure(name="mae", words="MAE", is_loss=True, has_unit=True)
_MEDIAN = Measure(name="median_absolute_error", words="median absolute error", is_loss=True, has_unit=True)
_R2 = Measure(name="r2", words="R2", is_loss=False)
_BIAS = Measure(name="bias", words="bias", is_loss=False, has_unit=True)
_BIN_ERROR = Measure(name="calibration_error", words="bias within tenths", is_loss=True, has_unit=True)

REGRESSION = TaskMeaning(
    task="regression",
    evaluate=evaluate_regression,
    curve=prediction_bins,
    fit_baselines=fit_regression_baselines,
    baseline_words={"mean": "the mean", "linear": "the linear baseline"},
    measures=(_RMSE, _MAE, _R2, _MEDIAN, _BIAS, _BIN_ERROR),
    loss=_RMSE,
    daily=_RMSE,
    compared=(_RMSE, _MAE, _R2),
    sliced=(_RMSE,),
    beats=(("mean", _RMSE), ("mean", _MAE), ("linear", _RMSE), ("linear", _MAE)),
)

_MEANINGS: Mapping[Task, TaskMeaning] = {meaning.task: meaning for meaning in (CLASSIFICATION, REGRESSION)}

_WORDS = {measure.name: measure.words for meaning in _MEANINGS.values() for measure in meaning.measures}


def meaning_of(task: Task) -> TaskMeaning:
    """Return what a task means."""
    return _MEANINGS[task]


def words_of(measure: str) -> str:
    """Return how people read the name of a measure, whatever the task.

    >>> words_of("roc_auc")
    'ROC AUC'
    """
    return _WORDS.get(measure, measure.replace("_", " "))
