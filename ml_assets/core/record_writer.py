"""Writing files of coded examples: rows come in batches, and no more than one batch is held in memory."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.encoding import Signature, Vocabulary, codes_of, numbers_of, refuse_absent
from ml_assets.core.record_format import (
    BLOCK_ROWS,
    STORED_AS,
    Kind,
    Layout,
    RecordColumn,
    RecordHeader,
    Storage,
    aligned,
    packed,
    sha256_of,
)

_LARGEST_TABLE = 65536
_BLOCKS_AT_ONCE = 16


@dataclass(kw_only=True)
class _Spooled:
    """One column on its way: its rows so far as 4-byte numbers in a file, and its distinct values unless too many."""

    name: str
    kind: Kind
    n_codes: int
    path: Path
    distinct: pa.Array | None = field(default_factory=lambda: pa.array([], type=pa.int32()))

    def append(self, table: pa.Table, vocabulary: Vocabulary) -> None:
        if self.kind == "categorical":
            bits = codes_of(table, self.name, vocabulary).astype("<i4")
        else:
            bits = np.ascontiguousarray(numbers_of(table, self.name), dtype="<f4").view("<i4")
            if self.distinct is not None:
                both = pa.concat_arrays([self.distinct, pa.array(bits)])
                merged = cast("pa.Array", pc.call_function("unique", [both]))
                self.distinct = merged if len(merged) <= _LARGEST_TABLE else None
        with self.path.open("ab") as spool:
            spool.write(bits.data)

    def column(self, n_rows: int) -> RecordColumn:
        """Return how the column is stored, now that all rows are known."""
        storage, n_values = (
            _storage_of_codes(self.n_codes)
            if self.kind == "categorical"
            else _storage_of_numbers(n_rows, None if self.distinct is None else len(self.distinct))
        )
        return RecordColumn(name=self.name, kind=self.kind, storage=storage, n_values=n_values)

    def stored(self, column: RecordColumn, first: int, last: int) -> np.ndarray:
        """Return rows as the file stores them."""
        bits = np.fromfile(self.path, dtype="<i4", offset=4 * first, count=last - first)
        if column.storage == "float32":
            return bits.view("<f4")
        if column.has_table:
            table = pc.SetLookupOptions(value_set=cast("pa.Array", self.distinct))
            bits = cast("np.ndarray", pc.call_function("index_in", [pa.array(bits)], table).to_numpy())
        return bits.astype(STORED_AS[column.storage])


def write_records(
    path: Path,
    batches: Iterable[pa.Table],
    *,
    signature: Signature,
    vocabulary: Vocabulary,
    source: str,
    coding: str,
    work_folder: Path,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Code batches of examples, with their column ``label``, and write them as one file.

    The rows are spooled below ``work_folder``, four bytes a value, before it is decided how each column is stored; the
    finished file is renamed from there, so it must lie on the same disk. A writer killed at any moment leaves no
    part of a file under ``path``. Batches of about 100,000 rows are cheapest. Raises BadInput as ``encode`` does.
    """
    work_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work_folder) as scratch:
        columns = _columns(signature, vocabulary, Path(scratch))
        n_rows = 0
        for batch in batches:
            refuse_absent(batch, [column.name for column in columns])
            for column in columns if batch.num_rows else ():
                column.append(batch, vocabulary)
            n_rows += batch.num_rows
        header = RecordHeader(
            source=source,
            coding=coding,
            n_rows=n_rows,
            block_rows=block_rows,
            columns=tuple(column.column(n_rows) for column in columns),
            tables_sha256="0" * 64,
            blocks_sha256=("0" * 64,) * -(-n_rows // block_rows),
        )
        finished = Path(scratch) / "finished"
        with finished.open("wb") as file:
            _write(file, header, columns)
            file.flush()
            os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        finished.replace(path)


def _columns(signature: Signature, vocabulary: Vocabulary, folder: Path) -> list[_Spooled]:
    names: dict[Kind, list[str]] = {
        "numeric": [column.name for column in signature.numeric],
        "categorical": [column.name for column in signature.categorical],
        "label": ["label"],
    }
    named: list[tuple[str, Kind]] = [(name, kind) for kind in names for name in names[kind]]
    return [
        _Spooled(
            name=name,
            kind=kind,
            n_codes=vocabulary.cardinality(name) if kind == "categorical" else 0,
            path=folder / f"{position}.spool",
        )
        for position, (name, kind) in enumerate(named)
    ]


def _storage_of_codes(n_codes: int) -> tuple[Storage, int]:
    return ("uint8" if n_codes <= 256 else "uint16" if n_codes <= 65536 else "int32"), n_codes


def _storage_of_numbers(n_rows: int, n_distinct: int | None) -> tuple[Storage, int]:
    """Return the smallest storage; a table is worth its look-ups only where it saves a quarter."""
    tables: tuple[tuple[Storage, int, int], ...] = ("table8", 1, 256), ("table16", 2, _LARGEST_TABLE)
    for storage, width, largest in tables:
        if n_distinct is not None and n_distinct <= largest and width * n_rows + 4 * n_distinct <= 3 * n_rows:
            return storage, n_distinct
    return "float32", 0


def _write(file: IO[bytes], header: RecordHeader, columns: Sequence[_Spooled]) -> None:
    """Write tables and blocks, then the header before them: its length does not depend on what the digests are."""
    start = packed(header)
    layout = Layout(header=header, tables_at=len(start))
    file.write(bytes(len(start)))
    with_table = [column for column, stored in zip(columns, header.columns, strict=True) if stored.has_table]
    tables = b"".join(_filled(cast("pa.Array", column.distinct).to_numpy()) for column in with_table)
    file.write(tables)
    digests: list[str] = []
    step = header.block_rows * _BLOCKS_AT_ONCE
    for first in range(0, header.n_rows, step):
        last = min(first + step, header.n_rows)
        stored = [column.stored(kind, first, last) for column, kind in zip(columns, header.columns, strict=True)]
        for block in range(0, last - first, header.block_rows):
            content = b"".join(_filled(values[block : block + header.block_rows]) for values in stored)
            digests.append(sha256_of(content))
            file.write(content)
    if file.tell() != layout.end:
        raise AssertionError(f"wrote {file.tell()} bytes, the layout has {layout.end}")
    file.seek(0)
    file.write(packed(replace(header, tables_sha256=sha256_of(tables), blocks_sha256=tuple(digests))))


def _filled(values: np.ndarray[Any, Any]) -> bytes:
    """Return values as bytes, zeros up to the next multiple of 64."""
    content = values.tobytes()
    return content.ljust(aligned(len(content)), b"\0")
