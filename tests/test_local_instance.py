"""The Dagster instance of a laptop: the same files as Dagster's own, and no place in a pool held by the dead."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.partitions.subset import PartitionsSubset
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.test_utils import create_run_for_test
from dagster._core.utils import make_new_run_id
from dagster._serdes import serialize_value
from sqlalchemy import event
from sqlalchemy.engine import Connection

from ml_assets import local_event_log
from ml_assets.local_event_log import LocalEventLog
from ml_assets.local_instance import LocalInstance

SETTINGS = Path(__file__).parents[1] / "deploy" / "local" / "dagster.yaml"
POOL, STEP = "warehouse", "write"
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

# Claims a place for a run, says whether it got one, and waits for the end of its input.
HOLDER = """
import sys
import dagster as dg
storage = dg.DagsterInstance.from_config(sys.argv[1]).event_log_storage
print(storage.claim_concurrency_slot("warehouse", sys.argv[2], "write").is_claimed, flush=True)
sys.stdin.read()
"""

Hold = Callable[[str], subprocess.Popen[str]]


@dg.asset(key=["raw", "days"], partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), pool=POOL)
def days() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"n_rows": 3})


@dg.asset(key=["raw", "more_days"], partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), pool=POOL)
def more_days() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"n_rows": 5})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text(SETTINGS.read_text())
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        yield instance


@pytest.fixture
def hold(home: Path) -> Iterator[Hold]:
    """Start processes that claim a place for a run; those still there at the end are killed."""
    started: list[subprocess.Popen[str]] = []

    def _hold(run_id: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", HOLDER, str(home), run_id]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield _hold
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def claims(instance: dg.DagsterInstance, run_id: str) -> bool:
    return instance.event_log_storage.claim_concurrency_slot(POOL, run_id, STEP).is_claimed


def test_the_settings_of_the_repository_name_it(instance: dg.DagsterInstance):
    assert isinstance(instance, LocalInstance)
    assert isinstance(instance.event_log_storage, LocalEventLog)


def test_dagsters_own_instance_reads_what_it_wrote_and_the_other_way_round(home: Path):
    plain = {key: value for key, value in yaml.safe_load(SETTINGS.read_text()).items() if key != "instance_class"}
    (home / "plain.yaml").write_text(yaml.safe_dump(plain))
    with (
        dg.DagsterInstance.from_config(str(home)) as ours,
        dg.DagsterInstance.from_config(str(home), "plain.yaml") as theirs,
    ):
        assert type(theirs) is dg.DagsterInstance
        for writer, day in ((ours, "a"), (theirs, "b")):
            run = dg.materialize([days], instance=writer, partition_key=day, run_config=SILENT)
            told = [[entry.to_json() for entry in reader.all_logs(run.run_id)] for reader in (ours, theirs)]
            assert told[0] == told[1]
            assert any("ASSET_MATERIALIZATION" in entry for entry in told[0])
        for reader in (ours, theirs):
            assert reader.get_materialized_partitions(days.key) == {"a", "b"}


def test_events_stored_together_leave_the_row_of_their_asset_as_dagster_would(home: Path, instance: dg.DagsterInstance):
    both = [days, more_days]
    runs = [dg.materialize(both, instance=instance, partition_key=day, run_config=SILENT) for day in ("b", "a")]
    told = [
        entry
        for run in runs
        for entry in instance.all_logs(run.run_id)
        if entry.dagster_event and entry.dagster_event.asset_key
    ]
    assert len(told) >= 8, "two assets, planned and materialized, twice"
    found: list[dict[dg.AssetKey, object]] = []
    for storage in (LocalEventLog(str(home / "ours")), SqliteEventLogStorage(str(home / "theirs"))):
        storage.register_instance(instance)
        storage.store_event_batch(told)
        records = storage.get_asset_records([asset.key for asset in both])
        assert all(storage.get_materialized_partitions(asset.key) == {"a", "b"} for asset in both)
        assert all(record.asset_entry.last_materialization.dagster_event.partition == "a" for record in records)
        found.append({record.asset_entry.asset_key: record.asset_entry for record in records})
    assert found[0] == found[1]
    assert set(found[0]) == {days.key, more_days.key}


@pytest.mark.parametrize("partitions", [["a", "b"], None])
def test_a_planned_check_is_written_down_as_dagster_would_with_its_event_serialised_once(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, partitions: list[str] | None
):
    subset = partitions and dg.StaticPartitionsDefinition(["a", "b", "c"]).subset_with_partition_keys(partitions)
    planned = AssetCheckEvaluationPlanned(
        asset_key=days.key, check_name="has_rows", partitions_subset=cast("PartitionsSubset | None", subset)
    )
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
    told = dg.EventLogEntry(
        error_info=None,
        level="debug",
        user_message="",
        run_id=make_new_run_id(),
        timestamp=1_400_000_000.0,
        dagster_event=dg.DagsterEvent(kind.value, "job", event_specific_data=planned),
    )
    serialised: list[object] = []

    def counted(value: dg.EventLogEntry) -> str:
        serialised.append(value)
        return serialize_value(value)

    monkeypatch.setattr(local_event_log, "serialize_value", counted)
    found: list[list[dict[str, object]]] = []
    for storage in (LocalEventLog(str(home / "ours")), SqliteEventLogStorage(str(home / "theirs"))):
        storage.register_instance(instance)
        storage.store_event(told)
        with storage.index_connection() as connection:
            rows = connection.execute(AssetCheckExecutionsTable.select()).mappings().all()
        found.append([{name: value for name, value in row.items() if name != "create_timestamp"} for row in rows])
    assert found[0] == found[1]
    assert {row["partition"] for row in found[0]} == set(partitions or [None])
    assert len(found[0]) == len(partitions or [None])
    assert serialised == [told]


def test_the_columns_of_the_assets_table_are_looked_up_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    looked_up: list[str] = []
    ask = SqliteEventLogStorage._has_asset_key_col_on_connection

    def counted(self: SqliteEventLogStorage, conn: Connection, column_name: str) -> bool:
        looked_up.append(column_name)
        return ask(self, conn, column_name)

    monkeypatch.setattr(SqliteEventLogStorage, "_has_asset_key_col_on_connection", counted)
    dg.materialize([days], instance=instance, partition_key="a", run_config=SILENT)
    assert looked_up == ["last_materialization_timestamp"]
    record = instance.get_asset_records([days.key])[0]
    assert record.asset_entry.last_materialization is not None


def test_a_run_waits_for_the_place_of_a_process_that_lives_and_takes_that_of_one_that_was_killed(
    instance: dg.DagsterInstance, hold: Hold
):
    killed = create_run_for_test(instance, "night", status=dg.DagsterRunStatus.STARTED)
    holder = hold(killed.run_id)
    assert answer(holder) == "True"
    assert not claims(instance, "next")

    kill(holder)

    assert claims(instance, "next")
    found = instance.get_run_by_id(killed.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.FAILURE


def test_a_place_promised_to_a_process_that_was_killed_while_it_waited_goes_to_the_next(
    instance: dg.DagsterInstance, hold: Hold
):
    assert claims(instance, "first")
    waiting = hold("second")
    assert answer(waiting) == "False"
    assert not claims(instance, "third")

    kill(waiting)
    instance.event_log_storage.free_concurrency_slot_for_step("first", STEP)

    assert claims(instance, "third")


def test_a_step_that_is_done_leaves_no_file_and_its_place_to_the_next(home: Path, instance: dg.DagsterInstance):
    for run_id in ("first", "second"):
        assert claims(instance, run_id)
        instance.event_log_storage.free_concurrency_slot_for_step(run_id, STEP)

    assert [path.name for path in home.rglob("*.lock")] == []


def test_the_queue_of_the_daemon_starts_runs_again_after_a_holder_was_killed(instance: dg.DagsterInstance, hold: Hold):
    holder = hold(create_run_for_test(instance, "night", status=dg.DagsterRunStatus.STARTED).run_id)
    assert answer(holder) == "True"
    pools = RunOpConcurrency(root_key_counts={POOL: 1}, has_unconstrained_root_nodes=False, all_pools={POOL})
    queued = instance.add_run(
        dg.DagsterRun(
            "daily", run_id=make_new_run_id(), status=dg.DagsterRunStatus.NOT_STARTED, run_op_concurrency=pools
        )
    )

    def is_blocked() -> bool:
        counter = GlobalOpConcurrencyLimitsCounter(
            instance, [queued], [], {POOL}, instance.event_log_storage.get_pool_limits()
        )
        return counter.is_blocked(queued)

    assert is_blocked()
    kill(holder)
    assert not is_blocked()


def test_a_run_that_holds_the_pool_runs_its_steps_and_keeps_others_out(
    home: Path, instance: dg.DagsterInstance, hold: Hold
):
    assert isinstance(instance, LocalInstance)
    with instance.hold_pool(POOL, "whole"):
        assert claims(instance, "whole")
        assert answer(hold("other")) == "False"
    assert claims(instance, "next") is False, "the one who asked first is first"
    assert [path.name for path in home.rglob("whole*.lock")] == []


def test_a_lock_that_cannot_be_had_is_not_taken_for_had(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    for _ in range(2):
        with pytest.raises(OSError, match="no locks available"):
            claims(instance, "first")


def test_a_run_is_in_its_own_file_before_it_is_in_the_file_of_all_assets(home: Path, instance: dg.DagsterInstance):
    """Let the commit of the run's file fail: then the file of all assets must not know of the materialization."""
    log = instance.event_log_storage
    assert isinstance(log, LocalEventLog)

    def fail(_connection: object) -> None:
        raise OSError("killed")

    run = dg.materialize([days], instance=instance, partition_key="a", run_config=SILENT)
    event.listen(log._runs, "commit", fail)
    with pytest.raises(OSError, match="killed"):
        instance.report_dagster_event(
            dg.DagsterEvent.build_asset_materialization_planned_event(
                "night", "write", AssetMaterializationPlannedData(dg.AssetKey("late"))
            ),
            run.run_id,
        )
    event.remove(log._runs, "commit", fail)
    assert dg.AssetKey("late") not in log.all_asset_keys()
