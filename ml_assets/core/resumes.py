"""What a person said after retraining had stopped: go on. An append-only record under ``resumes/<use_case>/``."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import msgspec

from ml_assets.core.errors import AlreadyExists, BadInput, LedgerBroken
from ml_assets.core.names import identifier
from ml_assets.core.ports import ArtifactStore


@dataclass(frozen=True, kw_only=True)
class Resume:
    """From the decision of ``day`` on, refusals of trainings as of that day or before count no more."""

    use_case: str
    day: date
    reason: str
    recorded_at: datetime
    recorded_by: str


def resume(
    store: ArtifactStore, use_case: str, *, day: date, reason: str, recorded_at: datetime, recorded_by: str
) -> Resume:
    """Record that retraining may go on; the same said twice of a day is written once.

    Places are numbered and taken by conditional create: of two writers one gets it, and the other looks again.
    Raises BadInput without a name or a reason.
    """
    if not reason.strip() or not recorded_by.strip():
        raise BadInput(f"to resume the retraining of {use_case} takes a name and a reason; they are kept for ever")
    entry = Resume(use_case=use_case, day=day, reason=reason, recorded_at=recorded_at, recorded_by=recorded_by)
    while True:
        known = resumes(store, use_case)
        same = [e for e in known if (e.day, e.reason, e.recorded_by) == (day, reason, recorded_by)]
        if same:
            return same[0]
        try:
            store.create(_path(use_case, len(known) + 1), msgspec.json.format(msgspec.json.encode(entry), indent=2))
        except AlreadyExists:
            continue
        return entry


def resumes(store: ArtifactStore, use_case: str) -> Sequence[Resume]:
    """Return all that was said, oldest first; raise LedgerBroken, naming the file, for a gap or an unreadable one."""
    found: list[Resume] = []
    for number, path in enumerate(store.list(f"resumes/{identifier(use_case)}"), start=1):
        if path != _path(use_case, number):
            raise LedgerBroken(f"{store.address(path)}: expected {_path(use_case, number)} here; restore what is gone")
        try:
            found.append(msgspec.json.decode(store.get(path), type=Resume, strict=True))
        except msgspec.DecodeError as error:
            raise LedgerBroken(f"{store.address(path)} is no resume ({error}); restore it from a backup") from error
    return found


def _path(use_case: str, number: int) -> str:
    return f"resumes/{identifier(use_case)}/{number:06}.json"
