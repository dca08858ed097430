"""Stage monitoring: the decision of each day whether to train again."""

from datetime import date, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendar import days_of
from ml_assets.core import registry
from ml_assets.core.drift import drift_verdict
from ml_assets.core.monitored import DRIFT, HISTORY, PERFORMANCE, RETRAINING, newest_model, recent_rows, until
from ml_assets.core.performance import performance_verdict
from ml_assets.core.ports import ArtifactStore, DayRange, Warehouse
from ml_assets.core.retraining import RETRAINING_SCHEMA, decide
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
        description="One row per day: whether drift or quality asks for a training, and why or why not.",
        deps=[use_case.key("drift"), use_case.key("performance")],
        **monitoring_asset(use_case, table=RETRAINING),
    )
    def _decide(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        quality = recent_rows(warehouse, PERFORMANCE, use_case, days.last, since=days.first - HISTORY)
        drift = recent_rows(warehouse, DRIFT, use_case, days.last, since=days.first - timedelta(days=2))
        trainings = [entry.as_of for entry in registry.entries(store, use_case.name) if entry.action != "rollback"]
        trainings += _asked_for(warehouse, use_case, days)
        predicted = set(quality["partition_on"].to_pylist())
        rows = []
        for day in (day for day in days.dates if day in predicted):
            until_day = until(quality, day)
            holdout = newest_model(until_day, use_case, store).metrics.holdout
            decision = decide(
                use_case.name,
                day,
                drift=drift_verdict(until(drift, day)),
                quality=performance_verdict(until_day, holdout, unit=use_case.label.unit),
                last_training_on=max((as_of for as_of in trainings if as_of <= day), default=None),
                rule=use_case.retraining,
            )
            rows.append(decision.as_row())
            if decision.decision == "retrain":
                trainings.append(decision.as_of)
            context.add_asset_metadata(
                {"decision": decision.decision, "reason": decision.reason, "as_of": decision.as_of.isoformat()},
                partition_key=day.isoformat(),
            )
        table = pa.Table.from_pylist(rows, schema=RETRAINING_SCHEMA)
        warehouse.replace_days({RETRAINING: table}, days, use_case=use_case.name)
        return dg.MaterializeResult(metadata={"n_retrain": sum(row["decision"] == "retrain" for row in rows)})

    return _decide


def _asked_for(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> list[date]:
    """Return the as-of dates of the trainings that the days just before these asked for."""
    if warehouse.columns(RETRAINING) is None:
        return []
    before = recent_rows(warehouse, RETRAINING, use_case, days.first - timedelta(days=1))
    return before.filter(pc.field("decision") == "retrain")["as_of"].to_pylist()
