"""Permutation importance on models whose form is known."""

import numpy as np
import pytest

from ml_assets.core.encoding import Coded, Input, Signature
from ml_assets.core.evaluation import Floats
from ml_assets.core.importance import permutation_importance
from ml_assets.core.paired_bootstrap import DayResamples

N_ROWS, N_DAYS = 600, 12
SIGNATURE = Signature(
    numeric=(
        Input(name="wind", view="weather", description=""),
        Input(name="gust", view="weather", description=""),
        Input(name="distance", view="schedule", description=""),
    ),
    categorical=(Input(name="carrier", view="schedule", description="", kind="text"),),
)


def rows() -> Coded:
    draw = np.random.default_rng(3)
    wind = draw.uniform(-1, 1, N_ROWS)
    numeric = np.column_stack([wind, wind, draw.uniform(-1, 1, N_ROWS)]).astype(np.float32)
    return Coded(numeric=numeric, categorical=draw.integers(2, 5, (N_ROWS, 1)))


DAYS = np.arange(N_ROWS) % N_DAYS


def squares(labels: Floats, predictions: Floats) -> Floats:
    return (labels - predictions) ** 2


def found(predict, labels, **changes):
    arguments = {"signature": SIGNATURE, "losses": squares, "metric": None, "seed": 1, **changes}
    return permutation_importance(predict, rows(), labels, DAYS, **arguments)


def test_a_model_of_one_column_leans_on_that_column_alone_and_on_its_view():
    labels = rows().numeric[:, 0].astype(np.float64)
    result = found(lambda inputs: inputs.numeric[:, 0].astype(np.float64), labels)
    assert (result.loss, result.n_rows, result.n_repeats) == (0.0, N_ROWS, 3)
    first, *others = result.features
    assert first.name == "wind"
    # Two independent draws of one distribution differ by twice its variance, squared and on average.
    assert first.loss_increase.value == pytest.approx(2 * labels.var(), rel=0.1)
    assert first.loss_increase.standard_error < 0.1 * first.loss_increase.value
    assert {(one.name, one.loss_increase.value, one.loss_increase.standard_error) for one in others} == {
        ("gust", 0.0, 0.0),
        ("distance", 0.0, 0.0),
        ("carrier", 0.0, 0.0),
    }
    assert [(view.name, view.loss_increase.value) for view in result.views] == [
        ("weather", first.loss_increase.value),
        ("schedule", 0.0),
    ]


def test_columns_of_a_view_that_say_the_same_are_shuffled_together():
    labels = rows().numeric[:, 0].astype(np.float64)
    result = found(lambda inputs: inputs.numeric[:, :2].mean(axis=1).astype(np.float64), labels)
    alone = {one.name: one.loss_increase.value for one in result.features}
    view = result.views[0]
    # With one of two equal columns shuffled the mean is half wrong: a quarter of the squared error of both.
    assert view.name == "weather"
    assert view.loss_increase.value == pytest.approx(4 * alone["wind"], rel=1e-5)
    assert alone["gust"] == pytest.approx(alone["wind"], rel=1e-5)


def test_a_category_counts_as_well_and_the_ranking_falls_to_chance():
    labels = (rows().categorical[:, 0] == 3).astype(np.float64)
    result = found(
        lambda inputs: np.where(inputs.categorical[:, 0] == 3, 0.9, 0.1), labels, metric=DayResamples.roc_auc
    )
    first = result.features[0]
    assert first.name == "carrier"
    # A perfect ranking has the area 1, a shuffled one 0.5.
    assert first.metric_drop.value == pytest.approx(0.5, abs=0.03)
    assert result.features[1].metric_drop.value == 0.0


def test_the_seed_decides_and_the_rows_stay_as_they_are():
    inputs, labels = rows(), rows().numeric[:, 2].astype(np.float64)
    before = inputs.numeric.copy(), inputs.categorical.copy()

    def predict(coded: Coded) -> Floats:
        return coded.numeric[:, 2].astype(np.float64)

    arguments = {"signature": SIGNATURE, "losses": squares, "metric": None}
    one, same, other = (
        permutation_importance(predict, inputs, labels, DAYS, seed=seed, **arguments) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.features[0].loss_increase.value != other.features[0].loss_increase.value
    assert (inputs.numeric == before[0]).all()
    assert (inputs.categorical == before[1]).all()


def test_the_noise_holds_that_of_the_days():
    labels = np.where(DAYS == 0, 100.0, 0.0) * np.sign(rows().numeric[:, 0])
    result = found(lambda inputs: 100.0 * np.sign(inputs.numeric[:, 0]) * (DAYS == 0), labels)
    first = result.features[0]
    # All of the increase is of one day in twelve: drawn 0, 1, 2 ... times, the mean spreads by about its own size.
    assert first.loss_increase.standard_error == pytest.approx(first.loss_increase.value, rel=0.35)
