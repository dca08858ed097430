"""One model per segment: better where segments differ, the parent exactly everywhere else, one graph for all."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from scipy.special import stdtrit

from ml_assets.core.encoding import NULL_CODE, UNSEEN_CODE, Coded, Input, Output, Signature, Vocabulary
from ml_assets.core.errors import (
    InvalidDeclaration,
    PackageRefused,
    ProcessesDisagree,
    TrainingDataMissing,
    TrainingFailed,
)
from ml_assets.core.feature_views import LatestView
from ml_assets.core.package import load_package
from ml_assets.core.parity import answer_scale, compare
from ml_assets.core.portable_model import to_portable
from ml_assets.core.scoring import score, score_coded, score_portable
from ml_assets.core.trainers import FittedModel, Labelled, Trainer, WarmStart, trainer_named
from ml_assets.core.trainers.lightning import FittedNetwork, LightningTrainer
from ml_assets.core.trainers.routed_graph import routed
from ml_assets.core.trainers.segmented import FittedSegments, SegmentedTrainer
from ml_assets.core.trainers.segments import Segments

SIGNATURE = Signature(
    numeric=(Input(name="storm", view="v", description=""), Input(name="visibility", view="v", description="")),
    categorical=(Input(name="carrier", view="v", description=""), Input(name="origin", view="v", description="")),
)
# Of the origins, a and b have opposite effects, "c" is tiny. A value may hold a slash.
VOCABULARY = Vocabulary(values={"carrier": ("AA", "UA"), "origin": ("a", "a/b", "c")})
A, B, C = 2, 3, 4
SEGMENTS = Segments(by="origin", minimum_rows=200, minimum_of_each_class=50, minimum_validation_rows=100)
LOGISTIC = {"estimator": "logistic_regression", "C": 1e6}


def _opposite(n_per_cell: int, *, n_tiny: int = 20, seed: int = 1) -> Labelled:
    """At a, 8 of 10 storms delay and 2 of 10 calms; at b, 2 of 10 storms and 8 of 10 calms; shuffled.

    Every cell (origin, storm) holds exactly these shares. c has as many rows as its name says, half of them delayed.
    """
    storm = np.tile(np.repeat([0.0, 1.0], n_per_cell), 2)
    origin = np.repeat([A, B], 2 * n_per_cell)
    within = np.tile(np.arange(n_per_cell), 4) / n_per_cell
    label = within < np.where((origin == A) == (storm == 1), 0.8, 0.2)
    storm = np.concatenate([storm, np.arange(n_tiny) % 2])
    origin = np.concatenate([origin, np.full(n_tiny, C)])
    label = np.concatenate([label, np.arange(n_tiny) // 2 % 2 == 0])
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(label))
    numeric = np.stack([storm, draw.normal(size=len(label)) * 1e-3], axis=1).astype(np.float32)
    codes = np.stack([draw.integers(2, 4, len(label)), origin], axis=1)
    inputs = Coded(numeric=numeric[order], categorical=codes[order])
    return Labelled(inputs=inputs, labels=label[order].astype(np.float32))


TRAIN, VALIDATION, TEST = _opposite(1000), _opposite(400, seed=2), _opposite(500, seed=3)
TRAINERS = {
    "logistic": ("sklearn", LOGISTIC),
    "lightgbm": ("sklearn", {"estimator": "lightgbm", "n_estimators": 30, "learning_rate": 0.3}),
    "lightning": ("lightning", {"layer_sizes": "8", "n_epochs": 2, "learning_rate": 0.02}),
}


def _fit(name: str | Trainer = "logistic", segments: Segments = SEGMENTS, **changes: object) -> FittedSegments:
    trainer, hyperparameters = TRAINERS[name] if isinstance(name, str) else (name, {})
    arguments = {
        "train": TRAIN,
        "validation": VALIDATION,
        "signature": SIGNATURE,
        "vocabulary": VOCABULARY,
        "hyperparameters": hyperparameters,
        "seed": 3,
        "warm_start": None,
        "on_epoch": lambda epoch, metrics: None,
        "work_folder": Path("unused"),
    }
    return SegmentedTrainer(trainer_named(trainer), segments).fit(**{**arguments, **changes})


@pytest.fixture(scope="module", params=TRAINERS)
def fitted(request: pytest.FixtureRequest) -> FittedSegments:
    """Models of a and b that were told the opposite, so that they differ from the parent whatever it learned."""
    own = {}
    for code in (A, B):
        rows = np.flatnonzero(TRAIN.inputs.categorical[:, 1] == code)
        inputs = Coded(numeric=TRAIN.inputs.numeric[rows], categorical=TRAIN.inputs.categorical[rows])
        own[code] = _fit(request.param, train=Labelled(inputs=inputs, labels=1 - TRAIN.labels[rows])).parent
    parent = _fit(request.param, replace(SEGMENTS, minimum_rows=10_000)).parent
    return FittedSegments(
        parent=parent,
        own=own,
        outcomes=(),
        by="origin",
        column=1,
        codes=VOCABULARY.codes("origin"),
        cardinality=VOCABULARY.cardinality("origin"),
    )


def _with_origin(inputs: Coded, code: int) -> Coded:
    categorical = inputs.categorical.copy()
    categorical[:, 1] = code
    return Coded(numeric=inputs.numeric, categorical=categorical)


def _log_loss(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(-np.mean(np.where(labels == 1, np.log(predictions), np.log1p(-predictions))))


def test_segments_with_opposite_effects_are_told_apart_by_models_of_their_own():
    """By symmetry the best that one linear model can say is one half: ln 2 = 0.6931 nats.

    A model per origin says 0.8 or 0.2: -(0.8 ln 0.8 + 0.2 ln 0.2) = 0.5004.
    """
    fitted = _fit()
    rows = np.flatnonzero(TEST.inputs.categorical[:, 1] != C)
    of_two = Coded(numeric=TEST.inputs.numeric[rows], categorical=TEST.inputs.categorical[rows])
    labels = TEST.labels[rows]
    assert _log_loss(labels, fitted.parent.predict(of_two)) == pytest.approx(0.6931, abs=0.002)
    assert _log_loss(labels, fitted.predict(of_two)) == pytest.approx(0.5004, abs=0.003)
    a, b, c = fitted.outcomes
    assert [(o.value, o.n_train, o.n_validation, o.has_own_model) for o in (a, b, c)] == [
        ("a", 2000, 800, True),
        ("a/b", 2000, 800, True),
        ("c", 20, 20, False),
    ]
    assert a.parent_loss == pytest.approx(0.6931, abs=0.002)
    assert a.own_loss == pytest.approx(0.5004, abs=0.003)
    assert a.margin is not None
    assert 0 < a.margin < 0.1927
    assert c.why_parent == "20 train rows, 200 needed"


def test_a_tiny_segment_null_and_unseen_are_answered_by_the_parent_exactly(fitted):
    model, parent = fitted.to_onnx(), fitted.parent.to_onnx()
    for code in (C, NULL_CODE, UNSEEN_CODE):
        inputs = _with_origin(TEST.inputs, code)
        np.testing.assert_array_equal(score_coded(model, inputs), score_coded(parent, inputs))
        np.testing.assert_array_equal(fitted.predict(inputs), fitted.parent.predict(inputs))
    own = score_coded(model, _with_origin(TEST.inputs, A))
    assert np.abs(own - score_coded(parent, _with_origin(TEST.inputs, A))).max() > 0.1


def test_onnx_answers_as_the_library_does_in_every_segment_and_at_every_threshold(fitted):
    assert compare(fitted.to_onnx(), fitted, [VALIDATION.inputs, TEST.inputs]).largest_difference <= 1e-5
    of_all = {column: set(values) for column, values in fitted.thresholds.items()}
    for model in (fitted.parent, *fitted.own.values()):
        assert all(set(values) <= of_all[column] for column, values in model.thresholds.items())
    # One row takes one branch, no row none.
    model = fitted.to_onnx()
    for row in (0, 1, 2, 3):
        one = Coded(numeric=TEST.inputs.numeric[row : row + 1], categorical=TEST.inputs.categorical[row : row + 1])
        np.testing.assert_allclose(score_coded(model, one), fitted.predict(one), atol=1e-5)
    nothing = Coded(numeric=TEST.inputs.numeric[:0], categorical=TEST.inputs.categorical[:0])
    assert fitted.predict(nothing).shape == (0,)


def test_the_portable_graph_routes_text_as_the_coded_graph_routes_codes(fitted):
    portable = to_portable(fitted.to_onnx(), signature=SIGNATURE, vocabulary=VOCABULARY)
    codes = np.array([[2, A], [3, B], [2, C], [3, UNSEEN_CODE], [2, NULL_CODE]])
    numeric = np.array([[0, 0], [1, 0], [0, 1], [1, np.nan], [np.nan, 0]], np.float32)
    table = pa.table(
        {
            "storm": numeric[:, 0],
            "visibility": numeric[:, 1],
            "carrier": ["AA", "UA", "AA", "UA", "AA"],
            "origin": ["a", "a/b", "c", "MARS", None],
        }
    )
    found = score_portable(portable, table, SIGNATURE)
    np.testing.assert_allclose(found, fitted.predict(Coded(numeric=numeric, categorical=codes)), atol=1e-5)


@pytest.mark.parametrize("name", TRAINERS)
def test_training_twice_gives_the_same_bytes(name):
    once, again = _fit(name), _fit(name)
    assert once.own
    assert once.outcomes == again.outcomes
    assert once.to_onnx() == again.to_onnx()


@dataclass(frozen=True)
class Constant(FittedModel):
    """Says one probability to everyone."""

    probability: float
    column: int = 0
    is_warm_started: bool = field(default=False, compare=False)

    def predict(self, inputs: Coded) -> np.ndarray:
        return np.full(len(inputs), self.probability)

    def to_onnx(self) -> bytes:
        # A row of [n, 1], as some libraries answer; the wrapper flattens it.
        return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
            constant (float[n, k] numeric, int64[n, m] categorical) => (float[n, 1] prediction)
            <int64[1] first = {{0}}, int64 zero = {{0}}, float p = {{{self.probability}}}>
            {{ code = Gather<axis = 1>(categorical, first)  number = Cast<to = 1>(code)
               nothing = Sub(number, number)  prediction = Add(nothing, p) }}""").SerializeToString()

    def weights(self) -> dict[str, np.ndarray]:
        return {"p": np.array([self.probability])}


