"""The charts of experiments: figures over as-of days, and two trainings side by side."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from ml_assets.core.evaluation import CalibrationBin
from ml_assets.core.intervals import Interval
from ml_assets.core.reports.charts import MAIN, MUTED, OTHER, QUIET, Rows, Spec, styled

if TYPE_CHECKING:
    import altair as alt


def metric_over_days(
    days: Sequence[date],
    values: Sequence[float],
    intervals: Sequence[Interval | None],
    promoted: Sequence[bool],
    *,
    y_title: str,
) -> Spec:
    """Draw a figure of each model by its as-of date, with its interval; those that were promoted stand out.

    The four sequences are of one length, a place for each model.
    """
    import altair as alt

    rows: Rows = [
        {
            "day": day.isoformat(),
            "value": value,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "state": "promoted" if is_promoted else "not promoted",
        }
        for day, value, interval, is_promoted in zip(days, values, intervals, promoted, strict=True)
    ]
    scale = alt.Scale(zero=False, nice=True)
    axis = alt.Axis(format="%-d %b", tickCount=6, grid=False)
    x = alt.X("day:T", title="As of", scale=alt.Scale(type="utc", padding=12), axis=axis)
    color = alt.Color(
        "state:N",
        scale=alt.Scale(domain=["promoted", "not promoted"], range=[MAIN, OTHER]),
        legend=alt.Legend(orient="top", title=None),
    )
    chart = alt.Chart(alt.NamedData("rows"))
    layers = [
        chart.mark_rule(color=QUIET, strokeWidth=1.5).encode(
            x=x, y=alt.Y("low:Q", title=y_title, scale=scale), y2="high:Q"
        ),
        chart.mark_point(size=48, filled=True, opacity=1).encode(
            x=x, y=alt.Y("value:Q", title=y_title, scale=scale), color=color
        ),
    ]
    return styled(alt.layer(*layers), rows=rows)


def two_curves(epochs: Mapping[str, Sequence[tuple[int, float, float]]]) -> Spec:
    """Draw the validation loss over epochs of two trainings, by name."""
    import altair as alt

    rows: Rows = [
        {"epoch": number, "value": validation, "series": name}
        for name, curve in epochs.items()
        for number, _, validation in curve
    ]
    chart = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        y=alt.Y("value:Q", title="Validation loss", scale=alt.Scale(zero=False)),
        color=_by_name(list(epochs)),
    )
    return styled(
        alt.layer(chart.mark_line(strokeWidth=2), chart.mark_point(filled=True, size=28, opacity=1)), rows=rows
    )


def two_calibrations(curves: Mapping[str, Sequence[CalibrationBin]]) -> Spec:
    """Draw what came true against what was predicted, of two models by name, on the same rows."""
    import altair as alt

    rows: Rows = [
        {"predicted": found.mean_prediction, "happened": found.positive_share, "series": name}
        for name, bins in curves.items()
        for found in bins
    ]
    most = max([0.1, *(max(b.mean_prediction, b.positive_share) for bins in curves.values() for b in bins)])
    top = min(1.0, 1.05 * most)
    scale, axis = alt.Scale(domain=[0, top], nice=False), alt.Axis(format=".0%", tickCount=5)
    diagonal = alt.Chart(alt.NamedData("diagonal")).mark_line(color=QUIET, strokeDash=[4, 3], strokeWidth=1.5)
    chart = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("predicted:Q", title="Predicted probability (mean of the bin)", scale=scale, axis=axis),
        y=alt.Y("happened:Q", title="Share that came true", scale=scale, axis=axis),
        color=_by_name(list(curves)),
    )
    return styled(
        alt.layer(
            diagonal.encode(x=alt.X("v:Q"), y=alt.Y("v:Q")),
            chart.mark_line(strokeWidth=2),
            chart.mark_point(filled=True, size=36, opacity=1),
        ),
        rows=rows,
        diagonal=[{"v": 0}, {"v": top}],
    )


def two_figures(name: str, values: Mapping[str, float], intervals: Mapping[str, Interval]) -> Spec:
    """Draw one figure of two models as bars, each with its interval where it has one."""
    import altair as alt

    rows: Rows = [
        {
            "series": series,
            "value": value,
            "low": intervals[series].low if series in intervals else None,
            "high": intervals[series].high if series in intervals else None,
        }
        for series, value in values.items()
    ]
    chart = alt.Chart(alt.NamedData("rows"))
    y = alt.Y("series:N", title=None, sort=list(values))
    layers = [
        chart.mark_bar(height=26).encode(
            x=alt.X("value:Q", title=name), y=y, color=_by_name(list(values), is_told=False)
        ),
        chart.mark_rule(color=MUTED, strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", y=y),
    ]
    return {**styled(alt.layer(*layers), rows=rows), "height": 90}


def _by_name(names: Sequence[str], *, is_told: bool = True) -> "alt.Color":
    import altair as alt

    legend = alt.Legend(orient="top", title=None, symbolType="stroke") if is_told else None
    return alt.Color("series:N", scale=alt.Scale(domain=list(names), range=[MAIN, OTHER][: len(names)]), legend=legend)
