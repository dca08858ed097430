"""Mean, standard deviation and range of a column, the same to the last bit in whatever order an engine adds."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Beyond this a number is taken to be a mistake: its square would leave no room for a sum in a double.
LARGEST = 1e100
# Of the 53 binary digits of a double, those that no order of summation touches: sums of 1e9 numbers lose 17 at most.
_DIGITS = 26


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments of the numbers of a column, in its unit; null where it has none.

    NaN, infinities and numbers beyond 1e100 are left out; the bins count them. ``sd`` divides by n. ``mean`` and ``sd``
    are rounded to 26 binary digits (8 decimal ones) of the root mean square distance from the training mean: what
    summation in another order or in parts does to a sum lies far below, so that two warehouses agree to the bit.
    """

    mean: float | None = None
    sd: float | None = None
    minimum: float | None = None
    maximum: float | None = None


UNKNOWN = Moments()


def moments_of_sums(
    n_finite: int, low: float | None, high: float | None, total: float | None, squares: float | None, *, origin: float
) -> Moments:
    """Return the moments of n numbers from the sums of their distances from an origin, and of the squares of those.

    mean = origin + total / n and variance = squares / n - (total / n)^2: exact for any origin (Steiner's theorem); in
    doubles it loses the digits by which the mean lies further from the origin than the numbers from each other, so the
    origin is the training mean (Chan, Golub, LeVeque, Algorithms for computing the sample variance, 1983).

    >>> moments_of_sums(4, 1.0, 4.0, -2.0, 6.0, origin=3.0)
    Moments(mean=2.5, sd=1.118033988749895, minimum=1.0, maximum=4.0)
    """
    if not n_finite or low is None or high is None or total is None or squares is None:
        return UNKNOWN
    # Adding zero makes a positive zero of a negative one, which equals it: which of them was met first is chance.
    low, high = low + 0.0, high + 0.0
    if low == high:
        return Moments(mean=low, sd=0.0, minimum=low, maximum=high)
    shift, square = total / n_finite, squares / n_finite
    mean = origin + _rounded(shift, of=math.sqrt(square)) + 0.0
    variance = max(0.0, _rounded(square - shift * shift, of=square))
    return Moments(mean=min(max(mean, low), high), sd=math.sqrt(variance), minimum=low, maximum=high)


def moments_of(numbers: npt.NDArray[np.float64], *, origin: float | None = None) -> Moments:
    """Return the moments of an array; NaN is no number. Without an origin the middle number is it."""
    finite = np.sort(numbers[np.abs(numbers) < LARGEST])
    if not len(finite):
        return UNKNOWN
    middle = float(finite[len(finite) // 2]) if origin is None else origin
    away = finite - middle
    return moments_of_sums(
        len(finite),
        float(finite[0]),
        float(finite[-1]),
        float(away.sum()),
        float(np.dot(away, away)),
        origin=middle,
    )


def _rounded(value: float, *, of: float) -> float:
    """Round to the digits that hold in a sum of numbers of the size ``of``."""
    unit = math.ldexp(1.0, math.frexp(of)[1] - _DIGITS)
    return round(value / unit) * unit if unit else value
