"""How good the predictions of a day proved to be, once its labels are known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.calibration import WeekCalibration
from ml_assets.core.drift_tests import percent
from ml_assets.core.encoding import Task
from ml_assets.core.errors import DataMissing
from ml_assets.core.evaluation import Floats, Metrics, constant_log_loss, evaluate, log_loss
from ml_assets.core.quality_noise import HoldoutNoise, jackknife, quantile
from ml_assets.core.regression_performance import QualityFinding, regression_findings, regression_quality
from ml_assets.core.tasks import AnyMetrics

__all__ = [
    "PERFORMANCE_SCHEMA",
    "ScoreHistogram",
    "Verdict",
    "measure_performance",
    "newest_days",
    "performance_verdict",
    "pool_histograms",
]

PERFORMANCE_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "model_version": pa.string(),
        "n_decisions": pa.int64(),
        "n_labelled": pa.int64(),
        "n_unlabelled": pa.int64(),
        "n_cancelled": pa.int64(),
        "n_diverted": pa.int64(),
        "n_not_landed": pa.int64(),
        "positive_share": pa.float64(),
        "mean_prediction": pa.float64(),
        "roc_auc": pa.float64(),
        "pr_auc": pa.float64(),
        "log_loss": pa.float64(),
        "brier": pa.float64(),
        "calibration_error": pa.float64(),
        "base_rate_log_loss": pa.float64(),
        "score_histogram": pa.string(),
        "mean_label": pa.float64(),
        "label_spread": pa.float64(),
        "rmse": pa.float64(),
        "mae": pa.float64(),
        "median_absolute_error": pa.float64(),
        "r2": pa.float64(),
        "bias": pa.float64(),
        "error_bins": pa.string(),
        "week_n_days": pa.int64(),
        "week_n_labelled": pa.int64(),
        "week_mean_prediction": pa.float64(),
        "week_mean_label": pa.float64(),
        "week_gap": pa.float64(),
        "week_gap_margin": pa.float64(),
        "week_slope": pa.float64(),
        "week_slope_margin": pa.float64(),
        "week_intercept": pa.float64(),
        "week_error": pa.float64(),
        "week_error_by_chance": pa.float64(),
        "is_miscalibrated": pa.bool_(),
        "week_explanation": pa.string(),
    }
)

_REASONS = {"n_cancelled": "cancelled", "n_diverted": "diverted", "n_not_landed": "not landed"}
_N_BINS = 100

# Judgement: one stormy day ranks badly by nature; a week that loses 0.05 of ROC AUC is a model that has aged.
N_DAYS_JUDGED = 7
_MINIMUM_DAYS = 3
_WEEK = timedelta(days=N_DAYS_JUDGED)
ROC_AUC_TOLERANCE = 0.05
_NOTHING = QualityFinding(is_failed=False, words="")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether something is alarming, and why (or why not), one sentence each; and whether severely so."""

    is_alarming: bool
    reasons: tuple[str, ...]
    is_severe: bool = False


@dataclass(frozen=True, kw_only=True)
class ScoreHistogram:
    """Labelled predictions counted in 100 equal bins of [0, 1], so that days can be pooled without their rows.

    Each tuple has 100 numbers: rows, rows with a positive label, and the sum of the predictions.
    """

    n_rows: tuple[int, ...]
    n_positive: tuple[int, ...]
    prediction_sum: tuple[float, ...]

    @property
    def roc_auc(self) -> float | None:
        """The ROC AUC with predictions of one bin counted as ties; None where one class is absent."""
        positive = np.asarray(self.n_positive, np.float64)
        negative = np.asarray(self.n_rows, np.float64) - positive
        n_pairs = positive.sum() * negative.sum()
        return float(positive @ (np.cumsum(negative) - negative / 2) / n_pairs) if n_pairs else None


