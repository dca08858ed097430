"""The leaks feared: for each feature view of arrival_delay, a row that became known too late for a decision.

Every table is made from the columns its yml declares, so a view that is added here is tested too.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import yaml

from ml_assets.backends.environments import Environment
from ml_assets.calendar import today
from ml_assets.core.feature_views import FeatureView, LatestView, WindowView
from ml_assets.core.point_in_time import examples_query
from ml_assets.resources import feature_views_of, source_of
from ml_assets.use_cases.arrival_delay import USE_CASE

ENVIRONMENT = Environment.current()
VIEWS = tuple(USE_CASE.views(feature_views_of(ENVIRONMENT)))
MODELS = ENVIRONMENT.dbt_project_folder / "models"
LEAD_TIME = timedelta(hours=2)

OUTCOMES = {"tailnum", "dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
LIKE_AN_OUTCOME = re.compile(r"delay|late|cancel|divert|tail|air_time|outcome|label|landed|departed|arrived|actual")

# A morning in summer; just after midnight, so that the decision is taken on the local day before; the night the clocks
# go back, when 01:30 is twice.
DEPARTURES = {
    "morning": (date(2013, 7, 2), datetime(2013, 7, 2, 12, 0, tzinfo=UTC)),
    "after midnight": (date(2013, 7, 2), datetime(2013, 7, 2, 4, 30, tzinfo=UTC)),
    "clocks go back": (date(2013, 11, 3), datetime(2013, 11, 3, 8, 0, tzinfo=UTC)),
}
FLIGHT = {"decision_id": "UA-1545-20130702T12", "carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH"}


def declared_columns() -> dict[str, dict[str, str]]:
    """The columns of every feature table, table -> column -> type as the yml says."""
    folders = (MODELS / "features", Path(__file__).parents[1] / "ml_assets" / "defs" / "features")
    documents = [yaml.safe_load(path.read_text()) for folder in folders for path in sorted(folder.glob("*.yml"))]
    return {
        f"features.{model['name']}": {column["name"]: column["data_type"] for column in model["columns"]}
        for document in documents
        for model in document["models"]
    }


def sql_type(declared: str) -> str:
    known = {"timestamp": "timestamptz", "float64": "double", "int64": "bigint", "string": "varchar"}
    return next((ours for theirs, ours in known.items() if theirs in declared), declared)


COLUMNS = {
    table: {name: sql_type(kind) for name, kind in columns.items()} for table, columns in declared_columns().items()
}


class World:
    """One decision, an ordinary row of every feature table half an hour before it, and room for more rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, day: date, departs_at: datetime) -> None:
        self.connection, self.day, self.decided_at = connection, day, departs_at - LEAD_TIME
        connection.execute("set TimeZone = 'UTC'")
        for schema in ("features", "intermediate", "labels"):
            connection.execute(f"create schema {schema}")
        connection.execute(
            f"create table {USE_CASE.decisions.table} (decision_id varchar, partition_on date, carrier varchar, "
            f"flight bigint, origin varchar, dest varchar, {USE_CASE.decisions.event_at} timestamptz)"
        )
        self.insert(USE_CASE.decisions.table, {**FLIGHT, "partition_on": day, USE_CASE.decisions.event_at: departs_at})
        connection.execute(
            f"create table {USE_CASE.label.table} (decision_id varchar, partition_on date, label boolean, "
            "label_known_at timestamptz, no_label_reason varchar)"
        )
        for table in sorted({view.table for view in VIEWS}):
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS[table].items())
            connection.execute(f"create table {table} ({columns})")
            [known_at] = {view.known_at for view in VIEWS if view.table == table}
            self.insert(table, self.row(table, known_at, self.decided_at - timedelta(minutes=30), value=1))

    def insert(self, table: str, row: dict[str, object]) -> None:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self.connection.execute(f"insert into {table} ({names}) values ({marks})", list(row.values()))

    def row(self, table: str, known_at_column: str, known_at: datetime, *, value: int) -> dict[str, object]:
        """A row of the decision's own entities, every other column told apart by ``value``."""
        of_type = {"varchar": f"text {value}", "boolean": value > 1, "bigint": value, "double": float(value)}
        known = {**FLIGHT, "partition_on": today(known_at), known_at_column: known_at}
        return {name: known.get(name, of_type.get(kind)) for name, kind in COLUMNS[table].items()}

    def learn(self, view: FeatureView, known_at: datetime) -> None:
        """Let one more row of a view become known, of its entity and nobody else's."""
        row = self.row(view.table, view.known_at, known_at, value=1000)
        strangers = set(FLIGHT) & set(row) - set(view.entity)
        self.insert(view.table, {**row, **{name: None if name == "flight" else "another" for name in strangers}})

    def example(self, views: Sequence[FeatureView] = VIEWS) -> dict[str, object]:
        sql = examples_query(USE_CASE, views, dialect="duckdb")
        bounds = {"first_day": self.day, "last_day": self.day}
        found = self.connection.execute(sql, bounds)
        [row] = found.fetchall()
        return dict(zip((column[0] for column in found.description or ()), row, strict=True))