class Share(Trainer):
    """Says the share of positives in train, and remembers what it was given; fails as it is told."""

    def __init__(self, failure: Exception | None = None):
        self.failure, self.calls = failure, []

    def fit(self, train: Labelled, validation: Labelled, **given) -> Constant:
        self.calls.append((train, validation, given))
        if self.failure and len(self.calls) == 2:
            raise self.failure
        return Constant(float(np.float32(train.labels.mean())), is_warm_started=given["warm_start"] is not None)


def _shares(n_rows: int, of_a: float, of_b: float) -> Labelled:
    """n rows of a and of b in turn, of which these shares are positive, spread evenly over them."""
    place = np.arange(2 * n_rows) // 2
    origin = np.where(np.arange(2 * n_rows) % 2, B, A)
    share = np.where(origin == A, of_a, of_b)
    label = np.floor((place + 1) * share + 1e-9) > np.floor(place * share + 1e-9)
    inputs = Coded(numeric=np.zeros((2 * n_rows, 2), np.float32), categorical=np.stack([origin, origin], axis=1))
    return Labelled(inputs=inputs, labels=label.astype(np.float32))


def test_a_segment_is_fitted_on_its_own_rows_of_train_with_the_same_settings_and_the_parents_weights():
    trainer = Share()
    train, validation = _shares(500, 0.4, 0.8), _shares(200, 0.4, 0.8)
    fitted = _fit(trainer, train=train, validation=validation)
    assert fitted.parent == Constant(float(np.float32(0.6)))
    assert fitted.own == {A: Constant(float(np.float32(0.4))), B: Constant(float(np.float32(0.8)))}
    assert len(trainer.calls) == 3
    for code, (of_train, of_validation, given) in zip((A, B), trainer.calls[1:], strict=True):
        assert len(of_train.labels) == 500
        assert len(of_validation.labels) == 200
        assert set(of_train.inputs.categorical[:, 1]) == set(of_validation.inputs.categorical[:, 1]) == {code}
        assert dict(given["warm_start"].weights) == {"p": pytest.approx(0.6)}
        assert {n: given[n] for n in ("seed", "hyperparameters", "signature", "vocabulary")} == {
            n: trainer.calls[0][2][n] for n in ("seed", "hyperparameters", "signature", "vocabulary")
        }


