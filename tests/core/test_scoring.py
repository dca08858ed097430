from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from ml_assets.core.encoding import encode
from ml_assets.core.errors import BadInput, PackageRefused
from ml_assets.core.scoring import PREDICTIONS_SCHEMA, keep_confirmed, prediction_rows, score

AT = datetime(2013, 2, 1, 6, 30, tzinfo=UTC)
LATER = datetime(2013, 2, 2, 6, 30, tzinfo=UTC)


def _rows(scores, *, version="v1", run="run 1", at=AT, examples=None):
    return prediction_rows(examples, np.asarray(scores), model_version=version, run_id=run, predicted_at=at)


def test_scores_do_not_depend_on_the_batches_and_keep_the_order_of_rows(trained, examples):
    package = trained[1].package
    whole = score(package, examples)
    assert whole.dtype == np.float64
    assert whole.shape == (3000,)
    np.testing.assert_allclose(score(package, examples, batch_rows=7), whole, atol=1e-6)
    backwards = examples.take(pa.array(np.arange(3000)[::-1]))
    np.testing.assert_allclose(score(package, backwards), whole[::-1], atol=1e-6)
    assert score(package, examples.slice(0, 0)).shape == (0,)


def test_scores_follow_the_rule_the_labels_were_made_by(trained, examples):
    stormy = examples.filter(pa.array(examples["wind_speed_mph"].fill_null(0).to_numpy() > 25))
    at_ewr = stormy["origin"].to_numpy() == "EWR"
    scores = score(trained[1].package, stormy)
    assert scores[at_ewr].min() > 0.5 > scores[~at_ewr].max()


def test_nulls_and_airports_never_seen_get_a_probability(trained, examples):
    odd = examples.slice(0, 2).set_column(3, "origin", pa.array([None, "ACY"], pa.string()))
    odd = odd.set_column(4, "wind_speed_mph", pa.nulls(2, pa.float64()))
    scores = score(trained[1].package, odd)
    assert ((scores > 0) & (scores < 1)).all()


def test_scoring_twice_gives_the_same_bits(trained, examples):
    np.testing.assert_array_equal(score(trained[1].package, examples), score(trained[1].package, examples))


def test_a_missing_column_is_named(trained, examples):
    with pytest.raises(BadInput, match="wind_speed_mph"):
        score(trained[1].package, examples.drop_columns(["wind_speed_mph"]))


def test_an_answer_that_is_no_number_is_refused(trained, examples):
    nodes = [
        helper.make_node("ReduceSum", ["numeric", "axis"], ["sum"], keepdims=0),
        helper.make_node("Sub", ["sum", "sum"], ["nothing"]),
        helper.make_node("Div", ["nothing", "nothing"], ["prediction"]),
    ]
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("categorical", TensorProto.INT64, ["n", 1]),
    ]
    output = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n"])
    axis = numpy_helper.from_array(np.array([1]), "axis")
    graph = helper.make_graph(nodes, "g", inputs, [output], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    broken = replace(trained[1].package, model=model.SerializeToString())
    with pytest.raises(PackageRefused, match="gives no number for 3000 of 3000"):
        score(broken, examples)


def test_prediction_rows_have_the_columns_of_the_predictions_table(examples):
    two = examples.slice(0, 2)
    rows = _rows([0.25, 0.75], examples=two)
    assert rows.schema == PREDICTIONS_SCHEMA
    assert rows["prediction"].to_pylist() == [0.25, 0.75]
    assert rows["run_id"].to_pylist() == ["run 1", "run 1"]
    assert rows["predicted_at"].to_pylist() == [AT, AT]
    assert rows["decision_id"].to_pylist() == ["UA-0", "UA-1"]
    with pytest.raises(BadInput, match="1 scores for 2 examples"):
        _rows([0.25], examples=two)


def test_a_day_scored_again_with_the_same_answers_keeps_its_rows(examples):
    three = examples.slice(0, 3)
    existing = _rows([0.1, 0.2, 0.3], examples=three)
    again = _rows([0.1, 0.2, 0.3], run="run 2", at=LATER, examples=three)
    shuffled = existing.take(pa.array([2, 0, 1]))
    assert keep_confirmed(again, shuffled).equals(existing)


def test_only_the_rows_that_changed_get_a_new_run_and_time(examples):
    three, four = examples.slice(0, 3), examples.slice(0, 4)
    existing = _rows([0.1, 0.2, 0.3], examples=three)
    again = _rows([0.1, np.nextafter(0.2, 1), 0.3, 0.4], run="run 2", at=LATER, examples=four)
    kept = keep_confirmed(again, existing)
    assert kept["run_id"].to_pylist() == ["run 1", "run 2", "run 1", "run 2"]
    assert kept["predicted_at"].to_pylist() == [AT, LATER, AT, LATER]
    assert kept["prediction"].to_pylist() == again["prediction"].to_pylist()


def test_another_model_version_or_an_empty_table_confirms_nothing(examples):
    two = examples.slice(0, 2)
    again = _rows([0.1, 0.2], version="v2", run="run 2", at=LATER, examples=two)
    assert keep_confirmed(again, _rows([0.1, 0.2], examples=two)).equals(again)
    assert keep_confirmed(again, again.slice(0, 0)).equals(again)
    assert keep_confirmed(again.slice(0, 0), again).num_rows == 0


def test_the_package_answers_as_its_weights_do_by_hand(trained, examples):
    """The whole forward pass in numpy, from weights.safetensors alone."""
    from safetensors.numpy import load

    package = trained[1].package
    w = load(package.weights)
    coded = encode(examples, package.signature, package.vocabulary)
    is_null = np.isnan(coded.numeric)
    shares = np.clip((np.where(is_null, -1e29, coded.numeric)[:, :, None] - w["lower"]) / w["width"], 0, 1)
    parts = [shares.reshape(3000, -1), is_null, w["embeddings.0.weight"][coded.categorical[:, 0]]]
    hidden = np.maximum(np.hstack(parts) @ w["layers.0.weight"].T + w["layers.0.bias"], 0)
    logit = hidden @ w["layers.3.weight"][0] + w["layers.3.bias"]
    np.testing.assert_allclose(score(package, examples), 1 / (1 + np.exp(-logit)), atol=1e-5)
