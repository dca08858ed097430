"""A regression day by day: figures that pool as if all rows were there, and what raises an alarm."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.performance import PERFORMANCE_SCHEMA, measure_performance, performance_verdict
from ml_assets.core.regression import RegressionMetrics, evaluate_regression
from ml_assets.core.regression_performance import pool_error_bins, pool_errors

DAY = date(2013, 7, 1)
HOLDOUT = RegressionMetrics(
    rmse=10.0,
    mae=8.0,
    median_absolute_error=7.0,
    r2=0.98,
    bias=0.0,
    calibration_error=1.0,
    n_rows=9000,
    mean_label=150.0,
    label_spread=90.0,
)


def measured(
    labels: list[float | None], predictions: list[float], day: date = DAY, edges: tuple[float, ...] = (100.0, 200.0)
) -> pa.Table:
    table = pa.table(
        {
            "prediction": pa.array(predictions, pa.float64()),
            "label": pa.array(labels, pa.float64()),
            "no_label_reason": pa.array([None if y is not None else "cancelled" for y in labels], pa.string()),
        }
    )
    rows = measure_performance(table, use_case="air_time", day=day, model_version="v1", task="regression", edges=edges)
    assert rows.schema == PERFORMANCE_SCHEMA
    return rows


def test_a_day_has_the_errors_of_its_labelled_decisions_and_no_figure_of_a_classification():
    row = measured([100.0, None, 200.0, 300.0], [110.0, 999.0, 190.0, 330.0]).to_pylist()[0]
    assert (row["n_decisions"], row["n_labelled"], row["n_cancelled"]) == (4, 3, 1)
    # Errors of 10, -10 and 30.
    assert (row["rmse"], row["mae"], row["bias"]) == pytest.approx((np.sqrt(1100 / 3), 50 / 3, 10))
    assert (row["median_absolute_error"], row["mean_label"], row["mean_prediction"]) == (10, 200, 210)
    assert row["label_spread"] == pytest.approx(np.sqrt(20000 / 3))
    assert row["r2"] == pytest.approx(1 - 1100 / 20000)
    of_classification = ("positive_share", "roc_auc", "pr_auc", "log_loss", "brier", "score_histogram")
    assert {row[name] for name in of_classification} == {None}


def test_a_day_without_labels_has_counts_only():
    row = measured([None], [5.0]).to_pylist()[0]
    assert (row["n_decisions"], row["n_labelled"], row["rmse"], row["error_bins"]) == (1, 0, None, None)


def test_pooled_days_have_the_figures_of_all_rows_together():
    draw = np.random.default_rng(3)
    days = []
    for number, n in enumerate((50, 200, 7)):
        y = draw.normal(100 + 40 * number, 30, n)
        days.append((y, y + draw.normal(2, 10, n)))
    tables = [measured(y.tolist(), p.tolist(), DAY + timedelta(days=i)) for i, (y, p) in enumerate(days)]
    found = pool_errors(pa.concat_tables(tables))
    expected = evaluate_regression(np.concatenate([y for y, _ in days]), np.concatenate([p for _, p in days]))
    for name in ("rmse", "mae", "bias", "r2", "mean_label", "label_spread", "n_rows"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    everything = np.concatenate([y for y, _ in days])
    assert found.rmse_of(150.0) == pytest.approx(np.sqrt(np.mean((everything - 150) ** 2)))


def test_the_error_bins_of_days_add_up():
    tables = [measured([80.0, 120.0], [100.0, 150.0]), measured([90.0, 260.0], [60.0, 250.0], DAY + timedelta(days=1))]
    low, middle, high = pool_error_bins(pa.concat_tables(tables))
    # An edge belongs to the bin below it.
    assert (low.n_rows, low.mean_prediction, low.mean_label, low.mean_absolute_error) == (2, 80, 85, 25)
    assert (middle.n_rows, middle.mean_label, high.n_rows, high.bias) == (1, 120, 1, -10)
    other_model = measured([80.0], [100.0], edges=(50.0,))
    with pytest.raises(ValueError, match="of one model version only"):
        pool_error_bins(pa.concat_tables([*tables, other_model]))


def week(error: float, n_days: int = 7) -> pa.Table:
    """Each day has 100 decisions, half of 60 and half of 240 minutes, each wrong by this much to either side."""
    labels, signs = np.repeat([60.0, 240.0], 50), np.tile([1.0, -1.0], 50)
    return pa.concat_tables(
        [
            measured(labels.tolist(), (labels + error * signs).tolist(), DAY + timedelta(days=day))
            for day in range(n_days)
        ]
    )


def test_a_good_week_raises_no_alarm_and_says_how_good():
    verdict = performance_verdict(week(9.0), HOLDOUT, unit="minutes")
    # Labels lie 90 from the holdout's mean of 150.
    assert not verdict.is_alarming
    assert verdict.reasons == (
        "over 7 labelled days to 2013-07-07, the RMSE is 90 % below that of predicting the holdout's mean",
        "over 7 labelled days to 2013-07-07, RMSE 9 minutes is at most 25 % above the holdout's 10",
    )


def test_a_week_with_errors_a_quarter_above_the_holdouts_raises_an_alarm():
    assert not performance_verdict(week(12.4), HOLDOUT).is_alarming
    verdict = performance_verdict(week(12.6), HOLDOUT, unit="minutes")
    assert verdict.is_alarming
    assert verdict.reasons == (
        "over 7 labelled days to 2013-07-07, RMSE 12.6 minutes is more than 25 % above the holdout's 10",
    )


def test_a_week_no_better_than_the_holdouts_mean_raises_an_alarm_whatever_the_holdout_was():
    poor = RegressionMetrics(**{**vars(HOLDOUT), "rmse": 85.0})
    verdict = performance_verdict(week(91.0), poor)
    assert verdict.is_alarming
    assert "the RMSE is 1.1 % above that of predicting the holdout's mean" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("error", "n_days", "is_severe"), [(19.9, 7, False), (20.1, 7, True), (20.1, 6, False), (15.1, 9, False)]
)
def test_errors_of_twice_the_holdouts_are_severe_after_a_week(error: float, n_days: int, is_severe: bool):
    verdict = performance_verdict(week(error, n_days), HOLDOUT)
    assert (verdict.is_alarming, verdict.is_severe) == (True, is_severe)


def test_fewer_than_three_labelled_days_are_not_judged():
    assert performance_verdict(week(80.0, n_days=2), HOLDOUT).reasons[0].startswith("only 2 of the last 7 days")
