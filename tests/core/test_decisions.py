from datetime import UTC, time, timedelta

import pytest

from ml_assets.core.decisions import Decisions
from ml_assets.core.errors import InvalidDeclaration


def decisions(**when: object) -> Decisions:
    return Decisions(table="intermediate.flights", event_at="departs_at", **when)  # pyright: ignore[reportArgumentType]


def evening_before() -> Decisions:
    return decisions(decided_at_local=time(18), days_before=1)


@pytest.mark.parametrize(
    ("when", "longest_hours", "days_ahead"),
    [
        ({"lead_time": timedelta(hours=2)}, 2, 0),
        ({"lead_time": timedelta(hours=24)}, 24, 1),
        # 6 h of the day before and, on the day the clocks go back, 25 h of the day itself.
        ({"decided_at_local": time(18), "days_before": 1}, 31, 1),
        ({"decided_at_local": time(0), "days_before": 2}, 73, 2),
    ],
)
def test_how_far_ahead_a_decision_can_lie(when: dict[str, object], longest_hours: int, days_ahead: int):
    found = decisions(**when)
    assert (found.longest_lead, found.days_ahead) == (timedelta(hours=longest_hours), days_ahead)


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({}, "need a lead_time, or decided_at_local together with days_before"),
        ({"decided_at_local": time(18)}, "together with days_before"),
        ({"days_before": 1}, "need a lead_time"),
        ({"lead_time": timedelta(hours=2), "decided_at_local": time(18), "days_before": 1}, "give one of both"),
        ({"lead_time": timedelta(hours=2), "days_before": 1}, "give one of both"),
        ({"lead_time": timedelta(hours=-1)}, "decides after the event"),
        ({"decided_at_local": time(18), "days_before": 0}, "choose 1 or more, or a lead_time"),
        ({"decided_at_local": time(18, tzinfo=UTC), "days_before": 1}, "give the time alone"),
        ({"decided_at_local": time(2, 30), "days_before": 1}, "exactly once on the nights it is changed"),
        ({"decided_at_local": time(1), "days_before": 1}, "before 01:00, or 03:00 and later"),
    ],
)
def test_a_decision_is_declared_in_exactly_one_of_two_ways(when: dict[str, object], said: str):
    with pytest.raises(InvalidDeclaration, match=said):
        decisions(**when)


def test_times_that_the_clock_shows_once_on_every_day_are_accepted():
    for at in (time(0, 59), time(3)):
        assert decisions(decided_at_local=at, days_before=1).local == (at, 1)


def test_only_a_local_time_has_one():
    assert evening_before().local == (time(18), 1)
    with pytest.raises(InvalidDeclaration, match="2:00:00 ahead, at no local time"):
        decisions(lead_time=timedelta(hours=2)).local  # noqa: B018 - it raises
