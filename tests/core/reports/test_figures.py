"""Figures made by hand: every value is drawn where it belongs, and said in words."""

import re
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.feature_views import Feature
from ml_assets.core.reference import Bins, build_reference
from ml_assets.core.reports.curve_figures import curve_figure
from ml_assets.core.reports.histograms import draw_histogram, histogram_bars
from ml_assets.core.reports.lanes import Bar, Line, bar_lane, line_lane
from ml_assets.core.reports.scales import Scale
from ml_assets.core.reports.time_axis import TimeAxis
from tests.core.reports.world import Page

MONDAY = date(2013, 7, 1)


def axis_of(n_days: int) -> TimeAxis:
    return TimeAxis(first=MONDAY, last=MONDAY + timedelta(days=n_days - 1))


def test_a_missing_day_leaves_a_gap_in_a_line_and_a_lonely_day_is_a_dot():
    axis = axis_of(60)
    values = {day: 0.7 for day in axis.days if day not in (axis.days[10], axis.days[12])}
    page = Page(line_lane(axis, [Line(name="ROC AUC", values=values)], title="ROC AUC"))
    (path,) = page.of("d")
    assert path.count("M") == 3
    assert len(re.findall("[ML]", path)) == 58  # of the days, however long the path grows
    # Day 11 lies alone between two gaps; of so many days only such get a dot.
    assert page.of("cx") == [f"{100 * 11.5 / 60:.2f}%"]


def test_values_lie_on_the_scale_of_their_ticks():
    scale = Scale.over([0.0, 1.0], low=100, high=0)
    assert scale.ticks == (0.0, 0.5, 1.0)
    assert [scale.at(value) for value in (0.0, 0.25, 1.0)] == [100, 75, 0]
    assert scale.at(7.0) == 0
    assert Scale.over([5.0, 5.0], low=100, high=0).at(5.0) == pytest.approx(50, abs=20)
    assert Scale.over([float("nan"), float("inf"), 3.0, 4.0], low=100, high=0).ticks[-1] == 4.0


@pytest.mark.parametrize("values", [[1e-12, 2e-12], [1e12, 3e12], [-5.0, -4.0], [0.1 + 0.2, 0.3]])
def test_a_scale_of_any_size_has_few_ticks_and_holds_all_values(values: list[float]):
    scale = Scale.over(values, low=100, high=0)
    assert 2 <= len(scale.ticks) <= 6
    assert scale.bottom <= min(values)
    assert scale.top >= max(values) - 1e-9 * abs(max(values))


def test_what_was_expected_is_a_band_from_low_to_high():
    axis = axis_of(4)
    band = {day: (0.6, 0.8) for day in axis.days if day != axis.days[2]}
    line = Line(name="estimated", values=dict.fromkeys(axis.days, 0.7), band=band)
    page = Page(line_lane(axis, [line], title="ROC AUC"))
    # Two runs of days, each a closed shape.
    assert page.of("d")[0].count("Z") == 2


def test_incidents_that_overlap_lie_below_each_other():
    axis = axis_of(14)
    kinds = {"words": "why", "kind": "bar-warning"}
    first = Bar(first=axis.days[0], last=axis.days[5], label="1", **kinds)
    second = Bar(first=axis.days[5], last=axis.days[7], label="2", **kinds)
    third = Bar(first=axis.days[6], last=axis.days[9], label="3", **kinds)
    drawn, high = bar_lane(axis, [first, second, third], title="Alarms")
    heights = re.findall(r'<rect x="([\d.]+%)" y="(\d+)"', drawn)
    assert heights == [("0%", "0"), ("35.71%", "17"), ("42.86%", "0")]
    assert high == 34


def test_a_label_beside_a_short_bar_lies_on_no_other_bar():
    axis = axis_of(100)
    kinds = {"words": "why", "kind": "bar-warning"}
    long = Bar(first=axis.days[0], last=axis.days[95], label="1", **kinds)
    short = Bar(first=axis.days[97], last=axis.days[97], label="2", **kinds)
    drawn, high = bar_lane(axis, [long, short], title="Alarms")
    assert 'text-anchor="end"' in drawn
    assert high == 34


@pytest.mark.parametrize(("n_days", "most"), [(1, 1), (7, 7), (14, 12), (60, 12), (126, 12), (182, 12)])
def test_the_dates_of_an_axis_are_few_enough_to_be_read(n_days: int, most: int):
    axis = axis_of(n_days)
    assert 1 <= len(axis.dates) <= most
    phone = [kind for kind in Page(axis.labels()).of("class") if kind == "date"]
    assert 1 <= len(phone) <= 7


def bins_of(categories: list[str]) -> Bins:
    rows = pa.table({"partition_on": [1] * len(categories), "carrier": categories})
    feature = Feature(name="carrier", kind="categorical", view="v")
    return build_reference(rows, [feature], np.linspace(0, 1, len(categories))).features[0]


def test_a_histogram_sets_the_day_against_training_bin_by_bin():
    bins = bins_of(["AA"] * 3 + ["UA"])
    bars = histogram_bars(bins, [1, 1, 0, 2, 0])
    # The categories never seen are the second from the end; other and missing hold nothing of either.
    assert [(bar.label, bar.day, bar.training) for bar in bars] == [
        ("AA", 0.25, 0.75),
        ("UA", 0.25, 0.25),
        ("categories never seen in training", 0.5, 0.0),
    ]
    drawn = draw_histogram(bars, title="carrier")
    assert drawn
    assert "categories never seen in training: 50 % of the day, 0 % of training" in Page(drawn.svg).text


def test_of_many_categories_those_that_moved_most_are_drawn_and_the_rest_is_one_bar():
    names = [f"{i:02}" for i in range(40)]
    bins = bins_of(names)
    counts = [10] * 40 + [0] * (len(bins.shares) - 40)
    counts[7] = 200
    bars = histogram_bars(bins, counts)
    assert len(bars) == 14
    assert "07" in [bar.label for bar in bars]
    assert bars[-1].label == "all others"
    assert sum(bar.day for bar in bars) == pytest.approx(1)
    assert sum(bar.training for bar in bars) == pytest.approx(1)


def test_counts_of_other_bins_are_not_drawn():
    assert histogram_bars(bins_of(["AA", "UA"]), [1, 2]) == []
    assert histogram_bars(bins_of(["AA", "UA"]), [0] * 5) == []
    assert draw_histogram([], title="carrier") is None


def test_no_bins_are_no_curve():
    assert curve_figure([], unit=None, title="Calibration") is None
