"""Stage raw: the source's tables land, day by day; rows that break their contract are set aside with the reason."""

from collections import Counter
from datetime import date
from typing import cast

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, days_of
from ml_assets.core import contracts
from ml_assets.core.contracts import Checked, Contract
from ml_assets.core.ports import DayRange, Source, Warehouse
from ml_assets.resources import source_of

OWNERS = ["team:data-engineering"]


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per table of the source."""
    tables = source_of(Environment.current()).contracts.values()
    return dg.Definitions(assets=[_daily_table(t) if t.is_partitioned else _reference_table(t) for t in tables])


def _daily_table(contract: Contract) -> dg.AssetsDefinition:
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
        checked = contracts.check(source.read(contract.table, days), contract, days=days)
        warehouse.replace_days(
            {f"raw.{contract.table}": checked.accepted, f"raw.{contract.table}_quarantine": checked.quarantined}, days
        )
        counts = _rows_by_day(checked, days)
        for day, n_rows in counts.items():
            context.add_asset_metadata({"dagster/partition_row_count": n_rows}, partition_key=day.isoformat())
        return dg.MaterializeResult(
            metadata={
                "n_rows": checked.accepted.num_rows,
                "n_quarantined": checked.quarantined.num_rows,
                "source": source.note(days),
            },
            check_results=[_has_rows(counts), _contract_kept(checked)],
        )

    return _land


def _reference_table(contract: Contract) -> dg.AssetsDefinition:
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
        checked = contracts.check(source.read(contract.table), contract, days=None)
        warehouse.replace_table({f"raw.{contract.table}": checked.accepted})
        return dg.MaterializeResult(metadata={"dagster/row_count": checked.accepted.num_rows})

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


def _rows_by_day(checked: Checked, days: DayRange) -> dict[date, int]:
    found = Counter(cast("list[date]", checked.accepted.column("partition_on").to_pylist()))
    return {day: found[day] for day in days.dates}


def _has_rows(counts: dict[date, int]) -> dg.AssetCheckResult:
    empty = [day.isoformat() for day, n_rows in counts.items() if n_rows == 0]
    return dg.AssetCheckResult(
        check_name="has_rows",
        passed=not empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"n_empty_days": len(empty), "empty_days": ", ".join(empty[:31])},
    )


def _contract_kept(checked: Checked) -> dg.AssetCheckResult:
    reasons = Counter(cast("list[str]", checked.quarantined.column("reason").to_pylist()))
    return dg.AssetCheckResult(
        check_name="contract_kept",
        passed=not reasons and not checked.warnings,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "n_quarantined": checked.quarantined.num_rows,
            "reasons": "; ".join(f"{reason}: {n}" for reason, n in reasons.most_common(10)),
            "warnings": "; ".join(checked.warnings),
            "ignored_columns": ", ".join(checked.ignored_columns),
        },
    )
