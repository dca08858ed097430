"""Figures over days: lines with bands, bars from one day to another, and marks, all on one time axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from ml_assets.core.drift import percent
from ml_assets.core.reports.scales import Scale
from ml_assets.core.reports.svg import WIDE, element, figure, number, percent_of_width, stretched, stroke
from ml_assets.core.reports.time_axis import TimeAxis

Style = Literal["main", "other", "third", "quiet"]

LINE_HEIGHT = 150
_TOP, _BOTTOM = 16.0, 6.0
_BAR = 14
# So many days that a dot on each would hide the line.
_MOST_DOTS = 45


@dataclass(frozen=True, kw_only=True)
class Line:
    """A number a day; ``band`` is the range in which it lies. A day without one leaves a gap."""

    name: str
    values: Mapping[date, float | None]
    style: Style = "main"
    is_dashed: bool = False
    band: Mapping[date, tuple[float, float]] = field(default_factory=dict[date, tuple[float, float]])

    def known(self, axis: TimeAxis) -> Mapping[date, float]:
        """Return the numbers of the days of an axis that have one."""
        found = {day: self.values.get(day) for day in axis.days}
        return {day: value for day, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Something that lasted from one day to another, both included."""

    first: date
    last: date
    label: str
    words: str
    kind: str


def line_lane(
    axis: TimeAxis,
    lines: Sequence[Line],
    *,
    title: str,
    is_share: bool = False,
    level: tuple[str, float] | None = None,
    rules: Sequence[date] = (),
) -> Markup:
    """Draw lines over days. ``level`` is a named height to compare with; ``rules`` are days marked by upright lines."""
    known = [line.known(axis) for line in lines]
    values = [value for found in known for value in found.values()]
    values += [v for line in lines for day, band in line.band.items() if axis.first <= day <= axis.last for v in band]
    values += [level[1]] if level else []
    scale = Scale.over(values, low=LINE_HEIGHT - _BOTTOM, high=_TOP)
    grid, names = list[Markup](), list[Markup]()
    for tick in scale.ticks:
        y = scale.at(tick)
        words = scale.written(tick, is_share=is_share)
        grid.append(element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"))
        names.append(element("text", words, x=0, y=y - 3, class_="tick"))
    drawn = [_band(axis, line, scale) for line in lines if line.band]
    for line, found in zip(lines, known, strict=True):
        d = _path(axis, found, scale)
        drawn.append(stroke(d, f"line s-{line.style}{' dashed' if line.is_dashed else ''}"))
    marks = list[Markup]()
    if level:
        y = scale.at(level[1])
        marks.append(element("line", x1="0", x2="100%", y1=y, y2=y, class_="level"))
        marks.append(element("text", level[0], x="100%", y=y - 3, text_anchor="end", class_="tick"))
    for line, found in zip(lines, known, strict=True):
        for day in _dotted(axis, found):
            x = percent_of_width(axis.centre(day))
            marks.append(element("circle", cx=x, cy=scale.at(found[day]), r=2.5, class_=f"f-{line.style}"))
    words = "; ".join(_said(line.name, found, is_share) for line, found in zip(lines, known, strict=True))
    upright = axis.rules(rules, "rule")
    content = [*upright, *grid, stretched(*drawn, high=LINE_HEIGHT), *marks, *names]
    return figure(*content, high=LINE_HEIGHT, title=title, description=words)


def bar_lane(axis: TimeAxis, bars: Sequence[Bar], *, title: str, rules: Sequence[date] = ()) -> tuple[Markup, int]:
    """Draw bars from day to day in as many rows as they need; return the figure and its height."""
    ends, placed = list[float](), list[tuple[int, Bar]]()
    for bar in bars:
        left, right = _ends_with_label(axis, bar)
        row = next((i for i, end in enumerate(ends) if end <= left + 1e-9), len(ends))
        ends[row : row + 1] = [right]
        placed.append((row, bar))
    high = max(1, len(ends)) * (_BAR + 3)
    marks = list[Markup]()
    for row, bar in placed:
        left, right = _ends(axis, bar)
        y = row * (_BAR + 3)
        box = element(
            "rect",
            x=percent_of_width(left),
            y=y,
            width=percent_of_width(right - left),
            height=_BAR,
            rx=2,
            class_=bar.kind,
        )
        marks.append(element("g", element("title", bar.words), box))
        # A short bar has its label beside it, on the side where there is room.
        is_inside, is_before = right - left > _label_width(bar), right > 0.9
        x, anchor = (left, "start") if is_inside else (left, "end") if is_before else (right, "start")
        # White on dark bars, dark on light ones: either can be read.
        kind = ("on" if bar.kind == "bar-severe" else "on-light") if is_inside else "beside"
        shift = -4 if anchor == "end" else 4
        marks.append(
            element("text", bar.label, x=percent_of_width(x), y=y + 11, dx=shift, text_anchor=anchor, class_=kind)
        )
    words = "; ".join(f"{bar.words}, {bar.first} to {bar.last}" for bar in bars) or "none"
    return figure(*axis.rules(rules, "rule"), *marks, high=high, title=title, description=words), high


def _label_width(bar: Bar) -> float:
    """Return how wide a label is on a phone, as a share of the width."""
    return 0.02 + 0.02 * len(bar.label)


def _ends(axis: TimeAxis, bar: Bar) -> tuple[float, float]:
    return max(0.0, axis.left(bar.first)), min(1.0, axis.left(bar.last) + 1 / axis.n_days)


def _ends_with_label(axis: TimeAxis, bar: Bar) -> tuple[float, float]:
    left, right = _ends(axis, bar)
    wide = _label_width(bar)
    if right - left > wide:
        return left, right
    return (left - wide, right) if right > 0.9 else (left, right + wide)


def mark_lane(axis: TimeAxis, marks: Mapping[date, tuple[str, str]], *, title: str, rules: Sequence[date]) -> Markup:
    """Draw a mark on each of these days: its class of the style sheet, and what it says."""
    drawn = list[Markup]()
    for day, (kind, words) in marks.items():
        if axis.first <= day <= axis.last:
            x = percent_of_width(axis.centre(day))
            drawn.append(
                element("g", element("title", f"{day}: {words}"), element("circle", cx=x, cy=8, r=4.5, class_=kind))
            )
    words = "; ".join(f"{day}: {words}" for day, (_, words) in marks.items()) or "none"
    return figure(*axis.rules(rules, "rule"), *drawn, high=16, title=title, description=words)


def reign_lane(axis: TimeAxis, reigns: Sequence[tuple[date, str, str]]) -> Markup:
    """Draw who was in charge: each its first day, a short name and the whole one, in order of the days."""
    marks = list[Markup]()
    ends = [*(day for day, _, _ in reigns[1:]), None]
    last_shown, last_roomy = -1.0, -1.0
    for i, ((first, short, words), end) in enumerate(zip(reigns, ends, strict=True)):
        left = max(0.0, axis.left(first))
        right = 1.0 if end is None else axis.left(end)
        box = element(
            "rect",
            x=percent_of_width(left),
            y=0,
            width=percent_of_width(max(0.0, right - left)),
            height=22,
            class_=f"reign-{i % 2}",
        )
        marks.append(element("g", element("title", words), box))
        # Too close to the label before it, one is shown only where there is room, or not at all.
        if left - last_shown >= 0.2:
            kind, last_shown, last_roomy = "date", left, left
        elif left - last_roomy >= 0.07:
            kind, last_roomy = "date roomy", left
        else:
            continue
        marks.append(element("text", short, x=percent_of_width(left), y=15, dx=4, class_=kind))
    words = "; ".join(f"{words} from {first}" for first, _, words in reigns)
    return figure(*marks, high=22, title="Who was in charge", description=words)


def _path(axis: TimeAxis, found: Mapping[date, float], scale: Scale) -> str:
    parts = list[str]()
    before: date | None = None
    for day, value in found.items():
        letter = "L" if before is not None and (day - before).days == 1 else "M"
        parts.append(f"{letter}{number(WIDE * axis.centre(day))} {number(scale.at(value))}")
        before = day
    return "".join(parts)


def _band(axis: TimeAxis, line: Line, scale: Scale) -> Markup:
    """Fill from the lower to the upper ends, each unbroken run of days by itself."""
    days = [day for day in axis.days if day in line.band]
    runs = list[list[date]]()
    for day in days:
        if runs and (day - runs[-1][-1]).days == 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    d = ""
    for run in runs:
        corners = [(day, line.band[day][0]) for day in run] + [(day, line.band[day][1]) for day in reversed(run)]
        d += "M" + "L".join(f"{number(WIDE * axis.centre(day))} {number(scale.at(v))}" for day, v in corners) + "Z"
    return element("path", d=d, class_=f"band f-{line.style}")


def _dotted(axis: TimeAxis, found: Mapping[date, float]) -> Sequence[date]:
    """Return the days that get a dot: all of a short time, otherwise those without neighbours, which no line shows."""
    if axis.n_days <= _MOST_DOTS:
        return list(found)
    days = list(found)
    gaps = [True, *((later - day).days > 1 for day, later in pairwise(days)), True]
    return [day for day, before, after in zip(days, gaps, gaps[1:], strict=False) if before and after]


def _said(name: str, found: Mapping[date, float], is_share: bool) -> str:
    if not found:
        return f"{name}: nothing yet"

    def written(day: date) -> str:
        return f"{percent(found[day]) if is_share else f'{found[day]:.4g}'} on {day}"

    lowest, highest = min(found, key=lambda day: found[day]), max(found, key=lambda day: found[day])
    newest = max(found)
    return f"{name}: {written(newest)}, lowest {written(lowest)}, highest {written(highest)}"
