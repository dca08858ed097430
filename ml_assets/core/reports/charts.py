"""The charts of the reports, as Vega-Lite specifications made by altair and drawn without a browser.

Colours are the light palette of the page; its style sheet swaps each for a dark one, so no chart may use others.
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from ml_assets.core.evaluation import CalibrationBin

if TYPE_CHECKING:
    import altair as alt

Spec = Mapping[str, object]
Rows = Sequence[Mapping[str, object]]

INK, MUTED, GRID = "#1f2933", "#616e7c", "#e4e7eb"
MAIN, OTHER, QUIET = "#2563a6", "#c2571a", "#9aa5b1"

# Narrow enough to be read on a phone without shrinking much.
WIDTH, _HEIGHT = 372, 210
_N_DATES = 6
_STYLE: Spec = {
    "font": "Helvetica Neue, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titlePadding": 8,
        "gridColor": GRID,
        "domainColor": QUIET,
        "tickColor": QUIET,
        "tickSize": 4,
        "labelOverlap": "greedy",
        "labelSeparation": 6,
    },
    "axisY": {"domain": False, "ticks": False},
    "legend": {"labelColor": INK, "labelFontSize": 12, "offset": 4, "padding": 0},
}


def chart_svg(spec: Spec, *, name: str) -> str:
    """Draw a chart as one ``<svg>`` element. ``name`` keeps its ids apart from those of other charts on the page."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(dict(spec))
    # vl_convert numbers clip paths on through the life of the process; a report must not depend on what came before.
    found = dict.fromkeys(re.findall(r'id="(clip\d+)"', svg))
    names = {clip: f"{name}-clip{i}" for i, clip in enumerate(found)}
    return re.sub(r'(id="|url\(#)(clip\d+)', lambda match: match[1] + names[match[2]], svg)


def chart_png(spec: Spec, *, scale: float = 2.0) -> bytes:
    """Draw a chart as a PNG on white; ``scale`` 2 makes it sharp on dense screens."""
    import vl_convert

    return vl_convert.vegalite_to_png({**spec, "background": "white"}, scale=scale)


def chart_markdown(spec: Spec, *, name: str) -> str:
    """Draw a chart as a picture inside Markdown, which the Dagster UI shows; ``name`` is said where it cannot be shown.

    >>> chart_markdown(lines_by_day([date(2013, 7, 1)], {"loss": [0.5]}, y_title="Loss"), name="log loss")[:33]
    '![log loss](data:image/png;base64'
    """
    return f"![{name}](data:image/png;base64,{b64encode(chart_png(spec, scale=1.5)).decode()})"


def lines_by_day(
    days: Sequence[date],
    series: Mapping[str, Sequence[float | None]],
    *,
    y_title: str,
    level: tuple[str, float] | None = None,
    is_share: bool = False,
) -> Spec:
    """Draw one or two numbers a day as lines; null leaves a gap in them.

    ``level`` is a named horizontal line to compare with; ``is_share`` writes the axis in percent.
    """
    import altair as alt

    values = [
        {"day": day.isoformat(), "value": value, "series": name}
        for name, column in series.items()
        for day, value in zip(days, column, strict=True)
    ]
    step = max(1, -(-len(days) // _N_DATES))
    # UTC, or the day shown would depend on the time zone of the machine that draws it.
    x = alt.X(
        "day:T",
        title="Local day",
        scale=alt.Scale(type="utc"),
        axis=alt.Axis(format="%-d %b", values=[day.isoformat() for day in days[::-step]], grid=False),
    )
    y = alt.Y(
        "value:Q",
        title=y_title,
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(format=".0%" if is_share else "", tickCount=5),
    )
    legend = alt.Legend(orient="top", title=None, symbolType="stroke") if len(series) > 1 else None
    names = list(series)
    color = alt.Color("series:N", scale=alt.Scale(domain=names, range=[MAIN, OTHER][: len(names)]), legend=legend)
    chart = alt.Chart(alt.NamedData("rows")).encode(x=x, y=y, color=color)
    datasets: dict[str, Rows] = {"rows": values}
    layers = [
        chart.mark_line(strokeWidth=2, invalid="break-paths-filter-domains"),
        chart.mark_point(size=28, filled=True, opacity=1, invalid="filter"),
    ]
    if level:
        name, value = level
        datasets["level"] = [{"value": value, "label": name}]
        rule = alt.Chart(alt.NamedData("level"))
        layers.append(rule.mark_rule(color=QUIET, strokeDash=[4, 3], strokeWidth=1.5).encode(y="value:Q"))
        layers.append(
            rule.mark_text(align="right", baseline="bottom", dy=-3, fontSize=11, color=MUTED).encode(
                x=alt.value(WIDTH - 2), y="value:Q", text="label:N"
            )
        )
    return styled(alt.layer(*layers), **datasets)


def calibration(bins: Sequence[CalibrationBin]) -> Spec:
    """Draw what came true against what was predicted; on the diagonal predictions mean what they say."""
    import altair as alt

    values = [{"predicted": b.mean_prediction, "happened": b.positive_share} for b in bins]
    top = min(1.0, 1.05 * max([0.1, *(max(v.values()) for v in values)]))
    scale, axis = alt.Scale(domain=[0, top], nice=False), alt.Axis(format=".0%", tickCount=5)
    diagonal = alt.Chart(alt.NamedData("diagonal")).mark_line(color=QUIET, strokeDash=[4, 3], strokeWidth=1.5)
    chart = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("predicted:Q", title="Predicted probability (mean of the bin)", scale=scale, axis=axis),
        y=alt.Y("happened:Q", title="Share that came true", scale=scale, axis=axis),
    )
    return styled(
        alt.layer(
            diagonal.encode(x=alt.X("v:Q"), y=alt.Y("v:Q")),
            chart.mark_line(color=MAIN, strokeWidth=2),
            chart.mark_point(color=MAIN, filled=True, size=36, opacity=1),
        ),
        rows=values,
        diagonal=[{"v": 0}, {"v": top}],
    )


def styled(chart: "alt.Chart | alt.LayerChart | alt.FacetChart", **datasets: Rows) -> Spec:
    """Return the specification with style and rows beside it: altair copies and checks all that it is given."""
    return {
        **chart.to_dict(validate=False),
        "width": WIDTH,
        "height": _HEIGHT,
        "padding": 6,
        "background": "transparent",
        "config": _STYLE,
        "datasets": datasets,
    }
