"""Stage monitoring: how good the predictions proved to be once their labels landed, and ought to be before."""

from datetime import date

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendar import days_of
from ml_assets.core.daily_quality import write_performance
from ml_assets.core.monitored import ESTIMATED, PERFORMANCE, newest_model, recent_rows
from ml_assets.core.performance import performance_verdict
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.quality_noise import HoldoutNoise
from ml_assets.core.reports import chart_markdown
from ml_assets.core.reports.quality_charts import quality_over_days
from ml_assets.core.spec import UseCase
from ml_assets.resources import monitoring_asset, warning
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    return dg.Definitions(assets=[_performance(use_case) for use_case in load_use_cases()])


def _performance(use_case: UseCase) -> dg.AssetsDefinition:
    key, unit = use_case.key("performance"), use_case.label.unit

    @dg.asset(
        key=key,
        description="One row per day: how good the predictions proved to be, and how many decisions have no label. "
        "Beside it, one row per slice, per estimate made before the labels, and per model that scored along.",
        deps=[use_case.key("examples"), use_case.key("predictions")],
        check_specs=[dg.AssetCheckSpec("quality_holds", asset=key, description="A week as good as the holdout.")],
        **monitoring_asset(use_case, table=PERFORMANCE),
    )
    def _measure(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        written = write_performance(warehouse, store, use_case, days)
        for row in written.performance.to_pylist():
            facts = {name: value for name, value in row.items() if isinstance(value, int | float)}
            context.add_asset_metadata(facts, partition_key=row["partition_on"].isoformat())
        recent = recent_rows(warehouse, PERFORMANCE, use_case, days.last)
        estimates = recent_rows(warehouse, ESTIMATED, use_case, days.last)
        newest = recent["model_version"][-1].as_py() if recent.num_rows else None
        model = written.models.get(newest) or newest_model(recent, use_case, store)
        holdout = model.metrics.holdout
        verdict = performance_verdict(recent, holdout, noise=HoldoutNoise.of(model, use_case), unit=unit)
        chart = quality_over_days(recent, estimates, holdout, unit=unit)
        return dg.MaterializeResult(
            metadata={
                "n_rows": written.performance.num_rows,
                # Of the last weeks; Dagster's own plots show the calendar's newest partitions.
                "four_weeks": dg.MetadataValue.md(chart_markdown(chart, name="quality by local day")),
                "week": _told(written.performance, days.last, "week_explanation"),
                "beside_others": _told(written.shadows, days.last, "explanation"),
                "estimates": _told(written.estimates, days.last, "explanation"),
            },
            check_results=[warning(not verdict.is_alarming, verdict.reasons)],
        )

    return _measure


def _told(rows: pa.Table, day: date, column: str) -> dg.MarkdownMetadataValue:
    """List what the rows of the newest day say in words."""
    of_day = rows.filter(pc.field("partition_on") == pa.scalar(day))
    return dg.MetadataValue.md("\n".join(f"- {words}" for words in of_day[column].drop_null().to_pylist()))
