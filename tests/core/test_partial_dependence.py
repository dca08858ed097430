"""Partial dependence against formulas."""

import numpy as np
import pytest

from ml_assets.core.encoding import NULL_CODE, Coded, Input, Signature, Vocabulary
from ml_assets.core.evaluation import Floats
from ml_assets.core.partial_dependence import partial_dependence

SIGNATURE = Signature(
    numeric=(Input(name="wind", view="weather", description=""), Input(name="rain", view="weather", description="")),
    categorical=(Input(name="carrier", view="schedule", description="", kind="text"),),
)
VOCABULARY = Vocabulary(values={"carrier": ("AA", "DL", "UA")})
EFFECTS = np.array([0.0, 0.0, 0.5, -1.0, 2.0])  # by code: null, unseen, AA, DL, UA


def logit(inputs: Coded) -> Floats:
    wind = np.nan_to_num(inputs.numeric[:, 0].astype(np.float64), nan=-2.0)
    return 0.3 * wind - 0.7 * inputs.numeric[:, 1] + EFFECTS[inputs.categorical[:, 0]]


def probability(inputs: Coded) -> Floats:
    return 1 / (1 + np.exp(-logit(inputs)))


def examples(n: int, *, seed: int) -> Coded:
    draw = np.random.default_rng(seed)
    numeric = draw.normal(size=(n, 2)).astype(np.float32)
    # 60 of 100 fly UA, 30 DL, 10 say nothing.
    codes = np.repeat([4, 3, NULL_CODE], [6, 3, 1])[np.arange(n) % 10]
    return Coded(numeric=numeric, categorical=codes[:, np.newaxis])


ROWS, TRAIN = examples(50, seed=1), examples(2000, seed=2)


def curve(feature: str, *, predict=probability, train: Coded = TRAIN):
    return partial_dependence(predict, ROWS, feature=feature, train=train, signature=SIGNATURE, vocabulary=VOCABULARY)


def test_the_curve_of_a_linear_logit_is_the_mean_of_its_formula():
    found = curve("wind")
    values = np.array([point.value for point in found.points])
    assert len(values) == 21
    assert list(values) == sorted(values)
    assert values[10] == pytest.approx(np.median(TRAIN.numeric[:, 0]), abs=0.01)
    rest = -0.7 * ROWS.numeric[:, 1] + EFFECTS[ROWS.categorical[:, 0]]
    expected = [np.mean(1 / (1 + np.exp(-(0.3 * value + rest)))) for value in values]
    assert [point.mean for point in found.points] == pytest.approx(expected, rel=1e-5)
    assert (found.feature.name, found.n_rows, found.n_other) == ("wind", 50, 0)
    assert sum(point.share for point in found.points) == pytest.approx(1.0)


def test_the_band_is_as_wide_as_rows_differ_in_what_the_feature_does_to_them():
    straight = curve("wind", predict=logit)
    # Additive on the logit: every row's curve has the same shape, whatever its height.
    for point in straight.points:
        assert (point.low, point.high) == (pytest.approx(point.mean), pytest.approx(point.mean))
    crossed = curve("wind", predict=lambda rows: rows.numeric[:, 0].astype(np.float64) * np.sign(rows.numeric[:, 1]))
    first, last = crossed.points[0], crossed.points[-1]
    # Half of the rows rise as the others fall.
    assert first.high - first.low > 1.5 * abs(first.value)
    assert last.high - last.low > 1.5 * abs(last.value)


def test_null_is_a_point_of_its_own_with_its_share():
    numeric = TRAIN.numeric.copy()
    numeric[:500, 0] = np.nan
    found = curve("wind", train=Coded(numeric=numeric, categorical=TRAIN.categorical))
    null = found.points[-1]
    assert (null.value, null.share) == (None, 0.25)
    rest = -0.7 * ROWS.numeric[:, 1] + EFFECTS[ROWS.categorical[:, 0]]
    assert null.mean == pytest.approx(np.mean(1 / (1 + np.exp(-(-0.6 + rest)))), rel=1e-5)
    assert all(point.value is not None for point in found.points[:-1])


def test_categories_come_by_frequency_null_last_and_unseen_ones_not_at_all():
    found = curve("carrier")
    assert [(point.value, point.share) for point in found.points] == [("UA", 0.6), ("DL", 0.3), (None, 0.1)]
    rest = 0.3 * ROWS.numeric[:, 0] - 0.7 * ROWS.numeric[:, 1]
    assert found.points[1].mean == pytest.approx(np.mean(1 / (1 + np.exp(-(rest - 1.0)))), rel=1e-5)


def test_only_the_most_frequent_categories_are_drawn_and_the_others_counted():
    names = tuple(f"C{number:02}" for number in range(13))
    codes = np.concatenate([np.full(20 - number, 2 + number) for number in range(13)])
    train = Coded(numeric=np.zeros((len(codes), 2), np.float32), categorical=codes[:, np.newaxis])
    found = partial_dependence(
        lambda rows: rows.numeric[:, 0].astype(np.float64),
        ROWS,
        feature="carrier",
        train=train,
        signature=SIGNATURE,
        vocabulary=Vocabulary(values={"carrier": names}),
    )
    assert [point.value for point in found.points] == list(names[:10])
    assert found.n_other == 3


def test_a_column_without_a_single_value_has_the_point_of_null_only():
    empty = Coded(numeric=np.full((4, 2), np.nan, np.float32), categorical=np.full((4, 1), 2))
    assert [(point.value, point.share) for point in curve("wind", train=empty).points] == [(None, 1.0)]


def test_a_feature_the_model_does_not_read_is_refused():
    with pytest.raises(ValueError, match="reads no 'snow'; it reads"):
        curve("snow")
