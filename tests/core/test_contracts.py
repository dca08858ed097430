"""Rows that break their contract are set aside with a reason; a table that breaks it is refused whole."""

import math
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.contract_checks import Checked, check
from ml_assets.core.contracts import QUARANTINE_SCHEMA, Column, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import ContractBroken

MONDAY, TUESDAY, WEDNESDAY = date(2013, 7, 1), date(2013, 7, 2), date(2013, 7, 3)
DAYS = DayRange(first=MONDAY, last=TUESDAY)

FLIGHTS = Contract(
    table="flights",
    description="Flights.",
    columns=(
        Column(name="partition_on", type=pa.date32(), description="Local day."),
        Column(name="carrier", type=pa.string(), description="Airline."),
        Column(name="flight", type=pa.int64(), description="Number.", minimum=1, maximum=9999),
        Column(name="wind_mph", type=pa.float64(), description="Wind.", nullable=True, minimum=0, maximum=150),
    ),
    key=("carrier", "flight"),
    is_partitioned=True,
)
AIRLINES = Contract(
    table="airlines",
    description="Airlines.",
    columns=(
        Column(name="carrier", type=pa.string(), description="Airline."),
        Column(name="name", type=pa.string(), description="Full name.", nullable=True),
    ),
    key=("carrier",),
    is_partitioned=False,
)
SCHEMA = FLIGHTS.schema


def flights(*rows: tuple[date | None, str | None, int | None, float | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def refused(checked: Checked) -> list[tuple[date, str]]:
    return [(row["partition_on"], row["reason"]) for row in checked.quarantined.to_pylist()]


def test_sound_rows_are_accepted_as_they_are():
    rows = flights((MONDAY, "UA", 1, 3.0), (TUESDAY, "UA", 2, None))
    checked = check(rows, FLIGHTS, days=DAYS)
    assert checked.accepted.equals(rows)
    assert checked.quarantined.equals(QUARANTINE_SCHEMA.empty_table())
    assert checked.warnings == ("wind_mph is null in every row of 2013-07-02",)


def test_a_missing_column_refuses_the_table_and_says_what_was_found():
    with pytest.raises(
        ContractBroken, match=r"column 'flight' is missing.*Found partition_on date32.*correct the source"
    ):
        check(flights((MONDAY, "UA", 1, 3.0)).drop_columns("flight"), FLIGHTS, days=DAYS)


def test_a_retyped_column_refuses_the_table_and_names_both_types():
    rows = flights((MONDAY, "UA", 1, 3.0))
    retyped = rows.set_column(2, "flight", rows["flight"].cast(pa.string()))
    with pytest.raises(ContractBroken, match="column 'flight' is string, not int64"):
        check(retyped, FLIGHTS, days=DAYS)


def test_an_extra_column_is_ignored_and_named():
    rows = flights((MONDAY, "UA", 1, 3.0))
    checked = check(rows.append_column("gate", pa.array(["A7"])), FLIGHTS, days=DAYS)
    assert checked.accepted.equals(rows)
    assert checked.ignored_columns == ("gate",)


def test_columns_in_another_order_come_out_in_the_contracts_order():
    rows = flights((MONDAY, "UA", 1, 3.0))
    assert check(rows.select(SCHEMA.names[::-1]), FLIGHTS, days=DAYS).accepted.equals(rows)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((MONDAY, None, 1, 3.0), "carrier is null"),
        ((None, "UA", 1, 3.0), "partition_on is null"),
        ((MONDAY, "UA", 0, 3.0), "flight is below 1"),
        ((MONDAY, "UA", 10_000, 3.0), "flight is above 9999"),
        ((MONDAY, "UA", 1, -0.1), "wind_mph is below 0"),
        ((MONDAY, "UA", 1, math.nan), "wind_mph is not a finite number"),
        ((MONDAY, "UA", 1, -math.inf), "wind_mph is not a finite number; wind_mph is below 0"),
        ((MONDAY, None, 0, 151.0), "carrier is null; flight is below 1; wind_mph is above 150"),
    ],
)
def test_a_bad_row_is_set_aside_with_every_reason(row: tuple[date, str, int, float], reason: str):
    good = (MONDAY, "AA", 7, 150.0)
    checked = check(flights(good, row), FLIGHTS, days=DAYS)
    assert checked.accepted.equals(flights(good))
    assert refused(checked) == [(MONDAY, reason)]


def test_a_change_of_unit_sets_every_row_aside():
    metres_per_hour = flights((MONDAY, "UA", 1, 8_000.0), (TUESDAY, "UA", 2, 12_000.0))
    checked = check(metres_per_hour, FLIGHTS, days=DAYS)
    assert checked.accepted.num_rows == 0
    assert refused(checked) == [(MONDAY, "wind_mph is above 150"), (TUESDAY, "wind_mph is above 150")]
    assert checked.warnings == ("there are no rows on 2013-07-01, 2013-07-02",)


def test_a_row_of_another_day_is_filed_under_the_nearest_day_of_the_range():
    checked = check(flights((date(2013, 6, 1), "UA", 1, 3.0), (WEDNESDAY, "UA", 2, 3.0)), FLIGHTS, days=DAYS)
    reason = "partition_on is outside 2013-07-01..2013-07-02"
    assert refused(checked) == [(MONDAY, reason), (TUESDAY, reason)]


def test_the_row_set_aside_can_be_read_again():
    checked = check(flights((WEDNESDAY, 'U"A', 1, None)), FLIGHTS, days=DAYS)
    assert checked.quarantined["table_name"].to_pylist() == ["flights"]
    expected = '{"partition_on":"2013-07-03","carrier":"U\\"A","flight":1,"wind_mph":null}'
    assert checked.quarantined["row_json"].to_pylist() == [expected]


