"""What was predicted beside what happened, in tenths of the predictions, drawn as the task asks for."""

from collections.abc import Sequence

from ml_assets.core.evaluation import CalibrationBin
from ml_assets.core.regression import PredictionBin
from ml_assets.core.reports import charts, regression_charts
from ml_assets.core.reports.charts import Spec
from ml_assets.core.reports.page import Chart, draw
from ml_assets.core.tasks import AnyCurve


def curve_spec(curve: AnyCurve, *, unit: str | None) -> Spec:
    """Return the chart of what was predicted beside what happened."""
    shares, numbers = _parts(curve)
    return regression_charts.predicted_and_happened(numbers, unit=unit) if numbers else charts.calibration(shares)


def curve_charts(curve: AnyCurve, *, unit: str | None, rows: str) -> Sequence[Chart]:
    """Draw what was predicted beside what happened; nothing where there are no bins. ``rows`` says of what."""
    shares, numbers = _parts(curve)
    if numbers:
        words = f"{rows} in tenths. On the dashed line, predictions are right on average; the bars are the mean error."
        error = (
            "Above the dashed line predictions are too high on average, below too low; by tenths of the predictions."
        )
        return [
            draw("Predicted and happened by tenths", curve_spec(curve, unit=unit), words),
            draw("Error by prediction", regression_charts.error_by_prediction(numbers, unit=unit), error),
        ]
    if shares:
        words = f"{rows} in tenths. On the dashed line, what is predicted at 30 % comes true 30 times in 100."
        return [draw("Calibration", curve_spec(curve, unit=unit), words)]
    return []


def _parts(curve: AnyCurve) -> tuple[Sequence[CalibrationBin], Sequence[PredictionBin]]:
    return (
        [part for part in curve if isinstance(part, CalibrationBin)],
        [part for part in curve if isinstance(part, PredictionBin)],
    )
