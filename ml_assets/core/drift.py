"""How far one day strays from training: drift of every feature and of the prediction, against fixed bins."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_assets.core.broken_feeds import broken_feed
from ml_assets.core.column_statistics import ColumnStatistics, column_statistics, statistics_of
from ml_assets.core.days import DayRange
from ml_assets.core.distances import chi_square, jensen_shannon, kolmogorov_smirnov, population_stability, wasserstein
from ml_assets.core.drift_tests import MINIMUM_ROWS, explain, judge_day, percent
from ml_assets.core.errors import BadInput, DataMissing
from ml_assets.core.moments import Moments
from ml_assets.core.monitored import DRIFT
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.recalled import recall_package
from ml_assets.core.reference import BinKind, Bins, Floats, Reference, build_reference
from ml_assets.core.spec import UseCase

__all__ = [
    "DRIFT_SCHEMA",
    "MINIMUM_ROWS",
    "BinKind",
    "Bins",
    "Reference",
    "build_reference",
    "drift_of",
    "drift_of_days",
    "measure_drift",
    "percent",
    "write_drift",
]

DRIFT_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "feature": pa.string(),
        "view": pa.string(),
        "kind": pa.string(),
        "n_rows": pa.int64(),
        "n_missing": pa.int64(),
        "mean": pa.float64(),
        "sd": pa.float64(),
        "minimum": pa.float64(),
        "maximum": pa.float64(),
        "psi": pa.float64(),
        "js": pa.float64(),
        "ks": pa.float64(),
        "wasserstein": pa.float64(),
        "chi_square": pa.float64(),
        "missing_share": pa.float64(),
        "reference_missing_share": pa.float64(),
        "unseen_share": pa.float64(),
        "bin_counts": pa.string(),
        "p_value": pa.float64(),
        "moved_share": pa.float64(),
        "is_drifted": pa.bool_(),
        "severity": pa.string(),
        "explanation": pa.string(),
        "model_version": pa.string(),
    }
)

# Tables of release 0.1.0 hold a limit here that nothing is held against any more; new rows leave it empty.
_RETIRED = "psi_limit"


def write_drift(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> pa.Table:
    """Measure how far each of the days strays from training, write it to ``monitoring.drift`` and return it.

    The features are counted over the day's examples and the prediction over its predictions, where they lie
    (``column_statistics``), each day against the training of the model that predicted it: one scan of each table for
    every stretch of days of one model. A day without predictions has no rows. What is written of a day depends on that
    day alone.

    Raises BadInput where a day has predictions of two models.
    """
    with warehouse.session():
        parts = [DRIFT_SCHEMA.empty_table()]
        for version, stretch in _stretches_of_models(warehouse, use_case, days):
            reference = recall_package(store, use_case.name, version).reference
            parts.append(drift_of_days(warehouse, use_case, reference, stretch, model_version=version))
        rows = pa.concat_tables(parts)
        stored = rows
        if _RETIRED in (warehouse.columns(DRIFT) or ()):
            stored = rows.append_column(_RETIRED, pa.nulls(rows.num_rows, pa.float64()))
        warehouse.replace_days({DRIFT: stored}, days, use_case=use_case.name)
    return rows


def drift_of_days(
    warehouse: Warehouse, use_case: UseCase, reference: Reference, days: DayRange, *, model_version: str
) -> pa.Table:
    """Return the drift of the days that have examples and predictions, all of one model; its training is given."""
    of_features = column_statistics(warehouse, use_case.examples_table, reference.features, days)
    of_prediction = column_statistics(warehouse, use_case.predictions_table, [reference.prediction], days)
    found = {day: {**of_prediction[day], **of_features[day]} for day in sorted(of_prediction) if day in of_features}
    parts = [
        drift_of(reference, statistics, use_case=use_case.name, model_version=model_version, day=day)
        for day, statistics in found.items()
    ]
    return pa.concat_tables([DRIFT_SCHEMA.empty_table(), *parts])


def measure_drift(
    reference: Reference,
    examples: pa.Table,
    predictions: npt.ArrayLike,
    *,
    use_case: str,
    model_version: str,
    day: date,
) -> pa.Table:
    """Compare a day's rows that are at hand with training: what ``write_drift`` writes of the same rows.

    Args:
        reference: the fixed bins from the model package.
        examples: the day's rows with a column for each feature.
        predictions: shape (n,), the model's predictions for the same rows; NaN counts as missing.
        use_case: whose model it is.
        model_version: which version the reference belongs to.
        day: the local day.

    Raises DataMissing where the examples lack a feature, ValueError where lengths differ.
    """
    values = _columns(reference, examples, predictions)
    found = {b.feature: statistics_of(b, column) for b, column in zip(reference.all_bins, values, strict=True)}
    return drift_of(reference, found, use_case=use_case, model_version=model_version, day=day)


def drift_of(
    reference: Reference,
    statistics: Mapping[str, ColumnStatistics],
    *,
    use_case: str,
    model_version: str,
    day: date,
) -> pa.Table:
    """Compare the statistics of a day with training, one row for the prediction and one for each feature.

    ``psi`` and ``js`` compare the shares of all bins, missing included; ``ks`` and ``wasserstein`` (in standard
    deviations of training) those of the numbers that are not missing, and are null for a category and where all are
    missing, and ``wasserstein`` where training was constant or did not keep its moments. ``chi_square`` is of all bins'
    counts. Each formula is in ``distances``. What has drifted, ``judge_day`` says, and a feed that is broken is drifted
    too (``broken_feeds``). On a day without rows all statistics are null.
    """
    bins = reference.all_bins
    n_rows = np.array([statistics[b.feature].n_rows for b in bins])
    if not n_rows.all():
        return _table([_row_of_empty_day(b) for b in bins], use_case=use_case, model_version=model_version, day=day)
    counts = {b.feature: statistics[b.feature].counts for b in bins}
    judged = judge_day(reference, counts)
    distances = _distances(reference, statistics)
    rows: list[dict[str, object]] = []
    for i, b in enumerate(bins):
        found, judgement = statistics[b.feature], judged[b.feature]
        broken = broken_feed(b, found)
        shares = found.counts / found.n_rows
        rows.append(
            {
                "feature": b.feature,
                "view": b.view,
                "kind": b.kind,
                "n_rows": found.n_rows,
                "n_missing": int(found.counts[-1]),
                "mean": found.moments.mean,
                "sd": found.moments.sd,
                "minimum": found.moments.minimum,
                "maximum": found.moments.maximum,
                **{name: None if np.isnan(of[i]) else float(of[i]) for name, of in distances.items()},
                "missing_share": float(shares[-1]),
                "reference_missing_share": b.missing_share,
                "unseen_share": b.unseen_share(shares),
                "bin_counts": json.dumps(found.counts.tolist()),
                "p_value": judgement.p_value,
                "moved_share": judgement.moved_share,
                "is_drifted": judgement.is_drifted or broken is not None,
                "severity": "severe" if broken else judgement.severity,
                "explanation": broken or explain(b, found.counts, unseen=found.unseen),
            }
        )
    return _table(rows, use_case=use_case, model_version=model_version, day=day)


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


def _stretches_of_models(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> Iterator[tuple[str, DayRange]]:
    """Yield each stretch of days that one model predicted, with its version; empty days may lie inside."""
    marked = Sql(dialect=warehouse.dialect)
    sql = f"""
        select partition_on, min(model_version) as version, max(model_version) as other
        from {use_case.predictions_table} where {marked.of_days()}
        group by partition_on order by partition_on
    """  # noqa: S608 - validated names
    rows = warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist()
    for row in rows:
        if row["version"] != row["other"]:
            raise BadInput(
                f"{use_case.predictions_table} has predictions of {row['version']} and {row['other']} on "
                f"{row['partition_on']}; expected one model a day, materialize {use_case.name}/predictions of it again"
            )
    for version, stretch in groupby(rows, key=lambda row: cast("str", row["version"])):
        predicted = [cast("date", row["partition_on"]) for row in stretch]
        yield version, DayRange(first=predicted[0], last=predicted[-1])


def _distances(reference: Reference, statistics: Mapping[str, ColumnStatistics]) -> Mapping[str, Floats]:
    """Lay all columns side by side, padded to the widest; return each distance by name, NaN where it says nothing."""
    bins = reference.all_bins
    width = max(len(b.shares) for b in bins)
    counts, q = np.zeros((len(bins), width)), np.zeros((len(bins), width))
    for i, b in enumerate(bins):
        counts[i, : len(b.shares)], q[i, : len(b.shares)] = statistics[b.feature].counts, b.shares
    p = counts / counts.sum(axis=1, keepdims=True)
    found = {
        "psi": population_stability(p, q),
        "js": jensen_shannon(p, q),
        "chi_square": chi_square(counts, np.rint(q * reference.n_rows)),
        "ks": np.full(len(bins), np.nan),
        "wasserstein": np.full(len(bins), np.nan),
    }
    numbers = [i for i, b in enumerate(bins) if b.kind != "categorical"]
    present = counts[numbers], q[numbers]
    for row, i in enumerate(numbers):  # the last bin holds the missing ones
        for of in present:
            of[row, len(bins[i].shares) - 1] = 0.0
    found["ks"][numbers] = kolmogorov_smirnov(*present)
    limits = np.array([_limits(bins[i], statistics[bins[i].feature].moments, width) for i in numbers])
    scale = np.array([bins[i].sd or np.nan for i in numbers], np.float64)
    found["wasserstein"][numbers] = wasserstein(*present, limits) / scale
    return found


def _limits(bins: Bins, day: Moments, width: int) -> Sequence[float]:
    """Return where each bin of a number begins, and the last ends; those outside training's range end with the day."""
    edges = bins.edges or (0.0,)
    low, high = (day.minimum, day.maximum) if day.minimum is not None and day.maximum is not None else (edges[0],) * 2
    limits = [min(low, edges[0]), *edges, max(high, edges[-1])]
    return limits + [limits[-1]] * (width + 1 - len(limits))


def _row_of_empty_day(bins: Bins) -> dict[str, object]:
    return {
        "feature": bins.feature,
        "view": bins.view,
        "kind": bins.kind,
        "n_rows": 0,
        "n_missing": 0,
        "reference_missing_share": bins.missing_share,
        "bin_counts": json.dumps([0] * len(bins.shares)),
        "is_drifted": False,
        "severity": "",
        "explanation": "no rows on this day",
    }


def _table(rows: Sequence[dict[str, object]], *, use_case: str, model_version: str, day: date) -> pa.Table:
    fixed = {"use_case": use_case, "partition_on": day, "model_version": model_version}
    return pa.Table.from_pylist([row | fixed for row in rows], schema=DRIFT_SCHEMA)
