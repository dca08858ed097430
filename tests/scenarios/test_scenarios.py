"""Each fault injected into a replay of real flights: the right thing happens, and nothing else differs from the twin.

The twin lived the same days without the fault. ``differs()`` is all that is not as there, row by row and file by file;
each test accounts for the whole of it; only the slow drift's outlives the twin.
"""

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner, Result

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.cli import app
from ml_assets.core import registry
from ml_assets.core.alarms import write_alarms
from ml_assets.core.daily_quality import write_performance
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.ports import Source
from ml_assets.core.retraining_evidence import write_decisions
from ml_assets.core.scoring_days import rows_of_days
from ml_assets.core.spec import UseCase
from ml_assets.lifecycle import RunFailed
from tests import faults
from tests.conftest import Home, only_use_case
from tests.scenarios.conftest import DAYS, FIRST_LANDED, FORK, LAST, World
from tests.scenarios.difference import Difference, difference

pytestmark = pytest.mark.slow

Differs = Callable[[], Difference]
NEXT = FORK + timedelta(days=1)
ON_FORK, ALL_DAYS = DayRange(first=FORK, last=FORK), set(DAYS.dates)
SERVED = ("features.*", "labels.*", "examples.*", "predictions.*")


def told(*arguments: str) -> Result:
    """Run the command as a person would."""
    return CliRunner().invoke(app, list(arguments))


def test_a_sensor_that_goes_silent_holds_its_day_until_a_person_lets_it_pass(world: World, differs: Differs):
    with pytest.raises(RunFailed, match="0 rows of origin LGA, usually 24 on such a day") as held:
        world.land(source=lambda source: faults.silent_sensor(source, [FORK]))
    assert held.value.is_held
    assert f"ml-assets release --table weather --day {FORK} --check volume" in str(held.value)
    assert world.query(f"select * from examples.arrival_delay where partition_on = date '{FORK}'") == []

    done = told("release", "--table", "weather", "--day", str(FORK), "--by", "ana", "--reason", "no spare until Friday")
    assert done.exit_code == 0, done.output
    world.make(ON_FORK)
    world.live()

    found = differs()
    assert found.tables("raw.*") == {"raw.weather", "raw.weather_landings"}
    assert found.days_of("raw.*") == {FORK}
    assert found.faults == {(FORK, "weather", "volume", "origin", "severe")}
    # The first hours of the next day are compared with what the station would have said at night.
    assert found.tables("features.*", "labels.*") == {"features.feat_origin_weather"}
    assert found.days_of(*SERVED) == {FORK, NEXT}
    weather = {feature.name for feature in world.life().inputs if feature.view == "origin_weather"}
    assert found.columns("examples.arrival_delay") == weather
    silent = f"select decision_id from examples.arrival_delay where origin = 'LGA' and partition_on >= date '{FORK}'"
    blind = {row["decision_id"] for row in world.query(silent)}
    for table in ("examples.arrival_delay", "predictions.arrival_delay"):
        changed = {row.subject[0] for row in found.of(table)}
        assert changed <= blind, "flights from the other airports are served as ever"
        assert all(row.before and row.after for row in found.of(table)), "every flight is predicted, without weather"
    assert len({row.subject[0] for row in found.of("examples.arrival_delay", FORK)}) > 250
    # A cold day before it and a day without a third of the readings are two of three days that drifted.
    assert {day for day, *_ in found.alarms} <= {FORK, NEXT}
    assert {(kind, subject) for _, kind, subject, _ in found.alarms} == {("drift", "dew_point_f")}
    assert "have no value" in found.words("monitoring.alarms", "drift", "dew_point_f")
    assert found.decisions == {}, "one day without a station is no reason to train"
    assert {path.split("/")[0] for path in found.files} == {"releases"}


