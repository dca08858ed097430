"""The page on two experiments: the same lines as in the terminal, with training curves, calibrations and figures."""

from collections.abc import Sequence

from ml_assets.core.comparison import CONFIDENCE, MAIN_METRICS, Comparison
from ml_assets.core.reports.experiment_charts import two_calibrations, two_curves, two_figures
from ml_assets.core.reports.page import Chart, draw, render

# The figures that get a chart: of which there are intervals, or that sum a training up.
_MOST_FIGURES = 4


def comparison_page(comparison: Comparison) -> str:
    """Write a comparison as one self-contained HTML page; the same input gives the same bytes."""
    one, other = comparison.one, comparison.other
    return render(
        "comparison.html",
        one=one.id,
        other=other.id,
        note=comparison.note,
        sections=comparison.sections,
        charts=_charts(comparison),
        links={},
    )


def _charts(comparison: Comparison) -> Sequence[Chart]:
    drawn: list[Chart] = []
    if comparison.epochs:
        caption = "Lower is better. A library that trains in one go has no curve."
        drawn.append(draw("Training", two_curves(comparison.epochs), caption))
    if comparison.calibration:
        caption = "The common holdout in tenths. On the dashed line, what is predicted is what happens."
        drawn.append(draw("Calibration", two_calibrations(comparison.calibration), caption))
    rows = (comparison.one, comparison.other)
    common = [name for name in comparison.one.intervals if all(name in row.metrics for row in rows)]
    if not common:
        common = [name for name in comparison.one.metrics if name in comparison.other.metrics]
    main = [name for name in MAIN_METRICS if name in common]
    for name in list(dict.fromkeys([*main, *common]))[:_MOST_FIGURES]:
        words = name.replace("_", " ")
        spec = two_figures(
            words,
            {row.id: row.metrics[name] for row in rows},
            {row.id: row.intervals[name] for row in rows if name in row.intervals},
        )
        gain = comparison.gains.get(name)
        margin = gain.margin(CONFIDENCE) if gain else None
        caption = (
            f"On the same rows: {other_less_one(gain.value, margin)}."
            if gain and margin is not None
            else "Each with its own 95 % interval, where it has one."
        )
        drawn.append(draw(f"{words[:1].upper()}{words[1:]}", spec, caption))
    return drawn


def other_less_one(value: float, margin: float) -> str:
    """Say what a difference is worth beside its noise.

    >>> other_less_one(0.01, 0.02)
    'the second is 0.0100 more, the noise 0.0200, so it may be chance'
    """
    direction = "more" if value > 0 else "less"
    worth = "so it is more than chance" if abs(value) > margin else "so it may be chance"
    return f"the second is {abs(value):.4f} {direction}, the noise {margin:.4f}, {worth}"
