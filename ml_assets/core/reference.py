"""What training looked like: fixed bins and shares of every feature and of the prediction, kept in the model package.

Bins are made once, from the training set, and never move with the data of a day.

- A number has up to 10 bins between the training minimum and maximum (its deciles, equal ones merged), one below and
  one above that range.
- A category has one bin for each of the 50 most frequent, one for all other categories of training, one for
  categories that training never showed.
- Either has one bin for missing, so that the shares of all bins add up to 1 over all rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.day_variation import DayVariation, day_variation
from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.moments import UNKNOWN, moments_of

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
BinKind = Literal["numeric", "categorical", "prediction"]

# Judgement: deciles show a shift without being noise at 1,000 rows a day; the 51st category is too rare to judge.
_N_BINS = 10
_N_CATEGORIES = 50

# The usual floor under the share of an empty bin, which would otherwise make the index infinite.
SMALLEST_SHARE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Bins:
    """The fixed bins of one feature and the share of the training rows in each.

    Attributes:
        feature: its name; ``prediction`` for the prediction.
        kind: how its values are binned; a prediction is binned as a number.
        edges: ascending upper edges of a number's bins, the first just under the training minimum, the last the
            maximum; empty for a category and for a number that was always missing.
        categories: the most frequent, most frequent first; empty for a number.
        other_categories: all others that training showed, sorted.
        shares: of the training rows, by bin. A number: below, each bin, above, missing. A category: each of
            ``categories``, other, never seen, missing.
        view: the feature view it is of; empty for the prediction, and in packages of releases that did not keep it.
        variation: how the shares of training days varied; null of a single day, and in packages of releases that did
            not keep it.
        constant_days_share: the share of the training days on which all its values were one; null likewise.
        mean, sd, minimum, maximum: of the training's numbers, as in ``Moments``; null for a category, and in packages
            of releases that did not keep them.
    """

    feature: str
    kind: BinKind
    edges: tuple[float, ...]
    categories: tuple[str, ...]
    other_categories: tuple[str, ...]
    shares: tuple[float, ...]
    view: str = ""
    variation: DayVariation | None = None
    constant_days_share: float | None = None
    mean: float | None = None
    sd: float | None = None
    minimum: float | None = None
    maximum: float | None = None

    @property
    def missing_share(self) -> float:
        """The share of the training rows in which the value was missing."""
        return self.shares[-1]

    def index(self, values: pa.ChunkedArray | pa.Array) -> Indices:
        """Return the bin of each value, shape (n,), from 0 to ``len(shares) - 1``. Null and NaN are missing."""
        missing = _n_bins(self) - 1
        if self.kind == "categorical":
            known = pc.SetLookupOptions(value_set=pa.array(self.categories + self.other_categories, pa.string()))
            text = values.cast(pa.string())
            found = pc.call_function("index_in", [text], known).fill_null(-1).to_numpy()
            index = np.where(found < 0, missing - 1, np.minimum(found, missing - 2))
            return index if not text.null_count else np.where(text.is_null().to_numpy(False), missing, index)
        numbers = to_numbers(values)
        return np.where(np.isnan(numbers), missing, np.searchsorted(np.asarray(self.edges), numbers, side="left"))

    def unseen_share(self, shares: Floats) -> float:
        """Return the share of the rows whose value training never showed, or that lies outside its range."""
        return float(shares[-2] if self.kind == "categorical" or not self.edges else shares[0] + shares[-2])

    def label(self, index: int) -> str:
        """Return a bin's name for people.

        >>> table = pa.table({"partition_on": [1] * 4, "wind_speed_mph": [0.0, 8.0, 8.0, 40.0]})
        >>> wind = Feature(name="wind_speed_mph", kind="numeric", view="feat_origin_weather")
        >>> bins = build_reference(table, [wind], [0.1, 0.2, 0.2, 0.3]).features[0]
        >>> [bins.label(i) for i in range(len(bins.shares))]
        ['below 0', '0', '0 to 8', '8 to 40', 'above 40', 'missing']
        """
        if index == len(self.shares) - 1:
            return "missing"
        if self.kind == "categorical":
            names = (*self.categories, "other categories", "categories never seen in training")
            return names[index]
        if not self.edges:
            return "not missing"
        # The first edge lies one float under the training minimum: show the minimum.
        low = [np.nextafter(self.edges[0], np.inf) + 0.0, *self.edges[1:]]
        if index == 0:
            return f"below {low[0]:.4g}"
        if index == len(low):
            return f"above {low[-1]:.4g}"
        names = f"{low[index - 1]:.4g}", f"{low[index]:.4g}"
        return names[0] if names[0] == names[1] else " to ".join(names)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The training set as monitoring remembers it: the bins of every feature and of the prediction.

    ``n_rows_per_day`` is the median over the training days.
    """

    features: tuple[Bins, ...]
    prediction: Bins
    n_rows: int
    n_rows_per_day: float

    @property
    def all_bins(self) -> tuple[Bins, ...]:
        """The bins of the prediction, then of each feature."""
        return (self.prediction, *self.features)


