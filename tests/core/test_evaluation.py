import msgspec
import numpy as np
import pytest
from sklearn import metrics as sk

from ml_assets.core.evaluation import Metrics, calibration_curve, evaluate


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
