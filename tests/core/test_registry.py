import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Lock

import pytest

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core import registry
from ml_assets.core.errors import AlreadyExists, ArtifactMissing, BadInput, ChampionMissing, LedgerBroken
from ml_assets.core.promotion import Gate
from ml_assets.core.registry import LedgerEntry, champion_on, champion_required, entries

GATE = Gate(name="calibrated", is_passed=True, found=0.02, expected=0.1, detail="calibration error 0.02")


class StoreInMemory:
    """An ArtifactStore over a dict, whose ``create`` is atomic as on every backend."""

    n_reads_at_once = 1

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._lock = Lock()

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def create(self, path: str, content: bytes) -> None:
        with self._lock:
            if path in self.files:
                raise AlreadyExists(path)
            self.files[path] = content

    def get(self, path: str) -> bytes:
        if path not in self.files:
            raise ArtifactMissing(path)
        return self.files[path]

    def exists(self, path: str) -> bool:
        return path in self.files

    def list(self, prefix: str) -> Sequence[str]:
        return sorted(path for path in list(self.files) if path.startswith(f"{prefix}/"))

    def address(self, path: str) -> str:
        return f"memory://{path}"


@pytest.fixture
def store() -> StoreInMemory:
    return StoreInMemory()


def promote(store: StoreInMemory, version: str, effective_from: date, action: str = "promote") -> LedgerEntry:
    return getattr(registry, action)(
        store,
        use_case="arrival_delay",
        version=version,
        package_hash=f"hash-of-{version}",
        effective_from=effective_from,
        as_of=effective_from,
        reason="passed every gate",
        gates=(GATE,),
        recorded_at=datetime(2013, 8, 1, tzinfo=UTC),
        recorded_by="run 1",
    )


def rollback(
    store: StoreInMemory, effective_from: date, to_version: str | None = None, reason: str = "late flights were missed"
) -> LedgerEntry:
    return registry.rollback(
        store,
        "arrival_delay",
        effective_from=effective_from,
        to_version=to_version,
        reason=reason,
        recorded_at=datetime(2013, 8, 2, tzinfo=UTC),
        recorded_by="olga",
    )


def in_charge(store: StoreInMemory, day: date) -> str | None:
    champion = champion_on(store, "arrival_delay", day)
    return champion and champion.version


