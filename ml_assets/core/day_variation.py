"""How far single days stray from the mean of all: the noise of their rows, and what the days themselves differ by.

A day of weather is one draw of the weather, however many flights leave in it: shares that are steady from day to day
and shares that are not need different limits. This file says how much of a share's variation is which, from the days of
training, and what that makes of the distance of one more day.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# Cochran (1954): below five expected rows a bin's part of chi-square is no chi-square. Such a bin counts as if it
# expected five, so that one row of a kind that training hardly showed is no alarm, and a hundred are.
FEWEST_EXPECTED = 5.0
DAYS_OF_A_WEEK = 7
# Judgement: from three weeks, what lasts for a week cannot be told from what lasts for a day.
_FEWEST_WEEKS = 4
# Judgement: a model serves for about a month, and where weeks half of training apart differ by half as much again as
# neighbours do, the level wanders: less comes of luck.
_WEEKS_SERVED, _CLEARLY = 4, 1.5
# What the days differ by, as a part of all variation, below which their own kind of spread cannot be seen.
_LEAST_VISIBLE = 0.1


@dataclass(frozen=True, kw_only=True)
class DayVariation:
    """By how much the share of each bin varied between training days, beyond the sampling of their rows.

    Attributes:
        day_sd: by bin, the standard deviation of a day's share.
        week_sd: by bin, that of a whole week's. Of days that do not know of each other it is ``day_sd / sqrt(7)``.
        dof: how many chi-square degrees of freedom the variation of days has: few where single odd days make it.
        n_days: how many independent days that was learned from.
        season_sd: by bin, how far the level itself may have gone a month after training, beyond what it did within:
            0 of a feature that comes back to its mean. Empty in packages of releases that did not keep it.
    """

    day_sd: tuple[float, ...]
    week_sd: tuple[float, ...]
    dof: float
    n_days: float
    season_sd: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far shares lie from those of training; each of shape (n_features,).

    ``statistic`` is a sum of squares, each by its own variance. It is ``mean`` times a variable that is distributed as
    F with ``dof`` and ``dof_of_scale`` degrees of freedom where nothing has changed. ``part_of_days`` is the part of
    the mean that the variation of days makes, not the sampling of rows.
    """

    statistic: Floats
    mean: Floats
    part_of_days: Floats
    dof: Floats
    dof_of_scale: Floats


def day_variation(counts: Counts) -> DayVariation | None:
    """Learn from the counts of training days how days differ; None from a single day.

    Args:
        counts: shape (n_days, n_bins), consecutive days, each with at least one row.

    The variance of a bin's share beyond that of sampling, ``p (1 - p) / n``, is found by the method of moments, as in
    the random-effects model of DerSimonian and Laird (1986), with weights ``n / (n + median n)``: between those of
    equal days and those of equal rows. The degrees of freedom are those of Satterthwaite (1946): of the scaled
    chi-square with the mean and the variance that the distances of the training days have. Days that follow each other
    are alike: where the means of weeks vary more than those of seven independent days would, there are fewer of these.
    Where weeks that lie far apart differ more than neighbours do, the level wanders with the season, and wanders on.
    """
    n_days = len(counts)
    if n_days < 2:
        return None
    day_variance = _between(counts)
    # Whole weeks, the newest ones: the first days of training may be left over.
    n_weeks = n_days // DAYS_OF_A_WEEK
    week_variance, season_variance = day_variance, np.zeros_like(day_variance)
    if n_weeks >= _FEWEST_WEEKS:
        weeks = counts[n_days - n_weeks * DAYS_OF_A_WEEK :].reshape(n_weeks, DAYS_OF_A_WEEK, -1).sum(axis=1)
        week_variance = np.minimum(_between(weeks), day_variance)
        season_variance = _wandering(weeks)
    # The design effect of Kish (1965): 1 where days are independent, 7 where a week is like one day.
    total = float(day_variance.sum())
    likeness = DAYS_OF_A_WEEK * float(week_variance.sum()) / total if total > 0 and n_weeks >= _FEWEST_WEEKS else 1.0
    return DayVariation(
        day_sd=tuple(np.sqrt(day_variance).tolist()),
        week_sd=tuple(np.sqrt(week_variance).tolist()),
        dof=_dof_of_days(counts, day_variance),
        n_days=max(2.0, n_days / max(1.0, likeness)),
        season_sd=tuple(np.sqrt(season_variance).tolist()),
    )


def variance_of_stretch(day_sd: Floats, week_sd: Floats, n_days: Floats | float) -> Floats:
    """Return by how much the mean share of some days varies: what lasts over a week stays, the rest averages out.

    >>> variance_of_stretch(np.array([0.7]), np.array([0.7]), 7).round(3)  # a week is like its days
    array([0.49])
    >>> variance_of_stretch(np.array([0.7]), np.array([0.7 / 7**0.5]), 2).round(3)  # each day is by itself
    array([0.245])
    """
    day, week = day_sd**2, week_sd**2
    lasting = np.clip((DAYS_OF_A_WEEK * week - day) / (DAYS_OF_A_WEEK - 1), 0.0, day)
    return lasting + (day - lasting) / n_days


