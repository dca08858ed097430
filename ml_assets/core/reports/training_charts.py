"""The charts of a training: its loss over epochs, the trials of a search, and which parameters mattered."""

from collections.abc import Mapping, Sequence

import numpy as np

from ml_assets.core.reports.charts import MAIN, MUTED, OTHER, QUIET, WIDTH, Rows, Spec, styled
from ml_assets.core.studies import TrialRecord


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
                x=alt.value(WIDTH - 2), y=y, text="label:N"
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
