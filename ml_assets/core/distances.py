"""How far two samples lie apart, from their counts in the same fixed bins: six statistics, for all features at once.

Arrays hold one feature a row and one bin a column. A feature with fewer bins than others is padded with empty ones,
which change nothing. What a statistic cannot say is NaN. ``p`` is the day, ``q`` is training.
"""

import numpy as np
import numpy.typing as npt

from ml_assets.core.reference import population_stability

__all__ = [
    "chi_square",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "population_stability",
    "presence",
    "wasserstein",
]

Floats = npt.NDArray[np.float64]


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Return the Jensen-Shannon distance between rows of shares, from 0 (equal) to 1 (nothing in common).

    sqrt((KL(p, m) + KL(q, m)) / 2) with m = (p + q) / 2 and logarithms to base 2 (Lin, Divergence measures based on the
    Shannon entropy, 1991; that its root is a metric: Endres and Schindelin, 2003).

    >>> jensen_shannon(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.5, 0.5], [0.0, 1.0]])).tolist()
    [0.0, 1.0]
    """
    m = (p + q) / 2

    def divergence(x: Floats) -> Floats:
        return np.sum(x * np.log2(np.divide(x, m, out=np.ones_like(x), where=x > 0)), axis=-1)

    # Rounding can leave equal shares a hair below zero.
    return np.sqrt(np.maximum(0.0, (divergence(p) + divergence(q)) / 2))


def kolmogorov_smirnov(p: Floats, q: Floats) -> Floats:
    """Return the largest difference between two distribution functions, seen at the edges of the bins.

    sup |P(x) - Q(x)| over the edges x (Kolmogorov 1933; Smirnov 1948), of shares or counts of the bins in ascending
    order, missing values left out. It is at most the exact statistic, which looks between the edges too, and falls
    short of it by at most the largest share that either sample has in one bin: nothing where a bin holds one value, a
    tenth with deciles of training and a day like it. NaN where either sample is empty.

    >>> kolmogorov_smirnov(np.array([[0, 3, 1]]), np.array([[2, 2, 0]])).tolist()
    [0.5]
    """
    with np.errstate(invalid="ignore"):
        below_p, below_q = (np.cumsum(x, axis=-1) / np.sum(x, axis=-1, keepdims=True) for x in (p, q))
    return np.abs(below_p - below_q).max(axis=-1)


def wasserstein(p: Floats, q: Floats, limits: Floats) -> Floats:
    """Return how far the mass of one sample must be carried, on average, to make the other; in the unit of ``limits``.

    The integral of |P(x) - Q(x)| dx (Vallender, 1974), of shares or counts of the bins in ascending order, missing
    values left out; ``limits``, shape (features, bins + 1), are the lower limit of each bin and the upper of the last.
    Counts say nothing of where in its bin a value lies: both samples are taken to be spread evenly over it. The
    exact distance differs by at most the sum over bins of their width times half of both shares together: no value of a
    bin is carried further than half its width on average to lie evenly. NaN where either is empty.

    >>> bounds = np.array([[0.0, 1.0, 2.0, 4.0]])
    >>> wasserstein(np.array([[1, 0, 0]]), np.array([[0, 1, 0]]), bounds).tolist()
    [1.0]
    """
    with np.errstate(invalid="ignore"):
        below = [np.cumsum(x, axis=-1) / np.sum(x, axis=-1, keepdims=True) for x in (p, q)]
    after = below[0] - below[1]
    before = np.concatenate([np.zeros_like(after[..., :1]), after[..., :-1]], axis=-1)
    # The mean of |line| over a bin: of a line that crosses zero, two triangles.
    a, b = np.abs(before), np.abs(after)
    crossing = np.divide(a * a + b * b, 2 * (a + b), out=np.zeros_like(a), where=a + b > 0)
    mean = np.where(before * after < 0, crossing, (a + b) / 2)
    carried = np.sum(mean * np.diff(limits, axis=-1), axis=-1)
    return np.where(np.isnan(after).any(axis=-1), np.nan, carried)


def chi_square(counts: Floats, training: Floats) -> Floats:
    """Return the chi-square statistic of homogeneity between rows of counts; both samples have their own noise.

    Sum over both samples and all bins of (observed - expected)^2 / expected, with expected = row total x column total /
    total (Pearson 1900; as ``scipy.stats.chi2_contingency`` without Yates's correction). A bin that is empty in both
    adds nothing. Unlike the others it grows with the number of rows: of unchanged samples it is about the number of
    bins. NaN where either sample is empty.

    >>> chi_square(np.array([[10, 20]]), np.array([[20, 20]])).round(4).tolist()
    [1.9444]
    """
    n, m = counts.sum(axis=-1, keepdims=True), training.sum(axis=-1, keepdims=True)
    both = counts + training
    with np.errstate(invalid="ignore", divide="ignore"):
        # (O1 - E1)^2 (1 / E1 + 1 / E2), since the two samples stray from what is expected by the same number of rows.
        part = (counts * m - training * n) ** 2 / (n * m * both)
    return np.where((n > 0) & (m > 0), np.where(both > 0, part, 0.0), np.nan).sum(axis=-1)


def presence(missing_share: Floats, training: Floats) -> Floats:
    """Return by how much the share of missing values rose (or, negative, fell): from -1 to 1.

    The drift of missingness itself, apart from that of the values that are there (Breck et al., Data validation for
    machine learning, 2019, watch the fraction of examples that have a feature).

    >>> presence(np.array([0.3, 0.0]), np.array([0.1, 0.5])).round(3).tolist()
    [0.2, -0.5]
    """
    return missing_share - training
