from pathlib import Path

import numpy as np
import pytest

from ml_assets.core.encoding import UNSEEN_CODE, Coded, Input, Signature, Vocabulary
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.scoring import score_coded
from ml_assets.core.trainers import Labelled, WarmStart, trainer_named
from ml_assets.core.trainers.lightning import FittedNetwork, LightningTrainer, loader

SETTINGS = {"layer_sizes": "16", "n_epochs": 6, "learning_rate": 0.02, "embedding_size": 4}


def _signature(*numeric: str) -> Signature:
    def inputs(names: tuple[str, ...]) -> tuple[Input, ...]:
        return tuple(Input(name=name, view="v", description="") for name in names)

    return Signature(numeric=inputs(numeric or ("wind_speed_mph", "visibility_miles")), categorical=inputs(("origin",)))


def _examples(n: int, seed: int) -> Labelled:
    """True where the wind is missing or above 20 at origin 2."""
    draw = np.random.default_rng(seed)
    wind = draw.uniform(0, 40, n)
    wind[draw.random(n) < 0.2] = np.nan
    origin = draw.integers(2, 5, n)
    label = (np.isnan(wind) | (wind > 20)) & (origin == 2)
    numeric = np.stack([wind, draw.normal(size=n)], axis=1).astype(np.float32)
    return Labelled(inputs=Coded(numeric=numeric, categorical=origin[:, None]), labels=label.astype(np.float32))


VOCABULARY = Vocabulary(values={"origin": ("EWR", "JFK", "LGA")})
TRAIN, VALIDATION = _examples(3000, 1), _examples(1000, 2)


def _fit(seed: int = 3, vocabulary: Vocabulary = VOCABULARY, **changes: object) -> FittedNetwork:
    arguments = {
        "signature": _signature(),
        "hyperparameters": SETTINGS,
        "warm_start": None,
        "on_epoch": lambda epoch, metrics: None,
        "work_folder": Path("unused"),
    }
    return LightningTrainer().fit(TRAIN, VALIDATION, vocabulary=vocabulary, seed=seed, **{**arguments, **changes})


@pytest.fixture(scope="module")
def fitted() -> FittedNetwork:
    return _fit()


def test_a_rule_of_a_number_its_absence_and_a_category_is_learned(fitted):
    fresh = _examples(2000, 9)
    found = fitted.predict(fresh.inputs) > 0.5
    assert np.mean(found == (fresh.labels == 1)) > 0.97


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(fitted):
    again, other = _fit(), _fit(seed=4)
    assert all(np.array_equal(array, again.weights()[name]) for name, array in fitted.weights().items())
    assert fitted.to_onnx() == again.to_onnx()
    assert fitted.to_onnx() != other.to_onnx()


def test_a_fit_leaves_the_random_numbers_and_the_settings_of_the_process_alone(capfd):
    import torch

    state = torch.random.get_rng_state()
    _fit(hyperparameters={**SETTINGS, "n_epochs": 1})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_weights_are_those_of_the_epoch_with_the_lowest_validation_log_loss():
    fitted = _fit(hyperparameters={**SETTINGS, "n_epochs": 12, "learning_rate": 0.2, "patience": 3})
    lowest = min(epoch.validation_loss for epoch in fitted.history)
    predictions = np.clip(fitted.predict(VALIDATION.inputs), 1e-12, 1 - 1e-7)
    found = -np.mean(np.where(VALIDATION.labels == 1, np.log(predictions), np.log1p(-predictions)))
    assert found == pytest.approx(lowest, abs=1e-4)


def test_training_stops_once_validation_has_not_improved_for_the_patience():
    history = _fit(hyperparameters={**SETTINGS, "n_epochs": 50, "learning_rate": 0.3, "patience": 1}).history
    losses = [epoch.validation_loss for epoch in history]
    assert len(losses) < 50
    assert losses[-1] >= min(losses[:-1])
    assert [epoch.number for epoch in history] == list(range(1, len(history) + 1))


def test_every_epoch_is_reported_with_its_losses():
    told: list[tuple[int, dict[str, float]]] = []
    history = _fit(on_epoch=lambda epoch, metrics: told.append((epoch, dict(metrics)))).history
    assert [number for number, _ in told] == [epoch.number for epoch in history]
    assert told[0][1] == {
        "train_loss": history[0].train_loss,
        "validation_loss": history[0].validation_loss,
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0.0])
@pytest.mark.parametrize("code", [0, UNSEEN_CODE, 4])
def test_onnx_answers_as_torch_does_for_any_number_and_code(fitted, value, code):
    odd = Coded(numeric=np.full((3, 2), value, dtype=np.float32), categorical=np.full((3, 1), code, dtype=np.int64))
    expected = fitted.predict(odd)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(score_coded(fitted.to_onnx(), odd), expected, atol=1e-6)


