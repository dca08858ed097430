from datetime import date, timedelta

import pyarrow as pa
import pytest

from ml_assets.core.drift import Verdict
from ml_assets.core.retraining import RETRAINING_SCHEMA, RetrainingDecision, decide
from ml_assets.core.spec import RetrainingRule

CALM = Verdict(is_alarming=False, reasons=())
DRIFTED = Verdict(is_alarming=True, reasons=("wind_speed_mph drifted on 2 of 3 days", "n_departures too"))
WORSE = Verdict(is_alarming=True, reasons=("log loss 0.55",))
DAY = date(2013, 7, 10)


def decided(
    *, drift: Verdict = CALM, quality: Verdict = CALM, last_training_on: date | None = None, cool_down_days: int = 7
) -> RetrainingDecision:
    rule = RetrainingRule(cool_down_days=cool_down_days)
    return decide("delay", DAY, drift=drift, quality=quality, last_training_on=last_training_on, rule=rule)


def test_a_day_without_an_alarm_waits():
    found = decided()
    assert (found.decision, found.reason) == ("wait", "neither drift nor quality raised an alarm")


@pytest.mark.parametrize(
    ("drift", "quality", "reason"),
    [
        (DRIFTED, CALM, "drift: wind_speed_mph drifted on 2 of 3 days; drift: n_departures too"),
        (CALM, WORSE, "quality: log loss 0.55"),
        (
            DRIFTED,
            WORSE,
            "drift: wind_speed_mph drifted on 2 of 3 days; drift: n_departures too; quality: log loss 0.55",
        ),
    ],
)
def test_either_alarm_asks_for_a_training_and_says_why(drift: Verdict, quality: Verdict, reason: str):
    found = decided(drift=drift, quality=quality)
    assert (found.decision, found.reason) == ("retrain", reason)


def test_what_is_worth_noting_without_an_alarm_starts_nothing():
    noted = Verdict(is_alarming=False, reasons=("one feature drifted on one day",))
    assert decided(drift=noted, quality=noted).decision == "wait"


@pytest.mark.parametrize(
    ("last_training_on", "decision"),
    [
        # A decision of 10 July trains as of the 11th: seven days after a training as of the 4th, six after the 5th.
        (date(2013, 7, 4), "retrain"),
        (date(2013, 7, 5), "wait"),
        (date(2013, 7, 10), "wait"),
        (date(2013, 1, 1), "retrain"),
        (None, "retrain"),
    ],
)
def test_two_trainings_are_at_least_the_cool_down_apart(last_training_on: date | None, decision: str):
    assert decided(drift=DRIFTED, last_training_on=last_training_on).decision == decision


def test_one_who_waits_for_the_cool_down_says_until_when_and_what_was_wrong():
    found = decided(quality=WORSE, last_training_on=date(2013, 7, 8))
    assert found.reason == "cooling down until 2013-07-15; quality: log loss 0.55"


def test_without_a_cool_down_every_alarm_trains():
    assert decided(drift=DRIFTED, last_training_on=DAY, cool_down_days=0).decision == "retrain"


def test_an_alarm_of_every_day_trains_once_in_the_cool_down():
    """Live two months of alarms, each training counting from its as-of date on."""
    trained, last = list[date](), None
    for n in range(60):
        day = DAY + timedelta(days=n)
        found = decide(
            "delay", day, drift=DRIFTED, quality=CALM, last_training_on=last, rule=RetrainingRule(cool_down_days=7)
        )
        if found.decision == "retrain":
            last = found.as_of
            trained.append(last)
    assert trained == [DAY + timedelta(days=1 + 7 * n) for n in range(9)]


def test_alarms_of_every_day_beside_a_weekly_training_train_in_the_middle_of_the_week():
    """Live eight weeks: every Monday begins with a training, and the default cool-down counts from it."""
    monday = date(2013, 7, 1)
    last, asked_on = monday, list[int]()
    for n in range(56):
        day = monday + timedelta(days=n)
        last = day if day.weekday() == 0 else last
        found = decide("delay", day, drift=DRIFTED, quality=CALM, last_training_on=last, rule=RetrainingRule())
        if found.decision == "retrain":
            last = found.as_of
            asked_on.append(day.weekday())
    # On Wednesday as of Thursday, then on Saturday as of Sunday.
    assert asked_on == [2, 5] * 8


def test_a_training_may_use_the_day_that_asked_for_it_and_nothing_later():
    assert decided(drift=DRIFTED).as_of == date(2013, 7, 11)


def test_a_decision_is_a_row_of_its_table():
    row = decided(drift=DRIFTED, last_training_on=date(2013, 7, 1)).as_row()
    table = pa.Table.from_pylist([row, decided().as_row()], schema=RETRAINING_SCHEMA)
    assert list(row) == RETRAINING_SCHEMA.names
    assert table["decision"].to_pylist() == ["retrain", "wait"]
    assert table["as_of"].to_pylist() == [date(2013, 7, 11)] * 2
    assert table["last_training_on"].to_pylist() == [date(2013, 7, 1), None]
