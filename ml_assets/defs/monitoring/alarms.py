"""Stage monitoring: what stands on a day that a person should know."""

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendar import days_of
from ml_assets.core.alarms import write_alarms
from ml_assets.core.monitored import ALARMS
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.resources import monitoring_asset, warning
from ml_assets.use_cases import load_use_cases

# What an alert says of an alarm; the sensor reads it from the materialization and asks no warehouse.
_TOLD = ["kind", "subject", "severity", "explanation", "since", "incident"]


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    return dg.Definitions(assets=[_alarms(use_case) for use_case in load_use_cases()])


def _alarms(use_case: UseCase) -> dg.AssetsDefinition:
    key = use_case.key("alarms")

    @dg.asset(
        key=key,
        description="One row per alarm that stands on a day: drift that lasts, lost quality, rows served wrong.",
        deps=[use_case.key("drift"), use_case.key("performance")],
        check_specs=[dg.AssetCheckSpec("no_severe_alarm", asset=key, description="Nothing severe on the newest day.")],
        **monitoring_asset(use_case, table=ALARMS),
    )
    def _judge(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        rows = write_alarms(warehouse, store, use_case, days)
        for day in days.dates:
            of_day = rows.filter(pc.field("partition_on") == pa.scalar(day))
            facts = {"n_alarms": of_day.num_rows, "alarms": _as_json(of_day)}
            context.add_asset_metadata(facts, partition_key=day.isoformat())
        newest = rows.filter((pc.field("partition_on") == pa.scalar(days.last)) & (pc.field("severity") == "severe"))
        severe = newest["explanation"].to_pylist()
        return dg.MaterializeResult(
            metadata={"n_rows": rows.num_rows}, check_results=[warning(not severe, tuple(severe))]
        )

    return _judge


def _as_json(alarms: pa.Table) -> dg.JsonMetadataValue:
    rows = alarms.select(_TOLD).to_pylist()
    return dg.MetadataValue.json([{**row, "since": row["since"].isoformat()} for row in rows])
