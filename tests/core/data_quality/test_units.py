"""A change of unit is found on real days wherever it can be, named rightly, and never seen where there is none."""

from collections.abc import Iterator, Mapping
from datetime import date

import numpy as np
import pytest

from ml_assets.core.data_quality.evidence import HISTORY, Evidence
from ml_assets.core.data_quality.findings import findings
from ml_assets.core.data_quality.profiles import DayProfile, quantities
from ml_assets.core.data_quality.units import CONVERSIONS, Conversion, Values, other_unit
from tests.core.data_quality.conftest import DAILY, PACKAGED, YEAR

Year = Mapping[str, Mapping[date, DayProfile]]

# `python -m benchmarks.data_quality` takes every day; this is every fifth.
DAYS = YEAR.dates[10::5]
COLUMNS = [(contract.table, name) for contract in DAILY for name in quantities(contract)]


def recent(year: Year, table: str, day: date) -> list[DayProfile]:
    return [profile for other, profile in year[table].items() if day - HISTORY <= other < day]


def unit_of(table: str, column: str) -> str:
    return next(each.unit for each in PACKAGED.contracts[table].columns if each.name == column)


def samples(year: Year, table: str, column: str) -> Iterator[tuple[Values, list[Values]]]:
    """Yield the values of days that tell something, each with those of the days before."""
    for day in DAYS:
        if column in year[table][day].values:
            before = [p.values[column] for p in recent(year, table, day) if column in p.values]
            told = [values for values in before if len(values.nonzero().values)]
            values = year[table][day].values[column]
            if values.nonzero().counts.sum() >= 8 and len(told) >= 7:
                yield values, before


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_every_other_unit_is_found_on_nearly_every_day_and_none_where_there_is_none(
    year: Year, table: str, column: str
):
    unit = unit_of(table, column)
    days = list(samples(year, table, column))
    assert len(days) >= 8
    assert [other_unit(unit, values, before) for values, before in days if other_unit(unit, values, before)] == []
    for conversion in CONVERSIONS[unit]:
        found = [
            other_unit(unit, Values(values=conversion.apply(values.values), counts=values.counts), before)
            for values, before in days
        ]
        assert sum(each is conversion for each in found) >= 0.95 * len(days), conversion.words


@pytest.mark.parametrize("table", ["schedules", "flights", "weather"])
def test_real_days_are_no_faults(year: Year, table: str):
    days = {date(2013, 2, 8), date(2013, 2, 9), date(2013, 3, 10), date(2013, 7, 4), date(2013, 11, 3), *DAYS}
    days |= {date(2013, 11, 28), date(2013, 12, 25)}
    told = [
        (finding.check_name, finding.severity, day)
        for day in sorted(days)
        for finding in findings(
            PACKAGED.contracts[table],
            Evidence(day=day, profile=year[table].get(day), recent=recent(year, table, day)),
        )
        if finding.severity
    ]
    # Thanksgiving has two thirds of a Thursday's flights, and on one evening the weather stops at seven: both are worth
    # a warning, and no day is held.
    thanksgiving, evening = ("volume", "warning", date(2013, 11, 28)), ("freshness", "warning", date(2013, 11, 2))
    assert told == [evening if table == "weather" else thanksgiving]


def test_the_one_day_of_2013_without_any_weather_is_a_fault(year: Year):
    day = date(2013, 12, 31)
    assert day not in year["weather"]
    evidence = Evidence(day=day, profile=None, recent=recent(year, "weather", day))
    faults = [each for each in findings(PACKAGED.contracts["weather"], evidence) if each.severity]
    assert [(fault.check_name, fault.explanation, fault.expected) for fault in faults] == [("volume", "no row", 72.0)]


def test_a_cold_front_is_no_degrees_celsius():
    rng = np.random.default_rng(11)
    mild = [of(np.round(rng.normal(50, 4, 72))) for _ in range(28)]
    front = of(np.round(rng.normal(15, 4, 72)))
    assert other_unit("fahrenheit", front, mild) is None
    celsius = of((np.round(rng.normal(50, 4, 72)) - 32) / 1.8)
    assert words(other_unit("fahrenheit", celsius, mild)) == "degrees Celsius"


def test_where_values_are_no_grid_only_the_level_tells():
    rng = np.random.default_rng(12)
    recent_days = [of(rng.normal(1015, 5, 72)) for _ in range(28)]
    today = rng.normal(1015, 5, 72)
    assert words(other_unit("mbar", of(today * 0.02953), recent_days)) == "inches of mercury"
    assert other_unit("mbar", of(today), recent_days) is None
    # A wind that is never the same twice differs more from day to day than miles an hour from knots.
    winds = [of(rng.gamma(2, 5, 72)) for _ in range(28)]
    assert other_unit("mph", of(rng.gamma(2, 5, 72) * 0.868976), winds) is None


def test_a_source_that_rounds_after_it_converts_is_found_out():
    distances = np.array([94, 187, 214, 228, 264, 301, 416, 488, 502, 584, 711, 746, 762, 872, 944, 1065, 1576, 2454.0])
    recent_days = [of(distances) for _ in range(28)]
    assert words(other_unit("miles", of(np.round(distances * 1.609344)), recent_days)) == "kilometres"


def test_a_week_is_needed_and_a_few_values():
    day = of(np.arange(40.0, 60.0))
    assert other_unit("fahrenheit", of(np.arange(4.0, 15.0)), [day] * 6) is None
    assert other_unit("inches", of(np.zeros(72)), [day] * 28) is None


def words(found: Conversion | None) -> str:
    return found.words if found else ""


def of(rows: np.ndarray) -> Values:
    values, counts = np.unique(rows, return_counts=True)
    return Values(values=values, counts=counts)
