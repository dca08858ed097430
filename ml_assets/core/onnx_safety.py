"""What the binary files of a package may not do: be of another format, name other files, call foreign operators."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ml_assets.core.errors import PackageRefused

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


def refuse_unsafe_model(content: bytes, *, name: str) -> None:
    """Raise PackageRefused for bytes that are no ONNX model, read other files, or call custom operators."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise PackageRefused(f"{name} is no ONNX model: {error}") from error
    if not model.graph.output:
        raise PackageRefused(f"{name} is no ONNX model: it answers nothing")
    if model.functions:
        raise PackageRefused(f"{name} defines functions of its own; expected operators of ONNX only")
    nodes = list(_nodes(model.graph))
    tensors = [*_tensors(model.graph), *(t for node in nodes for t in _attribute_tensors(node))]
    outside = sorted(t.name for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL or t.external_data)
    if outside:
        raise PackageRefused(f"{name} keeps the tensors {outside} in other files; export it as one file")
    domains = sorted({node.domain for node in nodes} - _DOMAINS)
    if domains:
        raise PackageRefused(f"{name} calls operators of {domains}; expected those of ONNX only")


def refuse_unsafe_weights(content: bytes, *, name: str) -> None:
    """Raise PackageRefused for bytes that are not safetensors: a header in JSON and plain arrays, nothing to run."""
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(content)
    except SafetensorError as error:
        raise PackageRefused(f"{name} is not in the format safetensors: {error}") from error


def _nodes(graph: "GraphProto") -> Iterator["NodeProto"]:
    """Yield the nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    """Yield the constants of a graph and of the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _attribute_tensors(node: "NodeProto") -> Iterator["TensorProto"]:
    """Yield the constants written into a node."""
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
