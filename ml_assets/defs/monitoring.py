"""Stage monitoring: drift, quality, a report for people, and the decision whether to train again."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, LOCAL_ZONE, ONE_RUN, days_of, today
from ml_assets.core import registry
from ml_assets.core.drift import DRIFT_SCHEMA, drift_verdict, measure_drift
from ml_assets.core.errors import DataMissing
from ml_assets.core.package import ModelPackage, load_package
from ml_assets.core.performance import PERFORMANCE_SCHEMA, measure_performance, performance_verdict
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, DayRange, Warehouse
from ml_assets.core.reports import chart_markdown, charts, monitoring_report
from ml_assets.core.retraining import RETRAINING_SCHEMA, decide
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyMetrics, meaning_of
from ml_assets.resources import dbt_of, feature_views_of, link_to, source_of
from ml_assets.use_cases import load_use_cases

DRIFT, PERFORMANCE, RETRAINING = "monitoring.drift", "monitoring.performance", "monitoring.retraining_decisions"
HISTORY = timedelta(days=27)


@dg.definitions
def defs() -> dg.Definitions:
    """Drift, performance, report and retraining decision per use case; the newest-day checks of all daily tables."""
    use_cases = load_use_cases()
    kinds = (_drift, _performance, _report, _retraining)
    return dg.Definitions(
        assets=[kind(use_case) for use_case in use_cases for kind in kinds],
        asset_checks=[_newest_day(_dated_rows(use_cases))],
    )


def _dated_rows(use_cases: Sequence[UseCase]) -> dict[str, str]:
    """Return asset key -> where its rows are, for every table that has rows on every day."""
    environment = Environment.current()
    dbt = dbt_of(environment)
    tables = {f"raw.{c.table}" for c in source_of(environment).contracts.values() if c.is_partitioned}
    # A table that Python computes is no model of dbt, but it declares a feature view.
    tables |= dbt.tables_with_rows_every_day
    tables |= {view.table for view in feature_views_of(environment).values()} - dbt.partitioned_tables
    found = {table.replace(".", "/"): table for table in sorted(tables)}
    for use_case in use_cases:
        of_all = {"drift": DRIFT, "performance": PERFORMANCE, "retraining": RETRAINING}
        places = {"examples": use_case.examples_table, "predictions": use_case.predictions_table}
        places |= {stage: f"{table} where use_case = '{use_case.name}'" for stage, table in of_all.items()}
        found |= {"/".join(use_case.key(stage)): place for stage, place in places.items()}
    return found


def _drift(use_case: UseCase) -> dg.AssetsDefinition:
    key = use_case.key("drift")

    @dg.asset(
        key=key,
        description="One row per feature and day, and one for the prediction: how far the day strays from training.",
        deps=[use_case.key("examples"), use_case.key("predictions")],
        check_specs=[
            dg.AssetCheckSpec("no_drift_alarm", asset=key, description="No broad drift on two of the last three days.")
        ],
        **_daily(use_case, table=DRIFT),
    )
    def _measure(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        scored = _scored(warehouse, use_case, days)
        parts = []
        for day, rows in _by_day(scored, days):
            version = rows["model_version"][0].as_py()
            reference = load_package(store, use_case.name, version).reference
            found = measure_drift(
                reference, rows, rows["prediction"], use_case=use_case.name, model_version=version, day=day
            )
            parts.append(found)
            context.add_asset_metadata(_drift_facts(found), partition_key=day.isoformat())
        rows = pa.concat_tables([*parts, DRIFT_SCHEMA.empty_table()])
        warehouse.replace_days({DRIFT: rows}, days, use_case=use_case.name)
        recent = _recent(warehouse, DRIFT, use_case, days.last)
        verdict = drift_verdict(recent)
        return dg.MaterializeResult(
            metadata={"n_rows": rows.num_rows, "four_weeks": _drift_chart(recent)},
            check_results=[_warning(not verdict.is_alarming, verdict.reasons)],
        )

    return _measure


def _performance(use_case: UseCase) -> dg.AssetsDefinition:
    key = use_case.key("performance")

    @dg.asset(
        key=key,
        description="One row per day: how good the predictions proved to be, and how many decisions have no label.",
        deps=[use_case.key("examples"), use_case.key("predictions")],
        check_specs=[dg.AssetCheckSpec("quality_holds", asset=key, description="A week as good as the holdout.")],
        **_daily(use_case, table=PERFORMANCE),
    )
    def _measure(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        parts = []
        for day, rows in _by_day(_scored(warehouse, use_case, days), days):
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
        recent = _recent(warehouse, PERFORMANCE, use_case, days.last)
        holdout = _newest_model(recent, use_case, store).metrics.holdout
        verdict = performance_verdict(recent, holdout, unit=use_case.label.unit)
        return dg.MaterializeResult(
            metadata={"n_rows": rows.num_rows, "four_weeks": _quality_chart(recent, holdout, use_case)},
            check_results=[_warning(not verdict.is_alarming, verdict.reasons)],
        )

    return _measure


def _report(use_case: UseCase) -> dg.AssetsDefinition:
    @dg.asset(
        key=use_case.key("report"),
        description="One HTML page per day for people: verdict, quality, drift, in words and charts.",
        deps=[use_case.key("drift"), use_case.key("performance")],
        **_daily(use_case, table=None),
    )
    def _write(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        quality = _recent(warehouse, PERFORMANCE, use_case, days.last, since=days.first - HISTORY)
        drift = _recent(warehouse, DRIFT, use_case, days.last, since=days.first - timedelta(days=2))
        ledger = registry.entries(store, use_case.name)
        for day, rows in _by_day(_scored(warehouse, use_case, days), days):
            package = load_package(store, use_case.name, rows["model_version"][0].as_py())
            champion = registry.put_in_charge(ledger, package.version, day)
            page = monitoring_report(
                use_case=use_case.name,
                day=day,
                drift=_until(drift, day),
                performance=_until(quality, day),
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


def _retraining(use_case: UseCase) -> dg.AssetsDefinition:
    @dg.asset(
        key=use_case.key("retraining"),
        description="One row per day: whether drift or quality asks for a training, and why or why not.",
        deps=[use_case.key("drift"), use_case.key("performance")],
        **_daily(use_case, table=RETRAINING),
    )
    def _decide(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        quality = _recent(warehouse, PERFORMANCE, use_case, days.last, since=days.first - HISTORY)
        drift = _recent(warehouse, DRIFT, use_case, days.last, since=days.first - timedelta(days=2))
        trainings = [entry.as_of for entry in registry.entries(store, use_case.name) if entry.action != "rollback"]
        trainings += _asked_for(warehouse, use_case, days)
        predicted = set(quality["partition_on"].to_pylist())
        rows = []
        for day in (day for day in days.dates if day in predicted):
            until_day = _until(quality, day)
            holdout = _newest_model(until_day, use_case, store).metrics.holdout
            decision = decide(
                use_case.name,
                day,
                drift=drift_verdict(_until(drift, day)),
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


def _newest_day(places: dict[str, str]) -> dg.AssetChecksDefinition:
    """Check that each daily table has reached the day it must: a fresh materialization of an old day does not count."""
    specs = [
        dg.AssetCheckSpec(
            "newest_day", asset=key.split("/"), description="The newest day is the run's, or yesterday outside a run."
        )
        for key in places
    ]

    @dg.multi_asset_check(name="newest_days", specs=specs, can_subset=True, pool="warehouse")
    def _check(
        context: dg.AssetCheckExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> Iterator[dg.AssetCheckResult]:
        tags = context.run.tags
        wanted = tags.get("dagster/asset_partition_range_end") or tags.get("dagster/partition")
        yesterday = today(datetime.now(LOCAL_ZONE)) - timedelta(days=1)
        expected = min(date.fromisoformat(wanted), yesterday) if wanted else yesterday
        selected = [check.asset_key.to_user_string() for check in context.selected_asset_check_keys]
        newest_of = "select '{key}' as name, max(partition_on) as newest from {place}"
        sql = " union all ".join(newest_of.format(key=key, place=places[key]) for key in selected)
        for row in warehouse.query(sql).to_pylist():
            newest = row["newest"]
            yield dg.AssetCheckResult(
                asset_key=dg.AssetKey.from_user_string(row["name"]),
                check_name="newest_day",
                passed=newest is not None and newest >= expected,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"newest_day": str(newest), "expected_day": expected.isoformat()},
            )

    return _check


def report_path(use_case: UseCase, day: date) -> str:
    """Return the artifact path of a day's report."""
    return f"reports/{use_case.name}/{day.isoformat()}.html"


