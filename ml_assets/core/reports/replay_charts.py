"""The charts of a replay: quality by week of all that are compared, what happened on the same axis, and the gains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

from ml_assets.core.reports.charts import GRID, MAIN, MUTED, OTHER, QUIET, Rows, Spec, styled

if TYPE_CHECKING:
    import altair as alt

EventKind = Literal["promoted", "refused", "asked to retrain", "alarm", "severe alarm"]
# Row of the strip, colour and shape of each.
_EVENTS: Mapping[EventKind, tuple[str, str, str]] = {
    "promoted": ("promoted", MAIN, "triangle-up"),
    "refused": ("refused", OTHER, "cross"),
    "asked to retrain": ("asked", MUTED, "stroke"),
    "alarm": ("alarm", QUIET, "square"),
    "severe alarm": ("alarm", OTHER, "square"),
}
_DASHES: Sequence[Sequence[int]] = ([1, 0], [1, 0], [5, 3], [1, 0])
_COLOURS = (MAIN, OTHER, OTHER, QUIET)
# As wide as the other charts of the reports, so that text is as large.
_WIDTH, _HEIGHT, _ROW_HEIGHT = 372, 200, 17


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened on a day."""

    day: date
    kind: EventKind


def quality_by_week(
    weeks: Sequence[date],
    series: Mapping[str, Sequence[float | None]],
    events: Sequence[Event],
    *,
    y_title: str,
    first: date,
    last: date,
) -> Spec:
    """Draw up to four figures a week as lines, and what happened in a strip below, on one time axis.

    A line begins and ends with its figures. Champion changes are upright lines through the figures, too.
    """
    import altair as alt

    names = list(series)
    values = [
        {"day": day.isoformat(), "value": value, "series": name}
        for name, column in series.items()
        for day, value in zip(weeks, column, strict=True)
        if value is not None
    ]
    x = _time_axis(first, last, is_labelled=False)
    changes = alt.Chart(alt.NamedData("changes")).mark_rule(color=GRID, strokeWidth=1.5).encode(x=x)
    key = alt.Legend(orient="top", title=None, symbolType="stroke", columns=2, labelLimit=180)
    lines = (
        alt.Chart(alt.NamedData("rows"))
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=5)),
            color=alt.Color("series:N", scale=alt.Scale(domain=names, range=list(_COLOURS[: len(names)])), legend=key),
            strokeDash=alt.StrokeDash(
                "series:N", scale=alt.Scale(domain=names, range=list(_DASHES[: len(names)])), legend=key
            ),
        )
    )
    above = alt.layer(changes, lines).properties(width=_WIDTH, height=_HEIGHT)
    promoted = [{"day": event.day.isoformat()} for event in events if event.kind == "promoted"]
    return _laid_out(above, _strip(first, last), rows=values, changes=promoted, events=_dots(events))


def gains_by_week(weeks: Sequence[tuple[date, float, float | None]], *, y_title: str, first: date, last: date) -> Spec:
    """Draw the gain of each week with its margin; a gain beyond its margin is filled, above 0 is better."""
    import altair as alt

    values = [
        {
            "day": day.isoformat(),
            "gain": gain,
            "low": gain - margin if margin is not None else gain,
            "high": gain + margin if margin is not None else gain,
            "side": _side(gain, margin),
        }
        for day, gain, margin in weeks
    ]
    domain = ["better", "within the noise", "worse"]
    colour = alt.Color(
        "side:N",
        scale=alt.Scale(domain=domain, range=[MAIN, QUIET, OTHER]),
        legend=alt.Legend(orient="top", title=None, symbolType="circle"),
    )
    chart = alt.Chart(alt.NamedData("rows")).encode(x=_time_axis(first, last), color=colour)
    zero = alt.Chart(alt.NamedData("zero")).mark_rule(color=MUTED, strokeWidth=1).encode(y="gain:Q")
    layers = alt.layer(
        zero,
        chart.mark_rule(strokeWidth=1.5).encode(
            y=alt.Y("low:Q", title=y_title, axis=alt.Axis(tickCount=5)), y2="high:Q"
        ),
        chart.mark_point(filled=True, size=34, opacity=1).encode(y="gain:Q"),
    ).properties(width=_WIDTH, height=_HEIGHT + 40)
    return _laid_out(layers, rows=values, zero=[{"gain": 0.0}])


def _side(gain: float, margin: float | None) -> str:
    if margin is None or abs(gain) <= margin:
        return "within the noise"
    return "better" if gain > 0 else "worse"


def _time_axis(first: date, last: date, *, is_labelled: bool = True) -> "alt.X":
    import altair as alt

    axis = alt.Axis(format="%b", tickCount="month", grid=False, labels=is_labelled, ticks=is_labelled)
    scale = alt.Scale(type="utc", domain=[first.isoformat(), last.isoformat()])
    return alt.X("day:T", title=None, scale=scale, axis=axis)


def _strip(first: date, last: date) -> "alt.LayerChart | alt.FacetChart":
    """Return the rows of marks below a chart, one mark for each thing that happened."""
    import altair as alt

    rows = list(dict.fromkeys(row for row, _, _ in _EVENTS.values()))
    layers = [
        alt.Chart(alt.NamedData("events"))
        .transform_filter(f"datum.kind === '{kind}'")
        .mark_point(
            shape=shape,
            color=colour,
            filled=shape != "stroke",
            size=30,
            opacity=1,
            angle=90 * (shape == "stroke"),
            clip=True,
        )
        .encode(
            x=_time_axis(first, last),
            y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(grid=True, labelOverlap=False)),
        )
        for kind, (_, colour, shape) in _EVENTS.items()
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_ROW_HEIGHT * len(rows))


def _dots(events: Sequence[Event]) -> Rows:
    """Return the marks of the strip."""
    return [{"day": event.day.isoformat(), "kind": event.kind, "row": _EVENTS[event.kind][0]} for event in events]


def _laid_out(*charts: "alt.LayerChart | alt.FacetChart", **datasets: Rows) -> Spec:
    import altair as alt

    stacked = alt.vconcat(*charts, spacing=6)
    # Each chart has a size of its own, and the whole has none.
    whole = styled(stacked, **datasets)  # pyright: ignore[reportArgumentType] - one chart above another is a chart too
    return {name: value for name, value in whole.items() if name not in ("width", "height")}
