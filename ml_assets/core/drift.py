"""How far one day strays from training: drift of every feature and of the prediction, against fixed bins."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_assets.core.drift_tests import MINIMUM_ROWS, explain, judge_day, percent
from ml_assets.core.errors import DataMissing
from ml_assets.core.reference import (
    MINIMUM_PSI_LIMIT,
    BinKind,
    Bins,
    Floats,
    Reference,
    build_reference,
    population_stability,
)

__all__ = [
    "DRIFT_SCHEMA",
    "MINIMUM_ROWS",
    "BinKind",
    "Bins",
    "Reference",
    "Verdict",
    "build_reference",
    "drift_verdict",
    "measure_drift",
    "percent",
]

DRIFT_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "feature": pa.string(),
        "kind": pa.string(),
        "n_rows": pa.int64(),
        "psi": pa.float64(),
        "js": pa.float64(),
        "ks": pa.float64(),
        "missing_share": pa.float64(),
        "reference_missing_share": pa.float64(),
        "unseen_share": pa.float64(),
        "psi_limit": pa.float64(),
        "bin_counts": pa.string(),
        "p_value": pa.float64(),
        "moved_share": pa.float64(),
        "is_drifted": pa.bool_(),
        "severity": pa.string(),
        "explanation": pa.string(),
        "model_version": pa.string(),
    }
)

# Judgement, with the 99 of 100 days in the limits: an alarm needs a broad shift that lasts, not one odd feature or day.
_DRIFTED_FEATURES_SHARE = 0.2
_N_DAYS, _N_DAYS_DRIFTED = 3, 2


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether monitoring raises an alarm, and why (or why not), one sentence each."""

    is_alarming: bool
    reasons: tuple[str, ...]


def measure_drift(
    reference: Reference,
    examples: pa.Table,
    predictions: npt.ArrayLike,
    *,
    use_case: str,
    model_version: str,
    day: date,
) -> pa.Table:
    """Compare a day's rows with training, one row for the prediction and one for each feature (``DRIFT_SCHEMA``).

    Args:
        reference: the fixed bins from the model package.
        examples: the day's rows with a column for each feature.
        predictions: shape (n,), the model's predictions for the same rows; NaN counts as missing.
        use_case: whose model it is.
        model_version: which version the reference belongs to.
        day: the local day.

    ``psi`` (see ``population_stability``) and ``js`` compare the shares of all bins, missing included. ``js`` is the
    Jensen-Shannon distance, base 2, from 0 to 1 (Lin 1991; Endres & Schindelin 2003). ``ks`` is the Kolmogorov-Smirnov
    statistic of the binned values that are not missing; null for a category and where all values are missing.
    ``psi_limit`` is the reference's limit, moved by the sampling noise ``(bins - 1) (1 / n - 1 / n_of_a_training_day)``
    that a smaller or larger day brings (Yurdakul 2018), never below 0.1. What has drifted, ``judge_day`` says. On a day
    without rows all statistics are null.

    Raises DataMissing where the examples lack a feature, ValueError where lengths differ.
    """
    values = _columns(reference, examples, predictions)
    bins = reference.all_bins
    n_rows = examples.num_rows
    if not n_rows:
        return _table([_row_of_empty_day(b) for b in bins], use_case=use_case, model_version=model_version, day=day)
    width = max(len(b.shares) for b in bins)
    p, q = np.zeros((len(bins), width)), np.zeros((len(bins), width))
    counts = {
        b.feature: np.bincount(b.index(column), minlength=len(b.shares)) for b, column in zip(bins, values, strict=True)
    }
    judged = judge_day(reference, counts)
    for i, b in enumerate(bins):
        p[i, : len(b.shares)] = counts[b.feature] / n_rows
        q[i, : len(b.shares)] = b.shares
    psi, js = population_stability(p, q), _jensen_shannon(p, q)
    noise = np.array([b.n_used - 1 for b in bins]) * (1 / n_rows - 1 / reference.n_rows_per_day)
    limits = np.maximum(MINIMUM_PSI_LIMIT, np.array([b.psi_limit for b in bins]) + noise)
    rows: list[dict[str, object]] = []
    for i, (b, column) in enumerate(zip(bins, values, strict=True)):
        shares = p[i, : len(b.shares)]
        judgement = judged[b.feature]
        rows.append(
            {
                "feature": b.feature,
                "kind": b.kind,
                "n_rows": n_rows,
                "psi": float(psi[i]),
                "js": float(js[i]),
                "ks": _kolmogorov_smirnov(b, shares),
                "missing_share": float(shares[-1]),
                "reference_missing_share": b.missing_share,
                "unseen_share": b.unseen_share(shares),
                "psi_limit": float(limits[i]),
                "bin_counts": json.dumps(counts[b.feature].tolist()),
                "p_value": judgement.p_value,
                "moved_share": judgement.moved_share,
                "is_drifted": judgement.is_drifted,
                "severity": judgement.severity,
                "explanation": explain(b, counts[b.feature], unseen=_unseen(b, column)),
            }
        )
    return _table(rows, use_case=use_case, model_version=model_version, day=day)


