"""Tuning: trials on the train and validation part of a training set, and the best hyperparameters they found."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml_assets.core.coded_sets import RecordsFolder, code_part
from ml_assets.core.encoding import Signature, Vocabulary
from ml_assets.core.errors import BadInput, DataMissing, InvalidDeclaration
from ml_assets.core.feature_views import Feature
from ml_assets.core.fingerprints import json_hash
from ml_assets.core.records import answers
from ml_assets.core.search_spaces import SearchSpace
from ml_assets.core.spec import UseCase
from ml_assets.core.studies import SearchSettings, Studies, Study, Trial, TrialRecord
from ml_assets.core.tasks import meaning_of
from ml_assets.core.trainers import Hyperparameters, Labelled, Trainer, name_of, trainer_named
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.tuned_parameters import TunedParameters

_VALIDATION = "validation_"
# A trial in one of these states has used up one of the trials of the budget.
_COUNTED = ("running", "complete", "pruned", "failed")
_FAULTS_OF_THE_MACHINE = (OSError, MemoryError)

OnTrial = Callable[[TrialRecord, int], None]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a search ends: with the study's trial number ``n_trials``, or ``seconds`` after its start, the sooner.

    Trials that earlier runs and other processes made count. A trial that has begun is not cut short by the time.
    """

    n_trials: int
    seconds: float

    def __post_init__(self) -> None:
        if self.n_trials < 1 or not self.seconds > 0:
            raise BadInput(f"{self} leaves nothing to search with; expected at least 1 trial and more than 0 seconds")


@dataclass(frozen=True, kw_only=True)
class TuningOutcome:
    """What a study has come to. ``n_own`` is how many of its trials this call ended."""

    tuned: TunedParameters
    importances: Mapping[str, float]
    address: str
    n_own: int

    def n_trials(self, state: str) -> int:
        """Return how many trials of the study are in a state."""
        return sum(trial.state == state for trial in self.tuned.trials)


class _Pruned(Exception):
    """Leaves a training from within its ``on_epoch``."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What every trial of a study has in common; of the training set only train and validation."""

    trainer: Trainer
    signature: Signature
    vocabulary: Vocabulary
    train: Labelled
    validation: Labelled
    defaults: Hyperparameters
    first: Hyperparameters
    seed: int
    work_folder: Path


def study_name(use_case: UseCase, training_set: TrainingSet) -> str:
    """Return the name of a study: whose it is, on which training set, and a hash of what is searched.

    The hash is over the trainer, its hyperparameters before tuning, the search space, and the seed of the trials.
    """
    defaults, space = _defaults_and_space(use_case)
    searched = json_hash([name_of(use_case.trainer), defaults, space, use_case.seed])
    return f"{use_case.name}-{training_set.fingerprint[:16]}-{searched[:12]}"


def tune(
    training_set: TrainingSet,
    *,
    use_case: UseCase,
    inputs: Sequence[Feature],
    studies: Studies,
    budget: Budget,
    settings: SearchSettings,
    seconds_now: Callable[[], float],
    on_trial: OnTrial,
    work_folder: Path,
    records: RecordsFolder | None = None,
) -> TuningOutcome:
    """Go on with the study of this training set until the budget is used, and return what it has come to.

    Trial 0 has the defaults, so that the best is measured beside them. Any number of processes may do this at once:
    together they make ``n_trials`` trials. ``seconds_now`` is the clock; ``on_trial`` is told of each trial this call
    ended, and how many of the budget's trials are taken. A trial that raises is recorded as failed. One with the
    defaults, or one that raises OSError or MemoryError, ends the search and is offered to the next. Raises DataMissing
    where no trial is complete yet.
    """
    task, space = _task(training_set, use_case, inputs, work_folder, records)
    study = studies.open(study_name(use_case, training_set), space=space, first=task.first, settings=settings)
    n_own = search(
        study,
        lambda study, trial: _run(study, trial, task),
        budget=budget,
        seconds_now=seconds_now,
        on_trial=on_trial,
    )
    tuned = _best(study, task, training_set, use_case)
    return TuningOutcome(tuned=tuned, importances=study.importances(settings.seed), address=study.address, n_own=n_own)


def search(
    study: Study,
    run_trial: Callable[[Study, Trial], None],
    *,
    budget: Budget,
    seconds_now: Callable[[], float],
    on_trial: OnTrial,
) -> int:
    """Take trials of a study and run them until the budget is used; return how many.

    ``run_trial`` tells the study how its trial ended. Other processes may search the same study meanwhile.
    """
    deadline = seconds_now() + budget.seconds
    study.release_dead()
    n_own = 0
    trials = study.trials()
    while seconds_now() < deadline and n_taken(trials) < budget.n_trials:
        trial = study.ask()
        if _rank(trial, study.trials()) < budget.n_trials:
            run_trial(study, trial)
            n_own += 1
            trials = study.trials()
            on_trial(trials[trial.number], n_taken(trials))
        else:
            study.abandon(trial, is_offered_again=False)  # another process took the last one in the same moment
            trials = study.trials()
    return n_own


def n_taken(trials: Sequence[TrialRecord]) -> int:
    """Return how many trials of a budget are used up or under way."""
    return sum(trial.state in _COUNTED for trial in trials)


