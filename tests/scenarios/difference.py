"""What differs between two homes: every stored table row by row, every artifact byte by byte.

Of a run that goes otherwise it is the whole of the truth: a test that names all of it has shown that nothing else
happened. Left out is only who wrote a row and when, and what a step took.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatch
from functools import cached_property

import duckdb

from tests.conftest import Home

# What a row is about, beside its day: two rows of the same are one row that says something else. Of a table that is
# not named, two rows are the same or have nothing to do with each other.
_SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "examples.*": ("decision_id",),
    "predictions.*_shadow": ("decision_id", "role"),
    "predictions.*": ("decision_id",),
    "labels.*": ("decision_id",),
    "raw.*_landings": (),
    "monitoring.drift": ("feature",),
    "monitoring.performance": (),
    "monitoring.slice_performance": ("slice", "value"),
    "monitoring.estimated_performance": ("metric",),
    "monitoring.shadow_performance": ("role",),
    "monitoring.alarms": ("kind", "subject"),
    "monitoring.retraining_decisions": (),
    "monitoring.data_quality": ("table_name", "check_name", "column_name"),
    "replay.days": (),
}
_BY_RUN = {"run_id", "predicted_at"}
_LEFT_OUT_TABLES = {"replay.costs"}


@dataclass(frozen=True, kw_only=True)
class RowDiffers:
    """One row that is not the same in both homes: None where one of them has none."""

    table: str
    day: date | None
    subject: tuple[object, ...]
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None

    @property
    def columns(self) -> frozenset[str]:
        """Which columns have another value; none where the row is on one side alone."""
        if self.before is None or self.after is None:
            return frozenset()
        return frozenset(name for name, value in self.before.items() if self.after[name] != value)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """All that differs between two homes."""

    rows: Sequence[RowDiffers]
    files: frozenset[str]

    @cached_property
    def days(self) -> Mapping[str, set[date]]:
        """The days on which each table differs; a table that does not is absent."""
        found: dict[str, set[date]] = {}
        for row in self.rows:
            found.setdefault(row.table, set()).update([row.day] if row.day else [])
        return found

    def tables(self, *patterns: str) -> set[str]:
        """Return which of these tables differ: of all unless some are named."""
        return {table for table in self.days for pattern in patterns or ("*",) if fnmatch(table, pattern)}

    def days_of(self, *patterns: str) -> set[date]:
        """Return the days on which any of these tables differs."""
        return {day for table in self.tables(*patterns) for day in self.days[table]}

    def of(self, table: str, day: date | None = None) -> list[RowDiffers]:
        """Return the rows of a table that differ, on one day or on all."""
        return [row for row in self.rows if row.table == table and day in (None, row.day)]

    def columns(self, table: str) -> set[str]:
        """Return which columns of a table have another value in any row that is in both homes."""
        return {name for row in self.of(table) for name in row.columns}

    @property
    def faults(self) -> set[tuple[object, ...]]:
        """What was found in raw days and not in the twin's: day, table, check, column and severity."""
        found = (row for row in self.of("monitoring.data_quality") if row.after and row.after["severity"])
        return {(row.day, *row.subject, row.after["severity"]) for row in found if row.after}

    @property
    def alarms(self) -> set[tuple[object, ...]]:
        """Alarms that stand in one home alone, or are another's severity: day, kind, subject, severity (None: gone)."""
        found = [
            row for row in self.of("monitoring.alarms") if None in (row.before, row.after) or "severity" in row.columns
        ]
        return {(row.day, *row.subject, row.after["severity"] if row.after else None) for row in found}

    @property
    def decisions(self) -> Mapping[date | None, object]:
        """What was decided otherwise about retraining, by day; None where nothing was."""
        found = self.of("monitoring.retraining_decisions")
        is_other = (row for row in found if None in (row.before, row.after) or "decision" in row.columns)
        return {row.day: row.after["decision"] if row.after else None for row in is_other}

    def words(self, table: str, *subject: object) -> str:
        """Return how the rows about something explain themselves, one line each."""
        rows = (row.after for row in self.of(table) if row.after and row.subject == subject)
        return "\n".join(str(row["explanation"]) for row in rows)


def difference(one: Home, other: Home) -> Difference:
    """Compare two homes of the same beginning."""
    with duckdb.connect(str(other.path / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach '{one.path / 'warehouse.duckdb'}' as one (read_only)")
        ours = connection.execute("select current_database()").fetchall()[0][0]
        names = {catalog: _tables(connection, catalog) for catalog in ("one", ours)}
        rows = [row for name in names[ours] if name in names["one"] for row in _differing(connection, ours, name)]
        for catalog in names:
            rows += [
                RowDiffers(table=name, day=None, subject=("the whole table",), before=None, after=None)
                for name in names[catalog]
                if any(name not in others for others in names.values())
            ]
    files = one.files(), other.files()
    changed = {path for path in {*files[0], *files[1]} if files[0].get(path) != files[1].get(path)}
    return Difference(rows=rows, files=frozenset(changed))


def _tables(connection: duckdb.DuckDBPyConnection, catalog: str) -> list[str]:
    found = f"select schema_name || '.' || table_name from duckdb_tables() where database_name = '{catalog}' order by 1"
    return [name for (name,) in connection.execute(found).fetchall() if name not in _LEFT_OUT_TABLES]


def _differing(connection: duckdb.DuckDBPyConnection, ours: str, table: str) -> Iterable[RowDiffers]:
    columns = [name for name, *_ in connection.execute(f"describe {ours}.{table}").fetchall() if name not in _BY_RUN]
    listed = ", ".join(f'"{name}"' for name in columns)
    sides = {"before": f"select {listed} from one.{table}", "after": f"select {listed} from {ours}.{table}"}
    if _digest(connection, sides["before"]) == _digest(connection, sides["after"]):
        return
    lacking, added = (
        connection.sql(f"{sides[here]} except all {sides[there]}").to_arrow_table().to_pylist()
        for here, there in (("before", "after"), ("after", "before"))
    )
    keys = next((keys for name, keys in _SUBJECTS.items() if fnmatch(table, name)), None)
    before, after = ({_subject(row, keys, place): row for place, row in enumerate(rows)} for rows in (lacking, added))
    assert len(before) + len(after) == len(lacking) + len(added), f"{table} has several rows of one subject"
    for key in sorted({*before, *after} if keys is not None else {}, key=repr):
        one, other = before.get(key), after.get(key)
        yield RowDiffers(table=table, day=_day(one or other or {}), subject=key[1:], before=one, after=other)
    if keys is None:
        yield from (RowDiffers(table=table, day=_day(row), subject=(), before=row, after=None) for row in lacking)
        yield from (RowDiffers(table=table, day=_day(row), subject=(), before=None, after=row) for row in added)


def _digest(connection: duckdb.DuckDBPyConnection, rows: str) -> list[tuple[object, ...]]:
    """Return what tells rows from any others, in whatever order they are, cheaper than comparing them."""
    return connection.sql(f"select count(*), sum(hash(r)::hugeint) from ({rows}) r").fetchall()


def _subject(row: Mapping[str, object], keys: Sequence[str] | None, place: int) -> tuple[object, ...]:
    return (_day(row), *([place] if keys is None else [row[key] for key in keys]))


def _day(row: Mapping[str, object]) -> date | None:
    day = row.get("partition_on")
    return day if isinstance(day, date) else None
