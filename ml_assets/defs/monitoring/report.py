"""Stage monitoring: pages for people, one for each day, and an overview of the weeks."""

import dagster as dg

from ml_assets.calendar import days_of
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.reports import overview_pictures, write_report
from ml_assets.core.spec import UseCase
from ml_assets.resources import link_to, monitoring_asset
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    return dg.Definitions(assets=[_report(use_case) for use_case in load_use_cases()])


def _report(use_case: UseCase) -> dg.AssetsDefinition:
    @dg.asset(
        key=use_case.key("report"),
        description="One HTML page per day for people: verdict, alarms, quality, drift; and an overview of the weeks.",
        deps=[use_case.key(stage) for stage in ("drift", "performance", "skew", "alarms", "retraining")],
        **monitoring_asset(use_case, table=None),
    )
    def _write(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        written = write_report(warehouse, store, use_case, days_of(context))
        for day, path in written.days.items():
            context.add_asset_metadata({"report": link_to(store, path)}, partition_key=str(day))
        if written.overview is None:
            return dg.MaterializeResult()
        pictures = {name: dg.MetadataValue.md(text) for name, text in overview_pictures(written.overview).items()}
        return dg.MaterializeResult(metadata={"overview": link_to(store, written.overview_path), **pictures})

    return _write
