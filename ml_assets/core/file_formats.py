"""Parquet, CSV and JSON lines as Arrow batches of a contract's types; what does not fit is named by file and column."""

import csv as text_csv
import io
import json as text_json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, json, parquet

from ml_assets.core.contracts import PARTITION, Contract, leaving_out
from ml_assets.core.errors import ContractBroken, HalfWritten

_ROWS = 65_536
_CONVERSION_ERROR = r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to \S.*?: (.*)"
_BLOCK = 8 << 20  # bytes of text that are parsed at once; a line must fit into it
_READERS: dict[tuple[str, ...], str] = {
    (".parquet",): "parquet",
    (".csv",): "csv",
    (".jsonl", ".ndjson", ".json"): "json",
}

Batches = Iterator[pa.RecordBatch]
_Read = Iterator[tuple[pa.RecordBatch, Sequence[str]]]  # each with all columns that the file has


def format_of(path: str) -> str | None:
    """Return parquet, csv or json (one object per line) as the name says, or None for anything else.

    >>> format_of("part-0.snappy.parquet"), format_of("2013-07-01.csv.gz"), format_of("readme.txt")
    ('parquet', 'csv', None)
    """
    name = path.lower().removesuffix(".gz")
    return next((kind for endings, kind in _READERS.items() if name.endswith(endings)), None)


def read_batches(
    content: IO[bytes], contract: Contract, *, name: str, day: date | None, nulls: tuple[str, ...] = ("",)
) -> Batches:
    """Yield the rows of one file, unpacked and seekable, with the contract's columns, types and order.

    ``name`` is what errors call the file, and its ending tells the format. The rows of a dated table are of ``day``: a
    row without ``partition_on`` gets it, one that says another day is refused. ``nulls`` are the texts
    that mean null in CSV, quoted or not; in JSON lines a field that is absent is null. Timestamps in text need a zone.

    Columns that the contract does not have are left out, and named as ``contracts.left_out_of`` finds them; of JSON
    lines, those of the first. Integers, floats, texts, dates and timestamps may be stored
    in another width or unit as long as no value changes. Raises ContractBroken where a column is missing or does not
    fit, HalfWritten where the file ends too early.
    """
    read = {"parquet": _parquet, "csv": partial(_csv, nulls=nulls), "json": _json}[format_of(name) or ""]
    for batch, found in read(content, contract, name):
        typed = _of_contract(batch, contract, name, day)
        schema = leaving_out(contract.schema, (column for column in found if column not in contract.schema.names))
        yield typed.replace_schema_metadata(schema.metadata)


