"""Whether a training saw what it must not: labels from after its as-of date began, or days it is judged on."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.package import Manifest
from ml_assets.core.training_sets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class LeakCheck:
    """What the rows of a training set and the manifest of its model say of leaks.

    Attributes:
        n_labels_too_late: examples of all parts whose label was not known before the as-of date began.
        newest_label_known_at: when the last label became known, UTC.
        as_of_at: when the as-of date began, UTC.
        last_day_seen: the last local day the model was fitted on or chosen by.
        first_holdout_day: the first local day it is judged on.
    """

    n_labels_too_late: int
    newest_label_known_at: datetime
    as_of_at: datetime
    last_day_seen: date
    first_holdout_day: date

    @property
    def n_days_between(self) -> int:
        """How many days the holdout begins after the last day seen; 0 or less is a leak."""
        return (self.first_holdout_day - self.last_day_seen).days


def leak_check(training_set: TrainingSet, manifest: Manifest, *, as_of_at: datetime) -> LeakCheck:
    """Look for leaks in the rows themselves, not in the query that chose them.

    ``as_of_at`` is the UTC moment at which the as-of date begins.
    """
    seen = pa.concat_tables([training_set.train, training_set.validation])
    known_at = pa.chunked_array([*seen["label_known_at"].chunks, *training_set.test["label_known_at"].chunks])
    is_early = pc.less(known_at, pa.scalar(as_of_at, known_at.type))
    n_early = cast("int | None", pc.sum(is_early).as_py()) or 0
    last_day = cast("date", pc.max(seen["partition_on"]).as_py())
    return LeakCheck(
        n_labels_too_late=len(known_at) - n_early,
        newest_label_known_at=cast("datetime", pc.max(known_at).as_py()),
        as_of_at=as_of_at,
        last_day_seen=max(last_day, manifest.last_train_day, manifest.last_validation_day),
        first_holdout_day=cast("date", pc.min(training_set.test["partition_on"]).as_py()),
    )
