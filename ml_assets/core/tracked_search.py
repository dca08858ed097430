"""A search as the log of experiments and the tracker see it: one attempt, one run with a step for each trial."""

from collections.abc import Generator
from contextlib import contextmanager

from ml_assets.core.experiments import ExperimentLog
from ml_assets.core.package import Recipe
from ml_assets.core.ports import TrackedRun, Tracker
from ml_assets.core.spec import UseCase
from ml_assets.core.studies import TrialRecord
from ml_assets.core.tracked_artifacts import tracked_training_set
from ml_assets.core.trainers import name_of, trainer_named
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.tuning import TuningOutcome, study_name


class TrackedSearch:
    """Passes on what a search says of itself. ``summary`` is empty until it has found something."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self.summary: dict[str, float] = {}

    def on_trial(self, trial: TrialRecord) -> None:
        """Log a trial that has ended, with its numbers; a step is the number of a trial."""
        figures = {name: float(value) for name, value in trial.parameters.items() if not isinstance(value, str)}
        if trial.loss is not None:
            figures["validation_loss"] = trial.loss
        self._run.log({**figures, "n_epochs": float(trial.n_epochs)}, step=trial.number)

    def found(self, outcome: TuningOutcome) -> None:
        """Keep what the search came to."""
        default = {} if outcome.tuned.default_loss is None else {"default_validation_loss": outcome.tuned.default_loss}
        self.summary = {"validation_loss": outcome.tuned.loss, "n_own_trials": float(outcome.n_own), **default}


@contextmanager
def tracked_search(
    training_set: TrainingSet, use_case: UseCase, code_version: str, log: ExperimentLog, tracker: Tracker
) -> Generator[TrackedSearch]:
    """Record that a search begins, and how it ends; what it raises is recorded and raised on."""
    recipe = Recipe(
        use_case=use_case.name,
        training_set=training_set.fingerprint,
        trainer=name_of(use_case.trainer),
        hyperparameters=trainer_named(use_case.trainer).resolve(use_case.hyperparameters),
        seed=use_case.seed,
        code_version=code_version,
        parent_version=None,
    )
    attempt = log.begin(recipe, training_set, kind="search")
    run = tracker.start(
        use_case=use_case.name,
        run_name=study_name(use_case, training_set),
        parameters={**recipe.hyperparameters, "training_set": recipe.training_set, "code_version": code_version},
        job_type="tuning",
    )
    run.used(tracked_training_set(training_set, log.store))
    search = TrackedSearch(run)
    try:
        yield search
        attempt.complete(search.summary)
    except BaseException as error:
        attempt.fail(error)
        raise
    finally:
        run.finish(search.summary)
