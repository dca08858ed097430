"""Stage predictions: the champion of the day scores the day's decisions, in batches through ONNX Runtime."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, days_of, now
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.scoring_days import rows_of_days, write_predictions
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
        written = write_predictions(warehouse, store, use_case, days, run_id=context.run.run_id, predicted_at=now())
        if written.too_early:
            early = ", ".join(map(str, written.too_early))
            words = f"{early}: decided before the first champion of {use_case.name} took charge"
            context.log.warning(words)
            if written.is_nobodys:
                yield dg.AssetCheckResult(check_name="every_decision_scored", passed=True, description=words)
                return
        for shadow in written.skipped:
            context.log.warning(f"no shadow scores of {shadow.model_version} ({shadow.role}): {shadow.reason}")
        rows = written.rows
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
            metadata={
                "n_rows": rows.num_rows,
                "n_confirmed": _n_of_other_runs(rows, context.run.run_id),
                "shadows_skipped": "; ".join(f"{shadow.role}: {shadow.reason}" for shadow in written.skipped) or "none",
            },
            check_results=[_every_decision_scored(written.examples, rows_of_days(warehouse, table, days))],
        )

    return _score


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
