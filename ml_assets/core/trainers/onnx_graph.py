"""The ONNX graph of the tabular network, written node by node.

The exporters of torch write source paths and their own version into the file, so that the same model would have other
bytes on another machine, and take a second and several warnings. The parity gate compares this graph with torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np

_OPSET = 17
_IR_VERSION = 8  # the newest that every supported onnxruntime reads


def to_onnx(weights: Mapping[str, np.ndarray], *, n_categorical: int, input_limit: float) -> bytes:
    """Return the model: ``numeric`` float32 [n, k], ``categorical`` int64 [n, m] -> ``prediction`` float32 [n].

    Args:
        weights: the state of a ``TabularNetwork``, by name; a regression's has ``label_mean`` and ``label_spread``.
        n_categorical: m, the number of embeddings.
        input_limit: numbers are clamped to plus and minus this.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    n_numeric = weights["lower"].shape[0]
    constants: dict[str, np.ndarray] = {
        **weights,
        "limit": np.array(input_limit, dtype=np.float32),
        "negative_limit": np.array(-input_limit, dtype=np.float32),
        "zero": np.array(0.0, dtype=np.float32),
        "one": np.array(1.0, dtype=np.float32),
        "axis_1": np.array([1], dtype=np.int64),
        "axis_2": np.array([2], dtype=np.int64),
    }
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["is_null"]),
        helper.make_node("Clip", ["numeric", "negative_limit", "limit"], ["clamped"]),
        helper.make_node("Where", ["is_null", "negative_limit", "clamped"], ["filled"]),
        helper.make_node("Unsqueeze", ["filled", "axis_2"], ["filled_3d"]),
        helper.make_node("Sub", ["filled_3d", "lower"], ["above_lower"]),
        helper.make_node("Div", ["above_lower", "width"], ["in_widths"]),
        helper.make_node("Clip", ["in_widths", "zero", "one"], ["shares_3d"]),
        helper.make_node("Flatten", ["shares_3d"], ["shares"], axis=1),
        helper.make_node("Cast", ["is_null"], ["indicators"], to=TensorProto.FLOAT),
    ]
    parts = ["shares", "indicators"]
    for column in range(n_categorical):
        constants[f"column_{column}"] = np.array(column, dtype=np.int64)
        nodes.append(helper.make_node("Gather", ["categorical", f"column_{column}"], [f"codes_{column}"], axis=1))
        names = [f"embeddings.{column}.weight", f"codes_{column}"]
        nodes.append(helper.make_node("Gather", names, [f"embedded_{column}"], axis=0))
        parts.append(f"embedded_{column}")
    nodes.append(helper.make_node("Concat", parts, ["layer_input"], axis=1))
    last = "layer_input"
    linear = _linear_layers(weights)
    for layer in linear:
        names = [last, f"layers.{layer}.weight", f"layers.{layer}.bias"]
        nodes.append(helper.make_node("Gemm", names, [f"linear_{layer}"], transB=1))
        last = f"linear_{layer}"
        if layer != linear[-1]:
            nodes.append(helper.make_node("Relu", [last], [f"active_{layer}"]))
            last = f"active_{layer}"
    nodes.append(helper.make_node("Squeeze", [last, "axis_1"], ["logit"]))
    if "label_spread" in weights:
        nodes.append(helper.make_node("Mul", ["logit", "label_spread"], ["from_mean"]))
        nodes.append(helper.make_node("Add", ["from_mean", "label_mean"], ["prediction"]))
    else:
        nodes.append(helper.make_node("Sigmoid", ["logit"], ["prediction"]))
    graph = helper.make_graph(
        nodes,
        "tabular_network",
        [
            helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", n_numeric]),
            helper.make_tensor_value_info("categorical", TensorProto.INT64, ["n", n_categorical]),
        ],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="ml_assets"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _linear_layers(weights: Mapping[str, np.ndarray]) -> Sequence[int]:
    """Return the positions of the linear layers in the network's ``layers``, ascending."""
    return sorted(
        int(name.split(".")[1]) for name in weights if name.startswith("layers.") and name.endswith(".weight")
    )
