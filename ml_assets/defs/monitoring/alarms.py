"""Stage monitoring: what stands on a day that a person should know."""

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendar import days_of
from ml_assets.core.alarms import write_alarms
from ml_assets.core.monitored import ALARMS
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.resources import monitoring_asset
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
        deps=[use_case.key("drift"), use_case.key("performance"), use_case.key("skew")],
        check_specs=[dg.AssetCheckSpec("no_alarm", asset=key, description="No alarm stands on the newest day.")],
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
        return dg.MaterializeResult(
            metadata={"n_rows": rows.num_rows},
            check_results=[_check(rows.filter(pc.field("partition_on") == pa.scalar(days.last)))],
        )

    return _judge


def _check(newest: pa.Table) -> dg.AssetCheckResult:
    """Fail where an alarm stands: as an error where one is severe, else as a warning. It blocks nothing."""
    alarms = sorted(newest.to_pylist(), key=lambda alarm: alarm["severity"] != "severe")
    is_severe = bool(alarms) and alarms[0]["severity"] == "severe"
    return dg.AssetCheckResult(
        passed=not alarms,
        severity=dg.AssetCheckSeverity.ERROR if is_severe else dg.AssetCheckSeverity.WARN,
        description="; ".join(alarm["explanation"] for alarm in alarms) or "no alarm stands",
    )


def _as_json(alarms: pa.Table) -> dg.JsonMetadataValue:
    rows = alarms.select(_TOLD).to_pylist()
    return dg.MetadataValue.json([{**row, "since": row["since"].isoformat()} for row in rows])
