"""How good the predictions of a day proved to be for each airport, carrier or hour."""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.baselines import labels_of
from ml_assets.core.encoding import Task
from ml_assets.core.evaluation import Floats, log_losses

SLICE_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "model_version": pa.string(),
        "slice": pa.string(),
        "value": pa.string(),
        "n_decisions": pa.int64(),
        "n_labelled": pa.int64(),
        "mean_label": pa.float64(),
        "mean_prediction": pa.float64(),
        "log_loss": pa.float64(),
        "brier": pa.float64(),
        "roc_auc": pa.float64(),
        "rmse": pa.float64(),
        "mae": pa.float64(),
        "bias": pa.float64(),
    }
)
MISSING = "missing"
# Judgement: more values than this name single things (tail numbers), of which no day has enough rows.
MOST_VALUES = 50


def slice_performance(
    rows: pa.Table, columns: Sequence[str], *, use_case: str, day: date, model_version: str, task: Task
) -> pa.Table:
    """Measure each slice of one day: one row per column and value (``SLICE_SCHEMA``).

    Args:
        rows: one row per decision of the day: ``prediction``, ``label`` (null where there is none) and the columns.
        columns: what to slice by. A missing value is a slice of its own; of a column with more than 50 values the 50
            most frequent of the day.
        use_case: whose predictions they are.
        day: the local day.
        model_version: which version made them.
        task: what is predicted.

    All figures are of the labelled rows and null where there are none; ``mean_label`` of a classification is the share
    of positives. Days add up: the mean of a figure weighted by ``n_labelled`` is that of all their rows (of the RMSE
    the mean square), except for ``roc_auc``, which is null where a slice holds one class.
    """
    is_labelled = rows["label"].is_valid().to_numpy()
    labelled = rows.filter(pa.array(is_labelled))
    y, p = labels_of(labelled), np.asarray(labelled["prediction"].to_numpy(), np.float64)
    parts = [SLICE_SCHEMA.empty_table()]
    for column in columns:
        names, index, n_decisions = _values(rows[column])
        group = index[is_labelled]
        n_labelled = np.bincount(group, minlength=len(names))
        kept = _kept(names, n_decisions)
        figures = _figures(y, p, group, len(names), task)
        table: dict[str, object] = {
            "use_case": [use_case] * len(kept),
            "partition_on": [day] * len(kept),
            "model_version": [model_version] * len(kept),
            "slice": [column] * len(kept),
            "value": [names[i] for i in kept],
            "n_decisions": n_decisions[kept],
            "n_labelled": n_labelled[kept],
        }
        for name in SLICE_SCHEMA.names[len(table) :]:
            values = figures.get(name, np.full(len(names), np.nan))[kept]
            table[name] = pa.array(values, pa.float64(), mask=~np.isfinite(values))
        parts.append(pa.table(table, schema=SLICE_SCHEMA))
    return pa.concat_tables(parts)


def _values(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct values of a column as text, sorted, the place of each row's among them, and its rows."""
    text = pc.fill_null(column.cast(pa.string()), MISSING).combine_chunks().dictionary_encode()
    found = text.dictionary.to_pylist()
    order = sorted(range(len(found)), key=lambda i: found[i])
    place = np.empty(len(found), np.int64)
    place[order] = np.arange(len(found))
    index = place[text.indices.to_numpy()]
    return [found[i] for i in order], index, np.bincount(index, minlength=len(found))


def _kept(names: Sequence[str], n_decisions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the places of the most frequent values, in the order of their names."""
    most_frequent = sorted(range(len(names)), key=lambda i: (-n_decisions[i], names[i]))[:MOST_VALUES]
    return np.asarray(sorted(most_frequent), np.int64)


def _figures(y: Floats, p: Floats, group: npt.NDArray[np.int64], n_groups: int, task: Task) -> Mapping[str, Floats]:
    """Return the figures of each group, float64 [n_groups]; NaN where its rows do not determine one."""
    n_rows = np.bincount(group, minlength=n_groups)

    def mean(values: Floats) -> Floats:
        total = np.bincount(group, values, n_groups)
        return np.divide(total, n_rows, out=np.full(n_groups, np.nan), where=n_rows > 0)

    found = {"mean_label": mean(y), "mean_prediction": mean(p)}
    if task == "regression":
        return found | {"rmse": np.sqrt(mean((p - y) ** 2)), "mae": mean(np.abs(p - y)), "bias": mean(p - y)}
    losses = log_losses(y, p) if len(y) else y
    return found | {
        "log_loss": mean(losses),
        "brier": mean((p - y) ** 2),
        "bias": mean(p - y),
        "roc_auc": grouped_roc_auc(y, p, group, n_groups),
    }


def grouped_roc_auc(y: Floats, p: Floats, group: npt.NDArray[np.int64], n_groups: int) -> Floats:
    """Return the ROC AUC within each group, float64 [n_groups]: one sort for all groups, ties counting half.

    >>> grouped_roc_auc(np.array([0, 1, 1, 0.]), np.array([.1, .9, .2, .3]), np.array([0, 0, 1, 1]), 2).tolist()
    [1.0, 0.0]
    """
    order = np.lexsort((p, group))
    y, p, group = y[order], p[order], group[order]
    is_new = np.ones(len(p), bool)
    is_new[1:] = (p[1:] != p[:-1]) | (group[1:] != group[:-1])
    tie = np.cumsum(is_new) - 1
    positive, negative = np.bincount(tie, y), np.bincount(tie, 1 - y)
    of_tie = group[is_new]
    n_positive, n_negative = (np.bincount(of_tie, of, n_groups) for of in (positive, negative))
    before = np.cumsum(n_negative) - n_negative
    beaten = np.cumsum(negative) - negative / 2 - before[of_tie]
    won = np.bincount(of_tie, positive * beaten, n_groups)
    n_pairs = n_positive * n_negative
    return np.divide(won, n_pairs, out=np.full(n_groups, np.nan), where=n_pairs > 0)
