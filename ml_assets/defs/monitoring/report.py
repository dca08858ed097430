"""Stage monitoring: a page for people, one for each day."""

from datetime import timedelta

import dagster as dg

from ml_assets.calendar import days_of
from ml_assets.core import registry
from ml_assets.core.monitored import (
    DRIFT,
    HISTORY,
    PERFORMANCE,
    by_day,
    recent_rows,
    report_path,
    scored_examples,
    until,
)
from ml_assets.core.package import load_package
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.reports import monitoring_report
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
        description="One HTML page per day for people: verdict, quality, drift, in words and charts.",
        deps=[use_case.key("drift"), use_case.key("performance")],
        **monitoring_asset(use_case, table=None),
    )
    def _write(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        quality = recent_rows(warehouse, PERFORMANCE, use_case, days.last, since=days.first - HISTORY)
        drift = recent_rows(warehouse, DRIFT, use_case, days.last, since=days.first - timedelta(days=2))
        ledger = registry.entries(store, use_case.name)
        for day, rows in by_day(scored_examples(warehouse, use_case, days), days):
            package = load_package(store, use_case.name, rows["model_version"][0].as_py())
            champion = registry.put_in_charge(ledger, package.version, day)
            page = monitoring_report(
                use_case=use_case.name,
                day=day,
                drift=until(drift, day),
                performance=until(quality, day),
                champion=champion,
                holdout=package.metrics.holdout,
                reference=package.reference,
                predictions=rows["prediction"].to_numpy(),
                links={},
                question=use_case.question,
                unit=use_case.label.unit,
            )
            path = report_path(use_case, day)
            store.put(path, page.encode())
            context.add_asset_metadata({"report": link_to(store, path)}, partition_key=str(day))
        return dg.MaterializeResult()

    return _write
