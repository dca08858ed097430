from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import ClassVar

import pytest

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core import approvals, registry
from ml_assets.core.errors import AlreadyExists, BadInput
from ml_assets.core.promotion import Gate
from ml_assets.core.registry import LedgerEntry

GATE = Gate(name="calibrated", is_passed=True, found=0.02, expected=0.1, detail="calibration error 0.02")
MONDAY = date(2013, 7, 1)
ONE, OTHER = "a1" * 32, "b2" * 32


@pytest.fixture
def store(any_store: ObjectArtifactStore) -> ObjectArtifactStore:
    return any_store


def promote(store, version: str = "one", *, package_hash: str = ONE, needs_approval: bool = True) -> LedgerEntry:
    return registry.promote(
        store,
        use_case="arrival_delay",
        version=version,
        package_hash=package_hash,
        effective_from=MONDAY,
        as_of=MONDAY,
        reason="passed every gate",
        gates=(GATE,),
        recorded_at=datetime(2013, 7, 1, 12, tzinfo=UTC),
        recorded_by="gates",
        needs_approval=needs_approval,
    )


def refuse(store, version: str = "one") -> LedgerEntry:
    return registry.refuse(
        store,
        use_case="arrival_delay",
        version=version,
        package_hash=ONE,
        effective_from=MONDAY,
        as_of=MONDAY,
        reason="ROC AUC too low",
        gates=(GATE,),
        recorded_at=datetime(2013, 7, 1, 12, tzinfo=UTC),
        recorded_by="gates",
    )


def approve(store, version: str = "one", *, package_hash: str = ONE, by: str = "olga", **changes) -> LedgerEntry:
    arguments = {"reason": "read the report", "recorded_at": datetime(2013, 7, 2, 9, tzinfo=UTC), **changes}
    return approvals.approve(
        store, "arrival_delay", version=version, package_hash=package_hash, recorded_by=by, **arguments
    )


def reject(store, version: str = "one", *, package_hash: str = ONE, by: str = "igor") -> LedgerEntry:
    return approvals.reject(
        store,
        "arrival_delay",
        version=version,
        package_hash=package_hash,
        reason="Newark looks odd",
        recorded_at=datetime(2013, 7, 3, tzinfo=UTC),
        recorded_by=by,
    )


def actions(store) -> list[str]:
    return [entry.action for entry in registry.entries(store, "arrival_delay")]


def in_charge(store, day: date = date(2013, 12, 31)) -> str | None:
    champion = registry.champion_on(store, "arrival_delay", day)
    return champion and champion.version


def test_a_candidate_waits_is_approved_and_only_then_promoted(store):
    waiting = promote(store)
    assert (waiting.action, waiting.sequence, waiting.gates) == ("wait", 1, (GATE,))
    assert in_charge(store) is None
    approval = approve(store)
    assert (approval.action, approval.recorded_by, approval.reason) == ("approve", "olga", "read the report")
    assert (approval.package_hash, approval.as_of) == (ONE, MONDAY)
    assert in_charge(store) is None, "an approval alone puts nobody in charge"
    assert promote(store).action == "promote"
    assert in_charge(store, MONDAY) == "one"
    assert actions(store) == ["wait", "approve", "promote"]


def test_each_step_given_again_writes_nothing(store):
    steps = [promote, promote, approve, approve, promote, promote, approve]
    written = [step(store) for step in steps]
    assert [entry.sequence for entry in written] == [1, 1, 2, 2, 3, 3, 2]
    assert actions(store) == ["wait", "approve", "promote"]


def test_without_the_need_of_an_approval_nothing_waits(store):
    assert promote(store, needs_approval=False).action == "promote"
    assert actions(store) == ["promote"]


def test_an_approval_is_of_one_package_and_no_other(store):
    promote(store)
    with pytest.raises(BadInput, match=f"waits with the package {ONE[:12]}, not with {OTHER[:12]}; materialize"):
        approve(store, package_hash=OTHER)
    approve(store)
    # The version was trained again with another result: what was approved is not what is there.
    assert promote(store, package_hash=OTHER).action == "wait"
    assert in_charge(store) is None
    approve(store, package_hash=OTHER)
    assert promote(store, package_hash=OTHER).package_hash == OTHER
    assert actions(store) == ["wait", "approve", "wait", "approve", "promote"]


def test_an_unknown_version_is_refused_with_those_that_wait(store):
    with pytest.raises(BadInput, match="no version 'nine' waits for an approval; there waits none"):
        approve(store, "nine")
    promote(store)
    for decide in (approve, reject):
        with pytest.raises(BadInput, match="no version 'nine' waits for an approval; there waits one"):
            decide(store, "nine")


def test_what_the_gates_refused_no_person_can_approve(store):
    refuse(store)
    with pytest.raises(BadInput, match=r"was refused by the gates on 2013-07-01 .*ROC AUC too low.* nothing to appr"):
        approve(store)
    assert actions(store) == ["refuse"]


