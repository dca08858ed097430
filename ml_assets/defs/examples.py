"""Stage examples: each decision of a day with its features as known at that moment, and its label once known."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, day_starts_at, days_of
from ml_assets.core.data_quality.holds import held_days, refusal
from ml_assets.core.data_quality.verdicts import standing_faults
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.point_in_time import Pruning, examples_query, parts
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, DayRange, Source, Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.resources import dbt_of, feature_views_of, not_made
from ml_assets.use_cases import load_use_cases

# Judgement: a join of this many days needs about 0.9 GB, whatever the length of the range.
DAYS_AT_ONCE = 75
# Judgement: the last flight of a day leaves after 22:00, on every day of 2013.
MOST_HOURS_WITHOUT_EVENT = 6.0


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    environment = Environment.current()
    views, raw_tables = feature_views_of(environment), dbt_of(environment).raw_tables
    return dg.Definitions(assets=[_examples(use_case, views, raw_tables) for use_case in load_use_cases()])


def _examples(
    use_case: UseCase, declared: dict[str, FeatureView], raw_tables_of: Mapping[str, frozenset[str]]
) -> dg.AssetsDefinition:
    views = use_case.views(declared)
    key, table = use_case.key("examples"), use_case.examples_table
    read = {use_case.decisions.table, use_case.label.table, *(view.table for view in views)}
    # A table that Python computes is of the days before: it does not wait for what landed on the day itself.
    raw_tables = frozenset[str]().union(*(raw_tables_of.get(each, frozenset()) for each in read))

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
            ),
            dg.AssetCheckSpec(
                "newest_event", asset=key, description="The last decision of each day is of an event in its last hours."
            ),
        ],
    )
    def _join(
        context: dg.AssetExecutionContext,
        source: dg.ResourceParam[Source],
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        days = days_of(context)
        faults = standing_faults(warehouse, store, source.contracts, raw_tables, days)
        held = held_days(raw_tables, faults)
        sql = examples_query(use_case, views, dialect=warehouse.dialect)
        n_rows = sum(
            warehouse.replace_days_with_query(table, sql, part, {"first_day": part.first, "last_day": part.last})
            for stretch in days.without(held)
            for part in parts(stretch, at_most_days=DAYS_AT_ONCE)
        )
        if faults:
            refused = refusal(table, faults)
            context.log.error(str(refused))
            # In a run that judges what landed that step fails, and the days that are sound go on.
            if held.issuperset(days.dates) or not context.job_def.graph.has_node_named("data_quality"):
                raise not_made(refused)
        counts = _counts(warehouse, use_case, days)
        for row in counts:
            context.add_asset_metadata(
                {"dagster/partition_row_count": row["n_examples"], "n_labelled": row["n_labelled"]},
                partition_key=str(row["partition_on"]),
            )
        sound = [row for row in counts if row["partition_on"] not in held]
        uneven = [str(row["partition_on"]) for row in sound if row["n_examples"] != row["n_decisions"]]
        return dg.MaterializeResult(
            metadata={"n_rows": n_rows, "n_features": len(use_case.inputs(declared)), "n_held_days": len(held)},
            check_results=[
                dg.AssetCheckResult(
                    check_name="one_row_per_decision", passed=not uneven, metadata={"days": ", ".join(uneven)}
                ),
                _newest_event(sound),
            ],
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


def _newest_event(counts: Sequence[Mapping[str, object]]) -> dg.AssetCheckResult:
    """Hold the last event of each day against the end of the day: a fresh materialization can be of half a day."""
    ends_at = {row["partition_on"]: day_starts_at(row["partition_on"] + timedelta(days=1)) for row in counts}
    hours = {
        row["partition_on"]: (ends_at[row["partition_on"]] - row["newest_event_at"]).total_seconds() / 3600
        for row in counts
    }
    early = [str(day) for day, missing in hours.items() if missing > MOST_HOURS_WITHOUT_EVENT]
    return dg.AssetCheckResult(
        check_name="newest_event",
        passed=bool(hours) and not early,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "hours_before_the_end": max(hours.values(), default=None),
            "days": ", ".join(early),
        },
    )


def _counts(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> list[dict[str, object]]:
    where = f"where {Sql(dialect=warehouse.dialect).of_days()} group by partition_on"
    sql = f"""
        with decisions as (
            select partition_on, count(*) as n_decisions, max({use_case.decisions.event_at}) as newest_event_at
            from {use_case.decisions.table} {where}
        ),
        examples as (
            select partition_on, count(*) as n_examples, count(label) as n_labelled
            from {use_case.examples_table} {where}
        )
        select
            partition_on, n_decisions, newest_event_at,
            coalesce(n_examples, 0) as n_examples, coalesce(n_labelled, 0) as n_labelled
        from decisions left join examples using (partition_on) order by partition_on
    """  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist()
