"""Thirty features whose truth is known: steady ones, ones that differ from day to day, and shifts of either.

Rows of a day are independent given the day, so that its counts in fixed bins are multinomial: drawing counts is exact,
and a year of 50,000 rows a day takes a second.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import stats

from ml_assets.core.day_variation import day_variation
from ml_assets.core.reference import Bins, Reference

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

N_BINS = 10
# How far days lie apart, in standard deviations of the rows of a day; weekdays besides; and how alike the next day is.
DAY_SD, WEEKDAY_SD, PERSISTENCE = 0.3, 0.3, 0.5
# By how much the logarithms of the shares of categories, and of missing, differ between days.
LOG_SHARE_SD = 0.2


@dataclass(frozen=True, kw_only=True)
class Number:
    """A feature that is a number: its distribution in units of its standard deviation, and the share that is missing.

    ``is_varying`` moves it by ``DAY_SD`` from day to day. ``follows`` names a feature that is as ``correlation`` with
    it in each row; both are normal.
    """

    name: str
    distribution: stats.rv_continuous
    missing: float = 0.0
    is_varying: bool = False
    follows: str = ""
    correlation: float = 0.9

    @cached_property
    def edges(self) -> Floats:
        """The deciles, between a minimum and a maximum that training of 100,000 rows would have."""
        inner = np.arange(1, N_BINS) / N_BINS
        return self.distribution.ppf(np.concatenate([[1e-5], inner, [1 - 1e-5]]))

    @cached_property
    def _sd(self) -> float:
        return float(self.distribution.std())

    @cached_property
    def _unchanged(self) -> Floats:
        return self.shares(1e-300)

    def shares(self, shift: float = 0.0) -> Floats:
        """Return the share of each bin where every value is ``shift`` standard deviations larger."""
        if not shift:
            return self._unchanged
        below = self.distribution.cdf(self.edges - shift * self._sd)
        inner = np.diff(np.concatenate([[0.0], below, [1.0]]))
        return np.append(inner * (1 - self.missing), self.missing)


@dataclass(frozen=True, kw_only=True)
class Category:
    """A feature that is a category: the shares of its values; one row in 20,000 has one that training never showed."""

    name: str
    weights: tuple[float, ...]
    missing: float = 0.0
    is_varying: bool = False

    def shares(self, moved: Mapping[int, float] | None = None) -> Floats:
        """Return the share of each bin, with mass moved: by bin, how much more."""
        found = np.array([*self.weights, 0.0, 0.0, 0.0])
        found = found / found.sum() * (1 - self.missing - 5e-5)
        found[-2:] = 5e-5, self.missing
        for place, share in (moved or {}).items():
            found[place] += share
        if found.min() < 0:
            raise ValueError(f"{self.name} has too little mass to move: {moved}")
        return found


Feature = Number | Category


def features(*, is_varying: bool) -> Sequence[Feature]:
    """Return thirty features; where days vary, twenty of them do."""
    normal, skewed = stats.norm(), stats.expon()
    zipf = tuple(1 / np.arange(1, 51))
    found: list[Feature] = []
    for i in range(5):
        varies = is_varying and i > 0
        found += [
            Number(name=f"normal_{i}", distribution=normal, is_varying=varies),
            Number(name=f"skewed_{i}", distribution=skewed, is_varying=varies),
            Number(name=f"uniform_{i}", distribution=stats.uniform(), missing=(0.0, 0.05, 0.3)[i % 3]),
            Number(name=f"follower_{i}", distribution=normal, follows=f"normal_{i}", is_varying=varies),
            Category(name=f"few_{i}", weights=(0.55, 0.3, 0.15), is_varying=varies, missing=0.02 * (i % 2)),
            Category(name=f"many_{i}", weights=zipf if i % 2 else (0.02,) * 50, is_varying=varies),
        ]
    return found


@dataclass(kw_only=True)
class World:
    """Features and the days they have lived; what a day is like goes on from the day before it."""

    features: Sequence[Feature]
    generator: np.random.Generator
    _day: int = 0
    _state: dict[str, Floats] = field(default_factory=dict)

    def day(self, n_rows: int, changed: Mapping[str, Callable[[Feature], Floats]] | None = None) -> dict[str, Counts]:
        """Draw the counts of the next day; of a changed feature from these shares, in place of its own."""
        self._day += 1
        found: dict[str, Counts] = {}
        for feature in self.features:
            change = changed.get(feature.name) if changed else None
            shares = change(feature) if change else self._shares(feature)
            if isinstance(feature, Number) and feature.follows and not feature.is_varying:
                found[feature.name] = self._followed(found[feature.follows], feature)
            else:
                found[feature.name] = self.generator.multinomial(n_rows, shares)
        return found

    def _shares(self, feature: Feature) -> Floats:
        if not feature.is_varying:
            return feature.shares()
        if isinstance(feature, Number):
            return feature.shares(self.place_of_day(feature))
        shares = feature.shares()
        state = self._next(feature.name, len(shares))
        weekday = np.sin(2 * np.pi * (self._day % 7) / 7 + np.arange(len(shares)))
        shares = shares * np.exp(LOG_SHARE_SD * (state + weekday))
        return shares / shares.sum()

    def place_of_day(self, feature: Number) -> float:
        """Return how far this day lies from the mean of all, in standard deviations of its rows.

        Features that follow another have its weather.
        """
        own = feature.follows or feature.name
        state = self._next(own, 1)[0] if not feature.follows else self._state[own][0]
        return float(DAY_SD * state + WEEKDAY_SD * np.sin(2 * np.pi * (self._day % 7) / 7))

    def _next(self, name: str, size: int) -> Floats:
        fresh = self.generator.normal(size=size)
        before = self._state.get(name)
        kept = PERSISTENCE
        self._state[name] = fresh if before is None else kept * before + np.sqrt(1 - kept**2) * fresh
        return self._state[name]

    def _followed(self, counts: Counts, feature: Number) -> Counts:
        """Draw the bins of a correlated feature, given those of the feature it follows."""
        table = _correlated(feature.correlation)
        drawn = [self.generator.multinomial(n, table[i]) for i, n in enumerate(counts[:-1])]
        return np.append(np.sum(drawn, axis=0), counts[-1])


def reference_of(world: World, sizes: Sequence[int]) -> Reference:
    """Let training days of these sizes pass, and remember them as a training does."""
    days = [world.day(n_rows) for n_rows in sizes]
    bins = tuple(_bins(feature, np.array([counts[feature.name] for counts in days])) for feature in world.features)
    return Reference(
        features=bins[1:], prediction=bins[0], n_rows=int(sum(sizes)), n_rows_per_day=float(np.median(sizes))
    )


def _bins(feature: Feature, counts: Counts) -> Bins:
    is_number = isinstance(feature, Number)
    return Bins(
        feature=feature.name,
        kind="numeric" if is_number else "categorical",
        edges=tuple(feature.edges.tolist()) if is_number else (),
        categories=() if is_number else tuple(f"c{i}" for i in range(len(feature.weights))),
        other_categories=(),
        shares=tuple((counts.sum(axis=0) / counts.sum()).tolist()),
        variation=day_variation(counts),
    )


def _correlated(correlation: float, _cache: dict[float, Floats] = {}) -> Floats:  # noqa: B006 - it is a cache
    """Return the chance of each bin of the second of two normal features, given the bin of the first."""
    if correlation not in _cache:
        edges = Number(name="", distribution=stats.norm()).edges
        first = np.linspace(1e-6, 1 - 1e-6, 20_001)
        values = stats.norm.ppf(first)
        below = stats.norm.cdf((edges[None, :] - correlation * values[:, None]) / np.sqrt(1 - correlation**2))
        chance = np.diff(np.concatenate([np.zeros((len(first), 1)), below, np.ones((len(first), 1))], axis=1), axis=1)
        place = np.searchsorted(edges, values)
        table = np.array([chance[place == i].mean(axis=0) for i in range(len(edges) + 1)])
        _cache[correlation] = table / table.sum(axis=1, keepdims=True)
    return _cache[correlation]