@pytest.fixture(params=DEPARTURES, scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with duckdb.connect() as connection:
        yield World(connection, *DEPARTURES[request.param])


@pytest.fixture
def undone(world: World) -> Iterator[World]:
    """The world for one test, which leaves no row behind."""
    world.connection.begin()
    yield world
    world.connection.rollback()


@pytest.fixture(scope="module")
def before(world: World) -> dict[str, object]:
    """The example as it is without the row that comes too late."""
    return world.example()


def test_the_example_without_later_rows_has_every_feature(before: dict[str, object], world: World):
    assert before["decided_at"] == world.decided_at
    features = [feature.name for view in VIEWS for feature in view.features]
    assert [name for name in features if before[name] is None] == []


LATER = (timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_row_known_later_than_the_decision_never_changes_the_example(undone: World, view: FeatureView):
    beside = [other for other in VIEWS if other.table == view.table]
    before = undone.example(beside)
    for later in LATER:
        undone.learn(view, undone.decided_at + later)
    assert undone.example(beside) == before


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_row_known_at_the_moment_of_the_decision_does(undone: World, view: FeatureView):
    beside = [other for other in VIEWS if other.table == view.table]
    before = undone.example(beside)
    undone.learn(view, undone.decided_at)
    after = undone.example(beside)
    changed = {name for name in before if after[name] != before[name]}
    assert changed & {feature.name for feature in view.features}
    assert changed <= {feature.name for other in beside for feature in other.features}


def test_later_rows_of_all_views_together_change_nothing_either(undone: World, before: dict[str, object]):
    for view in VIEWS:
        for later in LATER:
            undone.learn(view, undone.decided_at + later)
    assert undone.example() == before


def test_the_outcome_of_the_flight_itself_changes_its_label_and_nothing_else(undone: World, before: dict[str, object]):
    landed_at = undone.decided_at + timedelta(hours=6)
    known = {"partition_on": undone.day, "label": True, "label_known_at": landed_at}
    undone.insert(USE_CASE.label.table, {"decision_id": FLIGHT["decision_id"], **known})
    after = undone.example()
    assert (after["label"], after["label_known_at"], after["no_label_reason"]) == (True, landed_at, None)
    assert (before["label"], before["label_known_at"], before["no_label_reason"]) == (None, None, "not landed")
    assert {name for name in before if after[name] != before[name]} == {"label", "label_known_at", "no_label_reason"}


def test_no_outcome_reaches_the_schedules_and_tailnum_is_one():
    contracts = source_of(ENVIRONMENT).contracts
    of_schedules, of_flights = ({column.name for column in contracts[t].columns} for t in ("schedules", "flights"))
    assert of_flights - of_schedules == OUTCOMES
    assert not of_schedules & OUTCOMES


@pytest.mark.parametrize(
    "model",
    [
        "staging/stg_schedules",
        "intermediate/int_scheduled_flights",
        "features/feat_flight_schedule",
        "features/feat_planned_departures",
    ],
)
def test_what_is_planned_has_no_column_like_an_outcome(model: str):
    [declared] = yaml.safe_load((MODELS / f"{model}.yml").read_text())["models"]
    names = {column["name"] for column in declared["columns"]}
    assert {name for name in names if LIKE_AN_OUTCOME.search(name) or name in OUTCOMES} == set()
    sources = re.findall(r"(?:ref|source)\(([^)]*)\)", (MODELS / f"{model}.sql").read_text())
    assert [source for source in sources if "flights" in source and "int_scheduled_flights" not in source] == []


def test_no_feature_is_named_like_an_outcome_but_those_of_other_flights_before():
    of_this_flight = [view for view in VIEWS if isinstance(view, LatestView)]
    names = [feature.name for view in of_this_flight for feature in view.features]
    assert [name for name in names if LIKE_AN_OUTCOME.search(name)] == []
    of_other_flights = [view for view in VIEWS if isinstance(view, WindowView)]
    assert [view.name for view in of_other_flights if "decision_id" in view.entity] == []


def test_every_view_of_the_use_case_is_tested_here_with_every_column_it_reads():
    assert [view.name for view in VIEWS] == list(USE_CASE.features)
    read = {view.table: {*view.entity, view.known_at, "partition_on"} for view in VIEWS}
    assert [table for table, names in read.items() if not names <= set(COLUMNS[table])] == []
    unknown = {kind for columns in COLUMNS.values() for kind in columns.values()}
    assert unknown <= {"varchar", "bigint", "double", "boolean", "date", "timestamptz"}
