"""Stage raw: the source's tables land, day by day; rows that break their contract are set aside with the reason."""

from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, days_of
from ml_assets.core.contract_checks import Checked, check
from ml_assets.core.contracts import Contract
from ml_assets.core.data_quality.landings import landed, landings_table, not_landed, read_landings
from ml_assets.core.day_files import LANDED_FILES
from ml_assets.core.errors import ContractBroken
from ml_assets.core.landing import landing
from ml_assets.core.ports import Rows, Source, VersionedSource, Warehouse
from ml_assets.resources import source_of

OWNERS = ["team:data-engineering"]


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per table of the source."""
    environment = Environment.current()
    assets = [
        daily_table(contract, environment.work_folder) if contract.is_partitioned else reference_table(contract)
        for contract in source_of(environment).contracts.values()
    ]
    return dg.Definitions(assets=assets)


def daily_table(contract: Contract, work_folder: Path) -> dg.AssetsDefinition:
    """Return the asset that lands a table day by day; what does not fit in memory passes through the work folder."""
    key = ["raw", contract.table]

    @dg.asset(
        key=key,
        description=contract.description,
        group_name="raw",
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        freshness_policy=DAILY_FRESHNESS,
        pool="warehouse",
        owners=OWNERS,
        kinds={Environment.current().warehouse, "arrow"},
        tags={"cadence": "daily"},
        metadata=_schema(contract),
        check_specs=[
            dg.AssetCheckSpec("has_rows", asset=key, description="Every day of the run has at least one row."),
            dg.AssetCheckSpec("contract_kept", asset=key, description="No row was quarantined, no column is empty."),
        ],
    )
    def _land(
        context: dg.AssetExecutionContext, source: dg.ResourceParam[Source], warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        days = days_of(context)
        versions = source.versions(contract.table, days) if isinstance(source, VersionedSource) else {}
        before = read_landings(warehouse, contract.table, days)
        try:
            with landing(source, contract, days, work_folder=work_folder) as checked:
                writes = {
                    f"raw.{contract.table}": checked.accepted,
                    f"raw.{contract.table}_quarantine": checked.quarantined,
                    landings_table(contract.table): landed(checked.n_by_day, checked.state_by_day, before),
                }
                warehouse.replace_days(writes, days)
        except ContractBroken as broken:
            # The rows stay as they were. Later runs must know that they are not what the source has by now.
            warehouse.replace_days({landings_table(contract.table): not_landed(broken, days, before)}, days)
            raise
        for day, n_rows in checked.n_by_day.items():
            facts = {LANDED_FILES: versions[day]} if day in versions else {}
            context.add_asset_metadata({"dagster/partition_row_count": n_rows, **facts}, partition_key=day.isoformat())
        return dg.MaterializeResult(
            metadata={
                "n_rows": sum(checked.n_by_day.values()),
                "n_quarantined": sum(checked.n_by_reason.values()),
                "source": source.note(days),
            },
            check_results=[_has_rows(checked.n_by_day), _contract_kept(checked)],
        )

    return _land


def reference_table(contract: Contract) -> dg.AssetsDefinition:
    """Return the asset that lands a table without days, whole."""
    key = ["raw", contract.table]

    @dg.asset(
        key=key,
        description=contract.description,
        group_name="raw",
        backfill_policy=ONE_RUN,  # it has no days, but a range run asks it of every asset
        pool="warehouse",
        owners=OWNERS,
        kinds={Environment.current().warehouse, "arrow"},
        tags={"cadence": "reference"},
        metadata=_schema(contract),
    )
    def _land(source: dg.ResourceParam[Source], warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        versions = source.versions(contract.table) if isinstance(source, VersionedSource) else {}
        checked = check(source.read(contract.table), contract, days=None)
        warehouse.replace_table({f"raw.{contract.table}": checked.accepted})
        facts = {LANDED_FILES: versions[None]} if None in versions else {}
        ignored = ", ".join(checked.ignored_columns)
        return dg.MaterializeResult(
            metadata={"dagster/row_count": checked.accepted.num_rows, "ignored_columns": ignored, **facts}
        )

    return _land


def _schema(contract: Contract) -> dict[str, object]:
    columns = [
        dg.TableColumn(
            name=column.name,
            type=str(column.type),
            description=column.description,
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
        )
        for column in contract.columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns), "dagster/table_name": f"raw.{contract.table}"}


def _has_rows(n_by_day: Mapping[date, int]) -> dg.AssetCheckResult:
    empty = [day.isoformat() for day, n_rows in n_by_day.items() if n_rows == 0]
    return dg.AssetCheckResult(
        check_name="has_rows",
        passed=not empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"n_empty_days": len(empty), "empty_days": ", ".join(empty[:31])},
    )


def _contract_kept(checked: Checked[Rows]) -> dg.AssetCheckResult:
    reasons = Counter(checked.n_by_reason)
    return dg.AssetCheckResult(
        check_name="contract_kept",
        passed=not reasons and not checked.warnings,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "n_quarantined": reasons.total(),
            "reasons": "; ".join(f"{reason}: {n}" for reason, n in reasons.most_common(10)),
            "warnings": "; ".join(checked.warnings),
            "ignored_columns": ", ".join(checked.ignored_columns),
        },
    )
