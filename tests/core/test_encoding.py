import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.errors import BadInput
from ml_assets.core.feature_views import Feature

TRAIN = pa.table(
    {"origin": ["LGA", "EWR", None], "wind_speed_mph": [1.0, None, 3.0], "is_holiday": [True, False, None]}
)


@pytest.fixture
def signature(inputs) -> Signature:
    return Signature.of(inputs)


def test_codes_are_null_0_unseen_1_then_the_sorted_values_of_train(signature):
    vocabulary = Vocabulary.of(TRAIN, signature)
    assert vocabulary.values == {"origin": ("EWR", "LGA")}
    assert vocabulary.cardinality("origin") == 4
    day = pa.table({"origin": ["EWR", None, "JFK", "LGA"], "wind_speed_mph": [0.0] * 4, "is_holiday": [True] * 4})
    coded = encode(day, signature, vocabulary)
    assert coded.categorical.tolist() == [[2], [0], [1], [3]]
    assert coded.categorical.dtype == np.int64


def test_null_numbers_are_nan_and_booleans_are_0_and_1(signature):
    coded = encode(TRAIN, signature, Vocabulary.of(TRAIN, signature))
    expected = np.array([[1.0, 1.0], [np.nan, 0.0], [3.0, np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(coded.numeric, expected)
    assert coded.numeric.dtype == np.float32


def test_the_empty_text_is_null_in_training_and_in_scoring(signature):
    blank = TRAIN.set_column(0, "origin", pa.array(["LGA", "", None]))
    vocabulary = Vocabulary.of(blank, signature)
    assert vocabulary.values == {"origin": ("LGA",)}
    assert encode(blank, signature, vocabulary).categorical.tolist() == [[2], [0], [0]]


def test_a_signature_says_kind_and_unit_of_each_input():
    features = (
        Feature(name="wind_speed_mph", kind="numeric", view="weather", unit="mph"),
        Feature(name="is_holiday", kind="numeric", view="schedule"),
        Feature(name="origin", kind="categorical", view="schedule"),
    )
    found = Signature.of(features)
    assert [(i.name, i.kind, i.unit) for i in (*found.numeric, *found.categorical)] == [
        ("wind_speed_mph", "number", "mph"),
        ("is_holiday", "boolean", None),
        ("origin", "text", None),
    ]


def test_chunks_dictionaries_and_an_all_null_column_encode_the_same(signature):
    vocabulary = Vocabulary.of(TRAIN, signature)
    plain = encode(TRAIN, signature, vocabulary)
    chunked = pa.concat_tables([TRAIN.slice(0, 1), TRAIN.slice(1)])
    dictionary = TRAIN.set_column(0, "origin", TRAIN["origin"].dictionary_encode())
    for table in (chunked, dictionary):
        np.testing.assert_array_equal(encode(table, signature, vocabulary).categorical, plain.categorical)
    silent = TRAIN.set_column(0, "origin", pa.nulls(3)).set_column(1, "wind_speed_mph", pa.nulls(3, pa.float64()))
    coded = encode(silent, signature, vocabulary)
    assert coded.categorical.tolist() == [[0], [0], [0]]
    assert np.isnan(coded.numeric[:, 0]).all()


def test_no_rows_give_arrays_of_no_rows(signature):
    coded = encode(TRAIN.slice(0, 0), signature, Vocabulary.of(TRAIN, signature))
    assert (coded.numeric.shape, coded.categorical.shape) == ((0, 2), (0, 1))


def test_a_missing_or_retyped_column_is_named(signature):
    vocabulary = Vocabulary.of(TRAIN, signature)
    with pytest.raises(BadInput, match=r"lack the columns \['is_holiday'\]"):
        encode(TRAIN.drop_columns(["is_holiday"]), signature, vocabulary)
    with pytest.raises(BadInput, match="'wind_speed_mph' has the type string; expected a number"):
        encode(TRAIN.set_column(1, "wind_speed_mph", pa.array(["1", "2", "3"])), signature, vocabulary)
    with pytest.raises(BadInput, match="'origin' has the type int64; expected text"):
        encode(TRAIN.set_column(0, "origin", pa.array([1, 2, 3])), signature, vocabulary)
