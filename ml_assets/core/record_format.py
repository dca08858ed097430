"""The file format of coded examples: what is where, and what is checked before a byte of it is believed.

All numbers are little-endian; every byte of a file lies under one of its SHA-256 digests.

    0    8 bytes   ``MLRECORD``
    8    uint32    version, 1
    12   uint32    n, the bytes of the header
    16   32 bytes  SHA-256 of bytes 0 to 16 and 48 to 64 + n
    48   16 bytes  zero
    64   n bytes   the header, a ``RecordHeader`` as JSON, filled up with spaces to a multiple of 64
    then           the tables: for each column that has one, its distinct values, float32
    then           the blocks: for each ``block_rows`` rows (the last has the rest) one column after the other

Each table and each column of a block starts at a multiple of 64. A number is stored as float32, or where that is
smaller as its position in the column's table, one byte or two: whole numbers, hours, measurements and null take few
distinct values, and a look-up gives back the same bits whatever they are. A category is stored as its code.
"""

import hashlib
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np

from ml_assets.core.errors import BadInput

ALIGNMENT = 64
# Judgement: a column of a block (32 KB at most) fits the first cache, a block of 60 columns the second.
BLOCK_ROWS = 8192

Content = bytes | memoryview | mmap.mmap
Kind = Literal["numeric", "categorical", "label"]
Storage = Literal["float32", "table8", "table16", "uint8", "uint16", "int32"]

STORED_AS: Mapping[Storage, np.dtype] = {
    "float32": np.dtype("<f4"),
    "table8": np.dtype("u1"),
    "table16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "int32": np.dtype("<i4"),
}

_MAGIC, _VERSION = b"MLRECORD", 1
_PREAMBLE = struct.Struct("<8sII32s16s")
_KIND_OF: Mapping[Storage, tuple[Kind, ...]] = {
    **dict.fromkeys(("float32", "table8", "table16"), ("numeric", "label")),
    **dict.fromkeys(("uint8", "uint16", "int32"), ("categorical",)),
}
_LARGEST_HEADER_BYTES = 256 * 1024 * 1024
_LARGEST_BLOCK_ROWS = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RecordColumn:
    """One column of a file. ``n_values``: the length of its table, or the number of codes; 0 for float32."""

    name: str
    kind: Kind
    storage: Storage
    n_values: int

    @property
    def has_table(self) -> bool:
        """Whether what is stored are positions in a table of distinct values."""
        return self.storage in ("table8", "table16")


