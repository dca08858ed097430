"""Trials see train and validation only, end as they should, and their best is what the next training uses."""

import errno
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from ml_assets.backends.optuna_studies import OptunaStudies, OptunaStudy
from ml_assets.core import tuning
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.errors import BadInput, DataMissing, InvalidDeclaration
from ml_assets.core.feature_views import Feature
from ml_assets.core.search_spaces import Choice, FloatRange, IntRange
from ml_assets.core.spec import UseCase
from ml_assets.core.studies import SearchSettings, TrialRecord
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.tuned_parameters import TunedParameters, newest_tuned_parameters, save_tuned_parameters
from ml_assets.core.tuning import Budget, TuningOutcome, study_name, tune

Tune = Callable[..., TuningOutcome]


@dataclass(frozen=True)
class Constant:
    """A model that answers the same to everything."""

    probability: float

    def predict(self, inputs) -> np.ndarray:
        return np.full(len(inputs), self.probability)


class ConstantTrainer:
    """Fits nothing: its hyperparameter is the answer, and what it does on the way is for a test to say."""

    def __init__(self) -> None:
        self.n_rows: list[tuple[int, int]] = []
        self.on_fit: Callable[[Mapping[str, float]], None] = lambda hyperparameters: None

    def resolve(self, hyperparameters):
        return {"probability": 0.5, "n_epochs": 2, **hyperparameters}

    def fit(self, train, validation, *, hyperparameters, on_epoch, **_rest) -> Constant:
        self.n_rows.append((len(train.labels), len(validation.labels)))
        self.on_fit(hyperparameters)
        for epoch in range(1, hyperparameters["n_epochs"] + 1):
            try:
                on_epoch(epoch, {"train_loss": 1.0, "validation_loss": hyperparameters["probability"]})
            except Exception as stopped:
                raise RuntimeError("as a library that wraps what its callback raises") from stopped
        return Constant(hyperparameters["probability"])


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> ConstantTrainer:
    trainer = ConstantTrainer()
    monkeypatch.setattr(tuning, "trainer_named", lambda name: trainer)
    return trainer


@pytest.fixture
def constant_case(use_case: UseCase, trainer: ConstantTrainer) -> UseCase:
    space = {"probability": FloatRange(low=0.01, high=0.99)}
    return replace(use_case, trainer="constant", hyperparameters={}, search_space=space)


@pytest.fixture
def search(trained, inputs: tuple[Feature, ...], tmp_path: Path) -> Tune:
    """Search on the shared training set, with what differs given by name."""

    def _search(use_case: UseCase, n_trials: int, **changes: object) -> TuningOutcome:
        arguments: dict[str, object] = {
            "use_case": use_case,
            "inputs": inputs,
            "studies": OptunaStudies((tmp_path / "studies").as_uri()),
            "budget": Budget(n_trials=n_trials, seconds=60.0),
            "settings": SearchSettings(seed=1),
            "seconds_now": lambda: 0.0,
            "on_trial": lambda trial, n_taken: None,
            "work_folder": tmp_path,
            **changes,
        }
        return tune(arguments.pop("training_set", trained[0]), **arguments)  # pyright: ignore

    return _search


def test_the_best_trial_is_the_answer_nearest_to_the_share_of_the_validation_days(trained, search, constant_case):
    labels = trained[0].validation["label"].to_numpy().astype(float)
    found = search(constant_case, 25).tuned

    def loss(probability: float) -> float:
        share = labels.mean()
        return -(share * math.log(probability) + (1 - share) * math.log(1 - probability))

    best = float(found.parameters["probability"])
    tried = [float(trial.parameters["probability"]) for trial in found.trials if trial.state == "complete"]
    assert best == min(tried, key=loss)
    assert found.loss == pytest.approx(loss(best))
    assert found.default_loss == pytest.approx(loss(0.5))
    assert found.beats_defaults
    assert abs(best - labels.mean()) < 0.1
    assert found.defaults == {"probability": 0.5, "n_epochs": 2}
    assert found.last_validation_day == trained[0].days.validation[-1]


def test_no_trial_is_given_the_test_part(trained, search, constant_case, trainer):
    without_test = replace(trained[0], test=None)
    search(constant_case, 3, training_set=without_test)
    counts = trained[0].counts
    assert trainer.n_rows == [(counts["train"], counts["validation"])] * 3


