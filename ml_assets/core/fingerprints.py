"""Hashes of tables and declarations that come out the same on any machine."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import Distribution, distributions

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def json_hash(document: object) -> str:
    """Return the sha256 of plain data (dataclasses, dates, tuples, mappings) as JSON with sorted keys.

    >>> json_hash({"b": 1, "a": 2}) == json_hash({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()


def content_hash(table: pa.Table) -> str:
    """Return the sha256 of a table's names, types, nulls and values in row order.

    How the rows are cut into chunks, what lies under a null, and which file they came from make no difference.
    """
    digest = hashlib.sha256(f"{table.num_rows}".encode())
    for name in table.column_names:
        column = table[name]
        digest.update(f"\0{name}\0{column.type}\0".encode())
        digest.update(np.packbits(column.is_valid().to_numpy()).tobytes())
        for block in _value_bytes(column):
            digest.update(block)
    return digest.hexdigest()


def environment_hash(found: Iterable[Distribution] | None = None) -> str:
    """Return the sha256 over the sorted lines ``name==version`` of these distributions; by default of all installed.

    Names are normalised as PyPI does. What is installed from a folder counts by its version alone: what its code says
    is for the code version to tell.
    """
    if found is None:
        return _hash_of_all_installed()
    lines = {f"{re.sub(r'[-_.]+', '-', one.name).lower()}=={one.version}" for one in found}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@cache
def _hash_of_all_installed() -> str:
    # Read once: it takes longer than many a training, and what is imported by then does not change any more.
    return environment_hash(distributions())


def canonical_type(column_type: pa.DataType) -> pa.DataType:
    """Return the one type that stands for all of its kind, so that both SQL dialects give the same content.

    >>> canonical_type(pa.int16()), canonical_type(pa.large_string()), canonical_type(pa.decimal128(18, 3))
    (DataType(int64), DataType(string), DataType(double))
    """
    if pa.types.is_boolean(column_type) or pa.types.is_date(column_type):
        return pa.date32() if pa.types.is_date(column_type) else pa.bool_()
    if pa.types.is_integer(column_type):
        return pa.int64()
    if pa.types.is_floating(column_type) or pa.types.is_decimal(column_type):
        return pa.float64()
    if pa.types.is_timestamp(column_type):
        return pa.timestamp("us", tz="UTC")
    if pa.types.is_string(column_type) or pa.types.is_large_string(column_type) or pa.types.is_dictionary(column_type):
        return pa.string()
    if pa.types.is_null(column_type):
        return pa.float64()
    raise TypeError(f"a column of type {column_type} has no canonical form; expected numbers, text, dates or times")


def _value_bytes(column: pa.ChunkedArray) -> Sequence[bytes | memoryview]:
    if pa.types.is_string(column.type):
        texts = column.fill_null("")
        return [pc.binary_length(texts).to_numpy().astype("<i4").tobytes(), *map(_text_bytes, texts.chunks)]
    if pa.types.is_boolean(column.type):
        return (np.packbits(column.fill_null(False).to_numpy()).tobytes(),)
    if pa.types.is_floating(column.type):
        values = column.fill_null(0.0).to_numpy()
        # All NaN are one value here, whatever their bits.
        return (np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes(),)
    whole = column.cast(pa.int32()).cast(pa.int64()) if pa.types.is_date(column.type) else column.cast(pa.int64())
    return (whole.fill_null(0).to_numpy().astype("<i8").tobytes(),)


def _text_bytes(texts: pa.StringArray) -> bytes | memoryview:
    """Return the UTF-8 of texts without nulls, one after the other, as it lies in memory."""
    _, offsets, data = texts.buffers()
    if data is None or offsets is None or not len(texts):
        return b""
    ends = np.frombuffer(offsets, dtype=np.int32)
    return memoryview(data)[ends[texts.offset] : ends[texts.offset + len(texts)]]
