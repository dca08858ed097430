"""From feature columns to the two arrays a model reads: numbers and category codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.errors import BadInput
from ml_assets.core.feature_views import Feature

NULL_CODE = 0
UNSEEN_CODE = 1
_FIRST_CODE = 2
# Judgement: what has more values names single things. 90,000 of them made packages of 3 (trees) to 12 MB (a network).
_MOST_CATEGORIES = 20_000


InputKind = Literal["number", "boolean", "text"]
Task = Literal["binary_classification", "regression"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One column a model reads, as a caller in any language needs to know it.

    A ``number`` is float32 with NaN for null, a ``boolean`` the same with 0 or 1, a ``text`` UTF-8 with the empty text
    for null. ``unit`` is what a number is measured in, None where it has none. ``view`` says where it comes from.
    """

    name: str
    view: str
    description: str
    kind: InputKind = "number"
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a model answers: a probability in [0, 1], or for a ``regression`` a number of this ``unit``."""

    task: Task = "binary_classification"
    unit: str | None = None


PROBABILITY = Output()


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The columns a model reads, in the order of its two input arrays, and what it answers."""

    numeric: tuple[Input, ...]
    categorical: tuple[Input, ...]
    output: Output = Output()

    @staticmethod
    def of(inputs: Sequence[Feature], output: Output = Output()) -> "Signature":
        """Return the signature of a use case's inputs and its output."""

        def of_kind(kind: str) -> tuple[Input, ...]:
            return tuple(_input(feature) for feature in inputs if feature.kind == kind)

        return Signature(numeric=of_kind("numeric"), categorical=of_kind("categorical"), output=output)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The known values of each categorical input, sorted: code 0 is null, 1 is unseen, 2 the first value.

    The empty text is null: callers whose text cannot be null write it so.
    """

    values: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(examples: pa.Table, signature: Signature, earlier: "Vocabulary | None" = None) -> "Vocabulary":
        """Return the values that occur in these examples (those of train, and no others) or in an earlier vocabulary.

        The earlier one is that of the model whose weights are taken over: what it knew is not forgotten. Raises
        BadInput for an input of more than 20,000 values: every one of them is in the graph, in each table of drift and
        in memory.
        """
        values: dict[str, tuple[str, ...]] = {}
        for name in (column.name for column in signature.categorical):
            distinct = {cast("str", value) for value in text_of(examples, name).unique().to_pylist() if value}
            if len(distinct) > _MOST_CATEGORIES:
                raise BadInput(
                    f"the feature {name!r} has {len(distinct):,} values in {examples.num_rows:,} examples; a model "
                    f"takes at most {_MOST_CATEGORIES:,}: leave it out, or let its feature view join the rare ones"
                )
            known = earlier.values.get(name, ()) if earlier else ()
            values[name] = tuple(sorted(distinct.union(known)))
        return Vocabulary(values=values)

    def cardinality(self, name: str) -> int:
        """How many codes there are for an input, null and unseen included."""
        return _FIRST_CODE + len(self.values[name])

    def codes(self, name: str) -> Mapping[str, int]:
        """Return the code of each known value of an input."""
        return {value: code for code, value in enumerate(self.values[name], start=_FIRST_CODE)}


def _input(feature: Feature) -> Input:
    is_boolean = feature.name.startswith(("is_", "has_"))
    kind = "text" if feature.kind == "categorical" else "boolean" if is_boolean else "number"
    return Input(name=feature.name, view=feature.view, description=feature.description, kind=kind, unit=feature.unit)


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What a model reads of n examples: float32 [n, k] with NaN for null, and int64 [n, m] codes."""

    numeric: np.ndarray
    categorical: np.ndarray

    def __len__(self) -> int:
        return len(self.numeric)


def encode(table: pa.Table, signature: Signature, vocabulary: Vocabulary) -> Coded:
    """Return the arrays of these examples. A boolean is 0 or 1. Raises BadInput for a missing or retyped column."""
    refuse_absent(table, [column.name for column in (*signature.numeric, *signature.categorical)])
    numeric = np.empty((table.num_rows, len(signature.numeric)), dtype=np.float32)
    for position, column in enumerate(signature.numeric):
        numeric[:, position] = numbers_of(table, column.name)
    categorical = np.empty((table.num_rows, len(signature.categorical)), dtype=np.int64)
    for position, column in enumerate(signature.categorical):
        categorical[:, position] = codes_of(table, column.name, vocabulary)
    return Coded(numeric=numeric, categorical=categorical)


def refuse_absent(table: pa.Table, names: Sequence[str]) -> None:
    """Raise BadInput where the examples lack one of these columns."""
    present = set(table.column_names)  # of a table of 100 columns the list takes longer than the rest
    absent = [name for name in names if name not in present]
    if absent:
        raise BadInput(f"the examples lack the columns {absent} that the model reads; materialize the examples again")


def codes_of(table: pa.Table, name: str, vocabulary: Vocabulary) -> np.ndarray:
    """Return a column of text as its codes, int64 [n]; raise BadInput for another type."""
    text = text_of(table, name)
    known = pc.SetLookupOptions(value_set=pa.array(vocabulary.values[name], type=pa.string()))
    found = pc.call_function("index_in", [text], known).fill_null(UNSEEN_CODE - _FIRST_CODE).to_numpy()
    is_null = pc.call_function("equal", [text.fill_null(""), pa.scalar("")]).to_numpy()
    return np.where(is_null, NULL_CODE, found + _FIRST_CODE).astype(np.int64)


def numbers_of(table: pa.Table, name: str) -> np.ndarray:
    """Return a column of numbers or booleans as float32 [n], NaN for null; raise BadInput for another type."""
    column = table[name]
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise BadInput(f"the column {name!r} has the type {column.type}; expected a number or a boolean")
    # Beyond float32 a number becomes infinite, which the network clamps to the outermost bin.
    with np.errstate(over="ignore"):
        return column.cast(pa.float64()).to_numpy().astype(np.float32)


def text_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column of text as strings; raise BadInput for another type."""
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_null(column.type)):
        raise BadInput(f"the column {name!r} has the type {column.type}; expected text")
    return column.cast(pa.string())
