"""Tuned parameters: the best of a study with its evidence, kept by as-of date for the trainings that follow."""

from dataclasses import dataclass
from datetime import date

import msgspec

from ml_assets.core.errors import BadInput
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.package import ModelPackage
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.search_spaces import SearchSpace
from ml_assets.core.studies import TrialRecord
from ml_assets.core.trainers import Hyperparameters
from ml_assets.core.training_sets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class TunedParameters:
    """What a study found on the train and validation days of one training set.

    Attributes:
        study: its name in the storage of studies.
        training_set: the fingerprint of the training set that every trial was fitted on.
        last_validation_day: no later day had a say in the choice.
        defaults: all hyperparameters of the use case before tuning, those of the trainer filled in.
        parameters: all hyperparameters of the trial with the lowest validation loss; it may be that of the defaults.
        default_loss: the validation loss with the defaults, on the same days; null if their trial never ended.
        loss: the lowest validation loss.
        trials: every trial of the study by number, as they stood when this was written.
    """

    use_case: str
    as_of: date
    study: str
    training_set: str
    last_validation_day: date
    trainer: str
    defaults: Hyperparameters
    parameters: Hyperparameters
    default_loss: float | None
    loss: float
    trials: tuple[TrialRecord, ...]

    @property
    def beats_defaults(self) -> bool:
        """Whether the loss is below that of the defaults on the same validation days."""
        return self.default_loss is not None and self.loss < self.default_loss


def save_tuned_parameters(store: ArtifactStore, tuned: TunedParameters) -> str:
    """Write what a study found as of its date, replacing what was found before, and return the path."""
    path = artifact_path(f"{_folder(tuned.use_case)}/{tuned.as_of.isoformat()}.json")
    store.put(path, msgspec.json.format(msgspec.json.encode(tuned, order="sorted")))
    return path


def newest_tuned_parameters(store: ArtifactStore, use_case_name: str, as_of: date) -> TunedParameters | None:
    """Return what the newest study found as of this date or an earlier one, or None where nothing was tuned.

    A study as of a date has seen only what was known before that day, so it may serve a training as of the same day.
    Raises BadInput for a file that is not what ``save_tuned_parameters`` writes.
    """
    suffix = ".json"
    paths = [path for path in store.list(_folder(use_case_name)) if path.endswith(suffix)]
    dated = {path.rpartition("/")[2].removesuffix(suffix): path for path in paths}
    known = sorted(day for day in dated if day <= as_of.isoformat())
    if not known:
        return None
    path = dated[known[-1]]
    try:
        tuned = msgspec.json.decode(store.get(path), type=TunedParameters)
    except msgspec.DecodeError as error:
        raise BadInput(f"{path} holds no tuned parameters ({error}); tune {use_case_name} again") from error
    if (tuned.use_case, tuned.as_of.isoformat()) != (use_case_name, known[-1]):
        raise BadInput(f"{path} is of {tuned.use_case} as of {tuned.as_of}; tune {use_case_name} again")
    return tuned


def tuned_or(
    defaults: Hyperparameters,
    *,
    trainer: str,
    space: SearchSpace,
    training_set: TrainingSet,
    store: ArtifactStore,
    champion: ModelPackage | None = None,
) -> Hyperparameters:
    """Return the hyperparameters to train with: the newest tuned ones, the champion's tuned ones, or the defaults.

    The newest apply if they beat these very defaults of this very trainer, if every value lies in today's search space
    (an empty one switches tuning off), and if no day that had a say in the choice is one the candidate is tested on.

    Where they do not apply (a pinned value has changed since, say), those of the study that the ``champion`` was
    trained with do: what that study varied, for the same trainer and under the same two conditions on space and days.
    Where the newest study found nothing better than these defaults, these are the best known.
    """
    newest = newest_tuned_parameters(store, training_set.use_case, training_set.as_of) if space else None
    if newest is not None and (newest.trainer, dict(newest.defaults)) == (trainer, dict(defaults)):
        if not newest.beats_defaults:
            return defaults
        if _applies(newest, space, training_set):
            return dict(newest.parameters)
    if not space or champion is None or champion.manifest.recipe.trainer != trainer:
        return defaults
    study = newest_tuned_parameters(store, training_set.use_case, champion.as_of)
    if study is None or study.trainer != trainer or not study.beats_defaults:
        return defaults
    varied = _varied(study)
    was_trained_so = all(champion.manifest.recipe.hyperparameters.get(name) == varied[name] for name in varied)
    is_known = set(varied) <= set(defaults)
    return {**defaults, **varied} if was_trained_so and is_known and _applies(study, space, training_set) else defaults


def _varied(tuned: TunedParameters) -> Hyperparameters:
    return {name: value for name, value in tuned.parameters.items() if value != tuned.defaults.get(name)}


def _applies(tuned: TunedParameters, space: SearchSpace, training_set: TrainingSet) -> bool:
    is_inside = all(name in space and space[name].contains(value) for name, value in _varied(tuned).items())
    return is_inside and tuned.last_validation_day < training_set.days.test[0]


def _folder(use_case_name: str) -> str:
    return artifact_path(f"tuned/{identifier(use_case_name)}")
