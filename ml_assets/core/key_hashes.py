"""A number per row that rows with equal keys share, to find the few rows that may be duplicates among very many."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]

# Odd, so that it has an inverse modulo 2^64: the golden ratio's bits, as splitmix64 has them.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


def key_hashes(rows: pa.Table) -> Hashes:
    """Return 64 bits per row; rows that are equal in every column have equal ones, others hardly ever.

    >>> hashes = key_hashes(pa.table({"carrier": ["UA", "AA", "UA"], "flight": [1, 1, 1]}))
    >>> hashes[0] == hashes[2], hashes[0] == hashes[1]
    (np.True_, np.False_)
    """
    combined = np.zeros(rows.num_rows, np.uint64)
    for name in rows.column_names:
        column = rows[name]
        values = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        combined = _mixed(combined ^ _column(values))
    return combined


def row_hashes(rows: pa.Table) -> Hashes:
    """Return 64 bits per row that also tell a null from any value: what a sum over rows knows their content by.

    >>> n_null, zero = row_hashes(pa.table({"precip": [None, 0.0]}))
    >>> n_null == zero
    np.False_
    """
    combined = key_hashes(rows)
    for number, name in enumerate(rows.column_names):
        if rows[name].null_count:
            is_null = pc.is_null(rows[name]).to_numpy()
            combined[is_null] = _mixed(combined[is_null] + np.uint64(number + 1))
    return combined


def _column(values: pa.Array) -> Hashes:
    """Return a number per value; a null has that of some value, since a clash only costs a closer look."""
    if pa.types.is_floating(values.type):
        # Minus zero equals zero.
        return np.add(pc.fill_null(values.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False), 0.0).view(np.uint64)
    if pa.types.is_boolean(values.type) or pa.types.is_integer(values.type):
        return _integers(values)
    if pa.types.is_temporal(values.type):
        return _integers(values.view(pa.int32() if values.type.bit_width == 32 else pa.int64()))
    return _texts(pc.fill_null(values.cast(pa.large_string()), ""))


def _integers(values: pa.Array) -> Hashes:
    zero = pa.scalar(False if pa.types.is_boolean(values.type) else 0, values.type)
    return pc.fill_null(values, zero).to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)


def _texts(texts: pa.Array) -> Hashes:
    """Return sum((byte + 1) * BASE^place) modulo 2^64 of each text, by differences of one running sum over all."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    content = texts.buffers()[2]
    letters = np.frombuffer(content, np.uint8)[first:last] if content else np.zeros(0, np.uint8)
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum((letters.astype(np.uint64) + 1) * _powers(_BASE, len(letters)), out=sums[1:])
    starts = offsets[:-1] - first
    return (sums[offsets[1:] - first] - sums[starts]) * _powers(_INVERSE, len(letters) + 1)[starts]


def _powers(base: int, n: int) -> Hashes:
    """Return base^0, base^1, ... modulo 2^64, n of them."""
    factors = np.full(n, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


def _mixed(numbers: Hashes) -> Hashes:
    """Return the numbers scrambled, one to one: the last steps of splitmix64 (Steele, Lea and Flood, 2014)."""
    numbers = numbers + np.uint64(_BASE)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
