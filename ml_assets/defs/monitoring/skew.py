"""Stage monitoring: whether the models read what the feature tables give for the same decisions."""

from collections.abc import Mapping

import dagster as dg
import pyarrow.compute as pc

from ml_assets.backends.environments import Environment
from ml_assets.calendar import days_of
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.monitored import SKEW, by_day
from ml_assets.core.ports import Warehouse
from ml_assets.core.skew import write_skew
from ml_assets.core.spec import UseCase
from ml_assets.resources import feature_views_of, monitoring_asset, warning
from ml_assets.use_cases import load_use_cases


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    views = feature_views_of(Environment.current())
    return dg.Definitions(assets=[_skew(use_case, views) for use_case in load_use_cases()])


def _skew(use_case: UseCase, declared: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    key, views = use_case.key("skew"), use_case.views(declared)

    @dg.asset(
        key=key,
        description="One row per feature view and day, and one per feature that the models read otherwise than the "
        "tables give it now: of 200 decisions of the day, and of 200 a week before.",
        deps=[use_case.key("predictions")],
        check_specs=[
            dg.AssetCheckSpec(
                "served_as_recomputed", asset=key, description="The models read what the feature tables give now."
            )
        ],
        **monitoring_asset(use_case, table=SKEW),
    )
    def _compare(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        days = days_of(context)
        rows = write_skew(warehouse, use_case, days, views=views)
        of_views = rows.filter(pc.field("feature") == "")
        reasons: dict[str, None] = {}
        for day, found in by_day(of_views, days):
            different = found.filter(pc.field("n_different") > 0)
            reasons |= dict.fromkeys(different["explanation"].to_pylist())
            facts = {
                "n_compared": found["n_compared"][0].as_py(),
                "n_views_with_skew": different.num_rows,
                "views_with_skew": ", ".join(different["view"].to_pylist()),
            }
            context.add_asset_metadata(facts, partition_key=day.isoformat())
        return dg.MaterializeResult(
            metadata={"n_rows": rows.num_rows}, check_results=[warning(not reasons, tuple(reasons))]
        )

    return _compare
