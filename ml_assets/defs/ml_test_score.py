"""Stage readiness: the ML Test Score of each use case, once a week or when a person asks for it."""

import doctest
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from ml_assets.backends.environments import Environment
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.calendar import DAILY, FIRST_DAY, LOCAL_ZONE, ONE_RUN, days_of, today
from ml_assets.core.errors import BadInput, InvalidDeclaration
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.ml_test_score.score import (
    TABLE,
    MlTestScore,
    lost,
    lost_when_last_scored,
    points_before,
    write_score,
)
from ml_assets.core.ml_test_score.subject import Bench, Subject
from ml_assets.core.ports import ArtifactStore, Source, Warehouse
from ml_assets.core.provenance import Lineage
from ml_assets.core.reports import ml_test_score_report, score_markdown, write_index
from ml_assets.core.reproduction import Reproduction, examples_in, reproduce
from ml_assets.core.spec import UseCase
from ml_assets.on_request import folder_for_work
from ml_assets.resources import dbt_of, feature_views_of, link_to, seconds_per_day, source_of, warning
from ml_assets.use_cases import code_version_of, load_use_cases


class ScoreConfig(dg.Config):
    """The form of a scoring."""

    is_asked: bool = Field(
        False,
        description="Carry out the tests: trains the champion once more. False, as in a run of the whole graph: no.",
    )


@dg.definitions
def defs() -> dg.Definitions:
    """An asset and a job per use case, and the schedule that scores all of them every week."""
    views, use_cases = feature_views_of(Environment.current()), load_use_cases()
    every_use_case = _job("ml_test_scores", use_cases, "The ML Test Score of every use case.")
    return dg.Definitions(
        assets=[_score(use_case, views) for use_case in use_cases],
        jobs=[
            every_use_case,
            *(
                _job(f"{u.name}_ml_test_score", [u], "The 28 tests of the ML Test Score, carried out.")
                for u in use_cases
            ),
        ],
        schedules=[_every_week(every_use_case)],
    )


def _job(name: str, use_cases: Sequence[UseCase], description: str) -> UnresolvedAssetJobDefinition:
    keys = [dg.AssetKey(use_case.key("ml_test_score")) for use_case in use_cases]
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*keys),
        config={"ops": {key.to_python_identifier(): {"config": {"is_asked": True}} for key in keys}},
        description=description,
    )


