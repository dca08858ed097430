"""Stage models: what each feature view adds and what it costs, when a person asks for it."""

from collections.abc import Iterator, Mapping

import dagster as dg
from pydantic import Field

from ml_assets.backends.environments import Environment
from ml_assets.calendar import as_of_day
from ml_assets.core import training_sets
from ml_assets.core.ablation import ablate
from ml_assets.core.ablation_records import Ablation, save_ablation
from ml_assets.core.candidates import candidate_of
from ml_assets.core.errors import DataMissing
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.ports import ArtifactStore, DayRange, Warehouse
from ml_assets.core.reports import ablation_report, chart_markdown, insight_charts
from ml_assets.core.spec import UseCase
from ml_assets.core.view_costs import view_costs
from ml_assets.on_request import asset_on_request, folder_for_work, job_on_request
from ml_assets.resources import feature_views_of, link_to, seconds_per_day
from ml_assets.use_cases import load_use_cases

# Judgement: enough to rank the views; 14 models of arrival_delay, three times each, take about two minutes.
_N_SEEDS = 3
_FORM = {"n_train_rows": 30_000, "n_seeds": _N_SEEDS}
_JOB = "Freeze a training set, train without each feature view: what each adds, what it costs."


class AblationConfig(dg.Config):
    """The form of an ablation."""

    n_train_rows: int = Field(
        0,
        ge=0,
        description="Training rows of each model, at most, chosen by hash. 0, as in a run of the whole graph: nothing.",
    )
    n_seeds: int = Field(_N_SEEDS, ge=2, description="Trainings of each variant; more tell smaller differences.")


@dg.definitions
def defs() -> dg.Definitions:
    """An ablation asset and the job that launches it, per use case."""
    views = feature_views_of(Environment.current())
    use_cases = load_use_cases()
    jobs = [job_on_request(u, "ablation", _FORM, after=["training_set"], description=_JOB) for u in use_cases]
    return dg.Definitions(assets=[_ablation(u, views) for u in use_cases], jobs=jobs)


def _ablation(use_case: UseCase, declared: dict[str, FeatureView]) -> dg.AssetsDefinition:
    views, inputs = use_case.views(declared), use_case.inputs(declared)

    @dg.asset(
        **asset_on_request(use_case, "ablation"),
        description=(
            "What each feature view adds on the validation days of this as-of date, with its noise, and what it costs. "
            "Launch the ablation job; without n_train_rows it does nothing. It holds the warehouse while it trains."
        ),
        deps=[use_case.key("training_set")],
        pool="warehouse",
        kinds={"onnx"},
    )
    def _compare(
        context: dg.AssetExecutionContext,
        config: AblationConfig,
        store: dg.ResourceParam[ArtifactStore],
        warehouse: dg.ResourceParam[Warehouse],
    ) -> Iterator[dg.MaterializeResult]:
        if config.n_train_rows == 0:
            context.log.info(f"no rows asked for: launch {use_case.name}_ablation, or set n_train_rows")
            return
        as_of = as_of_day(context)
        fingerprint = training_sets.training_set_of(store, use_case.name, as_of)
        training_set = training_sets.load_training_set(store, use_case.name, fingerprint)
        validated = training_set.days.validation
        costs = view_costs(
            warehouse,
            views,
            use_case=use_case,
            days=DayRange(first=validated[0], last=validated[-1]),
            examples=training_set.validation,
            seconds_per_day=seconds_per_day(context.instance, views),
        )
        with folder_for_work() as folder:
            ablation = ablate(
                training_set,
                use_case=use_case,
                inputs=inputs,
                n_train_rows=config.n_train_rows,
                n_seeds=config.n_seeds,
                on_step=lambda what, number, n: context.log.info(f"{what} ({number} of {n})"),
                work_folder=folder,
            )
        path = save_ablation(store, ablation)
        page = f"reports/{use_case.name}/ablation-{as_of}.html"
        links = _candidate_link(store, use_case, ablation)
        loss = "log loss" if use_case.task == "binary_classification" else "mean squared error"
        report = ablation_report(ablation, costs, question=use_case.question, loss=loss, links=links)
        store.put(page, report.encode())
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(f"{fingerprint[:12]}-{config.n_train_rows}-{config.n_seeds}"),
            metadata={
                **_facts(ablation),
                "report": link_to(store, page),
                "dagster/uri": store.address(path),
            },
        )

    return _compare


def _facts(ablation: Ablation) -> dict[str, object]:
    chart = chart_markdown(insight_charts.view_gains(ablation.views), name="gain of each feature view")
    verdicts = {gain.view: gain.verdict for gain in ablation.views}
    return {
        "n_train": ablation.n_train,
        "validation_loss": ablation.full_loss,
        "seed_noise": ablation.seed_noise,
        "n_helping": list(verdicts.values()).count("helps"),
        "n_hurting": list(verdicts.values()).count("hurts"),
        "gains": dg.MetadataValue.md(chart),
    }


def _candidate_link(store: ArtifactStore, use_case: UseCase, ablation: Ablation) -> Mapping[str, str]:
    """Return the link to the report on the candidate of this as-of date, if one was trained."""
    try:
        version = candidate_of(store, use_case.name, ablation.as_of)
    except DataMissing:
        return {}
    return {f"the candidate {version}": f"./candidate-{version}.html"}
