"""The charts of the reports, as Vega-Lite specifications made by altair and drawn without a browser.

Colours are the light palette of the page; its style sheet swaps each for a dark one, so no chart may use others.
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_assets.core.evaluation import CalibrationBin
from ml_assets.core.performance import ScoreHistogram
from ml_assets.core.reference import Bins
from ml_assets.core.studies import TrialRecord

if TYPE_CHECKING:
    import altair as alt

Spec = Mapping[str, object]
Rows = Sequence[Mapping[str, object]]

INK, MUTED, GRID = "#1f2933", "#616e7c", "#e4e7eb"
MAIN, OTHER, QUIET = "#2563a6", "#c2571a", "#9aa5b1"

# Narrow enough to be read on a phone without shrinking much.
_WIDTH, _HEIGHT = 372, 210
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

    >>> chart_markdown(training_curve([(1, 0.5, 0.6)]), name="log loss")[:33]
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
                x=alt.value(_WIDTH - 2), y="value:Q", text="label:N"
            )
        )
    return styled(alt.layer(*layers), **datasets)


def stacked_by_day(days: Sequence[date], parts: Mapping[str, Sequence[int]], *, y_title: str) -> Spec:
    """Draw at most three counts a day, one on top of the other."""
    import altair as alt

    names = list(parts)
    values = [
        {"day": f"{day:%-d %b}", "value": count, "part": name, "order": i}
        for i, (name, column) in enumerate(parts.items())
        for day, count in zip(days, column, strict=True)
    ]
    step = max(1, -(-len(days) // _N_DATES))
    labels = [f"{day:%-d %b}" for day in days]
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_bar()
        .encode(
            x=alt.X(
                "day:N",
                sort=labels,
                title="Local day",
                axis=alt.Axis(values=labels[::-step], labelAngle=0, grid=False, ticks=False),
            ),
            y=alt.Y("value:Q", title=y_title, axis=alt.Axis(tickCount=5, tickMinStep=1)),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=names, range=[MAIN, OTHER, QUIET][: len(names)]),
                legend=alt.Legend(orient="top", title=None),
            ),
            order="order:Q",
        )
    )
    return styled(chart, rows=values)


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


def prediction_shares(
    bins: Bins,
    predictions: npt.ArrayLike,
    *,
    x_title: str = "Predicted probability (bins of training)",
    is_share: bool = True,
) -> Spec:
    """Draw the share of the day's predictions in each training bin beside the share of the training rows in it.

    ``is_share`` names the bins with two decimals or as many as they take, otherwise with four digits.
    """
    import altair as alt

    scores = np.asarray(predictions, np.float64)
    day = np.bincount(bins.index(pa.array(scores)), minlength=len(bins.shares)) / max(1, len(scores))
    shown = [i for i, share in enumerate(bins.shares) if share > 0 or day[i] > 0]
    labels = {i: _short(bins, i) if is_share else bins.label(i) for i in shown}
    values = [
        {"bin": labels[i], "share": float(share), "rows": rows}
        for i in shown
        for rows, share in (("this day", day[i]), ("training", bins.shares[i]))
    ]
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_bar()
        .encode(
            x=alt.X(
                "bin:N",
                sort=list(labels.values()),
                title=x_title,
                axis=alt.Axis(labelAngle=-40, grid=False),
            ),
            xOffset=alt.XOffset("rows:N", sort=["this day", "training"]),
            y=alt.Y("share:Q", title="Share of the rows", axis=alt.Axis(format=".0%", tickCount=5)),
            color=alt.Color(
                "rows:N",
                scale=alt.Scale(domain=["this day", "training"], range=[MAIN, QUIET]),
                legend=alt.Legend(orient="top", title=None),
            ),
        )
    )
    return styled(chart, rows=values)


def training_curve(epochs: Sequence[tuple[int, float, float]], *, y_title: str = "Log loss (nats)") -> Spec:
    """Draw the loss over epochs, each ``(number, train loss, validation loss)``."""
    import altair as alt

    names = ["training", "validation"]
    values = [
        {"epoch": number, "value": value, "series": name}
        for number, *losses in epochs
        for name, value in zip(names, losses, strict=True)
    ]
    chart = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        y=alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False)),
        color=alt.Color(
            "series:N",
            scale=alt.Scale(domain=names, range=[QUIET, MAIN]),
            legend=alt.Legend(orient="top", title=None, symbolType="stroke"),
        ),
    )
    layers = chart.mark_line(strokeWidth=2), chart.mark_point(size=28, filled=True, opacity=1)
    return styled(alt.layer(*layers), rows=values)


def optimisation_history(trials: Sequence[TrialRecord], *, default_loss: float | None, y_title: str) -> Spec:
    """Draw the validation loss of every complete or pruned trial by number, and the lowest so far as a step line.

    The axis ends a little above the defaults: a trial that went far wrong would press all others onto the bottom.
    """
    import altair as alt

    shown = [t for t in trials if t.state in ("complete", "pruned") and t.loss is not None and np.isfinite(t.loss)]
    values = [{"number": t.number, "loss": t.loss, "state": t.state} for t in shown]
    complete = [(t.number, float(t.loss)) for t in shown if t.state == "complete" and t.loss is not None]
    lowest = np.minimum.accumulate([loss for _, loss in complete]) if complete else np.empty(0)
    steps = [{"number": number, "loss": float(loss)} for (number, _), loss in zip(complete, lowest, strict=True)]
    losses = [loss for _, loss in complete] or [0.0, 1.0]
    bottom, level = min(losses), max(default_loss or min(losses), float(np.median(losses)))
    margin = max(level - bottom, 1e-6)
    scale = alt.Scale(domain=[bottom - 0.15 * margin, level + margin], clamp=True, nice=False)
    x = alt.X("number:Q", title="Trial", axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    y = alt.Y("loss:Q", title=y_title, scale=scale)
    points = alt.Chart(alt.NamedData("rows")).mark_point(size=36, filled=True, opacity=1)
    color = alt.Color(
        "state:N",
        scale=alt.Scale(domain=["complete", "pruned"], range=[MAIN, QUIET]),
        legend=alt.Legend(orient="top", title=None),
    )
    layers = [
        points.encode(x=x, y=y, color=color),
        alt.Chart(alt.NamedData("steps"))
        .mark_line(interpolate="step-after", color=MAIN, strokeWidth=1.5)
        .encode(x=x, y=y),
    ]
    datasets: dict[str, Rows] = {"rows": values, "steps": steps}
    if default_loss is not None:
        datasets["level"] = [{"loss": default_loss, "label": "defaults"}]
        rule = alt.Chart(alt.NamedData("level"))
        layers.append(rule.mark_rule(color=OTHER, strokeDash=[4, 3], strokeWidth=1.5).encode(y=y))
        layers.append(
            rule.mark_text(align="right", baseline="bottom", dy=-3, fontSize=11, color=MUTED).encode(
                x=alt.value(_WIDTH - 2), y=y, text="label:N"
            )
        )
    return styled(alt.layer(*layers), **datasets)


def parameter_importance(shares: Mapping[str, float]) -> Spec:
    """Draw the share of the loss's variance that each parameter explains, as bars from the largest down."""
    import altair as alt

    ordered = sorted(shares, key=lambda name: -shares[name])
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_bar(color=MAIN)
        .encode(
            y=alt.Y("parameter:N", sort=ordered, title=None),
            x=alt.X("share:Q", title="Share of the variance of the loss", axis=alt.Axis(format=".0%", tickCount=5)),
        )
    )
    return styled(chart, rows=[{"parameter": name, "share": shares[name]} for name in ordered])


