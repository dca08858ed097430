"""Trees of any boosting library as plain data, and their ONNX graph.

One ``TreeEnsemble`` node of ai.onnx.ml 5 carries all trees, splits on sets of categories included. It is written here
rather than by a converter, so that three libraries share one graph whose thresholds are exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ml_assets.core.encoding import Task

_OPSET, _ML_OPSET = 17, 5
_IR_VERSION = 8  # the newest that every supported onnxruntime reads
_LEQ, _LT, _MEMBER = 0, 1, 6  # the comparisons of TreeEnsemble
_SUM, _NO_TRANSFORM = 1, 0
_NO_CODE = -1.0  # stands for an empty set, which the node cannot say


@dataclass(frozen=True, kw_only=True)
class Node:
    """A leaf (``column`` is negative) or a split that sends a row left or right.

    Attributes:
        column: position in the joined inputs: the numbers, then the category codes.
        threshold: a number at most (or below) this goes left.
        codes: where not None, the category codes that go left; all others go right.
        is_null_left: where a null number goes.
        left: position of the left child in the tree; ``right`` likewise.
        value: what a leaf adds to the log odds, or for a regression to the answer.
    """

    column: int = -1
    threshold: float = 0.0
    codes: frozenset[int] | None = None
    is_null_left: bool = False
    left: int = 0
    right: int = 0
    value: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TreeEnsemble:
    """Trees whose leaves and ``base`` sum up to log odds, or for a regression to the answer.

    The root of a tree is its first node.

    ``comparison`` says whether a number equal to the threshold goes left (``<=``) or right (``<``).
    """

    trees: Sequence[Sequence[Node]]
    base: float
    comparison: Literal["<=", "<"]
    n_numeric: int
    cardinalities: Sequence[int]
    task: Task = "binary_classification"

    def thresholds(self) -> Mapping[int, np.ndarray]:
        """Return the thresholds of each numeric column that is split on, float64, ascending, each once."""
        found: dict[int, set[float]] = {}
        for node in (node for tree in self.trees for node in tree):
            if 0 <= node.column < self.n_numeric:
                found.setdefault(node.column, set()).add(node.threshold)
        return {column: np.array(sorted(values)) for column, values in sorted(found.items())}

    def to_onnx(self) -> bytes:
        """Return the model: ``numeric`` float32 [n, k], ``categorical`` int64 [n, m] -> ``prediction`` float32 [n]."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        n_categorical = len(self.cardinalities)
        base = numpy_helper.from_array(np.array(self.base, dtype=np.float32), "base")
        axis = numpy_helper.from_array(np.array([1], dtype=np.int64), "axis_1")
        trees = helper.make_node("TreeEnsemble", ["joined"], ["sums"], domain="ai.onnx.ml")
        for name, value in self._attributes().items():
            content = numpy_helper.from_array(value, name) if isinstance(value, np.ndarray) else value
            trees.attribute.append(helper.make_attribute(name, content))
        nodes = [
            helper.make_node("Cast", ["categorical"], ["codes"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["numeric", "codes"], ["joined"], axis=1),
            trees,
            helper.make_node("Squeeze", ["sums", "axis_1"], ["sum"]),
            helper.make_node("Add", ["sum", "base"], ["answer"]),
            helper.make_node("Identity" if self.task == "regression" else "Sigmoid", ["answer"], ["prediction"]),
        ]
        graph = helper.make_graph(
            nodes,
            "tree_ensemble",
            [
                helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", self.n_numeric]),
                helper.make_tensor_value_info("categorical", TensorProto.INT64, ["n", n_categorical]),
            ],
            [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n"])],
            [base, axis],
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="ml_assets")
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    def _attributes(self) -> Mapping[str, int | list[int] | np.ndarray]:
        """Return the attributes of the TreeEnsemble node: splits and leaves of all trees in a row, numbered anew."""
        roots: list[int] = []
        splits: list[tuple[Node, int, int, bool, bool]] = []  # the split, its children, and which of them are leaves
        leaves: list[float] = []
        for tree in map(_with_a_split, self.trees):
            n_splits, n_leaves = len(splits), len(leaves)
            numbers: list[int] = []
            for node in tree:
                numbers.append(n_leaves if node.column < 0 else n_splits)
                n_leaves, n_splits = n_leaves + (node.column < 0), n_splits + (node.column >= 0)
            roots.append(len(splits))
            leaves += [node.value for node in tree if node.column < 0]
            for node in (self._with_few_codes(node) for node in tree if node.column >= 0):
                ends = tree[node.left].column < 0, tree[node.right].column < 0
                splits.append((node, numbers[node.left], numbers[node.right], *ends))
        modes = [_MEMBER if n.codes is not None else _LEQ if self.comparison == "<=" else _LT for n, *_ in splits]
        thresholds = np.array([node.threshold for node, *_ in splits], dtype=np.float64)
        members: list[float] = []
        for node in (node for node, *_ in splits if node.codes is not None):
            members += [*(sorted(map(float, node.codes or ())) or [_NO_CODE]), np.nan]
        attributes: dict[str, int | list[int] | np.ndarray] = {
            "n_targets": 1,
            "aggregate_function": _SUM,
            "post_transform": _NO_TRANSFORM,
            "tree_roots": roots,
            "nodes_modes": np.array(modes, dtype=np.uint8),
            "nodes_featureids": [node.column for node, *_ in splits],
            "nodes_splits": float32_at_most(thresholds),
            "nodes_truenodeids": [left for _, left, *_ in splits],
            "nodes_falsenodeids": [right for _, _, right, *_ in splits],
            "nodes_trueleafs": [int(is_leaf) for *_, is_leaf, _ in splits],
            "nodes_falseleafs": [int(is_leaf) for *_, is_leaf in splits],
            "nodes_missing_value_tracks_true": [int(node.is_null_left) for node, *_ in splits],
            "leaf_targetids": [0] * len(leaves),
            "leaf_weights": np.array(leaves, dtype=np.float32),
        }
        return {**attributes, "membership_values": np.array(members, dtype=np.float32)} if members else attributes

    def _with_few_codes(self, node: Node) -> Node:
        """Return a split on categories with its sides exchanged where fewer categories go right than left."""
        if node.codes is None:
            return node
        others = frozenset(range(self.cardinalities[node.column - self.n_numeric])) - node.codes
        if len(node.codes) <= len(others):
            return node
        return Node(column=node.column, codes=others, left=node.right, right=node.left)


def float32_at_most(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 that is not above each float64 threshold.

    ``x <= t`` then decides the same for every float32 x. Rounded to the nearest instead, half of the thresholds move
    up, and with them every x that lies between.

    >>> float32_at_most(np.array([0.1, 0.5])) <= np.array([0.1, 0.5])
    array([ True,  True])
    """
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _with_a_split(tree: Sequence[Node]) -> Sequence[Node]:
    """Return the tree; one that is a single leaf as a split whose sides are alike, for ONNX knows no other."""
    return tree if tree[0].column >= 0 else [Node(column=0, left=1, right=2), tree[0], tree[0]]
