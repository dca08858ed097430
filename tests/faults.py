"""Sources with a fault in them: the packaged flights as a broken station, feed or partner would deliver them.

Each wraps any source and changes one thing on the days it is given, so that a test knows exactly what was done. Several
are put around each other for several faults. All other tables and days are passed on untouched.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.contracts import Contract
from ml_assets.core.days import DayRange
from ml_assets.core.ports import Source

Change = Callable[[pa.Table], pa.Table]
_OUTCOMES = ("tailnum", "dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")


@dataclass(frozen=True, kw_only=True)
class FaultySource:
    """The Source port: ``otherwise`` with the rows of some days of some tables changed."""

    otherwise: Source
    changes: Mapping[str, Change]
    days: Collection[date]

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contracts of the source itself: what it promises does not change."""
        return self.otherwise.contracts

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return the rows, changed on the faulty days; the order of the days stays."""
        rows = self.otherwise.read(table, days)
        if table not in self.changes or days is None:
            return rows
        is_faulty = pc.field("partition_on").isin(pa.array([d for d in days.dates if d in self.days], pa.date32()))
        changed = self.changes[table](rows.filter(is_faulty))
        if changed.schema != rows.schema:
            # One delivery has the same columns in all of its rows.
            return self.changes[table](rows) if changed.num_rows else rows
        return pa.concat_tables([rows.filter(~is_faulty), changed])

    def note(self, days: DayRange) -> str:
        """Say where the rows come from."""
        return self.otherwise.note(days)


def silent_sensor(otherwise: Source, days: Collection[date], *, origin: str = "LGA") -> Source:
    """The weather station of one airport sends nothing."""
    return FaultySource(
        otherwise=otherwise, days=days, changes={"weather": lambda rows: rows.filter(pc.field("origin") != origin)}
    )


def empty_readings(otherwise: Source, days: Collection[date], *, column: str, share: float = 1.0) -> Source:
    """A column of the weather is null in the first rows of a day, this share of them."""

    def change(rows: pa.Table) -> pa.Table:
        is_kept = pa.array(np.arange(rows.num_rows) >= round(share * rows.num_rows))
        return replaced(rows, column, pc.if_else(is_kept, rows[column], pa.scalar(None, rows[column].type)))

    return FaultySource(otherwise=otherwise, days=days, changes={"weather": change})


def unit_change(
    otherwise: Source, days: Collection[date], *, table: str, column: str, factor: float, offset: float = 0.0
) -> Source:
    """A column comes in another unit: ``value * factor + offset``."""

    def change(rows: pa.Table) -> pa.Table:
        converted = pc.add(pc.multiply(rows[column].cast(pa.float64()), factor), offset)
        whole = pc.round(converted) if pa.types.is_integer(rows[column].type) else converted
        return replaced(rows, column, whole)

    return FaultySource(otherwise=otherwise, days=days, changes={table: change})


def celsius(otherwise: Source, days: Collection[date]) -> Source:
    """The thermometers of all stations report degrees Celsius."""
    return unit_change(otherwise, days, table="weather", column="temp", factor=5 / 9, offset=-160 / 9)


def new_carrier(otherwise: Source, days: Collection[date], *, old: str, new: str, share: float = 1.0) -> Source:
    """Another airline, which no model has seen, takes over flights of one: those of this share of its numbers."""

    def change(rows: pa.Table) -> pa.Table:
        number = pc.cast(rows["flight"], pa.float64())
        is_taken = pc.less(pc.subtract(number, pc.multiply(pc.floor(pc.divide(number, 10.0)), 10.0)), 10 * share)
        is_taken = pc.and_(pc.equal(rows["carrier"], old), is_taken)
        return replaced(rows, "carrier", pc.if_else(is_taken, new, rows["carrier"]))

    return FaultySource(otherwise=otherwise, days=days, changes={"schedules": change, "flights": change})


def closed_airport(otherwise: Source, days: Collection[date], *, origin: str = "LGA") -> Source:
    """A storm closes one airport: all its flights are cancelled. The rows are right; it is the world that is not."""

    def change(rows: pa.Table) -> pa.Table:
        is_closed = pc.equal(rows["origin"], origin)
        for column in _OUTCOMES:
            rows = replaced(rows, column, pc.if_else(is_closed, pa.scalar(None, rows[column].type), rows[column]))
        return rows

    return FaultySource(otherwise=otherwise, days=days, changes={"flights": change})


def schedule_shift(otherwise: Source, days: Collection[date], *, hours: int) -> Source:
    """A new timetable: every flight that stays on its day is planned this many hours later, and flies later."""

    def change(rows: pa.Table) -> pa.Table:
        clock = pc.add(rows["sched_dep_time"], 100 * hours)
        stays = pc.and_(pc.less(clock, 2400), pc.greater_equal(clock, 0))
        later_at = pc.add(rows["time_hour"], pa.scalar(timedelta(hours=hours), pa.duration("us")))
        rows = replaced(rows, "time_hour", pc.if_else(stays, later_at, rows["time_hour"]))
        rows = replaced(rows, "sched_dep_time", pc.if_else(stays, clock, rows["sched_dep_time"]))
        if "hour" in rows.column_names:
            rows = replaced(rows, "hour", pc.if_else(stays, pc.add(rows["hour"], hours), rows["hour"]))
        if "sched_arr_time" in rows.column_names:
            lands = pc.add(rows["sched_arr_time"], 100 * hours)
            lands = pc.if_else(pc.greater_equal(lands, 2400), pc.subtract(lands, 2400), lands)
            rows = replaced(rows, "sched_arr_time", pc.if_else(stays, lands, rows["sched_arr_time"]))
        return rows

    return FaultySource(otherwise=otherwise, days=days, changes={"schedules": change, "flights": change})


def slow_turn(otherwise: Source, days: Collection[date], *, minutes_a_day: float) -> Source:
    """Delays move from the evening to the morning, little by little: each day by some minutes more than on the last."""
    first = min(days)

    def change(rows: pa.Table) -> pa.Table:
        n_days = np.array([(day - first).days + 1 for day in rows["partition_on"].to_pylist()])
        is_morning = np.array([moment.hour < 16 for moment in rows["time_hour"].to_pylist()])  # noon in New York
        moved = pa.array(np.round(n_days * minutes_a_day) * np.where(is_morning, 1, -1))
        return replaced(rows, "arr_delay", pc.add(rows["arr_delay"].cast(pa.float64()), moved))

    return FaultySource(otherwise=otherwise, days=days, changes={"flights": change})


def duplicated_landing(otherwise: Source, days: Collection[date], *, table: str) -> Source:
    """The partner delivers a day twice in one go: every row has an exact copy."""
    return FaultySource(otherwise=otherwise, days=days, changes={table: lambda rows: pa.concat_tables([rows, rows])})


def contradicted_landing(otherwise: Source, days: Collection[date], *, table: str, column: str) -> Source:
    """The partner delivers a day twice, the second time with other values in a column."""

    def change(rows: pa.Table) -> pa.Table:
        return pa.concat_tables([rows, replaced(rows, column, pc.add(rows[column], 1))])

    return FaultySource(otherwise=otherwise, days=days, changes={table: change})


def half_the_rows(otherwise: Source, days: Collection[date], *, table: str) -> Source:
    """Every other row of a day is lost."""
    return FaultySource(
        otherwise=otherwise, days=days, changes={table: lambda rows: rows.take(pa.array(range(0, rows.num_rows, 2)))}
    )


def cut_off(otherwise: Source, days: Collection[date], *, table: str, hours: int) -> Source:
    """The last hours of a day are missing: the feed stopped."""

    def change(rows: pa.Table) -> pa.Table:
        until = pc.max(rows["time_hour"]).as_py() - timedelta(hours=hours)
        return rows.filter(pc.field("time_hour") <= pa.scalar(until, rows["time_hour"].type))

    return FaultySource(otherwise=otherwise, days=days, changes={table: change})


def late_rows(otherwise: Source, days: Collection[date], *, table: str, share: float) -> Source:
    """Some rows of a day are not there yet; land the day again without this wrapper, and they are."""
    return FaultySource(
        otherwise=otherwise,
        days=days,
        changes={table: lambda rows: rows.slice(0, rows.num_rows - round(share * rows.num_rows))},
    )


def late_labels(otherwise: Source, days: Collection[date]) -> Source:
    """No outcome of any flight of these days is known yet; land them again without this wrapper, and they are."""

    def change(rows: pa.Table) -> pa.Table:
        for column in _OUTCOMES:
            rows = replaced(rows, column, pa.nulls(rows.num_rows, rows[column].type))
        return rows

    return FaultySource(otherwise=otherwise, days=days, changes={"flights": change})


@dataclass(frozen=True, kw_only=True)
class Strays:
    """The Source port: with a day come rows of the day before it that its own delivery had already."""

    otherwise: Source
    table: str
    days: Collection[date]
    share: float

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contracts of the source itself."""
        return self.otherwise.contracts

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return the rows of the days, and of the day before the first."""
        rows = self.otherwise.read(table, days)
        if table != self.table or days is None or days.first not in self.days:
            return rows
        before = days.first - timedelta(days=1)
        strays = self.otherwise.read(table, DayRange(first=before, last=before))
        return pa.concat_tables([rows, strays.slice(0, round(self.share * strays.num_rows))])

    def note(self, days: DayRange) -> str:
        """Say where the rows come from."""
        return self.otherwise.note(days)


def replaced(rows: pa.Table, column: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Return the rows with other values in a column, which keeps its type."""
    return rows.set_column(rows.column_names.index(column), column, values.cast(rows[column].type))


@contextmanager
def delivering(wrap: Callable[[Source], Source]) -> Iterator[None]:
    """Let the packaged source deliver as the wrapped one does, to a graph whose definitions are loaded already."""
    read, is_inside = NycFlights13Source.read, False

    def read_through(source: NycFlights13Source, table: str, days: DayRange | None = None) -> pa.Table:
        nonlocal is_inside
        if is_inside:
            return read(source, table, days)
        is_inside = True
        try:
            return wrap(source).read(table, days)
        finally:
            is_inside = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NycFlights13Source, "read", read_through)
        yield