def test_a_day_in_another_unit_is_held_and_once_it_lands_right_nothing_is_left_of_it(world: World, differs: Differs):
    with pytest.raises(RunFailed, match=r"temp looks like degrees Celsius: median 15\.6, usually 55\.04 fahrenheit"):
        world.land(source=lambda source: faults.celsius(source, [FORK]))
    lived = world.live()

    assert [day.partition_on for day in lived if not day.n_decisions] == [FORK]
    found = differs()
    assert found.faults == {(FORK, "weather", "units", "temp", "severe")}
    assert found.tables("raw.*") == {"raw.weather", "raw.weather_landings"}
    assert found.tables("features.*", "labels.*") == {"features.feat_origin_weather"}
    assert found.days_of("raw.*", *SERVED) == {FORK}, "no other day waits for it, or is served otherwise"
    assert found.days_of("monitoring.drift", "monitoring.slice_performance") == {FORK}
    assert found.alarms == set()
    assert found.decisions == {FORK: None}, "who predicted nothing has nothing to decide on"
    assert found.files == frozenset()

    # What there is stays, whoever predicts the held day meanwhile.
    before = rows_of_days(world.lifecycle.warehouse, "predictions.arrival_delay", DAYS)
    world.lifecycle.run_groups(("predictions",), DayRange(first=FORK, last=NEXT))
    assert rows_of_days(world.lifecycle.warehouse, "predictions.arrival_delay", DAYS) == before

    world.land(ON_FORK)
    world.watch_again()
    healed = differs()
    assert healed.tables() <= {"replay.days", "replay.rivals", "replay.weeks"}, "only the replay tells of it"
    assert healed.files == frozenset()


def test_a_new_carrier_is_predicted_as_unknown_and_named_once_it_is_a_tenth_of_the_flights(
    world: World, differs: Differs
):
    world.land(source=lambda source: faults.new_carrier(source, DAYS.dates, old="UA", new="ZZ", share=0.7))
    lived = world.live()

    found = differs()
    assert found.faults == set(), "airlines come and go: nothing is wrong with the data"
    assert found.tables("raw.*") == {
        f"raw.{name}{end}" for name in ("flights", "schedules") for end in ("", "_landings")
    }
    assert found.days_of("raw.*", *SERVED) == ALL_DAYS
    of_new = "from predictions.arrival_delay where decision_id like 'ZZ-%'"
    (new,) = world.query(
        f"select count(*) as n, count(distinct partition_on) as n_days, min(prediction) as least {of_new}"
    )
    assert (new["n"] > 500, new["n_days"], 0 < new["least"] < 1) == (True, 5, True)
    assert [day.n_decisions for day in lived] == [967, 982, 980, 749, 911], "as many as in the twin"
    assert found.alarms == {(day, "drift", "carrier", "warning") for day in DAYS.dates[1:]}
    assert "ZZ" in found.words("monitoring.alarms", "drift", "carrier")
    assert (found.decisions, found.files) == ({}, frozenset())


def test_an_airport_closed_by_a_storm_is_weather_and_neither_a_fault_nor_a_reason_to_train(
    world: World, differs: Differs
):
    world.land(source=lambda source: faults.closed_airport(source, [FORK]))
    world.live()

    found = differs()
    assert (found.faults, found.alarms, found.decisions, found.files) == (set(), set(), {}, frozenset())
    assert found.tables("raw.*") == {"raw.flights", "raw.flights_landings"}
    assert found.days_of("raw.*", "labels.*") == {FORK}
    # The features of the evening and of the next morning still look back at it.
    assert found.days_of("examples.*", "predictions.*") == {FORK, NEXT}
    closed = f"from examples.arrival_delay where origin = 'LGA' and partition_on = date '{FORK}'"
    assert world.query(f"select distinct label, label_known_at, no_label_reason {closed}") == [
        {"label": None, "label_known_at": None, "no_label_reason": "cancelled"}
    ]
    (quality,) = found.of("monitoring.performance", FORK)
    assert quality.before
    assert quality.after
    (n_closed,) = (row["n"] for row in world.query(f"select count(*) as n {closed}"))
    assert quality.after["n_labelled"] + n_closed <= quality.after["n_decisions"]
    assert quality.after["n_decisions"] == quality.before["n_decisions"], "cancelled flights were predicted too"


def test_a_new_timetable_is_drift_that_is_explained_from_the_second_day_on(world: World, differs: Differs):
    world.land(source=lambda source: faults.schedule_shift(source, DAYS.dates, hours=2))
    world.live()

    found = differs()
    assert found.faults == set()
    assert found.tables("raw.*") == {
        f"raw.{name}{end}" for name in ("flights", "schedules") for end in ("", "_landings")
    }
    clock = ("scheduled_departure_local_hour", "scheduled_departure_minute_of_day")
    assert found.alarms == {(day, "drift", name, "warning") for day in DAYS.dates[1:] for name in clock}
    assert "18 to 23" in found.words("monitoring.alarms", "drift", "scheduled_departure_local_hour")
    assert (found.decisions, found.files) == ({}, frozenset()), "the quality holds, so nothing is trained"


