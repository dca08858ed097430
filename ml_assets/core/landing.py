"""The days of a raw table read from a source and held against their contract, whatever their size.

What fits in memory is checked at once, as ``contract_checks.check`` does it. Of more than that only 8 bytes of every
row stay in memory, 17 for a moment; the rows themselves pass through a file in the work folder. The warehouse is not
touched, and so not locked, before the source has given its last row and the contract is known to be kept.
"""

from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.contract_checks import (
    Checked,
    any_of,
    check,
    contracted,
    day_reasons,
    duplicate_reasons,
    ignored_columns,
    quarantine,
    row_reasons,
)
from ml_assets.core.contracts import QUARANTINE_SCHEMA, Contract
from ml_assets.core.day_tallies import AcceptedDays, SpoiltDays
from ml_assets.core.days import DayRange
from ml_assets.core.key_hashes import Hashes, key_hashes
from ml_assets.core.ports import BatchSource, Rows, Source
from ml_assets.core.spool import Spool

# Judgement: a year of the packaged flights, and any usual day, is checked at once.
_WHOLE_BYTES = 128 * 2**20
_PART_BYTES = 16 * 2**20
_ROWS_COMPARED_AT_ONCE = 500_000


def batches_of(source: Source, table: str, days: DayRange | None) -> Iterator[pa.Table]:
    """Yield the rows of a source in parts where it offers them, else at once."""
    if isinstance(source, BatchSource):
        yield from source.batches(table, days)
    else:
        yield source.read(table, days)


@contextmanager
def landing(
    source: Source, contract: Contract, days: DayRange, *, work_folder: Path, whole_bytes: int = _WHOLE_BYTES
) -> Generator[Checked[Rows]]:
    """Yield the rows of these days as ``check`` parts them, at once where they take at most ``whole_bytes`` in memory.

    Larger ones are streams that can be read once, before the context ends; the rows of a quarantine are then ordered by
    whether they are duplicates, those of a day are the same. Raises as ``check``, and StorageFull where the work
    folder's disk is full.
    """
    ignored: dict[str, None] = {}

    def parts() -> Iterator[pa.Table]:
        for part in batches_of(source, contract.table, days):
            rows = contracted(part, contract)
            ignored.update(dict.fromkeys(ignored_columns(part, contract)))
            yield rows

    coming = _resized(parts())
    read: deque[pa.Table] = deque()
    n_bytes = 0
    while n_bytes <= whole_bytes and (part := next(coming, None)) is not None:
        read.append(part)
        n_bytes += part.nbytes
    if n_bytes <= whole_bytes:
        rows = pa.concat_tables(read) if read else contract.schema.empty_table()
        yield replace(check(rows, contract, days=days), ignored_columns=tuple(ignored))
        return
    with Spool(work_folder, contract.schema) as sound, Spool(work_folder, QUARANTINE_SCHEMA) as refused:
        streamed = _Streamed(contract, days, sound=sound, refused=refused)
        streamed.take(_emptied(read))
        streamed.take(coming)
        yield streamed.checked(ignored_columns=tuple(ignored))