def measure_performance(
    examples_and_predictions: pa.Table,
    *,
    use_case: str,
    day: date,
    model_version: str,
    task: Task = "binary_classification",
    edges: Sequence[float] = (),
    week: WeekCalibration | None = None,
) -> pa.Table:
    """Measure one day's predictions against its labels; one row (``PERFORMANCE_SCHEMA``).

    Args:
        examples_and_predictions: one row per decision of the day: ``prediction``, ``label`` (null where there is
            none), ``no_label_reason``.
        use_case: whose predictions they are.
        day: the local day.
        model_version: which version made them.
        task: what is predicted.
        edges: of a regression, the bins of the predictions: those of the version's reference.
        week: how calibrated the last complete days were; its columns are null without it.

    ``n_unlabelled`` also counts decisions without a label whose reason is none of the three counted beside it.
    Everything from ``positive_share`` on is of the labelled decisions and null where there are none. A classification
    fills the columns to ``score_histogram``, a regression ``mean_prediction`` and those from ``mean_label`` on, which
    are in the unit of the label and as ``RegressionMetrics`` says; the others are null. ``roc_auc`` and
    ``pr_auc`` are null as well where these hold one class. ``base_rate_log_loss`` is the loss of predicting the day's
    own positive share for everyone: a base rate with hindsight, which a good model need not beat on every day.
    ``score_histogram`` is a ScoreHistogram as JSON, ``error_bins`` an ErrorBins.
    """
    table = examples_and_predictions
    labelled = table.filter(pc.field("label").is_valid())
    reasons = table.column("no_label_reason").to_pylist()
    row: dict[str, object] = {
        "use_case": use_case,
        "partition_on": day,
        "model_version": model_version,
        "n_decisions": table.num_rows,
        "n_labelled": labelled.num_rows,
        "n_unlabelled": table.num_rows - labelled.num_rows,
        **{name: reasons.count(reason) for name, reason in _REASONS.items()},
    }
    if labelled.num_rows:
        row |= regression_quality(labelled, edges) if task == "regression" else _quality(labelled)
    if week is not None:
        row |= week.as_columns()
    return pa.Table.from_pylist([row], schema=PERFORMANCE_SCHEMA)


def performance_verdict(
    recent: pa.Table, holdout: AnyMetrics, *, noise: HoldoutNoise | None = None, unit: str | None = None
) -> Verdict:
    """Judge the last seven calendar days of ``monitoring.performance`` rows of one use case; newest day included.

    Args:
        recent: the rows; those of other model versions than the newest day's are left out, so that a new champion
            starts with a clean slate.
        holdout: what the champion showed on the holdout it was promoted on.
        noise: how much of that was chance; without it only the week's own days say how much days differ.
        unit: of the label of a regression.

    It alarms when at least three of these days have labels and over them, each weighted by its labelled decisions,

    - the log loss is above that of predicting the holdout's positive share for everyone, or of a regression the RMSE
      above that of predicting the holdout's mean, by more than the noise of days: severe where all seven days have
      labels, or
    - the ROC AUC of all decisions pooled is more than 0.05 below the holdout's, and by more than the noise. (The mean
      of the days' own values would not compare: much of what the holdout's measures is telling bad days from good
      ones.) Of a regression, the RMSE of all decisions pooled is more than a quarter above the holdout's, likewise.
      Severe where it is more than twice what is tolerated, and the seven days before alarm as well: no week of weather
      lasts two. Where all seven days have labels, more than four times what is tolerated and twice the noise are severe
      at once: a ranking turned round is no weather.

    Raises DataMissing where there are no rows.
    """
    noise = noise or HoldoutNoise()
    labelled = newest_days(recent, N_DAYS_JUDGED).filter(pc.field("n_labelled") > 0)
    if labelled.num_rows < _MINIMUM_DAYS:
        few = f"only {labelled.num_rows} of the last {N_DAYS_JUDGED} days have labels, too few to judge quality"
        return Verdict(is_alarming=False, reasons=(few,))
    skill, headline = _findings(labelled, holdout, noise, unit)
    two_weeks = newest_days(recent, 2 * N_DAYS_JUDGED).filter(pc.field("n_labelled") > 0)
    before = two_weeks.filter(pc.field("partition_on") <= labelled["partition_on"][-1].as_py() - _WEEK)
    lasts = before.num_rows >= _MINIMUM_DAYS and (_findings(before, holdout, noise, unit)[1] or _NOTHING).is_failed
    found = [skill, *([headline] if headline else [])]
    failed = [one for one in found if one.is_failed]
    is_whole_week = labelled.num_rows == N_DAYS_JUDGED
    lost = headline or _NOTHING
    is_severe = (lasts and lost.is_large) or (is_whole_week and (lost.is_far or skill.is_failed))
    reasons = tuple(one.words for one in failed or found)
    return Verdict(is_alarming=bool(failed), reasons=reasons, is_severe=is_severe)


def _findings(
    labelled: pa.Table, holdout: AnyMetrics, noise: HoldoutNoise, unit: str | None
) -> tuple[QualityFinding, QualityFinding | None]:
    """Return what these days say against a constant, and against the holdout where that has the measure."""
    period = f"over {labelled.num_rows} labelled days to {labelled['partition_on'][-1].as_py()}"
    if isinstance(holdout, Metrics):
        return _classification_findings(labelled, holdout, noise, period)
    return regression_findings(labelled, holdout, noise, period, unit)


