import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.evaluation import evaluate, log_loss
from ml_assets.core.tasks import CLASSIFICATION, REGRESSION


def _table(labels: list[bool], **columns: list[object]) -> pa.Table:
    return pa.table({**columns, "label": pa.array(labels, pa.bool_())})


def test_the_base_rate_is_the_share_of_the_training_rows_not_of_the_test_rows():
    train = _table([True, False, False, False], x=[1.0, 2.0, 3.0, 4.0])
    test = _table([True, True, False], x=[1.0, 2.0, 3.0])
    found = evaluate(test["label"].to_numpy(), CLASSIFICATION.baselines(train, test, ["x"])["base_rate"])
    assert found.log_loss == pytest.approx(-(2 * np.log(0.25) + np.log(0.75)) / 3)
    assert found.roc_auc == 0.5


def test_the_logistic_baseline_equals_a_sklearn_pipeline_that_fills_and_encodes():
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    generator = np.random.default_rng(3)
    wind = generator.normal(10, 5, 600)
    wind_or_missing = [None if i % 7 == 0 else float(v) for i, v in enumerate(wind)]
    carriers = [["AA", "UA", "B6"][i % 3] for i in range(600)]
    labels = list(generator.random(600) < 1 / (1 + np.exp(-(wind - 12) / 4)))
    whole = _table(labels, wind_speed_mph=wind_or_missing, carrier=carriers)
    train, test = whole.slice(0, 400), whole.slice(400)

    peer = make_pipeline(
        make_column_transformer(
            # sklearn standardises after filling, which shrinks the spread: fill with NaN kept aside gives ours.
            (make_pipeline(StandardScaler(), SimpleImputer()), ["wind_speed_mph"]),
            (OneHotEncoder(handle_unknown="ignore"), ["carrier"]),
        ),
        LogisticRegression(tol=1e-8, max_iter=1000),
    ).fit(train.to_pandas(), labels[:400])
    expected = sk.log_loss(labels[400:], peer.predict_proba(test.to_pandas())[:, 1])

    found = CLASSIFICATION.baselines(train, test, ["wind_speed_mph", "carrier"])["logistic"]
    assert log_loss(labels[400:], found) == pytest.approx(expected, abs=1e-5)


def test_an_unseen_category_and_a_column_that_is_always_missing_do_not_break_the_baseline():
    empty = pa.array([None] * 4, pa.float64())
    train = pa.table({"carrier": ["AA", "UA", "AA", None], "gust": empty, "label": [True, False, True, False]})
    test = pa.table({"carrier": ["ZZ", "UA", None, "AA"], "gust": empty, "label": [True, False, False, True]})
    assert np.isfinite(CLASSIFICATION.baselines(train, test, ["carrier", "gust"])["logistic"]).all()


def test_training_rows_of_one_class_say_that_more_days_are_needed():
    with pytest.raises(TrainingDataMissing, match=r"0 positive labels.*train on more days"):
        CLASSIFICATION.baselines(_table([False] * 3, x=[1.0, 2.0, 3.0]), _table([True], x=[1.0]), ["x"])


def test_the_mean_is_that_of_the_training_rows_and_the_line_is_fitted_by_hand():
    # Two points at x = -1 and 1 standardised, labels 100 and 300: ridge of 1 over 2 rows gives a slope of 200 / 3.
    train = pa.table({"x": [10.0, 20.0], "label": [100.0, 300.0]})
    test = pa.table({"x": [10.0, 15.0, 25.0, None], "label": [0.0, 0.0, 0.0, 0.0]})
    found = REGRESSION.baselines(train, test, ["x"])
    assert found["mean"].tolist() == [200.0] * 4
    assert found["linear"] == pytest.approx([200 - 200 / 3, 200, 200 + 2 * 200 / 3, 200], abs=1e-4)


def test_whole_numbers_are_labels_too_and_no_training_row_is_refused():
    train = pa.table({"carrier": ["AA", "UA", None], "label": pa.array([1, 2, 6], pa.int64())})
    assert REGRESSION.baselines(train, train, ["carrier"])["mean"].tolist() == [3.0] * 3
    with pytest.raises(TrainingDataMissing, match="there are no training rows"):
        REGRESSION.baselines(train.slice(0, 0), train, ["carrier"])
