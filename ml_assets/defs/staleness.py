"""Stage models: what the age of a model costs, when a person asks for it, and whether its use case heeds it."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from ml_assets.backends.environments import Environment
from ml_assets.calendar import as_of_day, day_starts_at
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.labelled_examples import examples_parameters, examples_sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.reports import chart_markdown
from ml_assets.core.reports.staleness import staleness_chart, staleness_report
from ml_assets.core.retraining import judge_declared_age
from ml_assets.core.spec import UseCase
from ml_assets.core.staleness import measure_staleness
from ml_assets.core.staleness_curves import StalenessCurve, newest_curve, save_curve
from ml_assets.on_request import asset_on_request, folder_for_work, job_on_request
from ml_assets.resources import feature_views_of, link_to
from ml_assets.use_cases import code_version_of, load_use_cases

# Judgement: what the first models of a year have; 30 models of a network on so many rows take about two minutes.
_FORM = {"n_train_rows": 30_000}
_JOB = "Backtest models of 1 to 16 weeks of age on the days before this date: what does age cost?"


class StalenessConfig(dg.Config):
    """The form of a staleness measurement."""

    n_train_rows: int = Field(
        0,
        ge=0,
        description="Training rows of each model, at most, chosen by hash. 0, as in a run of the whole graph: nothing.",
    )


@dg.definitions
def defs() -> dg.Definitions:
    """A staleness asset, its check and the job that launches both, per use case."""
    views = feature_views_of(Environment.current())
    use_cases = load_use_cases()
    return dg.Definitions(
        assets=[_staleness(use_case, views) for use_case in use_cases],
        asset_checks=[_declared_age(use_case) for use_case in use_cases],
        jobs=[job_on_request(use_case, "staleness", _FORM, description=_JOB) for use_case in use_cases],
    )


def _staleness(use_case: UseCase, declared: dict[str, FeatureView]) -> dg.AssetsDefinition:
    inputs = use_case.inputs(declared)

    @dg.asset(
        **asset_on_request(use_case, "staleness"),
        description=(
            "How much quality models of 1, 2, 4, 8 and 16 weeks lose, backtested on the days before this as-of date. "
            "Launch the staleness job; without n_train_rows it does nothing. It holds the warehouse while it trains."
        ),
        deps=[
            dg.AssetDep(
                use_case.key("examples"),
                partition_mapping=dg.TimeWindowPartitionMapping(
                    start_offset=-use_case.split.days_back,
                    end_offset=-1 - use_case.split.gap_days,
                    allow_nonexistent_upstream_partitions=True,
                ),
            )
        ],
        pool="warehouse",
        kinds={"onnx"},
    )
    def _measure(
        context: dg.AssetExecutionContext,
        config: StalenessConfig,
        store: dg.ResourceParam[ArtifactStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[dg.MaterializeResult]:
        if config.n_train_rows == 0:
            context.log.info(f"no rows asked for: launch {use_case.name}_staleness, or set n_train_rows")
            return
        as_of = as_of_day(context)
        examples = warehouse.query(
            examples_sql(use_case, inputs, warehouse.dialect),
            examples_parameters(use_case, as_of, day_starts_at(as_of)),
        )
        with folder_for_work() as folder:
            curve = measure_staleness(
                examples,
                use_case=use_case,
                inputs=inputs,
                as_of=as_of,
                starts_at=day_starts_at,
                n_train_rows=config.n_train_rows,
                code_version=code_version_of(use_case),
                store=store,
                on_step=lambda what, number, n: context.log.info(f"{what} ({number} of {n})"),
                work_folder=folder,
            )
        path = save_curve(store, curve)
        page = f"reports/{use_case.name}/staleness-{as_of}.html"
        store.put(page, staleness_report(curve, use_case.retraining, question=use_case.question).encode())
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(curve.fingerprint),
            metadata={
                **_facts(curve, use_case),
                "report": link_to(store, page),
                "dagster/uri": store.address(path),
            },
        )

    return _measure


def _declared_age(use_case: UseCase) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=use_case.key("staleness"),
        name="declared_age_holds",
        description="The use case declares no greater age of its champion than the newest staleness curve supports.",
    )
    def _check(store: dg.ResourceParam[ArtifactStore]) -> dg.AssetCheckResult:
        verdict = judge_declared_age(newest_curve(store, use_case.name), use_case.retraining)
        return dg.AssetCheckResult(
            passed=not verdict.is_alarming,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(verdict.reasons),
        )

    return _check


def _facts(curve: StalenessCurve, use_case: UseCase) -> dict[str, object]:
    rule = use_case.retraining
    chart = staleness_chart(curve, rule)
    return {
        **{f"cost_at_{age.weeks}_weeks": age.fitted for age in curve.ages},
        "useful_days": curve.useful_days(rule.staleness_tolerance),
        "maximum_age_days": rule.maximum_age_days,
        "n_models": curve.n_models,
        "curve": dg.MetadataValue.md(chart_markdown(chart, name="what the age of a model costs")),
    }