def _classification_findings(
    labelled: pa.Table, holdout: Metrics, noise: HoldoutNoise, period: str
) -> tuple[QualityFinding, QualityFinding | None]:
    def lost(days: pa.Table) -> float:
        weights, share, loss = (
            np.asarray(days[name].to_numpy(), np.float64) for name in ("n_labelled", "positive_share", "log_loss")
        )
        return float(weights @ loss) / float(weights @ constant_log_loss(share, holdout.positive_share)) - 1

    loss = lost(labelled)
    skill = QualityFinding(
        is_failed=loss >= 0 and loss >= quantile(labelled.num_rows) * jackknife(labelled, lost),
        words=f"{period}, the log loss is {percent(abs(loss))} {'below' if loss < 0 else 'above'} the base rate's",
    )
    auc = pool_histograms(labelled).roc_auc
    if auc is None or holdout.roc_auc is None:
        return skill, None
    margin = noise.margin("roc_auc", labelled, lambda days: pool_histograms(days).roc_auc)
    if not math.isfinite(margin):
        # All positives lie on one day: nothing says how much the ranking of such a week varies.
        return skill, None
    allowed, gap = max(ROC_AUC_TOLERANCE, margin), holdout.roc_auc - auc
    words = f"{'not ' if gap > allowed else ''}within {allowed:.2g} of the holdout's {holdout.roc_auc:.3f}"
    return skill, QualityFinding(
        is_failed=gap > allowed,
        is_large=gap > max(2 * ROC_AUC_TOLERANCE, margin),
        is_far=gap > max(4 * ROC_AUC_TOLERANCE, 2 * margin),
        words=f"{period}, ROC AUC {auc:.3f} is {words}",
    )


def newest_days(performance: pa.Table, n_days: int) -> pa.Table:
    """Return the rows of the newest day's model version on the ``n_days`` calendar days that end on it, oldest first.

    Raises DataMissing where there are no rows.
    """
    if not performance.num_rows:
        raise DataMissing("no performance has been measured yet; materialize the performance of a day first")
    rows = performance.sort_by("partition_on")
    newest, version = rows.column("partition_on")[-1].as_py(), rows.column("model_version")[-1].as_py()
    first = newest - timedelta(days=n_days - 1)
    return rows.filter((pc.field("partition_on") >= first) & (pc.field("model_version") == version))


def pool_histograms(performance: pa.Table) -> ScoreHistogram:
    """Add up the score histograms of several days."""
    texts = performance.column("score_histogram").drop_null().to_pylist()
    days = [msgspec.json.decode(text, type=ScoreHistogram) for text in texts]

    def total(columns: Sequence[Sequence[float]]) -> Floats:
        return np.sum(np.asarray(columns, np.float64).reshape(-1, _N_BINS), axis=0)

    return ScoreHistogram(
        n_rows=tuple(int(n) for n in total([day.n_rows for day in days])),
        n_positive=tuple(int(n) for n in total([day.n_positive for day in days])),
        prediction_sum=tuple(total([day.prediction_sum for day in days]).tolist()),
    )


def _quality(labelled: pa.Table) -> dict[str, object]:
    y = np.asarray(labelled.column("label").cast(pa.int8()).to_numpy(), np.float64)
    p = np.asarray(labelled.column("prediction").to_numpy(), np.float64)
    metrics = evaluate(y, p)
    index = np.minimum((p * _N_BINS).astype(np.int64), _N_BINS - 1)
    histogram = ScoreHistogram(
        n_rows=tuple(np.bincount(index, minlength=_N_BINS).tolist()),
        n_positive=tuple(np.bincount(index, y, _N_BINS).astype(np.int64).tolist()),
        prediction_sum=tuple(np.bincount(index, p, _N_BINS).round(6).tolist()),
    )
    return {
        "positive_share": metrics.positive_share,
        "mean_prediction": float(p.mean()),
        "roc_auc": metrics.roc_auc,
        "pr_auc": metrics.pr_auc,
        "log_loss": metrics.log_loss,
        "brier": metrics.brier,
        "calibration_error": metrics.calibration_error,
        "base_rate_log_loss": log_loss(y, np.full(len(y), metrics.positive_share)),
        "score_histogram": msgspec.json.encode(histogram).decode(),
    }
