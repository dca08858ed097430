"""Small histograms: the day's rows of a feature in the bins of training, against the share that training had there."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ml_assets.core.drift import percent
from ml_assets.core.reference import Bins
from ml_assets.core.reports.svg import element, number, stroke

_WIDE, _HIGH = 240, 56
# Judgement: of up to 53 categories no more have room; those that moved most are the ones to see.
_MOST_BARS = 14
_REST = "all others"


@dataclass(frozen=True, kw_only=True)
class HistogramBar:
    """One bin: its name, the day's share of the rows and training's."""

    label: str
    day: float
    training: float


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """A drawn histogram and the names at both ends of its axis."""

    svg: Markup
    first: str
    last: str


def histogram_bars(bins: Bins, counts: Sequence[int]) -> Sequence[HistogramBar]:
    """Return the bins that hold rows of the day or of training; of many categories those that moved most, and the rest.

    ``counts`` are the day's rows in each bin; where they are not of these bins, there are no bars.
    """
    total = sum(counts)
    if len(counts) != len(bins.shares) or not total:
        return []
    found = [
        HistogramBar(label=bins.label(i), day=counts[i] / total, training=bins.shares[i])
        for i in range(len(counts))
        if counts[i] or bins.shares[i] > 0
    ]
    if len(found) <= _MOST_BARS:
        return found
    by_move = sorted(range(len(found)), key=lambda i: (-abs(found[i].day - found[i].training), i))
    kept = sorted(by_move[: _MOST_BARS - 1])
    rest = [found[i] for i in by_move[_MOST_BARS - 1 :]]
    others = HistogramBar(label=_REST, day=sum(b.day for b in rest), training=sum(b.training for b in rest))
    return [*(found[i] for i in kept), others]


def draw_histogram(bars: Sequence[HistogramBar], *, title: str) -> Histogram | None:
    """Draw bars for the day over a grey shape for training; None where there is nothing to draw."""
    if not bars:
        return None
    top = max(max(bar.day, bar.training) for bar in bars)
    wide = _WIDE / len(bars)
    shape = f"M0 {_HIGH}" + "".join(f"V{number(_HIGH - _HIGH * bar.training / top)}h{number(wide)}" for bar in bars)
    drawn = [element("path", d=f"{shape}V{_HIGH}z", class_="training")]
    for i, bar in enumerate(bars):
        words = f"{bar.label}: {percent(bar.day)} of the day, {percent(bar.training)} of training"
        high = _HIGH * bar.day / top
        box = element("rect", x=i * wide + wide * 0.2, y=_HIGH - high, width=wide * 0.6, height=high, class_="day")
        # The whole column answers to the pointer, however low its bar is.
        target = element("rect", x=i * wide, y=0, width=wide, height=_HIGH, class_="target")
        drawn.append(element("g", element("title", words), box, target))
    drawn.append(stroke(f"M0 {_HIGH}h{_WIDE}", "grid"))
    words = "; ".join(
        f"{bar.label}: {percent(bar.day)} against {percent(bar.training)}"
        for bar in sorted(bars, key=lambda bar: -abs(bar.day - bar.training))[:3]
    )
    svg = element(
        "svg",
        element("title", title),
        element("desc", words),
        *drawn,
        class_="histogram",
        viewBox=f"0 0 {_WIDE} {_HIGH}",
        preserveAspectRatio="none",
        role="img",
    )
    return Histogram(svg=svg, first=bars[0].label, last=bars[-1].label)
