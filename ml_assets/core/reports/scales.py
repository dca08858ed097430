"""How values become heights: a scale whose ends and ticks are round numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_N_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values from ``bottom`` to ``top`` onto heights from ``low`` to ``high``; ``step`` lies between two ticks."""

    bottom: float
    top: float
    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float], *, low: float, high: float, has_zero: bool = False) -> "Scale":
        """Return the scale that holds all these values, infinite ones and NaN left out, and zero if ``has_zero``.

        >>> scale = Scale.over([0.52, 0.71], low=100, high=0)
        >>> scale.ticks, scale.at(0.6)
        ((0.5, 0.6, 0.7, 0.8), 66.66666666666669)
        >>> Scale.over([], low=100, high=0).ticks
        (0.0, 0.5, 1.0)
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        finite += [0.0] if has_zero else []
        bottom, top = min(finite), max(finite)
        if top <= bottom:
            margin = abs(bottom) * 0.05 or 0.5
            bottom, top = bottom - margin, top + margin
        step = _round_step((top - bottom) / _N_STEPS)
        return cls(
            bottom=math.floor(bottom / step) * step, top=math.ceil(top / step) * step, low=low, high=high, step=step
        )

    @property
    def ticks(self) -> tuple[float, ...]:
        """The round numbers from the bottom to the top."""
        n = round((self.top - self.bottom) / self.step)
        digits = max(0, 2 - math.floor(math.log10(self.step)))
        return tuple(round(self.bottom + i * self.step, digits) for i in range(n + 1))

    def at(self, value: float) -> float:
        """Return the height of a value; one that lies outside is held at the edge."""
        share = (min(max(value, self.bottom), self.top) - self.bottom) / (self.top - self.bottom)
        return self.low + share * (self.high - self.low)

    def written(self, tick: float, *, is_share: bool = False) -> str:
        """Write a tick with the decimals that tell it from the next, a share in percent.

        >>> scale = Scale.over([0.52, 0.71], low=100, high=0)
        >>> scale.written(0.5), scale.written(0.5, is_share=True)
        ('0.5', '50 %')
        """
        value, step = (100 * tick, 100 * self.step) if is_share else (tick, self.step)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        text = f"{value + 0.0:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        return f"{text} %" if is_share else text


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is no smaller.

    >>> [_round_step(value) for value in (0.07, 0.11, 3.0, 1.0)]
    [0.1, 0.2, 5.0, 1.0]
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))
