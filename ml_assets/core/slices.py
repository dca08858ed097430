"""Slices of the holdout: how good a candidate is for each airport, carrier or hour, beside another model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.encoding import Task
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.evaluation import Floats
from ml_assets.core.feature_views import Feature
from ml_assets.core.paired_bootstrap import DayResamples, Estimate
from ml_assets.core.spec import MONTH, PromotionRule, UseCase
from ml_assets.core.tasks import TaskMeaning, meaning_of

_MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class SliceQuality:
    """The rows of the holdout that have one value in one column.

    ``figures`` and ``gains`` are by measure, those that the task slices by: the candidate's, and as in ``Comparison``
    what it gains over the model it is held against. ``mean_label`` is the share of positives, or of a regression the
    mean number.
    """

    column: str
    value: str
    n_rows: int
    mean_label: float
    figures: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]

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
    task: Task = "binary_classification",
) -> tuple[SliceQuality, ...]:
    """Measure the candidate and another model on each slice that is large enough to be judged.

    Large enough: ``rule.slice_minimum_rows`` rows on at least two days, of a classification with
    ``rule.slice_minimum_positives`` of either class. A missing value is a slice of its own, ``month`` is that of the
    local day. Sorted by column, largest first.
    """
    found: list[SliceQuality] = []
    for column in columns:
        values, place = np.unique(_values(holdout, column), return_inverse=True)
        n_rows = np.bincount(place)
        is_large = n_rows >= rule.slice_minimum_rows
        if task == "binary_classification":
            n_positive = np.bincount(place, y)
            is_large &= np.minimum(n_positive, n_rows - n_positive) >= rule.slice_minimum_positives
        for index in sorted(np.flatnonzero(is_large), key=lambda i: (-n_rows[i], values[i])):
            rows = place == index
            of_slice = (y[rows], candidate[rows], other[rows])
            part = _measured(column, str(values[index]), *of_slice, resamples.only(rows), meaning_of(task))
            found += [part] if part else []
    return tuple(found)


def _measured(
    column: str,
    value: str,
    y: Floats,
    candidate: Floats,
    other: Floats,
    resamples: DayResamples,
    meaning: TaskMeaning,
) -> SliceQuality | None:
    """Measure one slice; None where its days are too few to tell the noise."""
    figures: dict[str, Estimate] = {}
    gains: dict[str, Estimate] = {}
    for measure in meaning.sliced:
        own = resamples.estimate(resamples.figure(measure.name, y, candidate))
        gain = resamples.gain(measure, y, candidate, other)
        if own is None or gain is None or gain.standard_error is None:
            return None
        figures[measure.name], gains[measure.name] = own, gain
    return SliceQuality(
        column=column, value=value, n_rows=len(y), mean_label=float(y.mean()), figures=figures, gains=gains
    )


def _values(holdout: pa.Table, column: str) -> np.ndarray:
    if column == MONTH:
        return np.datetime_as_string(holdout["partition_on"].to_numpy().astype("datetime64[M]"))
    return pc.fill_null(holdout[column].cast(pa.string()), _MISSING).to_numpy().astype(np.str_)
