from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from ml_assets.core.errors import InvalidDeclaration, InvalidName
from ml_assets.core.feature_views import Aggregate, Feature, LatestView, WindowView, load_feature_views, parse_model

LATEST = {"name": "weather", "entity": ["origin"], "known_at": "known_at", "max_age_hours": 3}
WINDOW = {
    "name": "departures",
    "entity": ["origin", "dest"],
    "known_at": "left_at",
    "windows_hours": [1, 24, 672],
    "aggregates": [
        {"name": "n_departures", "function": "count"},
        {"name": "mean_delay_minutes", "function": "mean", "of": "delay_minutes"},
    ],
}
COLUMNS = [
    {"name": "partition_on", "data_type": "date"},
    {"name": "origin", "data_type": "string"},
    {"name": "known_at", "data_type": "{{ 'timestamp' if target.type == 'bigquery' else 'timestamptz' }}"},
    {"name": "wind_speed_mph", "data_type": "double", "description": "Mean wind speed."},
    {"name": "wind_octant", "data_type": "string"},
    {"name": "is_raining", "data_type": "boolean"},
]


def model(*views: object, columns: object = COLUMNS, name: str = "feat_weather") -> dict[str, object]:
    return {"name": name, "config": {"meta": {"feature_views": list(views)}}, "columns": columns}


def test_a_latest_view_offers_every_column_but_its_keys():
    [view] = parse_model(model(LATEST))
    assert view == LatestView(
        name="weather",
        table="features.feat_weather",
        entity=("origin",),
        known_at="known_at",
        max_age=timedelta(hours=3),
        features=(
            Feature(name="wind_speed_mph", kind="numeric", view="weather", description="Mean wind speed.", unit="mph"),
            Feature(name="wind_octant", kind="categorical", view="weather"),
            Feature(name="is_raining", kind="numeric", view="weather"),
        ),
    )


def test_a_window_view_offers_each_aggregate_over_each_window():
    [view] = parse_model(model(WINDOW, name="feat_departures"))
    assert isinstance(view, WindowView)
    assert (view.table, view.entity, view.known_at) == ("features.feat_departures", ("origin", "dest"), "left_at")
    assert view.windows == (timedelta(hours=1), timedelta(days=1), timedelta(days=28))
    assert view.max_age == timedelta(days=28)
    assert view.aggregates == (
        Aggregate(name="n_departures", function="count", of=None),
        Aggregate(name="mean_delay_minutes", function="mean", of="delay_minutes"),
    )
    assert [(feature.name, feature.kind) for feature in view.features] == [
        ("departures_n_departures_1h", "numeric"),
        ("departures_mean_delay_minutes_1h", "numeric"),
        ("departures_n_departures_24h", "numeric"),
        ("departures_mean_delay_minutes_24h", "numeric"),
        ("departures_n_departures_28d", "numeric"),
        ("departures_mean_delay_minutes_28d", "numeric"),
    ]


def test_a_window_feature_says_its_unit_and_what_it_counts():
    [view] = parse_model(model(WINDOW, name="feat_departures"))
    assert [feature.unit for feature in view.features] == ["count", "minutes"] * 3
    assert view.features[1].description == (
        "Mean of delay_minutes over the rows of feat_departures with the same origin, dest that became known in the "
        "1 h up to the decision."
    )


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ({"name": "temperature_f", "data_type": "double"}, "degrees Fahrenheit"),
        ({"name": "n_seats", "data_type": "bigint"}, "count"),
        ({"name": "late_share", "data_type": "double"}, "share"),
        ({"name": "network_degree", "data_type": "bigint"}, None),
        ({"name": "network_degree", "data_type": "bigint", "config": {"meta": {"unit": "routes"}}}, "routes"),
        ({"name": "hub_miles", "data_type": "string"}, None),
    ],
)
def test_the_unit_is_what_the_name_says_unless_meta_says_it(column: dict[str, object], unit: str | None):
    [view] = parse_model(model(LATEST, columns=[column]))
    assert [feature.unit for feature in view.features] == [unit]


@pytest.mark.parametrize(
    ("hours", "suffix"), [(1, "1h"), (24, "24h"), (25, "25h"), (48, "2d"), (168, "7d"), (36, "36h")]
)
def test_a_window_is_named_in_hours_up_to_a_day_and_in_whole_days_beyond(hours: int, suffix: str):
    assert WindowView.feature_name("v", "n", timedelta(hours=hours)) == f"v_n_{suffix}"