def _daily(use_case: UseCase, *, table: str | None) -> dict[str, object]:
    return {
        "group_name": "monitoring",
        "partitions_def": DAILY,
        "backfill_policy": ONE_RUN,
        "freshness_policy": DAILY_FRESHNESS,
        "pool": "warehouse",
        "owners": list(use_case.owners),
        "kinds": {"python", Environment.current().warehouse} if table else {"html"},
        "tags": {"cadence": "daily", "use_case": use_case.name},
        "metadata": {"dagster/table_name": table} if table else {},
    }


def _scored(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> pa.Table:
    """Return the examples of these days beside their predictions."""
    marked = Sql(dialect=warehouse.dialect)
    sql = f"""
        select e.*, p.prediction, p.model_version
        from {use_case.examples_table} e join {use_case.predictions_table} p using (decision_id)
        where {marked.of_days(of="e")} and {marked.of_days(of="p")}
        order by e.partition_on, e.decision_id
    """  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last})


def _by_day(rows: pa.Table, days: DayRange) -> Iterator[tuple[date, pa.Table]]:
    for day in days.dates:
        of_day = rows.filter(pc.field("partition_on") == pa.scalar(day))
        if of_day.num_rows:
            yield day, of_day


def _recent(warehouse: Warehouse, table: str, use_case: UseCase, last: date, *, since: date | None = None) -> pa.Table:
    marked = Sql(dialect=warehouse.dialect)
    sql = f"""
        select * from {table}
        where use_case = {marked.parameter("use_case")} and {marked.of_days()} order by partition_on
    """  # noqa: S608 - constant
    bounds = {"use_case": use_case.name, "first_day": since or last - HISTORY, "last_day": last}
    return warehouse.query(sql, bounds)


def _newest_model(performance: pa.Table, use_case: UseCase, store: ArtifactStore) -> ModelPackage:
    """Return the model that made the newest of these days' predictions, whoever the ledger names by now."""
    if not performance.num_rows:
        raise DataMissing(f"no day of {use_case.name} has been predicted yet; materialize its predictions first")
    return load_package(store, use_case.name, performance["model_version"][-1].as_py())


def _asked_for(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> list[date]:
    """Return the as-of dates of the trainings that the days just before these asked for."""
    if warehouse.columns(RETRAINING) is None:
        return []
    before = _recent(warehouse, RETRAINING, use_case, days.first - timedelta(days=1))
    return before.filter(pc.field("decision") == "retrain")["as_of"].to_pylist()


def _until(rows: pa.Table, day: date) -> pa.Table:
    return rows.filter(pc.field("partition_on") <= pa.scalar(day))


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


def _warning(is_passed: bool, reasons: tuple[str, ...]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=is_passed, severity=dg.AssetCheckSeverity.WARN, description="; ".join(reasons) or "nothing to report"
    )