def test_a_delivery_that_came_twice_is_counted_once(world: World, differs: Differs):
    def twice(source: Source) -> Source:
        for table in ("schedules", "flights", "weather"):
            source = faults.duplicated_landing(source, [FORK], table=table)
        return source

    world.land(source=twice)
    world.live()

    found = differs()
    assert found.faults == {(FORK, name, "duplicates", "", "warning") for name in ("schedules", "flights", "weather")}
    copies = {f"raw.{name}_quarantine" for name in ("schedules", "flights", "weather")}
    assert found.tables() == {*copies, "monitoring.data_quality"}, "everything else is as in the twin"
    assert len(found.of("raw.schedules_quarantine")) == 967
    assert found.days_of() == {FORK}
    assert found.files == frozenset()


def test_labels_that_come_late_are_waited_for_and_then_the_day_is_what_it_would_have_been(
    world: World, differs: Differs
):
    world.land(source=lambda source: faults.late_rows(source, [FORK], table="flights", share=0.3))
    world.live()

    early = differs()
    assert (early.faults, early.alarms, early.decisions, early.files) == (set(), set(), {}, frozenset())
    assert early.days_of("raw.*", "labels.*") == {FORK}
    (quality,) = early.of("monitoring.performance", FORK)
    assert quality.before
    assert quality.after
    n_late = quality.after["n_not_landed"]
    assert (quality.before["n_not_landed"], n_late) == (0, 290)
    assert quality.after["n_decisions"] == quality.before["n_decisions"]
    assert quality.after["n_labelled"] > 600, "the quality of those that landed is there"
    estimates = world.query(
        f"select metric, estimated from monitoring.estimated_performance where partition_on = date '{FORK}'"
    )
    assert {row["metric"] for row in estimates} >= {"roc_auc", "log_loss"}
    assert None not in [row["estimated"] for row in estimates], "what is expected of all is said meanwhile"

    world.land()
    world.watch_again()
    landed = differs()
    assert landed.faults == {(FORK, "flights", "late", "", "warning")}
    assert "290 of the 967 rows came after the first landing" in str(landed.of("monitoring.data_quality"))
    told_for_good = {"raw.flights_landings", "monitoring.data_quality", "predictions.arrival_delay_served"}
    assert landed.tables() <= told_for_good | {"replay.days", "replay.rivals", "replay.weeks"}
    assert landed.columns("raw.flights_landings") == {"n_at_first"}
    assert landed.files == frozenset()


def test_a_slow_drift_is_found_while_it_grows_and_asks_for_one_training_with_its_evidence(
    world: World, differs: Differs
):
    days = DayRange(first=FORK, last=FORK + timedelta(days=12))
    world.land(days, lambda source: faults.slow_turn(source, days.dates, minutes_a_day=6))
    lived = world.live(days.last)

    early = differs()
    changed = {table for table, days_of_table in early.days.items() if days_of_table & ALL_DAYS}
    assert {table for table in changed if table.startswith("raw.")} == {"raw.flights", "raw.flights_landings"}
    assert {fault for fault in early.faults if fault[0] in ALL_DAYS} == set(), (
        "half an hour more or less is a delay like any other"
    )
    assert not {day for day, *_ in early.alarms if day in ALL_DAYS}, "what one week of days explains is no alarm"
    asked = [day for day in lived if day.decision == "retrain"]
    assert len(asked) == 1
    # That a week ranks badly may be luck; it is none where what was predicted for it did not come true either.
    assert FORK + timedelta(days=6) <= asked[0].partition_on <= FORK + timedelta(days=8)
    (decided,) = world.query(
        "select as_of, reason, evidence from monitoring.retraining_decisions where decision = 'retrain' "
        f"and partition_on >= date '{FORK}'"
    )
    assert re.search(r"ROC AUC 0\.[45].* is not within .*miscalibrated: .*slope", str(decided["reason"]))
    assert {'"kind":"quality"', '"kind":"calibration"'} <= set(re.findall(r'"kind":"\w+"', str(decided["evidence"])))
    # What was learnt of the old ways is no better: the gates say so, and the champion stays.
    (trained,) = [day for day in lived if day.outcome]
    assert (trained.partition_on, trained.outcome) == (decided["as_of"], "refused")
    newest = registry.entries(world.lifecycle.store, "arrival_delay")[-1]
    assert (newest.action, newest.as_of) == ("refuse", decided["as_of"])
    assert {day.model_version for day in lived} == {lived[0].model_version}


def flipped(examples: pa.Table, until: date) -> pa.Table:
    """Return the examples with the labels of the days before one turned round, as a feed with a wrong sign has them."""
    is_early = pc.less(examples["partition_on"], pa.scalar(until))
    label = pc.if_else(is_early, pc.invert(examples["label"]), examples["label"])
    return examples.set_column(examples.column_names.index("label"), "label", label)


