"""The dbt models: staging, intermediate, features and labels of the run's days, in one in-process invocation."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, cast

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, dbt_assets
from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

from ml_assets.backends.dbt_in_process import DbtInProcess, together
from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, days_of
from ml_assets.core.column_lineage import ColumnLineage
from ml_assets.core.data_quality.holds import builds, refusal
from ml_assets.core.data_quality.verdicts import standing_faults
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, DayRange, Source, Warehouse
from ml_assets.resources import dbt_of, not_made

OWNERS = ["team:data-engineering"]


class Translator(DagsterDbtTranslator):
    """Puts every dbt model into the features group, keyed schema/name, fresh once a day."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: object) -> dg.AssetSpec:
        """Return dagster-dbt's own spec with this project's group, owners, kinds and freshness."""
        spec = super().get_asset_spec(manifest, unique_id, project)  # type: ignore[arg-type]
        if not unique_id.startswith("model."):
            return spec
        # A view holds no days of its own; only the tables are partitioned.
        is_view = manifest["nodes"][unique_id]["config"]["materialized"] == "view"
        return spec.replace_attributes(
            group_name="features",
            partitions_def=None if is_view else DAILY,
            owners=OWNERS,
            tags={**spec.tags, "cadence": "daily", "layer": spec.key.path[0]},
            freshness_policy=DAILY_FRESHNESS,
        )


@dg.definitions
def defs() -> dg.Definitions:
    """One multi-asset over the whole dbt project."""
    return dg.Definitions(assets=[_dbt_models(dbt_of(Environment.current()))])


def _dbt_models(dbt: DbtInProcess) -> dg.AssetsDefinition:
    manifest = dbt.prepare()
    translator = Translator()

    @dbt_assets(
        manifest=manifest,
        dagster_dbt_translator=translator,
        backfill_policy=ONE_RUN,
        pool="warehouse",
        name="dbt_models",
    )
    def dbt_models(
        context: dg.AssetExecutionContext,
        source: dg.ResourceParam[Source],
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> Iterator[Any]:
        days = days_of(context)
        raw_tables = _raw_tables(context, dbt)
        faults = standing_faults(warehouse, store, source.contracts, frozenset().union(*raw_tables.values()), days)
        if faults:
            stretches = builds(raw_tables, faults, days)
            build = together([dbt.build(dbt.selecting(each.tables), days=each.days) for each in stretches])
        else:
            invocation = get_updated_cli_invocation_params_for_context(
                context.op_execution_context, dbt.manifest_document, translator
            )
            build = dbt.build(invocation.selection_args, days=days)
        outputs, checks = [], []
        for raw_event in build.events:
            message = DbtCoreCliEventMessage(raw_event=dict(raw_event), event_history_metadata={})
            for event in message.to_default_asset_events(dbt.manifest_document, translator, context):
                (outputs if isinstance(event, dg.Output) else checks).append(event)
        outputs, checks = _one_of_each(outputs), _worst_of_each(checks)
        tables = {output.output_name: dbt.table_of(output.metadata["unique_id"].text) for output in outputs}
        counts = _rows_by_day(warehouse, sorted(dbt.partitioned_tables & set(tables.values())), days)
        lineage = dbt.column_lineage(build, _Schema(warehouse))
        for output in outputs:
            table = tables[output.output_name]
            key = dg.AssetKey(table.split("."))
            for day, n_rows in counts.get(table, {}).items():
                context.add_asset_metadata({"dagster/partition_row_count": n_rows}, key, day.isoformat())
            # The UI reads the lineage of the newest materialization; a copy for each day would be most of the run.
            newest = days.last.isoformat() if table in dbt.partitioned_tables else None
            context.add_asset_metadata(_lineage(lineage.get(table, {})), key, newest)
            facts = {f"bigquery_{name}": value for name, value in build.costs.get(table, {}).items()}
            if table in counts:
                facts["n_rows"] = sum(counts[table].values())
            if table in counts and table in build.seconds:
                facts["seconds_per_day"] = build.seconds[table] / len(days.dates)
            yield dg.Output(None, output.output_name, metadata={**output.metadata, **facts})
        yield from checks
        if build.failures:
            raise dg.Failure("dbt: " + "\n".join(build.failures))
        if faults:
            held = refusal(f"what depends on {', '.join(sorted({f'raw.{fault.table}' for fault in faults}))}", faults)
            context.log.error(str(held))
            # In a run that judges what landed that step fails, and the days that are sound go on.
            if not context.job_def.graph.has_node_named("data_quality"):
                raise not_made(held)

    return dbt_models


def _raw_tables(context: dg.AssetExecutionContext, dbt: DbtInProcess) -> dict[str, frozenset[str]]:
    """Return the raw tables of each model of the run. A view holds no days that could be held."""
    tables = [".".join(key.path) for key in context.selected_asset_keys]
    return {table: dbt.raw_tables[table] if table in dbt.partitioned_tables else frozenset() for table in tables}


def _one_of_each(outputs: list[dg.Output[None]]) -> list[dg.Output[None]]:
    """Return the last output of each model: one that was built for several stretches of days gave several."""
    return list({output.output_name: output for output in outputs}.values())


def _worst_of_each(checks: list[dg.AssetCheckResult]) -> list[dg.AssetCheckResult]:
    """Return one result of each check: that of a stretch of days on which it failed, if there is one."""
    ordered = sorted(checks, key=lambda check: not check.passed)
    return list({(check.asset_key, check.check_name): check for check in ordered}.values())


def _rows_by_day(warehouse: Warehouse, tables: list[str], days: DayRange) -> dict[str, dict[date, int]]:
    """Return the rows each table has on each day, with one query for all tables."""
    if not tables:
        return {}
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = " union all ".join(
        f"select '{table}' as table_name, partition_on, count(*) as n_rows from {table} "  # noqa: S608 - the tables of the manifest
        f"where {of_days} group by partition_on"
        for table in tables
    )
    counts: dict[str, dict[date, int]] = {table: {} for table in tables}
    for row in warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist():
        counts[cast("str", row["table_name"])][cast("date", row["partition_on"])] = cast("int", row["n_rows"])
    return counts


class _Schema(dict[str, Mapping[str, str]]):
    """The columns of each table, asked of the warehouse only for the tables that lineage has not seen yet."""

    def __init__(self, warehouse: Warehouse) -> None:
        super().__init__()
        self._warehouse = warehouse

    def __missing__(self, table: str) -> Mapping[str, str]:
        self[table] = self._warehouse.columns(table) or {}
        return self[table]


def _lineage(columns: ColumnLineage) -> dict[str, dg.TableColumnLineage]:
    deps = {
        column: [dg.TableColumnDep(asset_key=table.split("."), column_name=parent) for table, parent in parents]
        for column, parents in columns.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)} if deps else {}
