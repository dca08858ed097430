"""What a model read stays written down, and what the tables say otherwise later is found and named.

Each test runs in both dialects: BigQuery's SQL is parsed as such, turned into DuckDB's by sqlglot, and run.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.days import DayRange
from ml_assets.core.feature_views import Aggregate, Feature, FeatureView, LatestView, WindowView
from ml_assets.core.point_in_time import examples_query
from ml_assets.core.ports import Dialect, Parameter
from ml_assets.core.scoring import keep_confirmed, prediction_rows
from ml_assets.core.served import SAMPLED_A_DAY, SERVED_SCHEMA, served_rows
from ml_assets.core.skew import write_skew
from ml_assets.core.spec import Decisions, Label, UseCase

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of sqlglotrs, which dagster-dbt's sqlglot installs
    import sqlglot

UTC_TIME = pa.timestamp("us", tz="UTC")
DAY = date(2013, 7, 8)
WEEK_BEFORE = DAY - timedelta(days=7)
USE_CASE = UseCase(
    name="storm",
    question="Does it storm?",
    owners=("team:sky",),
    task="binary_classification",
    decisions=Decisions(table="intermediate.plan", event_at="event_at", lead_time=timedelta(hours=2)),
    label=Label(table="labels.storm"),
    features=("sight", "recent"),
)
VIEWS: tuple[FeatureView, ...] = (
    LatestView(
        name="sight",
        table="features.observed",
        entity=("place",),
        known_at="known_at",
        max_age=timedelta(hours=3),
        features=(
            Feature(name="wind_mph", kind="numeric", view="sight"),
            Feature(name="sky", kind="categorical", view="sight"),
        ),
    ),
    WindowView(
        name="recent",
        table="features.events",
        entity=("place",),
        known_at="known_at",
        windows=(timedelta(hours=6),),
        aggregates=(
            Aggregate(name="n_events", function="count", of=None),
            Aggregate(name="mean_delay", function="mean", of="delay"),
        ),
        features=(
            Feature(name="recent_n_events_6h", kind="numeric", view="recent"),
            Feature(name="recent_mean_delay_6h", kind="numeric", view="recent"),
        ),
    ),
)


class BigQueryLike(DuckDBWarehouse):
    """Takes BigQuery's SQL."""

    @property
    def dialect(self) -> Dialect:
        return "bigquery"

    def query(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> pa.Table:
        (sql,) = sqlglot.transpile(sql, read="bigquery", write="duckdb")
        return super().query(sql, parameters)


@dataclass(frozen=True, kw_only=True)
class World:
    """A plan of four decisions a day, hourly weather and events at two places, and whatever was predicted."""

    warehouse: DuckDBWarehouse

    def land(self, table: str, day: date, rows: list[dict[str, object]]) -> None:
        columns = {"partition_on": pa.date32(), "known_at": UTC_TIME, "event_at": UTC_TIME, "delay": pa.float64()}
        columns |= {"wind_mph": pa.float64()}
        made = pa.Table.from_pylist([{"partition_on": day, **row} for row in rows])
        kinds = [pa.field(field.name, columns.get(field.name, field.type)) for field in made.schema]
        self.warehouse.replace_days({table: made.cast(pa.schema(kinds))}, of(day))

    def rows(self, table: str, day: date) -> list[dict[str, object]]:
        sql = f"select * exclude (partition_on) from {table} where partition_on = $day order by all"
        return DuckDBWarehouse.query(self.warehouse, sql, {"day": day}).to_pylist()

    def predict(self, day: date, *, version: str = "a", run_id: str = "run-1", minute: int = 0) -> pa.Table:
        """Make the examples of a day and predict it, as the assets do; the score depends on the wind alone."""
        bounds = {"first_day": day, "last_day": day}
        query = examples_query(USE_CASE, VIEWS, dialect="duckdb")
        self.warehouse.replace_days_with_query(USE_CASE.examples_table, query, of(day), bounds)
        return self.score(day, version=version, run_id=run_id, minute=minute)

    def score(self, day: date, *, version: str = "a", run_id: str = "run-1", minute: int = 0) -> pa.Table:
        stored = f"select * from {{}} where partition_on = date '{day}' order by decision_id"
        examples = DuckDBWarehouse.query(self.warehouse, stored.format(USE_CASE.examples_table))
        scores = np.nan_to_num(examples["wind_mph"].to_numpy(zero_copy_only=False), nan=-1.0)
        at = datetime(2013, 7, 20, 0, minute, tzinfo=UTC)
        rows = prediction_rows(examples, scores, model_version=version, run_id=run_id, predicted_at=at)
        table = USE_CASE.predictions_table
        if self.warehouse.columns(table):
            rows = keep_confirmed(rows, DuckDBWarehouse.query(self.warehouse, stored.format(table)))
        served = served_rows(self.warehouse, USE_CASE, of(day), examples=examples, predictions=rows)
        self.warehouse.replace_days({table: rows, USE_CASE.served_table: served}, of(day))
        return served

    def skew(self, first: date = DAY, last: date | None = None) -> list[dict[str, object]]:
        """Compare, and return what differs: the rows of views and of features."""
        written = write_skew(self.warehouse, USE_CASE, DayRange(first=first, last=last or first), views=VIEWS)
        return [row for row in written.to_pylist() if row["n_different"]]


def of(day: date) -> DayRange:
    return DayRange(first=day, last=day)


def at(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


@pytest.fixture(params=["duckdb", "bigquery"])
def world(request: pytest.FixtureRequest) -> World:
    """Both days predicted, from tables that have not changed since."""
    made = World(warehouse=DuckDBWarehouse(None) if request.param == "duckdb" else BigQueryLike(None))
    for day in (WEEK_BEFORE, DAY):
        plan = [
            {"decision_id": f"{place}-{hour}-{day}", "place": place, "event_at": at(day, hour)}
            for place in ("EWR", "JFK")
            for hour in (16, 20)
        ]
        made.land("intermediate.plan", day, plan)
        made.land("labels.storm", day, [{"decision_id": "none", "label": True, "label_known_at": at(day, 23),
                                         "no_label_reason": ""}])  # fmt: skip
        weather = [
            {"place": place, "known_at": at(day, hour), "wind_mph": hour + 0.5, "sky": "clear"}
            for place in ("EWR", "JFK")
            for hour in (12, 14, 16)
        ]
        made.land("features.observed", day, weather)
        events = [{"place": "EWR", "known_at": at(day, hour), "delay": hour / 3} for hour in (11, 12, 13)]
        made.land("features.events", day, events)
        made.predict(day)
    return made


def test_on_a_normal_day_every_view_is_the_same_to_the_last_bit(world: World):
    rows = write_skew(world.warehouse, USE_CASE, of(DAY), views=VIEWS)
    facts = rows.select(["partition_on", "view", "feature", "n_compared", "n_different", "explanation"]).to_pylist()
    # Four decisions of the day and four of the week before.
    assert facts == [
        {"partition_on": DAY, "view": view, "feature": "", "n_compared": 8, "n_different": 0, "explanation": ""}
        for view in ("decisions", "sight", "recent")
    ]


def test_one_altered_row_of_a_feature_table_names_its_view_and_no_other(world: World):
    weather = world.rows("features.observed", DAY)
    (altered,) = [row for row in weather if (row["place"], row["known_at"]) == ("JFK", at(DAY, 14))]
    altered |= {"wind_mph": 24.5, "sky": None}
    world.land("features.observed", DAY, weather)
    of_view, *of_features = world.skew()
    assert (of_view["view"], of_view["feature"], of_view["n_different"]) == ("sight", "", 1)
    # 16:00 is decided at 14:00, with the row that became known at that moment; 20:00 reads the one of 16:00.
    found = {row["feature"]: (row["decision_id"], row["served"], row["recomputed"], row["largest_difference"])
             for row in of_features}  # fmt: skip
    flight = f"JFK-16-{DAY}"
    assert found == {"wind_mph": (flight, "14.5", "24.5", 10.0), "sky": (flight, '"clear"', "null", None)}
    assert "features.observed has changed since they were made" in str(of_view["explanation"])


def test_a_row_that_comes_late_is_found_in_the_windows_that_should_have_counted_it(world: World):
    late = {"place": "EWR", "known_at": at(DAY, 13), "delay": 0.5}
    world.land("features.events", DAY, [*world.rows("features.events", DAY), late])
    of_view, *of_features = world.skew()
    assert (of_view["view"], of_view["n_compared"], of_view["n_different"]) == ("recent", 8, 2)
    counts = next(row for row in of_features if row["feature"] == "recent_n_events_6h")
    # 16:00 looks at (08:00, 14:00], 20:00 at (12:00, 18:00].
    assert {(counts["served"], counts["recomputed"])} <= {("3", "4"), ("1", "2")}
    assert counts["largest_difference"] == 1.0
    mean = next(row for row in of_features if row["feature"] == "recent_mean_delay_6h")
    # The larger of 12 / 3 - (36 / 3 + 0.5) / 4 and 13 / 3 - (13 / 3 + 0.5) / 2, of decimals with nine places.
    assert mean["largest_difference"] == pytest.approx(13 / 6 - 0.25, abs=1e-9)


def test_what_comes_late_by_more_than_the_daily_run_makes_again_is_found_a_week_later(world: World):
    weather = world.rows("features.observed", WEEK_BEFORE)
    world.land("features.observed", WEEK_BEFORE, [{**row, "wind_mph": None} for row in weather])
    assert [row["view"] for row in world.skew(DAY) if not row["feature"]] == ["sight"]
    assert world.skew(DAY - timedelta(days=1)) == []


def test_a_day_that_is_scored_again_keeps_what_was_read_before(world: World):
    first = world.rows(USE_CASE.served_table, DAY)
    weather = world.rows("features.observed", DAY)
    changed = [{**row, "wind_mph": 50.0} if row["known_at"] == at(DAY, 14) else row for row in weather]
    world.land("features.observed", DAY, changed)
    world.predict(DAY, run_id="run-2", minute=1)
    now = world.rows(USE_CASE.served_table, DAY)
    assert [row for row in now if row["run_id"] == "run-1"] == first
    # The decisions at 16:00 read the changed row, and their predictions changed; the others were confirmed.
    again = [row for row in now if row["run_id"] == "run-2"]
    assert [row["decision_id"] for row in again] == [f"EWR-16-{DAY}", f"JFK-16-{DAY}"]
    assert {json.loads(str(row["features"]))["wind_mph"] for row in again} == {50.0}
    of_view, of_wind = world.skew()
    assert (of_view["n_compared"], of_view["n_different"], of_wind["served"]) == (8, 2, "14.5")
    assert "the examples have been made again since" in str(of_view["explanation"])


def test_a_new_champion_records_what_it_reads_and_scoring_once_more_records_nothing(world: World):
    before = world.rows(USE_CASE.served_table, DAY)
    world.score(DAY, version="b", run_id="run-2", minute=1)
    after = world.rows(USE_CASE.served_table, DAY)
    assert {(row["model_version"], row["run_id"]) for row in after} == {("a", "run-1"), ("b", "run-2")}
    assert len(after) == 2 * len(before)
    world.score(DAY, version="b", run_id="run-3", minute=2)
    assert world.rows(USE_CASE.served_table, DAY) == after
    assert world.skew() == []


def test_a_decision_that_is_gone_and_one_that_is_taken_at_another_time_are_named_as_such(world: World):
    gone, moved, *others = world.rows("intermediate.plan", DAY)
    moved |= {"event_at": moved["event_at"] + timedelta(hours=1)}
    world.land("intermediate.plan", DAY, [moved, *others])
    rows = {row["feature"]: row for row in world.skew() if row["view"] == "decisions"}
    assert rows[""]["n_different"] == 2
    assert (rows["decision_id"]["decision_id"], rows["decision_id"]["recomputed"]) == (gone["decision_id"], "null")
    assert rows["decided_at"]["decision_id"] == moved["decision_id"]
    assert "the schedule was changed" in str(rows[""]["explanation"])


def test_days_at_once_and_day_after_day_give_the_same_rows_and_so_does_a_second_time(world: World):
    weather = world.rows("features.observed", DAY)
    world.land("features.observed", DAY, [{**row, "sky": "rain"} for row in weather])
    days = DayRange(first=WEEK_BEFORE, last=DAY)
    at_once = write_skew(world.warehouse, USE_CASE, days, views=VIEWS)
    one_by_one = [write_skew(world.warehouse, USE_CASE, of(day), views=VIEWS) for day in days.dates]
    assert pa.concat_tables(one_by_one) == at_once
    stored = DuckDBWarehouse.query(world.warehouse, "select * from monitoring.skew order by all")
    assert stored.num_rows == at_once.num_rows
    assert set(at_once["partition_on"].to_pylist()) == {WEEK_BEFORE, DAY}


def test_without_a_record_nothing_is_compared():
    warehouse = DuckDBWarehouse(None)
    assert write_skew(warehouse, USE_CASE, of(DAY), views=VIEWS).num_rows == 0
    warehouse.replace_days({USE_CASE.served_table: SERVED_SCHEMA.empty_table()}, of(DAY))
    assert write_skew(warehouse, USE_CASE, of(DAY), views=VIEWS).num_rows == 0


def test_the_same_two_hundred_decisions_of_each_day_are_recorded_whatever_their_order():
    n = 1000
    ids = [f"UA-{number}" for number in range(n)]
    days = [DAY if number % 4 else WEEK_BEFORE for number in range(n)]
    examples = pa.table(
        {
            "decision_id": ids,
            "partition_on": pa.array(days, pa.date32()),
            "decided_at": pa.array([at(day, 12) for day in days], UTC_TIME),
            "wind_mph": np.arange(n) / 7,
        }
    )
    predictions = prediction_rows(examples, np.zeros(n), model_version="a", run_id="r", predicted_at=at(DAY, 13))
    warehouse, range_ = DuckDBWarehouse(None), DayRange(first=WEEK_BEFORE, last=DAY)
    served = served_rows(warehouse, USE_CASE, range_, examples=examples, predictions=predictions)
    counts = {row["values"]: row["counts"] for row in pc.value_counts(served["partition_on"]).to_pylist()}
    assert counts == {WEEK_BEFORE: SAMPLED_A_DAY, DAY: SAMPLED_A_DAY}
    backwards = pa.array(np.arange(n)[::-1])
    turned = served_rows(
        warehouse, USE_CASE, range_, examples=examples.take(backwards), predictions=predictions.take(backwards)
    )
    assert turned.sort_by("decision_id") == served.sort_by("decision_id")
    # Its rows hold the bits that were read.
    (row,) = served.slice(3, 1).to_pylist()
    assert json.loads(row["features"]) == {"wind_mph": int(row["decision_id"].removeprefix("UA-")) / 7}


def test_a_feature_that_was_not_read_then_or_is_read_no_more_is_not_compared(world: World):
    sight, recent = VIEWS
    renamed = replace(recent, name="lately", features=tuple(replace(f, view="lately", name=f.name.replace(
        "recent", "lately")) for f in recent.features))  # fmt: skip
    rows = write_skew(world.warehouse, USE_CASE, of(DAY), views=(sight, renamed))
    assert {(row["view"], row["n_different"]) for row in rows.to_pylist()} == {
        ("decisions", 0),
        ("sight", 0),
        ("lately", 0),
    }
