"""The promotion ledger: who was in charge when, as an append-only sequence of files under ``ledger/<use_case>/``.

Entries are numbered from 1 without gaps and never change. A number is taken by conditional create: of two writers one
gets it, and the other looks again at what it now follows. In charge on a day is the version that the promote or
rollback entry with the greatest ``(effective_from, sequence)`` names, among those effective on or before that day.

Where a person must approve, a candidate that passed its gates is first recorded as waiting. ``approve`` and ``reject``
say what the person decided of that one package; only the promote entry that follows an approval puts it in charge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Literal, TypedDict, Unpack

import msgspec

from ml_assets.core.errors import AlreadyExists, BadInput, ChampionMissing, LedgerBroken
from ml_assets.core.names import identifier
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.promotion import Gate
from ml_assets.core.side_by_side import side_by_side

Action = Literal["promote", "rollback", "refuse", "wait", "approve", "reject"]
# What puts a version in charge, and what ends the life of a candidate. Any other action changes neither.
ACTING = ("promote", "rollback")
FINAL = ("promote", "refuse", "reject")


@dataclass(frozen=True, kw_only=True)
class PendingEntry:
    """What is to be recorded of a version, before it has a place in the ledger.

    Attributes:
        action: ``promote`` and ``rollback`` put the version in charge; ``refuse`` (by the gates) and ``reject`` (by a
            person) keep a candidate out; ``wait`` says that it passed the gates and needs an approval, ``approve`` that
            it has one.
        use_case: whose model it is.
        version: the model version.
        package_hash: sha256 of its package's manifest.
        effective_from: the first local day it is in charge, or of one that is not in charge would be.
        as_of: the as-of date of its training.
        reason: one sentence for people.
        gates: what the candidate was held against; empty for what a person decided.
        recorded_at: when it was decided, UTC.
        recorded_by: the run or the person who decided.
    """

    action: Action
    use_case: str
    version: str
    package_hash: str
    effective_from: date
    as_of: date
    reason: str
    gates: tuple[Gate, ...] = ()
    recorded_at: datetime
    recorded_by: str

    def __post_init__(self) -> None:
        if self.recorded_at.tzinfo is None:
            raise ValueError(f"recorded_at {self.recorded_at} has no time zone; expected UTC")


@dataclass(frozen=True, kw_only=True)
class LedgerEntry(PendingEntry):
    """One line of the ledger. ``sequence`` is its place: 1 for the first."""

    sequence: int

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What is shown of the entry wherever the champion is."""
        return {
            "action": self.action,
            "version": self.version,
            "effective_from": self.effective_from.isoformat(),
            "ledger_sequence": self.sequence,
            "reason": self.reason,
            "recorded_by": self.recorded_by,
        }


def append(store: ArtifactStore, entry: PendingEntry) -> LedgerEntry:
    """Write an entry under the next free number; raise LedgerBroken where the ledger so far has a gap."""
    return record(store, entry.use_case, lambda _: entry)


class Decision(TypedDict):
    """What the gates decided of one package: the fields of a ``PendingEntry`` but for its action."""

    use_case: str
    version: str
    package_hash: str
    effective_from: date
    as_of: date
    reason: str
    gates: tuple[Gate, ...]
    recorded_at: datetime
    recorded_by: str


def promote(store: ArtifactStore, *, needs_approval: bool = False, **decision: Unpack[Decision]) -> LedgerEntry:
    """Put a version in charge from a day on, or record that it waits for a person; the action of the entry says which.

    The first decision on a candidate stands: where the ledger has already promoted, refused or rejected this version of
    this as-of date, nothing is written and that entry is returned. So a re-run changes nothing. With ``needs_approval``
    a package that no one approved waits, which is written once; an approved one is in charge from the day the approval
    names. Looking for the approval and writing the promotion are one step: a rejection in between is not overlooked.
    """
    entry = PendingEntry(action="promote", **decision)

    def decide(known: Sequence[LedgerEntry]) -> PendingEntry | LedgerEntry:
        final = decision_on(known, entry.version, entry.as_of)
        if final or not needs_approval:
            return final or entry
        approval = newest(known, "approve", entry.version, entry.package_hash)
        if approval:
            return replace(entry, effective_from=approval.effective_from)
        return newest(known, "wait", entry.version, entry.package_hash) or replace(entry, action="wait")

    return record(store, entry.use_case, decide)


