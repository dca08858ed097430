"""Stage training set: the labelled examples known before the as-of date, frozen under a fingerprint."""

import dagster as dg
from pydantic import Field

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, as_of_day
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.promoting import freeze_known
from ml_assets.core.spec import UseCase
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import code_version_of, load_use_cases


class TrainingSetConfig(dg.Config):
    """What a person may set when launching a training set from the UI."""

    sample_fraction: float = Field(1.0, gt=0, le=1, description="Share of the decisions, chosen by hash; 1 is all.")


@dg.definitions
def defs() -> dg.Definitions:
    """One asset per use case."""
    views = feature_views_of(Environment.current())
    return dg.Definitions(assets=[_training_set(use_case, views) for use_case in load_use_cases()])


def _training_set(use_case: UseCase, declared: dict[str, FeatureView]) -> dg.AssetsDefinition:
    inputs = use_case.inputs(declared)
    split = use_case.split

    @dg.asset(
        key=use_case.key("training_set"),
        description=f"The examples that one training of {use_case.name} uses: everything known before the as-of date.",
        group_name="training_sets",
        deps=[
            dg.AssetDep(
                use_case.key("examples"),
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=-split.days_back,
                    end_offset=-1 - split.gap_days,
                    allow_nonexistent_upstream_partitions=True,
                ),
            )
        ],
        partitions_def=DAILY,
        pool="warehouse",
        owners=list(use_case.owners),
        kinds={"arrow"},
        tags={"cadence": "on_training", "use_case": use_case.name},
    )
    def _freeze(
        context: dg.AssetExecutionContext,
        config: TrainingSetConfig,
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> dg.MaterializeResult:
        as_of = as_of_day(context)
        frozen = freeze_known(
            warehouse,
            store,
            use_case,
            as_of,
            inputs=inputs,
            code_version=code_version_of(use_case),
            sample_fraction=config.sample_fraction,
        )
        days = frozen.days
        return dg.MaterializeResult(
            data_version=dg.DataVersion(frozen.fingerprint),
            metadata={
                **{f"n_{part}": n_rows for part, n_rows in frozen.counts.items()},
                "n_bytes": sum(frozen.file_sizes.values()),
                "train_days": f"{days.train[0]} to {days.train[-1]}",
                "validation_days": f"{days.validation[0]} to {days.validation[-1]}",
                "test_days": f"{days.test[0]} to {days.test[-1]}",
                "days_since_newest_example": (as_of - days.test[-1]).days,
                "fingerprint": frozen.fingerprint,
                "dagster/uri": store.address(f"training_sets/{use_case.name}/{frozen.fingerprint}/manifest.json"),
            },
        )

    return _freeze
