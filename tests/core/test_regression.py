"""The metrics of a regression against sklearn and by hand, their intervals, and their comparison over days."""

import msgspec
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ml_assets.core.intervals import confidence_intervals, resampled_regression_metrics
from ml_assets.core.paired_bootstrap import DayResamples, Estimate
from ml_assets.core.regression import RegressionMetrics, evaluate_regression, prediction_bins, rmse
from ml_assets.core.tasks import CLASSIFICATION, REGRESSION, meaning_of


def _rows(n_days: int, n_per_day: int, *, seed: int, error: float = 10.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return minutes, predictions and the day of each row; a day shifts all of its minutes by its own amount."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(n_days), n_per_day)
    predictions = draw.uniform(40, 400, len(day))
    labels = predictions + draw.normal(0, 5, n_days)[day] + draw.normal(0, error, len(day))
    return labels, predictions, day


def test_the_metrics_agree_with_sklearn():
    y, p, _ = _rows(5, 101, seed=1)
    found = evaluate_regression(y, p)
    assert found.rmse == pytest.approx(sk.root_mean_squared_error(y, p)) == pytest.approx(rmse(y, p))
    assert found.mae == pytest.approx(sk.mean_absolute_error(y, p))
    assert found.median_absolute_error == pytest.approx(sk.median_absolute_error(y, p))
    assert found.r2 == pytest.approx(sk.r2_score(y, p))
    assert found.bias == pytest.approx(p.mean() - y.mean())
    assert (found.mean_label, found.label_spread, found.n_rows) == (
        pytest.approx(y.mean()),
        pytest.approx(y.std()),
        505,
    )


def test_the_calibration_error_is_the_mean_distance_of_the_means_over_tenths():
    # Five rows at 100 that were 90 on average, five at 200 that were 206: (10 + 6) / 2.
    found = evaluate_regression([80, 85, 90, 95, 100, 200, 203, 206, 209, 212], [100] * 5 + [200] * 5)
    assert found.calibration_error == pytest.approx(8)
    assert found.bias == pytest.approx((10 - 6) / 2)


def test_bins_have_what_was_predicted_what_happened_and_how_far_they_lie_apart():
    low, high = prediction_bins([80, 120, 200, 230], [100, 100, 220, 220], n_bins=2)
    assert (low.mean_prediction, low.mean_label, low.mean_absolute_error, low.n_rows, low.bias) == (100, 100, 20, 2, 0)
    assert (high.mean_prediction, high.mean_label, high.mean_absolute_error, high.bias) == (220, 215, 15, 5)


def test_equal_labels_leave_no_variance_to_explain():
    found = evaluate_regression([7.0, 7.0], [6.0, 8.0])
    assert (found.r2, found.rmse, found.label_spread) == (None, 1, 0)


@pytest.mark.parametrize(
    ("labels", "predictions", "words"),
    [
        ([1.0, np.nan], [1.0, 2.0], "1 of 2 labels that are no finite number"),
        ([1.0, 2.0], [np.inf, 2.0], "1 of 2 predictions that are no finite number"),
        ([], [], "expected"),
        ([1.0], [1.0, 2.0], r"shape \(1,\) and predictions of shape \(2,\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels: list[float], predictions: list[float], words: str):
    with pytest.raises(ValueError, match=words):
        evaluate_regression(labels, predictions)


def test_metrics_survive_json():
    found = evaluate_regression([1.0, 2.0], [1.5, 2.5])
    assert msgspec.json.decode(msgspec.json.encode(found), type=RegressionMetrics, strict=True) == found


def test_a_resample_is_worth_the_rows_of_its_days_as_often_as_they_were_drawn():
    y, p, day = _rows(5, 30, seed=3)
    draws = np.array([[1, 2, 0], [1, 0, 0], [1, 1, 3], [1, 2, 2], [1, 0, 0]], np.float64)
    found = resampled_regression_metrics(y, p, day, draws)
    resamples = DayResamples(day=day.astype(np.int64), weights=draws.T)
    paired = {name: resamples.figure(name, y, p) for name in ("rmse", "mae", "r2")}
    for column in range(3):
        rows = np.repeat(np.arange(150), draws[day, column].astype(int))
        expected = evaluate_regression(y[rows], p[rows])
        for name in ("rmse", "mae", "r2", "bias"):
            assert found[name][column] == pytest.approx(getattr(expected, name)), name
        for name, values in paired.items():
            assert values[column] == pytest.approx(getattr(expected, name)), name


def test_with_one_row_a_day_the_interval_of_the_mean_error_is_that_of_a_mean():
    y, p, day = _rows(2000, 1, seed=5)
    half = 1.96 * np.abs(p - y).std() / np.sqrt(2000)
    found = confidence_intervals(y, p, day, seed=1, n_resamples=2000, task="regression")
    assert set(found) == {"rmse", "mae", "bias", "r2"}
    assert found["mae"].low == pytest.approx(np.abs(p - y).mean() - half, abs=half / 8)
    assert found["mae"].high == pytest.approx(np.abs(p - y).mean() + half, abs=half / 8)


def test_equal_labels_have_an_interval_of_the_error_and_none_of_r2():
    found = confidence_intervals(np.full(40, 3.0), np.arange(40.0), np.arange(40) % 5, seed=1, task="regression")
    assert set(found) == {"rmse", "mae", "bias"}
    comparison = DayResamples.of(np.arange(40) % 5, seed=1).compare(
        np.full(40, 3.0), np.full(40, 3.5), np.full(40, 5.0), task="regression"
    )
    assert comparison.gains.keys() == {"rmse", "mae"}
    assert comparison.gains["rmse"].value == pytest.approx(1.5)


def test_the_standard_error_of_a_mean_error_over_days_is_that_of_the_days():
    y, p, day = _rows(21, 60, seed=4)
    resamples = DayResamples.of(day, seed=13, n_resamples=20_000)
    estimate = resamples.estimate(resamples.mae(y, p))
    by_day = [np.abs(p - y)[day == d].mean() for d in range(21)]
    assert estimate is not None
    assert estimate.standard_error == pytest.approx(stats.sem(by_day), rel=0.03)


def test_two_equal_models_are_called_better_in_about_5_of_100_worlds_and_a_better_one_nearly_always():
    n_better, n_clearly = 0, 0
    for seed in range(200):
        y, p, day = _rows(21, 30, seed=seed)
        draw = np.random.default_rng(seed + 1000)
        one, other = (p + draw.normal(0, 3, 21)[day] + draw.normal(0, 8, len(y)) for _ in range(2))
        resamples = DayResamples.of(day, seed=13, n_resamples=300)
        for candidate, is_equal in ((one, True), (p, False)):
            gain = resamples.gain(REGRESSION.loss, y, candidate, other)
            assert gain is not None
            margin = gain.margin(0.95)
            assert margin is not None
            n_better += is_equal and gain.value > margin
            n_clearly += not is_equal and gain.value > margin
    # 10 expected of 200; more than 19 in 2 of 1,000 such tests.
    assert 1 <= n_better <= 19
    assert n_clearly >= 195


def test_a_model_gains_nothing_over_itself():
    y, p, day = _rows(6, 20, seed=2)
    comparison = DayResamples.of(day, seed=13).compare(y, p, p, task="regression")
    assert comparison.gains == dict.fromkeys(("rmse", "mae", "r2"), Estimate(value=0, standard_error=0, n_days=6))
    assert comparison.other == evaluate_regression(y, p)


def test_every_measure_of_a_task_is_a_field_of_its_metrics_and_every_compared_one_can_be_resampled():
    y, p, day = _rows(3, 10, seed=1)
    labels = (y > 200).astype(np.float64)
    cases = ((REGRESSION, y, p), (CLASSIFICATION, labels, p / 500))
    for meaning, truth, predicted in cases:
        assert meaning_of(meaning.task) is meaning
        figures = meaning.figures(meaning.evaluate(truth, predicted))
        resamples = DayResamples.of(day, seed=1, n_resamples=5)
        for measure in meaning.compared:
            assert resamples.figure(measure.name, truth, predicted)[0] == pytest.approx(figures[measure.name])
        assert {m.name for m in (*meaning.sliced, meaning.loss, meaning.daily)} <= set(figures)
        assert {name for name, _ in meaning.beats} == set(meaning.baseline_words)
        assert meaning.loss_of(truth, predicted) == figures[meaning.loss.name]


def test_a_sentence_has_the_unit_of_the_label():
    metrics = evaluate_regression([100, 200, 300], [110, 190, 330])
    assert REGRESSION.sentence(metrics, "minutes") == "RMSE 19.15 minutes, MAE 16.67 minutes, R2 0.9450"
    assert REGRESSION.sentence(metrics, None, n_measures=1) == "RMSE 19.15"
    assert CLASSIFICATION.sentence(CLASSIFICATION.evaluate([1, 1], [0.5, 0.5]), None, n_measures=3).startswith(
        "ROC AUC -, PR AUC -, log loss 0.6931"
    )
