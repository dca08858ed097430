"""Between raw and features: whether what landed may be used; a day with a severe fault is held until it is released."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.calendar import now, today
from ml_assets.core.contracts import Contract
from ml_assets.core.data_quality.evidence import CHECKS
from ml_assets.core.data_quality.holds import refusal
from ml_assets.core.data_quality.verdicts import judge_days, verdicts_of
from ml_assets.core.monitored import DATA_QUALITY
from ml_assets.core.ports import ArtifactStore, DayRange, Source, Warehouse
from ml_assets.resources import not_made, source_of

# What each check asks, as the UI shows it beside its answer.
_QUESTIONS = {
    "volume": "As many rows as on such a day, in all and of each station, airport and carrier.",
    "freshness": "The newest event lies in the last hours of the day, however fresh the materialization is.",
    "schema": "The newest delivery had the columns of the contract, and landed.",
    "nulls": "No column lost more values than on any recent day.",
    "units": "The values of every quantity are in its unit.",
    "duplicates": "Hardly any row came twice.",
    "late": "Hardly any row came after the first landing, or on the wrong day.",
}


@dg.definitions
def defs() -> dg.Definitions:
    """Seven checks on every daily raw table, in one step."""
    contracts = source_of(Environment.current()).contracts.values()
    return dg.Definitions(asset_checks=[_data_quality([c for c in contracts if c.is_partitioned])])


def _data_quality(contracts: Sequence[Contract]) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(name, asset=["raw", contract.table], description=_QUESTIONS[name])
        for contract in contracts
        for name in CHECKS
    ]

    # Not blocking in Dagster's sense: that stops all days of a run. What must not be made of a faulty day, and that
    # alone, features and examples refuse themselves, in this run and in any later one.
    @dg.multi_asset_check(name="data_quality", specs=specs, can_subset=True, pool="warehouse")
    def _judge(
        context: dg.AssetCheckExecutionContext,
        source: dg.ResourceParam[Source],
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> Iterator[dg.AssetCheckResult]:
        days = _days_of(context.run.tags)
        faults = judge_days(warehouse, store, source.contracts.values(), days)
        rows = verdicts_of(warehouse, days)
        for key in context.selected_asset_check_keys:
            of_check = [r for r in rows if (r["table_name"], r["check_name"]) == (key.asset_key.path[-1], key.name)]
            yield _result(key, of_check)
        goes_on = context.job_def.graph.has_node_named("dbt_models")
        asked = {key.asset_key.path[-1] for key in context.selected_asset_check_keys}
        standing = [fault for fault in faults if not fault.released_by and (goes_on or fault.table in asked)]
        if standing:
            raise not_made(refusal("what follows", standing))

    return _judge


def _days_of(tags: dict[str, str]) -> DayRange:
    """Return the days of a run; outside of one yesterday is what a person wants to know of."""
    first = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition")
    last = tags.get("dagster/asset_partition_range_end") or first
    if first and last:
        return DayRange(first=date.fromisoformat(first), last=date.fromisoformat(last))
    yesterday = today(now()) - timedelta(days=1)
    return DayRange(first=yesterday, last=yesterday)


def _result(key: dg.AssetCheckKey, rows: Sequence[dict[str, object]]) -> dg.AssetCheckResult:
    """Return what a check says of the days of a run: its worst finding, with the figures that are plotted."""
    faults = [row for row in rows if row["severity"]]
    standing = [row for row in faults if row["is_blocking"]]
    worst = [*standing, *faults, *reversed(rows)][0] if rows else {}
    figures = {name: worst[name] for name in ("value", "expected") if worst.get(name) is not None}
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=not faults,
        severity=dg.AssetCheckSeverity.ERROR if standing else dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{row['partition_on']}: {row['explanation']}" for row in faults[:5]) or None,
        metadata={
            **figures,
            "n_faults": len(faults),
            "n_held": len(standing),
            "released_by": ", ".join(sorted({str(row["released_by"]) for row in faults} - {""})),
            "table": DATA_QUALITY,
        },
    )
