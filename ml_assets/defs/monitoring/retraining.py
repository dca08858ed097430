"""Stage monitoring: the decision of each day whether to train again."""

from datetime import timedelta

import dagster as dg

from ml_assets.calendar import day_starts_at, days_of
from ml_assets.core.monitored import RETRAINING, recent_rows
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.retraining import DAYS_OF_A_STOP, retraining_alarms
from ml_assets.core.retraining_evidence import write_decisions
from ml_assets.core.spec import UseCase
from ml_assets.resources import monitoring_asset
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    return dg.Definitions(assets=[_retraining(use_case) for use_case in load_use_cases()])


def _retraining(use_case: UseCase) -> dg.AssetsDefinition:
    @dg.asset(
        key=use_case.key("retraining"),
        description="One row per day: whether the evidence asks for a training, and why or why not.",
        deps=[use_case.key("drift"), use_case.key("performance"), use_case.key("alarms")],
        **monitoring_asset(use_case, table=RETRAINING),
    )
    def _decide(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        decisions = write_decisions(warehouse, store, use_case, days, starts_at=day_starts_at).to_pylist()
        since = days.first - timedelta(days=DAYS_OF_A_STOP)
        alarms = retraining_alarms(recent_rows(warehouse, RETRAINING, use_case, days.last, since=since))
        for row in decisions:
            facts: dict[str, object] = {name: row[name] for name in ("decision", "reason", "votes", "fingerprint")}
            # The sensor of the alerts tells them now: monitoring.alarms has them a day later.
            facts["alarms"] = dg.MetadataValue.json([a.as_fact() for a in alarms.get(row["partition_on"], ())])
            context.add_asset_metadata(
                {**facts, "as_of": row["as_of"].isoformat()}, partition_key=row["partition_on"].isoformat()
            )
        counts = {f"n_{word}": sum(row["decision"] == word for row in decisions) for word in ("retrain", "stopped")}
        return dg.MaterializeResult(metadata=counts)

    return _decide