def test_a_trial_of_streamed_rows_is_judged_batch_by_batch(search, constant_case, tmp_path, monkeypatch):
    asked: list[int] = []
    predict = Constant.predict
    monkeypatch.setattr(Constant, "predict", lambda self, inputs: (asked.append(len(inputs)), predict(self, inputs))[1])
    # Of the 400 validation examples of 20 bytes the memory holds 200, and a quarter of it 50.
    folder = RecordsFolder(kept=tmp_path / "kept", work=tmp_path, memory_bytes=200 * 20)
    streamed = search(constant_case, 1, records=folder).tuned
    assert asked == [50] * 8
    assert streamed.loss == pytest.approx(math.log(2))  # the default says 0.5 to everything


def test_the_search_ends_with_the_time_or_the_number_of_trials_whichever_comes_first(search, constant_case):
    def minutes_pass() -> Iterator[float]:
        yield from range(0, 10_000, 25)

    clock = minutes_pass()
    # Asked at 0 for the deadline, then before each trial at 25, 50, 75: no trial starts at 75 or later.
    by_time = search(constant_case, 20, budget=Budget(n_trials=20, seconds=60.0), seconds_now=lambda: next(clock))
    assert by_time.n_own == 2
    by_number = search(constant_case, 5)
    assert (by_number.n_own, by_number.n_trials("complete") + by_number.n_trials("pruned")) == (3, 5)
    assert search(constant_case, 5).n_own == 0


def test_every_trial_is_told_with_how_many_are_taken(search, constant_case):
    told: list[tuple[int, int]] = []
    search(constant_case, 3, on_trial=lambda trial, n_taken: told.append((trial.number, n_taken)))
    assert told == [(0, 1), (1, 2), (2, 3)]


def test_a_pruned_trial_stops_at_its_epoch_and_is_no_failure(search, constant_case, monkeypatch):
    monkeypatch.setattr(OptunaStudy, "report", prune_at_once)
    found = search(constant_case, 3)
    assert [(t.state, t.n_epochs) for t in found.tuned.trials] == [("complete", 2), ("pruned", 1), ("pruned", 1)]
    assert not found.tuned.beats_defaults
    assert found.tuned.parameters == found.tuned.defaults


def prune_at_once(study: OptunaStudy, trial, *, epoch: int, loss: float) -> bool:
    study._asked[trial.number].report(loss, epoch)
    return True


def test_parameters_that_cannot_be_trained_with_are_a_failed_trial_with_its_reason(search, constant_case, trainer):
    def refuse(hyperparameters) -> None:
        if hyperparameters["probability"] != 0.5:
            raise InvalidDeclaration("too large for this machine")

    trainer.on_fit = refuse
    found = search(constant_case, 3).tuned
    assert [(t.state, t.reason) for t in found.trials] == [
        ("complete", ""),
        *[("failed", "InvalidDeclaration: too large for this machine")] * 2,
    ]


def test_a_loss_that_is_no_number_is_a_failed_trial(search, constant_case, monkeypatch):
    def nan_below_a_half(self, inputs) -> np.ndarray:
        return np.full(len(inputs), np.nan if self.probability < 0.5 else self.probability)

    monkeypatch.setattr(Constant, "predict", nan_below_a_half)
    found = search(constant_case, 8, settings=SearchSettings(seed=1, is_pruning=False)).tuned
    states = {float(t.parameters["probability"]) < 0.5: t.state for t in found.trials}
    assert states == {False: "complete", True: "failed"}
    assert all("the validation loss is nan" in t.reason for t in found.trials if t.state == "failed")
    assert found.loss >= 0.6


@pytest.mark.parametrize("error", [InvalidDeclaration("no data"), KeyboardInterrupt()])
def test_defaults_that_fail_end_the_search_and_are_tried_again_by_the_next(
    search, constant_case, trainer, error: BaseException
):
    def fail(hyperparameters) -> None:
        raise error

    trainer.on_fit = fail
    with pytest.raises(type(error)):
        search(constant_case, 3)
    trainer.on_fit = lambda hyperparameters: None
    found = search(constant_case, 3)
    assert [t.state for t in found.tuned.trials] == ["abandoned", "complete", "complete", "complete"]
    assert found.tuned.trials[1].parameters == {"probability": 0.5}
    assert found.tuned.default_loss is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space left"), MemoryError()])
