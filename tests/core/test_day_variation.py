"""What days differ by, told apart from the sampling of their rows: on days of which the truth is known."""

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from ml_assets.core.day_variation import Counts, Floats, day_variation, distance

DECILES = np.full(10, 0.1)


def days_of(shares: Floats, n_rows: int, *, seed: int = 3) -> Counts:
    generator = np.random.default_rng(seed)
    return np.array([generator.multinomial(n_rows, p / p.sum()) for p in shares])


def test_days_of_one_population_do_not_vary_beyond_sampling():
    variation = day_variation(days_of(np.tile(DECILES, (200, 1)), 1000))
    assert variation is not None
    # Sampling alone makes 0.0095; of its variance, the noise of 200 days is a tenth.
    assert max(variation.day_sd) < 0.005


def test_the_standard_deviation_of_days_is_found_under_the_sampling_of_few_rows():
    level = 0.3 + 0.1 * np.random.default_rng(5).standard_normal(2000)
    shares = np.clip(np.stack([level, 1 - level], axis=1), 0.01, 0.99)
    variation = day_variation(days_of(shares, 100))
    assert variation is not None
    # A share of 100 rows has a sampling sd of 0.046 beside the days' 0.1.
    assert variation.day_sd[0] == pytest.approx(shares[:, 0].std(), rel=0.05)
    assert variation.week_sd[0] == pytest.approx(shares[:, 0].std() / np.sqrt(7), rel=0.15)
    # One number moves both shares: one degree of freedom, or a little less where the same share has sampling noise.
    assert 0.6 < variation.dof < 1.1


def test_weeks_that_are_like_one_day_count_as_few_days():
    level = np.repeat(0.3 + 0.1 * np.random.default_rng(5).standard_normal(100), 7)
    variation = day_variation(days_of(np.stack([level, 1 - level], axis=1), 1000))
    assert variation is not None
    assert variation.week_sd[0] == pytest.approx(variation.day_sd[0], rel=0.05)
    assert variation.n_days == pytest.approx(100, rel=0.1)


def test_a_single_day_says_nothing_of_days():
    assert day_variation(days_of(DECILES[None, :], 1000)) is None


def test_of_few_days_a_week_is_taken_to_be_like_a_day():
    variation = day_variation(days_of(np.random.default_rng(1).dirichlet(10 * DECILES, 20), 1000))
    assert variation is not None
    assert variation.week_sd == variation.day_sd


def far(counts: Counts, training: Floats, n_reference: int = 10**9) -> tuple[Floats, Floats, Floats]:
    n_rows = counts.sum(axis=1, keepdims=True)
    found = distance(
        counts / n_rows,
        training,
        expected=np.broadcast_to(training, counts.shape),
        sampling=1 / n_rows + 1 / n_reference,
        day_variance=np.zeros(counts.shape),
        dof=np.ones(len(counts)),
        n_days=np.full(len(counts), 100.0),
    )
    return found.statistic, found.mean, found.dof


def test_without_variation_of_days_the_distance_is_pearsons_and_agrees_with_scipy():
    counts = days_of(np.tile(DECILES, (5, 1)), 1000)
    statistic, mean, dof = far(counts, DECILES)
    assert statistic == pytest.approx([chisquare(row, 1000 * DECILES).statistic for row in counts], rel=1e-5)
    assert mean == pytest.approx(np.full(5, 9.0))
    assert dof == pytest.approx(np.full(5, 9.0), rel=0.02)


@pytest.mark.parametrize("training", [np.array([0.5, 0.5]), np.array([0.9, 0.05, 0.05]), DECILES, np.full(50, 0.02)])
@pytest.mark.parametrize("n_rows", [200, 5000])
def test_p_values_of_an_unchanged_population_are_not_too_small(training: Floats, n_rows: int):
    """Even where fifty bins share 200 rows: four in each."""
    from scipy.special import chdtrc

    statistic, mean, dof = far(days_of(np.tile(training, (4000, 1)), n_rows), training)
    p_values = chdtrc(dof, dof * statistic / mean)
    assert np.mean(p_values < 0.05) < 0.06
    assert np.mean(p_values < 0.01) < 0.015
    if len(training) >= 10 and training.min() * n_rows >= 5:  # with few bins the distance takes few values
        assert kstest(p_values, "uniform").statistic < 0.05


def test_the_mean_of_the_distance_is_exact_with_bins_that_expect_less_than_five():
    training = np.array([0.97, 0.02, 0.009, 0.001])
    statistic, mean, _ = far(days_of(np.tile(training, (20_000, 1)), 200), training)
    assert statistic.mean() == pytest.approx(mean[0], rel=0.03)


def weeks_of(level: Floats, n_rows: int = 1000) -> Counts:
    """Days of which one share has this level in each week."""
    shares = np.repeat(np.stack([level, 1 - level], axis=1), 7, axis=0)
    return days_of(shares, n_rows)


def test_a_level_that_wanders_in_training_may_wander_on_and_one_that_comes_back_may_not():
    generator = np.random.default_rng(8)
    steps = 0.02 * generator.standard_normal((400, 24))
    walks = 0.5 + np.cumsum(steps, axis=1)
    # By hand: a month after 24 weeks a walk lies sd sqrt(4 + 24 / 6) steps further off than its weeks do.
    found = [day_variation(weeks_of(np.clip(walk, 0.05, 0.95), 10_000)) for walk in walks]
    variance = np.mean([variation.season_sd[0] ** 2 for variation in found if variation])
    assert np.sqrt(variance) == pytest.approx(0.02 * np.sqrt(8), rel=0.15)
    back = [day_variation(weeks_of(0.5 + 0.02 * generator.standard_normal(24))) for _ in range(100)]
    assert np.mean([variation.season_sd[0] > 0 for variation in back if variation]) < 0.2
    assert max(variation.season_sd[0] for variation in back if variation) < 0.04