def drift_verdict(recent: pa.Table) -> Verdict:
    """Judge the newest day of ``monitoring.drift`` rows of one use case together with the two days before it.

    It alarms when, on at least two of these three calendar days, the prediction or at least 20 % of the features are
    drifted. Only rows of the newest day's model version count: a new champion starts with a clean slate.

    Raises DataMissing where there are no rows.
    """
    if not recent.num_rows:
        raise DataMissing("no drift has been measured yet; materialize the drift of a day first")
    rows = recent.select(["partition_on", "model_version", "feature", "kind", "is_drifted"]).to_pylist()
    newest = max(row["partition_on"] for row in rows)
    version = next(row["model_version"] for row in rows if row["partition_on"] == newest)
    reasons: list[str] = []
    for day in (newest - timedelta(days=back) for back in reversed(range(_N_DAYS))):
        of_day = [row for row in rows if row["partition_on"] == day and row["model_version"] == version]
        drifted = [row["feature"] for row in of_day if row["is_drifted"] and row["kind"] != "prediction"]
        n_features = sum(row["kind"] != "prediction" for row in of_day)
        if any(row["is_drifted"] and row["kind"] == "prediction" for row in of_day):
            reasons.append(f"{day}: the prediction is drifted, with {len(drifted)} of {n_features} features")
        elif n_features and len(drifted) >= _DRIFTED_FEATURES_SHARE * n_features:
            reasons.append(f"{day}: {len(drifted)} of {n_features} features are drifted")
    is_alarming = len(reasons) >= _N_DAYS_DRIFTED
    if not reasons:
        reasons.append(
            f"neither the prediction nor a fifth of the features is drifted on the {_N_DAYS} days to {newest}"
        )
    return Verdict(is_alarming=is_alarming, reasons=tuple(reasons))


def _columns(
    reference: Reference, examples: pa.Table, predictions: npt.ArrayLike
) -> Sequence[pa.ChunkedArray | pa.Array]:
    scores = np.asarray(predictions, np.float64)
    if scores.shape != (examples.num_rows,):
        raise ValueError(f"found {scores.shape} predictions for {examples.num_rows} examples; expected one for each")
    lacking = sorted({b.feature for b in reference.features} - set(examples.column_names))
    if lacking:
        raise DataMissing(f"the examples lack the features {lacking} that the model reads; materialize them again")
    return [pa.array(scores), *(examples.column(b.feature) for b in reference.features)]


def _jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Return sqrt((KL(p, m) + KL(q, m)) / 2), m the mean of both, base 2, over the last axis."""
    m = (p + q) / 2

    def divergence(x: Floats) -> Floats:
        return np.sum(x * np.log2(np.divide(x, m, out=np.ones_like(x), where=x > 0)), axis=-1)

    # Rounding can leave equal shares a hair below zero.
    return np.sqrt(np.maximum(0.0, (divergence(p) + divergence(q)) / 2))


def _kolmogorov_smirnov(bins: Bins, shares: Floats) -> float | None:
    day, training = shares[:-1], np.asarray(bins.shares[:-1])
    if bins.kind == "categorical" or not day.sum() or not training.sum():
        return None
    return float(np.abs(np.cumsum(day) / day.sum() - np.cumsum(training) / training.sum()).max())


def _unseen(bins: Bins, values: pa.ChunkedArray | pa.Array) -> list[str]:
    """Return the categories of the day that training never showed."""
    if bins.kind != "categorical":
        return []
    return values.filter(pa.array(bins.index(values) == len(bins.shares) - 2)).cast(pa.string()).unique().to_pylist()


def _row_of_empty_day(bins: Bins) -> dict[str, object]:
    return {
        "feature": bins.feature,
        "kind": bins.kind,
        "n_rows": 0,
        "reference_missing_share": bins.missing_share,
        "psi_limit": bins.psi_limit,
        "bin_counts": json.dumps([0] * len(bins.shares)),
        "is_drifted": False,
        "severity": "",
        "explanation": "no rows on this day",
    }


def _table(rows: Sequence[dict[str, object]], *, use_case: str, model_version: str, day: date) -> pa.Table:
    fixed = {"use_case": use_case, "partition_on": day, "model_version": model_version}
    return pa.Table.from_pylist([row | fixed for row in rows], schema=DRIFT_SCHEMA)
