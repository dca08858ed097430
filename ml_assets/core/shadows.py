"""Shadow scores: what others than the champion would have predicted, kept so that labels can compare them later.

The others are the last two versions that were in charge before the champion of the day, and the baselines that the
champion had to beat. Nobody is served by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ml_assets.core.errors import ArtifactMissing, BadInput, PackageRefused
from ml_assets.core.package import ModelPackage
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.recalled import recall_package
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.scoring import score

SHADOW_SCHEMA = pa.schema(
    {
        "decision_id": pa.string(),
        "partition_on": pa.date32(),
        "prediction": pa.float64(),
        "model_version": pa.string(),
        "role": pa.string(),
    }
)
# How many versions before the champion are still scored.
N_PREVIOUS = 2


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A shadow that could not score the examples, and why; ``role`` is as in the table."""

    role: str
    model_version: str
    reason: str


def baseline_role(name: str) -> str:
    """Return the role under which the scores of a baseline are kept; their version is the champion's."""
    return f"baseline:{name}"


def shadow_rows(
    examples: pa.Table,
    champion: ModelPackage,
    previous: Sequence[LedgerEntry],
    store: ArtifactStore,
) -> tuple[pa.Table, Sequence[Skipped]]:
    """Score examples with the champion's baselines and with its predecessors, the newest of which comes first.

    Returns the rows of ``predictions.<use_case>_shadow`` and what was skipped: a version whose package is gone or is
    refused, or that reads a column the examples do not have. The day's predictions do not need it, so that it must not
    keep them from being made.
    """
    parts, skipped = [SHADOW_SCHEMA.empty_table()], list[Skipped]()
    for baseline in champion.expectations.baselines:
        role = baseline_role(baseline.name)
        try:
            parts.append(_rows(examples, baseline.predict(examples), role, champion.version))
        except BadInput as error:
            skipped.append(Skipped(role=role, model_version=champion.version, reason=str(error)))
    for place, entry in enumerate(previous, start=1):
        role = f"previous_{place}"
        try:
            package = recall_package(store, entry.use_case, entry.version, expected_hash=entry.package_hash)
            parts.append(_rows(examples, score(package, examples), role, entry.version))
        except (ArtifactMissing, BadInput, PackageRefused) as error:
            skipped.append(Skipped(role=role, model_version=entry.version, reason=str(error)))
    return pa.concat_tables(parts), skipped


def _rows(examples: pa.Table, scores: np.ndarray, role: str, version: str) -> pa.Table:
    n_rows = examples.num_rows
    columns = {
        "decision_id": examples["decision_id"],
        "partition_on": examples["partition_on"],
        "prediction": pa.array(scores, pa.float64()),
        "model_version": pa.repeat(pa.scalar(version), n_rows),
        "role": pa.repeat(pa.scalar(role), n_rows),
    }
    return pa.table(columns).cast(SHADOW_SCHEMA)
