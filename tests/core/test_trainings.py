"""Warm and cold: what the champion lends, which start validation chooses, and what the record says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.encoding import UNSEEN_CODE, Vocabulary
from ml_assets.core.studies import TrialRecord
from ml_assets.core.trainers import Epoch, FittedModel, WarmStart
from ml_assets.core.trainers.segments import Segments
from ml_assets.core.trainers.starts import WarmStartRecord, fit_both
from ml_assets.core.trainers.warm_start import filled
from ml_assets.core.tuned_parameters import TunedParameters, save_tuned_parameters

LENT = WarmStart(weights={"w": np.zeros(1)}, signature=None, vocabulary=None)  # pyright: ignore - nobody reads it here


@dataclass
class Curve(FittedModel):
    """A model that is nothing but its validation losses, epoch by epoch."""

    losses: Sequence[float]
    is_warm_started: bool = False

    @property
    def history(self) -> tuple[Epoch, ...]:
        return tuple(Epoch(number=n, train_loss=0.0, validation_loss=x) for n, x in enumerate(self.losses, start=1))


def _both(cold: Sequence[float], warm: Sequence[float]) -> tuple[FittedModel, WarmStartRecord]:
    curves = {"cold": Curve(cold), "warm": Curve(warm, is_warm_started=True)}
    done = fit_both(lambda name, lent: curves[name], lent=LENT, not_lent="", loss=lambda model: min(model.losses))
    assert set(done.costs) == {"cold", "warm"}
    assert done.record is not None
    return done.fitted, done.record


def test_validation_chooses_and_the_record_says_when_each_start_had_reached_the_others_best():
    fitted, record = _both(cold=[0.7, 0.6, 0.55, 0.5], warm=[0.56, 0.5, 0.45, 0.46])
    assert fitted.is_warm_started
    assert (record.chosen, record.reason) == ("warm", "validation loss 0.45000 warm, 0.50000 cold")
    # The cold one was best in its fourth epoch, with 0.5; the warm one had that in its second.
    assert (record.cold.best_epoch, record.warm.epochs_to_other, record.n_epochs_saved) == (4, 2, 2)
    assert (record.warm.best_epoch, record.cold.epochs_to_other) == (3, None)
    assert record.facts["epochs_saved_by_warm_start"] == 2
    assert "cold_epochs_to_warm_loss" not in record.facts


def test_a_cold_start_that_is_better_or_as_good_is_chosen():
    fitted, record = _both(cold=[0.5, 0.4], warm=[0.45, 0.45])
    assert not fitted.is_warm_started
    assert (record.chosen, record.n_epochs_saved, record.cold.epochs_to_other) == ("cold", None, 2)
    assert _both(cold=[0.4], warm=[0.4])[1].chosen == "cold"


def test_a_trainer_that_takes_nothing_over_is_fitted_once_and_the_record_says_why():
    fits: list[str] = []

    def fit(name: str, lent: WarmStart | None) -> FittedModel:
        fits.append(name)
        return Curve([0.5])

    done = fit_both(fit, lent=LENT, not_lent="", loss=lambda model: 0.5)
    assert (len(fits), set(done.costs), done.record.chosen, done.record.warm) == (1, {"cold"}, "cold", None)
    assert "took nothing over" in done.record.reason
    assert fit_both(fit, lent=None, not_lent="no weights", loss=lambda model: 0.5).record.reason == "no weights"
    assert fit_both(fit, lent=None, not_lent="", loss=lambda model: 0.5).record is None


@pytest.fixture
def champion(trained):
    return trained[1].package


def _changed_origins(training_set, rename: Mapping[str, str]):
    """Return the training set with other origins in train."""
    origins = [rename.get(value, value) for value in training_set.train["origin"].to_pylist()]
    position = training_set.train.column_names.index("origin")
    return replace(training_set, train=training_set.train.set_column(position, "origin", pa.array(origins)))


def test_a_retraining_trains_both_starts_and_keeps_the_one_with_the_lower_validation_loss(champion, train):
    first, again = train(parent=champion), train(parent=champion)
    record = first.package.metrics.warm_start
    losses = {"cold": record.cold.validation_loss, "warm": record.warm.validation_loss}
    assert record.chosen == min(losses, key=losses.__getitem__)
    assert first.package.metrics.validation_loss == pytest.approx(losses[record.chosen], abs=1e-6)
    assert first.package.manifest.is_warm_started == (record.chosen == "warm")
    # The cold one is the model that a training without a champion yields: the same rows, the same vocabulary.
    assert record.cold.validation_loss == pytest.approx(champion.metrics.validation_loss, abs=1e-6)
    # What it took is known here, and nothing of it is in the package.
    assert set(first.costs) == {"cold", "warm"}
    assert all(cost.seconds > 0 and cost.cpu_seconds > 0 for cost in first.costs.values())
    assert first.package.package_hash == again.package.package_hash


def test_without_a_champion_there_is_one_training_and_no_record(trained):
    _, candidate, _, tracker = trained
    assert candidate.package.metrics.warm_start is None
    assert set(candidate.costs) == {"cold"}
    assert {"train_loss", "validation_loss"} == set(tracker.logged[0][1])


def test_the_tracker_hears_both_starts_one_after_the_other(champion, train, trained):
    tracker = type(trained[3])()
    record = train(parent=champion, tracker=tracker).package.metrics.warm_start
    steps = [step for step, _ in tracker.logged]
    assert steps == list(range(1, record.warm.n_epochs + record.cold.n_epochs + 1))
    assert {name for _, metrics in tracker.logged for name in metrics} == {
        "cold_train_loss",
        "cold_validation_loss",
        "warm_train_loss",
        "warm_validation_loss",
    }
    assert tracker.summaries[0]["warm_validation_loss"] == record.warm.validation_loss
    assert tracker.summaries[0]["cold_seconds"] > 0


def test_where_nothing_is_taken_over_the_tracker_hears_of_a_cold_start_as_the_record_does(
    champion, train, trained, use_case
):
    tracker, told = type(trained[3])(), []
    wider = replace(use_case, hyperparameters={**use_case.hyperparameters, "layer_sizes": "8", "n_epochs": 3})
    found = train(use_case=wider, parent=champion, tracker=tracker, on_epoch=lambda epoch, _metrics: told.append(epoch))
    record = found.package.metrics.warm_start
    assert (record.chosen, record.warm, told) == ("cold", None, [1, 2, 3])
    assert [(step, *metrics) for step, metrics in tracker.logged] == [
        (step, "cold_train_loss", "cold_validation_loss") for step in (1, 2, 3)
    ]
    assert [m["cold_validation_loss"] for _, m in tracker.logged] == [e.validation_loss for e in found.history]


def test_the_epochs_of_a_start_that_fails_are_tracked_all_the_same(champion, train, trained):
    tracker = type(trained[3])()

    def fail(epoch: int, _metrics: Mapping[str, float]) -> None:
        if epoch == 2:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        train(parent=champion, tracker=tracker, on_epoch=fail)
    assert [(step, *metrics) for step, metrics in tracker.logged] == [
        (step, "warm_train_loss", "warm_validation_loss") for step in (1, 2)
    ]
    assert tracker.summaries == [{}]


def test_a_champion_that_had_segments_lends_the_model_of_all_rows_to_a_use_case_without(train, use_case):
    segments = Segments(
        by="origin", minimum_rows=300, minimum_of_each_class=20, minimum_validation_rows=50, confidence=0.5
    )
    short = replace(use_case, hyperparameters={**use_case.hyperparameters, "n_epochs": 2})
    parent = train(use_case=replace(short, segments=segments)).package
    assert any(outcome.has_own_model for outcome in parent.metrics.segments)
    record = train(use_case=short, parent=parent).package.metrics.warm_start
    assert record.warm is not None


def test_a_champion_that_has_seen_the_test_days_lends_nothing_and_the_record_says_so(champion, train, trained):
    seen = replace(champion.manifest, last_validation_day=trained[0].days.test[0])
    record = train(parent=replace(champion, manifest=seen)).package.metrics.warm_start
    assert (record.chosen, record.warm) == ("cold", None)
    assert record.reason == f"the champion {champion.version} has seen days that this candidate is judged on"


def test_trees_have_no_weights_to_lend_and_are_trained_once(train, use_case):
    trees = replace(use_case, trainer="sklearn", hyperparameters={"estimator": "hist_gradient_boosting", "max_iter": 5})
    parent = train(use_case=trees).package
    again = train(use_case=trees, parent=parent)
    record = again.package.metrics.warm_start
    assert (record.chosen, record.warm) == ("cold", None)
    assert "has no weights to start from; its trainer is sklearn" in record.reason
    assert set(again.costs) == {"cold"}


def test_a_category_the_champion_knew_stays_in_the_vocabulary_with_its_embedding(champion, train, trained, use_case):
    """Train no longer has LGA, and has a new airport; in one epoch the cold start has learned little."""
    training_set = _changed_origins(trained[0], {"LGA": "ACY"})
    short = replace(use_case, hyperparameters={**use_case.hyperparameters, "n_epochs": 1})
    found = train(training_set=training_set, parent=champion, use_case=short).package
    assert champion.vocabulary.values["origin"] == ("EWR", "JFK", "LGA")
    assert found.vocabulary.values["origin"] == ("ACY", "EWR", "JFK", "LGA")
    assert found.metrics.warm_start.chosen == "warm"
    from safetensors.numpy import load

    before, now = (load(package.weights)["embeddings.0.weight"] for package in (champion, found))
    np.testing.assert_array_equal(now[5], before[4])  # LGA
    assert not np.array_equal(now[4], before[3])  # JFK has rows, and was trained on


def test_without_a_champion_the_vocabulary_is_of_train_alone(train, trained):
    training_set = _changed_origins(trained[0], {"LGA": "ACY"})
    assert train(training_set=training_set).package.vocabulary.values["origin"] == ("ACY", "EWR", "JFK")


def test_in_a_cold_model_a_category_without_rows_answers_as_an_unseen_one(trained, champion):
    from ml_assets.core.coded_sets import code_training_set

    training_set = _changed_origins(trained[0], {"LGA": "EWR"})
    train = code_training_set(training_set, champion.signature, champion.vocabulary).train
    state = {"embeddings.0.weight": np.arange(10.0).reshape(5, 2), "layers.0.bias": np.ones(3)}
    initial = {"embeddings.0.weight": -np.arange(10.0).reshape(5, 2), "layers.0.bias": np.zeros(3)}
    cold = filled(state, initial, train, is_warm=False)["embeddings.0.weight"]
    warm = filled(state, initial, train, is_warm=True)["embeddings.0.weight"]
    lga = champion.vocabulary.codes("origin")["LGA"]
    np.testing.assert_array_equal(cold[lga], state["embeddings.0.weight"][UNSEEN_CODE])
    np.testing.assert_array_equal(warm[lga], initial["embeddings.0.weight"][lga])
    np.testing.assert_array_equal(cold[:lga], state["embeddings.0.weight"][:lga])
    np.testing.assert_array_equal(warm[:lga], state["embeddings.0.weight"][:lga])


def test_a_vocabulary_is_the_union_with_the_earlier_one_column_by_column(champion):
    rows = pa.table({"origin": ["JFK", None, "ACY", ""]})
    earlier = Vocabulary(values={"origin": ("EWR", "JFK"), "gone": ("x",)})
    assert Vocabulary.of(rows, champion.signature, earlier).values == {"origin": ("ACY", "EWR", "JFK")}
    assert Vocabulary.of(rows, champion.signature).values == {"origin": ("ACY", "JFK")}


@pytest.fixture
def study(champion) -> TunedParameters:
    """What the champion was trained with."""
    defaults = champion.manifest.recipe.hyperparameters
    return TunedParameters(
        use_case="storm_delay",
        as_of=date(2013, 1, 30),
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


@pytest.fixture
def dropout_after(study, train, trained, champion, use_case):
    """The dropout of a retraining whose use case now pins another number of bins than the study knew."""

    def _dropout(study: TunedParameters = study, *, now: Mapping[str, object] | None = None, champions: float = 0.1):
        store = type(trained[2])()
        save_tuned_parameters(store, study)
        recipe = replace(champion.manifest.recipe, hyperparameters={**study.defaults, "dropout": champions})
        parent = replace(champion, manifest=replace(champion.manifest, recipe=recipe))
        pinned = {**use_case.hyperparameters, "n_epochs": 1, "n_bins": 4, **(now or {})}
        found = train(store=store, parent=parent, use_case=replace(use_case, hyperparameters=pinned)).package
        assert found.manifest.recipe.hyperparameters["n_bins"] == 4
        return found.manifest.recipe.hyperparameters["dropout"]

    return _dropout


def test_the_tuned_parameters_of_the_champion_are_handed_on_where_its_study_no_longer_applies(dropout_after):
    assert dropout_after() == 0.1


def test_parameters_of_the_champion_that_no_study_chose_are_not_handed_on(dropout_after, study):
    """They are the defaults of an earlier release, or were pinned."""
    assert dropout_after(champions=0.2) == 0.3
    assert dropout_after(replace(study, loss=0.5)) == 0.3
    assert dropout_after(replace(study, trainer="keras")) == 0.3


def test_a_pinned_value_or_a_day_of_the_test_keeps_the_champions_parameters_out(dropout_after, study):
    assert dropout_after(now={"dropout": 0.25}) == 0.25
    assert dropout_after(replace(study, last_validation_day=date(2013, 1, 25))) == 0.3
