"""What must stay, found by another method than the library's: each root on its own, then graphs at random."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from threading import Barrier

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.core import registry
from ml_assets.core.errors import BadInput, LedgerBroken, StoreRefused
from ml_assets.core.package import CONTENT_FILES
from ml_assets.core.references import HALF_WRITTEN_AFTER, LONGEST_ATTEMPT, predicted_versions
from ml_assets.core.registry import LedgerEntry, PendingEntry
from ml_assets.core.retention import prune, unreferenced

USE_CASE = "storm_delay"
NOW = datetime(2014, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


def version_of(n: int) -> str:
    return f"{date(2013, 7, 1) + timedelta(days=n)}-{n:012x}"


def fingerprint_of(n: int) -> str:
    return f"{n:064x}"


def put_training_set(store, n: int) -> None:
    for name in ("train.arrow", "validation.arrow", "test.arrow", "manifest.json"):
        store.put(f"training_sets/{USE_CASE}/{fingerprint_of(n)}/{name}", b"{}")


def put_package(store, n: int, *, training_set: int = 0, parent: int | None = None) -> None:
    recipe = {
        "training_set": fingerprint_of(training_set),
        "parent_version": None if parent is None else version_of(parent),
    }
    folder = f"models/{USE_CASE}/{version_of(n)}"
    for name in CONTENT_FILES:
        store.put(f"{folder}/{name}", b"1")
    store.put(f"{folder}/manifest.json", json.dumps({"recipe": recipe, "another": "field"}).encode())


def put_candidate_pointer(store, day: date, n: int) -> None:
    store.put(f"candidates/{USE_CASE}/{day}.json", json.dumps(version_of(n)).encode())


def put_training_set_pointer(store, day: date, n: int) -> None:
    pointer = json.dumps({"fingerprint": fingerprint_of(n)})
    store.put(f"training_sets/{USE_CASE}/as_of/{day}.json", pointer.encode())


def put_candidate_report(store, n: int, text: str = "") -> None:
    store.put(f"reports/{USE_CASE}/candidate-{version_of(n)}.html", f"<p>{version_of(n)} {text}</p>".encode())


def entry_of(action: str, n: int, **changes: object) -> PendingEntry:
    as_of = date.fromisoformat(version_of(n)[:10])
    facts = {"use_case": USE_CASE, "version": version_of(n), "package_hash": "hash", "as_of": as_of}
    facts |= {"effective_from": as_of, "reason": "said so", "recorded_at": NOW, "recorded_by": "test", **changes}
    return PendingEntry(action=action, **facts)


def write(store, action: str, n: int) -> LedgerEntry:
    return registry.append(store, entry_of(action, n))


def listed(store, *, older_than: timedelta = MONTH, predicted: dict | None = None) -> list[tuple[str, str]]:
    found = unreferenced(store, predicted=predicted or {}, now=NOW, older_than=older_than)
    return [(item.key.kind, item.key.name) for item in found]


def removed(store, *, older_than: timedelta = MONTH, predicted: dict | None = None) -> list[tuple[str, str]]:
    found = prune(store, predicted=predicted or {}, now=NOW, older_than=older_than, recorded_by="olga")
    return [(item.key.kind, item.key.name) for item in found]


def versions_in(store) -> set[int]:
    """The packages that have any file."""
    return {int(path.split("/")[2].rpartition("-")[2], 16) for path in store.list(f"models/{USE_CASE}")}


def training_sets_in(store) -> set[int]:
    names = {path.split("/")[2] for path in store.list(f"training_sets/{USE_CASE}")} - {"as_of"}
    return {int(name, 16) for name in names}


def reported_day(store, text: str) -> None:
    store.put(f"reports/{USE_CASE}/2013-08-01.html", f"<p>{text}</p>".encode())


def put_attempt(store, *, training_set: int, parent: int | None = None, began_at: datetime, has_ended: bool = False):
    path = f"experiments/{USE_CASE}/20131231t000000.000000z-0123456789"
    recipe = {
        "training_set": fingerprint_of(training_set),
        "parent_version": None if parent is None else version_of(parent),
    }
    store.put(f"{path}.started.json", json.dumps({"kind": "training", "recipe": recipe}).encode())
    store.modified_at[f"{path}.started.json"] = began_at
    if has_ended:
        store.put(f"{path}.ended.json", b"{}")


# One package, number 1 on training set 1, and one thing that refers to it. Another, number 2 on 2, has nothing.
KEPT_BY: dict[str, Callable] = {
    "a promotion": lambda store: write(store, "promote", 1),
    "a promotion long overtaken": lambda store: [
        write(store, "promote", 1),
        put_package(store, 3),
        write(store, "promote", 3),
    ],
    "a rollback": lambda store: write(store, "rollback", 1),
    "a candidate that waits": lambda store: write(store, "wait", 1),
    "a candidate that is approved": lambda store: write(store, "approve", 1),
    "the report of a day": lambda store: reported_day(store, f"the champion {version_of(1)}, 0.75"),
    "the page of an ablation": lambda store: store.put(
        f"reports/{USE_CASE}/ablation-2013-08-01.html", f'<a href="candidate-{version_of(1)}.html">'.encode()
    ),
    "a training from it that runs": lambda store: put_attempt(store, training_set=1, parent=1, began_at=NOW),
    "the newest candidate's pointer": lambda store: put_candidate_pointer(store, date(2013, 7, 2), 1),
    "a child that was promoted": lambda store: [
        put_package(store, 3, training_set=1, parent=1),
        write(store, "promote", 3),
    ],
    "a grandchild that was promoted": lambda store: [
        put_package(store, 3, training_set=1, parent=1),
        put_package(store, 4, training_set=1, parent=3),
        write(store, "promote", 4),
    ],
    "the report of a candidate that stays": lambda store: [
        put_package(store, 3, training_set=1),
        write(store, "promote", 3),
        put_candidate_report(store, 3, f"against the champion {version_of(1)}"),
    ],
    "a young child": lambda store: [
        put_package(store, 3, training_set=1, parent=1),
        store.modified_at.update({f"models/{USE_CASE}/{version_of(3)}/manifest.json": NOW - timedelta(days=29)}),
    ],
    "a young pointer of an earlier date": lambda store: [
        put_candidate_pointer(store, date(2013, 7, 2), 1),
        put_candidate_pointer(store, date(2013, 7, 9), 3),
        store.modified_at.update({f"candidates/{USE_CASE}/2013-07-02.json": NOW - timedelta(days=29)}),
    ],
}  # fmt: skip


@pytest.fixture
def with_two(store):
    for n in (1, 2):
        put_package(store, n, training_set=n)
        put_training_set(store, n)
    return store


@pytest.mark.parametrize("reference", KEPT_BY.values(), ids=KEPT_BY.keys())
def test_what_is_referred_to_stays_with_its_training_set_and_the_rest_goes(with_two, reference: Callable):
    reference(with_two)
    before = dict(with_two.files)

    expected = {("package", version_of(2)), ("training set", fingerprint_of(2))}
    assert set(listed(with_two)) == expected
    assert with_two.files == before
    assert set(removed(with_two)) == expected
    gone = {p for p in before if version_of(2) in p or fingerprint_of(2) in p}
    assert len(gone) == len(CONTENT_FILES) + 1 + 4
    refusals = {path for path in set(with_two.files) - set(before) if path.startswith("ledger/")}
    assert with_two.files == {p: c for p, c in (before | with_two.files).items() if p in refusals or p not in gone}
    assert listed(with_two) == []


def test_without_the_reference_both_go(with_two):
    assert removed(with_two) == [
        *(("package", version_of(n)) for n in (1, 2)),
        *(("training set", fingerprint_of(n)) for n in (1, 2)),
    ]
    assert {path.split("/")[0] for path in with_two.files} == {"ledger"}


def test_what_a_prediction_or_a_monitoring_row_names_stays(with_two):
    assert listed(with_two, predicted={USE_CASE: frozenset({version_of(1)})}) == [
        ("package", version_of(2)),
        ("training set", fingerprint_of(2)),
    ]


@pytest.mark.parametrize(
    "table",
    [
        *("predictions.storm_delay", "predictions.storm_delay_served", "predictions.storm_delay_shadow"),
        *("monitoring.drift", "monitoring.performance"),
    ],
)
def test_the_versions_of_predictions_and_of_each_monitoring_table_are_found(table: str, tmp_path):
    from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse

    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    assert predicted_versions(warehouse, [USE_CASE]) == {USE_CASE: frozenset()}
    rows = {"use_case": [USE_CASE, USE_CASE, "another"], "model_version": ["one", None, "two"]}
    rows = {"model_version": ["one", None, "one"]} if table.startswith("predictions.") else rows
    warehouse.replace_table({table: pa.table(rows)})
    assert predicted_versions(warehouse, [USE_CASE])[USE_CASE] == frozenset({"one"})


def test_the_training_set_of_the_newest_tuned_parameters_stays(store):
    for n in (1, 2):
        put_training_set(store, n)
        tuned = {"training_set": fingerprint_of(n), "loss": 0.5}
        store.put(f"tuned/{USE_CASE}/2013-07-0{n}.json", json.dumps(tuned).encode())
    assert removed(store) == [("training set", fingerprint_of(1))]
    assert len(store.list("tuned")) == 2


@pytest.mark.parametrize(
    ("age", "has_ended", "stays"),
    [
        (LONGEST_ATTEMPT, False, True),
        (LONGEST_ATTEMPT + timedelta(seconds=1), False, False),
        (timedelta(hours=1), True, False),
    ],
    ids=["it may run still", "it was killed long ago", "it has ended"],
)
def test_the_training_set_of_an_attempt_stays_with_its_pointer_while_it_may_run(
    store, age: timedelta, has_ended: bool, stays: bool
):
    for n in (1, 2):  # the pointer to the first is not the newest
        put_training_set(store, n)
        put_training_set_pointer(store, date(2013, 7, n), n)
    put_attempt(store, training_set=1, began_at=NOW - age, has_ended=has_ended)
    gone = [("training set pointer", "2013-07-01"), ("training set", fingerprint_of(1))]
    assert removed(store) == ([] if stays else gone)


def test_the_training_sets_of_all_ablations_stay(store):
    for n in (1, 2, 3):
        put_training_set(store, n)
    for n in (1, 2):
        ablation = {"training_set": fingerprint_of(n), "views": []}
        store.put(f"ablations/{USE_CASE}/2013-07-0{n}.json", json.dumps(ablation).encode())
    assert removed(store) == [("training set", fingerprint_of(3))]


def test_a_damaged_record_of_an_ablation_or_of_an_attempt_that_may_run_stops_everything(store):
    put_training_set(store, 1)
    path = f"ablations/{USE_CASE}/2013-07-01.json"
    store.put(path, b"{")
    with pytest.raises(BadInput, match=rf"{path} holds no ablation .*; run it again"):
        removed(store)
    store.delete(path)
    put_attempt(store, training_set=1, began_at=NOW)
    (path,) = store.list("experiments")
    store.put(path, b"{}")
    with pytest.raises(BadInput, match=rf"{path} holds no attempt that began"):
        removed(store)
    assert training_sets_in(store) == {1}


def test_the_newest_training_sets_pointer_keeps_it_and_an_older_one_goes_with_what_it_names(store):
    for n in (1, 2):
        put_training_set(store, n)
        put_training_set_pointer(store, date(2013, 7, n), n)
    put_training_set_pointer(store, date(2013, 6, 30), 2)
    assert removed(store) == [("training set pointer", "2013-07-01"), ("training set", fingerprint_of(1))]
    assert store.exists(f"training_sets/{USE_CASE}/as_of/2013-06-30.json"), "what it names is there"


@pytest.mark.parametrize("action", ["refuse", "reject"])
def test_a_candidate_that_was_kept_out_goes_with_its_report_and_its_ledger_entry_stays(with_two, action: str):
    write(with_two, "promote", 1)
    write(with_two, "wait", 2)
    write(with_two, action, 2)
    put_candidate_report(with_two, 2, f"against {version_of(1)}")
    put_candidate_pointer(with_two, date(2013, 7, 3), 2)
    put_candidate_pointer(with_two, date(2013, 7, 10), 1)
    ledger = registry.entries(with_two, USE_CASE)

    assert removed(with_two) == [
        ("package", version_of(2)),
        ("candidate report", version_of(2)),
        ("candidate pointer", "2013-07-03"),
        ("training set", fingerprint_of(2)),
    ]
    assert registry.entries(with_two, USE_CASE) == ledger


def test_what_is_young_stays_and_so_does_what_it_refers_to(with_two):
    with_two.modified_at[f"models/{USE_CASE}/{version_of(2)}/model.onnx"] = NOW - timedelta(days=29)
    assert listed(with_two) == [("package", version_of(1)), ("training set", fingerprint_of(1))]
    assert len(listed(with_two, older_than=timedelta(days=29))) == 4
    with pytest.raises(BadInput, match="too young to be judged; choose at least 1 day"):
        listed(with_two, older_than=timedelta(hours=23))


def test_what_was_half_written_goes_after_a_day_and_not_before(with_two):
    write(with_two, "promote", 1)
    write(with_two, "promote", 2)
    half = [
        f"models/{USE_CASE}/{version_of(8)}/model.onnx",
        f"training_sets/{USE_CASE}/{fingerprint_of(8)}/train.arrow",
    ]
    for path in half:
        with_two.put(path, b"half")
        with_two.modified_at[path] = NOW - HALF_WRITTEN_AFTER + timedelta(seconds=1)
    assert listed(with_two) == []
    for path in half:
        with_two.modified_at[path] = NOW - HALF_WRITTEN_AFTER
    before = dict(with_two.files)
    assert removed(with_two) == [("package", version_of(8)), ("training set", fingerprint_of(8))]
    assert with_two.files == {path: content for path, content in before.items() if path not in half}


UNKNOWN = [
    f"experiments/{USE_CASE}/{version_of(2)}.json",
    f"models/{USE_CASE}/{version_of(2)}/deeper/model.onnx",
    f"models/{USE_CASE}/a-folder-of-mine/manifest.json",
    f"training_sets/{USE_CASE}/{fingerprint_of(2)}/coded/train.bin",
    f"training_sets/{USE_CASE}/latest.json",
    f"reports/{USE_CASE}/candidate-{version_of(2)}-ablation.json",
    f"reports/{USE_CASE}/board.html",
    f"tuned/{USE_CASE}/2013-07-01.json",
    "notes.txt",
]


def test_kinds_of_files_that_are_not_known_are_never_removed_and_keep_nothing(with_two):
    for path in UNKNOWN:
        with_two.put(path, json.dumps({"training_set": "", "of": version_of(2)}).encode())
    assert len(removed(with_two)) == 4
    assert sorted(path for path in with_two.files if not path.startswith("ledger/")) == sorted(UNKNOWN)


def test_a_package_in_use_whose_manifest_is_damaged_stops_everything(with_two):
    write(with_two, "promote", 1)
    manifest = f"models/{USE_CASE}/{version_of(1)}/manifest.json"
    for damage in (lambda: with_two.put(manifest, b'{"recipe": '), lambda: with_two.delete(manifest)):
        damage()
        before = dict(with_two.files)
        with pytest.raises(
            BadInput, match=rf"the package {version_of(1)} of storm_delay is in use and its manifest is mis"
        ):
            removed(with_two)
        assert with_two.files == before


def test_a_damaged_ledger_stops_everything(with_two):
    write(with_two, "promote", 1)
    with_two.files[f"ledger/{USE_CASE}/000001.json"] = b"{"
    before = dict(with_two.files)
    with pytest.raises(LedgerBroken):
        removed(with_two)
    assert with_two.files == before


def promotion(store, n: int, *, needs_approval: bool = False) -> LedgerEntry:
    entry = {name: value for name, value in vars(entry_of("promote", n)).items() if name not in ("action", "gates")}
    return registry.promote(store, **entry, gates=(), needs_approval=needs_approval)


def test_a_version_that_was_removed_undecided_can_not_be_promoted_any_more(with_two):
    removed(with_two)
    entry = promotion(with_two, 1)
    assert (entry.action, entry.recorded_by, entry.recorded_at) == ("refuse", "olga", NOW)
    assert "its package was removed: nothing had referred to it for" in entry.reason
    assert registry.champion_on(with_two, USE_CASE, date(2014, 1, 1)) is None


@pytest.mark.parametrize("needs_approval", [False, True])
@pytest.mark.parametrize("moment", range(1, 40))
def test_a_promotion_at_any_moment_of_a_pruning_is_refused_or_its_package_stays_whole(
    with_two, moment: int, needs_approval: bool
):
    """A promoter is let in just before the n-th time the pruning looks at, or changes, the store."""
    whole = {path for path in with_two.files if version_of(1) in path}
    moments, entries = count(1), []

    def let_in(call):
        def wrapped(*arguments):
            if next(moments) == moment:  # of many threads one is at it
                entries.append(promotion(plain, 1, needs_approval=needs_approval))
            return call(*arguments)

        return wrapped

    plain = type(with_two)()
    plain.files = with_two.files  # the same files, without the hook
    for name in ("list", "describe", "get", "create", "delete"):
        setattr(with_two, name, let_in(getattr(with_two, name)))
    removed(with_two)
    if not entries:
        entries.append(promotion(plain, 1, needs_approval=needs_approval))

    left = {path for path in plain.files if version_of(1) in path}
    assert (entries[0].action, left) in [("wait" if needs_approval else "promote", whole), ("refuse", set())]
    assert fingerprint_of(1) in " ".join(plain.files) or entries[0].action == "refuse"


def test_of_a_promotion_and_a_removal_that_meet_at_the_ledger_the_first_one_stands(with_two):
    create, plain = with_two.create, type(with_two)()
    plain.files = with_two.files

    def overtaken(path: str, content: bytes) -> None:
        with_two.create = create
        promotion(plain, 1)
        create(path, content)

    with_two.create = overtaken
    assert removed(with_two) == [("package", version_of(2)), ("training set", fingerprint_of(2))]
    assert registry.champion_on(with_two, USE_CASE, date(2014, 1, 1)).version == version_of(1)
    assert promotion(plain, 2).action == "refuse"


class Killed(BaseException):
    """Stands for kill -9."""


def a_life(store) -> None:
    for n in range(6):
        put_training_set(store, n)
        put_training_set_pointer(store, date(2013, 7, 1) + timedelta(days=n), n)
        put_package(store, n, training_set=n, parent=n - 1 if n in (2, 4) else None)
        put_candidate_pointer(store, date(2013, 7, 1) + timedelta(days=n), n)
        put_candidate_report(store, n)
    for n, action in enumerate(["promote", "refuse", "promote", "refuse", "refuse"]):
        write(store, action, n)


def test_a_pruning_killed_before_any_of_its_writes_leaves_nothing_that_looks_whole_and_the_next_goes_on(store):
    a_life(store)
    undisturbed = type(store)(store.files)
    assert len(removed(undisturbed)) == 2 * 5, "3 and 4: package, report, both pointers, training set"

    n_writes = 0
    while True:
        killed, n_writes, countdown = type(store)(store.files), n_writes + 1, [n_writes]

        def dying(call, countdown=countdown):
            def write_or_die(*arguments):
                countdown[0] -= 1
                if countdown[0] < 0:
                    raise Killed
                call(*arguments)

            return write_or_die

        killed.delete, killed.create = dying(killed.delete), dying(killed.create)
        try:
            removed(killed)
        except Killed:
            pass
        else:
            break
        for n in versions_in(killed):
            folder = f"models/{USE_CASE}/{version_of(n)}"
            if f"{folder}/manifest.json" in killed.files:
                assert len(killed.list(folder)) == len(CONTENT_FILES) + 1
        rerun = type(store)(killed.files)
        removed(rerun)
        assert rerun.files == undisturbed.files
    assert n_writes > 2 * (len(CONTENT_FILES) + 1 + 3 + 4)


def test_thirty_two_artifacts_go_at_a_time_each_with_its_manifest_first(store):
    for n in range(32):
        put_package(store, n, training_set=n)
        write(store, "refuse", n)
        put_training_set(store, n)
    together, delete, order = Barrier(32, timeout=20), store.delete, []

    def met(path: str) -> None:
        together.wait()  # one after another they would wait in vain
        order.append(path)
        delete(path)

    store.delete = met
    assert len(removed(store)) == 64
    assert {path.split("/")[0] for path in store.files} == {"ledger"}
    for first, folder in ((order[:32], "models"), (order[32 * (len(CONTENT_FILES) + 1) :][:32], "training_sets")):
        assert {path.split("/")[0] for path in first} == {folder}
        assert {path.split("/")[-1] for path in first} == {"manifest.json"}


def test_a_deletion_that_is_refused_ends_the_pruning_and_the_next_one_goes_on(store):
    a_life(store)
    undisturbed, delete = type(store)(store.files), store.delete
    removed(undisturbed)

    def refused(path: str) -> None:
        if version_of(4) in path and path.endswith("model.onnx"):
            raise StoreRefused(path)
        delete(path)

    store.delete = refused
    with pytest.raises(StoreRefused, match=rf"{version_of(4)}/model.onnx"):
        removed(store)
    assert versions_in(store) == {0, 1, 2, 4, 5}, "what went beside it is gone whole"
    assert f"models/{USE_CASE}/{version_of(4)}/manifest.json" not in store.files
    assert store.exists(f"reports/{USE_CASE}/candidate-{version_of(3)}.html"), "packages are not all gone yet"
    store.delete = delete
    removed(store)
    assert store.files == undisturbed.files


@dataclass
class Graph:
    """What a random store holds: packages with their training set and parent, and what refers to them."""

    packages: list[tuple[int, int | None]] = field(default_factory=list)
    actions: list[tuple[str, int]] = field(default_factory=list)
    predicted: set[int] = field(default_factory=set)
    reported: set[int] = field(default_factory=set)
    tuned: list[int] = field(default_factory=list)
    candidate_pointers: dict[int, int] = field(default_factory=dict)
    training_set_pointers: dict[int, int] = field(default_factory=dict)
    own_reports: dict[int, int] = field(default_factory=dict)
    young: set[int] = field(default_factory=set)

    def kept(self) -> tuple[set[int], set[int]]:
        """Which packages and training sets must stay: the least sets closed under 'refers to', by repeated passes."""
        acting = {n for action, n in self.actions if action in ("promote", "rollback")}
        final = {n for action, n in self.actions if action in ("promote", "refuse", "reject")}
        open_ones = {n for action, n in self.actions if action in ("wait", "approve")} - final
        packages = acting | open_ones | self.predicted | self.reported | self.young
        if self.candidate_pointers:
            packages.add(self.candidate_pointers[max(self.candidate_pointers)])
        while True:
            parents = {self.packages[n][1] for n in packages} - {None}
            compared = {self.own_reports[n] for n in packages if n in self.own_reports}
            if parents | compared <= packages:
                break
            packages |= parents | compared
        training_sets = {self.packages[n][0] for n in packages} | set(self.tuned[-1:])
        if self.training_set_pointers:
            training_sets.add(self.training_set_pointers[max(self.training_set_pointers)])
        return packages, training_sets


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    n = draw(st.integers(1, 8))
    one, some = st.integers(0, n - 1), st.sets(st.integers(0, n - 1), max_size=2)
    days = st.dictionaries(st.integers(1, 28), one, max_size=3)
    actions = st.sampled_from(["promote", "rollback", "wait", "approve", "refuse", "reject"])
    return Graph(
        packages=[(draw(one), draw(st.none() | st.integers(0, number - 1)) if number else None) for number in range(n)],
        actions=draw(st.lists(st.tuples(actions, one), max_size=4)),
        predicted=draw(some),
        reported=draw(some),
        tuned=draw(st.lists(one, max_size=2)),
        candidate_pointers=draw(days),
        training_set_pointers=draw(days),
        own_reports=draw(st.dictionaries(one, one, max_size=4)),
        young=draw(some),
    )


def built(store, graph: Graph):
    for n, (training_set, parent) in enumerate(graph.packages):
        put_training_set(store, n)
        put_package(store, n, training_set=training_set, parent=parent)
        if n in graph.young:
            store.modified_at[f"models/{USE_CASE}/{version_of(n)}/metrics.json"] = NOW
    for action, n in graph.actions:
        write(store, action, n)
    reported_day(store, " and ".join(version_of(n) for n in graph.reported))
    for day, n in enumerate(graph.tuned, start=1):
        store.put(f"tuned/{USE_CASE}/2013-07-{day:02}.json", json.dumps({"training_set": fingerprint_of(n)}).encode())
    for day, n in graph.candidate_pointers.items():
        put_candidate_pointer(store, date(2013, 7, day), n)
    for day, n in graph.training_set_pointers.items():
        put_training_set_pointer(store, date(2013, 7, day), n)
    for n, other in graph.own_reports.items():
        put_candidate_report(store, n, version_of(other))
    return store


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs())
def test_of_any_graph_everything_reachable_survives_whole_and_everything_else_goes(store, graph: Graph):
    store = built(type(store)(), graph)
    before = dict(store.files)
    predicted = {USE_CASE: frozenset(version_of(n) for n in graph.predicted)}
    packages, training_sets = graph.kept()

    removed(store, predicted=predicted)

    assert (versions_in(store), training_sets_in(store)) == (packages, training_sets)
    for n in packages:
        assert len(store.list(f"models/{USE_CASE}/{version_of(n)}")) == len(CONTENT_FILES) + 1
    for n in training_sets:
        assert len(store.list(f"training_sets/{USE_CASE}/{fingerprint_of(n)}")) == 4
    expected = {
        f"candidates/{USE_CASE}/2013-07-{d:02}.json" for d, n in graph.candidate_pointers.items() if n in packages
    }
    expected |= {
        f"training_sets/{USE_CASE}/as_of/2013-07-{day:02}.json"
        for day, n in graph.training_set_pointers.items()
        if n in training_sets
    }
    expected |= {f"reports/{USE_CASE}/candidate-{version_of(n)}.html" for n in graph.own_reports if n in packages}
    others = {p for p in store.files if p.startswith("candidates/") or "/as_of/" in p or "/candidate-" in p}
    assert others == expected
    assert {path: store.files[path] for path in before if path in store.files} == {
        path: content for path, content in before.items() if path in store.files
    }
    assert removed(store, predicted=predicted) == [], "a second pruning finds nothing"
