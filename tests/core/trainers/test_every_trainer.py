"""What every trainer promises: it trains, exports, is packaged, reloads and scores; it refuses what it cannot learn."""

import importlib.util
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.encoding import Coded, Input, Signature, Vocabulary, encode
from ml_assets.core.errors import BadInput, InvalidDeclaration, PackageRefused, TrainingDataMissing, TrainingFailed
from ml_assets.core.package import load_package
from ml_assets.core.parity import compare
from ml_assets.core.scoring import score, score_coded
from ml_assets.core.trainers import (
    Epoch,
    FittedModel,
    Hyperparameters,
    Labelled,
    WarmStart,
    trainer_named,
    tree_ensemble,
)
from ml_assets.core.trainers.boosting import FittedTrees
from ml_assets.core.trainers.lightgbm_trees import LightgbmSettings
from ml_assets.core.trainers.refusals import refuse_nan_loss
from ml_assets.core.trainers.tree_ensemble import Node, TreeEnsemble

DOCUMENT = Path(__file__).parents[3] / "docs" / "own_trainer.md"


@dataclass(frozen=True)
class Case:
    """A trainer with hyperparameters that fit a few hundred rows, and values of one hyperparameter out of its range."""

    trainer: str
    hyperparameters: Hyperparameters
    library: str
    out_of_range: Hyperparameters
    has_rounds: bool = True


def _sklearn(estimator: str, library: str, out_of_range: Hyperparameters, **others: float | int) -> Case:
    return Case(
        trainer="sklearn",
        hyperparameters={"estimator": estimator, **others},
        library=library,
        out_of_range={"estimator": estimator, **out_of_range},
        has_rounds=estimator != "logistic_regression",
    )