def refuse(store: ArtifactStore, **decision: Unpack[Decision]) -> LedgerEntry:
    """Record that a candidate may not serve, and why; as with ``promote``, the first decision on it stands."""
    entry = PendingEntry(action="refuse", **decision)
    return record(store, entry.use_case, lambda known: decision_on(known, entry.version, entry.as_of) or entry)


def rollback(
    store: ArtifactStore,
    use_case: str,
    *,
    effective_from: date,
    to_version: str | None = None,
    reason: str,
    recorded_at: datetime,
    recorded_by: str,
) -> LedgerEntry:
    """Put an earlier champion back in charge from a day on.

    Without ``to_version`` it is the version that was in charge before the current champion first was: a second
    rollback goes one step further back, not forth again. Where ``to_version`` is in charge by a rollback already, or
    the rollback in charge is of the same day for the same reason (the same command given twice), nothing is written and
    that entry is returned. A promotion that takes effect on a later day still does.

    Raises ChampionMissing where nobody is in charge on that day or nobody was before, BadInput for a version that was
    never promoted, or that was trained as of a later day.
    """

    def decide(known: Sequence[LedgerEntry]) -> PendingEntry | LedgerEntry:
        champion = in_charge(known, effective_from)
        if champion is None:
            raise ChampionMissing(_nobody(use_case, effective_from))
        is_repeated = (champion.action, champion.effective_from, champion.reason) == (
            "rollback",
            effective_from,
            reason,
        )
        if is_repeated and to_version is None:
            return champion
        version = to_version or _before(known, champion)
        promoted = [entry for entry in known if entry.action == "promote" and entry.version == version]
        if not promoted:
            versions = sorted({entry.version for entry in known if entry.action == "promote"})
            raise BadInput(f"{use_case} never promoted the version {version!r}; roll back to one of {versions}")
        if promoted[-1].as_of > effective_from:
            raise BadInput(
                f"{use_case}: version {version} was trained as of {promoted[-1].as_of} and knows what came true from "
                f"{effective_from} on; choose an earlier version, or a later day"
            )
        if champion.version == version:
            if champion.action == "rollback":
                return champion
            raise BadInput(
                f"{use_case}: version {version} is in charge on {effective_from} already; nothing to roll back"
            )
        return PendingEntry(
            action="rollback",
            use_case=use_case,
            version=version,
            package_hash=promoted[-1].package_hash,
            effective_from=effective_from,
            as_of=promoted[-1].as_of,
            reason=reason,
            recorded_at=recorded_at,
            recorded_by=recorded_by,
        )

    return record(store, use_case, decide)


def decision_on(known: Sequence[LedgerEntry], version: str, as_of: date) -> LedgerEntry | None:
    """Return the entry that promoted, refused or rejected a candidate, or None where it is still open."""
    found = (e for e in known if e.action in FINAL and (e.version, e.as_of) == (version, as_of))
    return next(found, None)


def newest(known: Sequence[LedgerEntry], action: Action, version: str, package_hash: str) -> LedgerEntry | None:
    """Return the last entry that did this to one package of a version, or None."""
    wanted = (action, version, package_hash)
    return next((e for e in reversed(known) if (e.action, e.version, e.package_hash) == wanted), None)


def record(
    store: ArtifactStore, use_case: str, decide: Callable[[Sequence[LedgerEntry]], PendingEntry | LedgerEntry]
) -> LedgerEntry:
    """Write what ``decide`` makes of the ledger so far; ask it again whenever another writer was first."""
    while True:
        known = entries(store, use_case)
        decision = decide(known)
        if isinstance(decision, LedgerEntry):
            return decision
        entry = LedgerEntry(sequence=len(known) + 1, **vars(decision))
        try:
            store.create(_path(use_case, entry.sequence), msgspec.json.format(msgspec.json.encode(entry), indent=2))
        except AlreadyExists:
            continue
        return entry


