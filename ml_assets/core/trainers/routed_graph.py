"""Several models as one ONNX graph, of which each row is answered by exactly one: the one of its category code.

A model sits in a branch that runs only if the batch has a row for it, and then sees its rows alone. So a batch costs
what one model costs for as many rows, and beside it a few steps per model to find it without work.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml_assets.core.errors import PackageRefused
from ml_assets.core.portable_model import OUTPUT, prefix_all_names, refuse_other_borders

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto

_PARENT_ROUTE = 0
_FLAT = "flat"


def routed(parent: bytes, own: Mapping[int, bytes], *, column: int, cardinality: int) -> bytes:
    """Return the model: ``numeric`` float32 [n, k], ``categorical`` int64 [n, m] -> ``prediction`` float32 [n].

    Args:
        parent: the graph that answers for every code that has none of its own.
        own: a graph by category code; each with the same inputs and output as the parent.
        column: position of the categorical input whose codes choose.
        cardinality: how many codes that input has.

    Raises PackageRefused for a graph of other inputs or outputs, or graphs of different operator sets.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    models = [onnx.load_model_from_string(content) for content in (parent, *own.values())]
    opsets = _shared_opsets(models)
    route_of_code = np.full(cardinality, _PARENT_ROUTE, dtype=np.int64)
    route_of_code[list(own)] = np.arange(1, len(models))
    constants = {
        "column": np.array(column, dtype=np.int64),
        "route_of_code": route_of_code,
        "no_route": np.zeros(len(models), dtype=np.int64),
        _FLAT: np.array([-1], dtype=np.int64),
        **{f"route_{route}": np.array(route, dtype=np.int64) for route in range(len(models))},
    }
    one = numpy_helper.from_array(np.array([1], dtype=np.int64))
    nodes = [
        helper.make_node("Gather", ["categorical", "column"], ["codes"], axis=1),
        helper.make_node("Gather", ["route_of_code", "codes"], ["routes"]),
        helper.make_node("Shape", ["routes"], ["n_rows"]),
        helper.make_node("ConstantOfShape", ["n_rows"], ["ones"], value=one),
        helper.make_node("ScatterElements", ["no_route", "routes", "ones"], ["is_taken_number"]),
        helper.make_node("Cast", ["is_taken_number"], ["is_taken"], to=TensorProto.BOOL),
        helper.make_node("ConstantOfShape", ["n_rows"], ["answers_0"]),
    ]
    for route, model in enumerate(models):
        nodes.append(helper.make_node("Gather", ["is_taken", f"route_{route}"], [f"has_rows_{route}"]))
        nodes.append(_branch(model, route))
    nodes.append(helper.make_node("Identity", [f"answers_{len(models)}"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        "one_model_per_segment",
        list(onnx.load_model_from_string(parent).graph.input),
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    ir_version = max(model.ir_version for model in models)
    merged = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="ml_assets")
    onnx.checker.check_model(merged, full_check=True)
    return merged.SerializeToString(deterministic=True)


def _branch(model: "ModelProto", route: int) -> "NodeProto":
    """Return the node that puts a model's answers for its rows into the answers so far, if it has any rows."""
    from onnx import TensorProto, helper

    refuse_other_borders(model)
    before, after, own = f"answers_{route}", f"answers_{route + 1}", f"model_{route}/"
    inner = model.graph
    inner.ClearField("value_info")  # its letters for the number of rows would be taken for those of the whole batch
    prefix_all_names(inner, own)

    def output(name: str) -> "ValueInfoProto":
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])

    def step(kind: str, inputs: Sequence[str], name: str) -> "NodeProto":
        return helper.make_node(kind, inputs, [name])

    nodes = [
        step("Equal", ["routes", f"route_{route}"], f"{own}is_its"),
        step("NonZero", [f"{own}is_its"], f"{own}rows_2d"),
        step("Reshape", [f"{own}rows_2d", _FLAT], f"{own}rows"),
        step("Gather", ["numeric", f"{own}rows"], f"{own}numeric"),
        step("Gather", ["categorical", f"{own}rows"], f"{own}categorical"),
        *inner.node,
        step("Reshape", [f"{own}{OUTPUT}", _FLAT], f"{own}answers"),
        step("ScatterElements", [before, f"{own}rows", f"{own}answers"], f"{own}after"),
    ]
    then_branch = helper.make_graph(
        nodes,
        f"with_rows_{route}",
        [],
        [output(f"{own}after")],
        list(inner.initializer),
        sparse_initializer=list(inner.sparse_initializer),
    )
    unchanged = f"unchanged_{route + 1}"
    else_branch = helper.make_graph(
        [step("Identity", [before], unchanged)],
        f"without_rows_{route}",
        [],
        [output(unchanged)],
    )
    return helper.make_node("If", [f"has_rows_{route}"], [after], then_branch=then_branch, else_branch=else_branch)


def _shared_opsets(models: Sequence["ModelProto"]) -> list["OperatorSetIdProto"]:
    versions = {tuple(sorted((opset.domain, opset.version) for opset in model.opset_import)) for model in models}
    if len(versions) != 1:
        raise PackageRefused(
            f"the models of the segments are written in different operator sets: {sorted(versions)}; let the trainer's "
            "to_onnx write the same one always"
        )
    return list(models[0].opset_import)
