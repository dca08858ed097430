"""The charts of a regression, in the unit of its label: predicted against happened, and the error by prediction."""

from collections.abc import Sequence

from ml_assets.core.regression import PredictionBin
from ml_assets.core.reports.charts import MAIN, OTHER, QUIET, Spec, styled


def predicted_and_happened(bins: Sequence[PredictionBin], *, unit: str | None) -> Spec:
    """Draw the mean label of each bin, with the mean error to both sides, against its mean prediction."""
    import altair as alt

    values = [
        {
            "predicted": b.mean_prediction,
            "happened": b.mean_label,
            "low": b.mean_label - b.mean_absolute_error,
            "high": b.mean_label + b.mean_absolute_error,
        }
        for b in bins
    ]
    low, high = min(min(v.values()) for v in values), max(max(v.values()) for v in values)
    scale = alt.Scale(domain=[low, high if high > low else low + 1], nice=True, zero=False)
    axis = alt.Axis(tickCount=5)
    diagonal = alt.Chart(alt.NamedData("diagonal")).mark_line(color=QUIET, strokeDash=[4, 3], strokeWidth=1.5)
    x = alt.X("predicted:Q", title=_titled("Predicted, mean of the bin", unit), scale=scale, axis=axis)
    title = _titled("Happened, mean and mean error", unit)
    chart = alt.Chart(alt.NamedData("rows")).encode(x=x)
    return styled(
        alt.layer(
            diagonal.encode(x=alt.X("v:Q"), y=alt.Y("v:Q")),
            chart.mark_rule(color=MAIN, strokeWidth=1.5).encode(
                y=alt.Y("low:Q", title=title, scale=scale, axis=axis), y2="high:Q"
            ),
            chart.mark_point(color=MAIN, filled=True, size=36, opacity=1).encode(y="happened:Q"),
        ),
        rows=values,
        diagonal=[{"v": low}, {"v": high}],
    )


def error_by_prediction(bins: Sequence[PredictionBin], *, unit: str | None) -> Spec:
    """Draw the bias and the mean absolute error of each bin over its mean prediction."""
    import altair as alt

    names = ["mean absolute error", "bias"]
    values = [
        {"predicted": b.mean_prediction, "value": value, "series": name}
        for b in bins
        for name, value in zip(names, (b.mean_absolute_error, b.bias), strict=True)
    ]
    chart = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X(
            "predicted:Q",
            title=_titled("Predicted, mean of the bin", unit),
            scale=alt.Scale(zero=False),
            axis=alt.Axis(tickCount=5, grid=False),
        ),
        y=alt.Y("value:Q", title=_titled("Error", unit), axis=alt.Axis(tickCount=5)),
        color=alt.Color(
            "series:N",
            scale=alt.Scale(domain=names, range=[MAIN, OTHER]),
            legend=alt.Legend(orient="top", title=None, symbolType="stroke"),
        ),
    )
    zero = alt.Chart(alt.NamedData("zero")).mark_rule(color=QUIET, strokeDash=[4, 3], strokeWidth=1.5)
    layers = zero.encode(y="value:Q"), chart.mark_line(strokeWidth=2), chart.mark_point(size=28, filled=True, opacity=1)
    return styled(alt.layer(*layers), rows=values, zero=[{"value": 0}])


def _titled(words: str, unit: str | None) -> str:
    return f"{words} ({unit})" if unit else words