def test_a_promoted_version_is_neither_approved_nor_rejected(store):
    promote(store, needs_approval=False)
    for decide in (approve, reject):
        with pytest.raises(BadInput, match=r"was promoted on 2013-07-01 12:00 by gates .*roll back"):
            decide(store)


def test_a_rejected_candidate_stays_out_whatever_comes_after(store):
    promote(store)
    entry = reject(store)
    assert (entry.action, entry.recorded_by) == ("reject", "igor")
    assert reject(store, by="olga") == entry
    with pytest.raises(BadInput, match=r"was rejected on 2013-07-03 00:00 by igor \(Newark looks odd\)"):
        approve(store)
    assert promote(store) == entry
    assert promote(store, needs_approval=False) == entry
    assert in_charge(store) is None
    assert actions(store) == ["wait", "reject"]


def test_an_approval_may_be_taken_back_until_the_promotion(store):
    promote(store)
    approve(store)
    reject(store)
    assert promote(store).action == "reject"
    with pytest.raises(BadInput, match="was rejected"):
        approve(store)
    assert in_charge(store) is None


def test_an_approval_may_name_a_later_first_day_but_none_before_the_training(store):
    promote(store)
    with pytest.raises(BadInput, match="cannot be in charge from 2013-06-30 on: choose 2013-07-01 or a later day"):
        approve(store, effective_from=date(2013, 6, 30))
    approve(store, effective_from=date(2013, 7, 3))
    assert promote(store).effective_from == date(2013, 7, 3)
    assert (in_charge(store, date(2013, 7, 2)), in_charge(store, date(2013, 7, 3))) == (None, "one")


def test_an_approval_takes_a_name_and_a_reason(store):
    promote(store)
    for missing in ({"by": " "}, {"reason": ""}):
        with pytest.raises(BadInput, match="takes a name and a reason"):
            approve(store, **missing)
    assert actions(store) == ["wait"]


def test_waiting_approving_and_rejecting_never_change_who_is_in_charge(store):
    promote(store, "old", needs_approval=False)
    promote(store, "new", package_hash=OTHER)
    approve(store, "new", package_hash=OTHER)
    assert in_charge(store) == "old"
    reject(store, "new", package_hash=OTHER)
    assert in_charge(store) == "old"
    with pytest.raises(BadInput, match=r"never promoted the version 'new'; roll back to one of \['old'\]"):
        registry.rollback(
            store,
            "arrival_delay",
            effective_from=date(2013, 7, 5),
            to_version="new",
            reason="try",
            recorded_at=datetime(2013, 7, 5, tzinfo=UTC),
            recorded_by="olga",
        )


def test_an_entry_written_before_there_were_approvals_is_still_read(store):
    promote(store, needs_approval=False)
    content = store.get("ledger/arrival_delay/000001.json").decode()
    assert '"action": "promote"' in content
    assert "approv" not in content, "the form of an entry has not changed"


@pytest.mark.parametrize("round_", range(10))
def test_of_racing_approvals_rejections_and_promotions_the_order_of_the_ledger_decides(store, round_: int):
    promote(store)

    def attempt(step) -> str:
        try:
            return step(store).action
        except BadInput:
            return "told why not"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(attempt, [approve, reject, promote, approve] * 4))

    ledger = actions(store)
    assert ledger[0] == "wait"
    assert all(ledger.count(action) <= 1 for action in ("wait", "approve", "reject", "promote"))
    # Whichever came first: rejected or promoted, never both, and never promoted without an approval before.
    assert ("reject" in ledger) != ("promote" in ledger)
    assert "promote" not in ledger or ledger.index("approve") < ledger.index("promote")
    assert in_charge(store) == ("one" if "promote" in ledger else None)


def test_a_step_killed_before_any_of_its_writes_is_healed_by_giving_it_again(tmp_path):
    class KilledStore(ObjectArtifactStore):
        """Fails the first create of every path: as if the process had died just before it."""

        tried: ClassVar[set[str]] = set()

        def create(self, path: str, content: bytes) -> None:
            if path not in self.tried:
                self.tried.add(path)
                raise KeyboardInterrupt
            super().create(path, content)

    store = KilledStore(tmp_path.as_uri())
    for step in (promote, approve, promote):
        with pytest.raises(KeyboardInterrupt):
            step(store)
        step(store)
    assert actions(store) == ["wait", "approve", "promote"]


def test_a_writer_that_lost_the_number_looks_again_before_it_promotes(store, monkeypatch: pytest.MonkeyPatch):
    promote(store)
    approve(store)
    create = ObjectArtifactStore.create

    def beaten(self: ObjectArtifactStore, path: str, content: bytes) -> None:
        monkeypatch.setattr(ObjectArtifactStore, "create", create)
        reject(store)  # between the look and the write of the promotion
        raise AlreadyExists(path)

    monkeypatch.setattr(ObjectArtifactStore, "create", beaten)
    assert promote(store).action == "reject"
    assert actions(store) == ["wait", "approve", "reject"]