def test_a_table_may_declare_several_views_or_none():
    second = {**LATEST, "name": "weather_by_day", "max_age_hours": 24}
    assert [view.name for view in parse_model(model(LATEST, second))] == ["weather", "weather_by_day"]
    assert list(parse_model({"name": "feat_weather", "columns": COLUMNS})) == []


def test_a_number_that_names_a_thing_can_be_declared_a_category():
    runway = {"name": "runway", "data_type": "bigint", "config": {"meta": {"kind": "categorical"}}}
    [view] = parse_model(model(LATEST, columns=[runway]))
    assert [feature.kind for feature in view.features] == ["categorical"]


@pytest.mark.parametrize("missing", ["name", "entity", "known_at", "max_age_hours"])
def test_a_latest_view_that_lacks_something_is_refused_by_name(missing: str):
    declaration = {key: value for key, value in LATEST.items() if key != missing}
    with pytest.raises(InvalidDeclaration, match=rf"feat_weather.*{missing}"):
        list(parse_model(model(declaration)))


@pytest.mark.parametrize("missing", ["entity", "known_at", "aggregates"])
def test_a_window_view_that_lacks_something_is_refused_by_name(missing: str):
    declaration = {key: value for key, value in WINDOW.items() if key != missing}
    with pytest.raises(InvalidDeclaration, match=rf"departures.*{missing}"):
        list(parse_model(model(declaration)))


@pytest.mark.parametrize(
    "aggregate",
    [
        {"name": "median_delay", "function": "median", "of": "delay_minutes"},
        {"name": "mean_delay", "function": "mean"},
        {"name": "late_share", "function": "share"},
        {"name": "sum_delay", "function": "sum"},
    ],
)
def test_an_aggregate_nobody_can_compute_is_refused_when_it_is_read(aggregate: dict[str, str]):
    with pytest.raises(InvalidDeclaration, match="departures"):
        list(parse_model(model({**WINDOW, "aggregates": [aggregate]})))


@pytest.mark.parametrize("windows", [[], [0], [-1], [1.5]])
def test_windows_are_whole_hours_of_which_there_is_one_at_least(windows: list[float]):
    with pytest.raises(InvalidDeclaration, match="departures"):
        list(parse_model(model({**WINDOW, "windows_hours": windows})))


@pytest.mark.parametrize(
    "columns", [[{"name": "wind"}], [{"name": "wind", "data_type": "double", "config": {"meta": {"kind": "fuzzy"}}}]]
)
def test_a_column_of_no_known_kind_is_refused(columns: list[dict[str, object]]):
    with pytest.raises(InvalidDeclaration, match="feat_weather"):
        list(parse_model(model(LATEST, columns=columns)))


@pytest.mark.parametrize(
    "declaration",
    [
        {**LATEST, "name": "weather; drop table raw.flights"},
        {**LATEST, "entity": ["origin", "dest'"]},
        {**LATEST, "known_at": "known_at--"},
        {**WINDOW, "aggregates": [{"name": "n departures", "function": "count"}]},
        {**WINDOW, "aggregates": [{"name": "mean_delay", "function": "mean", "of": "delay)"}]},
    ],
)
def test_no_name_is_read_that_could_leave_its_place_in_sql(declaration: dict[str, object]):
    with pytest.raises((InvalidName, InvalidDeclaration)):
        list(parse_model(model(declaration)))


def test_views_are_read_from_every_yml_of_the_folders(tmp_path: Path):
    dbt, python = tmp_path / "dbt", tmp_path / "python"
    for folder, declared in ((dbt, model(LATEST)), (python, model(WINDOW, name="feat_departures"))):
        folder.mkdir()
        (folder / "one.yml").write_text(yaml.safe_dump({"models": [declared]}))
        (folder / "one.sql").write_text("select 1")
        (folder / "empty.yml").write_text("# nothing yet\n")
    assert set(load_feature_views(dbt, python)) == {"weather", "departures"}


def test_one_name_is_declared_once(tmp_path: Path):
    for file in ("a.yml", "b.yml"):
        (tmp_path / file).write_text(yaml.safe_dump({"models": [model(LATEST)]}))
    with pytest.raises(InvalidDeclaration, match=r"b\.yml declares the feature view 'weather' a second time"):
        load_feature_views(tmp_path)


def test_yml_builds_no_python_object(tmp_path: Path):
    (tmp_path / "evil.yml").write_text("models: !!python/object/apply:os.system ['touch /tmp/never']\n")
    with pytest.raises(yaml.YAMLError):
        load_feature_views(tmp_path)
