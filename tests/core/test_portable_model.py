"""One input per feature: what a caller in any language sends, and that the answer is the coded graph's."""

import random
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml_assets.core.encoding import Input, Signature, Vocabulary, encode
from ml_assets.core.errors import BadInput, PackageRefused
from ml_assets.core.onnx_safety import refuse_unsafe_model
from ml_assets.core.portable_model import odd_rows, portable_inputs, to_portable
from ml_assets.core.scoring import score_coded, score_portable


def _signature(numeric: Sequence[str] = (), categorical: Sequence[str] = ()) -> Signature:
    def inputs(names: Sequence[str]) -> tuple[Input, ...]:
        return tuple(Input(name=name, view="v", description=f"About {name}.") for name in names)

    return Signature(numeric=inputs(numeric), categorical=inputs(categorical))


def _coded(nodes: Sequence[onnx.NodeProto], constants: dict[str, object], **settings) -> bytes:
    """A coded graph of these nodes; ``settings``: opsets, ir_version, shape of the answer, its name, its inputs."""
    kinds = {"numeric": TensorProto.FLOAT, "categorical": TensorProto.INT64}
    graph = helper.make_graph(
        list(nodes),
        "coded",
        [helper.make_tensor_value_info(name, kinds[name], ["n", None]) for name in settings.get("inputs", kinds)],
        [helper.make_tensor_value_info(settings.get("output", "prediction"), TensorProto.FLOAT, settings["shape"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in settings.get("opsets", {"": 17}).items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=settings.get("ir_version", 8)).SerializeToString()


def _sum_of_everything() -> bytes:
    """Answers 100 for a NaN, else the number itself, summed over the numbers, plus the sum of the codes."""
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["limit"]),
        helper.make_node("Where", ["limit", "hundred", "numeric"], ["filled"]),
        helper.make_node("ReduceSum", ["filled", "axis"], ["of_numbers"], keepdims=0),
        helper.make_node("Cast", ["categorical"], ["codes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["codes", "axis"], ["of_codes"], keepdims=0),
        helper.make_node("Add", ["of_numbers", "of_codes"], ["prediction"]),
    ]
    return _coded(nodes, {"hundred": np.float32(100), "axis": np.array([1])}, shape=["n"])


def test_a_caller_sends_each_feature_by_name_and_text_as_text():
    signature = _signature(["wind_speed_mph", "is_holiday"], ["origin", "dest"])
    vocabulary = Vocabulary(values={"origin": ("EWR", "JFK"), "dest": ("ORD", "ÅRE")})
    portable = to_portable(_sum_of_everything(), signature=signature, vocabulary=vocabulary)
    refuse_unsafe_model(portable, name="portable.onnx")
    session = onnxruntime.InferenceSession(portable, providers=["CPUExecutionProvider"])
    assert {i.name: (i.type, i.shape) for i in session.get_inputs()} == {
        "wind_speed_mph": ("tensor(float)", ["n", 1]),
        "is_holiday": ("tensor(float)", ["n", 1]),
        "origin": ("tensor(string)", ["n", 1]),
        "dest": ("tensor(string)", ["n", 1]),
    }
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("prediction", ["n"])]
    found = session.run(
        None,
        {
            "wind_speed_mph": np.array([[10], [np.nan], [0.5]], np.float32),
            "is_holiday": np.array([[1], [0], [np.nan]], np.float32),
            "origin": np.array([["EWR"], [""], ["XXX"]], dtype=object),
            "dest": np.array([["ÅRE"], ["ORD"], ["ord"]], dtype=object),
        },
    )[0]
    # EWR and ORD are 2, JFK and ÅRE 3, a null 0, anything else 1.
    assert found.tolist() == [10 + 1 + 2 + 3, 100 + 0 + 0 + 2, 0.5 + 100 + 1 + 1]


def test_a_feature_may_have_the_name_of_a_tensor_inside_the_coded_graph():
    names = ["numeric", "limit", "of_codes"], ["categorical", "axis", "hundred"]
    vocabulary = Vocabulary(values=dict.fromkeys(names[1], ("a",)))
    portable = to_portable(_sum_of_everything(), signature=_signature(*names), vocabulary=vocabulary)
    table = pa.table({**{name: [1.0, 2.0] for name in names[0]}, **{name: ["a", None] for name in names[1]}})
    assert score_portable(portable, table, _signature(*names)).tolist() == [3 + 3 * 2, 6 + 0]


@pytest.mark.parametrize(
    ("numeric", "categorical", "expected"), [(["wind"], [], [7.0, 100.0]), ([], ["origin"], [2.0, 0.0])]
)
def test_a_model_may_read_numbers_alone_or_text_alone(numeric, categorical, expected):
    signature, vocabulary = (
        _signature(numeric, categorical),
        Vocabulary(values=dict.fromkeys(categorical, ("EWR",))),
    )
    portable = to_portable(_sum_of_everything(), signature=signature, vocabulary=vocabulary)
    table = pa.table({"wind": pa.array([7.0, None]), "origin": ["EWR", None]})
    assert score_portable(portable, table, signature).tolist() == expected


def test_a_graph_of_trees_in_an_old_opset_that_answers_a_column_is_taken_as_it_is():
    # wind <= 20 -> 0.25, else 0.75; the converters write ai.onnx.ml 1 and [n, 1].
    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["numeric"],
        ["prediction"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[20.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[1, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[0.25, 0.75],
    )
    for inputs in (["numeric"], ["numeric", "categorical"]):
        coded = _coded([tree], {}, shape=["n", 1], opsets={"": 11, "ai.onnx.ml": 1}, ir_version=6, inputs=inputs)
        signature, vocabulary = _signature(["wind"], ["origin"]), Vocabulary(values={"origin": ("EWR",)})
        portable = to_portable(coded, signature=signature, vocabulary=vocabulary)
        assert [(o.domain, o.version) for o in onnx.load_model_from_string(portable).opset_import] == [
            ("", 11),
            ("ai.onnx.ml", 1),
        ]
        table = pa.table({"wind": pa.array([20.0, 20.5, None]), "origin": ["EWR", None, "?"]})
        assert score_portable(portable, table, signature).tolist() == [0.25, 0.75, 0.25]


def test_a_graph_inside_the_graph_still_finds_the_constants_outside_it():
    def branch(name: str, constant: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Add", ["numeric", constant], [output.name])], name, [], [output])

    nodes = [
        helper.make_node(
            "If", ["yes"], ["chosen"], then_branch=branch("then", "three"), else_branch=branch("else", "four")
        ),
        helper.make_node("Squeeze", ["chosen", "axis"], ["prediction"]),
    ]
    constants = {"yes": np.array(True), "three": np.float32(3), "four": np.float32(4), "axis": np.array([1])}
    coded = _coded(nodes, constants, shape=["n"])
    signature = _signature(["three"])
    portable = to_portable(coded, signature=signature, vocabulary=Vocabulary(values={}))
    assert score_portable(portable, pa.table({"three": [1.0, 5.0]}), signature).tolist() == [4.0, 8.0]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_text_the_portable_graph_codes_it_as_encode_does(seed):
    draw = random.Random(seed)
    known = [None, "", " ", "a", "A", "ä", "日本", "a b", "a,b", '"', "\\", "\n", "null", "NaN", "0", "😀"]
    unknown = ["b", "A ", "日", "nan", "\t"]
    signature = _signature(["wind"], ["x", "y"])
    train = pa.table({name: pa.array(draw.choices(known, k=40), pa.string()) for name in ("x", "y")})
    vocabulary = Vocabulary.of(train, signature)
    table = pa.table(
        {
            "wind": pa.array(draw.choices([None, -0.0, 1e-42, 3.4e38, 1e300, 0.1], k=200), pa.float64()),
            **{name: pa.array(draw.choices(known + unknown, k=200), pa.string()) for name in ("x", "y")},
        }
    )
    # The second code weighs a thousand times the first, so that no two pairs have the same sum; numbers are left out.
    nodes = [
        helper.make_node("Cast", ["categorical"], ["codes"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["codes", "weights"], ["prediction"]),
    ]
    coded = _coded(nodes, {"weights": np.array([1, 1000], np.float32)}, shape=["n"])
    portable = to_portable(coded, signature=signature, vocabulary=vocabulary)
    codes = encode(table, signature, vocabulary)
    np.testing.assert_array_equal(score_portable(portable, table, signature), codes.categorical @ [1, 1000])
    numbers = portable_inputs(table, signature)["wind"]
    np.testing.assert_array_equal(numbers, codes.numeric)


def test_the_packaged_model_answers_alike_through_both_graphs(trained, examples):
    package = trained[1].package
    coded = score_coded(package.model, encode(examples, package.signature, package.vocabulary))
    portable = score_portable(package.portable, examples, package.signature)
    assert portable.shape == coded.shape == (3000,)
    assert float(np.abs(portable - coded).max()) <= 1e-6
    assert np.ptp(portable) > 0.5


def test_the_same_arguments_give_the_same_bytes_and_the_inputs_say_what_they_are():
    signature, vocabulary = _signature(["wind"], ["origin"]), Vocabulary(values={"origin": ("EWR", "JFK")})
    one, two = (to_portable(_sum_of_everything(), signature=signature, vocabulary=vocabulary) for _ in range(2))
    assert one == two
    inputs = onnx.load_model_from_string(one).graph.input
    assert [i.doc_string for i in inputs] == ["About wind.", "About origin."]


def test_odd_rows_hold_null_empty_and_unseen_text_and_numbers_out_of_range():
    signature, vocabulary = _signature(["wind"], ["origin"]), Vocabulary(values={"origin": ("EWR", "????")})
    odd = odd_rows(pa.table({"wind": [7.0, 8.0], "origin": ["EWR", "JFK"]}), signature, vocabulary)
    coded = encode(odd, signature, vocabulary)
    assert coded.categorical[:, 0].tolist() == [0, 0, 1, 2, 2]
    np.testing.assert_array_equal(coded.numeric[:, 0], np.array([np.nan, 7, 7, np.inf, -1e30], np.float32))
    assert odd["wind"].null_count == 1
    none = pa.table({"wind": pa.array([], pa.float64()), "origin": pa.array([], pa.string())})
    assert odd_rows(none, signature, vocabulary).num_rows == 0


def test_what_would_be_ambiguous_is_refused():
    vocabulary = Vocabulary(values={"origin": ("", "EWR")})
    with pytest.raises(BadInput, match="a feature is called 'prediction'"):
        to_portable(_sum_of_everything(), signature=_signature(["prediction"]), vocabulary=vocabulary)
    with pytest.raises(BadInput, match=r"vocabulary of \['origin'\] holds the empty text"):
        to_portable(_sum_of_everything(), signature=_signature([], ["origin"]), vocabulary=vocabulary)
    with pytest.raises(BadInput, match="no input"):
        to_portable(_sum_of_everything(), signature=_signature(), vocabulary=vocabulary)


def test_a_graph_with_other_inputs_or_outputs_is_refused():
    node = helper.make_node("Identity", ["numeric"], ["label"])
    coded = _coded([node], {}, shape=["n", 1], output="label", inputs=["numeric"])
    with pytest.raises(PackageRefused, match=r"answers \['label'\]; expected numeric and categorical, prediction"):
        to_portable(coded, signature=_signature(["wind"]), vocabulary=Vocabulary(values={}))
