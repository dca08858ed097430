"""Quality of numbers over the days, in the unit of their label: the mean error beside the holdout's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from ml_assets.core.drift import percent
from ml_assets.core.performance import N_DAYS_JUDGED, newest_days
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.regression_performance import pool_error_bins, pool_errors
from ml_assets.core.reports.lanes import Line
from ml_assets.core.reports.page import Chart
from ml_assets.core.reports.quality_parts import DASH, Beside, Figure, curve_chart, lane_chart, lines_beside, values_of
from ml_assets.core.reports.time_axis import TimeAxis
from ml_assets.core.tasks import REGRESSION, Measure


@dataclass(frozen=True, kw_only=True)
class RegressionQuality:
    """Quality of numbers in the unit of their label: the mean error beside the holdout's, and where it lies."""

    holdout: RegressionMetrics
    unit: str | None

    @property
    def columns(self) -> Mapping[str, str]:
        """See ``DailyQuality``."""
        names = {"mae": "MAE", "rmse": "RMSE", "bias": "Bias"}
        return {name: f"{title} ({self.unit})" if self.unit else title for name, title in names.items()}

    @property
    def holdout_words(self) -> str:
        """See ``DailyQuality``."""
        return REGRESSION.sentence(self.holdout, self.unit, n_measures=len(REGRESSION.measures))

    @property
    def measures(self) -> Sequence[Measure]:
        """See ``DailyQuality``."""
        return REGRESSION.daily, REGRESSION.measures[1]

    def written(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return DASH if value is None else f"{value:.4g}{self._in_unit}"

    def cell(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return DASH if value is None else f"{value:.4g}"

    def figures(self, labelled: pa.Table, days: str) -> Sequence[Figure]:
        """See ``DailyQuality``."""
        found, holdout = pool_errors(labelled), self.holdout
        skill = 1 - found.rmse / found.rmse_of(holdout.mean_label) if found.rmse_of(holdout.mean_label) else 0.0
        r2 = DASH if found.r2 is None else f"{found.r2:.3f}"
        return [
            Figure(
                name="Mean absolute error",
                value=self.written(found.mae),
                words=f"{days}; holdout {self.written(holdout.mae)}. RMSE {self.written(found.rmse)}, R2 {r2}",
            ),
            Figure(
                name="RMSE against the mean",
                value=f"{percent(abs(skill))} {'lower' if skill > 0 else 'higher'}",
                words=f"than that of predicting {self.written(holdout.mean_label)} for everyone; lower is better",
            ),
        ]

    def charts(self, labelled: pa.Table, axis: TimeAxis, beside: Beside, rules: Sequence[date] = ()) -> Sequence[Chart]:
        """See ``DailyQuality``."""
        captions = {
            "rmse": "Lower is better. Large errors count more than in the mean absolute error.",
            "mae": "Lower is better: how far a prediction lies from what happened, on average.",
        }
        drawn = list[Chart]()
        for measure in self.measures:
            level = float(getattr(self.holdout, measure.name))
            drawn.append(
                lane_chart(
                    axis,
                    measure.title(self.unit),
                    [
                        Line(name="realised", values=values_of(labelled, measure.name)),
                        *lines_beside(beside, measure.name, "regression"),
                    ],
                    captions[measure.name],
                    level=(f"holdout {self.cell(level)}", level),
                    rules=rules,
                )
            )
        means = lane_chart(
            axis,
            f"Predicted and happened ({self.unit})" if self.unit else "Predicted and happened",
            [
                Line(name="predicted", values=values_of(labelled, "mean_prediction")),
                Line(name="happened", values=values_of(labelled, "mean_label"), style="other"),
            ],
            "The mean prediction and the mean of what happened, of the decisions with an outcome.",
            rules=rules,
        )
        return [*drawn, means]

    def curve(self, labelled: pa.Table) -> Chart | None:
        """See ``DailyQuality``."""
        week = newest_days(labelled, N_DAYS_JUDGED)
        words = "On the dashed line, predictions are right on average; the bars are the mean error."
        return curve_chart(pool_error_bins(week), "Predicted and happened by tenths", week, self.unit, words)

    @property
    def _in_unit(self) -> str:
        return f" {self.unit}" if self.unit else ""