@dataclass(frozen=True, kw_only=True)
class RecordHeader:
    """What a file says of itself: numeric columns, then categorical ones, then the label.

    ``source`` is whose rows these are (a training set's fingerprint and part), ``coding`` stands for the signature, the
    vocabulary and the code that made codes of them.
    """

    source: str
    coding: str
    n_rows: int
    block_rows: int
    columns: tuple[RecordColumn, ...]
    tables_sha256: str
    blocks_sha256: tuple[str, ...]

    def of_kind(self, kind: Kind) -> Sequence[int]:
        """Return the positions of the columns of a kind."""
        return [position for position, column in enumerate(self.columns) if column.kind == kind]

    def rows_of(self, block: int) -> int:
        """Return how many rows a block has."""
        return min(self.block_rows, self.n_rows - block * self.block_rows)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of a file lie, in bytes from its start."""

    header: RecordHeader
    tables_at: int

    @cached_property
    def table_at(self) -> Mapping[int, int]:
        """The start of each table, by the position of its column."""
        starts: dict[int, int] = {}
        at = self.tables_at
        for position, column in enumerate(self.header.columns):
            if column.has_table:
                starts[position] = at
                at += aligned(4 * column.n_values)
        return starts

    @cached_property
    def blocks_at(self) -> int:
        """The start of the first block, where the tables end."""
        tables = [aligned(4 * column.n_values) for column in self.header.columns if column.has_table]
        return self.tables_at + sum(tables)

    @cached_property
    def end(self) -> int:
        """The size of the file."""
        n_full, n_rest = divmod(self.header.n_rows, self.header.block_rows)
        return self.blocks_at + n_full * self.block_bytes(self.header.block_rows) + self.block_bytes(n_rest)

    def block_bytes(self, n_rows: int) -> int:
        """Return the size of a block of so many rows."""
        return sum(aligned(n_rows * STORED_AS[column.storage].itemsize) for column in self.header.columns)

    def block_span(self, block: int) -> tuple[int, int]:
        """Return where a block starts and ends."""
        start = self.blocks_at + block * self.block_bytes(self.header.block_rows)
        return start, start + self.block_bytes(self.header.rows_of(block))

    def column_at(self, block: int) -> Sequence[int]:
        """Return where each column of a block starts."""
        starts: list[int] = []
        at, _ = self.block_span(block)
        for column in self.header.columns:
            starts.append(at)
            at += aligned(self.header.rows_of(block) * STORED_AS[column.storage].itemsize)
        return starts


def aligned(n_bytes: int) -> int:
    """Return the next multiple of 64.

    >>> aligned(0), aligned(1), aligned(64)
    (0, 64, 64)
    """
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def packed(header: RecordHeader) -> bytes:
    """Return the start of a file, up to its tables."""
    document = msgspec.json.encode(header)
    document = document.ljust(aligned(len(document)))
    fields = _MAGIC, _VERSION, len(document)
    digest = _digest_of_start(_PREAMBLE.pack(*fields, b"", b""), document)
    return _PREAMBLE.pack(*fields, digest, b"") + document


def layout_of(content: Content, name: str) -> Layout:
    """Return the layout of a file of this content; BadInput where it is none, or not of the size its header implies.

    Only the header has been checked then: the digests of tables and blocks are the reader's to compare.
    """
    view = memoryview(content)
    if len(view) < _PREAMBLE.size:
        raise damaged(name, f"it has {len(view)} bytes, expected at least {_PREAMBLE.size}")
    magic, version, n_header, digest, _ = _PREAMBLE.unpack(view[: _PREAMBLE.size])
    if magic != _MAGIC or version != _VERSION:
        raise damaged(name, f"it begins with {magic!r} and version {version}; expected {_MAGIC!r}, {_VERSION}")
    tables_at = _PREAMBLE.size + n_header
    if n_header % ALIGNMENT or n_header > _LARGEST_HEADER_BYTES or tables_at > len(view):
        raise damaged(name, f"it has {len(view)} bytes and a header of {n_header}")
    document = bytes(view[_PREAMBLE.size : tables_at])
    if _digest_of_start(bytes(view[: _PREAMBLE.size]), document) != digest:
        raise damaged(name, "its header has another SHA-256 than it says")
    try:
        header = msgspec.json.decode(document, type=RecordHeader)
    except msgspec.DecodeError as error:
        raise damaged(name, f"its header is none: {error}") from error
    if fault := _fault_of(header):
        raise damaged(name, fault)
    layout = Layout(header=header, tables_at=tables_at)
    if layout.end != len(view):
        raise damaged(name, f"it has {len(view)} bytes; its header tells of {layout.end}")
    return layout


def sha256_of(content: Content) -> str:
    """Return the digest of a part of a file, as the header names it."""
    return hashlib.sha256(content).hexdigest()


def damaged(name: str, fault: str) -> BadInput:
    """Return the error for a file that cannot be believed."""
    return BadInput(f"{name} is no whole file of records: {fault}; remove it, it is written again when it is needed")


def _digest_of_start(preamble: bytes, document: bytes) -> bytes:
    return hashlib.sha256(preamble[:16] + preamble[48:] + document).digest()


def _fault_of(header: RecordHeader) -> str:
    """Say what makes a header impossible; empty where nothing does."""
    if header.n_rows < 0 or not 1 <= header.block_rows <= _LARGEST_BLOCK_ROWS:
        return f"its header tells of {header.n_rows} rows in blocks of {header.block_rows}"
    n_blocks = -(-header.n_rows // header.block_rows)
    if len(header.blocks_sha256) != n_blocks:
        return f"its header has the digests of {len(header.blocks_sha256)} blocks, expected {n_blocks}"
    kinds = [column.kind for column in header.columns]
    if kinds != sorted(kinds, key=("numeric", "categorical", "label").index) or kinds.count("label") != 1:
        return f"its columns are {kinds}; expected numeric, then categorical, then one label"
    if len({(column.kind == "label", column.name) for column in header.columns}) != len(kinds):
        return "two of its columns have one name"
    for column in header.columns:
        size = 2 ** (8 * STORED_AS[column.storage].itemsize)
        if column.kind not in _KIND_OF[column.storage] or not (
            column.n_values == 0 if column.storage == "float32" else 0 <= column.n_values <= size
        ):
            return f"its header tells of {column}"
    return ""
