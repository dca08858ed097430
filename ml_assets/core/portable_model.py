"""The portable graph: one ONNX file that takes each feature by its name, text as text, for callers in any language."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ml_assets.core.encoding import NULL_CODE, UNSEEN_CODE, Input, Signature, Vocabulary, numbers_of, text_of
from ml_assets.core.errors import BadInput, PackageRefused

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

OUTPUT = "prediction"
_INNER = "model/"  # no feature's name holds a slash, so no tensor of the coded graph can be taken for a feature
_OWN = "features/"
_OLDEST_IR = 4  # from here on a constant need not be an input as well
_ML_OPSET = 3  # CategoryMapper is the same in every version; this one every supported onnxruntime reads


def to_portable(coded_model: bytes, *, signature: Signature, vocabulary: Vocabulary) -> bytes:
    """Return the model with one input per feature: float32 or string [n, 1] -> ``prediction`` float32 [n].

    A null number is NaN, a boolean 0 or 1, a null text the empty string; a text that the vocabulary lacks is allowed.
    The coded graph, whatever library wrote it, is embedded in its own opset, unchanged but for the names of its
    tensors. The same arguments give the same bytes.

    Args:
        coded_model: an ONNX graph with ``numeric`` float32 [n, k] and ``categorical`` int64 [n, m] -> ``prediction``.
        signature: the names of the k and m columns, in order.
        vocabulary: the known values of the m columns.

    Raises BadInput for a feature called ``prediction`` or an empty text in the vocabulary, PackageRefused for a graph
    of other inputs or outputs.
    """
    import onnx
    from onnx import TensorProto, helper

    _refuse_ambiguous(signature, vocabulary)
    inner = onnx.load_model_from_string(coded_model)
    refuse_other_borders(inner)
    reads = {value.name for value in inner.graph.input}
    prefix_all_names(inner.graph, _INNER)
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {"flat": np.array([-1], np.int64)}
    nodes += _joined("numeric", [column.name for column in signature.numeric])
    for column in signature.categorical:
        known = vocabulary.values[column.name]
        codes = [NULL_CODE, *vocabulary.codes(column.name).values()]
        nodes.append(
            helper.make_node(
                "CategoryMapper",
                [column.name],
                [f"{_OWN}{column.name}"],
                domain="ai.onnx.ml",
                cats_strings=["", *known],
                cats_int64s=codes,
                default_int64=UNSEEN_CODE,
            )
        )
    nodes += _joined("categorical", [f"{_OWN}{column.name}" for column in signature.categorical])
    absent = [kind for kind in ("numeric", "categorical") if not getattr(signature, kind) and kind in reads]
    if absent:
        constants |= {"zero": np.array([0], np.int64), "columns": np.array([1], np.int64)}
        nodes += _without_columns(absent[0])
    nodes += inner.graph.node
    nodes.append(helper.make_node("Reshape", [f"{_INNER}{OUTPUT}", f"{_OWN}flat"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        "portable_model",
        [
            *(_value(column, TensorProto.FLOAT) for column in signature.numeric),
            *(_value(column, TensorProto.STRING) for column in signature.categorical),
        ],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n"])],
        [
            *inner.graph.initializer,
            *(onnx.numpy_helper.from_array(array, f"{_OWN}{name}") for name, array in constants.items()),
        ],
        sparse_initializer=list(inner.graph.sparse_initializer),
    )
    opsets = [*inner.opset_import]
    if not any(opset.domain == "ai.onnx.ml" for opset in opsets):
        opsets.append(helper.make_opsetid("ai.onnx.ml", _ML_OPSET))
    ir_version = max(inner.ir_version, _OLDEST_IR)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="ml_assets")
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def portable_inputs(table: pa.Table, signature: Signature) -> Mapping[str, np.ndarray]:
    """Return the portable graph's inputs for these rows: per feature float32 [n, 1] or text as objects [n, 1]."""
    numeric = {column.name: numbers_of(table, column.name).reshape(-1, 1) for column in signature.numeric}
    text = {
        column.name: np.asarray(text_of(table, column.name).fill_null("").to_numpy(), dtype=object).reshape(-1, 1)
        for column in signature.categorical
    }
    return {**numeric, **text}


