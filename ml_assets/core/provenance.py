"""From a row of a feature table to the raw rows that it was made from."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import cast

from ml_assets.core.column_lineage import ColumnLineage
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Parameter, Warehouse

Cell = bool | int | float | str | None
Row = Mapping[str, object]
# More rows than one agree where a station measured the same twice in a day; so many are shown.
_MOST_ROWS = 5


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """One row of a raw table, known by the key of its contract."""

    table: str
    key: Mapping[str, Cell]
    values: Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The rows of one raw table behind a row of a feature table: those that agree with it in the columns ``by``.

    ``n_rows`` is how many agree, at most five of them are in ``rows``. None agreeing means that the raw table holds
    another row by now than the feature was made from.
    """

    table: str
    by: tuple[str, ...]
    n_rows: int
    rows: tuple[RawRow, ...]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What tables are made of.

    Attributes:
        parents: the tables that a table is made from, those of SQL and of Python alike.
        columns: of a table made by SQL, the parents' columns that each of its columns is made from.
        keys: the key of each raw table with a partition per day, by its contract.
    """

    parents: Mapping[str, Sequence[str]]
    columns: Mapping[str, ColumnLineage]
    keys: Mapping[str, Sequence[str]]

    def staging_of(self, table: str) -> Mapping[str, str]:
        """Return the staging tables below a table of SQL, each a row-for-row copy of a raw table, and that raw table.

        What Python made in between ends the descent: only its own code knows which rows went into which.
        """
        found: dict[str, str] = {}
        seen: set[str] = set()
        waiting = [table]
        while waiting:
            one = waiting.pop()
            if one in seen or one not in self.columns:
                continue
            seen.add(one)
            raw = [parent for parent in self.parents.get(one, ()) if parent in self.keys]
            if len(raw) == 1 and len(self.parents[one]) == 1:
                found[one] = raw[0]
            waiting += self.parents.get(one, ())
        return dict(sorted(found.items()))


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Finds raw rows, and asks for each but once."""

    warehouse: Warehouse
    lineage: Lineage
    _known: dict[tuple[str, tuple[tuple[str, object], ...]], Origin] = field(
        default_factory=dict[tuple[str, tuple[tuple[str, object], ...]], Origin], repr=False
    )

    def origins(self, table: str, row: Row) -> tuple[Origin, ...]:
        """Return, for each raw table below a feature table, the rows behind one of its rows.

        A column that two tables of this project both have means the same in both (docs: one word per idea), so that a
        row of a feature table and the staging rows behind it agree in all columns that both have.
        """
        return tuple(self._origins(table, row))

    def _origins(self, table: str, row: Row) -> Iterator[Origin]:
        for staging, raw in self.lineage.staging_of(table).items():
            columns = self.lineage.columns[staging]
            shared = {name: row[name] for name in columns if row.get(name) is not None}
            place = (staging, tuple(shared.items()))
            if place not in self._known:
                self._known[place] = self._find(staging, raw, shared)
            yield self._known[place]

    def _find(self, staging: str, raw: str, shared: Mapping[str, object]) -> Origin:
        found = self._select(staging, shared)
        key = self.lineage.keys[raw]
        # The staging column that a raw column was only renamed to.
        renamed = {
            parents[0][1]: name
            for name, parents in self.lineage.columns[staging].items()
            if len(parents) == 1 and parents[0][0] == raw
        }
        names = [name for name in ("partition_on", *key) if name in renamed]
        rows = [
            RawRow(table=raw, key=cells({n: one[n] for n in names}), values=cells(one))
            for staged in found[:_MOST_ROWS]
            for one in self._select(raw, {name: staged[renamed[name]] for name in names})
        ]
        return Origin(table=raw, by=tuple(shared), n_rows=len(found), rows=tuple(rows))

    def _select(self, table: str, equal: Mapping[str, object]) -> list[dict[str, object]]:
        sql = Sql(dialect=self.warehouse.dialect)
        where = " AND ".join(f"{sql.name(name)} = {sql.parameter(name)}" for name in equal)
        bound = cast("Mapping[str, Parameter]", equal)
        return self.warehouse.query(f"SELECT * FROM {sql.table(table)} WHERE {where}", bound).to_pylist()


def cells(row: Row) -> Mapping[str, Cell]:
    """Return the values of a row as JSON has them: moments and days as ISO text.

    >>> cells({"partition_on": date(2013, 7, 5), "temp": 71.06})
    {'partition_on': '2013-07-05', 'temp': 71.06}
    """
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: object) -> Cell:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
