"""Cost and freshness of feature views on three decisions, by hand."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.feature_views import Aggregate, Feature, LatestView, WindowView
from ml_assets.core.ports import DayRange
from ml_assets.core.spec import Decisions, Label, UseCase
from ml_assets.core.view_costs import ViewCost, ages, view_costs

DAY = date(2013, 7, 1)
DAYS = DayRange(first=DAY, last=DAY + timedelta(days=1))
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
WEATHER = LatestView(
    name="weather",
    table="features.feat_weather",
    entity=("origin",),
    known_at="known_at",
    max_age=timedelta(hours=3),
    features=(
        Feature(name="wind", kind="numeric", view="weather"),
        Feature(name="sky", kind="categorical", view="weather"),
    ),
)
BUSY = WindowView(
    name="busy",
    table="features.feat_weather",
    entity=("origin",),
    known_at="known_at",
    windows=(timedelta(hours=1), timedelta(hours=6)),
    aggregates=(Aggregate(name="n", function="count", of=None),),
    features=(Feature(name="busy_n_1h", kind="numeric", view="busy"),),
)
USE_CASE = UseCase(
    name="late",
    question="Late?",
    owners=("team:a",),
    task="binary_classification",
    decisions=Decisions(table="staging.flights", event_at="departs_at", lead_time=timedelta(hours=2)),
    label=Label(table="labels.late"),
    features=("weather", "busy"),
)


def hours(*values: float) -> pa.Array:
    return pa.array([NOON + timedelta(hours=value) for value in values], pa.timestamp("us", tz="UTC"))


@pytest.fixture
def warehouse(tmp_path) -> DuckDBWarehouse:
    """Three decisions at noon: of EWR, JFK and LGA."""
    found = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    ids, days = ["a", "b", "c"], pa.array([DAY] * 3, pa.date32())
    flights = pa.table({"decision_id": ids, "partition_on": days, "origin": ["EWR", "JFK", "LGA"]})
    examples = pa.table({"decision_id": ids, "partition_on": days, "decided_at": hours(0, 0, 0)})
    weather = pa.table(
        {
            # EWR was seen half an hour ago, and again after the decision; JFK five hours ago; LGA never.
            "partition_on": pa.array([DAY] * 4, pa.date32()),
            "origin": ["EWR", "EWR", "EWR", "JFK"],
            "known_at": hours(-2, -0.5, 0.25, -5),
            "wind": [1.0, None, 3.0, 4.0],
        }
    )
    for table, rows in {
        "staging.flights": flights,
        "examples.late": examples,
        "features.feat_weather": weather,
    }.items():
        found.replace_days({table: rows}, DAYS)
    return found


def test_the_age_is_that_of_the_newest_row_known_at_the_decision_and_young_enough(warehouse: DuckDBWarehouse):
    of_weather = ages(warehouse, WEATHER, use_case=USE_CASE, days=DAYS)
    assert sorted(of_weather[np.isfinite(of_weather)]) == [0.5]
    assert np.isnan(of_weather).sum() == 2  # older than three hours, and never seen
    of_events = ages(warehouse, BUSY, use_case=USE_CASE, days=DAYS)
    assert sorted(of_events[np.isfinite(of_events)]) == [0.5, 5.0]


def test_a_view_costs_what_its_table_costs_and_its_nulls_are_those_of_its_features(warehouse: DuckDBWarehouse):
    examples = pa.table({"wind": [1.0, None, None], "sky": ["clear", "clear", None], "busy_n_1h": [2, 0, 0]})
    weather, busy = view_costs(
        warehouse,
        [WEATHER, BUSY],
        use_case=USE_CASE,
        days=DAYS,
        examples=examples,
        seconds_per_day={"features.feat_weather": 0.25},
    )
    width = warehouse.query("select * from features.feat_weather").nbytes / 4
    assert weather == ViewCost(
        view="weather",
        table="features.feat_weather",
        is_window=False,
        n_columns=2,
        null_share=0.5,
        stale_share=pytest.approx(2 / 3),
        age_p50_hours=0.5,
        age_p95_hours=0.5,
        max_age_hours=3.0,
        rows_per_day=2.0,  # four rows on two days
        bytes_per_day=2 * width,
        seconds_per_day=0.25,
    )
    assert (busy.is_window, busy.n_columns, busy.null_share) == (True, 1, 0.0)
    assert (busy.age_p50_hours, busy.max_age_hours) == (2.75, 6.0)
    assert busy.age_p95_hours == pytest.approx(0.5 + 0.95 * 4.5)


def test_what_no_run_has_recorded_is_not_known(warehouse: DuckDBWarehouse):
    examples = pa.table({"wind": [1.0], "sky": ["clear"]})
    no_decisions = DayRange(first=DAY + timedelta(days=1), last=DAY + timedelta(days=1))
    (found,) = view_costs(
        warehouse, [WEATHER], use_case=USE_CASE, days=no_decisions, examples=examples, seconds_per_day={}
    )
    assert found.seconds_per_day is None
    assert (found.age_p50_hours, found.age_p95_hours, found.rows_per_day) == (None, None, 0.0)
