"""The event log of a laptop: Dagster's own on SQLite, healed of two faults.

It compiles every SQL statement anew for every query, which is half the CPU time of a run of small steps; it asks for
tables and columns again with every event, writes an asset's row for every partition, and serialises what is planned of
a check for each. And a run that is killed keeps its place in a pool for ever, so that the next run waits for a process
that is gone.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster._utils.concurrency import ConcurrencyClaimStatus, ConcurrencyKeyInfo, ConcurrencySlotStatus
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool, QueuePool

if TYPE_CHECKING:
    from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned


class LocalEventLog(SqliteEventLogStorage):
    """The files and tables of SqliteEventLogStorage, through two SQLAlchemy engines that are told which file to open.

    A step that waits for a place in a pool, or has one, holds a lock on a file of its own. The kernel lets go of the
    lock when the process ends, however it ends: that is how the next claim knows whose place is free.

    What begins with an underscore and stands in Dagster's class too is not public API of Dagster; the tests in
    tests/test_local_instance.py hold it.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._of_thread = threading.local()
        self._runs = create_engine("sqlite://", creator=self._open, poolclass=NullPool)
        # The file of all assets is wanted again at once: its connection is kept.
        self._index = create_engine("sqlite://", creator=self._open, poolclass=QueuePool, pool_size=1)
        self._tables, self._columns = set[str](), set[str]()
        self._locks: dict[Path, int] = {}
        self.held_pools = set[tuple[str, str]]()
        self._locks_folder = Path(base_dir) / "pool_locks"
        super().__init__(base_dir, inst_data)

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        """Claim a place in a pool for a step; a step of a run that holds the pool as a whole has its place already."""
        if (concurrency_key, run_id) in self.held_pools:
            return ConcurrencyClaimStatus(concurrency_key=concurrency_key, slot_status=ConcurrencySlotStatus.CLAIMED)
        self._lock(run_id, step_key)
        claim = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        if not claim.is_claimed and self._free_places_of_the_dead([concurrency_key]):
            claim = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        return claim

    def get_concurrency_infos(self, concurrency_keys: Sequence[str]) -> Mapping[str, ConcurrencyKeyInfo]:
        """Return who has and who awaits a place in these pools, after the places of the dead were freed.

        The daemon asks before it starts a run from the queue: it would never start one while a dead run has the place.
        """
        self._free_places_of_the_dead(concurrency_keys)
        return super().get_concurrency_infos(concurrency_keys)

    def free_concurrency_slot_for_step(self, run_id: str, step_key: str) -> None:
        """Give a step's place back."""
        super().free_concurrency_slot_for_step(run_id, step_key)
        path = self._lock_path(run_id, step_key)
        if path in self._locks:
            path.unlink(missing_ok=True)
            os.close(self._locks.pop(path))

    def dispose(self) -> None:
        """Let go of everything, as the end of the process would."""
        super().dispose()
        self._index.dispose()
        while self._locks:
            os.close(self._locks.popitem()[1])

    def _lock(self, run_id: str, step_key: str) -> None:
        path = self._lock_path(run_id, step_key)
        if path in self._locks:
            return
        path.parent.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        self._locks[path] = descriptor

    def _lock_path(self, run_id: str, step_key: str) -> Path:
        return self._locks_folder / f"{run_id}.{step_key}.lock"

    def _free_places_of_the_dead(self, concurrency_keys: Sequence[str]) -> bool:
        """Free the places of steps whose process is gone, and report their runs as failed; tell if there were any."""
        pools = super().get_concurrency_infos(concurrency_keys).values()
        steps = {(p.run_id, p.step_key) for pool in pools for p in (*pool.claimed_slots, *pool.pending_steps)}
        dead = [(run_id, step_key) for run_id, step_key in sorted(steps) if self._is_dead(run_id, step_key)]
        for run_id, step_key in dead:
            super().free_concurrency_slot_for_step(run_id, step_key)
            run = self._instance.get_run_by_id(run_id)
            if run and not run.is_finished:
                self._instance.report_run_failed(run, f"The process that ran {step_key} is gone; run it again.")
        return bool(dead)

    def _is_dead(self, run_id: str, step_key: str) -> bool:
        """Tell whether the process of a step is gone, and take its file away if so."""
        path = self._lock_path(run_id, step_key)
        if path in self._locks:
            return False
        try:
            # Without its file a step is not one of this storage, or is done: nothing is known of its process.
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _open(self) -> sqlite3.Connection:
        # One thread at a time uses a connection, under _db_lock, but not always the same one.
        path = self.path_for_shard(self._of_thread.shard)
        return sqlite3.connect(path, timeout=SQLITE_BUSY_TIMEOUT_SECONDS, check_same_thread=False)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store one event: first what is in the file of its run, then what is in the file of all assets."""
        with self._transaction():
            super().store_event(event)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events that Dagster hands over together, in one transaction.

        What an asset's row says last is written once: for 365 days of an asset Dagster would write it 365 times.
        """
        last = {_about(event): number for number, event in enumerate(events)}
        with self._transaction():
            for number, event in enumerate(events):
                self._of_thread.is_last = last[_about(event)] == number
                try:
                    super().store_event(event)
                finally:
                    self._of_thread.is_last = True

    def _store_asset_event(self, conn: Connection, event: dg.EventLogEntry, event_id: int) -> None:
        if getattr(self._of_thread, "is_last", True):
            super()._store_asset_event(conn, event, event_id)

    def _store_asset_check_evaluation_planned(self, event: dg.EventLogEntry, event_id: int | None) -> None:
        """Write down that a check is to run, for each of its partitions, with the one event of them all.

        Dagster serialises the event for each partition, and compiles one statement of them all.
        """
        planned = cast("AssetCheckEvaluationPlanned", cast("dg.DagsterEvent", event.dagster_event).event_specific_data)
        subset = planned.partitions_subset
        row = {
            "asset_key": planned.asset_key.to_string(),
            "check_name": planned.check_name,
            "run_id": event.run_id,
            "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
            "evaluation_event": serialize_value(event),
            "evaluation_event_timestamp": self._event_insert_timestamp(event),
            "evaluation_event_storage_id": event_id,
        }
        rows = [{**row, "partition": key} for key in (subset.get_partition_keys() if subset else [None])]
        with self.index_connection() as connection:
            connection.execute(AssetCheckExecutionsTable.insert(), rows)

    def has_table(self, table_name: str) -> bool:
        """Tell whether the file of all assets has a table; Dagster asks before every check, and none ever goes."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        # Dagster asks the file for its columns with every event of an asset; none of them ever goes either.
        if column_name not in self._columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._columns.add(column_name)
        return column_name in self._columns

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Let everything this thread does share one connection per file, each committed at the end.

        The file of all assets is opened first and so committed last, as Dagster does it: what it says of a run, the
        run's own file says too.
        """
        with self._db_lock, ExitStack() as stack:
            index = stack.enter_context(self._begin(INDEX_SHARD_NAME))
            self._of_thread.shared = (stack, {INDEX_SHARD_NAME: index})
            try:
                yield
            finally:
                self._of_thread.shared = None

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        shared = getattr(self._of_thread, "shared", None)
        if shared is None:
            with self._db_lock, self._begin(shard) as connection:
                yield connection
            return
        stack, connections = shared
        if shard not in connections:
            connections[shard] = stack.enter_context(self._begin(shard))
        yield connections[shard]

    @contextmanager
    def _begin(self, shard: str) -> Iterator[Connection]:
        self._of_thread.shard = shard
        engine = self._index if shard == INDEX_SHARD_NAME else self._runs
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        with engine.connect() as connection, connection.begin():
            yield connection


def _about(event: dg.EventLogEntry) -> tuple[object, object]:
    """Return what an event overwrites in the row of its asset: events of one kind leave what the last of them says."""
    return event.dagster_event and event.dagster_event.asset_key, event.dagster_event_type