def _rank(trial: Trial, trials: Sequence[TrialRecord]) -> int:
    """Return how many trials of the budget come before this one.

    Numbers are given out one by one by the storage, so of two processes that ask at once only one holds the last.
    A waiting one counts here, and not in ``n_taken``: it is taken before any new one.
    """
    return sum(other.number < trial.number and other.state != "abandoned" for other in trials)


def _run(study: Study, trial: Trial, task: _Task) -> None:
    """Train once and tell the study how it ended."""
    is_default = dict(trial.parameters) == dict(task.first)
    is_pruned = False

    def on_epoch(number: int, metrics: Mapping[str, float]) -> None:
        nonlocal is_pruned
        losses = [value for name, value in metrics.items() if name.startswith(_VALIDATION)]
        if losses and study.report(trial, epoch=number, loss=losses[0]) and not is_default:
            is_pruned = True
            raise _Pruned

    try:
        loss = _validation_loss(trial, task, on_epoch)
        if not math.isfinite(loss):
            raise BadInput(f"the validation loss is {loss}; expected a finite number")
    except Exception as error:
        # A trainer may wrap what its callback raises.
        if is_pruned:
            study.prune(trial)
        elif is_default or isinstance(error, _FAULTS_OF_THE_MACHINE):
            # Without the defaults there is nothing to compare with. A full disk is not the fault of what was varied.
            study.abandon(trial, is_offered_again=True)
            raise
        else:
            study.fail(trial, f"{type(error).__name__}: {error}")
    except BaseException:
        study.abandon(trial, is_offered_again=True)
        raise
    else:
        study.complete(trial, loss)


def _validation_loss(trial: Trial, task: _Task, on_epoch: Callable[[int, Mapping[str, float]], None]) -> float:
    fitted = task.trainer.fit(
        task.train,
        task.validation,
        signature=task.signature,
        vocabulary=task.vocabulary,
        hyperparameters=task.trainer.resolve({**task.defaults, **trial.parameters}),
        seed=task.seed,
        warm_start=None,
        on_epoch=on_epoch,
        work_folder=task.work_folder,
    )
    predictions = answers(fitted.predict, task.validation.inputs)
    if not np.isfinite(predictions).all():
        return math.nan
    return meaning_of(task.signature.output.task).loss_of(task.validation.labels, predictions)


def _task(
    training_set: TrainingSet,
    use_case: UseCase,
    inputs: Sequence[Feature],
    work_folder: Path,
    records: RecordsFolder | None,
) -> tuple[_Task, SearchSpace]:
    """Code train and validation as a candidate's would be, and lay out what is varied."""
    defaults, space = _defaults_and_space(use_case)
    signature = Signature.of(inputs, use_case.output)
    vocabulary = Vocabulary.of(training_set.train, signature)
    task = _Task(
        trainer=trainer_named(use_case.trainer),
        signature=signature,
        vocabulary=vocabulary,
        train=code_part(training_set, "train", signature, vocabulary, folder=records),
        validation=code_part(training_set, "validation", signature, vocabulary, folder=records),
        defaults=defaults,
        first={name: defaults[name] for name in space},
        seed=use_case.seed,
        work_folder=work_folder,
    )
    return task, space


def _defaults_and_space(use_case: UseCase) -> tuple[Hyperparameters, SearchSpace]:
    """Return what is used without tuning, and what is varied; raise InvalidDeclaration where the two clash."""
    defaults = trainer_named(use_case.trainer).resolve(use_case.hyperparameters)
    space = use_case.tuned_space
    if use_case.search_space is None:
        space = {name: dimension for name, dimension in space.items() if name in defaults}
    if not space:
        raise InvalidDeclaration(
            f"{use_case.name} has nothing to search: its hyperparameters are pinned, or its trainer "
            f"{name_of(use_case.trainer)!r} has no search space of its own; declare UseCase.search_space"
        )
    unknown = sorted(set(space) - set(defaults))
    if unknown:
        raise InvalidDeclaration(
            f"{use_case.name} searches {unknown}, which its trainer does not have; it has {sorted(defaults)}"
        )
    outside = {name: defaults[name] for name, dimension in space.items() if not dimension.contains(defaults[name])}
    if outside:
        raise InvalidDeclaration(
            f"the search of {use_case.name} starts from the defaults, of which {outside} lie outside its search space; "
            f"widen it"
        )
    return defaults, space


def _best(study: Study, task: _Task, training_set: TrainingSet, use_case: UseCase) -> TunedParameters:
    trials = tuple(study.trials())
    complete = [(trial.loss, trial.number) for trial in trials if trial.state == "complete" and trial.loss is not None]
    if not complete:
        raise DataMissing(
            f"no trial of {study.name} is complete yet, {n_taken(trials)} are under way or ended otherwise; "
            f"tune again when they are done, or with more trials"
        )
    loss, best = min(complete)
    of_defaults = [trials[number] for _, number in complete if dict(trials[number].parameters) == dict(task.first)]
    return TunedParameters(
        use_case=use_case.name,
        as_of=training_set.as_of,
        study=study.name,
        training_set=training_set.fingerprint,
        last_validation_day=training_set.days.validation[-1],
        trainer=name_of(use_case.trainer),
        defaults=task.defaults,
        parameters=task.trainer.resolve({**task.defaults, **trials[best].parameters}),
        default_loss=of_defaults[0].loss if of_defaults else None,
        loss=loss,
        trials=trials,
    )