def _every_week(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="every_week",
        job=job,
        cron_schedule="30 8 * * 1",
        execution_timezone=str(LOCAL_ZONE),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every Monday, two hours after the daily run: the ML Test Score of the day before.",
    )
    def _ask(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        yesterday = today(context.scheduled_execution_time) - timedelta(days=1)
        if yesterday < FIRST_DAY:
            return dg.SkipReason(f"{yesterday} is before the first day, {FIRST_DAY}")
        return dg.RunRequest(run_key=f"ml_test_scores:{yesterday}", partition_key=yesterday.isoformat())

    return _ask


def _score(use_case: UseCase, declared: Mapping[str, FeatureView]) -> dg.AssetsDefinition:
    views, key = use_case.views(declared), use_case.key("ml_test_score")

    @dg.asset(
        key=key,
        description=(
            "28 rows, one for each test of the ML Test Score (Breck et al. 2017): its points and the evidence. "
            "Launch its job; in a run of the whole graph it does nothing. It trains the champion once more."
        ),
        group_name="readiness",
        deps=[use_case.key(stage) for stage in ("champion", "performance", "skew", "alarms", "retraining")],
        partitions_def=DAILY,
        # Downstream of daily assets it is selected with them for a stretch of days, and then does nothing in one run.
        backfill_policy=ONE_RUN,
        output_required=False,
        pool="warehouse",
        owners=list(use_case.owners),
        kinds={"python", Environment.current().warehouse},
        tags={"cadence": "on_request", "use_case": use_case.name},
        metadata={"dagster/table_name": TABLE},
        check_specs=[
            dg.AssetCheckSpec("no_point_lost", asset=key, description="No test has fewer points than the last time.")
        ],
    )
    def _carry_out(
        context: dg.AssetExecutionContext,
        config: ScoreConfig,
        source: dg.ResourceParam[Source],
        warehouse: dg.ResourceParam[Warehouse],
        store: dg.ResourceParam[ArtifactStore],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        if not config.is_asked:
            nothing = f"not asked for, nothing was carried out: launch {use_case.name}_ml_test_score, or set is_asked"
            context.log.info(nothing)
            # Dagster wants a result of the check from every run of this step: what it last found still stands.
            worse = lost_when_last_scored(warehouse, use_case, days_of(context).last)
            yield warning(not worse, (*worse, nothing))
            return
        days = days_of(context)
        if days.first != days.last:
            raise BadInput(f"the score is that of one day, and {days} were asked for: launch the job for one of them")
        day = days.last
        before = points_before(warehouse, use_case, day)
        with _bench(context, use_case, warehouse, store) as bench:
            subject = Subject(
                warehouse=warehouse,
                store=store,
                use_case=use_case,
                day=day,
                views=views,
                contracts=source.contracts,
                bench=bench,
            )
            score = write_score(subject)
        page = f"reports/{use_case.name}/ml-test-score-{day}.html"
        links = {
            "The report of the day": f"./{day}.html",
            "Overview of the weeks": "./overview.html",
            "All use cases": "../index.html",
        }
        report = ml_test_score_report(score, question=use_case.question, before=before, links=links)
        store.put(page, report.encode())
        write_index(warehouse, store)
        yield dg.MaterializeResult(
            metadata={**_facts(score), "report": link_to(store, page)},
            check_results=[_no_point_lost(score, before)],
        )

    return _carry_out


@contextmanager
def _bench(
    context: dg.AssetExecutionContext, use_case: UseCase, warehouse: Warehouse, store: ArtifactStore
) -> Iterator[Bench]:
    """Return what the checks carry out anew, in a folder that is gone afterwards."""
    environment = Environment.current()
    with folder_for_work() as folder:

        def rebuilt(of: str) -> Reproduction:
            context.log.info(f"rebuilding {of} from its record")
            return reproduce(
                store,
                of,
                use_case=use_case,
                read_examples=examples_in(warehouse),
                scratch=ObjectArtifactStore((folder / "artifacts").as_uri()),
                code_version=code_version_of(use_case),
                work_folder=folder,
            )

        yield Bench(
            reproduce=rebuilt,
            test_features=lambda: {**dbt_of(environment).run_examples(), **examples_of_python_features()},
            seconds_per_day=seconds_per_day(context.instance, use_case.views(feature_views_of(environment))),
            libraries=installed_version,
            lineage=_lineage(environment),
            work_folder=folder,
        )


def _lineage(environment: Environment) -> Lineage:
    """Return what the tables of features are made of: those of dbt by its project, those of Python by their yml."""
    dbt, contracts = dbt_of(environment), source_of(environment).contracts.values()
    return Lineage(
        parents={**dbt.parents, **{feature.table: feature.made_from for feature in python_features()}},
        columns=dbt.kept_column_lineage,
        keys={f"raw.{contract.table}": contract.key for contract in contracts if contract.is_partitioned},
    )


@dataclass(frozen=True, kw_only=True)
class PythonFeature:
    """A feature table that Python makes: the tables it is made from, and the module of core that computes it."""

    table: str
    made_from: Sequence[str]
    computed_in: str


def python_features() -> Sequence[PythonFeature]:
    """Return what the yml beside each Python feature says of it; raise InvalidDeclaration where it does not say it."""
    paths = sorted((Path(__file__).parent / "features").glob("*.yml"))
    return [
        _python_feature(path, model) for path in paths for model in yaml.safe_load(path.read_text()).get("models", [])
    ]


def _python_feature(path: Path, model: Mapping[str, Any]) -> PythonFeature:
    said = model.get("config", {}).get("meta", {})
    lacking = {"made_from", "computed_in"} - said.keys()
    if lacking:
        raise InvalidDeclaration(
            f"{path.name} does not say {', '.join(sorted(lacking))} of {model['name']} (config.meta)"
        )
    return PythonFeature(
        table=f"features.{model['name']}", made_from=said["made_from"], computed_in=said["computed_in"]
    )


def examples_of_python_features() -> Mapping[str, Mapping[str, str]]:
    """Run the examples in the docstrings of what computes each Python feature: table -> function -> ``pass`` or not."""
    found: dict[str, dict[str, str]] = {}
    for feature in python_features():
        for example in doctest.DocTestFinder().find(importlib.import_module(feature.computed_in)):
            told: list[str] = []
            n_failed = doctest.DocTestRunner(verbose=False).run(example, out=told.append).failed
            if example.examples:
                said = " ".join("".join(told).split())
                found.setdefault(feature.table, {})[example.name] = said if n_failed else "pass"
    return found


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution, None for one that is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _facts(score: MlTestScore) -> dict[str, object]:
    return {
        "score": score.score,
        "readiness": score.readiness,
        **{f"points_{section}": total for section, total in score.sums.items()},
        "n_automated": sum(result.finding.outcome == "automated" for result in score.results),
        "n_manual": sum(result.finding.outcome == "manual" for result in score.results),
        "tests": dg.MetadataValue.md(score_markdown(score)),
    }


def _no_point_lost(score: MlTestScore, before: Mapping[str, float]) -> dg.AssetCheckResult:
    worse = lost(score, before)
    return warning(not worse, tuple(f"{one.test.name}: {one.finding.evidence}" for one in worse))
