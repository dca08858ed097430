"""What the models read when they predicted, kept of a sample of each day's decisions and never changed again."""

import json
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.key_hashes import key_hashes
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.point_in_time.join import KEPT
from ml_assets.core.ports import Warehouse
from ml_assets.core.spec import UseCase

# Judgement: a fault of one row in fifty is in such a sample with a probability of 98 %.
SAMPLED_A_DAY = 200
SERVED_SCHEMA = pa.schema(
    {
        "decision_id": pa.string(),
        "partition_on": pa.date32(),
        "decided_at": pa.timestamp("us", tz="UTC"),
        "features": pa.string(),
        "model_version": pa.string(),
        "run_id": pa.string(),
        "predicted_at": pa.timestamp("us", tz="UTC"),
    }
)
_NO_FEATURES = {*KEPT, "label", "label_known_at", "no_label_reason"}
_OF_THE_PREDICTION = ("model_version", "run_id", "predicted_at")

Value = bool | int | float | str | None


def served_rows(
    warehouse: Warehouse, use_case: UseCase, days: DayRange, *, examples: pa.Table, predictions: pa.Table
) -> pa.Table:
    """Return what ``predictions.<use_case>_served`` shall hold of these days: what it holds, and what is new.

    A row is one example as it was read for one prediction; ``features`` is its JSON object, numbers to the last bit.
    ``examples`` are those that were read and ``predictions`` the rows to be written for them, of which the confirmed
    ones carry the run and the time of an earlier scoring: of that one the record is kept as it is. Of each day the 200
    decisions with the smallest hashes are recorded. A row that is there is never changed and never goes.
    """
    known = _known(warehouse, use_case, days)
    new = _sampled(predictions)
    if known.num_rows:
        new = new.filter(pa.array(~np.isin(_keys(new), _keys(known))))
    if not new.num_rows:
        return known
    read = examples.filter(pc.field("decision_id").isin(new["decision_id"].combine_chunks()))
    documents = dict(zip(read["decision_id"].to_pylist(), documents_of(read), strict=True))
    features = pa.array([documents[decision] for decision in new["decision_id"].to_pylist()], pa.string())
    rows = pa.table(
        {
            **{name: new[name] for name in KEPT},
            "features": features,
            **{name: new[name] for name in _OF_THE_PREDICTION},
        }
    )
    return pa.concat_tables([known, rows.cast(SERVED_SCHEMA)])


def documents_of(examples: pa.Table) -> Sequence[str]:
    """Return the features of each example as a JSON object, in the order of the columns."""
    return [json.dumps(values) for values in values_of(examples)]


def values_of(examples: pa.Table) -> Sequence[Mapping[str, Value]]:
    """Return the features of each example as plain values that JSON gives back to the last bit.

    >>> values_of(pa.table({"decision_id": ["a"], "origin": ["EWR"], "wind_speed_mph": [0.1], "n_flights": [3]}))
    [{'origin': 'EWR', 'wind_speed_mph': 0.1, 'n_flights': 3}]
    """
    features = examples.select([name for name in examples.column_names if name not in _NO_FEATURES])
    fields = [pa.field(field.name, _plain(field.type)) for field in features.schema]
    return cast("list[Mapping[str, Value]]", features.cast(pa.schema(fields)).to_pylist())


def values_in(document: str) -> Mapping[str, Value]:
    """Return the features that a row of the table holds."""
    return cast("Mapping[str, Value]", json.loads(document))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return kind
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    return pa.string()


def _sampled(predictions: pa.Table) -> pa.Table:
    """Return the rows of each day's decisions with the smallest hashes, by day and decision."""
    if not predictions.num_rows:
        return predictions
    hashes = key_hashes(predictions.select(["decision_id"]))
    days = predictions["partition_on"].to_numpy()
    order = np.lexsort((hashes, days))
    firsts = np.flatnonzero(np.r_[True, days[order][1:] != days[order][:-1]])
    rank = np.arange(len(order)) - np.repeat(firsts, np.diff(np.r_[firsts, len(order)]))
    return predictions.take(pa.array(np.sort(order[rank < SAMPLED_A_DAY])))


def _keys(rows: pa.Table) -> np.ndarray:
    """Return which prediction of which decision each row is of, as one text, object [n]."""
    parts = [rows["decision_id"], rows["run_id"], rows["predicted_at"].cast(pa.int64()).cast(pa.string())]
    return pc.call_function("binary_join_element_wise", [*parts, pa.scalar(" ")]).to_numpy()


def _known(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> pa.Table:
    if warehouse.columns(use_case.served_table) is None:
        return SERVED_SCHEMA.empty_table()
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = (
        f"SELECT {', '.join(SERVED_SCHEMA.names)} FROM {use_case.served_table} WHERE {of_days} "  # noqa: S608 - validated names
        "ORDER BY partition_on, decision_id, predicted_at"
    )
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).cast(SERVED_SCHEMA)