def calibration_of_histogram(histogram: ScoreHistogram, n_bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Merge the 100 bins of pooled predictions, lowest first, into at most ``n_bins`` of about equal count."""
    counts = np.asarray(histogram.n_rows)
    total = counts.sum()
    if not total:
        return ()
    group = np.minimum((np.cumsum(counts) - counts / 2) * n_bins // total, n_bins - 1).astype(np.int64)
    rows, positive, predicted = (
        np.bincount(group, np.asarray(column, np.float64), n_bins)
        for column in (histogram.n_rows, histogram.n_positive, histogram.prediction_sum)
    )
    return tuple(
        CalibrationBin(
            mean_prediction=float(predicted[i] / rows[i]),
            positive_share=float(positive[i] / rows[i]),
            n_rows=int(rows[i]),
        )
        for i in np.flatnonzero(rows)
    )


def _short(bins: Bins, index: int) -> str:
    """Name a bin of probabilities, with as many decimals as tell every bin from the next: one name is one bar."""
    if index in (0, len(bins.edges)) or index == len(bins.shares) - 1:
        return bins.label(index)
    n_decimals = next((n for n in range(2, 9) if len({f"{e:.{n}f}" for e in bins.edges}) == len(bins.edges)), 9)
    low, high = bins.edges[index - 1], bins.edges[index]
    return f"{low:.{n_decimals}f}\N{EN DASH}{high:.{n_decimals}f}"


def styled(chart: "alt.Chart | alt.LayerChart | alt.FacetChart", **datasets: Rows) -> Spec:
    """Return the specification with style and rows beside it: altair copies and checks all that it is given."""
    return {
        **chart.to_dict(validate=False),
        "width": _WIDTH,
        "height": _HEIGHT,
        "padding": 6,
        "background": "transparent",
        "config": _STYLE,
        "datasets": datasets,
    }