def test_a_trial_that_its_parameters_did_not_make_fail_is_tried_again_with_them(
    search, constant_case, trainer, error: BaseException
):
    seen: list[float] = []

    def interrupt_third(hyperparameters) -> None:
        seen.append(hyperparameters["probability"])
        if len(seen) == 3:
            raise error

    trainer.on_fit = interrupt_third
    with pytest.raises(type(error)):
        search(constant_case, 5)
    found = search(constant_case, 5)
    assert seen[3] == seen[2]
    assert len(set(seen)) == 5
    assert found.n_trials("abandoned") == 1
    assert found.n_trials("complete") + found.n_trials("pruned") == 5


def test_a_study_without_a_complete_trial_says_so(search, constant_case, tmp_path, trained):
    studies = OptunaStudies((tmp_path / "studies").as_uri())
    name = study_name(constant_case, trained[0])
    space, first = constant_case.tuned_space, {"probability": 0.5}
    studies.open(name, space=space, first=first, settings=SearchSettings()).ask()
    with pytest.raises(DataMissing, match="is complete yet, 1 are under way"):
        search(constant_case, 1)


def test_a_study_is_named_by_what_it_depends_on(trained, constant_case):
    training_set: TrainingSet = trained[0]
    other_set = replace(training_set, manifest=replace(training_set.manifest, fingerprint="0" * 64))
    names = [
        study_name(constant_case, training_set),
        study_name(constant_case, other_set),
        study_name(replace(constant_case, seed=14), training_set),
        study_name(replace(constant_case, hyperparameters={"n_epochs": 3}), training_set),
        study_name(replace(constant_case, search_space={"probability": FloatRange(low=0.01, high=0.98)}), training_set),
    ]
    assert len(set(names)) == len(names)
    assert names[0].startswith(f"storm_delay-{training_set.fingerprint[:16]}-")
    assert study_name(replace(constant_case, owners=("x",)), training_set) == names[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_space": {}}, "has nothing to search"),
        (
            {"search_space": {"depth": IntRange(low=1, high=2)}},
            r"searches \['depth'\], which its trainer does not have",
        ),
        ({"search_space": {"probability": FloatRange(low=0.6, high=0.9)}}, "{'probability': 0.5} lie outside"),
    ],
)
def test_a_search_space_that_does_not_fit_its_trainer_is_refused(search, constant_case, changes, message):
    with pytest.raises(InvalidDeclaration, match=message):
        search(replace(constant_case, **changes), 1)


def test_of_the_space_of_a_trainer_only_what_its_estimator_has_is_searched(search, constant_case, monkeypatch):
    spaces = {"constant": {"probability": FloatRange(low=0.1, high=0.9), "depth": IntRange(low=1, high=5)}}
    monkeypatch.setattr("ml_assets.core.spec.DEFAULT_SPACES", spaces)
    found = search(replace(constant_case, search_space=None), 2).tuned
    assert [set(trial.parameters) for trial in found.trials] == [{"probability"}] * 2


@pytest.mark.parametrize(("n_trials", "seconds"), [(0, 60.0), (5, 0.0), (5, math.nan)])
def test_a_budget_of_nothing_is_refused(n_trials: int, seconds: float):
    with pytest.raises(BadInput, match="leaves nothing to search with"):
        Budget(n_trials=n_trials, seconds=seconds)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: FloatRange(low=1.0, high=1.0),
        lambda: FloatRange(low=0.0, high=math.inf),
        lambda: FloatRange(low=0.0, high=1.0, is_log=True),
        lambda: IntRange(low=3, high=2),
        lambda: Choice(options=()),
        lambda: Choice(options=("a", "a")),
    ],
)
def test_a_range_that_is_none_is_refused(declare: Callable[[], object]):
    with pytest.raises(InvalidDeclaration):
        declare()


def test_what_a_use_case_pins_is_not_searched(use_case: UseCase):
    assert set(replace(use_case, hyperparameters={}).tuned_space) == {
        *("layer_sizes", "dropout", "learning_rate", "weight_decay", "n_epochs"),
    }
    assert set(use_case.tuned_space) == {"dropout", "weight_decay"}
    with pytest.raises(InvalidDeclaration, match=r"pins \['n_epochs'\] in hyperparameters and lets search_space vary"):
        replace(use_case, search_space={"n_epochs": IntRange(low=1, high=9)})


# With the real trainer: one epoch on a few hundred rows.