def landed_before(world: World, day: date) -> pa.Table:
    days = DayRange(first=FIRST_LANDED, last=day - timedelta(days=1))
    return rows_of_days(world.lifecycle.warehouse, "examples.arrival_delay", days)


def test_a_bad_candidate_is_refused_and_everything_goes_on_with_the_champion(world: World, differs: Differs):
    # Labels of the days it learns from are wrong; those it is judged on, and the champion's, are right.
    split = world.use_case.split
    judged_from = FORK - timedelta(days=split.test_days + split.gap_days)
    entry = world.train(FORK, examples=flipped(landed_before(world, FORK), judged_from))
    world.land()
    world.live()

    assert entry.action == "refuse"
    assert "against_champion" in {gate.name for gate in entry.gates if not gate.is_passed}
    found = differs()
    assert found.tables("raw.*", *SERVED) == set(), "not one prediction is another"
    assert (found.faults, found.alarms, found.decisions) == (set(), set(), {})
    # It is remembered, and counts against the next one.
    evidence = found.of("monitoring.retraining_decisions", LAST)[0].after
    assert evidence
    assert '"n_refusals":1' in str(evidence["evidence"])
    assert found.tables() == {"monitoring.retraining_decisions"}
    assert {path.split("/")[0] for path in found.files} == {"ledger", "models", "candidates", "training_sets"}
    assert [e.action for e in registry.entries(world.lifecycle.store, "arrival_delay")] == ["promote", "refuse"]


def test_a_bad_promotion_is_taken_back_in_one_command_and_its_days_are_scored_as_if_it_had_never_been(
    world: World, twin: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # All labels of two weeks are wrong, and the bad candidate passes; then the feed is corrected.
    entry = world.train(FORK, examples=flipped(landed_before(world, FORK), FORK))
    assert entry.action == "promote"
    world.land()
    lived = world.live()
    assert {day.model_version for day in lived} == {entry.version}
    assert "quality" in {row["kind"] for row in world.query("select distinct kind from monitoring.alarms")}

    command = ("rollback", "--from", str(FORK), "--reason", "it says late where it is early")
    with only_use_case(world.use_case):
        with monkeypatch.context() as patch:
            patch.setattr("ml_assets.defs.monitoring.drift.write_drift", _killed)
            first = told(*command)
        assert first.exit_code == 1
        assert "give the same command once more" in " ".join(first.output.split())
        second = told(*command)
    assert second.exit_code == 0, second.output
    assert f"5 days are predicted and monitored again: {DAYS}" in " ".join(second.output.split())

    unharmed = twin.copy_to(tmp_path / "unharmed")
    monitor_with_all_labels(unharmed, world.use_case)
    found = difference(unharmed, world.home)
    # What was served and by whom, what was lived, and how the bad model does beside the champion: that is kept.
    assert found.tables() == {
        "predictions.arrival_delay_served",
        "predictions.arrival_delay_shadow",
        "monitoring.shadow_performance",
        "monitoring.retraining_decisions",
        "monitoring.skew",
        "replay.days",
        "replay.rivals",
        "replay.weeks",
    }, "predictions, drift, quality and alarms are those of the world in which it was never promoted"
    assert {row.subject[1] for row in found.of("predictions.arrival_delay_shadow")} == {"previous_1"}
    served = found.of("predictions.arrival_delay_served")
    assert all(row.before is None for row in served), "what a model has served is kept, whoever follows it"
    assert (found.faults, found.alarms, found.decisions) == (set(), set(), {})
    evidence = {"evidence", "factors", "fingerprint", "last_training_on", "reason"}
    assert found.columns("monitoring.retraining_decisions") <= evidence, "that a training was is remembered"
    new = {path.split("/")[0] for path in found.files}
    assert new == {"ledger", "models", "candidates", "training_sets", "reports"}
    acts = [entry.action for entry in registry.entries(world.lifecycle.store, "arrival_delay")]
    assert acts == ["promote", "promote", "rollback"], "the second command found the entry of the first"


def _killed(*_given: object) -> None:
    raise RuntimeError("killed")


def monitor_with_all_labels(home: Home, use_case: UseCase) -> None:
    """Monitor the days of a home once more, with all labels that there are by now."""
    warehouse = DuckDBWarehouse(home.path / "warehouse.duckdb")
    store = ObjectArtifactStore((home.path / "artifacts").as_uri())
    with warehouse.session():
        write_performance(warehouse, store, use_case, DAYS)
        write_alarms(warehouse, store, use_case, DAYS)
        write_decisions(warehouse, store, use_case, DAYS, starts_at=day_starts_at)
