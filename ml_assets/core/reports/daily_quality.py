"""How good a model proved to be over the days, in the words, figures and charts of its task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_assets.core.drift import percent
from ml_assets.core.evaluation import Metrics, constant_log_loss
from ml_assets.core.performance import N_DAYS_JUDGED, newest_days, pool_histograms
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.regression_performance import pool_error_bins, pool_errors
from ml_assets.core.reports import charts
from ml_assets.core.reports.curves import curve_charts
from ml_assets.core.reports.page import Chart, draw
from ml_assets.core.tasks import REGRESSION, AnyMetrics

_DASH = "\N{EM DASH}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number at the top of a page: what it is, the number, and what it means."""

    name: str
    value: str
    words: str


class DailyQuality(Protocol):
    """What a page says of a model's quality; ``labelled`` are days of ``monitoring.performance`` that have labels."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The titles of a table of days, by column of ``monitoring.performance``."""
        ...

    @property
    def holdout_words(self) -> str:
        """What the model showed on its holdout, in one line."""
        ...

    def figures(self, labelled: pa.Table, days: str) -> Sequence[Figure]:
        """Return the numbers at the top of the page; ``days`` says in words which days these are."""
        ...

    def charts(self, labelled: pa.Table) -> Sequence[Chart]:
        """Return the charts over the days."""
        ...

    def written(self, value: float | None) -> str:
        """Write a prediction for people."""
        ...

    def cell(self, value: float | None) -> str:
        """Write a figure of one day for a table."""
        ...


def quality_of(holdout: AnyMetrics, unit: str | None) -> DailyQuality:
    """Return what is said of a model that showed this on its holdout."""
    if isinstance(holdout, Metrics):
        return ClassificationQuality(holdout=holdout)
    return RegressionQuality(holdout=holdout, unit=unit)


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

    def written(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return _DASH if value is None else percent(value)

    def cell(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return _DASH if value is None else f"{value:.3f}"

    def figures(self, labelled: pa.Table, days: str) -> Sequence[Figure]:
        """See ``DailyQuality``."""
        share_of_holdout = self.holdout.positive_share
        weights, share, loss = (_column(labelled, name) for name in ("n_labelled", "positive_share", "log_loss"))
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

    def charts(self, labelled: pa.Table) -> Sequence[Chart]:
        """See ``DailyQuality``."""
        days, share = _days(labelled), self.holdout.positive_share
        base = constant_log_loss(_column(labelled, "positive_share"), share).tolist()
        week = newest_days(labelled, N_DAYS_JUDGED)
        auc = self.holdout.roc_auc
        level = (f"holdout {auc:.3f}", auc) if auc is not None else None
        losses = {"model": _values(labelled, "log_loss"), "base rate": base}
        means = {"predicted": _values(labelled, "mean_prediction"), "happened": _values(labelled, "positive_share")}
        ranking = {"ROC AUC": _values(labelled, "roc_auc")}
        return [
            draw(
                "Ranking",
                charts.lines_by_day(days, ranking, y_title="ROC AUC", level=level),
                "How often, within one day, a decision that came true was ranked above one that did not; 0.5 is "
                "chance. The holdout's value spans many days, which is the easier test.",
            ),
            draw(
                "Log loss",
                charts.lines_by_day(days, losses, y_title="Log loss (nats)"),
                f"Lower is better. The base rate predicts {percent(share)} for everyone, the holdout's share.",
            ),
            draw(
                "Predicted and happened",
                charts.lines_by_day(days, means, y_title="Share of decisions", is_share=True),
                "The mean prediction and the share that came true, of the decisions with an outcome.",
            ),
            draw(
                "Calibration",
                charts.calibration(charts.calibration_of_histogram(pool_histograms(week))),
                f"The last {week.num_rows} days with outcomes, in tenths of the decisions. On the dashed line, "
                "what is predicted at 30 % comes true 30 times in 100.",
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class RegressionQuality:
    """Quality of numbers: their errors beside those of the holdout, and their bias, in the unit of the label."""

    holdout: RegressionMetrics
    unit: str | None

    @property
    def columns(self) -> Mapping[str, str]:
        """See ``DailyQuality``."""
        return {"rmse": "RMSE", "mae": "MAE"}

    @property
    def holdout_words(self) -> str:
        """See ``DailyQuality``."""
        return REGRESSION.sentence(self.holdout, self.unit, n_measures=len(REGRESSION.measures))

    def written(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return _DASH if value is None else f"{value:.4g}{self._in_unit}"

    def cell(self, value: float | None) -> str:
        """See ``DailyQuality``."""
        return _DASH if value is None else f"{value:.4g}"

    def figures(self, labelled: pa.Table, days: str) -> Sequence[Figure]:
        """See ``DailyQuality``."""
        found, holdout = pool_errors(labelled), self.holdout
        skill = 1 - found.rmse / found.rmse_of(holdout.mean_label) if found.rmse_of(holdout.mean_label) else 0.0
        r2 = _DASH if found.r2 is None else f"{found.r2:.3f}"
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

    def charts(self, labelled: pa.Table) -> Sequence[Chart]:
        """See ``DailyQuality``."""
        days, holdout = _days(labelled), self.holdout
        week = newest_days(labelled, N_DAYS_JUDGED)
        of_unit = f" ({self.unit})" if self.unit else ""
        means = {"predicted": _values(labelled, "mean_prediction"), "happened": _values(labelled, "mean_label")}
        return [
            draw(
                "Mean absolute error",
                charts.lines_by_day(
                    days,
                    {"MAE": _values(labelled, "mae")},
                    y_title=f"MAE{of_unit}",
                    level=(f"holdout {self.cell(holdout.mae)}", holdout.mae),
                ),
                "Lower is better: how far a prediction lies from what happened, on average.",
            ),
            draw(
                "RMSE",
                charts.lines_by_day(
                    days,
                    {"RMSE": _values(labelled, "rmse")},
                    y_title=f"RMSE{of_unit}",
                    level=(f"holdout {self.cell(holdout.rmse)}", holdout.rmse),
                ),
                "Lower is better. Large errors count more than in the mean absolute error.",
            ),
            draw(
                "Predicted and happened",
                charts.lines_by_day(days, means, y_title=f"Mean of the decisions{of_unit}"),
                "The mean prediction and the mean of what happened, of the decisions with an outcome.",
            ),
            *curve_charts(pool_error_bins(week), unit=self.unit, rows=f"The last {week.num_rows} days with outcomes"),
        ]

    @property
    def _in_unit(self) -> str:
        return f" {self.unit}" if self.unit else ""


def _days(labelled: pa.Table) -> list[date]:
    return cast("list[date]", labelled.column("partition_on").to_pylist())


def _values(labelled: pa.Table, name: str) -> list[float | None]:
    return cast("list[float | None]", labelled.column(name).to_pylist())


def _column(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(), np.float64)
