"""How good the last weeks were, as charts: what came true beside the holdout, the estimates beside it, calibration."""

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.reports import charts
from ml_assets.core.reports.charts import Spec
from ml_assets.core.tasks import AnyMetrics, Measure, TaskMeaning


def quality_over_days(
    performance: pa.Table, holdout: AnyMetrics, *, meaning: TaskMeaning, unit: str | None = None
) -> Spec:
    """Draw the figure that is shown of a single day, with the holdout's as a level; rows oldest first."""
    measure = meaning.daily
    value: float | None = getattr(holdout, measure.name)
    return charts.lines_by_day(
        performance["partition_on"].to_pylist(),
        {measure.words: performance[measure.name].to_pylist()},
        y_title=measure.title(unit),
        level=(f"holdout {measure.write(value)}", value) if value is not None else None,
    )


def estimated_and_realised(estimates: pa.Table, *, meaning: TaskMeaning, unit: str | None = None) -> Spec:
    """Draw the loss that was estimated before the labels, and the one that came true; rows oldest first."""
    measure: Measure = meaning.loss
    rows = estimates.filter(pc.field("metric") == measure.name)
    return charts.lines_by_day(
        rows["partition_on"].to_pylist(),
        {"estimated before labels": rows["estimated"].to_pylist(), "came true": rows["realised"].to_pylist()},
        y_title=meaning.loss_title(unit),
    )


def calibration_over_days(performance: pa.Table, *, unit: str | None = None, is_share: bool) -> Spec:
    """Draw what was predicted for the week before each day and what came true of it; rows oldest first."""
    return charts.lines_by_day(
        performance["partition_on"].to_pylist(),
        {
            "predicted": performance["week_mean_prediction"].to_pylist(),
            "came true": performance["week_mean_label"].to_pylist(),
        },
        y_title="Mean of a week" + (f" ({unit})" if unit else ""),
        is_share=is_share,
    )