class _Streamed:
    """The parts of a table that does not fit in memory: sound rows and refused ones in a file each.

    Of sound rows it keeps a hash of the key. Only rows that share one are read again and compared.
    """

    def __init__(self, contract: Contract, days: DayRange, *, sound: Spool, refused: Spool) -> None:
        self._contract, self._days = contract, days
        self._sound, self._refused = sound, refused
        self._hashes: list[Hashes] = [np.zeros(0, np.uint64)]
        self._spoilt = SpoiltDays(contract.table)
        self._accepted = AcceptedDays(contract)
        self._n_by_reason = Counter[str]()

    def take(self, parts: Iterator[pa.Table]) -> None:
        """Judge each row by itself, and keep it."""
        for rows in parts:
            reasons = row_reasons(rows, self._contract)
            self._spoilt.add(rows, any_of(reasons), reasons)
            reasons += day_reasons(rows, self._days)
            is_bad = any_of(reasons)
            sound = rows if is_bad is None else rows.filter(pc.invert(is_bad))
            self._refuse(quarantine(rows, reasons, self._contract, self._days))
            self._sound.write(sound)
            self._accepted.add(sound)
            self._hashes.append(key_hashes(sound.select(list(self._contract.key))))

    def checked(self, *, ignored_columns: tuple[str, ...]) -> Checked[Rows]:
        """Judge the days and the keys, of which all rows must be known, and return the verdict with the rows to come.

        Raises ContractBroken where too many rows of a day are bad.
        """
        self._spoilt.refuse()
        is_duplicate = self._is_duplicate()
        return Checked(
            accepted=pa.RecordBatchReader.from_batches(self._contract.schema, self._accepted_batches(is_duplicate)),
            quarantined=pa.RecordBatchReader.from_batches(QUARANTINE_SCHEMA, self._quarantined_batches()),
            n_by_day=self._accepted.n_by_day(self._days),
            state_by_day=self._accepted.states(self._days),
            n_by_reason=self._n_by_reason,
            ignored_columns=ignored_columns,
            warnings=self._accepted.warnings(self._days),
        )

    def _refuse(self, rows: pa.Table) -> None:
        self._refused.write(rows)
        self._n_by_reason.update(cast("list[str]", rows["reason"].to_pylist()))

    def _is_duplicate(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return a boolean per sound row: a later one has the same key. Refuse the rows for which it is True."""
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        is_duplicate = np.zeros(len(hashes), np.bool_)
        for shared in _shared_hashes(hashes):
            numbers: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
            parts: list[pa.Table] = []
            n_before = 0
            for rows in self._sound.tables():
                found = np.flatnonzero(np.isin(hashes[n_before : n_before + rows.num_rows], shared))
                parts.append(rows.take(pa.array(found)))
                numbers.append(found + n_before)
                n_before += rows.num_rows
            rows = pa.concat_tables(parts)
            reasons = duplicate_reasons(rows, self._contract, is_bad=None)
            is_earlier = any_of(reasons)
            if is_earlier is not None:
                self._refuse(quarantine(rows, reasons, self._contract, self._days))
                self._accepted.remove(rows.filter(is_earlier))
                is_duplicate[np.concatenate(numbers)[is_earlier.to_numpy()]] = True
        return is_duplicate

    def _accepted_batches(self, is_duplicate: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[pa.RecordBatch]:
        n_before = 0
        for rows in self._sound.tables():
            to_drop = is_duplicate[n_before : n_before + rows.num_rows]
            n_before += rows.num_rows
            yield from (rows.filter(pa.array(~to_drop)) if to_drop.any() else rows).to_batches()

    def _quarantined_batches(self) -> Iterator[pa.RecordBatch]:
        for rows in self._refused.tables():
            yield from rows.to_batches()


def _resized(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in tables that are neither many nor large; one small table is passed on as it is."""
    kept: list[pa.Table] = []
    n_bytes = 0
    for part in parts:
        n_rows = max(part.num_rows * _PART_BYTES // max(part.nbytes, 1), 1)
        for start in range(0, part.num_rows, n_rows):
            kept.append(part.slice(start, n_rows))
            n_bytes += kept[-1].nbytes
            if n_bytes >= _PART_BYTES:
                yield pa.concat_tables(kept)
                kept, n_bytes = [], 0
    if kept:
        yield pa.concat_tables(kept)


def _emptied(tables: deque[pa.Table]) -> Iterator[pa.Table]:
    """Yield the tables and let go of each."""
    while tables:
        yield tables.popleft()


def _shared_hashes(hashes: Hashes) -> Iterator[Hashes]:
    """Yield the hashes that several rows have, in groups of so few rows that these can be compared in memory.

    All rows of one hash are in one group, whatever its size.
    """
    ordered = np.sort(hashes)
    shared, n_more = np.unique(ordered[1:][ordered[1:] == ordered[:-1]], return_counts=True)
    group = np.cumsum(n_more + 1) // _ROWS_COMPARED_AT_ONCE
    for start in np.unique(group, return_index=True)[1]:
        yield shared[start : np.searchsorted(group, group[start], side="right")]