def build_reference(examples: pa.Table, inputs: Sequence[Feature], predictions: npt.ArrayLike) -> Reference:
    """Fix the bins of every input and of the predictions on the training rows.

    Args:
        examples: the training rows with ``partition_on`` and a column for each input.
        inputs: the columns the model reads.
        predictions: shape (n,), what the model predicts for the same rows.

    Raises TrainingDataMissing where there are no rows.
    """
    if not examples.num_rows:
        raise TrainingDataMissing("a reference was asked for on an empty training set; train on more days")
    days = _Days.of(examples.column("partition_on").to_numpy())
    scores = pa.array(np.asarray(predictions, np.float64))
    return Reference(
        features=tuple(_fix(f.name, f.kind, examples.column(f.name), days, view=f.view) for f in inputs),
        prediction=_fix("prediction", "prediction", scores, days, view=""),
        n_rows=examples.num_rows,
        n_rows_per_day=float(np.median(days.n_rows)),
    )


def population_stability(shares: Floats, reference: Floats) -> Floats:
    """Return the population stability index between rows of shares, over the last axis.

    PSI = sum over bins of (p - q) ln(p / q), p of the day and q of training: the Kullback-Leibler divergence made
    symmetric (Siddiqi 2006; Yurdakul, Statistical Properties of PSI, 2018). A share under 0.0001 counts as 0.0001.

    >>> float(population_stability(np.array([0.5, 0.5]), np.array([0.9, 0.1])).round(3))
    0.879
    """
    p, q = np.maximum(shares, SMALLEST_SHARE), np.maximum(reference, SMALLEST_SHARE)
    return np.sum((p - q) * np.log(p / q), axis=-1)


def to_numbers(values: pa.ChunkedArray | pa.Array) -> Floats:
    """Return a column as float64, null as NaN."""
    numbers = values if values.type == pa.float64() else values.cast(pa.float64())
    return np.asarray(numbers.to_numpy(zero_copy_only=False) if isinstance(numbers, pa.Array) else numbers.to_numpy())


def _n_bins(bins: Bins) -> int:
    return len(bins.categories) + 3 if bins.kind == "categorical" else len(bins.edges) + 2


@dataclass(frozen=True, kw_only=True)
class _Days:
    """Which day each training row is of, from 0 on; the rows in the order of their days, and how many each has."""

    of_row: Indices
    order: Indices
    n_rows: Indices

    @staticmethod
    def of(partition_on: npt.NDArray[np.datetime64]) -> "_Days":
        _, day, n_rows = np.unique(partition_on, return_inverse=True, return_counts=True)
        return _Days(of_row=day, order=np.argsort(day, kind="stable"), n_rows=n_rows)

    def counts(self, index: Indices, n_bins: int) -> Indices:
        """Return the rows in each bin, shape (n_days, n_bins)."""
        n_days = len(self.n_rows)
        return np.bincount(self.of_row * n_bins + index, minlength=n_days * n_bins).reshape(n_days, n_bins)

    def are_constant(self, numbers: Floats) -> npt.NDArray[np.bool_]:
        """Tell of each day whether all of its numbers that are not missing are one."""
        starts = np.cumsum(self.n_rows) - self.n_rows
        ordered = numbers[self.order]
        return np.fmin.reduceat(ordered, starts) == np.fmax.reduceat(ordered, starts)


def _fix(name: str, kind: BinKind, values: pa.ChunkedArray | pa.Array, days: _Days, *, view: str) -> Bins:
    """Lay the bins on all training rows, then see how far the single training days stray from them."""
    edges, categories, other, moments, is_constant = (), (), (), UNKNOWN, None
    if kind == "categorical":
        categories, other = _categories(values)
    else:
        numbers = to_numbers(values)
        edges, moments, is_constant = _edges(numbers), moments_of(numbers), days.are_constant(numbers)
    bins = Bins(
        feature=name,
        kind=kind,
        edges=edges,
        categories=categories,
        other_categories=other,
        shares=(),
        view=view,
        mean=moments.mean,
        sd=moments.sd,
        minimum=moments.minimum,
        maximum=moments.maximum,
    )
    counts = days.counts(bins.index(values), _n_bins(bins))
    if is_constant is None:  # a category
        is_constant = np.count_nonzero(counts[:, :-1], axis=1) == 1
    return replace(
        bins,
        shares=tuple((counts.sum(axis=0) / counts.sum()).tolist()),
        variation=day_variation(counts),
        constant_days_share=float(is_constant.mean()),
    )


def _edges(numbers: Floats) -> tuple[float, ...]:
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return ()
    # Quantiles that are values of the column, so that "12 to 15" means what it says for whole numbers.
    upper = np.quantile(finite, np.arange(1, _N_BINS + 1) / _N_BINS, method="inverted_cdf")
    return tuple(np.unique([np.nextafter(finite.min(), -np.inf), *upper]).tolist())


def _categories(values: pa.ChunkedArray | pa.Array) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the most frequent categories, most frequent first (equal counts by name), and the others by name."""
    counted = values.cast(pa.string()).drop_null().value_counts()
    counts = cast("Mapping[str, int]", dict(zip(*(counted.field(i).to_pylist() for i in (0, 1)), strict=True)))
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(names[:_N_CATEGORIES]), tuple(sorted(names[_N_CATEGORIES:]))
