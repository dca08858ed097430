"""Scoring with a model package: Arrow in, answers out, through ONNX Runtime and no training library."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.encoding import Coded, Signature, encode
from ml_assets.core.errors import BadInput, PackageRefused
from ml_assets.core.package import ModelPackage
from ml_assets.core.portable_model import portable_inputs

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PREDICTIONS_SCHEMA = pa.schema(
    {
        "decision_id": pa.string(),
        "partition_on": pa.date32(),
        "decided_at": pa.timestamp("us", tz="UTC"),
        "prediction": pa.float64(),
        "model_version": pa.string(),
        "run_id": pa.string(),
        "predicted_at": pa.timestamp("us", tz="UTC"),
    }
)
# A session keeps what its largest run needed, and a smaller run is not slower.
_ROWS_AT_ONCE = 4_096
_CONFIRMED_BY = ("partition_on", "decided_at", "prediction", "model_version")


def score(package: ModelPackage, examples: pa.Table, *, batch_rows: int = 65536, n_threads: int = 1) -> np.ndarray:
    """Return the probability (of a regression the number) of each example, float64 [n], in the order of the rows.

    Raises BadInput for examples without the columns the model reads, PackageRefused for an answer that is no number.
    """
    parts = [np.empty(0, dtype=np.float64)]
    for start in range(0, examples.num_rows, batch_rows):
        coded = encode(examples.slice(start, batch_rows), package.signature, package.vocabulary)
        parts.append(score_coded(package.model, coded, n_threads=n_threads))
    scores = np.concatenate(parts)
    n_bad = int(np.count_nonzero(~np.isfinite(scores)))
    if n_bad:
        raise PackageRefused(
            f"{package.use_case} {package.version} gives no number for {n_bad} of {len(scores)} examples"
        )
    return scores


def score_coded(model: bytes, coded: Coded, *, n_threads: int = 1) -> np.ndarray:
    """Return the answers, float64 [n], an ONNX model gives for coded inputs."""
    if not len(coded):
        return np.empty(0, dtype=np.float64)
    session, parts = _session(model, n_threads), list[np.ndarray]()
    for start in range(0, len(coded), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        inputs = {"numeric": coded.numeric[rows], "categorical": coded.categorical[rows]}
        parts.append(cast("Sequence[np.ndarray]", session.run(["prediction"], inputs))[0].reshape(-1))
    return np.concatenate(parts).astype(np.float64)


def score_portable(portable: bytes, examples: pa.Table, signature: Signature, *, n_threads: int = 1) -> np.ndarray:
    """Return the answers, float64 [n], the portable graph gives for raw columns: what other languages see."""
    if not examples.num_rows:
        return np.empty(0, dtype=np.float64)
    session = _session(portable, n_threads)
    answer = cast("Sequence[np.ndarray]", session.run(["prediction"], dict(portable_inputs(examples, signature))))
    return answer[0].astype(np.float64)


def prediction_rows(
    examples: pa.Table, scores: np.ndarray, *, model_version: str, run_id: str, predicted_at: datetime
) -> pa.Table:
    """Return one row of ``predictions.<use_case>`` per example; ``predicted_at`` in UTC."""
    n_rows = examples.num_rows
    if len(scores) != n_rows:
        raise BadInput(f"there are {len(scores)} scores for {n_rows} examples; expected one each")
    columns = {name: examples[name] for name in ("decision_id", "partition_on", "decided_at")}
    columns["prediction"] = pa.array(scores, type=pa.float64())
    for name, value in (("model_version", model_version), ("run_id", run_id), ("predicted_at", predicted_at)):
        columns[name] = pa.repeat(pa.scalar(value, type=PREDICTIONS_SCHEMA.field(name).type), n_rows)
    return pa.table(columns).cast(PREDICTIONS_SCHEMA)


def keep_confirmed(new_rows: pa.Table, existing_rows: pa.Table) -> pa.Table:
    """Return the new rows, with run and time of the existing row wherever that says exactly the same.

    A decision is confirmed if its day, time, prediction (to the last bit) and model version agree. So scoring a day
    again changes no row, and a row tells when its prediction was first made.
    """
    if not new_rows.num_rows or not existing_rows.num_rows:
        return new_rows
    new = new_rows.select(PREDICTIONS_SCHEMA.names)
    existing = existing_rows.select(PREDICTIONS_SCHEMA.names).cast(PREDICTIONS_SCHEMA)
    lookup = pc.SetLookupOptions(value_set=existing["decision_id"].combine_chunks())
    found = pc.call_function("index_in", [new["decision_id"]], lookup).fill_null(-1).to_numpy()
    rows = np.flatnonzero(found >= 0)
    positions = found[rows]
    agrees = np.ones(len(rows), dtype=bool)
    for name in _CONFIRMED_BY:
        ours, theirs = new[name].to_numpy()[rows], existing[name].to_numpy()[positions]
        agrees &= np.asarray(ours == theirs)
    source = np.arange(new.num_rows)
    source[rows[agrees]] = new.num_rows + positions[agrees]
    return pa.concat_tables([new, existing]).take(pa.array(source))


# As many models as the use cases of a day have: each a champion and two predecessors.
@lru_cache(maxsize=16)
def _session(model: bytes, n_threads: int) -> "InferenceSession":
    """Return the session of a model, opened once for the same bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