def test_the_weights_of_every_model_are_kept_and_each_starts_the_same_segment_next_time():
    fitted = _fit(Share(), train=_shares(500, 0.4, 0.8), validation=_shares(200, 0.4, 0.8))
    weights = {name: round(float(array[0]), 6) for name, array in fitted.weights().items()}
    assert weights == {"p": 0.6, "segments/origin/a/p": 0.4, "segments/origin/a%2Fb/p": 0.8}
    again = Share()
    start = WarmStart(weights=fitted.weights(), signature=SIGNATURE, vocabulary=VOCABULARY)
    _fit(again, train=_shares(500, 0.5, 0.9), validation=_shares(200, 0.5, 0.9), warm_start=start)
    found = [{n: round(float(p[0]), 6) for n, p in given["warm_start"].weights.items()} for *_, given in again.calls]
    assert found == [{"p": 0.6}, {"p": 0.4}, {"p": 0.8}]


def test_warm_networks_start_from_their_own_segment():
    cold = _fit("lightning")
    start = WarmStart(weights=cold.weights(), signature=SIGNATURE, vocabulary=VOCABULARY)
    warm = _fit("lightning", warm_start=start)
    assert warm.is_warm_started
    assert not cold.is_warm_started
    assert all(model.is_warm_started for model in (*cold.own.values(), *warm.own.values()))