@pytest.fixture
def lightning_case(use_case: UseCase) -> UseCase:
    space = {"dropout": FloatRange(low=0.0, high=0.6), "learning_rate": FloatRange(low=1e-4, high=0.1, is_log=True)}
    return replace(use_case, hyperparameters={"layer_sizes": "4", "n_epochs": 1}, search_space=space)


def test_tuning_measures_the_defaults_as_a_candidate_is_and_the_next_candidate_uses_the_best(
    search, train, lightning_case, trained, store
):
    plain = train(use_case=lightning_case).package
    tuned = search(lightning_case, 4).tuned
    assert tuned.default_loss == pytest.approx(plain.metrics.validation_loss, abs=1e-6)
    assert tuned.defaults == plain.manifest.recipe.hyperparameters
    assert tuned.beats_defaults

    save_tuned_parameters(store, tuned)
    better = train(use_case=lightning_case, store=store).package
    assert better.manifest.recipe.hyperparameters == tuned.parameters
    assert better.metrics.validation_loss == pytest.approx(tuned.loss, abs=1e-6)
    assert better.version != plain.version


def test_a_lightning_training_that_is_pruned_leaves_torch_as_it_was(search, lightning_case, monkeypatch):
    import torch

    n_threads, state = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(OptunaStudy, "report", prune_at_once)
    found = search(replace(lightning_case, hyperparameters={"layer_sizes": "4", "n_epochs": 3}), 2)
    assert [(t.state, t.n_epochs) for t in found.tuned.trials] == [("complete", 3), ("pruned", 1)]
    assert torch.get_num_threads() == n_threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def tuned(trained, use_case: UseCase, train) -> TunedParameters:
    """What a study might have found for the shared use case."""
    defaults = trained[1].package.manifest.recipe.hyperparameters
    return TunedParameters(
        use_case=use_case.name,
        as_of=date(2013, 1, 31),
        study="storm_delay-1",
        training_set="0" * 64,
        last_validation_day=date(2013, 1, 23),
        trainer="lightning",
        defaults=defaults,
        parameters={**defaults, "dropout": 0.1},
        default_loss=0.5,
        loss=0.4,
        trials=(TrialRecord(number=0, state="complete", parameters={"dropout": 0.3}, loss=0.5, n_epochs=8, reason=""),),
    )


def used_dropout(train, store, **changes: object) -> object:
    return train(store=store, **changes).package.manifest.recipe.hyperparameters["dropout"]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": 0.5},
        {"default_loss": None},
        {"as_of": date(2013, 2, 1)},
        {"trainer": "sklearn"},
        {"defaults": {"dropout": 0.2}},
        {"last_validation_day": date(2013, 1, 25)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_tuned_parameters_that_prove_nothing_here_are_not_used(trained, train, store, tuned, changes):
    assert tuned.last_validation_day < trained[0].days.test[0] == date(2013, 1, 25)
    save_tuned_parameters(store, replace(tuned, **changes))
    assert used_dropout(train, store) == 0.3


def test_the_newest_tuned_parameters_are_used_unless_a_use_case_pins_its_own(train, store, tuned, use_case):
    save_tuned_parameters(
        store, replace(tuned, as_of=date(2013, 1, 20), parameters={**tuned.parameters, "dropout": 0.5})
    )
    save_tuned_parameters(store, tuned)
    assert newest_tuned_parameters(store, "storm_delay", date(2013, 1, 31)) == tuned
    assert used_dropout(train, store) == 0.1
    pinned = replace(use_case, hyperparameters={**use_case.hyperparameters, "dropout": 0.3})
    assert used_dropout(train, store, use_case=pinned) == 0.3
    assert used_dropout(train, store, use_case=replace(use_case, search_space={})) == 0.3


def test_a_damaged_record_is_named(store, tuned):
    path = save_tuned_parameters(store, tuned)
    store.files[path] = store.files[path][:-40]
    with pytest.raises(BadInput, match=f"{path} holds no tuned parameters .* tune storm_delay again"):
        newest_tuned_parameters(store, "storm_delay", tuned.as_of)
    save_tuned_parameters(store, tuned)
    store.files["tuned/storm_delay/2013-02-01.json"] = store.files[path]
    with pytest.raises(BadInput, match="is of storm_delay as of 2013-01-31"):
        newest_tuned_parameters(store, "storm_delay", tuned.as_of + timedelta(days=1))