def entries(store: ArtifactStore, use_case: str) -> Sequence[LedgerEntry]:
    """Return all entries, oldest first; raise LedgerBroken, naming the file, for a gap or an unreadable entry."""
    folder = f"ledger/{identifier(use_case)}"
    found = list(store.list(folder))
    for sequence, path in enumerate(found, start=1):
        if path != _path(use_case, sequence):
            raise LedgerBroken(
                f"{store.address(path)}: expected {_path(use_case, sequence)} here; the ledger must hold 000001.json "
                "and so on without gaps: restore the missing entry, or remove what does not belong"
            )
    return side_by_side(
        lambda numbered: _read(store, numbered[1], numbered[0]),
        enumerate(found, start=1),
        n_at_once=store.n_reads_at_once,
    )


def champion_on(store: ArtifactStore, use_case: str, day: date) -> LedgerEntry | None:
    """Return the entry that names who is in charge on a local day, or None before the first promotion."""
    return in_charge(entries(store, use_case), day)


def champion_required(store: ArtifactStore, use_case: str, day: date) -> LedgerEntry:
    """Return the entry that names who is in charge on a local day; raise ChampionMissing where nobody is."""
    return required(entries(store, use_case), use_case, day)


def in_charge(known: Sequence[LedgerEntry], day: date) -> LedgerEntry | None:
    """Return which of these entries names who is in charge on a local day."""
    history = _history(known, day)
    return history[-1] if history else None


def required(known: Sequence[LedgerEntry], use_case: str, day: date) -> LedgerEntry:
    """Return which of these entries names who is in charge on a local day; raise ChampionMissing where none does."""
    champion = in_charge(known, day)
    if champion is None:
        raise ChampionMissing(_nobody(use_case, day))
    return champion


def put_in_charge(known: Sequence[LedgerEntry], version: str, day: date) -> LedgerEntry:
    """Return by which entry a version that predicted a day was last put in charge; raise LedgerBroken without one."""
    found = [entry for entry in _history(known, day) if entry.version == version]
    if not found:
        raise LedgerBroken(f"version {version} predicted {day}, and no ledger entry puts it in charge by then")
    return found[-1]


def predecessors(known: Sequence[LedgerEntry], day: date, *, most: int) -> Sequence[LedgerEntry]:
    """Return by which entries the last other versions were put in charge before a day's champion, the newest first."""
    found: dict[str, LedgerEntry] = {}
    for entry in reversed(_history(known, day)):
        found.setdefault(entry.version, entry)
    return tuple(found.values())[1 : most + 1]


def _history(known: Sequence[LedgerEntry], day: date) -> Sequence[LedgerEntry]:
    """Return the entries that put a version in charge up to a day, in the order in which they took effect."""
    acting = [entry for entry in known if entry.action in ACTING and entry.effective_from <= day]
    return sorted(acting, key=lambda entry: (entry.effective_from, entry.sequence))


def _before(known: Sequence[LedgerEntry], champion: LedgerEntry) -> str:
    versions: list[str] = []
    for entry in _history(known, champion.effective_from):
        if entry.version in versions:
            del versions[versions.index(entry.version) :]
        versions.append(entry.version)
        if entry is champion:
            break
    if len(versions) < 2:
        raise ChampionMissing(
            f"{champion.use_case} had nobody in charge before version {champion.version}; promote another version first"
        )
    return versions[-2]


def _nobody(use_case: str, day: date) -> str:
    return (
        f"{use_case} has no champion on {day}; materialize {use_case}/champion for that as-of date or an earlier one "
        "(it trains on the days before)"
    )


def _path(use_case: str, sequence: int) -> str:
    return f"ledger/{identifier(use_case)}/{sequence:06}.json"


def _read(store: ArtifactStore, path: str, sequence: int) -> LedgerEntry:
    try:
        entry = msgspec.json.decode(store.get(path), type=LedgerEntry, strict=True)
    except (msgspec.DecodeError, ValueError) as error:
        raise LedgerBroken(
            f"{store.address(path)} is no ledger entry ({error}); restore the file from a backup"
        ) from error
    if (entry.sequence, _path(entry.use_case, entry.sequence)) != (sequence, path):
        raise LedgerBroken(
            f"{store.address(path)} holds entry {entry.sequence} of {entry.use_case}; restore the file from a backup"
        )
    return entry
