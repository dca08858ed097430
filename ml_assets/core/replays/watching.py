"""What production does on the morning after a day that was predicted: drift, quality, and the decision to retrain."""

from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core import registry
from ml_assets.core.days import DayRange
from ml_assets.core.drift import drift_verdict, measure_drift
from ml_assets.core.monitored import DRIFT, HISTORY, PERFORMANCE, RETRAINING, newest_model, recent_rows, scored_examples
from ml_assets.core.package import load_package
from ml_assets.core.performance import measure_performance, performance_verdict
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.replays.record import Costs
from ml_assets.core.retraining import RETRAINING_SCHEMA, decide
from ml_assets.core.spec import UseCase


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a morning saw of the day before."""

    n_labelled: int
    decision: str
    reason: str
    n_alarms: int
    n_severe: int


def watch(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date, costs: Costs) -> Seen:
    """Run every daily step after the predictions of a day, in the order of the graph."""
    today = DayRange(first=day, last=day)
    with costs.of("drift"):
        write_drift(warehouse, store, use_case, today)
    with costs.of("performance"):
        quality = write_performance(warehouse, store, use_case, today)
    with costs.of("retraining"):
        decision = write_decisions(warehouse, store, use_case, today).to_pylist()[0]
    return Seen(
        n_labelled=quality["n_labelled"][0].as_py(),
        decision=decision["decision"],
        reason=decision["reason"],
        n_alarms=0,
        n_severe=0,
    )


def write_drift(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> pa.Table:
    rows = scored_examples(warehouse, use_case, days)
    version = rows["model_version"][0].as_py()
    found = measure_drift(
        load_package(store, use_case.name, version).reference,
        rows,
        rows["prediction"],
        use_case=use_case.name,
        model_version=version,
        day=days.first,
    )
    warehouse.replace_days({DRIFT: found}, days, use_case=use_case.name)
    return found


def write_performance(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> pa.Table:
    rows = scored_examples(warehouse, use_case, days)
    version = rows["model_version"][0].as_py()
    found = measure_performance(
        rows,
        use_case=use_case.name,
        day=days.first,
        model_version=version,
        task=use_case.task,
        edges=load_package(store, use_case.name, version).reference.prediction.edges,
    )
    warehouse.replace_days({PERFORMANCE: found}, days, use_case=use_case.name)
    return found


def write_decisions(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> pa.Table:
    day = days.first
    quality = recent_rows(warehouse, PERFORMANCE, use_case, day, since=day - HISTORY)
    drift = recent_rows(warehouse, DRIFT, use_case, day, since=day - timedelta(days=2))
    trainings = [entry.as_of for entry in registry.entries(store, use_case.name) if entry.action != "rollback"]
    if warehouse.columns(RETRAINING) is not None:
        before = recent_rows(warehouse, RETRAINING, use_case, day - timedelta(days=1))
        trainings += before.filter(pc.field("decision") == "retrain")["as_of"].to_pylist()
    decision = decide(
        use_case.name,
        day,
        drift=drift_verdict(drift),
        quality=performance_verdict(
            quality, newest_model(quality, use_case, store).metrics.holdout, unit=use_case.label.unit
        ),
        last_training_on=max((as_of for as_of in trainings if as_of <= day), default=None),
        rule=use_case.retraining,
    )
    table = pa.Table.from_pylist([decision.as_row()], schema=RETRAINING_SCHEMA)
    warehouse.replace_days({RETRAINING: table}, days, use_case=use_case.name)
    return table
