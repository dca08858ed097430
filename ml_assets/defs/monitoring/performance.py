"""Stage monitoring: how good the predictions proved to be once their labels landed."""

import dagster as dg
import pyarrow as pa

from ml_assets.calendar import days_of
from ml_assets.core.monitored import PERFORMANCE, by_day, newest_model, recent_rows, scored_examples
from ml_assets.core.package import load_package
from ml_assets.core.performance import PERFORMANCE_SCHEMA, measure_performance, performance_verdict
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.reports import chart_markdown, charts
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyMetrics, meaning_of
from ml_assets.resources import monitoring_asset, warning
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    return dg.Definitions(assets=[_performance(use_case) for use_case in load_use_cases()])


def _performance(use_case: UseCase) -> dg.AssetsDefinition:
    key = use_case.key("performance")

    @dg.asset(
        key=key,
        description="One row per day: how good the predictions proved to be, and how many decisions have no label.",
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
        parts = []
        for day, rows in by_day(scored_examples(warehouse, use_case, days), days):
            version = rows["model_version"][0].as_py()
            found = measure_performance(
                rows,
                use_case=use_case.name,
                day=day,
                model_version=version,
                task=use_case.task,
                edges=load_package(store, use_case.name, version).reference.prediction.edges,
            )
            parts.append(found)
            facts = {name: value for name, value in found.to_pylist()[0].items() if isinstance(value, int | float)}
            context.add_asset_metadata(facts, partition_key=day.isoformat())
        rows = pa.concat_tables([*parts, PERFORMANCE_SCHEMA.empty_table()])
        warehouse.replace_days({PERFORMANCE: rows}, days, use_case=use_case.name)
        recent = recent_rows(warehouse, PERFORMANCE, use_case, days.last)
        holdout = newest_model(recent, use_case, store).metrics.holdout
        verdict = performance_verdict(recent, holdout, unit=use_case.label.unit)
        return dg.MaterializeResult(
            metadata={"n_rows": rows.num_rows, "four_weeks": _quality_chart(recent, holdout, use_case)},
            check_results=[warning(not verdict.is_alarming, verdict.reasons)],
        )

    return _measure


def _quality_chart(performance: pa.Table, holdout: AnyMetrics, use_case: UseCase) -> dg.MarkdownMetadataValue:
    """Draw how good the last weeks were by local day; Dagster's own plots show the calendar's newest partitions."""
    measure = meaning_of(use_case.task).daily
    value: float | None = getattr(holdout, measure.name)
    curve = charts.lines_by_day(
        performance["partition_on"].to_pylist(),
        {measure.words: performance[measure.name].to_pylist()},
        y_title=measure.title(use_case.label.unit),
        level=(f"holdout {measure.write(value)}", value) if value is not None else None,
    )
    return dg.MetadataValue.md(chart_markdown(curve, name=f"{measure.words} by local day"))
