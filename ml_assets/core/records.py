"""Reading files of coded examples: mapped into memory, checked block by block, whole or in shuffled batches."""

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ml_assets.core.encoding import Coded
from ml_assets.core.errors import BadInput
from ml_assets.core.record_format import STORED_AS, Layout, RecordHeader, damaged, layout_of, sha256_of

# Judgement: quantiles of so many rows are exact to a tenth of a percent of them.
_MOST_ROWS_LOOKED_AT = 1_000_000
# Judgement: what a model computes on the way to the answers of so many rows takes less than their own arrays may.
_MOST_ROWS_ANSWERED = 65_536

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # numbers float32 [n, k], codes int64 [n, m], labels float32 [n]
_Piece = tuple[int, int, int]  # a block, and the first and last + 1 of its rows


class RecordFile:
    """One file of records, open for reading until nothing refers to it.

    A block is compared with its digest when it is first read; BadInput is raised where it differs, so that no value of
    a damaged file is ever used. Nothing is kept of what is read.
    """

    def __init__(self, path: Path) -> None:
        """Map a file; raise BadInput where it is no whole file of records."""
        self._path = path
        if path.is_symlink() or not path.is_file():
            raise BadInput(f"{path} is no plain file; code the training set again")
        with path.open("rb") as file:
            # An empty file cannot be mapped.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
        self._layout = layout_of(self._map, str(path))
        self._is_verified = np.zeros(len(self.header.blocks_sha256), dtype=bool)
        tables = memoryview(self._map)[self._layout.tables_at : self._layout.blocks_at]
        if sha256_of(tables) != self.header.tables_sha256:
            raise damaged(str(path), "its tables have another SHA-256 than it says")
        self._tables = {
            position: np.frombuffer(self._map, "<f4", self.header.columns[position].n_values, start)
            for position, start in self._layout.table_at.items()
        }

    @property
    def header(self) -> RecordHeader:
        """What the file says of itself."""
        return self._layout.header

    @property
    def layout(self) -> Layout:
        """Where its parts lie."""
        return self._layout

    @property
    def content_hash(self) -> str:
        """64 hex digits over the digests of all its rows, to tell it from another without reading it."""
        return sha256_of("".join([self.header.tables_sha256, *self.header.blocks_sha256]).encode())

    @property
    def decoded_bytes(self) -> int:
        """How much memory all rows take as arrays."""
        return self.header.n_rows * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return sum(8 if column.kind == "categorical" else 4 for column in self.header.columns)

    def __len__(self) -> int:
        return self.header.n_rows

    def verify(self) -> None:
        """Compare every block with its digest; raise BadInput where one differs."""
        for block in range(len(self._is_verified)):
            self._verify(block)
            self._release(block)

    def coded(self) -> Coded:
        """Return what a model reads of all rows, in order."""
        numeric, categorical, _ = self._decoded(self._pieces(np.arange(len(self._is_verified)), 0, len(self)))
        return Coded(numeric=numeric, categorical=categorical)

    def labels(self) -> np.ndarray:
        """Return all labels, float32 [n], in order."""
        position = len(self.header.columns) - 1
        labels = np.empty(len(self), dtype=np.float32)
        for block, start, stop, at in _placed(self._pieces(np.arange(len(self._is_verified)), 0, len(self))):
            self._verify(block)
            labels[at : at + stop - start] = self._numbers(block, position)[start:stop]
            self._release(block)
        return labels

    def sampled_numbers(self, n_rows: int, seed: int) -> np.ndarray:
        """Return the numbers of at most so many rows, float32 [n, k], drawn without replacement, in order."""
        draw = np.random.default_rng(seed)
        chosen = np.sort(draw.choice(len(self), size=min(n_rows, len(self)), replace=False, shuffle=False))
        blocks = chosen // self.header.block_rows
        parts = [self._empty(0)[0]]
        for block in map(int, np.unique(blocks)):
            first, last = np.searchsorted(blocks, [block, block + 1])
            rows = chosen[first:last] % self.header.block_rows
            parts.append(self._decoded([(block, 0, self.header.rows_of(block))])[0][rows])
        return np.concatenate(parts)

    def n_batches(self, batch_rows: int, share: tuple[int, int] = (0, 1)) -> int:
        """Return how many batches a pass has; the same for every share."""
        return -(-(len(self) // share[1]) // batch_rows)

    def batches(
        self,
        *,
        batch_rows: int,
        memory_bytes: int,
        is_shuffled: bool,
        seed: int = 0,
        epoch: int = 1,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Rows]:
        """Yield every row once, in batches of ``batch_rows`` (the last has the rest), holding about ``memory_bytes``.

        Shuffled, the blocks come in an order of their own, and the rows are drawn from a buffer of as many blocks as
        fit into the memory: a row can meet only rows of the blocks beside it in the buffer. With a buffer of the whole
        file that is a full permutation. The order depends on ``seed``, ``epoch``, the share and the memory alone.

        ``share`` is (k, n): the k-th of n equally large parts of a pass, up to n - 1 rows being left out of it.
        """
        blocks = np.arange(len(self._is_verified))
        if is_shuffled:
            blocks = np.random.default_rng([seed, epoch]).permutation(blocks)
        rank, n_shares = share
        n_own = len(self) // n_shares
        pieces = self._pieces(blocks, rank * n_own, (rank + 1) * n_own)
        draw = np.random.default_rng([seed, epoch, 1 + rank])
        buffer_rows = max(2 * batch_rows, memory_bytes // self._row_bytes)
        waiting = self._empty(0)
        for filling in _fillings(pieces, buffer_rows - batch_rows + 1):
            buffer = self._decoded(filling, before=waiting)
            n_rows = len(buffer[2])
            order = draw.permutation(n_rows) if is_shuffled else np.arange(n_rows)
            n_ready = n_rows // batch_rows * batch_rows
            for first in range(0, n_ready, batch_rows):
                yield _taken(buffer, order[first : first + batch_rows])
            waiting = _taken(buffer, order[n_ready:])
        if len(waiting[2]):
            yield waiting

    def _pieces(self, blocks: np.ndarray, first: int, last: int) -> Iterator[_Piece]:
        """Yield (block, start, stop) of rows first to last of these blocks laid end to end."""
        at = 0
        for block in map(int, blocks):
            n_rows = self.header.rows_of(block)
            start, stop = max(first - at, 0), min(last - at, n_rows)
            if start < stop:
                yield block, start, stop
            at += n_rows

    def _decoded(self, pieces: Iterable[_Piece], before: Rows | None = None) -> Rows:
        """Return the rows of these pieces after those that are there already."""
        pieces = list(pieces)
        n_before = len(before[2]) if before else 0
        rows = self._empty(n_before + sum(stop - start for _, start, stop in pieces))
        for array, there in zip(rows, before or (), strict=False):
            array[:n_before] = there
        for block, start, stop, at in _placed(pieces):
            self._verify(block)
            self._decode(block, slice(start, stop), rows, n_before + at)
            self._release(block)
        return rows

    def _empty(self, n_rows: int) -> Rows:
        n_numeric, n_categorical = (len(self.header.of_kind(kind)) for kind in ("numeric", "categorical"))
        return (
            np.empty((n_rows, n_numeric), dtype=np.float32),
            np.empty((n_rows, n_categorical), dtype=np.int64),
            np.empty(n_rows, dtype=np.float32),
        )

    def _decode(self, block: int, rows: slice, into: Rows, at: int) -> None:
        """Decode rows of one block into arrays from a row on."""
        numeric, categorical, labels = into
        n_rows = rows.stop - rows.start
        # Column by column, then turned over once: writing single columns of a wide array costs twice as much.
        columns = np.empty((numeric.shape[1], n_rows), dtype=np.float32)
        starts = self._layout.column_at(block)
        for position in self.header.of_kind("numeric"):
            stored = self._stored(block, position, starts[position])[rows]
            if position in self._tables:
                np.take(self._tables[position], stored, out=columns[position], mode="clip")
            else:
                columns[position] = stored
        numeric[at : at + n_rows] = columns.T
        for number, position in enumerate(self.header.of_kind("categorical")):
            categorical[at : at + n_rows, number] = self._stored(block, position, starts[position])[rows]
        labels[at : at + n_rows] = self._numbers(block, len(starts) - 1)[rows]

    def _numbers(self, block: int, position: int) -> np.ndarray:
        stored = self._stored(block, position, self._layout.column_at(block)[position])
        return self._tables[position][stored] if position in self._tables else stored

    def _stored(self, block: int, position: int, start: int) -> np.ndarray:
        column = self.header.columns[position]
        return np.frombuffer(self._map, STORED_AS[column.storage], self.header.rows_of(block), start)

    def _verify(self, block: int) -> None:
        if self._is_verified[block]:
            return
        start, end = self._layout.block_span(block)
        if sha256_of(memoryview(self._map)[start:end]) != self.header.blocks_sha256[block]:
            raise damaged(str(self._path), f"its block {block} has another SHA-256 than it says")
        for position, at in enumerate(self._layout.column_at(block)):
            column = self.header.columns[position]
            if column.storage != "float32" and not _is_below(self._stored(block, position, at), column.n_values):
                raise damaged(str(self._path), f"its column {column.name} has codes beyond {column.n_values - 1}")
        self._is_verified[block] = True

    def _release(self, block: int) -> None:
        """Give the pages of a block back: the system keeps them while there is room, and they do not count as ours."""
        if not isinstance(self._map, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start, end = self._layout.block_span(block)
        start -= start % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


class RecordedInputs(Coded):
    """What a model reads of the rows of a file whose arrays are larger than the memory for them.

    A trainer that reads batches takes them from ``records``, within ``memory_bytes``, and ``answers`` asks a model for
    them so. For any other the arrays are decoded, whole, when one is first asked for, and kept: a trainer of trees, or
    one of segments, needs the memory for them.

    A training set's Arrow tables, which the file is written from and baselines, reference and portable graph are judged
    on, are in memory, whole; the gate of the portable graph codes those of validation and test once more, whole.
    """

    records: RecordFile
    memory_bytes: int

    def __init__(self, records: RecordFile, *, memory_bytes: int) -> None:
        object.__setattr__(self, "records", records)
        object.__setattr__(self, "memory_bytes", memory_bytes)

    def __getattr__(self, name: str) -> np.ndarray:
        """Decode the arrays when they are first asked for; every other attribute is there already."""
        if name not in ("numeric", "categorical"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        whole = self.records.coded()
        object.__setattr__(self, "numeric", whole.numeric)
        object.__setattr__(self, "categorical", whole.categorical)
        return getattr(whole, name)

    def __len__(self) -> int:
        return len(self.records)


def numbers_to_look_at(inputs: Coded) -> np.ndarray:
    """Return the numbers of all rows, float32 [n, k]; of rows drawn at random where memory is not enough for all."""
    if not isinstance(inputs, RecordedInputs):
        return inputs.numeric
    n_rows = len(inputs) * inputs.memory_bytes // inputs.records.decoded_bytes // 4
    return inputs.records.sampled_numbers(min(_MOST_ROWS_LOOKED_AT, max(1, n_rows)), seed=0)


def in_batches(inputs: Coded) -> Iterator[Coded]:
    """Yield the rows in order: at once, or where they are larger than the memory in batches that together fit it."""
    if not isinstance(inputs, RecordedInputs):
        yield inputs
        return
    # Half of the memory for the buffer, a quarter for the batch that is drawn from it.
    n_rows = len(inputs) * inputs.memory_bytes // inputs.records.decoded_bytes // 4
    for numeric, categorical, _ in inputs.records.batches(
        batch_rows=max(1, min(_MOST_ROWS_ANSWERED, n_rows)), memory_bytes=inputs.memory_bytes // 2, is_shuffled=False
    ):
        yield Coded(numeric=numeric, categorical=categorical)


def answers(answer: Callable[[Coded], np.ndarray], inputs: Coded) -> np.ndarray:
    """Return what a model answers for all rows, float64 [n], holding as much of the inputs as there is memory for."""
    return np.concatenate([answer(batch) for batch in in_batches(inputs)])


def codes_that_occur(inputs: Coded) -> Sequence[np.ndarray]:
    """Return the codes of each categorical column that any row has, int64, ascending; within the memory for them."""
    if not isinstance(inputs, RecordedInputs):
        return [np.unique(column) for column in inputs.categorical.T]
    found = [np.empty(0, dtype=np.int64) for _ in inputs.records.header.of_kind("categorical")]
    for _, categorical, _ in inputs.records.batches(
        batch_rows=inputs.records.header.block_rows, memory_bytes=inputs.memory_bytes // 2, is_shuffled=False
    ):
        found = [np.union1d(before, column) for before, column in zip(found, categorical.T, strict=True)]
    return found


def _placed(pieces: Iterable[_Piece]) -> Iterator[tuple[int, int, int, int]]:
    """Yield each piece with the number of rows before it."""
    at = 0
    for block, start, stop in pieces:
        yield block, start, stop, at
        at += stop - start


def _fillings(pieces: Iterator[_Piece], n_rows: int) -> Iterator[list[_Piece]]:
    """Yield lists of pieces of so many rows in all, pieces being cut where one ends; the last list has the rest."""
    filling, n_free = list[_Piece](), n_rows
    for block, start, stop in pieces:
        first = start
        while stop - first >= n_free:
            yield [*filling, (block, first, first + n_free)]
            first += n_free
            filling, n_free = [], n_rows
        if first < stop:
            filling.append((block, first, stop))
            n_free -= stop - first
    if filling:
        yield filling


def _taken(rows: Rows, order: np.ndarray) -> Rows:
    numeric, categorical, labels = rows
    return numeric.take(order, axis=0), categorical.take(order, axis=0), labels.take(order)


def _is_below(codes: np.ndarray, n_values: int) -> bool:
    return not codes.size or (int(codes.min()) >= 0 and int(codes.max()) < n_values)