CASES = {
    "hist_gradient_boosting": _sklearn("hist_gradient_boosting", "sklearn", {"max_iter": 0}, max_iter=40),
    "lightgbm": _sklearn("lightgbm", "lightgbm", {"learning_rate": 1.5}, n_estimators=40),
    "xgboost": _sklearn("xgboost", "xgboost", {"subsample": 0.0}, n_estimators=40),
    "logistic_regression": _sklearn("logistic_regression", "sklearn", {"C": -1.0}),
    "keras": Case(
        "keras",
        {"layer_sizes": "16", "embedding_size": 4, "n_epochs": 6, "learning_rate": 0.02},
        "keras",
        {"dropout": 1.0},
    ),
    "lightning": Case(
        "lightning",
        {"layer_sizes": "16", "embedding_size": 4, "n_epochs": 6, "learning_rate": 0.02},
        "pytorch_lightning",
        {"n_bins": 0},
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    found = CASES[request.param]
    pytest.importorskip(found.library, reason=f"{found.library} is not installed: pip install 'ml-assets[dev]'")
    return found


SIGNATURE = Signature(
    numeric=tuple(Input(name=name, view="v", description="") for name in ("wind_speed_mph", "visibility_miles")),
    categorical=tuple(Input(name=name, view="v", description="") for name in ("origin", "destination")),
)
# 90 destinations: more than the 32 or 64 that fit into one word of a set of bits.
VOCABULARY = Vocabulary(
    values={"origin": ("EWR", "JFK", "LGA"), "destination": tuple(f"D{number:02d}" for number in range(90))}
)


def _examples(n: int, seed: int) -> Labelled:
    """True where the wind is missing or above 20, at origin 2 or a destination of an odd code; 10 of 100 turned."""
    draw = np.random.default_rng(seed)
    wind = draw.uniform(0, 40, n)
    wind[draw.random(n) < 0.2] = np.nan
    codes = np.stack([draw.integers(2, 5, n), draw.integers(2, 92, n)], axis=1)
    codes[draw.random(n) < 0.05, 0] = 0
    label = ((np.isnan(wind) | (wind > 20)) & ((codes[:, 0] == 2) | (codes[:, 1] % 2 == 1))) ^ (draw.random(n) < 0.1)
    numeric = np.stack([wind, draw.normal(size=n)], axis=1).astype(np.float32)
    return Labelled(inputs=Coded(numeric=numeric, categorical=codes), labels=label.astype(np.float32))


TRAIN, VALIDATION = _examples(800, 1), _examples(400, 2)


def _fit(case: Case, train: Labelled = TRAIN, validation: Labelled = VALIDATION, **changes: object) -> FittedModel:
    arguments = {
        "signature": SIGNATURE,
        "vocabulary": VOCABULARY,
        "hyperparameters": case.hyperparameters,
        "seed": 3,
        "warm_start": None,
        "on_epoch": lambda epoch, metrics: None,
        "work_folder": Path("unused"),
    }
    return trainer_named(case.trainer).fit(train, validation, **{**arguments, **changes})


def test_a_rule_of_numbers_nulls_and_categories_is_learned(case):
    fresh = _examples(2000, 9)
    found = _fit(case).predict(fresh.inputs)
    # Of the labels, 10 of 100 are turned round: better than always answering no, which is right for three fifths.
    assert np.mean((found > 0.5) == (fresh.labels == 1)) > 0.7


def test_a_candidate_is_trained_packaged_reloaded_and_scores_as_its_library_does(case, trained, train, use_case):
    """On 1800 rows with nulls; the holdout gets origins and winds that training never saw."""
    training_set, store = trained[0], type(trained[2])()
    fitted: list[FittedModel] = []
    trainer = trainer_named(case.trainer)

    class Watched(type(trainer)):
        def fit(self, *examples, **arguments):
            fitted.append(super().fit(*examples, **arguments))
            return fitted[-1]

    own = replace(use_case, trainer=Watched, hyperparameters=case.hyperparameters)
    candidate = train(use_case=own, store=store)
    package = load_package(store, own.name, candidate.package.version)
    holdout = training_set.test.set_column(
        training_set.test.column_names.index("origin"),
        "origin",
        pa.array([None if row % 5 == 0 else "MARS" if row % 5 == 1 else "EWR" for row in range(600)]),
    )
    expected = fitted[0].predict(encode(holdout, package.signature, package.vocabulary))
    np.testing.assert_allclose(score(package, holdout), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1
    assert package.metrics.largest_parity_difference <= 1e-5
    assert set(fitted[0].libraries) <= set(package.manifest.libraries)
    assert package.metrics.n_epochs == len(fitted[0].history)
    again = train(use_case=own, store=type(trained[2])())
    assert again.package.package_hash == package.package_hash


def test_training_twice_gives_the_same_bytes(case):
    assert _fit(case).to_onnx() == _fit(case).to_onnx()


def test_the_rounds_kept_are_those_validation_likes_best(case):
    if not case.has_rounds:
        pytest.skip("logistic regression has no rounds")
    fitted = _fit(case)
    predictions = np.clip(fitted.predict(VALIDATION.inputs), 1e-12, 1 - 1e-7)
    found = -np.mean(np.where(VALIDATION.labels == 1, np.log(predictions), np.log1p(-predictions)))
    assert found == pytest.approx(min(epoch.validation_loss for epoch in fitted.history), abs=1e-5)


@pytest.mark.parametrize("without", ["numeric", "categorical"])
def test_a_model_of_numbers_only_and_one_of_categories_only_can_be_exported(case, without):
    def part(examples: Labelled) -> Labelled:
        return replace(examples, inputs=replace(examples.inputs, **{without: getattr(examples.inputs, without)[:, :0]}))

    fitted = _fit(case, part(TRAIN), part(VALIDATION), signature=replace(SIGNATURE, **{without: ()}))
    inputs = part(VALIDATION).inputs
    np.testing.assert_allclose(score_coded(fitted.to_onnx(), inputs), fitted.predict(inputs), atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, -1e-36, 0.0])
def test_onnx_answers_as_the_library_does_for_any_number_and_code(case, value):
    fitted = _fit(case)
    odd = Coded(numeric=np.full((92, 2), value, dtype=np.float32), categorical=np.arange(184).reshape(92, 2) % 92)
    odd.categorical[:, 0] %= 5
    expected = fitted.predict(odd)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(score_coded(fitted.to_onnx(), odd), expected, atol=1e-5)


def test_a_column_of_nulls_only_in_train_is_no_obstacle(case):
    numeric = TRAIN.inputs.numeric.copy()
    numeric[:, 1] = np.nan
    fitted = _fit(case, replace(TRAIN, inputs=replace(TRAIN.inputs, numeric=numeric)))
    expected = fitted.predict(VALIDATION.inputs)
    np.testing.assert_allclose(score_coded(fitted.to_onnx(), VALIDATION.inputs), expected, atol=1e-5)


def test_unknown_and_unusable_hyperparameters_are_refused_by_name(case):
    trainer = trainer_named(case.trainer)
    with pytest.raises(InvalidDeclaration, match=r"no hyperparameters \['colour'\]; it has \["):
        trainer.resolve({**case.hyperparameters, "colour": 3})
    for bad in (case.out_of_range, {**case.out_of_range, list(case.out_of_range)[-1]: "many"}):
        with pytest.raises(InvalidDeclaration, match=rf"unusable: .*\$\.{list(case.out_of_range)[-1]}"):
            trainer.resolve(bad)
    with pytest.raises(InvalidDeclaration, match="not finite"):
        trainer.resolve({**case.out_of_range, list(case.out_of_range)[-1]: float("nan")})
    resolved = trainer.resolve(case.hyperparameters)
    assert case.hyperparameters.items() <= resolved.items()
    assert trainer.resolve(resolved) == resolved


def test_an_empty_set_one_class_and_labels_that_are_none_are_refused(case):
    nothing = Labelled(
        inputs=Coded(numeric=np.empty((0, 2), np.float32), categorical=np.empty((0, 2), np.int64)),
        labels=np.empty(0, np.float32),
    )
    for empty in ((nothing, VALIDATION), (TRAIN, nothing)):
        with pytest.raises(TrainingDataMissing, match=r"has no example; train on more days"):
            _fit(case, *empty)
    with pytest.raises(TrainingDataMissing, match="all 800 labels of train are 1; a classifier needs both"):
        _fit(case, replace(TRAIN, labels=np.ones(800, np.float32)))
    unknown = TRAIN.labels.copy()
    unknown[:2] = np.nan, 0.5
    with pytest.raises(BadInput, match="2 of 800 labels of train are neither 0 nor 1"):
        _fit(case, replace(TRAIN, labels=unknown))


@pytest.mark.parametrize("name", ["keras", "lightning"])
def test_a_loss_of_nan_ends_the_training_with_its_hyperparameters(name):
    pytest.importorskip(CASES[name].library)
    fitted = _fit(CASES[name])
    broken = {key: np.full_like(array, np.nan) for key, array in fitted.weights().items()}
    warm = WarmStart(weights=broken, signature=SIGNATURE, vocabulary=VOCABULARY)
    with pytest.raises(TrainingFailed, match=r"log loss of epoch 1 is nan .* lower the learning rate.*'layer_sizes'"):
        _fit(CASES[name], warm_start=warm)


def test_an_infinite_loss_of_a_later_round_is_refused():
    rounds = [Epoch(number=1, train_loss=0.5, validation_loss=0.6)]
    refuse_nan_loss(rounds, hyperparameters={})
    rounds.append(Epoch(number=2, train_loss=0.4, validation_loss=float("inf")))
    with pytest.raises(TrainingFailed, match=r"epoch 2 is 0\.4 on train and inf on validation"):
        refuse_nan_loss(rounds, hyperparameters={})


@pytest.mark.parametrize("name", ["keras", "lightning"])
def test_a_network_starts_where_the_earlier_one_ended_though_codes_have_moved(name):
    pytest.importorskip(CASES[name].library)
    fitted = _fit(CASES[name])
    still = {**CASES[name].hyperparameters, "n_epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    grown = Vocabulary(values={**VOCABULARY.values, "origin": ("ACY", "EWR", "JFK", "LGA")})
    warm = WarmStart(weights=fitted.weights(), signature=SIGNATURE, vocabulary=VOCABULARY)

    def moved(examples: Labelled) -> Labelled:
        codes = examples.inputs.categorical + np.array([1, 0]) * (examples.inputs.categorical >= 2)
        return replace(examples, inputs=replace(examples.inputs, categorical=codes))

    again = _fit(
        CASES[name], moved(TRAIN), moved(VALIDATION), vocabulary=grown, hyperparameters=still, seed=8, warm_start=warm
    )
    assert again.is_warm_started
    expected = fitted.predict(VALIDATION.inputs)
    np.testing.assert_allclose(again.predict(moved(VALIDATION).inputs), expected, atol=1e-6)


def test_more_categories_than_histogram_boosting_takes_are_refused_with_the_way_out():
    codes = TRAIN.inputs.categorical.copy()
    codes[:, 1] = 2 + np.arange(800) % 300
    many = Vocabulary(values={**VOCABULARY.values, "destination": tuple(f"{number:03d}" for number in range(300))})
    exploded = replace(TRAIN, inputs=replace(TRAIN.inputs, categorical=codes))
    with pytest.raises(
        BadInput, match=r"input 1 has 300 categories in train; .* at most 255; choose estimator lightgbm"
    ):
        _fit(CASES["hist_gradient_boosting"], exploded, vocabulary=many)


def test_an_estimator_is_a_name_of_the_table_and_never_an_import_path():
    for name in ("sklearn.svm.SVC", "os.system", 3, None):
        hyperparameters = {} if name is None else {"estimator": name}
        with pytest.raises(InvalidDeclaration, match=r"no estimator .*; it has \['hist_gradient_boosting', 'lightgbm'"):
            trainer_named("sklearn").resolve(hyperparameters)


def _parity(fitted: FittedModel, model: bytes) -> float:
    return compare(model, fitted, [VALIDATION.inputs, _examples(400, 5).inputs]).largest_difference


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "lightgbm"])
def test_where_only_a_null_matters_an_endless_number_is_a_number_like_any_other(name):
    """Such a split sends every number left; LightGBM's dump writes 1e300 for its threshold, less than infinity."""
    pytest.importorskip(CASES[name].library)
    wind = np.where(np.arange(400) % 3 == 0, np.nan, np.arange(400) % 7).astype(np.float32)
    examples = Labelled(
        inputs=Coded(numeric=np.stack([wind, wind * 0], axis=1), categorical=np.full((400, 2), 2)),
        labels=np.isnan(wind).astype(np.float32),
    )
    fitted = _fit(CASES[name], examples, examples)
    numeric = np.array([[np.inf, 0], [3, 0], [np.nan, 0]], dtype=np.float32)
    found = score_coded(fitted.to_onnx(), Coded(numeric=numeric, categorical=np.full((3, 2), 2)))
    assert found[0] == found[1] < 0.2 < 0.8 < found[2]
    assert _parity(fitted, fitted.to_onnx()) <= 1e-5


@dataclass(frozen=True)
class _WithoutThresholds(FittedModel):
    """The same model, which does not tell the gate what it has learned."""

    model: FittedModel

    def predict(self, inputs: Coded) -> np.ndarray:
        return self.model.predict(inputs)

    def to_onnx(self) -> bytes:
        return self.model.to_onnx()


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "lightgbm"])
def test_thresholds_that_are_not_rounded_down_are_caught_by_the_parity_gate_at_the_thresholds_alone(name, monkeypatch):
    pytest.importorskip(CASES[name].library)
    # Of up to 255 different numbers histogram boosting puts its thresholds half-way between two, in float64.
    fitted = _fit(CASES[name], _examples(250, 1))
    assert _parity(fitted, fitted.to_onnx()) <= 1e-5
    monkeypatch.setattr(tree_ensemble, "float32_at_most", lambda thresholds: thresholds.astype(np.float32))
    rounded_to_nearest = fitted.to_onnx()
    assert _parity(_WithoutThresholds(fitted), rounded_to_nearest) <= 1e-5
    with pytest.raises(PackageRefused, match=r"differs from the fitted model by .* expected at most 1e-05"):
        _parity(fitted, rounded_to_nearest)


