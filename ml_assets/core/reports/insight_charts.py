"""The charts of what a model leans on: importances, partial dependences, slices, and what each feature view adds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_assets.core.ablation_records import ViewGain
from ml_assets.core.importance import Importance
from ml_assets.core.paired_bootstrap import Estimate
from ml_assets.core.partial_dependence import PartialDependence, Point
from ml_assets.core.reports.charts import INK, MAIN, MUTED, QUIET, Rows, Spec, styled

if TYPE_CHECKING:
    import altair as alt

__all__ = ["PartialDependence", "dependence", "importance", "slices", "view_gains"]

_STEP, _TALL_STEP = 19, 34  # pixels a row, without and with a line for its name
_LABEL_PIXELS = 120
_MISSING = "missing"


def importance(found: Sequence[Importance], *, confidence: float) -> Spec:
    """Draw the loss increase of each feature or view as a bar with its noise, the largest on top."""
    rows = [_interval(i.name, i.loss_increase, confidence) for i in found]
    return _bars(rows, x_title="Increase of the loss when shuffled")


def view_gains(found: Sequence[ViewGain]) -> Spec:
    """Draw what each view adds as a dot, on the band that noise alone explains."""
    rows = [{"name": g.view, "value": g.gain, "low": g.gain - g.margin, "high": g.gain + g.margin} for g in found]
    return _dots(rows, x_title="Validation loss without it, less that with it", level=0.0, is_named_above=True)


def slices(found: Sequence[tuple[str, Estimate]], *, overall: float | None, confidence: float, x_title: str) -> Spec:
    """Draw a metric of each value of one column as a dot with its interval, beside that of all rows."""
    rows = [_interval(value, estimate, confidence) for value, estimate in found]
    numbers = all(value.lstrip("-").isdigit() for value, _ in found)
    ordered = sorted(rows, key=lambda row: int(str(row["name"]))) if numbers else rows
    return _dots(ordered, x_title=x_title, level=overall)


def dependence(curve: PartialDependence, *, prediction: str) -> Spec:
    """Draw a partial dependence with its band: a line over a number, dots over categories; null as a point of its own.

    Of a number every dot stands for about a twentieth of the training rows.
    """
    if any(isinstance(point.value, str) for point in curve.points):
        names = [_MISSING if p.value is None else f"{p.value} ({p.share:.0%})" for p in curve.points]
        rows = [_band(name, point) for name, point in zip(names, curve.points, strict=True)]
        return _dots(rows, x_title=prediction.capitalize(), level=None, is_share=_is_share(curve))
    import altair as alt

    known = [point for point in curve.points if isinstance(point.value, float)]
    null = [point for point in curve.points if point.value is None]
    axis = alt.Axis(format=".0%" if _is_share(curve) else "~r", tickCount=5)
    y_title = prediction.capitalize()
    y = alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False), axis=axis)
    title = curve.feature.unit or curve.feature.name
    x = alt.X("at:Q", title=title[:1].upper() + title[1:], scale=alt.Scale(zero=False, nice=False))
    chart = alt.Chart(alt.NamedData("rows"))
    layers = [
        chart.mark_area(color=QUIET, opacity=0.35).encode(x=x, y=alt.Y("low:Q", title=y_title), y2="high:Q"),
        chart.mark_line(color=MAIN, strokeWidth=2).encode(x=x, y=y),
        chart.mark_point(color=MAIN, filled=True, size=28, opacity=1).encode(x=x, y=y),
    ]
    datasets: dict[str, Rows] = {"rows": [{**_band("", p), "at": p.value} for p in known]}
    if null:
        datasets["null"] = [{"value": null[0].mean, "label": _MISSING}]
        level = alt.Chart(alt.NamedData("null"))
        layers.append(level.mark_rule(color=MUTED, strokeDash=[4, 3], strokeWidth=1.5).encode(y="value:Q"))
        layers.append(
            level.mark_text(align="left", baseline="bottom", dy=-3, dx=3, fontSize=11, color=MUTED).encode(
                x=alt.value(0), y="value:Q", text="label:N"
            )
        )
    return styled(alt.layer(*layers), **datasets)


def _is_share(curve: PartialDependence) -> bool:
    """Tell whether all that is drawn are probabilities."""
    return all(0 <= point.mean <= 1 for point in curve.points)


def _band(name: str, point: Point) -> dict[str, object]:
    return {"name": name, "value": point.mean, "low": point.low, "high": point.high}


def _interval(name: str, estimate: Estimate, confidence: float) -> dict[str, object]:
    margin = estimate.margin(confidence) or 0.0
    return {
        "name": name,
        "value": estimate.value,
        "low": estimate.value - margin,
        "high": estimate.value + margin,
    }


def _bars(rows: Rows, *, x_title: str) -> Spec:
    """Draw bars with their noise, each below its name: feature names are long, and a phone is narrow."""
    import altair as alt

    chart = alt.Chart(alt.NamedData("rows")).encode(y=_names(rows, is_labelled=False))
    axis = alt.Axis(tickCount=4)
    layers = [
        chart.mark_bar(color=MAIN, size=9, yOffset=6).encode(x=alt.X("value:Q", title=x_title, axis=axis)),
        chart.mark_rule(color=MUTED, strokeWidth=1.5, yOffset=6).encode(x=alt.X("low:Q", title=x_title), x2="high:Q"),
        _names_above(chart),
    ]
    return _tall(alt.layer(*layers), rows, step=_TALL_STEP)


def _dots(
    rows: Rows, *, x_title: str, level: float | None, is_share: bool = False, is_named_above: bool = False
) -> Spec:
    """Draw dots with their intervals, each beside its name or below it, and a level to compare with."""
    import altair as alt

    chart = alt.Chart(alt.NamedData("rows")).encode(y=_names(rows, is_labelled=not is_named_above))
    axis, scale = alt.Axis(tickCount=5, format=".0%" if is_share else "~r"), alt.Scale(zero=False)
    lower = 6 if is_named_above else 0
    layers: list[alt.Chart] = [
        chart.mark_rule(color=QUIET, strokeWidth=3, yOffset=lower).encode(
            x=alt.X("low:Q", title=x_title, axis=axis, scale=scale), x2="high:Q"
        ),
        chart.mark_point(color=MAIN, filled=True, size=44, opacity=1, yOffset=lower).encode(
            x=alt.X("value:Q", title=x_title)
        ),
    ]
    if is_named_above:
        layers.append(_names_above(chart))
    datasets: dict[str, Rows] = {}
    if level is not None:
        rule = alt.Chart(alt.NamedData("level")).mark_rule(color=MUTED, strokeDash=[4, 3], strokeWidth=1.5)
        layers.append(rule.encode(x=alt.X("value:Q", title=x_title)))
        datasets["level"] = [{"value": level}]
    return _tall(alt.layer(*layers), rows, step=_TALL_STEP if is_named_above else _STEP, **datasets)


def _names(rows: Rows, *, is_labelled: bool) -> "alt.Y":
    import altair as alt

    axis = alt.Axis(labelLimit=_LABEL_PIXELS, labelOverlap=False) if is_labelled else None
    return alt.Y("name:N", sort=[str(row["name"]) for row in rows], title=None, axis=axis)


def _names_above(chart: "alt.Chart") -> "alt.Chart":
    import altair as alt

    return chart.mark_text(align="left", yOffset=-7, fontSize=12, color=INK).encode(x=alt.value(2), text="name:N")


def _tall(chart: "alt.LayerChart | alt.FacetChart", rows: Rows, *, step: int, **datasets: Rows) -> Spec:
    """Return the specification of a chart whose height grows with its rows."""
    return {**styled(chart, rows=rows, **datasets), "height": {"step": step}}
