"""What the days of a raw table came to, counted part by part: rows, columns without a value, rows that break rules."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.contracts import PARTITION, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import ContractBroken
from ml_assets.core.key_hashes import row_hashes

_DAYS_NAMED_IN_A_WARNING = 5
# Judgement: single bad rows are a sensor's fault or a typing error; a fifth of a day is another kind of table.
_LARGEST_BAD_SHARE = 0.2
_FEWEST_ROWS_JUDGED = 20


class AcceptedDays:
    """How many rows of each day were accepted, in how many of them a column that may be null is, and which they are."""

    def __init__(self, contract: Contract) -> None:
        self._is_partitioned = contract.is_partitioned
        self._optional = [c.name for c in contract.columns if c.nullable and not c.is_sparse]
        self._n_rows = Counter[date | None]()
        self._n_null = Counter[tuple[str, date | None]]()
        self._content: dict[date, int] = {}

    def add(self, rows: pa.Table) -> None:
        """Count these rows too."""
        self._count(rows, 1)

    def remove(self, rows: pa.Table) -> None:
        """Count these rows no longer."""
        self._count(rows, -1)

    def n_by_day(self, days: DayRange | None) -> dict[date, int]:
        """Return the rows of every day of the range, none of an unpartitioned table's."""
        return {day: self._n_rows[day] for day in days.dates} if days else {}

    def states(self, days: DayRange | None) -> dict[date, str]:
        """Return of every day of the range what tells its rows from any others, in whatever order they came."""
        return {day: f"{self._n_rows[day]}-{self._content.get(day, 0):016x}" for day in days.dates} if days else {}

    def warnings(self, days: DayRange | None) -> tuple[str, ...]:
        """Name the days without a row, and the columns without one value on a whole day (or in a whole table)."""
        found = [day for day, n in self._n_rows.items() if n]
        if days is None:
            is_null = [name for name in self._optional if found and self._n_null[name, None] == self._n_rows[None]]
            return tuple(f"{name} is null in every row" for name in is_null) if found else ("the table has no rows",)
        empty = [day for day in days.dates if not self._n_rows[day]]
        warnings = [f"there are no rows on {_named(empty)}"] if empty else []
        for name in self._optional:
            null_days = [day for day in found if day and self._n_null[name, day] == self._n_rows[day]]
            if null_days:
                warnings.append(f"{name} is null in every row of {_named(sorted(null_days))}")
        return tuple(warnings)

    def _count(self, rows: pa.Table, sign: int) -> None:
        names = [name for name in self._optional if rows[name].null_count]
        if not self._is_partitioned:
            self._n_rows[None] += sign * rows.num_rows
            self._n_null.update({(name, None): sign * rows[name].null_count for name in names})
            return
        nulls = pc.CountOptions(mode="only_null")
        counts = rows.group_by(PARTITION, use_threads=False).aggregate(
            [([], "count_all"), *((name, "count", nulls) for name in names)]
        )
        local_days = cast("list[date]", counts[PARTITION].to_pylist())
        for day, n_rows in zip(local_days, cast("list[int]", counts["count_all"].to_pylist()), strict=True):
            self._n_rows[day] += sign * n_rows
        for name in names:
            for day, n in zip(local_days, cast("list[int]", counts[f"{name}_count"].to_pylist()), strict=True):
                self._n_null[name, day] += sign * n
        for day, content in _contents(rows):
            self._content[day] = (self._content.get(day, 0) + sign * content) % 2**64


class SpoiltDays:
    """How many rows of each day break the contract and why, to tell a fault of single rows from one of the source."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._n_rows = Counter[date | None]()
        self._n_bad = Counter[date | None]()
        self._n_by_reason: dict[date | None, Counter[str]] = {}

    def add(
        self, rows: pa.Table, is_bad: pa.ChunkedArray | None, reasons: Sequence[tuple[str, pa.ChunkedArray]]
    ) -> None:
        """Count these rows too: which are bad, and which have each reason."""
        marks = {} if is_bad is None else {"is_bad": is_bad, **dict(reasons)}
        table = rows.select([PARTITION])
        for name, mark in marks.items():
            table = table.append_column(name, mark.cast(pa.int64()))
        counts = table.group_by(PARTITION, use_threads=False).aggregate(
            [([], "count_all"), *((name, "sum") for name in marks)]
        )
        for row in cast("list[dict[str, int]]", counts.to_pylist()):
            day = cast("date | None", row[PARTITION])
            self._n_rows[day] += row["count_all"]
            if marks:
                self._n_bad[day] += row["is_bad_sum"]
                self._n_by_reason.setdefault(day, Counter()).update({why: row[f"{why}_sum"] for why, _ in reasons})

    def refuse(self) -> None:
        """Raise ContractBroken where so many rows of a day are bad that the source itself must have changed."""
        for day in sorted(self._n_rows, key=lambda day: (day is None, day or date.min)):
            n_rows, n_bad = self._n_rows[day], self._n_bad[day]
            if n_rows >= _FEWEST_ROWS_JUDGED and n_bad > _LARGEST_BAD_SHARE * n_rows:
                counts = self._n_by_reason[day]
                why = max(sorted(counts), key=lambda reason: counts[reason])
                raise ContractBroken(
                    f"{self._table}: {n_bad} of the {n_rows} rows of {day} break the contract, mostly because {why}. "
                    "Nothing was written: has the source changed its unit or meaning? "
                    "Correct it, or change its contract",
                    day=day,
                )


def _contents(rows: pa.Table) -> Iterator[tuple[date, int]]:
    """Yield the sum of the hashes of each day's rows, modulo 2^64."""
    local_days = rows[PARTITION].to_numpy()
    order = np.argsort(local_days, kind="stable")
    days, starts = np.unique(local_days[order], return_index=True)
    if len(days):
        sums = np.add.reduceat(row_hashes(rows)[order], starts)
        yield from zip(cast("list[date]", days.astype("datetime64[D]").tolist()), map(int, sums), strict=True)


def _named(days: Sequence[date]) -> str:
    if len(days) <= _DAYS_NAMED_IN_A_WARNING:
        return ", ".join(str(day) for day in days)
    return f"{len(days)} days from {days[0]} to {days[-1]}"