def test_a_split_of_lightgbm_that_only_a_null_does_not_pass_lets_infinity_pass():
    pytest.importorskip("lightgbm")
    is_null = np.arange(800) % 2 == 0
    numeric = np.stack([np.where(is_null, np.nan, np.arange(800) % 3), np.zeros(800)], axis=1).astype(np.float32)
    inputs = replace(TRAIN.inputs, numeric=numeric)
    fitted = _fit(CASES["lightgbm"], replace(TRAIN, inputs=inputs, labels=is_null.astype(np.float32)))
    assert np.inf in fitted.thresholds[0]
    assert compare(fitted.to_onnx(), fitted, [inputs]).largest_difference <= 1e-5


def test_a_threshold_that_only_nulls_of_another_column_reach_is_held_to_parity():
    rng = np.random.default_rng(4)
    wind, gust = rng.normal(size=(2, 4000)).astype(np.float32)
    gust[rng.random(4000) < 0.3] = np.nan
    inputs = Coded(numeric=np.stack([wind, gust], axis=1), categorical=np.zeros((4000, 1), dtype=np.int64))

    def ensemble(at: float) -> TreeEnsemble:
        """Wind is looked at where the gust is null alone; elsewhere the gust decides."""
        of_nulls = [
            Node(column=1, threshold=np.inf, left=1, right=2),
            Node(value=0.1),
            Node(column=0, threshold=at, left=3, right=4),
            *(Node(value=1.0), Node(value=-1.0)),
        ]
        of_gusts = [Node(column=1, threshold=0.5, is_null_left=True, left=1, right=2), Node(value=0.1), Node(value=0.2)]
        trees = [of_nulls, of_gusts]
        return TreeEnsemble(trees=trees, base=0.0, comparison="<=", n_numeric=2, cardinalities=[3])

    right, beside = ensemble(0.25), ensemble(float(np.nextafter(np.float32(0.25), np.float32(np.inf))))
    model = right.to_onnx()
    fitted = FittedTrees(
        ensemble=right, answer=lambda rows: _by_graph(model, rows, n_numeric=2), history=(), libraries={}
    )
    assert compare(model, fitted, [inputs]).largest_difference == 0.0
    with pytest.raises(PackageRefused, match="differs from the fitted model"):
        compare(beside.to_onnx(), fitted, [inputs])


