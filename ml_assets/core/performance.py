"""How good the predictions of a day proved to be, once its labels are known."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.drift import Verdict
from ml_assets.core.errors import DataMissing
from ml_assets.core.evaluation import Floats, Metrics, evaluate, log_loss

__all__ = ["PERFORMANCE_SCHEMA", "Verdict", "measure_performance", "performance_verdict"]

PERFORMANCE_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "model_version": pa.string(),
        "n_decisions": pa.int64(),
        "n_labelled": pa.int64(),
        "n_unlabelled": pa.int64(),
        "n_cancelled": pa.int64(),
        "n_diverted": pa.int64(),
        "n_not_landed": pa.int64(),
        "positive_share": pa.float64(),
        "mean_prediction": pa.float64(),
        "roc_auc": pa.float64(),
        "pr_auc": pa.float64(),
        "log_loss": pa.float64(),
        "brier": pa.float64(),
        "calibration_error": pa.float64(),
        "base_rate_log_loss": pa.float64(),
    }
)

_REASONS = {"n_cancelled": "cancelled", "n_diverted": "diverted", "n_not_landed": "not landed"}

# Judgement: one stormy day ranks badly by nature; a week that loses 0.05 of ROC AUC is a model that has aged.
_N_DAYS = 7
_ROC_AUC_TOLERANCE = 0.05


def measure_performance(
    examples_and_predictions: pa.Table, *, use_case: str, day: date, model_version: str
) -> pa.Table:
    """Measure one day's predictions against its labels; one row (``PERFORMANCE_SCHEMA``).

    Args:
        examples_and_predictions: one row per decision of the day: ``prediction``, ``label`` (null where there is none),
            ``no_label_reason``.
        use_case: whose predictions they are.
        day: the local day.
        model_version: which version made them.

    ``n_unlabelled`` also counts decisions whose reason is none of the three counted beside it. ``positive_share`` and
    the metrics are of the labelled decisions and null where there are none; ``roc_auc`` and ``pr_auc`` are null too
    where the labelled decisions hold one class. ``mean_prediction`` is of the labelled decisions, so that it compares
    with ``positive_share``. ``base_rate_log_loss`` is the loss of predicting the day's own positive share for everyone,
    a base rate that knows the day's outcome: beating it is hard on purpose.
    """
    table = examples_and_predictions
    labelled = table.filter(pc.field("label").is_valid())
    counted = {
        name: int(pc.sum(pc.equal(table.column("no_label_reason"), reason)).as_py() or 0)
        for name, reason in _REASONS.items()
    }
    row: dict[str, object] = {
        "use_case": use_case,
        "partition_on": day,
        "model_version": model_version,
        "n_decisions": table.num_rows,
        "n_labelled": labelled.num_rows,
        "n_unlabelled": table.num_rows - labelled.num_rows,
        **counted,
    }
    return pa.Table.from_pylist([row | (_quality(labelled) if labelled.num_rows else {})], schema=PERFORMANCE_SCHEMA)
