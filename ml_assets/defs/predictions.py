"""Stage predictions: the champion of the day scores the day's decisions, in batches through ONNX Runtime."""

from collections.abc import Iterator
from datetime import date
from itertools import groupby

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, days_of, now, today
from ml_assets.core import registry
from ml_assets.core.package import load_package
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, DayRange, Warehouse
from ml_assets.core.scoring import PREDICTIONS_SCHEMA, keep_confirmed, prediction_rows, score
from ml_assets.core.spec import UseCase
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    return dg.Definitions(assets=[_predictions(use_case) for use_case in load_use_cases()])


def _predictions(use_case: UseCase) -> dg.AssetsDefinition:
    key, table = use_case.key("predictions"), use_case.predictions_table

    @dg.asset(
        key=key,
        description="One row per decision of one local day: what the champion of that day predicts.",
        group_name="predictions",
        deps=[
            use_case.key("examples"),
            # Who is in charge on a day is who was promoted last, on that day or before; four weeks of it are shown.
            dg.AssetDep(
                use_case.key("champion"),
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=-27, end_offset=0, allow_nonexistent_upstream_partitions=True
                ),
            ),
        ],
        partitions_def=DAILY,
        # Nothing is made of a day that was decided before the first champion took charge: what follows is skipped.
        output_required=False,
        backfill_policy=ONE_RUN,
        freshness_policy=DAILY_FRESHNESS,
        pool="warehouse",
        owners=list(use_case.owners),
        kinds={"onnx", Environment.current().warehouse},
        tags={"cadence": "daily", "use_case": use_case.name},
        metadata={"dagster/table_name": table},
        check_specs=[
            dg.AssetCheckSpec(
                "every_decision_scored", asset=key, blocking=True, description="As many predictions as examples."
            )
        ],
    )
    def _score(
        context: dg.AssetExecutionContext,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        days = days_of(context)
        examples = _of_days(warehouse, use_case.examples_table, days)
        too_early = days_before_the_first_champion(examples, use_case=use_case, store=store)
        if too_early:
            words = (
                f"{', '.join(map(str, too_early))}: decided before the first champion of {use_case.name} took charge"
            )
            context.log.warning(words)
            examples = examples.filter(pc.invert(pc.field("partition_on").isin(pa.array(too_early, pa.date32()))))
            if not examples.num_rows:
                yield dg.AssetCheckResult(check_name="every_decision_scored", passed=True, description=words)
                return
        parts = [
            prediction_rows(rows, scores, model_version=version, run_id=context.run.run_id, predicted_at=now())
            for version, rows, scores in score_days(examples, use_case=use_case, store=store)
        ]
        rows = pa.concat_tables(parts) if parts else PREDICTIONS_SCHEMA.empty_table()
        existing = _of_days(warehouse, table, days) if warehouse.columns(table) else PREDICTIONS_SCHEMA.empty_table()
        rows = keep_confirmed(rows, existing)
        warehouse.replace_days({table: rows}, days)
        for day in days.dates:
            of_day = rows.filter(pc.field("partition_on") == pa.scalar(day))
            facts: dict[str, object] = {"dagster/partition_row_count": of_day.num_rows}
            if of_day.num_rows:
                facts |= {
                    "mean_prediction": pc.mean(of_day["prediction"]).as_py(),
                    "model_version": of_day["model_version"][0].as_py(),
                }
            context.add_asset_metadata(facts, partition_key=day.isoformat())
        yield dg.MaterializeResult(
            metadata={"n_rows": rows.num_rows, "n_confirmed": _n_of_other_runs(rows, context.run.run_id)},
            check_results=[_every_decision_scored(examples, _of_days(warehouse, table, days))],
        )

    return _score


def days_before_the_first_champion(examples: pa.Table, *, use_case: UseCase, store: ArtifactStore) -> list[date]:
    """Return the local days that have a champion by now, and had none yet when their decisions were taken."""
    ledger = registry.entries(store, use_case.name)
    return [
        day
        for day, decided_on in _decided_on(examples)
        if registry.in_charge(ledger, day) and not registry.in_charge(ledger, decided_on)
    ]


def score_days(
    examples: pa.Table, *, use_case: UseCase, store: ArtifactStore
) -> Iterator[tuple[str, pa.Table, object]]:
    """Yield version, examples and scores for each stretch of days with the same model.

    A day has the champion of the local day on which its first decision is taken: where decisions are taken a day ahead,
    the champion of the day itself has been trained on what came true since.
    """
    ledger = registry.entries(store, use_case.name)
    champions = [
        (day, registry.required(ledger, use_case.name, decided_on)) for day, decided_on in _decided_on(examples)
    ]
    for (version, package_hash), stretch in groupby(
        champions, key=lambda pair: (pair[1].version, pair[1].package_hash)
    ):
        dates = [day for day, _ in stretch]
        rows = examples.filter(pc.field("partition_on").isin(pa.array(dates, pa.date32())))
        package = load_package(store, use_case.name, version, expected_hash=package_hash)
        yield version, rows, score(package, rows)


def _decided_on(examples: pa.Table) -> list[tuple[date, date]]:
    """Return each local day with the local day on which the first of its decisions is taken, in order."""
    firsts = examples.group_by("partition_on").aggregate([("decided_at", "min")]).sort_by("partition_on").to_pylist()
    return [(row["partition_on"], today(row["decided_at_min"])) for row in firsts]


def _of_days(warehouse: Warehouse, table: str, days: DayRange) -> pa.Table:
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = f"select * from {table} where {of_days} order by partition_on, decision_id"  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last})


def _every_decision_scored(examples: pa.Table, stored: pa.Table) -> dg.AssetCheckResult:
    """Hold what the table now says of the days against the decisions there are."""
    wanted, found = (set(rows["decision_id"].to_pylist()) for rows in (examples, stored))
    return dg.AssetCheckResult(
        passed=wanted == found and stored.num_rows == examples.num_rows,
        metadata={
            "n_examples": examples.num_rows,
            "n_predictions": stored.num_rows,
            "not_scored": ", ".join(sorted(wanted - found)[:10]),
            "not_decided": ", ".join(sorted(found - wanted)[:10]),
        },
    )


def _n_of_other_runs(rows: pa.Table, run_id: str) -> int:
    return int(pc.sum(pc.not_equal(rows["run_id"], run_id)).as_py() or 0)
