"""Each seeded fault trips its own check and no other, holds its day, and lets go when it is healed or released."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.data_quality import releases
from ml_assets.core.data_quality.evidence import CHECKS
from ml_assets.core.data_quality.landings import landings_table, not_landed, read_landings
from ml_assets.core.data_quality.verdicts import Fault, judge_days, verdicts_of
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput, ContractBroken
from ml_assets.core.landing import landing
from ml_assets.core.ports import Source
from tests import faults
from tests.core.conftest import MemoryStore
from tests.core.data_quality.conftest import DAILY, PACKAGED, Landed

TUESDAY, WEDNESDAY, THURSDAY = date(2013, 7, 2), date(2013, 7, 3), date(2013, 7, 4)

SEEDED = {
    "half the flights": (lambda s: faults.half_the_rows(s, [TUESDAY], table="flights"), "flights", "volume", ""),
    "half the schedule": (lambda s: faults.half_the_rows(s, [TUESDAY], table="schedules"), "schedules", "volume", ""),
    "no weather": (lambda s: faults.late_rows(s, [TUESDAY], table="weather", share=1.0), "weather", "volume", ""),
    "a silent station": (lambda s: faults.silent_sensor(s, [TUESDAY]), "weather", "volume", "origin"),
    "a station that sends empty rows": (
        lambda s: faults.FaultySource(
            otherwise=s,
            days=[TUESDAY],
            changes={
                "weather": lambda rows: pa.concat_tables(
                    faults.replaced(part, "temp", pa.nulls(part.num_rows, pa.float64())) if is_silent else part
                    for is_silent, part in (
                        (origin == "JFK", rows.filter(pa.compute.equal(rows["origin"], origin)))
                        for origin in ("EWR", "JFK", "LGA")
                    )
                )
            },
        ),
        "weather",
        "nulls",
        "temp",
    ),
    "the feed stopped at four": (
        lambda s: faults.cut_off(s, [TUESDAY], table="weather", hours=7),
        "weather",
        "freshness",
        "time_hour",
    ),
    "40 % nulls": (lambda s: faults.empty_readings(s, [TUESDAY], column="temp", share=0.4), "weather", "nulls", "temp"),
    "late labels": (lambda s: faults.late_labels(s, [TUESDAY]), "flights", "nulls", ""),
    "a Celsius day": (lambda s: faults.celsius(s, [TUESDAY]), "weather", "units", "temp"),
    "wind in knots": (
        lambda s: faults.unit_change(s, [TUESDAY], table="weather", column="wind_speed", factor=0.868976),
        "weather",
        "units",
        "wind_speed",
    ),
    "distances in kilometres": (
        lambda s: faults.unit_change(s, [TUESDAY], table="schedules", column="distance", factor=1.609344),
        "schedules",
        "units",
        "distance",
    ),
    "a landing twice, with other values": (
        lambda s: faults.contradicted_landing(s, [TUESDAY], table="flights", column="dep_delay"),
        "flights",
        "duplicates",
        "",
    ),
    "rows of the day before": (
        lambda s: faults.Strays(otherwise=s, table="weather", days=[TUESDAY], share=0.5),
        "weather",
        "late",
        "",
    ),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_seeded_fault_trips_its_check_and_no_other_and_holds_the_day(days: Landed, name: str):
    wrap, table, check, column = SEEDED[name]
    days.land(TUESDAY, wrap)

    found = days.judge(TUESDAY)

    assert {(fault.table, fault.check_name) for fault in found} == {(table, check)}
    assert column in {fault.column_name for fault in found}
    assert {(of, name) for of, name, _ in days.told(TUESDAY)} == {(table, check)}
    assert days.standing(TUESDAY) == found
    assert days.standing(TUESDAY, table) == found
    assert [days.standing(TUESDAY, other.table) for other in DAILY if other.table != table] == [[], []]
    assert f"ml-assets release --table {table} --day 2013-07-02 --check {check} --by NAME --reason WHY" in str(found[0])


def test_a_landing_twice_is_told_and_holds_nothing_since_each_row_is_counted_once(days: Landed):
    days.land(TUESDAY, lambda source: faults.duplicated_landing(source, [TUESDAY], table="flights"))
    assert days.judge(TUESDAY) == []
    assert days.told(TUESDAY) == {("flights", "duplicates", "warning")}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda source: source,
        lambda source: faults.closed_airport(source, [TUESDAY]),
        lambda source: faults.new_carrier(source, [TUESDAY], old="HA", new="ZZ"),
        lambda source: faults.schedule_shift(source, [TUESDAY], hours=1),
    ],
    ids=["a day as it was", "a storm", "a small airline renamed", "a new timetable"],
)
def test_what_happens_in_the_world_is_no_fault(days: Landed, wrap):
    days.land(TUESDAY, wrap)
    assert days.judge(TUESDAY) == []
    assert days.told(TUESDAY) == set()


def test_an_airline_with_many_flights_that_is_gone_is_a_fault(days: Landed):
    days.land(TUESDAY, lambda source: faults.new_carrier(source, [TUESDAY], old="UA", new="ZZ"))
    assert {(f.table, f.check_name, f.column_name) for f in days.judge(TUESDAY)} == {
        ("flights", "volume", "carrier"),
        ("schedules", "volume", "carrier"),
    }


def test_every_check_leaves_a_row_with_its_figures_where_all_is_well(days: Landed):
    days.land(TUESDAY)
    days.judge(TUESDAY)
    rows = verdicts_of(days.warehouse, DayRange(first=TUESDAY, last=TUESDAY))
    assert [(row["table_name"], row["check_name"]) for row in rows] == [(c.table, n) for c in DAILY for n in CHECKS]
    of_weather = {row["check_name"]: row for row in rows if row["table_name"] == "weather"}
    # 70 of the 72 hours of three stations are there; the last one begins an hour before midnight.
    assert (of_weather["volume"]["value"], of_weather["volume"]["expected"]) == (70.0, 72.0)
    assert (of_weather["freshness"]["value"], of_weather["freshness"]["expected"]) == (1.0, 1.0)


def test_a_day_that_was_never_landed_is_held(days: Landed):
    assert {(fault.table, fault.check_name) for fault in days.standing(TUESDAY)} == {
        (contract.table, "volume") for contract in DAILY
    }


def test_the_very_first_day_of_a_table_is_held_too_where_it_is_empty():
    days = Landed(warehouse=DuckDBWarehouse(None), store=MemoryStore())
    days.land(TUESDAY, lambda source: faults.late_rows(source, [TUESDAY], table="weather", share=1.0))
    assert {(fault.table, fault.explanation) for fault in days.judge(TUESDAY)} == {("weather", "no row")}


def test_a_kill_between_the_rows_and_their_verdict_lets_nothing_slip(days: Landed):
    days.land(TUESDAY)
    assert days.judge(TUESDAY) == []
    # The day lands again, spoilt, and nobody is left to judge it: the verdict there is of other rows.
    days.land(TUESDAY, lambda source: faults.celsius(source, [TUESDAY]))
    assert [fault.check_name for fault in days.standing(TUESDAY)] == ["units"]
    assert days.told(TUESDAY) == {("weather", "units", "severe")}


def test_landing_the_day_again_heals_it(days: Landed):
    days.land(TUESDAY, lambda source: faults.celsius(source, [TUESDAY]))
    assert days.judge(TUESDAY)
    days.land(TUESDAY)
    assert days.standing(TUESDAY) == []
    assert days.told(TUESDAY) == set()


def test_a_refused_delivery_holds_the_day_until_one_lands(days: Landed):
    days.land(TUESDAY)
    days.judge(TUESDAY)
    of_day = DayRange(first=TUESDAY, last=TUESDAY)
    renamed = faults.FaultySource(
        otherwise=PACKAGED,
        days=[TUESDAY],
        changes={"weather": lambda rows: rows.rename_columns({"temp": "temperature"})},
    )
    contract = PACKAGED.contracts["weather"]
    with pytest.raises(ContractBroken) as broken, landing(renamed, contract, of_day, work_folder=None):  # type: ignore[arg-type]
        pass
    record = not_landed(broken.value, of_day, read_landings(days.warehouse, "weather", of_day))
    days.warehouse.replace_days({landings_table("weather"): record}, of_day)

    (fault,) = days.standing(TUESDAY)

    assert (fault.table, fault.check_name) == ("weather", "schema")
    assert "the 70 rows there are those of a landing before: weather: column 'temp' is missing" in fault.explanation
    days.land(TUESDAY)
    assert days.standing(TUESDAY) == []


def test_only_the_day_that_is_to_blame_is_recorded_as_refused():
    week = DayRange(first=date(2013, 7, 1), last=date(2013, 7, 7))
    of_one_day = not_landed(ContractBroken("bad rows", day=TUESDAY), week, {})
    of_all = not_landed(ContractBroken("a column is missing"), week, {})
    assert of_one_day["partition_on"].to_pylist() == [TUESDAY]
    assert of_all["partition_on"].to_pylist() == list(week.dates)


def test_late_rows_are_told_of_and_do_not_hold_the_day_that_they_complete(days: Landed):
    days.land(TUESDAY, lambda source: faults.late_rows(source, [TUESDAY], table="flights", share=0.1))
    assert days.judge(TUESDAY) == []
    days.land(TUESDAY)
    assert days.standing(TUESDAY) == []
    assert days.told(TUESDAY) == {("flights", "late", "warning")}
    # Landing once more changes nothing: they were late, and stay so.
    days.land(TUESDAY)
    assert days.standing(TUESDAY) == []
    assert days.told(TUESDAY) == {("flights", "late", "warning")}


def release(days: Landed, fault: Fault, by: str = "ana") -> releases.Release:
    return releases.record(
        days.store,
        releases.Release(
            table=fault.table,
            day=fault.day,
            fault=fault.fault,
            check_name=fault.check_name,
            explanation=fault.explanation,
            reason="the station moved",
            released_at=datetime(2013, 7, 3, 12, tzinfo=UTC),
            released_by=by,
        ),
    )


def test_a_released_fault_lets_the_day_pass_and_says_who_released_it(days: Landed):
    days.land(TUESDAY, lambda source: faults.silent_sensor(source, [TUESDAY]))
    (fault,) = days.judge(TUESDAY)
    release(days, fault)
    # Before any verdict says so, and after.
    assert days.standing(TUESDAY) == []
    days.judge(TUESDAY)
    assert days.standing(TUESDAY) == []
    rows = verdicts_of(days.warehouse, DayRange(first=TUESDAY, last=TUESDAY))
    severe = [row for row in rows if row["severity"] == "severe"]
    assert [(row["released_by"], row["is_blocking"]) for row in severe] == [("ana", False)]


def test_a_release_covers_that_fault_and_no_other(days: Landed):
    days.land(TUESDAY, lambda source: faults.silent_sensor(source, [TUESDAY]))
    release(days, *days.judge(TUESDAY))
    days.land(TUESDAY, lambda source: faults.silent_sensor(source, [TUESDAY], origin="JFK"))
    (other,) = days.standing(TUESDAY)
    assert "0 rows of origin JFK" in other.explanation
    # The first fault again is the one that was released.
    days.land(TUESDAY, lambda source: faults.silent_sensor(source, [TUESDAY]))
    assert days.standing(TUESDAY) == []


def test_the_first_release_of_a_fault_stands(days: Landed):
    days.land(TUESDAY, lambda source: faults.silent_sensor(source, [TUESDAY]))
    (fault,) = days.judge(TUESDAY)
    assert release(days, fault).released_by == "ana"
    assert release(days, fault, by="ben").released_by == "ana"
    kept = releases.releases_of(days.store, fault.table, fault.day)
    assert [each.released_by for each in kept.values()] == ["ana"]
    with pytest.raises(BadInput, match="a name and a reason"):
        release(days, fault, by=" ")


def test_a_unit_that_stays_another_is_found_on_every_day_until_somebody_releases_it(days: Landed):
    changed = [TUESDAY, WEDNESDAY, THURSDAY]
    for day in changed:
        days.land(day, lambda source: faults.celsius(source, changed))
    of_all = DayRange(first=TUESDAY, last=THURSDAY)
    found = judge_days(days.warehouse, days.store, DAILY, of_all)
    assert [(fault.day, fault.check_name) for fault in found] == [(day, "units") for day in changed]
    # Day by day it comes to the same.
    rows = verdicts_of(days.warehouse, of_all)
    days.warehouse.replace_days({"monitoring.data_quality": pa.Table.from_pylist(rows).slice(0, 0)}, of_all)
    for day in changed:
        days.judge(day)
    assert verdicts_of(days.warehouse, of_all) == rows


def test_judging_again_writes_nothing(days: Landed, monkeypatch: pytest.MonkeyPatch):
    days.land(TUESDAY)
    days.judge(TUESDAY)

    def refuse(*_given: object, **_named: object) -> None:
        raise AssertionError("it was written again")

    monkeypatch.setattr(type(days.warehouse), "replace_days", refuse)
    assert days.judge(TUESDAY) == []


def test_a_first_day_of_which_a_quantity_has_no_value_at_all_is_judged():
    days = Landed(warehouse=DuckDBWarehouse(None), store=MemoryStore())

    def no_temperature(source: Source) -> Source:
        return faults.empty_readings(source, [TUESDAY], column="temp", share=1.0)

    days.land(TUESDAY, no_temperature, tables=["weather"])
    assert [(f.table, f.check_name, f.column_name) for f in days.judge(TUESDAY) if f.table == "weather"] == [
        ("weather", "nulls", "temp")
    ]