def _by_graph(model: bytes, rows: np.ndarray, *, n_numeric: int) -> np.ndarray:
    categorical = rows[:, n_numeric:].astype(np.int64)
    return score_coded(model, Coded(numeric=rows[:, :n_numeric].astype(np.float32), categorical=categorical))


@pytest.mark.parametrize("task", ["binary_classification", "regression"])
def test_lightgbm_keeps_the_trees_that_validation_likes_best_also_where_it_was_not_stopped(task):
    turned = replace(VALIDATION, labels=1 - VALIDATION.labels)  # what is learned makes it worse from the first tree on
    settings = LightgbmSettings(n_estimators=8, early_stopping_rounds=30)
    fitted = settings.fit(TRAIN, turned, cardinalities=[5, 92], seed=1, on_epoch=lambda n, m: None, task=task)
    losses = [epoch.validation_loss for epoch in fitted.history]
    assert len(losses) == 8
    assert int(np.argmin(losses)) == 0
    assert len(fitted.ensemble.trees) == 1


@pytest.mark.parametrize("task", ["binary_classification", "regression"])
def test_lightgbm_bins_the_train_rows_once_although_it_is_told_their_loss_too(task, monkeypatch):
    import lightgbm.sklearn

    binned: list[int] = []

    class Counted(lightgbm.Dataset):
        def __init__(self, data, *args, **kwargs) -> None:
            super().__init__(data, *args, **kwargs)
            binned.append(len(data))

    monkeypatch.setattr(lightgbm.sklearn, "Dataset", Counted)
    settings = LightgbmSettings(n_estimators=3)
    fitted = settings.fit(TRAIN, VALIDATION, cardinalities=[5, 92], seed=1, on_epoch=lambda n, m: None, task=task)
    assert binned == [len(TRAIN.labels), len(VALIDATION.labels)]
    assert all(epoch.train_loss > 0 and epoch.validation_loss > 0 for epoch in fitted.history)


