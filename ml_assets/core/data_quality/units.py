"""Finding a day whose numbers are in another unit: unlike the recent days as they are, like them once converted back.

The evidence is of two kinds. Most measured columns are quantised: a thermometer knows a hundred values, not all real
numbers, and the values of a day are those of the days before. In another unit hardly any of them is, and after the
conversion back nearly all are again, whatever the weather. Where the source rounds after it converts, that is lost, and
only the level is left: a day that lies outside all recent days as it is, and among them once it is converted back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Values:
    """The different values of a column on a day, ascending, and in how many rows each is; nulls are not among them."""

    values: Floats  # [n_values]
    counts: Counts  # [n_values]

    @property
    def median(self) -> float:
        """Return the lower median of the rows.

        >>> Values(values=np.array([1.0, 5.0]), counts=np.array([1, 2])).median
        5.0
        """
        return float(self.values[np.searchsorted(np.cumsum(self.counts), self.counts.sum() / 2)])

    def nonzero(self) -> "Values":
        """Return them without zero."""
        return Values(values=self.values[self.values != 0], counts=self.counts[self.values != 0])


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Another unit: a value becomes ``value * factor + offset`` in it."""

    words: str
    factor: float
    offset: float = 0.0

    def apply(self, values: Floats) -> Floats:
        """Return the values in the other unit."""
        return values * self.factor + self.offset

    def undo(self, values: Floats) -> Floats:
        """Return values that are in the other unit as they are in this one."""
        return (values - self.offset) / self.factor


_THOUSANDS = (
    Conversion(words="1000 times the usual unit", factor=1000.0),
    Conversion(words="a thousandth of the usual unit", factor=0.001),
)
CONVERSIONS: Mapping[str, tuple[Conversion, ...]] = {
    "fahrenheit": (
        Conversion(words="degrees Celsius", factor=5 / 9, offset=-160 / 9),
        Conversion(words="kelvin", factor=5 / 9, offset=273.15 - 160 / 9),
        *_THOUSANDS,
    ),
    "mph": (
        Conversion(words="metres per second", factor=0.44704),
        Conversion(words="kilometres per hour", factor=1.609344),
        Conversion(words="knots", factor=0.868976),
        *_THOUSANDS,
    ),
    "mbar": (
        Conversion(words="inches of mercury", factor=0.02953),
        Conversion(words="pascals", factor=100.0),
        Conversion(words="kilopascals", factor=0.1),
        Conversion(words="millimetres of mercury", factor=0.750062),
        *_THOUSANDS,
    ),
    "miles": (
        Conversion(words="kilometres", factor=1.609344),
        Conversion(words="metres", factor=1609.344),
        Conversion(words="feet", factor=5280.0),
        Conversion(words="nautical miles", factor=0.868976),
        *_THOUSANDS,
    ),
    "inches": (
        Conversion(words="millimetres", factor=25.4),
        Conversion(words="centimetres", factor=2.54),
        *_THOUSANDS,
    ),
    "minutes": (
        Conversion(words="seconds", factor=60.0),
        Conversion(words="hours", factor=1 / 60),
        *_THOUSANDS,
    ),
    "percent": (Conversion(words="a share between 0 and 1", factor=0.01), *_THOUSANDS),
    "degrees": (Conversion(words="radians", factor=np.pi / 180), *_THOUSANDS),
}

# Judgement: fewer values than this tell no unit.
_FEWEST_ROWS = 8
# Judgement, in parts of the usual distance between two neighbouring values: what converting back may miss by.
_TOLERANCE = 0.05
# Judgement, likewise: what it may miss by where the values were rounded after they were converted.
_TOLERANCE_OF_ROUNDED = 0.25
# Judgement: below the first share of known values a day is strange, from the second on it is explained.
_STRANGE, _EXPLAINED = 0.5, 0.6
_DIVERSE = 0.3
# Judgement, in usual steps from one day to the next.
_FAR, _NEAR = 4.0, 3.0
_RECENT_DAYS = 7
_FEWEST_DAYS = 7


