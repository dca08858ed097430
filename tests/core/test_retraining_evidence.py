"""The evidence as it was known when a day was over, on two weeks of real flights.

The life has a model in charge from 12 January on and another from 14 January; these three days are predicted.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.calendar import day_starts_at
from ml_assets.core import registry
from ml_assets.core.alarms import ALARMS_SCHEMA
from ml_assets.core.estimated_performance import ESTIMATED_SCHEMA
from ml_assets.core.monitored import ALARMS, ESTIMATED, PERFORMANCE, RETRAINING
from ml_assets.core.ports import DayRange
from ml_assets.core.resumes import resume
from ml_assets.core.retraining_evidence import write_decisions
from ml_assets.core.spec import RetrainingRule
from ml_assets.core.staleness_curves import save_curve
from tests.core.test_retraining import curve

EAGER = RetrainingRule(cool_down_days=0, minimum_new_examples=0, growth_share=0.01)
SATURDAY, SUNDAY, MONDAY = (date(2013, 1, day) for day in (12, 13, 14))


def decide(life, first: date, last: date | None = None, *, rule: RetrainingRule | None = None) -> pa.Table:
    use_case = replace(life.use_case, retraining=rule) if rule else life.use_case
    days = DayRange(first=first, last=last or first)
    cycle = life.lifecycle
    return write_decisions(cycle.warehouse, cycle.store, use_case, days, starts_at=day_starts_at)


def evidence(life, day: date, **settings) -> Mapping:
    [row] = decide(life, day, **settings).to_pylist()
    return json.loads(row["evidence"])


def enter(life, action: str, as_of: date) -> None:
    """Enter a candidate of this as-of date in the ledger."""
    write = registry.refuse if action == "refuse" else registry.promote
    write(
        life.lifecycle.store,
        use_case="arrival_delay",
        version=f"by-hand-{as_of}",
        package_hash="a" * 64,
        effective_from=as_of,
        as_of=as_of,
        reason="",
        gates=(),
        recorded_at=datetime(2013, 1, 20, tzinfo=UTC),
        recorded_by="ann",
    )


def test_a_range_of_days_comes_to_what_its_days_come_to_one_by_one(life):
    together = decide(life, SATURDAY, MONDAY)
    assert together["partition_on"].to_pylist() == [SATURDAY, SUNDAY, MONDAY]
    one_by_one = pa.concat_tables([decide(life, day) for day in (SATURDAY, SUNDAY, MONDAY)])
    assert one_by_one.equals(together)
    stored = life.query(f"select * from {RETRAINING} order by partition_on")
    assert stored.select(together.column_names).to_pylist() == together.to_pylist()


def test_a_day_decided_again_decides_the_same_whatever_came_later(life):
    before = decide(life, SATURDAY, SUNDAY)
    for n in range(4):
        enter(life, "refuse", MONDAY + timedelta(days=n))
    store = life.lifecycle.store
    resume(
        store, "arrival_delay", day=MONDAY, reason="x", recorded_at=datetime(2013, 1, 20, tzinfo=UTC), recorded_by="a"
    )
    save_curve(store, replace(curve(w1=0.5), use_case="arrival_delay", as_of=date(2013, 1, 15)))
    assert decide(life, SATURDAY, SUNDAY).equals(before)
    # On the Monday itself one of the candidates is known, and the curve.
    monday = evidence(life, MONDAY)
    assert monday["staleness_cost"] is not None
    assert evidence(life, SUNDAY)["staleness_cost"] is None


def test_the_evidence_of_a_day_by_hand(life):
    found = evidence(life, SUNDAY)
    assert (found["model_as_of"], found["last_training_on"], found["n_trainings"]) == ("2013-01-12", "2013-01-12", 1)
    assert (found["n_refusals"], found["has_last_training_failed"]) == (0, False)
    # The training as of the 12th could use the days to the 10th; that as of the 14th those to the 12th.
    sql = "select count(*) as n from examples.arrival_delay where label is not null and partition_on between $a and $b"
    n_new = life.query(sql, a=date(2013, 1, 11), b=date(2013, 1, 12))["n"][0].as_py()
    assert found["n_new_examples"] == n_new > 1000
    manifest = registry.in_charge(registry.entries(life.lifecycle.store, "arrival_delay"), SUNDAY)
    assert found["model_version"] == manifest.version
    # Two labelled days are too few to know of quality.
    assert found["realised"] is None


def test_a_label_that_is_not_known_when_the_day_is_over_is_no_new_example(life):
    before = evidence(life, SUNDAY)["n_new_examples"]
    life.lifecycle.warehouse.replace_days(
        {
            "examples.arrival_delay": life.query(
                "select * replace (case when partition_on = $day and label is not null then timestamptz "
                "'2013-01-14 05:00:00+00' else label_known_at end as label_known_at) from examples.arrival_delay",
                day=SATURDAY,
            )
        },
        DayRange(first=date(2013, 1, 1), last=MONDAY),
    )
    sql = "select count(*) as n from examples.arrival_delay where label is not null and partition_on = $day"
    n_late = life.query(sql, day=SATURDAY)["n"][0].as_py()
    # 05:00 UTC is midnight in New York: known on Monday, and not before it.
    assert evidence(life, SUNDAY)["n_new_examples"] == before - n_late
    assert n_late > 0


def test_days_before_the_first_champion_are_decided_by_how_many_are_labelled(life):
    rows = decide(life, date(2013, 1, 10), SATURDAY).to_pylist()
    # 2 (2 + 3 + 1) days are needed by the small use case; as of the 12th the ten to the 10th are to be had.
    assert [row["decision"] for row in rows[:2]] == ["wait", "wait"]
    assert [json.loads(row["evidence"])["n_labelled_days"] for row in rows] == [9, 10, 0]
    assert (
        rows[1]["reason"] == "nothing asks for a training: nobody is in charge, and 10 days are labelled of 12 needed"
    )


def test_refusals_count_from_the_last_promotion_or_from_the_day_that_a_person_names(life):
    rule = RetrainingRule(most_refusals=2)
    for day in (15, 16, 17):
        life.lifecycle.warehouse.replace_days({PERFORMANCE: _moved(life, MONDAY, date(2013, 1, day))},
                                              DayRange(first=date(2013, 1, day), last=date(2013, 1, day)),
                                              use_case="arrival_delay")  # fmt: skip
    enter(life, "refuse", date(2013, 1, 15))
    enter(life, "refuse", date(2013, 1, 16))
    days = [date(2013, 1, day) for day in (14, 15, 16)]
    assert [evidence(life, day)["n_refusals"] for day in days] == [0, 1, 2]
    [row] = decide(life, date(2013, 1, 16), rule=rule).to_pylist()
    assert row["decision"] == "stopped"
    said = {"reason": "mended", "recorded_at": datetime(2013, 1, 20, tzinfo=UTC), "recorded_by": "ann"}
    resume(life.lifecycle.store, "arrival_delay", day=date(2013, 1, 17), **said)
    assert decide(life, date(2013, 1, 16), rule=rule)["decision"].to_pylist() == ["stopped"]
    assert decide(life, date(2013, 1, 17), rule=rule)["decision"].to_pylist() != ["stopped"]
    enter(life, "promote", date(2013, 1, 17))
    assert evidence(life, date(2013, 1, 17))["n_refusals"] == 0


def _moved(life, day: date, to: date) -> pa.Table:
    rows = life.query(f"select * from {PERFORMANCE} where partition_on = $day", day=day)
    place = rows.column_names.index("partition_on")
    return rows.set_column(place, "partition_on", pa.array([to] * rows.num_rows, pa.date32()))


def test_a_training_asked_for_counts_until_it_is_known_to_have_failed(life):
    asked = decide(life, SUNDAY, rule=EAGER)
    assert asked["decision"].to_pylist() == ["retrain"]
    found = evidence(life, MONDAY)
    assert (found["last_training_on"], found["n_trainings"]) == ("2013-01-14", 2)
    # A training as of the 14th is in the ledger; one as of the 15th was asked for and has left nothing but a failure.
    decide(life, MONDAY, rule=EAGER)
    tuesday = date(2013, 1, 15)
    life.lifecycle.warehouse.replace_days(
        {PERFORMANCE: _moved(life, MONDAY, tuesday)}, DayRange(first=tuesday, last=tuesday), use_case="arrival_delay"
    )
    found = evidence(life, tuesday)
    assert (found["last_training_on"], found["has_last_training_failed"]) == ("2013-01-15", False)
    store = life.lifecycle.store
    started = next(path for path in store.list("experiments/arrival_delay") if path.endswith(".started.json"))
    told = store.get(started).replace(b'"as_of": "2013-01-14"', b'"as_of": "2013-01-15"')
    told = told.replace(b'"as_of": "2013-01-12"', b'"as_of": "2013-01-15"')
    store.put("experiments/arrival_delay/20130115t120000.0z-x.started.json", told)
    ended = {"status": "failed", "ended_at": "2013-01-15T13:00:00Z", "seconds": 1.0, "error": "OSError: full"}
    store.put("experiments/arrival_delay/20130115t120000.0z-x.ended.json", json.dumps(ended).encode())
    assert evidence(life, tuesday)["has_last_training_failed"]


def test_the_alarms_that_stand_and_the_estimate_of_the_day_are_taken_over(life):
    alarm = {
        "use_case": "arrival_delay",
        "kind": "drift",
        "subject": "x",
        "explanation": "x moved",
        "severity": "severe",
        "incident": "drift:x:2013-01-12",
        "model_version": "v1",
    }
    since = {"since": SATURDAY}
    rows = [
        {**alarm, **since, "partition_on": SATURDAY},
        {**alarm, **since, "partition_on": SUNDAY, "severity": "warning"},
    ]
    days = DayRange(first=SATURDAY, last=MONDAY)
    warehouse = life.lifecycle.warehouse
    warehouse.replace_days({ALARMS: pa.Table.from_pylist(rows, schema=ALARMS_SCHEMA)}, days, use_case="arrival_delay")
    version = evidence(life, SUNDAY)["model_version"]
    estimate = {"use_case": "arrival_delay", "model_version": version, "metric": "roc_auc"}
    estimated = [
        {**estimate, "partition_on": SATURDAY, "estimated": 0.7, "error": 0.05},
        {**estimate, "partition_on": SUNDAY, "estimated": 0.6},
    ]
    estimates = pa.Table.from_pylist(estimated, schema=ESTIMATED_SCHEMA)
    warehouse.replace_days({ESTIMATED: estimates}, days, use_case="arrival_delay")
    found = {day: evidence(life, day) for day in (SATURDAY, SUNDAY, MONDAY)}
    assert [[one["severity"] for one in found[day]["alarms"]] for day in found] == [["severe"], ["warning"], []]
    assert (found[SUNDAY]["estimated"]["estimated"], found[SUNDAY]["estimated"]["recent_error"]) == (0.6, 0.05)
    assert found[SATURDAY]["estimated"]["recent_error"] is None  # its own labels have not landed yet
    assert found[MONDAY]["estimated"] is None  # another model, whose estimates there are none of


def test_a_day_that_was_not_predicted_although_somebody_was_in_charge_has_no_decision(life):
    kept = life.query(f"select * from {PERFORMANCE}").filter(pc.field("partition_on") != pa.scalar(SUNDAY))
    days = DayRange(first=SATURDAY, last=MONDAY)
    life.lifecycle.warehouse.replace_days({PERFORMANCE: kept}, days, use_case="arrival_delay")
    assert decide(life, SATURDAY, MONDAY)["partition_on"].to_pylist() == [SATURDAY, MONDAY]


@pytest.mark.parametrize("table", ["monitoring.performance", "examples.arrival_delay"])
def test_a_use_case_of_which_nothing_has_been_written_yet_waits(life, table: str):
    import duckdb

    with duckdb.connect(str(life.home.path / "warehouse.duckdb")) as connection:
        connection.execute(f"drop table {table}")
        connection.execute(f"drop table {RETRAINING}")
    [row] = decide(life, date(2013, 1, 5)).to_pylist()
    assert (row["decision"], row["model_version"]) == ("wait", None)
