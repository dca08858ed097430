"""Who let a faulty day pass, and why: an append-only record per fault in the artifact store.

A release is bound to the fault it was given for: what was found, by which check, on which day of which table. Where the
day lands again with another fault, that one is not released.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import msgspec

from ml_assets.core.data_quality.evidence import Finding
from ml_assets.core.errors import AlreadyExists, BadInput
from ml_assets.core.names import identifier
from ml_assets.core.ports import ArtifactStore

FOLDER = "releases"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One decision of a person: this fault may pass. ``fault`` is its fingerprint."""

    table: str
    day: date
    fault: str
    check_name: str
    explanation: str
    reason: str
    released_at: datetime
    released_by: str


def fingerprint(table: str, day: date, finding: Finding) -> str:
    """Return what tells a fault from any other; what was expected is not part of it, and may still change."""
    told = (table, str(day), finding.check_name, finding.column_name, finding.subject, repr(finding.value))
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]


def record(store: ArtifactStore, release: Release) -> Release:
    """Write a release; where the fault has been released before, that one stands and is returned."""
    if not release.reason.strip() or not release.released_by.strip():
        raise BadInput("to release a fault takes a name and a reason; they are kept for ever")
    if release.released_at.tzinfo is None:
        raise ValueError(f"released_at {release.released_at} has no time zone; expected UTC")
    path = f"{_folder(release.table, release.day)}/{release.fault}.json"
    try:
        store.create(path, msgspec.json.format(msgspec.json.encode(release), indent=2))
    except AlreadyExists:
        return _read(store, path)
    return release


def releases_of(store: ArtifactStore, table: str, day: date) -> Mapping[str, Release]:
    """Return the releases of one day of a raw table by the fault they were given for."""
    found = [_read(store, path) for path in store.list(_folder(table, day))]
    return {release.fault: release for release in found}


def _folder(table: str, day: date) -> str:
    return f"{FOLDER}/{identifier(table)}/{day.isoformat()}"


def _read(store: ArtifactStore, path: str) -> Release:
    try:
        return msgspec.json.decode(store.get(path), type=Release)
    except msgspec.DecodeError as error:
        raise BadInput(
            f"{store.address(path)} is no release of a fault ({error}); restore it, or remove it and release again"
        ) from error
