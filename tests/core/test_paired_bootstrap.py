from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t

from ml_assets.core.evaluation import Floats, evaluate, log_loss
from ml_assets.core.paired_bootstrap import DayResamples, Estimate

N_SEEDS = 200


def world(
    seed: int, *, errors: tuple[float, float], n_days: int = 21, n_per_day: int = 60
) -> tuple[np.ndarray, Floats, Floats, Floats]:
    """Return days, labels and two models that each know the log odds up to an error of this spread.

    A day has an effect of its own, on its flights and on what either model makes of them, so rows are not independent.
    """
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(n_days), n_per_day)
    log_odds = -1 + draw.normal(0, 0.8, n_days)[day] + draw.normal(0, 1, len(day))
    y = (draw.random(len(day)) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    models = [
        1 / (1 + np.exp(-(log_odds + draw.normal(0, error, n_days)[day] + draw.normal(0, error, len(day)))))
        for error in errors
    ]
    return day, y, models[0], models[1]


def gains(seed: int, *, errors: tuple[float, float]) -> tuple[Estimate, Estimate | None]:
    day, y, ours, theirs = world(seed, errors=errors)
    resamples = DayResamples.of(day, seed=13, n_resamples=500)
    log_loss_gain = resamples.estimate(resamples.log_loss(y, theirs) - resamples.log_loss(y, ours))
    assert log_loss_gain is not None
    return log_loss_gain, resamples.estimate(resamples.roc_auc(y, ours) - resamples.roc_auc(y, theirs))


def is_better(gain: Estimate | None) -> bool:
    assert gain is not None
    margin = gain.margin(0.95)
    assert margin is not None
    return gain.value > margin


def test_two_equal_models_are_called_better_in_about_5_of_100_worlds():
    found = [gains(seed, errors=(0.5, 0.5)) for seed in range(N_SEEDS)]
    for figure in (0, 1):
        n_better = sum(is_better(gain[figure]) for gain in found)
        # 200 draws of 5 %: 10 expected, more than 19 in 2 of 1,000 such tests, none in 4 of 100,000.
        assert 1 <= n_better <= 19, n_better


def test_a_clearly_better_model_is_called_better_in_nearly_all_worlds_and_never_worse():
    found = [gains(seed, errors=(0.3, 1.0)) for seed in range(N_SEEDS)]
    assert sum(is_better(log_loss_gain) for log_loss_gain, _ in found) >= 0.97 * N_SEEDS
    assert sum(is_better(roc_auc_gain) for _, roc_auc_gain in found) >= 0.97 * N_SEEDS
    swapped = [gains(seed, errors=(1.0, 0.3)) for seed in range(20)]
    assert not any(is_better(gain) for pair in swapped for gain in pair)


def test_a_resample_has_the_figures_of_its_days_repeated():
    day, y, p, _ = world(3, errors=(0.5, 0.5), n_days=5, n_per_day=30)
    p = p.round(1)  # many equal scores
    resamples = DayResamples.of(day, seed=1, n_resamples=4)

    found = [resamples.log_loss(y, p), resamples.roc_auc(y, p), resamples.pr_auc(y, p)]

    for number, weights in enumerate(resamples.weights):
        rows = np.repeat(np.arange(len(y)), weights.astype(int)[day])
        expected = evaluate(y[rows], p[rows])
        assert [figure[number] for figure in found] == pytest.approx(
            [expected.log_loss, expected.roc_auc, expected.pr_auc]
        )
    assert resamples.weights[0].tolist() == [1] * 5
    assert resamples.weights.sum(axis=1).tolist() == [5] * 5


def test_the_standard_error_over_days_of_equal_size_is_that_of_their_mean():
    day, y, p, _ = world(4, errors=(0.5, 0.5))
    resamples = DayResamples.of(day, seed=13, n_resamples=20_000)
    estimate = resamples.estimate(resamples.log_loss(y, p))
    by_day = [log_loss(y[day == d], p[day == d]) for d in range(21)]
    assert estimate is not None
    assert estimate.value == pytest.approx(np.mean(by_day))
    assert estimate.standard_error == pytest.approx(np.std(by_day, ddof=1) / np.sqrt(21), rel=0.03)


def test_a_model_gains_nothing_over_itself_without_any_noise():
    day, y, p, _ = world(5, errors=(0.5, 0.5))
    comparison = DayResamples.of(day, seed=13).compare(y, p, p)
    assert set(comparison.gains) == {"log_loss", "roc_auc", "pr_auc"}
    for gain in comparison.gains.values():
        assert gain == Estimate(value=0, standard_error=0, n_days=21)


def test_the_same_seed_gives_the_same_figures_whatever_the_order_of_the_rows():
    day, y, ours, theirs = world(6, errors=(0.3, 0.5))
    order = np.random.default_rng(0).permutation(len(y))
    one = DayResamples.of(day, seed=13).compare(y, ours, theirs)
    other = DayResamples.of(day[order], seed=13).compare(y[order], ours[order], theirs[order])
    for a, b in ((one.gains[name], other.gains[name]) for name in ("log_loss", "roc_auc")):
        assert (a.value, a.standard_error) == pytest.approx((b.value, b.standard_error))


def test_the_margin_is_students_t_times_the_error_and_grows_with_the_confidence():
    estimate = Estimate(value=0.1, standard_error=0.02, n_days=3)
    margins = [estimate.margin(confidence) for confidence in (0.5, 0.8, 0.95, 0.999)]
    assert margins == pytest.approx([0.02 * t.ppf(c, df=2) for c in (0.5, 0.8, 0.95, 0.999)])
    assert all(low < high for low, high in pairwise(margins))


def test_one_day_tells_no_noise():
    comparison = DayResamples.of([1, 1, 1], seed=1).compare(
        np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.8, 0.7]), np.array([0.5, 0.5, 0.5])
    )
    gain = comparison.gains["log_loss"]
    assert gain.value > 0
    assert gain.standard_error is None
    assert gain.margin(0.95) is None
    assert gain.margin(0.5) == 0


def test_a_holdout_of_one_class_has_no_ranking_to_compare():
    comparison = DayResamples.of([1, 1, 2], seed=1).compare(np.zeros(3), np.full(3, 0.1), np.full(3, 0.2))
    assert set(comparison.gains) == {"log_loss"}
    assert comparison.gains["log_loss"].value == pytest.approx(np.log(0.9 / 0.8))