def test_networks_whose_earlier_weights_no_longer_fit_start_from_the_parent_just_fitted():
    class Remembering(LightningTrainer):
        def fit(self, *rows: Labelled, **given) -> FittedNetwork:
            models.append(super().fit(*rows, **given))
            starts.append(given["warm_start"])
            return models[-1]

    models: list[FittedNetwork] = []
    starts: list[WarmStart] = []
    earlier = _fit("lightning")
    assert set(earlier.own) == {A, B}
    lent = WarmStart(weights=earlier.weights(), signature=SIGNATURE, vocabulary=VOCABULARY)
    wider = {**TRAINERS["lightning"][1], "layer_sizes": "16"}
    _fit(Remembering(), hyperparameters=wider, warm_start=lent)
    assert [model.is_warm_started for model in models] == [False, True, True]
    for start in starts[1:]:
        assert all(np.array_equal(array, start.weights[name]) for name, array in models[0].weights().items())


def test_a_model_that_is_not_better_beyond_the_noise_is_dropped():
    """The gains of two constants p and q on a label y are y ln(q/p) + (1 - y) ln((1-q)/(1-p)); the bound is t(9).

    Two segments are compared, so each is held to half of the 5 % that may seem better by chance.
    """
    train, validation = _shares(500, 0.50, 0.54), _shares(200, 0.40, 0.54)
    # Its positives come late: whole blocks without any, and others of nothing else.
    of_a = np.flatnonzero(validation.inputs.categorical[:, 1] == A)
    validation.labels[of_a] = np.sort(validation.labels[of_a])
    a, *_ = _fit(Share(), train=train, validation=validation).outcomes
    assert not a.has_own_model
    assert a.why_parent == "its own model is not better beyond the noise"
    y = validation.labels[validation.inputs.categorical[:, 1] == A].astype(np.float64)
    gains = np.where(y == 1, np.log(0.50 / 0.52), np.log(0.50 / 0.48))
    means = [gains[start : start + 20].mean() for start in range(0, 200, 20)]
    assert a.parent_loss - a.own_loss == pytest.approx(gains.mean(), abs=1e-6)
    assert a.margin == pytest.approx(stdtrit(9, 0.975) * np.std(means, ddof=1) / 10**0.5, rel=1e-3, abs=1e-8)
    # As they are, whatever the noise.
    lower = _fit(Share(), replace(SEGMENTS, confidence=0.5), train=train, validation=validation)
    assert lower.outcomes[0].has_own_model
    assert lower.outcomes[0].margin == 0.0
    worse = _fit(Share(), train=_shares(500, 0.4, 0.8), validation=_shares(200, 0.6, 0.6))
    assert worse.own == {}
    assert worse.outcomes[0].why_parent == "its own model is not better"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"minimum_rows": 501}, "500 train rows, 501 needed"),
        ({"minimum_of_each_class": 101}, "100 train rows of the rarer label, 101 needed"),
        ({"minimum_validation_rows": 201}, "200 validation rows, 201 needed"),
    ],
)
def test_too_few_rows_of_any_kind_leave_a_segment_to_the_parent(changes, reason):
    trainer = Share()
    data = {"train": _shares(500, 0.8, 0.8), "validation": _shares(200, 0.8, 0.8)}
    fitted = _fit(trainer, replace(SEGMENTS, **changes), **data)
    assert fitted.own == {}
    assert len(trainer.calls) == 1
    assert [outcome.why_parent for outcome in fitted.outcomes[:2]] == [reason, reason]
    assert all(outcome.parent_loss is None and outcome.own_loss is None for outcome in fitted.outcomes)


