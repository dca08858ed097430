"""What every trainer promises for a regression: it trains, exports, is packaged, reloads and scores, in a unit."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.encoding import Coded, Input, Output, Signature, Vocabulary
from ml_assets.core.errors import BadInput, InvalidDeclaration, PackageRefused, TrainingDataMissing, TrainingFailed
from ml_assets.core.package import load_package
from ml_assets.core.parity import answer_scale, compare
from ml_assets.core.regression import RegressionMetrics, rmse
from ml_assets.core.scoring import score, score_coded, score_portable
from ml_assets.core.spec import Label, PromotionRule
from ml_assets.core.trainers import FittedModel, Hyperparameters, Labelled, WarmStart, trainer_named
from ml_assets.core.training_sets import freeze

_NETWORK = {"layer_sizes": "16", "embedding_size": 4, "n_epochs": 6, "learning_rate": 0.02, "dropout": 0.0}
CASES: dict[str, tuple[str, Hyperparameters, str]] = {
    "hist_gradient_boosting": (
        "sklearn",
        {"estimator": "hist_gradient_boosting", "max_iter": 40, "learning_rate": 0.2},
        "sklearn",
    ),
    "lightgbm": ("sklearn", {"estimator": "lightgbm", "n_estimators": 40, "learning_rate": 0.2}, "lightgbm"),
    "xgboost": ("sklearn", {"estimator": "xgboost", "n_estimators": 40, "learning_rate": 0.2}, "xgboost"),
    "linear_regression": ("sklearn", {"estimator": "linear_regression"}, "sklearn"),
    "keras": ("keras", _NETWORK, "keras"),
    "lightning": ("lightning", _NETWORK, "pytorch_lightning"),
}
SIGNATURE = Signature(
    numeric=tuple(Input(name=name, view="v", description="") for name in ("distance_miles", "noise")),
    categorical=(Input(name="origin", view="v", description=""),),
    output=Output(task="regression", unit="minutes"),
)
VOCABULARY = Vocabulary(values={"origin": ("EWR", "JFK", "LGA")})


def _examples(n: int, seed: int) -> Labelled:
    """Minutes: 600, an eighth of one per mile, 30 at origin 2; where the distance is null, those of its mean."""
    draw = np.random.default_rng(seed)
    distance = draw.uniform(100, 2500, n)
    is_null = draw.random(n) < 0.1
    origin = draw.integers(2, 5, n)
    label = 600 + distance / 8 + 30 * (origin == 2) + draw.normal(0, 5, n)
    label[is_null] = 600 + 1300 / 8
    numeric = np.stack([np.where(is_null, np.nan, distance), draw.normal(size=n)], axis=1).astype(np.float32)
    return Labelled(inputs=Coded(numeric=numeric, categorical=origin[:, None]), labels=label.astype(np.float32))


TRAIN, VALIDATION = _examples(2000, 1), _examples(500, 2)
SCALE = answer_scale(TRAIN.labels, "regression")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(CASES[request.param][2])
    return request.param


def _fit(name: str, train: Labelled = TRAIN, validation: Labelled = VALIDATION, **changes: object) -> FittedModel:
    trainer, hyperparameters, _ = CASES[name]
    arguments = {
        "signature": SIGNATURE,
        "vocabulary": VOCABULARY,
        "hyperparameters": hyperparameters,
        "seed": 3,
        "warm_start": None,
        "on_epoch": lambda epoch, metrics: None,
        "work_folder": Path("unused"),
    }
    return trainer_named(trainer).fit(train, validation, **{**arguments, **changes})


def test_a_line_with_nulls_and_a_category_is_learned_in_minutes(case):
    fresh = _examples(2000, 9)
    # The labels spread by 85 minutes, of which noise is 5.
    assert rmse(fresh.labels, _fit(case).predict(fresh.inputs)) < 15


def test_the_rounds_kept_are_those_with_the_lowest_rmse_of_validation_in_minutes(case):
    fitted = _fit(case)
    if case == "linear_regression":
        assert fitted.history == ()
        return
    found = rmse(VALIDATION.labels, fitted.predict(VALIDATION.inputs))
    assert found == pytest.approx(min(epoch.validation_loss for epoch in fitted.history), rel=1e-4)
    assert 1 < found < fitted.history[0].train_loss < 700


def test_onnx_answers_as_the_library_does_within_a_hundred_thousandth_of_the_spread(case):
    fitted = _fit(case)
    model = fitted.to_onnx()
    assert compare(model, fitted, [VALIDATION.inputs], scale=SCALE).largest_difference <= 1e-5
    for value in (np.nan, np.inf, -np.inf, 3e38, -1e-36, 0.0):
        odd = Coded(numeric=np.full((5, 2), value, dtype=np.float32), categorical=np.arange(5)[:, None])
        expected = fitted.predict(odd)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(score_coded(model, odd), expected, atol=1e-5 * SCALE)


def test_training_twice_gives_the_same_bytes(case):
    assert _fit(case).to_onnx() == _fit(case).to_onnx()


def test_labels_without_variation_and_labels_that_are_no_numbers_are_refused(case):
    with pytest.raises(TrainingDataMissing, match="all 2000 labels of train are 90; a regression needs different ones"):
        _fit(case, replace(TRAIN, labels=np.full(2000, 90, np.float32)))
    broken = VALIDATION.labels.copy()
    broken[:2] = np.nan, np.inf
    with pytest.raises(BadInput, match="2 of 500 labels of validation are no finite number"):
        _fit(case, validation=replace(VALIDATION, labels=broken))


@pytest.mark.parametrize(
    ("estimator", "task", "words"),
    [
        ("logistic_regression", "regression", "is for binary_classification.* choose the estimator linear_regression"),
        ("linear_regression", "binary_classification", "is for regression.* choose the estimator logistic_regression"),
    ],
)
def test_an_estimator_of_another_task_is_refused_with_the_one_to_choose(estimator, task, words):
    labels = TRAIN.labels if task == "regression" else (TRAIN.labels > 750).astype(np.float32)
    validation = VALIDATION.labels if task == "regression" else (VALIDATION.labels > 750).astype(np.float32)
    with pytest.raises(InvalidDeclaration, match=words):
        _fit(
            "linear_regression",
            replace(TRAIN, labels=labels),
            replace(VALIDATION, labels=validation),
            hyperparameters={"estimator": estimator},
            signature=replace(SIGNATURE, output=Output(task=task)),
        )


@pytest.mark.parametrize("name", ["keras", "lightning"])
def test_a_network_starts_where_the_earlier_one_ended_though_the_labels_have_moved(name):
    pytest.importorskip(CASES[name][2])
    fitted = _fit(name)
    still = {**CASES[name][1], "n_epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    warm = WarmStart(weights=fitted.weights(), signature=SIGNATURE, vocabulary=VOCABULARY)
    moved = replace(TRAIN, labels=TRAIN.labels * 2)
    again = _fit(name, moved, hyperparameters=still, seed=8, warm_start=warm)
    assert again.is_warm_started
    expected = fitted.predict(VALIDATION.inputs)
    np.testing.assert_allclose(again.predict(VALIDATION.inputs), expected, atol=1e-6 * SCALE)
    np.testing.assert_allclose(score_coded(again.to_onnx(), VALIDATION.inputs), expected, atol=1e-5 * SCALE)


def test_a_network_of_a_classification_lends_nothing_to_a_regression():
    fitted = _fit("lightning")
    of_classes = {name: array for name, array in fitted.weights().items() if not name.startswith("label_")}
    warm = WarmStart(weights=of_classes, signature=SIGNATURE, vocabulary=VOCABULARY)
    assert not _fit("lightning", warm_start=warm).is_warm_started


@pytest.mark.parametrize("name", ["keras", "lightning"])
def test_a_loss_of_nan_names_the_loss_of_a_regression(name):
    pytest.importorskip(CASES[name][2])
    broken = {key: np.full_like(array, np.nan) for key, array in _fit(name).weights().items()}
    warm = WarmStart(weights=broken, signature=SIGNATURE, vocabulary=VOCABULARY)
    with pytest.raises(TrainingFailed, match="the RMSE of epoch 1 is nan"):
        _fit(name, warm_start=warm)


def test_leaves_near_zero_keep_what_leaves_near_six_hundred_minutes_would_round_away():
    pytest.importorskip("lightgbm")
    many = {"estimator": "lightgbm", "n_estimators": 300, "early_stopping_rounds": 300}
    fitted = _fit("lightgbm", hyperparameters=many)
    found = np.abs(score_coded(fitted.to_onnx(), VALIDATION.inputs) - fitted.predict(VALIDATION.inputs))
    # A float32 near 700 is 6e-5 apart from the next: with one rounding at the end an answer is half of that off, and
    # with one for each of 300 trees it would be several.
    assert found.max() < 1.5e-4


def test_a_difference_of_the_graph_is_refused_in_spreads_of_the_label():
    fitted = _fit("linear_regression")

    class Off(FittedModel):
        def predict(self, inputs: Coded) -> np.ndarray:
            return fitted.predict(inputs) + 2e-5 * SCALE

    with pytest.raises(PackageRefused, match=r"by 2e-05 on row .* expected at most 1e-05 times the spread 8\d\.\d+ of"):
        compare(fitted.to_onnx(), Off(), [VALIDATION.inputs], scale=SCALE)


def test_a_candidate_of_each_trainer_is_packaged_reloaded_and_scores(case, trained, train, use_case, examples, inputs):
    trainer, hyperparameters, _ = CASES[case]
    wind = np.nan_to_num(examples["wind_speed_mph"].to_numpy(), nan=20.0)
    minutes = 100 + 3 * wind + 20 * (examples["origin"].to_numpy() == "EWR")
    table = examples.set_column(examples.column_names.index("label"), "label", pa.array(minutes))
    own = replace(
        use_case,
        name="taxi_time",
        task="regression",
        label=Label(table="labels.label_taxi", unit="minutes"),
        trainer=trainer,
        hyperparameters=hyperparameters,
        promotion=PromotionRule(),
    )
    store = type(trained[2])()
    days = {"as_of": date(2013, 1, 31), "code_version": "c1", "store": store}
    training_set = freeze(table, use_case=own, inputs=inputs, **days)
    candidate = train(training_set=training_set, use_case=own, store=store)
    package = load_package(store, own.name, candidate.package.version)
    assert isinstance(package.metrics.holdout, RegressionMetrics)
    assert set(package.metrics.baselines) == {"mean", "linear"}
    assert package.signature.output == Output(task="regression", unit="minutes")
    found = score(package, training_set.test)
    labels = training_set.test["label"].to_numpy()
    assert package.metrics.holdout.rmse == pytest.approx(rmse(labels, found), rel=1e-4)
    assert package.metrics.holdout.rmse < package.metrics.baselines["mean"].rmse / 2
    np.testing.assert_allclose(score_portable(package.portable, training_set.test, package.signature), found, atol=1e-4)
    again = train(training_set=training_set, use_case=own, store=type(trained[2])())
    assert again.package.package_hash == package.package_hash
