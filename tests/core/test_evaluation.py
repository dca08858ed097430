import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.evaluation import Metrics, calibration_curve, evaluate, evaluate_baselines


@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_the_metrics_agree_with_sklearn_also_where_predictions_tie(decimals: int):
    generator = np.random.default_rng(decimals)
    predictions = np.round(generator.beta(2, 5, 500), decimals)
    labels = generator.random(500) < predictions

    found = evaluate(labels, predictions)

    assert found.roc_auc == pytest.approx(sk.roc_auc_score(labels, predictions))
    assert found.pr_auc == pytest.approx(sk.average_precision_score(labels, predictions))
    assert found.log_loss == pytest.approx(sk.log_loss(labels, predictions))
    assert found.brier == pytest.approx(sk.brier_score_loss(labels, predictions))
    assert (found.n_rows, found.positive_share) == (500, pytest.approx(labels.mean()))


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinitely_much():
    assert evaluate([True, False], [0.0, 0.0]).log_loss == pytest.approx(sk.log_loss([1, 0], [0.0, 0.0]))


def test_ranking_metrics_are_none_where_one_class_is_absent():
    for labels in ([True, True], [False, False]):
        found = evaluate(labels, [0.2, 0.8])
        assert found.roc_auc is None
        assert found.pr_auc is None
        assert found.log_loss > 0


def test_the_calibration_error_is_the_mean_distance_over_equal_count_bins():
    # Bins of five: 0.1 predicted, 0 of 5 happen; 0.5 predicted, 4 of 5 happen. (0.1 + 0.3) / 2.
    found = evaluate([0] * 5 + [1, 1, 1, 1, 0], [0.1] * 5 + [0.5] * 5)
    assert found.calibration_error == pytest.approx(0.2)


def test_the_calibration_curve_has_bins_of_equal_count():
    predictions = (np.arange(100) + 0.5) / 100
    curve = calibration_curve(predictions > 0.5, predictions)
    assert [b.n_rows for b in curve] == [10] * 10
    assert [b.mean_prediction for b in curve] == pytest.approx(np.arange(0.05, 1, 0.1))
    assert [b.positive_share for b in curve] == [0.0] * 5 + [1.0] * 5


def test_the_order_of_the_rows_changes_no_metric():
    generator = np.random.default_rng(7)
    predictions = np.round(generator.random(300), 1)
    labels = generator.random(300) < 0.4
    order = generator.permutation(300)
    assert calibration_curve(labels, predictions) == calibration_curve(labels[order], predictions[order])


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [([], []), ([1, 0], [0.5]), ([0, 2], [0.5, 0.5]), ([0, 1], [0.5, float("nan")]), ([0, 1], [0.5, 1.5])],
)
def test_what_cannot_be_evaluated_raises_instead_of_becoming_a_number(labels: list[int], predictions: list[float]):
    with pytest.raises(ValueError, match=r"found .* expected|found a label"):
        evaluate(labels, predictions)


def test_metrics_survive_json():
    found = evaluate([True, True], [0.8, 0.9])
    assert msgspec.json.decode(msgspec.json.encode(found), type=Metrics, strict=True) == found


def _table(labels: list[bool], **columns: list[object]) -> pa.Table:
    return pa.table({**columns, "label": pa.array(labels, pa.bool_())})


def test_the_base_rate_is_the_share_of_the_training_rows_not_of_the_test_rows():
    train = _table([True, False, False, False], x=[1.0, 2.0, 3.0, 4.0])
    test = _table([True, True, False], x=[1.0, 2.0, 3.0])
    found = evaluate_baselines(train, test, ["x"])["base_rate"]
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

    found = evaluate_baselines(train, test, ["wind_speed_mph", "carrier"])["logistic"]
    assert found.log_loss == pytest.approx(expected, abs=1e-5)


def test_an_unseen_category_and_a_column_that_is_always_missing_do_not_break_the_baseline():
    empty = pa.array([None] * 4, pa.float64())
    train = pa.table({"carrier": ["AA", "UA", "AA", None], "gust": empty, "label": [True, False, True, False]})
    test = pa.table({"carrier": ["ZZ", "UA", None, "AA"], "gust": empty, "label": [True, False, False, True]})
    assert evaluate_baselines(train, test, ["carrier", "gust"])["logistic"].n_rows == 4


def test_training_rows_of_one_class_say_that_more_days_are_needed():
    with pytest.raises(TrainingDataMissing, match=r"0 positive labels.*train on more days"):
        evaluate_baselines(_table([False] * 3, x=[1.0, 2.0, 3.0]), _table([True], x=[1.0]), ["x"])
