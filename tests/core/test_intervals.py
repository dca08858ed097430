"""Intervals by days: against sklearn on the rows a draw stands for, and against what is known of simulated days."""

from time import process_time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from ml_assets.core.intervals import confidence_intervals, day_resamples, resampled_metrics


def _rows(n_days: int, n_per_day: int, *, seed: int, day_effect: float = 0.0):
    """Labels, predictions and day of rows whose days share a shift of their log odds, unknown to the predictions."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(n_days), n_per_day)
    score = draw.normal(0, 1, len(day))
    odds = score - 1 + day_effect * draw.normal(0, 1, n_days)[day]
    labels = draw.random(len(day)) < 1 / (1 + np.exp(-odds))
    return labels, 1 / (1 + np.exp(1 - score)), day


def test_a_resample_is_worth_the_rows_of_its_days_as_often_as_they_were_drawn():
    labels, predictions, day = _rows(5, 30, seed=3)
    predictions = predictions.round(1)  # many ties
    draws = np.array([[1, 2, 0], [1, 0, 0], [1, 1, 3], [1, 2, 2], [1, 0, 0]], np.float64)
    found = resampled_metrics(labels, predictions, day, draws)
    for column in range(3):
        rows = np.repeat(np.arange(150), draws[day, column].astype(int))
        y, p = labels[rows], predictions[rows]
        expected = [roc_auc_score(y, p), average_precision_score(y, p), log_loss(y, p), brier_score_loss(y, p)]
        names = ["roc_auc", "pr_auc", "log_loss", "brier"]
        assert [found[name][column] for name in names] == pytest.approx(expected, abs=1e-12)


def test_many_rows_are_worked_off_in_parts_of_the_same_result(monkeypatch):
    labels, predictions, day = _rows(6, 20, seed=4)
    draws = day_resamples(6, n_resamples=10, seed=1)
    whole = resampled_metrics(labels, predictions, day, draws)
    monkeypatch.setattr("ml_assets.core.intervals._CELLS_AT_ONCE", 300)
    parts = resampled_metrics(labels, predictions, day, draws)
    assert {name: values.tolist() for name, values in parts.items()} == {n: v.tolist() for n, v in whole.items()}


def test_a_resample_of_one_class_has_no_ranking_but_a_loss():
    found = resampled_metrics([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.2], np.array([0, 0, 1, 1]), np.array([[2.0], [0.0]]))
    assert np.isnan(found["roc_auc"][0])
    assert np.isnan(found["pr_auc"][0])
    assert found["brier"][0] == pytest.approx((0.01 + 0.04) / 2)


def test_every_day_is_as_likely_as_any_other():
    draws = day_resamples(20, n_resamples=5000, seed=2)
    assert (draws.sum(axis=0) == 20).all()
    # A count is binomial of 20 and 1/20: mean 1, variance 0.95; over 5000 draws the mean is sure to 0.014.
    assert draws.mean(axis=1) == pytest.approx(np.ones(20), abs=0.06)
    assert draws.var() == pytest.approx(0.95, abs=0.03)


def test_with_one_row_a_day_the_interval_of_the_brier_score_is_that_of_a_mean():
    labels, predictions, day = _rows(2000, 1, seed=5)
    squared = (predictions - labels) ** 2
    half = 1.96 * squared.std() / np.sqrt(2000)
    found = confidence_intervals(labels, predictions, day, seed=1, n_resamples=2000)["brier"]
    assert found.low == pytest.approx(squared.mean() - half, abs=half / 8)
    assert found.high == pytest.approx(squared.mean() + half, abs=half / 8)


def test_days_that_differ_widen_the_interval_and_it_covers_the_truth_as_often_as_it_says():
    # The truth by the same rule on many more days.
    truth = float(np.mean((lambda y, p, _: (p - y) ** 2)(*_rows(20000, 20, seed=0, day_effect=1.0))))
    covered, by_day, by_row = 0, [], []
    for seed in range(1, 101):
        labels, predictions, day = _rows(40, 20, seed=seed, day_effect=1.0)
        found = confidence_intervals(labels, predictions, day, seed=seed)["brier"]
        as_if_independent = confidence_intervals(labels, predictions, np.arange(800), seed=seed)["brier"]
        covered += found.low <= truth <= found.high
        by_day.append(found.high - found.low)
        by_row.append(as_if_independent.high - as_if_independent.low)
    # 95 expected of 100 in the limit; 40 days are few, and 86 is four standard deviations below.
    assert covered >= 86
    assert np.mean(by_day) > 1.3 * np.mean(by_row)


def test_the_same_seed_gives_the_same_intervals_and_the_order_of_the_rows_does_not_matter():
    labels, predictions, day = _rows(20, 50, seed=6)
    first = confidence_intervals(labels, predictions, day, seed=9)
    order = np.random.default_rng(1).permutation(1000)
    again = confidence_intervals(labels[order], predictions[order], day[order], seed=9)
    assert set(first) == {"roc_auc", "pr_auc", "log_loss", "brier"}
    assert all((again[n].low, again[n].high) == pytest.approx((first[n].low, first[n].high), abs=1e-12) for n in first)
    assert confidence_intervals(labels, predictions, day, seed=10) != first


def test_one_day_or_one_class_gives_no_interval_that_nobody_could_trust():
    labels, predictions, _ = _rows(1, 50, seed=7)
    assert confidence_intervals(labels, predictions, np.zeros(50), seed=1) == {}
    assert set(confidence_intervals(np.zeros(50), predictions, np.arange(50) % 5, seed=1)) == {"log_loss", "brier"}
    assert confidence_intervals([], [], [], seed=1) == {}


def test_a_holdout_of_twenty_thousand_rows_takes_less_than_a_second_or_three():
    labels, predictions, day = _rows(28, 720, seed=8)
    started = process_time()
    found = confidence_intervals(labels, predictions, day, seed=1)
    assert process_time() - started < 3  # 0.3 s on a quiet machine
    assert found["roc_auc"].low < roc_auc_score(labels, predictions) < found["roc_auc"].high
