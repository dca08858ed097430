"""Stage monitoring: whether each daily table has reached the day it must."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.calendar import now, today
from ml_assets.core.monitored import DRIFT, PERFORMANCE, RETRAINING, SKEW
from ml_assets.core.ports import Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.resources import dbt_of, feature_views_of, source_of
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One check on every table that has rows on every day."""
    return dg.Definitions(asset_checks=[_newest_day(_dated_rows(load_use_cases()))])


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
        of_all = {"drift": DRIFT, "performance": PERFORMANCE, "retraining": RETRAINING, "skew": SKEW}
        places = {"examples": use_case.examples_table, "predictions": use_case.predictions_table}
        places |= {stage: f"{table} where use_case = '{use_case.name}'" for stage, table in of_all.items()}
        found |= {"/".join(use_case.key(stage)): place for stage, place in places.items()}
    return found


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
        yesterday = today(now()) - timedelta(days=1)
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
