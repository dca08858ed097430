"""How good the last weeks were, as a chart: what came true, what was estimated before it, and the holdout."""

import pyarrow as pa

from ml_assets.core.evaluation import Metrics
from ml_assets.core.reports import charts
from ml_assets.core.reports.charts import Spec
from ml_assets.core.tasks import AnyMetrics, meaning_of


def quality_over_days(
    performance: pa.Table, estimates: pa.Table, holdout: AnyMetrics, *, unit: str | None = None
) -> Spec:
    """Draw the figure of single days beside its estimate, with the holdout's as a level.

    Args:
        performance: rows of ``monitoring.performance`` of one use case, oldest first.
        estimates: rows of ``monitoring.estimated_performance`` of the same days.
        holdout: what the newest day's model showed on its holdout.
        unit: of the label of a regression.
    """
    measure = meaning_of("binary_classification" if isinstance(holdout, Metrics) else "regression").daily
    value: float | None = getattr(holdout, measure.name)
    wanted = (row for row in estimates.to_pylist() if row["metric"] == measure.name)
    estimated = {row["partition_on"]: row["estimated"] for row in wanted}
    days = performance["partition_on"].to_pylist()
    came_true = performance[measure.name].to_pylist()
    series = {measure.words: came_true, "estimated before labels": [estimated.get(day) for day in days]}
    return charts.lines_by_day(
        days,
        series if estimated else {measure.words: came_true},
        y_title=measure.title(unit),
        level=(f"holdout {measure.write(value)}", value) if value is not None else None,
    )