def test_of_copies_one_is_kept():
    row, other = (MONDAY, "UA", 1, None), (MONDAY, "UA", 2, 1.0)
    checked = check(flights(row, other, row, row), FLIGHTS, days=DAYS)
    assert sorted(checked.accepted["flight"].to_pylist()) == [1, 2]
    assert refused(checked) == [(MONDAY, "a copy of another row with the same carrier, flight")] * 2


def test_of_different_rows_with_one_key_the_last_is_the_correction():
    checked = check(flights((MONDAY, "UA", 1, 3.0), (MONDAY, "UA", 1, 4.0)), FLIGHTS, days=DAYS)
    assert checked.accepted.equals(flights((MONDAY, "UA", 1, 4.0)))
    assert refused(checked) == [(MONDAY, "corrected by a later row with the same carrier, flight")]


def test_a_row_that_gains_or_loses_a_value_is_a_correction_and_no_copy():
    checked = check(flights((MONDAY, "UA", 1, None), (MONDAY, "UA", 1, 4.0)), FLIGHTS, days=DAYS)
    assert refused(checked) == [(MONDAY, "corrected by a later row with the same carrier, flight")]
    checked = check(flights((MONDAY, "UA", 1, 4.0), (MONDAY, "UA", 1, None)), FLIGHTS, days=DAYS)
    assert checked.accepted["wind_mph"].to_pylist() == [None]


def test_a_bad_row_corrects_no_sound_one():
    checked = check(flights((MONDAY, "UA", 1, 3.0), (MONDAY, "UA", 1, 9e9)), FLIGHTS, days=DAYS)
    assert checked.accepted.equals(flights((MONDAY, "UA", 1, 3.0)))
    assert refused(checked) == [(MONDAY, "wind_mph is above 150")]


def test_a_day_of_nulls_is_accepted_and_reported():
    rows = flights((MONDAY, "UA", 1, None), (MONDAY, "UA", 2, None), (TUESDAY, "UA", 3, 5.0))
    checked = check(rows, FLIGHTS, days=DAYS)
    assert checked.accepted.equals(rows)
    assert checked.warnings == ("wind_mph is null in every row of 2013-07-01",)


def test_an_empty_day_is_accepted_and_reported():
    checked = check(flights(), FLIGHTS, days=DayRange(first=MONDAY, last=date(2013, 7, 14)))
    assert checked.accepted.equals(flights())
    assert checked.warnings == ("there are no rows on 14 days from 2013-07-01 to 2013-07-14",)


def test_a_bad_row_of_an_unpartitioned_table_refuses_the_table():
    rows = pa.table({"carrier": ["UA", None], "name": ["United", "Nobody"]})
    with pytest.raises(ContractBroken, match=r"1 of 2 rows.*carrier is null.*Nobody.*the table is left as it was"):
        check(rows, AIRLINES, days=None)


def test_an_unpartitioned_table_may_lack_optional_values():
    rows = pa.table({"carrier": ["UA"], "name": pa.nulls(1, pa.string())})
    assert check(rows, AIRLINES, days=None).warnings == ("name is null in every row",)


def test_days_are_required_exactly_for_partitioned_tables():
    with pytest.raises(ValueError, match="days must be given"):
        check(flights(), FLIGHTS, days=None)
    with pytest.raises(ValueError, match="days must be given"):
        check(pa.table({"carrier": ["UA"], "name": ["United"]}), AIRLINES, days=DAYS)


def test_a_day_of_which_a_fifth_is_bad_is_refused_whole_and_a_few_bad_rows_are_set_aside():
    def day_with(n_bad: int) -> pa.Table:
        return flights(*((MONDAY, "UA", number, 151.0 if number <= n_bad else 9.0) for number in range(1, 101)))

    assert check(day_with(20), FLIGHTS, days=DAYS).quarantined.num_rows == 20
    with pytest.raises(ContractBroken, match=r"21 of the 100 rows of .*mostly because wind_mph is above 150"):
        check(day_with(21), FLIGHTS, days=DAYS)


def test_one_spoilt_day_of_a_long_range_is_refused():
    good = [(TUESDAY, "UA", number, 9.0) for number in range(1, 1001)]
    spoilt = [(MONDAY, "UA", number, 151.0) for number in range(1, 31)]
    with pytest.raises(ContractBroken, match="30 of the 30 rows"):
        check(flights(*good, *spoilt), FLIGHTS, days=DAYS)


@pytest.mark.parametrize("seed", range(30))
def test_every_row_is_accepted_or_set_aside_and_never_both(seed: int):
    random = np.random.default_rng(seed)
    picks = random.integers(0, 5, size=(19, 4))
    days = (MONDAY, TUESDAY, WEDNESDAY, None, MONDAY)
    carriers, numbers, winds = ("UA", "AA", "DL", "B6", None), (1, 2, 3, 0, 4), (1.0, 2.0, None, math.nan, 151.0)
    rows = flights(*((days[a], carriers[b], numbers[c], winds[d]) for a, b, c, d in picks.tolist()))
    checked = check(rows, FLIGHTS, days=DAYS)

    def is_sound(row: dict[str, object]) -> bool:
        wind = row["wind_mph"]
        return (
            row["partition_on"] in (MONDAY, TUESDAY)
            and row["carrier"] is not None
            and row["flight"] != 0
            and wind in (1.0, 2.0, None)
        )

    expected = {(row["carrier"], row["flight"]): row for row in rows.to_pylist() if is_sound(row)}
    found = {(row["carrier"], row["flight"]): row for row in checked.accepted.to_pylist()}
    assert found == expected
    assert checked.accepted.num_rows == len(expected)
    assert checked.accepted.num_rows + checked.quarantined.num_rows == rows.num_rows
    assert all(checked.quarantined["reason"].to_pylist())
