"""Stage monitoring: how far each day strays from training."""

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendar import days_of
from ml_assets.core.drift import write_drift
from ml_assets.core.monitored import DRIFT, by_day, recent_rows
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.reports import chart_markdown, charts
from ml_assets.core.spec import UseCase
from ml_assets.resources import monitoring_asset
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    return dg.Definitions(assets=[_drift(use_case) for use_case in load_use_cases()])


def _drift(use_case: UseCase) -> dg.AssetsDefinition:
    @dg.asset(
        key=use_case.key("drift"),
        description="One row per feature and day, and one for the prediction: how far the day strays from training.",
        deps=[use_case.key("examples"), use_case.key("predictions")],
        **monitoring_asset(use_case, table=DRIFT),
    )
    def _measure(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        rows = write_drift(warehouse, store, use_case, days)
        for day, found in by_day(rows, days):
            context.add_asset_metadata(_drift_facts(found), partition_key=day.isoformat())
        recent = recent_rows(warehouse, DRIFT, use_case, days.last)
        return dg.MaterializeResult(metadata={"n_rows": rows.num_rows, "four_weeks": _drift_chart(recent)})

    return _measure


def _drift_chart(drift: pa.Table) -> dg.MarkdownMetadataValue:
    """Draw how many features drifted on each day of the last weeks."""
    features = drift.filter(pc.field("kind") != "prediction")
    counts = features.group_by("partition_on").aggregate([("is_drifted", "sum")]).sort_by("partition_on")
    curve = charts.lines_by_day(
        counts["partition_on"].to_pylist(),
        {"drifted": counts["is_drifted_sum"].to_pylist()},
        y_title="Drifted features",
    )
    return dg.MetadataValue.md(chart_markdown(curve, name="drifted features by local day"))


def _drift_facts(found: pa.Table) -> dict[str, float | int]:
    rows = found.to_pylist()
    prediction = next(row for row in rows if row["kind"] == "prediction")
    features = [row for row in rows if row["kind"] != "prediction"]
    return {
        "prediction_psi": prediction["psi"],
        "n_drifted_features": sum(row["is_drifted"] for row in features),
        "largest_feature_psi": max(row["psi"] for row in features),
        "largest_missing_share": max(row["missing_share"] for row in features),
        "n_decisions": prediction["n_rows"],
    }
