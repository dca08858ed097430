"""Slices of the holdout: how good a candidate is for each airport, carrier or hour, beside another model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.evaluation import Floats
from ml_assets.core.feature_views import Feature
from ml_assets.core.paired_bootstrap import DayResamples, Estimate
from ml_assets.core.spec import MONTH, PromotionRule, UseCase

_MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class SliceQuality:
    """The rows of the holdout that have one value in one column.

    The gains are as in ``Comparison``: above 0 the candidate is better than the model it is held against.
    """

    column: str
    value: str
    n_rows: int
    n_positive: int
    log_loss: Estimate
    roc_auc: Estimate
    log_loss_gain: Estimate
    roc_auc_gain: Estimate

    @property
    def name(self) -> str:
        """What the slice is called: ``carrier=UA``."""
        return f"{self.column}={self.value}"


def slice_columns(use_case: UseCase, inputs: Sequence[Feature]) -> tuple[str, ...]:
    """Return the columns to slice by: those the use case declares, or else its categorical features.

    Raises InvalidDeclaration for a declared one that is neither a feature nor ``month``.
    """
    known = {feature.name for feature in inputs} | {MONTH}
    unknown = [name for name in use_case.slices if name not in known]
    if unknown:
        raise InvalidDeclaration(
            f"{use_case.name} slices by {unknown}, which are none of its features; choose from {sorted(known)}"
        )
    return use_case.slices or tuple(feature.name for feature in inputs if feature.kind == "categorical")


def slice_qualities(
    holdout: pa.Table,
    columns: Sequence[str],
    *,
    y: Floats,
    candidate: Floats,
    other: Floats,
    resamples: DayResamples,
    rule: PromotionRule,
) -> tuple[SliceQuality, ...]:
    """Measure the candidate and another model on each slice that is large enough to be judged.

    Large enough: ``rule.slice_minimum_rows`` rows on at least two days, with ``rule.slice_minimum_positives`` of either
    class. A missing value is a slice of its own, ``month`` is that of the local day. Sorted by column, largest first.
    """
    found: list[SliceQuality] = []
    for column in columns:
        values, place = np.unique(_values(holdout, column), return_inverse=True)
        n_rows, n_positive = np.bincount(place), np.bincount(place, y)
        is_large = (n_rows >= rule.slice_minimum_rows) & (
            np.minimum(n_positive, n_rows - n_positive) >= rule.slice_minimum_positives
        )
        for index in sorted(np.flatnonzero(is_large), key=lambda i: (-n_rows[i], values[i])):
            rows = place == index
            part = _measured(column, str(values[index]), y[rows], candidate[rows], other[rows], resamples.only(rows))
            found += [part] if part else []
    return tuple(found)


def _measured(
    column: str, value: str, y: Floats, candidate: Floats, other: Floats, resamples: DayResamples
) -> SliceQuality | None:
    """Measure one slice; None where its days are too few to tell the noise."""
    log_loss, roc_auc = resamples.log_loss(y, candidate), resamples.roc_auc(y, candidate)
    own_loss, own_auc = resamples.estimate(log_loss), resamples.estimate(roc_auc)
    loss_gain = resamples.estimate(resamples.log_loss(y, other) - log_loss)
    auc_gain = resamples.estimate(roc_auc - resamples.roc_auc(y, other))
    if own_loss is None or own_auc is None or loss_gain is None or auc_gain is None:
        return None
    if loss_gain.standard_error is None or auc_gain.standard_error is None:
        return None
    return SliceQuality(
        column=column,
        value=value,
        n_rows=len(y),
        n_positive=int(y.sum()),
        log_loss=own_loss,
        roc_auc=own_auc,
        log_loss_gain=loss_gain,
        roc_auc_gain=auc_gain,
    )


def _values(holdout: pa.Table, column: str) -> np.ndarray:
    if column == MONTH:
        return np.datetime_as_string(holdout["partition_on"].to_numpy().astype("datetime64[M]"))
    return pc.fill_null(holdout[column].cast(pa.string()), _MISSING).to_numpy().astype(np.str_)