def test_a_promotion_is_in_charge_from_its_day_on_and_not_before(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    assert in_charge(store, date(2013, 6, 30)) is None
    assert in_charge(store, date(2013, 7, 1)) == "one"
    assert in_charge(store, date(2013, 12, 31)) == "one"


def test_an_earlier_promotion_written_later_does_not_displace_a_later_one(store: StoreInMemory):
    promote(store, "july", date(2013, 7, 1))
    promote(store, "june", date(2013, 6, 1))
    assert in_charge(store, date(2013, 6, 15)) == "june"
    assert in_charge(store, date(2013, 7, 15)) == "july"


def test_of_two_promotions_for_one_day_the_later_written_is_in_charge(store: StoreInMemory):
    promote(store, "first", date(2013, 7, 1))
    promote(store, "second", date(2013, 7, 1))
    assert in_charge(store, date(2013, 7, 1)) == "second"


def test_a_refused_version_is_recorded_but_never_in_charge(store: StoreInMemory):
    entry = promote(store, "bad", date(2013, 7, 1), action="refuse")
    assert (entry.action, entry.sequence) == ("refuse", 1)
    assert in_charge(store, date(2013, 7, 1)) is None


@pytest.mark.parametrize("action", ["promote", "refuse"])
def test_a_re_run_adds_nothing_and_returns_the_first_decision(store: StoreInMemory, action: str):
    first = promote(store, "one", date(2013, 7, 1), action=action)
    assert promote(store, "one", date(2013, 7, 1)) == first
    assert promote(store, "one", date(2013, 7, 1), action="refuse") == first
    assert entries(store, "arrival_delay") == [first]


def test_a_re_run_of_the_promotion_does_not_undo_a_rollback(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    promote(store, "two", date(2013, 7, 8))
    rollback(store, date(2013, 7, 10))
    promote(store, "two", date(2013, 7, 8))
    assert in_charge(store, date(2013, 7, 10)) == "one"


def test_a_rollback_puts_the_version_before_the_champion_in_charge_from_its_day_on(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    promote(store, "two", date(2013, 7, 8))
    entry = rollback(store, date(2013, 7, 10))
    assert (entry.version, entry.package_hash, entry.as_of) == ("one", "hash-of-one", date(2013, 7, 1))
    assert in_charge(store, date(2013, 7, 9)) == "two"
    assert in_charge(store, date(2013, 7, 10)) == "one"


def test_a_second_rollback_goes_further_back_instead_of_forth_again(store: StoreInMemory):
    for day, version in enumerate(["one", "two", "three"], start=1):
        promote(store, version, date(2013, 7, day))
    again = [rollback(store, date(2013, 7, 10), reason=reason).version for reason in ("misses", "misses still")]
    assert again == ["two", "one"]
    with pytest.raises(ChampionMissing, match="nobody in charge before version one"):
        rollback(store, date(2013, 7, 10), reason="and still")


def test_the_same_rollback_given_twice_is_one(store: StoreInMemory):
    for day, version in enumerate(["one", "two", "three"], start=1):
        promote(store, version, date(2013, 7, day))
    first = rollback(store, date(2013, 7, 10))
    assert rollback(store, date(2013, 7, 10)) == first
    assert len(registry.entries(store, "arrival_delay")) == 4


def test_no_rollback_to_a_version_that_was_trained_on_what_came_true_since(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    promote(store, "two", date(2013, 7, 8))
    with pytest.raises(BadInput, match="trained as of 2013-07-08"):
        rollback(store, date(2013, 7, 2), to_version="two")
    assert in_charge(store, date(2013, 7, 2)) == "one"


def test_a_promotion_after_a_rollback_takes_charge_and_can_be_rolled_back(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    promote(store, "two", date(2013, 7, 2))
    rollback(store, date(2013, 7, 3))
    promote(store, "three", date(2013, 7, 4))
    assert in_charge(store, date(2013, 7, 4)) == "three"
    assert rollback(store, date(2013, 7, 5)).version == "one"


def test_a_rollback_asked_for_twice_by_version_writes_one_entry(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    promote(store, "two", date(2013, 7, 8))
    assert rollback(store, date(2013, 7, 10), "one") == rollback(store, date(2013, 7, 10), "one")
    assert len(entries(store, "arrival_delay")) == 3


def test_a_rollback_refuses_versions_that_were_never_promoted_or_are_in_charge(store: StoreInMemory):
    with pytest.raises(ChampionMissing, match="no champion on 2013-07-01"):
        rollback(store, date(2013, 7, 1), "one")
    promote(store, "one", date(2013, 7, 1))
    promote(store, "refused", date(2013, 7, 1), action="refuse")
    for unknown in ("nine", "refused"):
        with pytest.raises(BadInput, match=rf"never promoted the version '{unknown}'; roll back to one of \['one'\]"):
            rollback(store, date(2013, 7, 2), unknown)
    with pytest.raises(BadInput, match="in charge on 2013-07-02 already"):
        rollback(store, date(2013, 7, 2), "one")


def test_nobody_in_charge_says_what_to_do(store: StoreInMemory):
    with pytest.raises(ChampionMissing, match="no champion on 2013-07-01; materialize arrival_delay/champion"):
        champion_required(store, "arrival_delay", date(2013, 7, 1))


def test_an_entry_survives_the_file(store: StoreInMemory):
    written = promote(store, "one", date(2013, 7, 1))
    assert entries(store, "arrival_delay") == [written]
    assert written.gates == (GATE,)


def test_use_cases_have_ledgers_of_their_own(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    assert champion_on(store, "arrival", date(2013, 7, 1)) is None


def test_a_gap_is_an_error_that_names_the_file(store: StoreInMemory):
    for day in (1, 2, 3):
        promote(store, f"v{day}", date(2013, 7, day))
    del store.files["ledger/arrival_delay/000002.json"]
    with pytest.raises(LedgerBroken, match=r"000003.json: expected ledger/arrival_delay/000002.json"):
        champion_on(store, "arrival_delay", date(2013, 7, 1))
    with pytest.raises(LedgerBroken, match=r"000002.json"):
        promote(store, "v4", date(2013, 7, 4))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"sequence": "1"}', b"\xff"])
def test_a_corrupt_entry_is_an_error_that_names_the_file(store: StoreInMemory, content: bytes):
    promote(store, "one", date(2013, 7, 1))
    store.files["ledger/arrival_delay/000001.json"] = content
    with pytest.raises(LedgerBroken, match=r"000001.json is no ledger entry"):
        champion_on(store, "arrival_delay", date(2013, 7, 1))


def test_an_entry_copied_under_another_number_is_an_error(store: StoreInMemory):
    promote(store, "one", date(2013, 7, 1))
    store.files["ledger/arrival_delay/000002.json"] = store.files["ledger/arrival_delay/000001.json"]
    with pytest.raises(LedgerBroken, match=r"000002.json holds entry 1 of arrival_delay"):
        entries(store, "arrival_delay")


def test_a_time_without_a_zone_is_refused(store: StoreInMemory):
    entry = promote(store, "one", date(2013, 7, 1))
    with pytest.raises(ValueError, match="no time zone"):
        replace(entry, recorded_at=datetime(2013, 8, 2))  # noqa: DTZ001


def test_sixteen_writers_at_once_leave_sixteen_entries_no_gap_and_one_champion(store: StoreInMemory):
    with ThreadPoolExecutor(16) as pool:
        written = list(pool.map(lambda i: promote(store, f"v{i}", date(2013, 7, 1)), range(16)))
    ledger = entries(store, "arrival_delay")
    assert [entry.sequence for entry in ledger] == list(range(1, 17))
    assert {entry.version for entry in ledger} == {f"v{i}" for i in range(16)}
    assert sorted(written, key=lambda entry: entry.sequence) == ledger
    assert champion_on(store, "arrival_delay", date(2013, 7, 1)) == ledger[-1]


def test_sixteen_writers_of_one_promotion_leave_one_entry(store: StoreInMemory):
    with ThreadPoolExecutor(16) as pool:
        written = list(pool.map(lambda _: promote(store, "one", date(2013, 7, 1)), range(16)))
    assert entries(store, "arrival_delay") == [written[0]]
    assert all(entry == written[0] for entry in written)


_PROMOTER = """
import sys
from datetime import UTC, date, datetime
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.registry import promote

store = ObjectArtifactStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for version in (f"of-{sys.argv[2]}", "of-all"):
    entry = promote(
        store, use_case="arrival_delay", version=version, package_hash="", effective_from=date(2013, 7, 1),
        as_of=date(2013, 7, 1), reason="", gates=(), recorded_at=datetime(2013, 7, 1, tzinfo=UTC), recorded_by="test",
    )
    print(entry.sequence, entry.version)
"""


def test_sixteen_processes_that_promote_at_once_leave_one_champion_and_a_complete_history(tmp_path: Path):
    command = [sys.executable, "-c", _PROMOTER, tmp_path.as_uri()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    promoters = [subprocess.Popen([*command, str(n)], **pipes) for n in range(16)]
    assert [promoter.stdout.readline() for promoter in promoters] == ["ready\n"] * 16
    for promoter in promoters:
        promoter.stdin.write("go\n")
        promoter.stdin.flush()
    told = [promoter.communicate(timeout=60)[0].split() for promoter in promoters]
    assert [promoter.returncode for promoter in promoters] == [0] * 16

    store = ObjectArtifactStore(tmp_path.as_uri())
    ledger = entries(store, "arrival_delay")
    assert [entry.sequence for entry in ledger] == list(range(1, 18))
    assert {entry.version for entry in ledger} == {"of-all", *(f"of-{n}" for n in range(16))}
    by_version = {entry.version: str(entry.sequence) for entry in ledger}
    assert told == [[by_version[f"of-{n}"], f"of-{n}", by_version["of-all"], "of-all"] for n in range(16)]
    assert champion_on(store, "arrival_delay", date(2013, 7, 1)) == ledger[-1]