def _parquet(content: IO[bytes], contract: Contract, name: str) -> _Read:
    try:
        file = parquet.ParquetFile(content, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise HalfWritten(f"{name} is no whole Parquet file: {_line(error)}; write it again") from error
    found = {field.name: field.type for field in file.schema_arrow}
    _refuse_missing(contract, list(found), name)
    for column in contract.columns:
        if column.name in found and not _is_same_kind(found[column.name], column.type):
            raise _drift(name, column.name, str(found[column.name]), column.type)
    wanted = [column.name for column in contract.columns if column.name in found]
    try:
        yield from ((batch, list(found)) for batch in file.iter_batches(batch_size=_ROWS, columns=wanted))
    except (pa.ArrowInvalid, OSError) as error:
        raise HalfWritten(f"{name} cannot be read to its end: {_line(error)}; write it again") from error


def _csv(content: IO[bytes], contract: Contract, name: str, *, nulls: tuple[str, ...]) -> _Read:
    header = _header(content, name)
    if len(set(header)) < len(header):
        raise ContractBroken(f"{name}: two columns have one name: {', '.join(header)}; give each its own")
    _refuse_missing(contract, header, name)
    if not name.lower().endswith(".gz") and not _ends_with_a_line(content):
        raise HalfWritten(f"{name}: the last line does not end: is it half written? End every line with a line break")
    types = {column.name: column.type for column in contract.columns if column.name in header}
    convert = csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=list(nulls), strings_can_be_null=True
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    try:
        read = csv.open_csv(content, csv.ReadOptions(block_size=_BLOCK), parse, convert)
        yield from ((batch, header) for batch in read)
    except pa.ArrowInvalid as error:
        # On a machine of one core, the row is named too.
        place = re.search(_CONVERSION_ERROR, str(error), re.DOTALL)
        if place is None:
            raise HalfWritten(
                f"{name} is no CSV of {len(header)} columns: {_line(error)}; was it cut off? Write it again"
            ) from error
        column = header[int(place[1])]
        raise _drift(name, column, place[2].partition(". If")[0], types[column]) from error


def _json(content: IO[bytes], contract: Contract, name: str) -> _Read:
    # Dates and moments come as text; casting them says which text is wrong, which the parser does not.
    wire = pa.schema([(c.name, pa.string() if pa.types.is_temporal(c.type) else c.type) for c in contract.columns])
    found = _first_fields(content)
    try:
        yield from ((batch, found) for batch in _json_batches(content, wire))
    except pa.ArrowInvalid as error:
        column = _guilty_column(content, wire)
        if column is not None:
            raise _drift(name, column, _line(error), contract.schema.field(column).type) from error
        is_cut = not _ends_with_a_line(content)
        kind, hint = (HalfWritten, "its last line is cut off") if is_cut else (ContractBroken, "one object per line")
        raise kind(f"{name} is no file of JSON lines: {_line(error)}; {hint}: write it again") from error


def _json_batches(content: IO[bytes], wire: pa.Schema) -> Batches:
    content.seek(0)
    options = json.ParseOptions(explicit_schema=wire, unexpected_field_behavior="ignore")
    return iter(json.open_json(content, json.ReadOptions(block_size=_BLOCK), options))


def _first_fields(content: IO[bytes]) -> Sequence[str]:
    """Return the fields of the first line; none where it is no object, of which the parser says what is wrong."""
    content.seek(0)
    try:
        first = text_json.loads(content.readline())
    except (ValueError, RecursionError):
        return ()
    return list(first) if isinstance(first, dict) else ()


def _guilty_column(content: IO[bytes], wire: pa.Schema) -> str | None:
    """Return the first column that cannot be parsed when it is asked for alone; None where the text itself is bad."""

    def fails(schema: pa.Schema) -> bool:
        try:
            for _ in _json_batches(content, schema):
                pass
        except pa.ArrowInvalid:
            return True
        return False

    if fails(pa.schema([])):
        return None
    return next((field.name for field in wire if fails(pa.schema([field]))), None)


def _header(content: IO[bytes], name: str) -> list[str]:
    text = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
    try:
        header = next(text_csv.reader(text), [])
    except UnicodeDecodeError as error:
        raise ContractBroken(f"{name} is no text in UTF-8: {error}; write it as UTF-8") from error
    finally:
        text.detach()
        content.seek(0)
    return header


def _ends_with_a_line(content: IO[bytes]) -> bool:
    content.seek(-1, os.SEEK_END)
    last = content.read(1)
    content.seek(0)
    return last in b"\r\n"


def _of_contract(batch: pa.RecordBatch, contract: Contract, name: str, day: date | None) -> pa.RecordBatch:
    columns: list[pa.Array] = []
    for column in contract.columns:
        if column.name not in batch.schema.names:
            columns.append(pa.repeat(pa.scalar(day, column.type), batch.num_rows))
            continue
        values = batch.column(column.name)
        if column.name == PARTITION and day is not None and values.null_count:  # the path says what the row does not
            filled = pa.scalar(day, pa.date32()).cast(values.type)
            values = pc.fill_null(values, filled)
        try:
            columns.append(values if values.type == column.type else values.cast(column.type))
        except pa.ArrowInvalid as error:
            raise _drift(name, column.name, f"{values.type}, {_line(error)}", column.type) from error
    typed = pa.RecordBatch.from_arrays(columns, schema=contract.schema)
    if contract.is_partitioned and day is not None:
        _refuse_other_days(typed, name, day)
    return typed


def _refuse_other_days(batch: pa.RecordBatch, name: str, day: date) -> None:
    days = batch.column(PARTITION)
    is_other = pc.fill_null(pc.not_equal(days, pa.scalar(day, days.type)), False)
    n_other = pc.sum(is_other).as_py() or 0
    if n_other:
        other = pc.min(days.filter(is_other)).as_py()
        raise ContractBroken(
            f"{name}: {n_other} rows have {PARTITION} {other}; expected {day}, the day of the file. Nothing was "
            "written: put each row into a file of its own day"
        )


def _refuse_missing(contract: Contract, found: list[str], name: str) -> None:
    """Raise ContractBroken where a column is absent; the local day may be, since the path says it."""
    missing = [c.name for c in contract.columns if c.name not in found and c.name != PARTITION]
    if missing:
        raise ContractBroken(
            f"{name}: column {missing[0]!r} is missing; found {', '.join(found)}; expected "
            f"{', '.join(c.name for c in contract.columns)}. Nothing was written: correct the file, or the contract"
        )


def _is_same_kind(found: pa.DataType, expected: pa.DataType) -> bool:
    """Tell whether a value of the found type means the same in the expected one, unless it is too large for it."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    kinds: tuple[Callable[[pa.DataType], bool], ...] = (
        pa.types.is_integer,
        lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
        lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_binary_view(t),
        pa.types.is_date,
        pa.types.is_decimal,
        lambda t: pa.types.is_timestamp(t) and t.tz is not None,
        lambda t: pa.types.is_timestamp(t) and t.tz is None,
    )
    if pa.types.is_floating(found) and pa.types.is_floating(expected):
        return found.bit_width <= expected.bit_width
    return found == expected or pa.types.is_null(found) or any(kind(found) and kind(expected) for kind in kinds)


def _drift(name: str, column: str, found: str, expected: pa.DataType) -> ContractBroken:
    return ContractBroken(
        f"{name}: column {column!r}: found {found}; expected {expected}. Nothing was written: correct the file, or the "
        "contract and the dbt models that read the column"
    )


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")
