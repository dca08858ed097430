"""Quality by slice: the figures of each slice as if it were all there is."""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.core.encoding import Task
from ml_assets.core.evaluation import evaluate
from ml_assets.core.regression import evaluate_regression
from ml_assets.core.slice_performance import SLICE_SCHEMA, slice_performance

DAY = date(2013, 7, 1)


def rows_of(task: Task) -> pa.Table:
    generator = np.random.default_rng(9)
    n_rows = 600
    p = generator.random(n_rows).round(2)
    y = (generator.random(n_rows) < p) if task == "binary_classification" else p + generator.normal(0, 0.1, n_rows)
    label = pa.array(y.tolist(), mask=np.arange(n_rows) % 11 == 0)
    carriers = [["AA", "UA", None, "ZZ"][i] for i in generator.choice(4, n_rows, p=[0.5, 0.3, 0.19, 0.01])]
    return pa.table(
        {"prediction": p, "label": label, "carrier": carriers, "hour": pa.array(generator.integers(0, 3, n_rows))}
    )


@pytest.mark.parametrize("task", ["binary_classification", "regression"])
def test_each_slice_has_the_figures_of_its_rows_alone(task: Task):
    rows = rows_of(task)
    found = slice_performance(rows, ("carrier", "hour"), use_case="delay", day=DAY, model_version="v1", task=task)
    assert found.schema == SLICE_SCHEMA
    of = [(row["slice"], row["value"]) for row in found.to_pylist()]
    assert of == [("carrier", v) for v in ("AA", "UA", "ZZ", "missing")] + [("hour", v) for v in ("0", "1", "2")]
    for row in found.to_pylist():
        is_missing = row["value"] == "missing"
        column = rows[row["slice"]].cast(pa.string())
        mine = rows.filter(pc.is_null(column) if is_missing else pc.equal(column, row["value"]))
        labelled = mine.filter(pc.field("label").is_valid())
        assert (row["n_decisions"], row["n_labelled"]) == (mine.num_rows, labelled.num_rows)
        y, p = (np.asarray(labelled[name].to_pylist(), float) for name in ("label", "prediction"))
        measured = evaluate(y, p) if task == "binary_classification" else evaluate_regression(y, p)
        for name in ("log_loss", "brier", "roc_auc", "rmse", "mae"):
            expected = getattr(measured, name, None)
            assert row[name] == (None if expected is None else pytest.approx(expected)), (row["value"], name)
        assert row["mean_label"] == pytest.approx(y.mean())
        assert row["bias"] == pytest.approx((p - y).mean())


def test_a_slice_without_labels_has_its_decisions_and_no_figures():
    rows = pa.table({"prediction": [0.5, 0.4], "label": pa.nulls(2, pa.bool_()), "carrier": ["AA", "AA"]})
    (row,) = slice_performance(
        rows, ["carrier"], use_case="delay", day=DAY, model_version="v1", task="binary_classification"
    ).to_pylist()
    assert (row["n_decisions"], row["n_labelled"]) == (2, 0)
    assert all(row[name] is None for name in SLICE_SCHEMA.names[7:])


def test_of_a_column_that_names_single_things_the_most_frequent_values_are_kept():
    names = [f"N{i:03}" for i in range(80)] + ["N007", "N079"]
    rows = pa.table({"prediction": [0.5] * 82, "label": [True] * 82, "tail": names})
    found = slice_performance(
        rows, ["tail"], use_case="delay", day=DAY, model_version="v1", task="binary_classification"
    )
    assert found.num_rows == 50
    assert found["n_decisions"].to_pylist()[found["value"].to_pylist().index("N079")] == 2
    assert found["value"].to_pylist() == sorted(found["value"].to_pylist())
