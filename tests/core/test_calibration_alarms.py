"""Alarms on the calibration: two of three days, of one model, and severe where it is much and lasts, or very much."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pyarrow as pa
import pytest

from ml_assets.core.calibration_alarms import calibration_alarms
from ml_assets.core.evaluation import evaluate
from ml_assets.core.incidents import Alarm
from ml_assets.core.performance import PERFORMANCE_SCHEMA
from ml_assets.core.regression import evaluate_regression
from ml_assets.core.tasks import AnyMetrics

FIRST = date(2013, 7, 1)
# A quarter of its positive share is 0.1.
HOLDOUT = replace(evaluate([True, False], [0.6, 0.4]), positive_share=0.4)
Row = dict[str, object]


def day(number: int) -> date:
    return FIRST + timedelta(days=number - 1)


def row(number: int, gap: float | None, *, version: str = "v1", slope: float | None = 1.0) -> Row:
    """The row of a day whose week is off by so much, where chance allows 0.08; of a slope it allows 0.2."""
    return {
        "partition_on": day(number),
        "model_version": version,
        "week_gap": gap,
        "week_gap_margin": None if gap is None else 0.08,
        "week_slope": None if gap is None else slope,
        "week_slope_margin": None if gap is None or slope is None else 0.2,
        "week_explanation": f"miscalibrated by {gap}",
    }


def standing(rows: Sequence[Row], number: int, *, version: str = "v1", holdout: AnyMetrics = HOLDOUT) -> list[Alarm]:
    table = pa.Table.from_pylist(list(rows), schema=PERFORMANCE_SCHEMA)
    return list(calibration_alarms(table, day(number), version, holdout))


@pytest.mark.parametrize(
    ("gaps", "since"),
    [
        ([0.09, 0.0, 0.09], 1),
        ([0.0, 0.09, -0.09], 2),
        ([0.09, 0.09, 0.0], 1),
        ([0.0, 0.0, 0.09], None),
        ([0.0, 0.0, 0.0], None),
        ([0.09], None),
        ([0.09, None, None], None),
    ],
)
def test_it_warns_of_a_week_that_is_off_on_two_of_three_days(gaps: list[float | None], since: int | None):
    found = standing([row(number, gap) for number, gap in enumerate(gaps, 1)], len(gaps))
    assert [(alarm.kind, alarm.severity, alarm.since) for alarm in found] == [
        ("calibration", "warning", day(number)) for number in [since] if number
    ]
    if found:
        # The newest of the days that were off says what was found.
        newest = [gap for gap in gaps if gap][-1]
        assert found[0].explanation == f"miscalibrated by {newest}"


def test_days_are_counted_on_the_calendar():
    assert standing([row(1, 0.09), row(4, 0.09)], 4) == []


@pytest.mark.parametrize(("slope", "is_off"), [(0.79, True), (1.21, True), (0.81, False), (1.19, False), (None, False)])
def test_a_slope_beyond_its_band_is_a_warning_however_long_it_lasts(slope: float | None, is_off: bool):
    tilted = [row(number, 0.05, slope=slope) for number in (1, 2, 8, 9)]
    assert [alarm.severity for alarm in standing(tilted, 9)] == ["warning"] * is_off


def test_what_chance_does_not_explain_and_nobody_feels_is_no_alarm():
    narrow = {"week_gap_margin": 0.01, "week_slope_margin": 0.01}
    for gap, slope, is_off in [(0.039, 1.0, False), (0.041, 1.0, True), (0.0, 1.09, False), (0.0, 1.11, True)]:
        found = standing([row(number, gap, slope=slope) | narrow for number in (1, 2)], 2)
        assert [alarm.severity for alarm in found] == ["warning"] * is_off


def test_no_other_model_and_no_later_day_counts():
    rows = [row(1, 0.09), row(2, 0.09, version="v2"), row(3, 0.09, version="v2")]
    assert standing(rows, 2, version="v2") == []
    assert standing(rows, 2) == []
    assert [alarm.since for alarm in standing(rows, 3, version="v2")] == [day(2)]


@pytest.mark.parametrize(
    ("gap", "before", "severity"),
    [
        # A quarter of 0.4 at least, and the week before beyond its band to the same side.
        (0.1, 0.09, "severe"),
        (-0.1, -0.09, "severe"),
        (0.099, 0.09, "warning"),
        (0.1, 0.08, "warning"),
        (0.1, -0.09, "warning"),
        (0.1, None, "warning"),
    ],
)
def test_it_is_severe_where_it_is_a_quarter_of_the_positives_and_the_week_before_was_off_the_same_way(
    gap: float, before: float | None, severity: str
):
    rows = [row(1, before), row(2, before), row(8, gap), row(9, gap)]
    [alarm] = standing(rows, 9)
    assert alarm.severity == severity
    assert ("the week before was off the same way" in alarm.explanation) == (severity == "severe")


@pytest.mark.parametrize(
    ("gap", "before", "severity"), [(0.161, 0.0, "severe"), (-0.161, None, "severe"), (0.16, 0.0, "warning")]
)
def test_more_than_twice_its_band_is_severe_at_once(gap: float, before: float | None, severity: str):
    [alarm] = standing([row(1, before), row(2, before), row(8, gap), row(9, gap)], 9)
    assert alarm.severity == severity
    assert "the week before" not in alarm.explanation


def test_what_is_severe_is_said_by_a_day_that_is():
    rows = [row(7, 0.2), row(8, 0.21), row(9, 0.0, slope=0.5)]
    [alarm] = standing(rows, 9)
    assert (alarm.severity, alarm.explanation) == ("severe", "miscalibrated by 0.21")


def test_what_is_far_beyond_its_band_and_of_no_account_is_not_severe():
    narrow = [row(number, 0.099) | {"week_gap_margin": 0.01} for number in (1, 2, 8, 9)]
    assert [a.severity for a in standing(narrow, 9)] == ["warning"]


def test_one_day_is_not_enough_to_be_severe_nor_is_a_week_before_of_another_model():
    assert [a.severity for a in standing([row(1, 0.15), row(2, 0.15), row(8, 0.15), row(9, 0.09)], 9)] == ["warning"]
    others = [row(1, 0.2, version="v0"), row(2, 0.2, version="v0"), row(8, 0.15), row(9, 0.15)]
    assert [a.severity for a in standing(others, 9)] == ["warning"]


@pytest.mark.parametrize(("gap", "severity"), [(2.5, "severe"), (-2.5, "severe"), (2.4, "warning")])
def test_the_bias_of_a_regression_is_severe_from_a_quarter_of_its_error_on(gap: float, severity: str):
    holdout = evaluate_regression([0.0, 20.0], [10.0, 10.0])
    assert holdout.rmse == 10.0
    [alarm] = standing([row(number, gap) for number in (1, 2, 8, 9)], 9, holdout=holdout)
    assert alarm.severity == severity


def test_rows_of_before_there_was_a_calibration_raise_nothing():
    old = pa.table({"partition_on": [day(1), day(2)], "model_version": ["v1", "v1"]})
    assert list(calibration_alarms(old, day(2), "v1", HOLDOUT)) == []
    assert standing([], 2) == []