def test_a_split_below_its_threshold_exported_as_at_most_is_caught_by_the_parity_gate(monkeypatch):
    pytest.importorskip("xgboost")
    fitted = _fit(CASES["xgboost"])
    assert isinstance(fitted, FittedTrees)
    assert _parity(fitted, fitted.to_onnx()) <= 1e-5
    with pytest.raises(PackageRefused, match="differs from the fitted model"):
        _parity(fitted, replace(fitted.ensemble, comparison="<=").to_onnx())


def test_the_thresholds_of_a_model_lie_where_its_answers_jump(case):
    """Between two neighbouring thresholds of the wind, trees answer alike; networks and sums bend there only."""
    fitted = _fit(case)
    thresholds = fitted.thresholds[0]
    assert np.array_equal(thresholds, np.unique(thresholds))
    wide = np.diff(thresholds) > 1e-3
    low, high = thresholds[:-1][wide], thresholds[1:][wide]
    inside = [low + (high - low) * share for share in (0.25, 0.5, 0.75)]

    def log_odds(wind: np.ndarray) -> np.ndarray:
        numeric = np.stack([wind, np.zeros_like(wind)], axis=1).astype(np.float32)
        probability = fitted.predict(Coded(numeric=numeric, categorical=np.full((len(wind), 2), 2)))
        return np.log(probability / (1 - probability))

    first, middle, last = map(log_odds, inside)
    if isinstance(fitted, FittedTrees):
        np.testing.assert_allclose(first, last, atol=1e-9)
    elif case.trainer == "sklearn":
        np.testing.assert_allclose(middle, (first + last) / 2, atol=1e-5)


