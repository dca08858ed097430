"""What a person decided of a candidate that waits: an approval or a rejection in the promotion ledger."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal

from ml_assets.core.errors import BadInput
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.registry import FINAL, LedgerEntry, PendingEntry, decision_on, newest, record


def approve(
    store: ArtifactStore,
    use_case: str,
    *,
    version: str,
    package_hash: str,
    effective_from: date | None = None,
    reason: str,
    recorded_at: datetime,
    recorded_by: str,
) -> LedgerEntry:
    """Let a waiting candidate pass: this one package of it, and no other. It is in charge once it is promoted.

    ``effective_from`` is the first local day it is to be in charge: that of its training unless given. An approval
    given twice is written once. Raises BadInput for a version that does not wait, waits with another package, was
    refused, rejected, or is in charge already, and for a day before its training.
    """

    def decide(known: Sequence[LedgerEntry]) -> PendingEntry | LedgerEntry:
        earlier = newest(known, "approve", version, package_hash)
        rejected = any(entry.action == "reject" and entry.version == version for entry in known)
        if earlier and not rejected and (effective_from in (None, earlier.effective_from)):
            return earlier
        waiting = _waiting(known, use_case, version, package_hash, what="approve")
        first_day = effective_from or waiting.effective_from
        if first_day < waiting.as_of:
            raise BadInput(
                f"{use_case}: version {version} was trained as of {waiting.as_of} and knows what came true before; it "
                f"cannot be in charge from {first_day} on: choose {waiting.as_of} or a later day"
            )
        return _decided_by_a_person("approve", waiting, first_day, reason, recorded_at, recorded_by)

    return record(store, use_case, decide)


def reject(
    store: ArtifactStore,
    use_case: str,
    *,
    version: str,
    package_hash: str,
    reason: str,
    recorded_at: datetime,
    recorded_by: str,
) -> LedgerEntry:
    """Keep a waiting candidate out for good; also one that was approved, as long as it is not in charge.

    A rejection given twice is written once. Raises BadInput as ``approve`` does.
    """

    def decide(known: Sequence[LedgerEntry]) -> PendingEntry | LedgerEntry:
        earlier = newest(known, "reject", version, package_hash)
        if earlier:
            return earlier
        waiting = _waiting(known, use_case, version, package_hash, what="reject")
        return _decided_by_a_person("reject", waiting, waiting.effective_from, reason, recorded_at, recorded_by)

    return record(store, use_case, decide)


def _waiting(known: Sequence[LedgerEntry], use_case: str, version: str, package_hash: str, *, what: str) -> LedgerEntry:
    """Return the entry by which this package waits; raise BadInput, saying why, where it does not."""
    of_version = [entry for entry in known if entry.version == version]
    final = next((entry for entry in of_version if entry.action in FINAL), None)
    if final:
        then = {
            "promote": "to take it out of charge, roll back",
            "refuse": "only another candidate can pass",
            "reject": "train another candidate",
        }[final.action]
        verb = {"promote": "promoted", "refuse": "refused by the gates", "reject": "rejected"}[final.action]
        raise BadInput(
            f"{use_case}: version {version} was {verb} on {final.recorded_at:%Y-%m-%d %H:%M} by {final.recorded_by} "
            f"({final.reason}); there is nothing to {what}: {then}"
        )
    waits = [entry for entry in of_version if entry.action == "wait"]
    if not waits:
        open_versions = sorted(
            {e.version for e in known if e.action == "wait" and not decision_on(known, e.version, e.as_of)}
        )
        raise BadInput(
            f"{use_case}: no version {version!r} waits for an approval; there "
            + (f"waits {', '.join(open_versions)}" if open_versions else "waits none")
        )
    same = [entry for entry in waits if entry.package_hash == package_hash]
    if not same:
        raise BadInput(
            f"{use_case}: version {version} waits with the package {waits[-1].package_hash[:12]}, not with "
            f"{package_hash[:12]}; materialize {use_case}/champion for {waits[-1].as_of}, so that this package passes "
            "its gates first"
        )
    return same[-1]


def _decided_by_a_person(
    action: Literal["approve", "reject"],
    waiting: LedgerEntry,
    effective_from: date,
    reason: str,
    recorded_at: datetime,
    recorded_by: str,
) -> PendingEntry:
    if not reason.strip() or not recorded_by.strip():
        raise BadInput(f"to {action} {waiting.version} takes a name and a reason; they are kept in the ledger")
    return PendingEntry(
        action=action,
        use_case=waiting.use_case,
        version=waiting.version,
        package_hash=waiting.package_hash,
        effective_from=effective_from,
        as_of=waiting.as_of,
        reason=reason,
        recorded_at=recorded_at,
        recorded_by=recorded_by,
    )
