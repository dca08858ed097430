"""Retention by reachability: what nothing refers to can be listed and removed; the rest cannot."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from threading import Lock

from ml_assets.core import registry
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.references import (
    HALF_WRITTEN_AFTER,
    Artifact,
    Key,
    Predicted,
    References,
    can_be_in_charge,
    references,
)
from ml_assets.core.registry import LedgerEntry, PendingEntry
from ml_assets.core.side_by_side import side_by_side


@dataclass(frozen=True, kw_only=True)
class Unreferenced:
    """An artifact that nothing refers to. ``size`` in bytes, ``age`` since the last of its files was written.

    ``is_undecided`` tells that it is a whole package that the ledger has not kept out: it could still be promoted.
    """

    key: Key
    size: int
    age: timedelta
    reason: str
    is_undecided: bool
    artifact: Artifact


def unreferenced(
    store: ArtifactStore, *, predicted: Predicted, now: datetime, older_than: timedelta
) -> Sequence[Unreferenced]:
    """Return what can be removed, in the order in which it is safe to: what refers before what is referred to.

    What ``references`` keeps is never in it. What was half written counts from a day on. Raises what ``references``
    does: of a store that it cannot judge, nothing can be removed.
    """
    found = references(store, predicted=predicted, now=now, older_than=older_than)
    use_cases = sorted({key.use_case for key in found.artifacts})
    ledgers = {use_case: registry.entries(store, use_case) for use_case in use_cases}
    items = [
        Unreferenced(
            key=key,
            size=artifact.size,
            age=now - artifact.modified_at,
            reason=_reason(artifact, found, ledgers[key.use_case]),
            is_undecided=not artifact.is_half_written and _is_undecided(key, ledgers[key.use_case]),
            artifact=artifact,
        )
        for key, artifact in found.artifacts.items()
        if key not in found.kept
        and now - artifact.modified_at >= (HALF_WRITTEN_AFTER if artifact.is_half_written else older_than)
    ]
    return sorted(items, key=lambda item: (_ORDER.index(item.key.kind), item.key))


def prune(
    store: ArtifactStore, *, predicted: Predicted, now: datetime, older_than: timedelta, recorded_by: str
) -> Iterator[Unreferenced]:
    """Remove what ``unreferenced`` lists, 32 artifacts of a kind at a time; yield those of a kind once they are gone.

    A package on which nobody has decided yet could be promoted in this very moment: it is first refused in the ledger,
    where only one of two writers gets the next place, and it stays if the promotion was first. So no promotion can ever
    name what was removed. All other artifacts are judged again once the packages are gone. No kind is begun before what
    refers to it is gone, and a manifest goes before what it lists, so that nothing looks whole that is not; killed at
    any moment, the next call goes on.
    """
    place_in_ledger = Lock()  # of 32 refusals at once, 31 would have to read the ledger again

    def is_removed(item: Unreferenced) -> bool:
        if not _is_unchanged(store, item):
            return False
        if item.is_undecided:
            with place_in_ledger:
                if not _is_refused(store, item, now=now, recorded_by=recorded_by):
                    return False
        _remove(store, item)
        return True

    for are_packages in (True, False):
        found = unreferenced(store, predicted=predicted, now=now, older_than=older_than)
        judged = (item for item in found if (item.key.kind == "package") == are_packages)
        for _, of_kind in groupby(judged, key=lambda item: item.key.kind):
            items = list(of_kind)
            removed = side_by_side(is_removed, items, n_at_once=_N_REMOVED_AT_ONCE)
            yield from (item for item, is_gone in zip(items, removed, strict=True) if is_gone)


# On a disk too: each waits until the file is off it for good.
_N_REMOVED_AT_ONCE = 32
_ORDER = ("package", "candidate report", "candidate pointer", "training set pointer", "training set")


def _is_undecided(key: Key, known: Sequence[LedgerEntry]) -> bool:
    """Tell whether it is a package that was neither refused nor rejected, which nothing would ever take back.

    It may have been promoted since the references were read.
    """
    if key.kind != "package":
        return False
    decision = registry.decision_on(known, key.name, date.fromisoformat(key.name[:10]))
    return decision is None or decision.action == "promote"


def _is_refused(store: ArtifactStore, item: Unreferenced, *, now: datetime, recorded_by: str) -> bool:
    """Refuse a package in the ledger, unless that is done; tell whether this came before any promotion of it."""
    _, use_case, version = item.key
    manifest = next(file.path for file in item.artifact.files if file.path.endswith("/manifest.json"))
    refusal = PendingEntry(
        action="refuse",
        use_case=use_case,
        version=version,
        package_hash=hashlib.sha256(store.get(manifest)).hexdigest(),
        effective_from=date.fromisoformat(version[:10]),
        as_of=date.fromisoformat(version[:10]),
        reason=(
            f"its package was removed: nothing had referred to it for {item.age.days} days; "
            "to have another candidate, train as of another day or with another seed"
        ),
        recorded_at=now,
        recorded_by=recorded_by,
    )

    def decide(known: Sequence[LedgerEntry]) -> PendingEntry | LedgerEntry:
        return can_be_in_charge(known).get(version) or registry.decision_on(known, version, refusal.as_of) or refusal

    return registry.record(store, use_case, decide).action in ("refuse", "reject")


def _is_unchanged(store: ArtifactStore, item: Unreferenced) -> bool:
    """Tell whether nobody has written to it since it was listed."""
    folder = item.artifact.files[0].path.rpartition("/")[0]
    now_there = {file.path: file for file in store.describe(folder)}
    return all(now_there.get(file.path, file) == file for file in item.artifact.files)


def _remove(store: ArtifactStore, item: Unreferenced) -> None:
    for file in sorted(item.artifact.files, key=lambda file: (not file.path.endswith("/manifest.json"), file.path)):
        store.delete(file.path)


def _reason(artifact: Artifact, found: References, known: Sequence[LedgerEntry]) -> str:
    kind, _, name = artifact.key
    if artifact.is_half_written:
        return "its writing ended half-way: it has no manifest"
    if kind == "package":
        decision = registry.decision_on(known, name, date.fromisoformat(name[:10]))
        if decision is None:
            return "it was neither promoted nor refused, and is not the newest candidate"
        return f"it was {'refused' if decision.action == 'refuse' else 'rejected'} on {decision.recorded_at:%Y-%m-%d}"
    if kind == "training set":
        return "no package that stays was trained on it"
    if kind == "candidate report":
        return "the package it is of does not stay"
    return f"the {kind.removesuffix(' pointer')} it names {'does not stay' if artifact.refers_to else 'is unknown'}"
