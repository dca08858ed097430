"""What was predicted beside what happened, as figures: of probabilities the calibration, of numbers the mean error."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ml_assets.core.evaluation import CalibrationBin
from ml_assets.core.performance import ScoreHistogram
from ml_assets.core.regression import PredictionBin
from ml_assets.core.reports.scales import Scale
from ml_assets.core.reports.svg import element, number
from ml_assets.core.tasks import AnyCurve

_WIDE, _HIGH = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 340.0, 10.0, 204.0


def curve_figure(curve: AnyCurve, *, unit: str | None, title: str) -> Markup | None:
    """Draw a curve with the diagonal on which predictions are right; None where there are no bins."""
    shares = [part for part in curve if isinstance(part, CalibrationBin)]
    numbers = [part for part in curve if isinstance(part, PredictionBin)]
    if shares:
        points = [(b.mean_prediction, b.positive_share, 0.0) for b in shares]
        return _draw(points, title=title, is_share=True, x_title="Predicted", y_title="Came true")
    if numbers:
        points = [(b.mean_prediction, b.mean_label, b.mean_absolute_error) for b in numbers]
        of = f", {unit}" if unit else ""
        return _draw(points, title=title, is_share=False, x_title=f"Predicted{of}", y_title=f"Happened{of}")
    return None


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


def _draw(
    points: Sequence[tuple[float, float, float]], *, title: str, is_share: bool, x_title: str, y_title: str
) -> Markup:
    values = [v for x, y, error in points for v in (x, y - error, y + error)]
    across = Scale.over(values, low=_LEFT, high=_RIGHT, has_zero=is_share)
    upward = Scale.over(values, low=_BOTTOM, high=_TOP, has_zero=is_share)
    drawn = list[Markup]()
    for tick in upward.ticks:
        y, words = upward.at(tick), upward.written(tick, is_share=is_share)
        drawn.append(element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid"))
        drawn.append(element("text", words, x=_LEFT - 6, y=y + 4, text_anchor="end", class_="tick"))
    for tick in across.ticks:
        words = across.written(tick, is_share=is_share)
        drawn.append(element("text", words, x=across.at(tick), y=_BOTTOM + 16, text_anchor="middle", class_="tick"))
    drawn.append(element("text", x_title, x=_RIGHT, y=_HIGH - 4, text_anchor="end", class_="tick"))
    drawn.append(element("text", y_title, x=_LEFT + 4, y=_TOP + 8, class_="tick"))
    ends = across.bottom, across.top
    drawn.append(
        element(
            "line",
            x1=across.at(ends[0]),
            y1=upward.at(ends[0]),
            x2=across.at(ends[1]),
            y2=upward.at(ends[1]),
            class_="level",
        )
    )
    d = "L".join(f"{number(across.at(x))} {number(upward.at(y))}" for x, y, _ in points)
    drawn.append(element("path", d=f"M{d}", class_="line s-main"))
    for x, y, error in points:
        if error:
            place = across.at(x)
            drawn.append(
                element("line", x1=place, x2=place, y1=upward.at(y - error), y2=upward.at(y + error), class_="s-main")
            )
        drawn.append(element("circle", cx=across.at(x), cy=upward.at(y), r=3, class_="f-main"))
    words = "; ".join(f"predicted {x:.3g}, happened {y:.3g}" for x, y, _ in points)
    return element(
        "svg",
        element("title", title),
        element("desc", words),
        *drawn,
        viewBox=f"0 0 {_WIDE} {_HIGH}",
        class_="curve",
        role="img",
    )