def test_a_segment_that_cannot_be_learned_is_left_to_the_parent_with_the_reason():
    for failure in (TrainingFailed("the loss is NaN"), TrainingDataMissing("one class only")):
        data = {"train": _shares(500, 0.4, 0.8), "validation": _shares(200, 0.4, 0.8)}
        fitted = _fit(Share(failure), **data)
        assert set(fitted.own) == {B}
        assert fitted.outcomes[0].why_parent == f"it could not be learned: {failure}"


def test_an_error_that_is_not_the_datas_is_raised():
    for failure in (ValueError("a bug"), InvalidDeclaration("x"), ProcessesDisagree("epochs [1, 2]"), MemoryError()):
        with pytest.raises(type(failure)):
            _fit(Share(failure))


def test_a_segment_of_one_class_is_left_to_the_parent_by_a_real_trainer():
    train = replace(TRAIN, labels=np.where(TRAIN.inputs.categorical[:, 1] == A, 0, TRAIN.labels).astype(np.float32))
    fitted = _fit("logistic", replace(SEGMENTS, minimum_of_each_class=0), train=train)
    assert fitted.outcomes[0].why_parent.startswith("it could not be learned: all 2000 labels of train are 0")


def test_a_regression_is_compared_by_squared_error_and_asked_for_no_classes():
    """Parent 20, own 10 and 30, labels 10 and 30 with +-1 in turn: losses 100 + 1 and 1."""

    def minutes(n: int) -> Labelled:
        shares = _shares(n, 0.0, 0.0)
        noise = np.where(np.arange(2 * n) // 2 % 2, 1.0, -1.0)
        middle = np.where(shares.inputs.categorical[:, 1] == A, 10.0, 30.0)
        return replace(shares, labels=(middle + noise).astype(np.float32))

    signature = replace(SIGNATURE, output=Output(task="regression", unit="minutes"))
    fitted = _fit(Share(), train=minutes(500), validation=minutes(200), signature=signature)
    a, b, c = fitted.outcomes
    assert (a.parent_loss, a.own_loss, b.own_loss) == pytest.approx((101, 1, 1))
    assert a.has_own_model
    assert b.has_own_model
    assert not c.has_own_model


def test_the_rounding_of_a_regression_in_the_hundreds_is_no_difference():
    """60 to 373 minutes, an eighth of one per mile; a storm takes 40 at a and adds 40 at b.

    float32 numbers above 256 lie 3.1e-5 apart, so the rounding alone is up to 1.5e-5.
    """
    signature = replace(SIGNATURE, output=Output(task="regression", unit="minutes"))

    def minutes(examples: Labelled, seed: int) -> Labelled:
        storm, origin = examples.inputs.numeric[:, 0], examples.inputs.categorical[:, 1]
        numeric = examples.inputs.numeric.copy()
        numeric[:, 1] = np.random.default_rng(seed).uniform(0, 2500, len(storm))
        labels = 60.3 + np.where(origin == A, -40.7, 40.7) * storm + numeric[:, 1] / 8
        return Labelled(inputs=replace(examples.inputs, numeric=numeric), labels=labels.astype(np.float32))

    train, validation = minutes(TRAIN, 1), minutes(VALIDATION, 2)
    fitted = _fit(
        train=train, validation=validation, signature=signature, hyperparameters={"estimator": "linear_regression"}
    )
    assert set(fitted.own) == {A, B}
    scale = answer_scale(train.labels, "regression")
    for code, model in fitted.own.items():
        of_segment = [_with_origin(validation.inputs, code)]
        assert compare(model.to_onnx(), model, of_segment, scale=scale).largest_difference <= 1e-5
        with pytest.raises(PackageRefused, match="differs from the fitted model by 1"):
            compare(model.to_onnx(), model, of_segment)


def test_a_graph_whose_library_says_otherwise_is_refused():
    class Liar(Share):
        def fit(self, train: Labelled, validation: Labelled, **given) -> Constant:
            fitted = super().fit(train, validation, **given)
            if len(self.calls) == 1:
                return fitted

            class Lie(Constant):
                def to_onnx(self) -> bytes:
                    return Constant(self.probability + 0.1).to_onnx()

            return Lie(fitted.probability)

    with pytest.raises(PackageRefused, match=r"differs from the fitted model by 0\.1"):
        _fit(Liar(), train=_shares(500, 0.4, 0.8), validation=_shares(200, 0.4, 0.8))


def test_graphs_of_other_operator_sets_are_not_joined():
    one = Constant(0.5).to_onnx()
    other = onnx.load_model_from_string(one)
    other.opset_import[0].version = 18
    with pytest.raises(PackageRefused, match="different operator sets"):
        routed(one, {2: other.SerializeToString()}, column=1, cardinality=5)


def test_what_cannot_be_segmented_by_is_refused_by_name(use_case, inputs):
    with pytest.raises(InvalidDeclaration, match=r"no categorical input 'storm' to segment by; there are \['carrier'"):
        _fit("logistic", replace(SEGMENTS, by="storm"))
    for wrong in ({"confidence": 1.0}, {"confidence": 0.4}, {"minimum_rows": 0}, {"minimum_of_each_class": -1}):
        with pytest.raises(InvalidDeclaration):
            replace(SEGMENTS, **wrong)
    views = {
        name: LatestView(
            name=name,
            table=f"features.{name}",
            entity=("origin",),
            known_at="known_at",
            max_age=timedelta(hours=3),
            features=tuple(feature for feature in inputs if feature.view == name),
        )
        for name in ("schedule", "weather")
    }
    by_origin = replace(use_case, segments=Segments(by="origin"))
    assert len(by_origin.inputs(views)) == 3
    with pytest.raises(InvalidDeclaration, match=r"segments by 'is_holiday', which is none of its .* \['origin'\]"):
        replace(use_case, segments=Segments(by="is_holiday")).inputs(views)


def test_a_segmented_candidate_is_packaged_scored_and_told_apart_by_its_recipe(trained, train, use_case):
    """The rule of these examples (storms delay at EWR only) is one of segments; logistic regression cannot learn it."""
    plain = replace(use_case, trainer="sklearn", hyperparameters={"estimator": "logistic_regression"})
    least = {"minimum_rows": 300, "minimum_of_each_class": 20, "minimum_validation_rows": 50, "confidence": 0.8}
    own = replace(plain, segments=Segments(by="origin", **least))
    store = type(trained[2])()
    global_model, segmented = train(use_case=plain).package, train(use_case=own, store=store).package
    package = load_package(store, own.name, segmented.version)
    assert package.version != global_model.version
    assert package.manifest.recipe.segments == own.segments
    assert train(use_case=own).package.package_hash == package.package_hash
    changed = replace(own, segments=Segments(by="origin", **{**least, "minimum_rows": 301}))
    assert train(use_case=changed).package.version != package.version
    outcomes = {outcome.value: outcome for outcome in package.metrics.segments}
    assert list(outcomes) == ["EWR", "JFK", "LGA"]
    assert outcomes["EWR"].has_own_model
    assert package.metrics.holdout.log_loss < global_model.metrics.holdout.log_loss - 0.02
    assert global_model.metrics.segments == ()
    # An origin that train never saw is the parent's.
    mars = trained[0].test.set_column(3, "origin", pa.array(["MARS"] * trained[0].test.num_rows))
    np.testing.assert_array_equal(score(package, mars), score(global_model, mars))
