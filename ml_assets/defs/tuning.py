"""Stage models: the search for better hyperparameters, launched when a person asks for it."""

import time
from collections.abc import Iterator
from enum import Enum

import dagster as dg
from pydantic import Field

from ml_assets.backends.environments import Environment
from ml_assets.calendar import as_of_day, now
from ml_assets.core import training_sets
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.experiments import ExperimentLog
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.ports import ArtifactStore, Tracker
from ml_assets.core.reports import chart_markdown, training_charts
from ml_assets.core.spec import UseCase
from ml_assets.core.studies import SearchSettings, Studies, TrialRecord
from ml_assets.core.tasks import meaning_of
from ml_assets.core.tracked_search import tracked_search
from ml_assets.core.tuned_parameters import save_tuned_parameters
from ml_assets.core.tuning import Budget, TuningOutcome, tune
from ml_assets.on_request import asset_on_request, folder_for_work, job_on_request
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import code_version_of, load_use_cases

_FORM = {"n_trials": 20, "minutes": 30.0, "sampler": "tpe"}
_JOB = "Freeze a training set as of one day and search better hyperparameters on it, within a budget."


class Sampler(Enum):
    """What draws the parameters of a trial."""

    tpe = "tpe"
    gp = "gp"
    random = "random"


class TuningConfig(dg.Config):
    """The form of a search. What is searched is the use case's search space."""

    n_trials: int = Field(
        0,
        ge=0,
        description="Trials of the whole study, earlier runs included. 0, as in a run of the whole graph: none.",
    )
    minutes: float = Field(30.0, gt=0, description="No trial starts later than this after the run's start.")
    sampler: Sampler = Field(Sampler.tpe, description="tpe learns from dozens of trials, gp from fewer, random never.")
    is_pruning: bool = Field(True, description="Stop a trial that is behind three of four others after as many epochs.")
    seed: int = Field(0, ge=0, description="Of the sampler.")


@dg.definitions
def defs() -> dg.Definitions:
    """A tuning asset and the job that launches it, per use case."""
    views = feature_views_of(Environment.current())
    use_cases = load_use_cases()
    jobs = [job_on_request(u, "tuning", _FORM, after=["training_set"], description=_JOB) for u in use_cases]
    return dg.Definitions(assets=[_tuning(u, views) for u in use_cases], jobs=jobs)


def _tuning(use_case: UseCase, declared: dict[str, FeatureView]) -> dg.AssetsDefinition:
    inputs = use_case.inputs(declared)

    @dg.asset(
        **asset_on_request(use_case, "tuning"),
        description=(
            "The best hyperparameters of a study on train and validation of this as-of date. Launch the tuning job, "
            "again to go on, or several times at once to share the work; without n_trials it does nothing."
        ),
        deps=[use_case.key("training_set")],
        kinds={"optuna"},
    )
    def _search(
        context: dg.AssetExecutionContext,
        config: TuningConfig,
        store: dg.ResourceParam[ArtifactStore],
        studies: dg.ResourceParam[Studies],
        tracker: dg.ResourceParam[Tracker],
    ) -> Iterator[dg.MaterializeResult]:
        if config.n_trials == 0:
            context.log.info(f"no trials asked for: launch {use_case.name}_tuning, or set n_trials")
            return
        fingerprint = training_sets.training_set_of(store, use_case.name, as_of_day(context))
        training_set = training_sets.load_training_set(store, use_case.name, fingerprint)
        run_id = context.run.run_id
        log = ExperimentLog(store=store, now=now, recorded_by="dagster", run_id=run_id)

        with tracked_search(training_set, use_case, code_version_of(use_case), log, tracker) as search:

            def on_trial(trial: TrialRecord, n_taken: int) -> None:
                loss = f"{trial.loss:.4f}" if trial.loss is not None else trial.reason or "-"
                context.log.info(f"trial {trial.number} {trial.state}: {loss} ({n_taken} of {config.n_trials} taken)")
                search.on_trial(trial)

            kept = Environment.current().records_folder
            with folder_for_work() as folder:
                outcome = tune(
                    training_set,
                    use_case=use_case,
                    inputs=inputs,
                    studies=studies,
                    budget=Budget(n_trials=config.n_trials, seconds=60 * config.minutes),
                    settings=SearchSettings(
                        sampler=config.sampler.value, is_pruning=config.is_pruning, seed=config.seed
                    ),
                    seconds_now=time.monotonic,
                    on_trial=on_trial,
                    work_folder=folder,
                    records=RecordsFolder(kept=kept, work=folder),
                )
            search.found(outcome)
        path = save_tuned_parameters(store, outcome.tuned)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(f"{outcome.tuned.study}-{outcome.tuned.loss}"),
            metadata={**_facts(outcome, use_case), "dagster/uri": store.address(path)},
        )

    return _search


def _facts(outcome: TuningOutcome, use_case: UseCase) -> dict[str, object]:
    tuned = outcome.tuned
    loss_title = f"{meaning_of(use_case.task).loss_title(use_case.label.unit)} on validation"
    history = training_charts.optimisation_history(tuned.trials, default_loss=tuned.default_loss, y_title=loss_title)
    facts: dict[str, object] = {
        "best_parameters": dg.MetadataValue.json(dict(tuned.parameters)),
        "validation_loss": tuned.loss,
        "beats_defaults": tuned.beats_defaults,
        **{f"n_{state}": outcome.n_trials(state) for state in ("complete", "pruned", "failed", "abandoned")},
        "n_trials_of_this_run": outcome.n_own,
        "study": tuned.study,
        "study_address": outcome.address,
        "optimisation_history": dg.MetadataValue.md(chart_markdown(history, name="validation loss by trial")),
    }
    if tuned.default_loss is not None:
        facts["default_validation_loss"] = tuned.default_loss
    if outcome.importances:
        picture = chart_markdown(
            training_charts.parameter_importance(outcome.importances), name="importance of each parameter"
        )
        facts["parameter_importance"] = dg.MetadataValue.md(picture)
    return facts