def other_unit(unit: str, today: Values, recent: Sequence[Values]) -> Conversion | None:
    """Return the unit that a day's values are in, where that is another than the column's, None where it is not.

    ``recent`` are the days before, oldest first; too few of them tell nothing. A conversion that changes only the scale
    leaves zeros as they are, so that a day of zeros is in every unit at once.
    """
    views = (_Compared.of(today, recent), _Compared.of(today.nonzero(), [day.nonzero() for day in recent]))
    found = [
        (evidence, conversion)
        for conversion in CONVERSIONS[unit]
        # Zero is zero in every unit, and whatever is small in another unit is close to it.
        if (compared := views[0 if conversion.offset else 1]) and (evidence := _evidence(conversion, compared)) > 0
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """A day beside the days before it: all their different values, and what of the day is not among these."""

    today: Values
    recent: Sequence[Values]
    usual: Floats
    is_strange: bool
    is_outside: bool

    @classmethod
    def of(cls, today: Values, recent: Sequence[Values]) -> "_Compared | None":
        """Return the comparison, or None where there are too few values to tell anything."""
        known = [day for day in recent if len(day.values)]
        if today.counts.sum() < _FEWEST_ROWS or len(known) < _FEWEST_DAYS:
            return None
        usual = np.unique(np.concatenate([day.values for day in known]))
        return cls(
            today=today,
            recent=known,
            usual=usual,
            is_strange=_share(today.counts, _is_usual(today.values, usual)) <= _STRANGE,
            is_outside=_share(today.counts, ~_is_inside(today.values, usual)) >= _EXPLAINED,
        )


def _evidence(conversion: Conversion, compared: _Compared) -> float:
    """Return how well a conversion explains the day: 0 where it does not, above 1 where the very values are usual."""
    if not compared.is_strange and not compared.is_outside:
        return 0.0
    usual, counts, back = compared.usual, compared.today.counts, conversion.undo(compared.today.values)
    if compared.is_strange and _stays_diverse(back, usual):
        rounded_by = 0.5 * _resolution(compared.today.values) / abs(conversion.factor)
        is_usual = _is_usual(back, usual, rounded_by=rounded_by)
        for evidence, is_explained in ((3.0, is_usual), (2.0, _is_on_grid(back, usual))):
            if _share(counts, is_explained) >= _EXPLAINED:
                return evidence + _share(counts, is_explained)
    inside = _share(counts, _is_inside(back, usual))
    is_explained = compared.is_outside and inside >= _EXPLAINED and _is_at_the_level(conversion, compared)
    return inside if is_explained else 0.0


def _share(counts: Counts, which: npt.NDArray[np.bool_]) -> float:
    return float(counts[which].sum() / counts.sum())


def _is_inside(values: Floats, usual: Floats, *, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """Tell which values lie in the range of the usual ones, or beyond it by this part of it."""
    beyond = margin * (usual[-1] - usual[0])
    return (values >= usual[0] - beyond) & (values <= usual[-1] + beyond)


def _is_usual(values: Floats, usual: Floats, *, rounded_by: float = 0.0) -> npt.NDArray[np.bool_]:
    """Tell which values are usual ones, give or take what they were rounded by."""
    gaps = np.diff(usual)
    gap = float(np.median(gaps)) if len(gaps) else 1e-4 * max(1.0, abs(float(usual[0])))
    tolerance = max(_TOLERANCE * gap, min(rounded_by, _TOLERANCE_OF_ROUNDED * gap))
    return np.abs(values - usual[_nearest(values, usual)]) <= tolerance


def _resolution(values: Floats) -> float:
    """Return 1 where all values are whole numbers, 0.1 where all are whole tenths, 0 where they are neither."""
    return next((step for step in (1.0, 0.1) if np.abs(values / step - np.round(values / step)).max() < 1e-6), 0.0)


def _nearest(values: Floats, usual: Floats) -> npt.NDArray[np.int64]:
    above = np.clip(np.searchsorted(usual, values), 1, max(len(usual) - 1, 1))
    above = np.minimum(above, len(usual) - 1)
    below = np.maximum(above - 1, 0)
    return np.where(np.abs(values - usual[below]) <= np.abs(values - usual[above]), below, above)


def _is_on_grid(values: Floats, usual: Floats) -> npt.NDArray[np.bool_]:
    """Tell which values are not far from the usual ones and multiples of the step that all of them are multiples of."""
    gaps = np.diff(usual)
    step = float(gaps.min()) if len(gaps) else abs(float(usual[0]))
    if not _is_on(step, usual).all():
        return np.zeros(len(values), np.bool_)
    return _is_on(step, values) & _is_inside(values, usual, margin=1.0)


def _is_on(step: float, values: Floats) -> npt.NDArray[np.bool_]:
    n_steps = np.round(values / step)
    return (np.abs(values / step - n_steps) <= _TOLERANCE) & (n_steps != 0)


def _stays_diverse(back: Floats, usual: Floats) -> bool:
    """Tell whether different values are different usual ones: a large divisor brings all of them close to one."""
    return len(np.unique(_nearest(back, usual))) >= _DIVERSE * min(len(back), len(usual))


def _is_at_the_level(conversion: Conversion, compared: _Compared) -> bool:
    """Tell whether the day's median is far from the recent ones as it is, and near them once it is converted back.

    Far and near are held against how much the median of a day usually differs from the days before it: a cold front
    is colder than all recent days too. What only changes the scale is compared in orders of magnitude.
    """
    here = compared.today.median
    found = np.array([here, float(conversion.undo(np.array([here]))[0])])
    medians = np.array([day.median for day in compared.recent])
    if not conversion.offset:
        found, medians = np.log(np.abs(found)), np.log(np.abs(medians))
    steps = [abs(m - np.median(medians[max(n - _RECENT_DAYS, 0) : n])) for n, m in enumerate(medians) if n]
    centre = np.median(medians[-_RECENT_DAYS:])
    scale = max(1.4826 * float(np.median(steps)), 0.01 * abs(float(centre)), 1e-9)
    away, away_back = (abs(float(each - centre)) for each in found)
    return away >= _FAR * scale and away_back <= _NEAR * scale and away >= _FAR * away_back