def test_float32_thresholds_decide_as_the_float64_ones_for_the_numbers_around_them():
    thresholds = np.concatenate([np.random.default_rng(4).normal(size=1000), [0.0, 1e300, -1e300, np.inf, 1e-46]])
    rounded = tree_ensemble.float32_at_most(thresholds)
    assert rounded.dtype == np.float32
    for step in (-np.inf, 0.0, np.inf):
        with np.errstate(over="ignore"):
            x = rounded if step == 0.0 else np.nextafter(rounded, np.float32(step))
        assert np.array_equal(x.astype(np.float64) <= thresholds, x <= rounded)


@pytest.mark.parametrize(
    ("name", "package"),
    [("lightgbm", "lightgbm"), ("xgboost", r"ml-assets\[xgboost\]"), ("keras", r"ml-assets\[keras\]")],
)
def test_a_library_that_is_not_installed_is_named_with_what_installs_it(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidDeclaration, match=rf"needs {name}, which is not installed: pip install '{package}'"):
        _fit(CASES[name])


def test_logistic_regression_that_does_not_converge_says_so():
    with pytest.raises(TrainingFailed, match="did not converge within max_iter=1"):
        _fit(CASES["logistic_regression"], hyperparameters={"estimator": "logistic_regression", "max_iter": 1})


def test_what_is_no_trainer_is_refused():
    with pytest.raises(InvalidDeclaration, match=r"no trainer 'magic'; there are \['keras', 'lightning', 'sklearn'\]"):
        trainer_named("magic")
    with pytest.raises(InvalidDeclaration, match=r"dict is no Trainer: it lacks \['resolve', 'fit'\]"):
        trainer_named(dict)


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The module that the document shows, from a file, as a use case is."""
    trainer, declaration = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    source = f"{trainer}\n\n{declaration}"
    path = tmp_path / "share_by_origin.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("share_by_origin", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "share_by_origin", module)
    spec.loader.exec_module(module)
    return module, trainer


def test_the_documented_trainer_of_ones_own_is_below_40_lines(documented):
    lines = [line for line in documented[1].splitlines() if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(lines) < 40


def test_the_documented_trainer_of_ones_own_becomes_a_package_that_scores(documented, trained, train, use_case):
    module = documented[0]
    declared = module.USE_CASE
    own = replace(use_case, trainer=declared.trainer, hyperparameters=declared.hyperparameters)
    store = type(trained[2])()
    version = train(use_case=own, store=store).package.version
    package = load_package(store, own.name, version)
    assert package.manifest.recipe.trainer == "ShareTrainer"
    assert package.manifest.recipe.hyperparameters == {"smoothing": 50.0}
    labels, origins = (trained[0].train[name].to_numpy() for name in ("label", "origin"))
    at_newark = labels[origins == "EWR"]
    expected = (at_newark.sum() + 50 * labels.mean()) / (len(at_newark) + 50)
    newark = trained[0].test.filter(pa.array(trained[0].test["origin"].to_numpy() == "EWR"))
    np.testing.assert_allclose(score(package, newark), expected, atol=1e-6)
    with pytest.raises(InvalidDeclaration, match=r"ShareTrainer has no hyperparameters \['n_trees'\]"):
        train(use_case=replace(own, hyperparameters={"n_trees": 3}))