def distance(
    shares: Floats,
    training: Floats,
    *,
    expected: Floats,
    sampling: Floats,
    day_variance: Floats,
    dof: Floats,
    n_days: Floats,
) -> Distance:
    """Measure how far shares lie from training's, in units of what chance and the day's own variation explain.

    Args:
        shares: shape (n_features, n_bins), padded with zeros.
        training: the same of training.
        expected: the same, at least one row of training in every bin: what it did not show, it may have missed.
        sampling: shape (n_features, 1), ``1 / n + 1 / N``: the rows of the day and of training.
        day_variance: shape (n_features, n_bins), of the day's share and of training's.
        dof: shape (n_features,), of the variation of days.
        n_days: shape (n_features,), of independent days that it was learned from.

    The statistic is Pearson's (1900), with the variance that days add beside that of sampling:
    ``sum (q - p)^2 / (max(p, 5 s) s + day variance)``, ``s`` the sampling. Its mean is exact. Where sampling alone
    varies, so is its variance for large counts (Haldane 1937), and in two equal bins as in fifty.
    """
    base = np.maximum(expected, FEWEST_EXPECTED * sampling)
    total = base * sampling + day_variance
    statistic = np.sum((shares - training) ** 2 / total, axis=-1)
    mean = np.sum((expected * (1 - expected) * sampling + day_variance) / total, axis=-1)
    of_days = np.sum(day_variance / total, axis=-1) / np.maximum(mean, 1e-12)
    ratio = expected / base
    sampled = np.maximum(np.sum(ratio * (1 - expected), axis=-1), 1e-12)
    variance = 2 * (np.sum(ratio**2 * (1 - 2 * expected), axis=-1) + np.sum(ratio * expected, axis=-1) ** 2)
    variance += sampling[..., 0] * np.sum(expected / base**2, axis=-1)
    dof_of_sampling = 2 * sampled**2 / np.maximum(variance, 1e-12)
    with np.errstate(divide="ignore"):
        return Distance(
            statistic=statistic,
            mean=mean,
            part_of_days=of_days,
            dof=1 / ((1 - of_days) ** 2 / dof_of_sampling + of_days**2 / dof),
            dof_of_scale=n_days * dof / of_days**2,
        )


def _wandering(weeks: Counts) -> Floats:
    """Return the variance that a level gains by a month after training, from the counts of training's weeks.

    A random walk whose squared steps grow by ``r`` a week lies ``r (a + T / 3)`` from the mean of its last ``T`` weeks,
    ``a`` weeks later; ``r T / 6`` of that the weeks show among themselves, and is in their variation already. ``r`` is
    the slope of the variogram (Matheron 1963) between neighbours and weeks half of training apart, in which the
    sampling of rows cancels.
    """
    n_weeks = len(weeks)
    apart = n_weeks // 2
    shares = weeks / weeks.sum(axis=1, keepdims=True)
    near, far = (np.mean((shares[lag:] - shares[:-lag]) ** 2, axis=0) for lag in (1, apart))
    if far.sum() < _CLEARLY * near.sum():
        return np.zeros_like(near)
    return np.maximum(0.0, far - near) / (apart - 1) * (_WEEKS_SERVED + n_weeks / 6)


def _between(counts: Counts) -> Floats:
    """Return by how much the shares of these rows of counts vary beyond sampling; never below 0."""
    n_rows = counts.sum(axis=1).astype(np.float64)
    weights = n_rows / (n_rows + np.median(n_rows))
    weights /= weights.sum()
    shares = counts / n_rows[:, np.newaxis]
    mean = weights @ shares
    # The deviations are from a mean that the same rows made: a part of each is its own.
    own = 1 - weights
    found = weights @ (shares - mean) ** 2
    of_sampling = (weights * own / n_rows).sum() * mean * (1 - mean)
    return np.maximum(0.0, (found - of_sampling) / (weights * own).sum())


def _dof_of_days(counts: Counts, day_variance: Floats) -> float:
    """Return the degrees of freedom of what days differ by: few where one day is unlike all others."""
    n_days, n_rows = len(counts), counts.sum(axis=1).astype(np.float64)
    training = np.broadcast_to(counts.sum(axis=0) / n_rows.sum(), counts.shape)
    # A day against a mean that contains it: less than a day against one that does not.
    sampling = np.maximum(1 / n_rows - 1 / n_rows.sum(), 1e-12)[:, np.newaxis]
    variance = np.broadcast_to(day_variance * (1 - 1 / n_days), counts.shape)
    expected = np.maximum(training, 1 / n_rows.sum())
    unknown = np.full(n_days, np.inf)
    found = distance(
        counts / n_rows[:, np.newaxis],
        training,
        expected=expected,
        sampling=sampling,
        day_variance=variance,
        dof=unknown,
        n_days=unknown,
    )
    most = max(1.0, float((training[0] > 0).sum()) - 1)
    of_days = float(found.part_of_days.mean())
    if of_days < _LEAST_VISIBLE:
        return 1.0
    # With dof = inf for the days, what `distance` says of the spread is that of sampling alone.
    spread = float(np.mean((found.statistic / np.maximum(found.mean, 1e-12) - 1) ** 2)) / 2
    beyond = spread - float(np.mean(1 / found.dof))
    return float(np.clip(of_days**2 / max(beyond, 1e-12), 1e-2, most))
