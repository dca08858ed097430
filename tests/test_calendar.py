from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from ml_assets.calendar import DAILY, DAILY_FRESHNESS, as_of_day, day_starts_at, days_of, freshness_of_champion, today
from ml_assets.core.ports import DayRange


@pytest.mark.parametrize(
    ("day", "starts_at", "hours"),
    [
        (date(2013, 1, 1), "2013-01-01T05:00", 24),
        (date(2013, 7, 1), "2013-07-01T04:00", 24),
        (date(2013, 3, 9), "2013-03-09T05:00", 24),
        (date(2013, 3, 10), "2013-03-10T05:00", 23),
        (date(2013, 3, 11), "2013-03-11T04:00", 24),
        (date(2013, 11, 2), "2013-11-02T04:00", 24),
        (date(2013, 11, 3), "2013-11-03T04:00", 25),
        (date(2013, 11, 4), "2013-11-04T05:00", 24),
    ],
)
def test_a_local_day_has_the_hours_that_new_york_gave_it(day: date, starts_at: str, hours: int):
    assert day_starts_at(day) == datetime.fromisoformat(starts_at).replace(tzinfo=UTC)
    assert day_starts_at(day + timedelta(days=1)) - day_starts_at(day) == timedelta(hours=hours)


@pytest.mark.parametrize("day", [date(2013, 3, 10), date(2013, 7, 1), date(2013, 11, 3)])
def test_a_day_is_today_from_its_first_moment_to_its_last(day: date):
    starts_at, ends_at = day_starts_at(day), day_starts_at(day + timedelta(days=1))
    moment = timedelta(microseconds=1)
    assert [today(at) for at in (starts_at - moment, starts_at, ends_at - moment, ends_at)] == [
        day - timedelta(days=1),
        day,
        day,
        day + timedelta(days=1),
    ]


@pytest.mark.parametrize("day", [date(2013, 1, 1), date(2013, 3, 10), date(2013, 11, 3), date(2013, 12, 31)])
def test_a_partition_is_the_local_day_it_is_named_after(day: date):
    window = DAILY.time_window_for_partition_key(day.isoformat())
    assert (window.start, window.end) == (day_starts_at(day), day_starts_at(day + timedelta(days=1)))


def test_the_partitions_of_2013_are_its_365_days():
    keys = DAILY.get_partition_keys(current_time=datetime(2013, 12, 31, 12, tzinfo=UTC))
    assert keys == [(date(2013, 1, 1) + timedelta(days=n)).isoformat() for n in range(365)]


@pytest.mark.parametrize(
    ("at", "newest"),
    [("2013-07-02T03:59:59", "2013-07-01"), ("2013-07-02T04:00", "2013-07-02"), ("2013-11-04T05:00", "2013-11-04")],
)
def test_today_is_a_partition_from_its_start_on_and_tomorrow_is_none(at: str, newest: str):
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert DAILY.get_partition_keys(current_time=moment)[-1] == newest


def test_a_run_is_for_one_day_or_for_a_stretch_of_days():
    one = dg.build_asset_context(partition_key="2013-03-10")
    assert days_of(one) == DayRange(first=date(2013, 3, 10), last=date(2013, 3, 10))
    assert as_of_day(one) == date(2013, 3, 10)
    stretch = dg.build_asset_context(partition_key_range=dg.PartitionKeyRange("2013-03-09", "2013-03-11"))
    assert days_of(stretch) == DayRange(first=date(2013, 3, 9), last=date(2013, 3, 11))


def test_a_training_is_for_one_as_of_date_only():
    stretch = dg.build_asset_context(partition_key_range=dg.PartitionKeyRange("2013-07-01", "2013-07-08"))
    with pytest.raises(Exception, match="partition"):
        as_of_day(stretch)


def test_what_is_late_is_warned_of_before_it_fails_and_not_on_the_day_of_25_hours():
    for policy, cadence in (
        (DAILY_FRESHNESS, timedelta(hours=25)),
        (freshness_of_champion(14), timedelta(days=14, hours=1)),
    ):
        assert cadence < policy.warn_window.to_timedelta() < policy.fail_window.to_timedelta()