def odd_rows(table: pa.Table, signature: Signature, vocabulary: Vocabulary) -> pa.Table:
    """Return a few rows that no training set is sure to hold, made of the first row.

    Every input null; every text empty; every text unseen; every number infinite; every number far below any other.
    Empty for an empty table.
    """
    n_rows = 5 if table.num_rows else 0
    first = table.slice(0, 1)
    columns: dict[str, pa.Array] = {}
    for column in signature.numeric:
        value = numbers_of(first, column.name)
        odd = np.array([np.nan, *np.repeat(value, 2), np.inf, -1e30][:n_rows], np.float32)
        columns[column.name] = pa.array(odd, mask=np.isnan(odd))
    for column in signature.categorical:
        unseen = "?" * (1 + max(map(len, vocabulary.values[column.name]), default=0))
        value = text_of(first, column.name).to_pylist()
        columns[column.name] = pa.array([None, "", unseen, *value * 2][:n_rows], pa.string())
    return pa.table(columns)


def _refuse_ambiguous(signature: Signature, vocabulary: Vocabulary) -> None:
    names = [column.name for column in (*signature.numeric, *signature.categorical)]
    if not names:
        raise BadInput("the signature has no input; a portable model needs one at least")
    if OUTPUT in names:
        raise BadInput(f"a feature is called {OUTPUT!r}, as the model's answer is; rename the feature")
    empty = sorted(column.name for column in signature.categorical if "" in vocabulary.values[column.name])
    if empty:
        raise BadInput(
            f"the vocabulary of {empty} holds the empty text, which stands for null; build it with Vocabulary.of"
        )


def refuse_other_borders(model: "ModelProto") -> None:
    """Raise PackageRefused for a coded graph of other inputs than numeric and categorical, or another output."""
    inputs = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    if not inputs <= {"numeric", "categorical"} or OUTPUT not in outputs:
        raise PackageRefused(
            f"the coded graph reads {sorted(inputs)} and answers {outputs}; expected numeric and categorical, {OUTPUT}"
        )


def prefix_all_names(graph: "GraphProto", prefix: str) -> None:
    """Put a prefix before every name of a graph and of those inside it, so that what was equal stays equal.

    onnx.compose.add_prefix leaves out what an inner graph takes from an outer graph's constants.
    """
    graph.ClearField("quantization_annotation")
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    values += [tensor for sparse in graph.sparse_initializer for tensor in (sparse.values, sparse.indices)]
    for value in values:
        value.name = f"{prefix}{value.name}" if value.name else ""
    for node in graph.node:
        node.name = f"{prefix}{node.name}" if node.name else ""
        node.input[:] = [f"{prefix}{name}" if name else "" for name in node.input]
        node.output[:] = [f"{prefix}{name}" if name else "" for name in node.output]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                prefix_all_names(inner, prefix)


def _joined(kind: str, columns: Sequence[str]) -> Iterator["NodeProto"]:
    """Yield the node that joins columns [n, 1] to the coded input [n, k], if there are any."""
    from onnx import helper

    if columns:
        yield helper.make_node("Concat", list(columns), [f"{_INNER}{kind}"], axis=1)


def _without_columns(kind: str) -> Iterator["NodeProto"]:
    """Yield the nodes that make the coded input [n, 0] of a kind without features, from the other kind's rows."""
    from onnx import TensorProto, helper

    other = "categorical" if kind == "numeric" else "numeric"
    bounds = [f"{_OWN}zero", f"{_OWN}zero", f"{_OWN}columns"]
    yield helper.make_node("Slice", [f"{_INNER}{other}", *bounds], [f"{_OWN}no_columns"])
    to = TensorProto.FLOAT if kind == "numeric" else TensorProto.INT64
    yield helper.make_node("Cast", [f"{_OWN}no_columns"], [f"{_INNER}{kind}"], to=to)


def _value(column: Input, element_type: int) -> "ValueInfoProto":
    from onnx import helper

    return helper.make_tensor_value_info(column.name, element_type, ["n", 1], doc_string=column.description)
