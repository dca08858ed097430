"""The sections of a candidate's report on what the model leans on, how, and how good it is in each slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from ml_assets.core.insights import Insights
from ml_assets.core.paired_bootstrap import Estimate
from ml_assets.core.reports import insight_charts
from ml_assets.core.reports.page import Chart, draw
from ml_assets.core.slices import SliceQuality
from ml_assets.core.tasks import Measure

_MOST_BARS = 15


@dataclass(frozen=True, kw_only=True)
class InsightSections:
    """What ``insights.html`` shows: charts of the importances and curves, and their tables in full.

    ``loss`` and ``metric`` are what people call the loss and the metric beside it; empty for a task without one.
    """

    importance_charts: Sequence[Chart]
    views: Sequence[tuple[str, str, str]]
    features: Sequence[tuple[str, str, str]]
    curves: Sequence[Chart]
    loss: str
    metric: str
    n_rows: int
    n_repeats: int
    n_days: int


def insight_sections(insights: Insights, *, confidence: float) -> InsightSections:
    """Draw the insights of one model; ``confidence`` is one-sided, of the bars."""
    found, output = insights.importances, insights.output
    is_probability = output.task == "binary_classification"
    prediction = "predicted probability" if is_probability else f"predicted {output.unit or 'number'}"
    n_more = len(found.features) - _MOST_BARS
    more = f" {n_more} more are in the table." if n_more > 0 else ""
    return InsightSections(
        importance_charts=[
            draw(
                "Feature views",
                insight_charts.importance(found.views, confidence=confidence),
                "All columns of a view shuffled together.",
            ),
            draw(
                "Features",
                insight_charts.importance(found.features[:_MOST_BARS], confidence=confidence),
                f"Each column shuffled by itself.{more}",
            ),
        ],
        views=[_row(i.name, i.loss_increase, i.metric_drop, confidence) for i in found.views],
        features=[_row(i.name, i.loss_increase, i.metric_drop, confidence) for i in found.features],
        curves=[
            draw(curve.feature.name, insight_charts.dependence(curve, prediction=prediction), _curve_caption(curve))
            for curve in insights.curves
        ],
        loss="log loss" if is_probability else f"mean squared error, {output.unit or 'unit'} squared",
        metric="ROC AUC" if is_probability else "",
        n_rows=found.n_rows,
        n_repeats=found.n_repeats,
        n_days=found.features[0].loss_increase.n_days if found.features else 0,
    )


def slice_charts(
    slices: Sequence[SliceQuality],
    *,
    measure: Measure,
    overall: float | None,
    confidence: float,
    unit: str | None = None,
) -> Sequence[Chart]:
    """Draw one measure of each slice with its interval, one chart for each column that has several large slices."""
    columns = dict.fromkeys(part.column for part in slices)
    charts: list[Chart] = []
    for column in columns:
        rows = [(part.value, part.figures[measure.name]) for part in slices if part.column == column]
        if len(rows) > 1:
            name = column.replace("_", " ")
            spec = insight_charts.slices(rows, overall=overall, confidence=confidence, x_title=measure.title(unit))
            charts.append(draw(f"{measure.title(None)} by {name}", spec, "The dashed line is the whole holdout."))
    return charts


def season_note(days: Sequence[date]) -> str:
    """Say which months a holdout tells of; of the others it tells nothing.

    >>> season_note([date(2013, 6, 9), date(2013, 6, 29)])
    'The holdout lies in June 2013 alone: it says nothing of other months or seasons.'
    >>> season_note([date(2013, 5, 30), date(2013, 6, 1)])
    'The holdout lies in May 2013 and June 2013: it says nothing of other months or seasons.'
    """
    months = [f"{day:%B %Y}" for day in sorted({day.replace(day=1) for day in days})]
    words = f"{', '.join(months[:-1])} and {months[-1]}" if len(months) > 1 else f"{months[0]} alone"
    return f"The holdout lies in {words}: it says nothing of other months or seasons."


def _row(name: str, increase: Estimate, drop: Estimate | None, confidence: float) -> tuple[str, str, str]:
    return name, with_margin(increase, confidence), with_margin(drop, confidence)


def with_margin(estimate: Estimate | None, confidence: float) -> str:
    """Write a figure, its sign, and what it may be off to either side; a dash where there is none.

    >>> with_margin(Estimate(value=0.5, standard_error=0.01, n_days=21), 0.95)
    '+0.5000 ± 0.0172'
    """
    if estimate is None:
        return "\N{EM DASH}"
    margin = estimate.margin(confidence)
    return f"{estimate.value:+.4f}" + ("" if margin is None else f" \N{PLUS-MINUS SIGN} {margin:.4f}")


def _curve_caption(curve: insight_charts.PartialDependence) -> str:
    parts = [f"{curve.feature.description.rstrip('.')}." if curve.feature.description else ""]
    null = next((point for point in curve.points if point.value is None), None)
    if null is not None:
        parts.append(f"Missing in {null.share:.0%} of the training rows.".replace("%", " %"))
    if curve.n_other:
        parts.append(f"The most frequent categories; {curve.n_other} more are not drawn.")
    return " ".join(part for part in parts if part)
