"""What the rows of each day come to, column by column, computed where they lie: counts in fixed bins and moments.

The rows never leave the warehouse. Each column is read once: numbers together in one statement, categories together in
another, in parts of at most 100 columns, so that a statement stays small however wide a table is. What comes back is a
few numbers for each day and bin, and of a category one row for each value that a day has.

DuckDB counts with ``histogram``, and groups each category by itself, which its dictionaries make cheap. BigQuery, which
has no histogram and bills a table each time that it is named, turns the numbers into rows and groups them by
``RANGE_BUCKET``, and the categories by ``GROUPING SETS``. Both mean what ``Bins.index`` means: bins closed on the
right, null and NaN missing.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.errors import DataMissing
from ml_assets.core.moments import LARGEST, UNKNOWN, Moments, moments_of, moments_of_sums
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Parameter, Warehouse
from ml_assets.core.reference import Bins, to_numbers

Counts = npt.NDArray[np.int64]
_OfDay = tuple[float | None, float | None, float | None, float | None]

# Judgement: DuckDB plans a statement of 100 columns in about 0.1 CPU s, and a day's result has one row.
_COLUMNS_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class ColumnStatistics:
    """One column of one day.

    Attributes:
        counts: its rows in each of the fixed bins, shape (bins,), int64.
        moments: of the numbers among its values; all null for a category.
        unseen: the categories that training never showed, the most frequent first, equally frequent ones by name.
    """

    counts: Counts
    moments: Moments = UNKNOWN
    unseen: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """How many rows the day has, missing values included."""
        return int(self.counts.sum())


def column_statistics(
    warehouse: Warehouse, table: str, columns: Sequence[Bins], days: DayRange
) -> Mapping[date, Mapping[str, ColumnStatistics]]:
    """Return the statistics of these columns on each of the days that has rows, by day and column.

    Args:
        warehouse: where the rows are.
        table: a partitioned table that has the columns.
        columns: the fixed bins by which each is counted.
        days: local days.

    Raises DataMissing where there is no such table, or where it lacks one of the columns.
    """
    types = warehouse.columns(table)
    if types is None:
        raise DataMissing(f"there is no table {table}; materialize the asset that writes it first")
    if lacking := sorted({bins.feature for bins in columns} - set(types)):
        raise DataMissing(f"{table} lacks the columns {lacking} that the model reads; materialize its days again")
    asked = _Asked(warehouse=warehouse, table=table, types=types, days=days)
    for part in _parts([bins for bins in columns if bins.kind != "categorical"]):
        asked.numbers(part)
    for part in _parts([bins for bins in columns if bins.kind == "categorical"]):
        asked.categories(part)
    order = [bins.feature for bins in columns]
    return {day: {name: found[name] for name in order} for day, found in sorted(asked.found.items())}


def statistics_of(bins: Bins, values: pa.ChunkedArray | pa.Array) -> ColumnStatistics:
    """Return the statistics of values at hand: what the warehouse computes, by numpy."""
    index = bins.index(values)
    counts = np.bincount(index, minlength=len(bins.shares)).astype(np.int64)
    if bins.kind != "categorical":
        return ColumnStatistics(counts=counts, moments=moments_of(to_numbers(values)))
    unseen = pc.value_counts(values.filter(pa.array(index == len(bins.shares) - 2)).cast(pa.string())).to_pylist()
    by_name = {cast("str", row["values"]): cast("int", row["counts"]) for row in unseen}
    return ColumnStatistics(counts=counts, unseen=_most_frequent_first(by_name))


def numbers_query(
    sql: Sql, table: str, columns: Sequence[Bins], types: Mapping[str, str], *, is_guarded: bool = True
) -> str:
    """Return the statement that counts numbers in their bins, with their moments, for each day.

    On DuckDB one row a day; on BigQuery one for each day, column and bin. Unguarded, DuckDB takes a column to hold
    neither NaN nor infinity nor anything beyond 1e100, which the minimum and the maximum then show: half of the cost.
    """
    numbers = [(_as_number(sql, bins.feature, types), bins) for bins in columns]
    if sql.is_duckdb:
        taken = ", ".join(_taken(i, x, bins, is_guarded=is_guarded) for i, (x, bins) in enumerate(numbers))
        cells = _in_columns(columns, is_guarded=is_guarded)
        rows = _rows(sql, table, taken)
        return f"SELECT _day, COUNT(*) AS n_rows, {cells} FROM ({rows}) GROUP BY _day"  # noqa: S608 - validated names
    rows = _rows(sql, table, ", ".join(f"{x} AS _c{i}" for i, (x, _) in enumerate(numbers)))
    cells = ", ".join(_as_row(i, bins) for i, bins in enumerate(columns))
    return (
        "SELECT _day, c.k, c.bin, COUNT(*) AS n, COUNT(c.x) AS n_finite, MIN(c.x) AS low, MAX(c.x) AS high, "  # noqa: S608
        "SUM(c.x - c.origin) AS total, SUM((c.x - c.origin) * (c.x - c.origin)) AS squares "
        f"FROM ({rows}), UNNEST([{cells}]) AS c GROUP BY _day, c.k, c.bin"
    )


def categories_query(sql: Sql, table: str, columns: Sequence[Bins], *, is_one_day: bool = False) -> str:
    """Return the statement that counts each value of each category, and all rows, for each day.

    One row for each day, column ``k`` and value. The rows without a value count missing ones; the largest of a day
    counts the day itself. Of one day, DuckDB groups by the value alone, which costs 0.6 times as much.
    """
    values = [sql.text(_named(sql, bins.feature)) for bins in columns]
    if sql.is_duckdb:
        day, keys = ("ANY_VALUE(_day) AS _day", "value") if is_one_day else ("_day", "_day, value")
        rows = [_rows(sql, table, f"{value} AS value") for value in values]
        counts = [
            f"SELECT {day}, {i} AS k, value, COUNT(*) AS n FROM ({of_column}) GROUP BY {keys}"  # noqa: S608
            for i, of_column in enumerate(rows)
        ]
        n_rows = f"SELECT _day, NULL, NULL, COUNT(*) FROM ({_rows(sql, table, 'NULL')}) GROUP BY _day"  # noqa: S608
        return " UNION ALL ".join([*counts, n_rows])
    names = [f"_c{i}" for i in range(len(columns))]
    which = " ".join(f"WHEN {c} IS NOT NULL THEN {i}" for i, c in enumerate(names))
    value = names[0] if len(names) == 1 else f"COALESCE({', '.join(names)})"
    taken = ", ".join(f"{value} AS {c}" for value, c in zip(values, names, strict=True))
    return (
        f"SELECT _day, CASE {which} END AS k, {value} AS value, COUNT(*) AS n "  # noqa: S608 - validated names
        f"FROM ({_rows(sql, table, taken)}) "
        f"GROUP BY GROUPING SETS ((_day), {', '.join(f'(_day, {c})' for c in names)})"
    )


def _parts(columns: Sequence[Bins]) -> Iterator[Sequence[Bins]]:
    for start in range(0, len(columns), _COLUMNS_AT_ONCE):
        yield columns[start : start + _COLUMNS_AT_ONCE]


def _rows(sql: Sql, table: str, columns: str) -> str:
    return (
        f"SELECT _rows.partition_on AS _day, {columns} FROM {sql.table(table)} AS _rows "  # noqa: S608 - validated names
        f"WHERE {sql.of_days(of='_rows')}"
    )


def _named(sql: Sql, column: str) -> str:
    # Without an alias, BigQuery takes a column that is called as its table is for the whole row.
    return f"_rows.{sql.name(column)}"


def _as_number(sql: Sql, column: str, types: Mapping[str, str]) -> str:
    name = _named(sql, column)
    # BigQuery makes no number of a truth value but by way of a whole one.
    is_boolean = types[column].upper() in ("BOOL", "BOOLEAN")
    return sql.double(f"CAST({name} AS INT64)" if is_boolean and not sql.is_duckdb else name)


def _taken(i: int, x: str, bins: Bins, *, is_guarded: bool) -> str:
    """Return what DuckDB takes of one number: itself, and its distance from the origin; guarded, null where not finite.

    Edges and origin are cast from text, which is exact; of a literal DuckDB would make a decimal first.
    """
    origin = f"CAST('{_origin(bins)!r}' AS DOUBLE)"
    if not is_guarded:
        return f"{x} AS _c{i}, {x} - {origin} AS _d{i}"
    finite = f"CASE WHEN abs({x}) < {LARGEST!r} THEN {x} END"
    return f"CASE WHEN NOT isnan({x}) THEN {x} END AS _c{i}, {finite} AS _f{i}, {finite} - {origin} AS _d{i}"


def _in_columns(columns: Sequence[Bins], *, is_guarded: bool) -> str:
    """Return the cells of DuckDB's row: of each column a list of counts, and what its moments are made of.

    What is the same for all columns is said once, for all whose name matches: of many columns, and of one day's rows,
    DuckDB would spend more time reading the statement than the table.
    """
    counts = list[str]()
    for i, bins in enumerate(columns):
        edges = ", ".join(repr(edge) for edge in (*bins.edges, math.inf))
        counts.append(f"map_values(histogram(_c{i}, CAST('[{edges}]' AS DOUBLE[]))) AS counts{i}")
    # Unguarded, every number that is there is finite, and the histogram has counted it.
    finite = r"COLUMNS('_f(\d+)')" if is_guarded else r"COLUMNS('_c(\d+)')"
    distance = r"COLUMNS('_d(\d+)')"
    n_finite = [rf"COUNT({finite}) AS 'finite\1'"] if is_guarded else []
    sums = [
        rf"MIN({finite}) AS 'low\1'",
        rf"MAX({finite}) AS 'high\1'",
        rf"SUM({distance}) AS 'total\1'",
        rf"SUM({distance} * {distance}) AS 'squares\1'",
    ]
    return ", ".join([*counts, *n_finite, *sums])


def _as_row(i: int, bins: Bins) -> str:
    """Return one column as a row of BigQuery's UNNEST: its bin, null where missing, and its number, null if not finite.

    RANGE_BUCKET counts the bounds that are at most the value; the edges that lie under it are those of which the next
    float is.
    """
    x = f"_c{i}"
    bounds = ", ".join(repr(float(np.nextafter(edge, math.inf))) for edge in bins.edges)
    bucket = f"RANGE_BUCKET({x}, [{bounds}])" if bins.edges else "0"
    return (
        f"STRUCT({i} AS k, CASE WHEN NOT IS_NAN({x}) THEN {bucket} END AS bin, "
        f"CASE WHEN ABS({x}) < {LARGEST!r} THEN {x} END AS x, CAST('{_origin(bins)!r}' AS FLOAT64) AS origin)"
    )


def _origin(bins: Bins) -> float:
    """Return a number in the middle of the training values: sums of small numbers lose no digits."""
    if bins.mean is not None:
        return bins.mean
    return bins.edges[len(bins.edges) // 2] if bins.edges else 0.0


class _Bin(NamedTuple):
    """What the numbers of one bin add up to; the last four are null where none of them is finite."""

    place: int | None
    n: int
    n_finite: int
    low: float
    high: float
    total: float
    squares: float


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The statements sent for a table and what they found, by day and column."""

    warehouse: Warehouse
    table: str
    types: Mapping[str, str]
    days: DayRange
    found: dict[date, dict[str, ColumnStatistics]] = field(default_factory=dict[date, dict[str, ColumnStatistics]])

    def numbers(self, columns: Sequence[Bins]) -> None:
        """Ask for numbers; on DuckDB again, guarded, for those of which a day has NaN, infinity or a giant."""
        if self.warehouse.dialect == "bigquery":
            return self._numbers_by_bin(columns)
        odd = self._numbers_by_day(columns, is_guarded=False)
        if odd:
            self._numbers_by_day(odd, is_guarded=True)
        return None

    def categories(self, columns: Sequence[Bins]) -> None:
        """Ask for categories."""
        rows = self._ask(categories_query(self._sql, self.table, columns, is_one_day=self.days.first == self.days.last))
        n_rows = dict[date, int]()
        values = dict[date, list[dict[str, int]]]()
        columns_of_rows = (rows[name].to_pylist() for name in ("_day", "k", "value", "n"))
        for day, k, value, n in cast(
            "Iterator[tuple[date, int | None, str | None, int]]", zip(*columns_of_rows, strict=True)
        ):
            if k is None or value is None:
                n_rows[day] = max(n, n_rows.get(day, 0))
            else:
                values.setdefault(day, [{} for _ in columns])[k][value] = n
        # The place of every value that training showed, once and not for each day.
        places = [_places(bins) for bins in columns]
        for day, n in n_rows.items():
            for bins, place, counted in zip(columns, places, values.get(day, [{}] * len(columns)), strict=True):
                self._keep(day, bins, _of_values(bins, place, counted, n))

    def _numbers_by_day(self, columns: Sequence[Bins], *, is_guarded: bool) -> Sequence[Bins]:
        """Read one row for each day; return the columns whose values the unguarded statement does not count right."""
        rows = self._ask(numbers_query(self._sql, self.table, columns, self.types, is_guarded=is_guarded))
        local_days = cast("list[date]", rows["_day"].to_pylist())
        n_rows = cast("list[int]", rows["n_rows"].to_pylist())
        odd: list[Bins] = []
        for i, bins in enumerate(columns):
            of_column = [rows[f"{name}{i}"].to_pylist() for name in ("counts", "low", "high", "total", "squares")]
            finite = rows[f"finite{i}"].to_pylist() if is_guarded else [None] * len(n_rows)
            for day, n, n_finite, counts, *sums in zip(local_days, n_rows, finite, *of_column, strict=True):
                low, high, total, squares = cast("_OfDay", tuple(sums))
                if (
                    low is not None and high is not None and not (low > -LARGEST and high < LARGEST)
                ):  # of NaN neither holds
                    odd.append(bins)
                    break
                present = np.zeros(len(bins.shares), np.int64)
                present[:-1] = counts or 0
                present[-1] = n - present.sum()
                if n_finite is None:
                    n_finite = int(present[:-1].sum())
                moments = moments_of_sums(n_finite, low, high, total, squares, origin=_origin(bins))
                self._keep(day, bins, ColumnStatistics(counts=present, moments=moments))
        return odd

    def _numbers_by_bin(self, columns: Sequence[Bins]) -> None:
        """Put together the bins of each column of each day."""
        names = ("_day", "k", "bin", "n", "n_finite", "low", "high", "total", "squares")
        rows = self._ask(numbers_query(self._sql, self.table, columns, self.types)).select(names)
        # In a fixed order, although the moments are rounded to the digits that no order changes.
        rows = rows.sort_by([(name, "ascending") for name in names[:3]])
        cells = dict[tuple[date, int], list[_Bin]]()
        for values in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            day, k, *cell = values
            cells.setdefault((day, k), []).append(_Bin(*cell))
        for (day, k), of_column in cells.items():
            counts = np.zeros(len(columns[k].shares), np.int64)
            for cell in of_column:
                counts[-1 if cell.place is None else cell.place] += cell.n
            finite = [cell for cell in of_column if cell.n_finite]
            moments = moments_of_sums(
                sum(cell.n_finite for cell in finite),
                min((cell.low for cell in finite), default=None),
                max((cell.high for cell in finite), default=None),
                sum(cell.total for cell in finite),
                sum(cell.squares for cell in finite),
                origin=_origin(columns[k]),
            )
            self._keep(day, columns[k], ColumnStatistics(counts=counts, moments=moments))

    @property
    def _sql(self) -> Sql:
        return Sql(dialect=self.warehouse.dialect)

    def _ask(self, statement: str) -> pa.Table:
        bounds: Mapping[str, Parameter] = {"first_day": self.days.first, "last_day": self.days.last}
        return self.warehouse.query(statement, bounds)

    def _keep(self, day: date, bins: Bins, statistics: ColumnStatistics) -> None:
        self.found.setdefault(day, {})[bins.feature] = statistics


def _places(bins: Bins) -> Mapping[str, int]:
    places = {name: place for place, name in enumerate(bins.categories)}
    return places | dict.fromkeys(bins.other_categories, len(bins.categories))


def _of_values(bins: Bins, places: Mapping[str, int], counted: Mapping[str, int], n_rows: int) -> ColumnStatistics:
    counts = np.zeros(len(bins.shares), np.int64)
    unseen = dict[str, int]()
    for value, n in counted.items():
        place = places.get(value)
        if place is None:
            unseen[value] = n
        else:
            counts[place] += n
    counts[-2] = sum(unseen.values())
    counts[-1] = n_rows - counts.sum()
    return ColumnStatistics(counts=counts, unseen=_most_frequent_first(unseen))


def _most_frequent_first(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))
