"""Partial dependence: what a model predicts on average when one feature is set to a value for every row.

Friedman, Greedy Function Approximation, 2001, section 8.2. The band is that of the rows' own curves, each moved so that
they share one mean (centred individual conditional expectation, Goldstein et al., 2015): where it is wide, the feature
means something else to some rows than to others. Everything else stays as it is in the row, also where the two never
come together; so it shows what the model does, not what the world would do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ml_assets.core.encoding import NULL_CODE, Coded, Input, Signature, Vocabulary
from ml_assets.core.evaluation import Floats

# Steps of a twentieth of the training rows, and close to the ends.
_QUANTILES = (0.01, *(step / 20 for step in range(1, 20)), 0.99)
_N_CATEGORIES = 10
_BAND = (0.1, 0.9)
_FIRST_CODE = 2


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of the feature, None for null, and the predictions with it.

    ``mean`` is over all rows; ``low`` and ``high`` are where the centred curves of eight in ten rows lie. ``share`` is
    that of the training rows: with this category or null, or of a number those that the quantile stands for.
    """

    value: float | str | None
    mean: float
    low: float
    high: float
    share: float


@dataclass(frozen=True, kw_only=True)
class PartialDependence:
    """The curve of one feature over ``n_rows`` rows; numbers ascending, categories the most frequent first, null last.

    ``n_other`` is how many more categories there are.
    """

    feature: Input
    points: tuple[Point, ...]
    n_rows: int
    n_other: int = 0


def partial_dependence(
    predict: Callable[[Coded], Floats],
    rows: Coded,
    *,
    feature: str,
    train: Coded,
    signature: Signature,
    vocabulary: Vocabulary,
) -> PartialDependence:
    """Return the curve of one feature, over the quantiles of ``train`` or over its most frequent categories.

    ``predict`` gives float64 [n] for coded rows; ``rows`` are those whose other features are kept. Raises ValueError
    for a feature that is not in the signature.
    """
    numeric, categorical = ([column.name for column in part] for part in (signature.numeric, signature.categorical))
    if feature in numeric:
        place = numeric.index(feature)
        codes, shares = _numbers(train.numeric[:, place])
        values = [None if np.isnan(code) else float(code) for code in codes]
        chosen, n_other, is_number = signature.numeric[place], 0, True
    elif feature in categorical:
        place = categorical.index(feature)
        codes, shares, n_other = _categories(train.categorical[:, place])
        names = vocabulary.values[feature]
        values = [None if code == NULL_CODE else names[int(code) - _FIRST_CODE] for code in codes]
        chosen, is_number = signature.categorical[place], False
    else:
        raise ValueError(f"the model reads no {feature!r}; it reads {[*numeric, *categorical]}")
    curves = np.stack([predict(_with(rows, place, code, is_number=is_number)) for code in codes], axis=1)
    mean = curves.mean(axis=0)
    # Each row's own curve, moved to the mean of all: what differs then is the shape, not where the row starts.
    low, high = np.quantile(curves - curves.mean(axis=1, keepdims=True), _BAND, axis=0) + mean.mean()
    return PartialDependence(
        feature=chosen,
        points=tuple(
            Point(value=value, mean=float(mean[i]), low=float(low[i]), high=float(high[i]), share=float(shares[i]))
            for i, value in enumerate(values)
        ),
        n_rows=len(rows),
        n_other=n_other,
    )


def _numbers(column: np.ndarray) -> tuple[Floats, Floats]:
    """Return the distinct quantiles of a column, ascending, NaN last if it occurs, and the share of rows nearest each.

    An infinite number, which is beyond float32, takes no part.
    """
    known = column[np.isfinite(column)].astype(np.float64)
    grid = np.unique(np.quantile(known, _QUANTILES, method="nearest")) if len(known) else np.empty(0)
    counts = np.zeros(len(grid))
    if len(grid):
        middles = (grid[1:] + grid[:-1]) / 2
        counts = np.bincount(np.searchsorted(middles, known), minlength=len(grid)).astype(np.float64)
    n_null = np.count_nonzero(np.isnan(column))
    if n_null:
        grid, counts = np.append(grid, np.nan), np.append(counts, n_null)
    return grid, counts / max(1, len(column))


def _categories(column: np.ndarray) -> tuple[Floats, Floats, int]:
    """Return the most frequent codes, that of null last if it occurs, their shares, and how many more there are."""
    counts = np.bincount(column)
    n_null, counts[NULL_CODE] = int(counts[NULL_CODE]) if len(counts) else 0, 0
    seen = np.flatnonzero(counts)
    codes = seen[np.argsort(-counts[seen], kind="stable")][:_N_CATEGORIES]
    shares = counts[codes]
    if n_null:
        codes, shares = np.append(codes, NULL_CODE), np.append(shares, n_null)
    return codes.astype(np.float64), shares / max(1, len(column)), max(0, len(seen) - _N_CATEGORIES)


def _with(rows: Coded, place: int, code: float, *, is_number: bool) -> Coded:
    """Return the rows with one column, by place, set to one value."""
    changed = (rows.numeric if is_number else rows.categorical).copy()
    changed[:, place] = code
    if is_number:
        return Coded(numeric=changed, categorical=rows.categorical)
    return Coded(numeric=rows.numeric, categorical=changed)
