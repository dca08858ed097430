"""Quality of probabilities over the days: ranking, log loss beside the base rate's, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from ml_assets.core.drift import percent
from ml_assets.core.evaluation import Metrics, constant_log_loss
from ml_assets.core.performance import N_DAYS_JUDGED, newest_days, pool_histograms
from ml_assets.core.reports.curve_figures import calibration_of_histogram
from ml_assets.core.reports.lanes import Line
from ml_assets.core.reports.page import Chart
from ml_assets.core.reports.quality_parts import (
    DASH,
    Beside,
    Figure,
    column_of,
    curve_chart,
    days_of,
    lane_chart,
    lines_beside,
    values_of,
)
from ml_assets.core.reports.time_axis import TimeAxis
from ml_assets.core.tasks import Measure, meaning_of


@dataclass(frozen=True, kw_only=True)
class ClassificationQuality:
    """Quality of probabilities: ranking, log loss beside the base rate's, calibration."""

    holdout: Metrics

    @property
    def columns(self) -> Mapping[str, str]:
        """See ``DailyQuality``."""
        return {"roc_auc": "ROC AUC", "log_loss": "Log loss"}

    @property
    def holdout_words(self) -> str:
        """See ``DailyQuality``."""
        holdout = self.holdout
        ranking = f"ROC AUC {self.cell(holdout.roc_auc)}, PR AUC {self.cell(holdout.pr_auc)}"
        losses = f"log loss {holdout.log_loss:.3f}, Brier score {holdout.brier:.3f}"
        return f"{ranking}, {losses}, calibration error {holdout.calibration_error:.3f}"

    @property
    def measures(self) -> Sequence[Measure]:
        """See ``DailyQuality``."""
        meaning = meaning_of("binary_classification")
        return meaning.daily, meaning.loss

    def written(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return DASH if value is None else percent(value)

    def cell(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return DASH if value is None else f"{value:.3f}"

    def figures(self, labelled: pa.Table, days: str) -> Sequence[Figure]:
        """See ``DailyQuality``."""
        share_of_holdout = self.holdout.positive_share
        weights, share, loss = (column_of(labelled, name) for name in ("n_labelled", "positive_share", "log_loss"))
        skill = 1 - float(weights @ loss) / float(weights @ constant_log_loss(share, share_of_holdout))
        auc = pool_histograms(labelled).roc_auc
        unsaid = "cannot be said: all outcomes are alike"
        pairs = unsaid if auc is None else f"of 100 pairs, {100 * auc:.0f} are ranked rightly"
        return [
            Figure(
                name="ROC AUC",
                value=self.cell(auc),
                words=f"{pairs} ({days}; holdout {self.cell(self.holdout.roc_auc)})",
            ),
            Figure(
                name="Log loss against the base rate",
                value=f"{percent(abs(skill))} {'lower' if skill > 0 else 'higher'}",
                words=f"than that of predicting {percent(share_of_holdout)} for everyone; lower is better",
            ),
        ]

    def charts(self, labelled: pa.Table, axis: TimeAxis, beside: Beside, rules: Sequence[date] = ()) -> Sequence[Chart]:
        """See ``DailyQuality``."""
        share, auc = self.holdout.positive_share, self.holdout.roc_auc
        days = days_of(labelled)
        base = dict(zip(days, constant_log_loss(column_of(labelled, "positive_share"), share).tolist(), strict=True))
        ranking, loss = self.measures
        return [
            lane_chart(
                axis,
                ranking.title(None),
                [
                    Line(name="realised", values=values_of(labelled, ranking.name)),
                    *lines_beside(beside, ranking.name, "binary_classification"),
                ],
                "How often, within one day, a decision that came true was ranked above one that did not; 0.5 is "
                "chance. The holdout's value spans many days, which is the easier test.",
                level=(f"holdout {auc:.3f}", auc) if auc is not None else None,
                rules=rules,
            ),
            lane_chart(
                axis,
                f"{loss.title(None)} (nats)",
                [
                    Line(name="realised", values=values_of(labelled, loss.name)),
                    *lines_beside(beside, loss.name, "binary_classification"),
                    Line(name="base rate", values=base, style="quiet", is_dashed=True),
                ],
                f"Lower is better. The base rate predicts {percent(share)} for everyone, the holdout's share.",
                rules=rules,
            ),
            lane_chart(
                axis,
                "Predicted and happened",
                [
                    Line(name="predicted", values=values_of(labelled, "mean_prediction")),
                    Line(name="happened", values=values_of(labelled, "positive_share"), style="other"),
                ],
                "The mean prediction and the share that came true, of the decisions with an outcome.",
                is_share=True,
                rules=rules,
            ),
        ]

    def curve(self, labelled: pa.Table) -> Chart | None:
        """See ``DailyQuality``."""
        week = newest_days(labelled, N_DAYS_JUDGED)
        words = "On the dashed line, what is predicted at 30 % comes true 30 times in 100."
        return curve_chart(calibration_of_histogram(pool_histograms(week)), "Calibration", week, None, words)
