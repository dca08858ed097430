"""Stage examples: each decision of a day with its features as known at that moment, and its label once known."""

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, days_of
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.point_in_time import Pruning, examples_query, parts
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import DayRange, Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import load_use_cases

# Judgement: a join of this many days needs about 0.9 GB, whatever the length of the range.
DAYS_AT_ONCE = 75


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    views = feature_views_of(Environment.current())
    return dg.Definitions(assets=[_examples(use_case, views) for use_case in load_use_cases()])


def _examples(use_case: UseCase, declared: dict[str, FeatureView]) -> dg.AssetsDefinition:
    views = use_case.views(declared)
    key, table = use_case.key("examples"), use_case.examples_table

    @dg.asset(
        key=key,
        description=f"One row per decision of one local day: {use_case.question} Features as known at decided_at.",
        group_name="examples",
        deps=_deps(use_case, views),
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        freshness_policy=DAILY_FRESHNESS,
        pool="warehouse",
        owners=list(use_case.owners),
        kinds={"sql", Environment.current().warehouse},
        tags={"cadence": "daily", "use_case": use_case.name},
        metadata={"dagster/table_name": table, "feature_views": [view.name for view in views]},
        check_specs=[
            dg.AssetCheckSpec(
                "one_row_per_decision", asset=key, blocking=True, description="As many examples as decisions, by day."
            )
        ],
    )
    def _join(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        days = days_of(context)
        sql = examples_query(use_case, views, dialect=warehouse.dialect)
        n_rows = sum(
            warehouse.replace_days_with_query(table, sql, part, {"first_day": part.first, "last_day": part.last})
            for part in parts(days, at_most_days=DAYS_AT_ONCE)
        )
        counts = _counts(warehouse, use_case, days)
        for row in counts:
            context.add_asset_metadata(
                {"dagster/partition_row_count": row["n_examples"], "n_labelled": row["n_labelled"]},
                partition_key=str(row["partition_on"]),
            )
        uneven = [str(row["partition_on"]) for row in counts if row["n_examples"] != row["n_decisions"]]
        return dg.MaterializeResult(
            metadata={"n_rows": n_rows, "n_features": len(use_case.inputs(declared))},
            check_results=[dg.AssetCheckResult(passed=not uneven, metadata={"days": ", ".join(uneven)})],
        )

    return _join


def _deps(use_case: UseCase, views: list[FeatureView]) -> list[dg.AssetDep]:
    """Return the tables the join reads, each with as many days before as a row that still counts can lie back."""
    tables = {use_case.decisions.table: 0, use_case.label.table: 0}
    pruning = Pruning(lead_time=use_case.decisions.longest_lead)
    for view in views:
        tables[view.table] = max(tables.get(view.table, 0), -pruning.first_offset(view.max_age))
    return [
        dg.AssetDep(
            table.split("."),
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-days_back, end_offset=0, allow_nonexistent_upstream_partitions=True
            ),
        )
        for table, days_back in tables.items()
    ]


def _counts(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> list[dict[str, object]]:
    where = f"where {Sql(dialect=warehouse.dialect).of_days()} group by partition_on"
    sql = f"""
        with decisions as (
            select partition_on, count(*) as n_decisions from {use_case.decisions.table} {where}
        ),
        examples as (
            select partition_on, count(*) as n_examples, count(label) as n_labelled
            from {use_case.examples_table} {where}
        )
        select partition_on, n_decisions, coalesce(n_examples, 0) as n_examples, coalesce(n_labelled, 0) as n_labelled
        from decisions left join examples using (partition_on) order by partition_on
    """  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist()