def test_onnx_answers_as_torch_does_on_every_row(fitted):
    np.testing.assert_allclose(
        score_coded(fitted.to_onnx(), VALIDATION.inputs), fitted.predict(VALIDATION.inputs), atol=1e-6
    )


def test_a_number_a_thousand_times_too_large_answers_like_the_largest_of_training(fitted):
    def answer(wind: float) -> float:
        numeric = np.array([[wind, 0.0]], dtype=np.float32)
        return float(fitted.predict(Coded(numeric=numeric, categorical=np.array([[2]])))[0])

    assert answer(40_000.0) == answer(float(np.nanmax(TRAIN.inputs.numeric[:, 0])))


def test_a_model_of_numbers_only_and_one_of_categories_only_can_be_fitted_and_exported():
    numbers = Labelled(
        inputs=Coded(numeric=TRAIN.inputs.numeric, categorical=np.empty((3000, 0), np.int64)), labels=TRAIN.labels
    )
    categories = Labelled(
        inputs=Coded(numeric=np.empty((3000, 0), np.float32), categorical=TRAIN.inputs.categorical),
        labels=TRAIN.labels,
    )
    for examples in (numbers, categories):
        signature = Signature(
            numeric=_signature().numeric[: examples.inputs.numeric.shape[1]],
            categorical=_signature().categorical[: examples.inputs.categorical.shape[1]],
        )
        model = LightningTrainer().fit(
            examples,
            examples,
            signature=signature,
            vocabulary=VOCABULARY,
            hyperparameters={**SETTINGS, "n_epochs": 1},
            seed=1,
            warm_start=None,
            on_epoch=lambda epoch, metrics: None,
            work_folder=Path("unused"),
        )
        scores = score_coded(model.to_onnx(), examples.inputs)
        np.testing.assert_allclose(scores, model.predict(examples.inputs), atol=1e-6)


def _warm(fitted: FittedNetwork, signature: Signature | None = None) -> WarmStart:
    return WarmStart(weights=fitted.weights(), signature=signature or _signature(), vocabulary=VOCABULARY)


def test_a_warm_start_begins_where_the_earlier_model_ended(fitted):
    # With a learning rate of nothing the network stays what it was at the first step.
    still = {**SETTINGS, "n_epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    warm = _fit(seed=8, hyperparameters=still, warm_start=_warm(fitted))
    assert warm.is_warm_started
    np.testing.assert_allclose(warm.predict(VALIDATION.inputs), fitted.predict(VALIDATION.inputs), atol=1e-6)


def test_a_warm_start_finds_each_category_by_its_value_when_codes_have_moved(fitted):
    still = {**SETTINGS, "n_epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    grown = Vocabulary(values={"origin": ("ACY", "EWR", "JFK", "LGA")})
    warm = _fit(seed=8, vocabulary=grown, hyperparameters=still, warm_start=_warm(fitted))
    moved = Coded(numeric=VALIDATION.inputs.numeric, categorical=VALIDATION.inputs.categorical + 1)
    assert warm.is_warm_started
    np.testing.assert_allclose(warm.predict(moved), fitted.predict(VALIDATION.inputs), atol=1e-6)


def test_a_model_of_other_columns_or_layers_is_no_warm_start(fitted):
    other_columns = _warm(fitted, _signature("wind_speed_mph", "pressure_mbar"))
    short = {**SETTINGS, "n_epochs": 1}
    assert not _fit(hyperparameters=short, warm_start=other_columns).is_warm_started
    assert not _fit(hyperparameters={**short, "layer_sizes": "8"}, warm_start=_warm(fitted)).is_warm_started


def test_the_loader_yields_every_row_once_with_its_label_in_another_order_each_pass():
    batches = loader(TRAIN, batch_rows=1024, is_shuffled=True)
    passes = [list(batches), list(batches)]
    assert [len(labels) for _, _, labels in passes[0]] == [1024, 1024, 952]
    assert len(batches) == 3
    rows = [np.concatenate([np.c_[n.numpy(), c.numpy(), y.numpy()] for n, c, y in batch]) for batch in passes]
    expected = np.c_[TRAIN.inputs.numeric, TRAIN.inputs.categorical, TRAIN.labels]
    assert not np.array_equal(rows[0][:, 1], rows[1][:, 1])
    for found in rows:
        order, wanted = np.argsort(found[:, 1]), np.argsort(expected[:, 1])
        np.testing.assert_array_equal(found[order], expected[wanted])


def test_unknown_trainers_and_hyperparameters_are_refused():
    with pytest.raises(InvalidDeclaration, match=r"no trainer 'magic'; there are \[.*'lightning'"):
        trainer_named("magic")
    with pytest.raises(InvalidDeclaration, match=r"no hyperparameters \['n_epoch'\]"):
        LightningTrainer().resolve({"n_epoch": 3})
    with pytest.raises(InvalidDeclaration, match="unusable"):
        LightningTrainer().resolve({"layer_sizes": "wide"})
    assert LightningTrainer().resolve({"n_epochs": 3})["n_epochs"] == 3
