"""Each distance against scipy on data whose bins hold one value each, and against hand-computed cases."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from ml_assets.core.distances import (
    chi_square,
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability,
    presence,
    wasserstein,
)

SEED = 20130701
VALUES = np.arange(6.0)
COUNTS = st.lists(st.integers(0, 40), min_size=6, max_size=6).filter(lambda counts: sum(counts) >= 4)


@seed(SEED)
@settings(max_examples=100, deadline=None, database=None)
@given(day=COUNTS, training=COUNTS)
def test_every_distance_is_that_of_scipy(day: list[int], training: list[int]):
    p, q = np.array([day], np.float64), np.array([training], np.float64)
    of_day, of_training = np.repeat(VALUES, day), np.repeat(VALUES, training)
    assert kolmogorov_smirnov(p, q)[0] == pytest.approx(ks_2samp(of_day, of_training, method="asymp").statistic)
    shares = p / p.sum(), q / q.sum()
    assert jensen_shannon(*shares)[0] == pytest.approx(jensenshannon(shares[0][0], shares[1][0], base=2), abs=1e-7)
    table = np.concatenate([p, q])
    table = table[:, table.any(axis=0)]
    expected = chi2_contingency(table, correction=False).statistic if table.shape[1] > 1 else 0.0
    assert chi_square(p, q)[0] == pytest.approx(expected)


@seed(SEED)
@settings(max_examples=100, deadline=None, database=None)
@given(day=COUNTS, training=COUNTS)
def test_the_carried_distance_is_that_of_samples_spread_evenly_over_the_bins(day: list[int], training: list[int]):
    limits = np.array([0.0, 1.0, 1.5, 4.0, 4.0, 9.0, 10.0])
    spread = (np.arange(200) + 0.5) / 200
    fine = (limits[:-1, None] + spread * np.diff(limits)[:, None]).ravel()
    exact = wasserstein_distance(fine, fine, np.repeat(day, 200), np.repeat(training, 200))
    p, q = np.array([day], np.float64), np.array([training], np.float64)
    assert wasserstein(p, q, limits[np.newaxis])[0] == pytest.approx(exact, abs=0.02)


@seed(SEED)
@settings(max_examples=60, deadline=None, database=None)
@given(
    day=st.lists(st.floats(0, 10), min_size=4, max_size=40),
    training=st.lists(st.floats(0, 10), min_size=4, max_size=40),
)
def test_binning_loses_no_more_than_the_docstrings_say(day: list[float], training: list[float]):
    limits = np.array([0.0, 2.0, 3.0, 7.0, 10.0])
    p, q = (np.histogram(values, limits)[0][np.newaxis] for values in (day, training))
    shares_p, shares_q = p / p.sum(), q / q.sum()
    exact = ks_2samp(day, training, method="asymp").statistic
    # numpy's bins are closed on the left, hence the slack of one bin on either side of an edge.
    assert kolmogorov_smirnov(p, q)[0] <= exact + max(shares_p.max(), shares_q.max()) + 1e-9
    assert exact <= kolmogorov_smirnov(p, q)[0] + max(shares_p.max(), shares_q.max()) + 1e-9
    slack = float(np.sum(np.diff(limits) * (shares_p + shares_q) / 2))
    carried = wasserstein(p, q, limits[np.newaxis])[0]
    assert abs(carried - wasserstein_distance(day, training)) <= slack + 1e-9


def test_distances_by_hand_for_two_features_at_once():
    p, q = np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([[0.6, 0.4], [0.5, 0.5]])
    by_hand = (0.2 - 0.6) * np.log(0.2 / 0.6) + (0.8 - 0.4) * np.log(0.8 / 0.4)
    assert population_stability(p, q) == pytest.approx([by_hand, 0.0])
    assert kolmogorov_smirnov(p, q) == pytest.approx([0.4, 0.0])
    # Four tenths of the mass move from the middle of a bin of width 1 to the middle of one of width 3: 2 each.
    assert wasserstein(p, q, np.array([[0.0, 1.0, 4.0]] * 2)) == pytest.approx([0.8, 0.0])
    assert presence(np.array([0.31]), np.array([0.01])) == pytest.approx([0.30])


def test_a_padded_bin_changes_nothing():
    p, q = np.array([[3.0, 1.0]]), np.array([[1.0, 3.0]])
    padded = [np.concatenate([x, np.zeros((1, 3))], axis=1) for x in (p, q)]
    limits = np.array([[0.0, 1.0, 2.0, 2.0, 2.0, 2.0]])
    assert kolmogorov_smirnov(*padded) == kolmogorov_smirnov(p, q)
    assert chi_square(*padded) == chi_square(p, q)
    assert jensen_shannon(*(x / 4 for x in padded)) == jensen_shannon(p / 4, q / 4)
    assert wasserstein(*padded, limits) == wasserstein(p, q, limits[:, :3])


def test_an_empty_sample_has_no_distance():
    some, none = np.array([[1.0, 2.0]]), np.zeros((1, 2))
    assert np.isnan(kolmogorov_smirnov(none, some)[0])
    assert np.isnan(chi_square(none, some)[0])
    assert np.isnan(wasserstein(none, some, np.array([[0.0, 1.0, 2.0]]))[0])
