"""What is particular to DuckDB: one file, one process at a time, kills and full disks in the middle of a write."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.errors import StorageFull, WarehouseBusy
from ml_assets.core.ports import DayRange

MONDAY = date(2013, 7, 1)
DAY = DayRange(first=MONDAY, last=MONDAY)

_HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""

_KILLED_WHILE_WRITING = """
import os, signal, sys
from datetime import date
from pathlib import Path
import pyarrow as pa
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.ports import DayRange

class Killed(DuckDBWarehouse):
    def _insert(self, *arguments, **options):
        if sys.argv[2] == "after insert":
            super()._insert(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

day = date(2013, 7, 1)
rows = pa.table({"partition_on": pa.array([day]), "n": [2]})
Killed(Path(sys.argv[1])).replace_days({"raw.seen": rows}, DayRange(first=day, last=day))
"""

_KILLED_WHILE_LANDING = """
import os, signal, sys
from datetime import date
from pathlib import Path
import numpy as np, pyarrow as pa
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.contracts import Column, Contract
from ml_assets.core.landing import landing
from ml_assets.core.ports import DayRange

day, home, moment = date(2013, 7, 1), Path(sys.argv[1]).parent, sys.argv[2]
days = DayRange(first=day, last=day)
columns = [Column(name=name, type=kind, description=".") for name, kind in
           (("partition_on", pa.date32()), ("n", pa.int64()))]
contract = Contract(table="seen", description=".", columns=tuple(columns), key=("n",), is_partitioned=True)

def kill_at(place):
    if moment == place:
        os.kill(os.getpid(), signal.SIGKILL)

class Numbers:
    contracts = {"seen": contract}
    def read(self, table, days=None): raise AssertionError
    def note(self, days): return "numbers"
    def batches(self, table, days=None):
        for start in range(0, 2_000_000, 500_000):
            n = np.arange(start, start + 500_000)
            yield pa.table({"partition_on": pa.array(np.full(len(n), np.datetime64(day))), "n": n})
            if start == 1_000_000:
                kill_at("while the source is read")

def watched(reader):
    def batches():
        for number, batch in enumerate(reader):
            yield batch
            if number:
                kill_at("while the rows are written")
    return pa.RecordBatchReader.from_batches(reader.schema, batches())

with landing(Numbers(), contract, days, work_folder=home / "work", whole_bytes=2**20) as checked:
    writes = {"raw.seen": watched(checked.accepted), "raw.seen_quarantine": checked.quarantined}
    DuckDBWarehouse(Path(sys.argv[1])).replace_days(writes, days)
"""

_DISK_FULL_WHILE_WRITING = """
import resource, sys
from datetime import date
from pathlib import Path
import numpy as np, pyarrow as pa
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.errors import StorageFull
from ml_assets.core.ports import DayRange

day = date(2013, 7, 1)
n = np.random.default_rng(1).integers(0, 2**62, 2_000_000)
rows = pa.table({"partition_on": pa.array(np.full(len(n), np.datetime64(day))), "n": n})
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
warehouse = DuckDBWarehouse(Path(sys.argv[1]))
try:
    warehouse.replace_days({"raw.seen": rows}, DayRange(first=day, last=day))
except StorageFull as error:
    print("refused:", error)
print("in the same process:", warehouse.query("SELECT n FROM raw.seen")["n"].to_pylist())
"""


def seen(*numbers: int) -> pa.Table:
    return pa.table(
        {"partition_on": pa.array([MONDAY] * len(numbers), pa.date32()), "n": pa.array(numbers, pa.int64())}
    )


def numbers_in(warehouse: DuckDBWarehouse) -> list[int]:
    return warehouse.query("SELECT n FROM raw.seen ORDER BY n")["n"].to_pylist()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one row, n = 1."""
    path = tmp_path / "warehouse.duckdb"
    DuckDBWarehouse(path).replace_days({"raw.seen": seen(1)}, DAY)
    return path


@contextmanager
def another_process_holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_held_database_is_refused_with_the_holders_process_id(path: Path):
    warehouse = DuckDBWarehouse(path, lock_patience=timedelta(seconds=0.1))
    with another_process_holding(path) as holder:
        with pytest.raises(WarehouseBusy, match=rf"still was after 0.1 s.*PID {holder.pid}"):
            warehouse.query("SELECT 1")
        with pytest.raises(WarehouseBusy):
            warehouse.replace_days({"raw.seen": seen(2)}, DAY)
        holder.communicate("")
    assert numbers_in(warehouse) == [1]


def test_a_write_waits_until_the_database_is_released(path: Path, monkeypatch: pytest.MonkeyPatch):
    connect, refusals = duckdb.connect, list[str]()
    with another_process_holding(path) as holder:

        def connect_or_release(database: Path) -> duckdb.DuckDBPyConnection:
            try:
                return connect(database)
            except duckdb.IOException as error:
                refusals.append(str(error))
                holder.communicate("")
                raise

        monkeypatch.setattr(duckdb, "connect", connect_or_release)
        warehouse = DuckDBWarehouse(path)
        warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    assert len(refusals) == 1
    assert numbers_in(warehouse) == [2]


def test_between_operations_the_database_is_free_for_others(path: Path):
    DuckDBWarehouse(path).query("SELECT 1")
    with another_process_holding(path) as holder:
        holder.communicate("")
    assert holder.returncode == 0


def test_a_session_keeps_one_connection_and_then_lets_go(path: Path, monkeypatch: pytest.MonkeyPatch):
    connect, opened = duckdb.connect, list[Path]()
    monkeypatch.setattr(duckdb, "connect", lambda database: (opened.append(database), connect(database))[1])
    warehouse = DuckDBWarehouse(path)
    with warehouse.session():
        warehouse.replace_days({"raw.seen": seen(2)}, DAY)
        with warehouse.session():
            assert numbers_in(warehouse) == [2]
        with pytest.raises(ValueError, match="null or outside"):
            warehouse.replace_days_with_query("raw.seen", "SELECT NULL::DATE AS partition_on, 3::BIGINT AS n", DAY)
        assert numbers_in(warehouse) == [2]
    assert len(opened) == 1
    with another_process_holding(path) as holder:
        holder.communicate("")


def test_a_session_keeps_to_a_gigabyte_also_after_a_stream_was_written(path: Path):
    def memory() -> str:
        return warehouse.query("SELECT current_setting('memory_limit') AS memory")["memory"][0].as_py()

    warehouse = DuckDBWarehouse(path)
    usual = memory()
    with warehouse.session():
        assert memory() == "953.6 MiB"
        warehouse.replace_days({"raw.seen": seen(2).to_reader()}, DAY)
        assert memory() == "953.6 MiB"
    assert memory() == usual != "953.6 MiB"


def test_threads_do_not_share_a_session(path: Path):
    warehouse, found = DuckDBWarehouse(path), list[list[int]]()
    with warehouse.session():
        thread = threading.Thread(target=lambda: found.append(numbers_in(warehouse)))
        thread.start()
        thread.join()
    assert found == [[1]]


def test_of_two_writers_of_one_day_in_one_process_the_second_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = DuckDBWarehouse(path), DuckDBWarehouse(path)
    insert = first._insert

    def insert_while_the_other_writes(*arguments: object) -> object:
        with pytest.raises(WarehouseBusy, match="another thread wrote"):
            second.replace_days({"raw.seen": seen(3)}, DAY)
        return insert(*arguments)

    monkeypatch.setattr(first, "_insert", insert_while_the_other_writes)
    first.replace_days({"raw.seen": seen(2)}, DAY)
    assert numbers_in(second) == [2]


@pytest.mark.parametrize("moment", ["between delete and insert", "after insert"])
def test_a_kill_in_the_middle_of_a_write_leaves_the_old_day(path: Path, moment: str):
    killed = subprocess.run([sys.executable, "-c", _KILLED_WHILE_WRITING, str(path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    warehouse = DuckDBWarehouse(path)
    assert numbers_in(warehouse) == [1]
    warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    assert numbers_in(warehouse) == [2]


@pytest.mark.parametrize("moment", ["while the source is read", "while the rows are written"])
def test_a_kill_while_a_stream_is_landed_leaves_the_old_day_and_no_file_and_the_next_run_heals(path: Path, moment: str):
    command = [sys.executable, "-c", _KILLED_WHILE_LANDING, str(path)]
    assert subprocess.run([*command, moment], check=False).returncode == -signal.SIGKILL
    assert numbers_in(DuckDBWarehouse(path)) == [1]
    assert list((path.parent / "work").iterdir()) == []
    subprocess.run([*command, "never"], check=True)
    counted = DuckDBWarehouse(path).query("SELECT count(*) AS n, count(DISTINCT n) AS n_distinct FROM raw.seen")
    assert counted.to_pylist() == [{"n": 2_000_000, "n_distinct": 2_000_000}]


@pytest.mark.parametrize("failing", ["_fit", "_delete", "_insert"])
def test_a_failure_at_any_step_leaves_the_old_day(path: Path, failing: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError("injected")

    warehouse = DuckDBWarehouse(path)
    with monkeypatch.context() as patched:
        patched.setattr(warehouse, failing, fail)
        with pytest.raises(OSError, match="injected"):
            warehouse.replace_days({"raw.seen": seen(2)}, DAY)
        with pytest.raises(OSError, match="injected"):
            warehouse.replace_days_with_query("raw.seen", "SELECT DATE '2013-07-01' partition_on, 2::BIGINT n", DAY)
    assert numbers_in(warehouse) == [1]


def test_a_failure_while_a_whole_table_is_replaced_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("injected")

    warehouse = DuckDBWarehouse(path)
    with monkeypatch.context() as patched:
        patched.setattr(warehouse, "_insert", fail)
        with pytest.raises(OSError, match="injected"):
            warehouse.replace_table({"raw.seen": seen(2)})
    assert numbers_in(warehouse) == [1]


def test_a_disk_without_room_is_refused_before_anything_is_written(path: Path):
    warehouse = DuckDBWarehouse(path, free_bytes=lambda _: 5 * 2**20)
    with pytest.raises(StorageFull, match="has 5 MiB free and the write needs 64; nothing was changed"):
        warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    with pytest.raises(StorageFull):
        warehouse.replace_days_with_query("raw.seen", "SELECT DATE '2013-07-01' partition_on, 2::BIGINT n", DAY)
    with pytest.raises(StorageFull):
        warehouse.replace_table({"raw.seen": seen(2)})
    assert numbers_in(warehouse) == [1]


def test_a_disk_that_fills_up_during_the_write_leaves_the_old_day(path: Path):
    done = subprocess.run(
        [sys.executable, "-c", _DISK_FULL_WHILE_WRITING, str(path)], capture_output=True, text=True, check=True
    )
    assert "refused: " in done.stdout
    assert "nothing was changed" in done.stdout
    assert "in the same process: [1]" in done.stdout
    assert numbers_in(DuckDBWarehouse(path)) == [1]


def test_what_spills_takes_at_most_half_of_the_free_disk(tmp_path: Path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", free_bytes=lambda _: 3 * 2**30)
    assert warehouse.query("SELECT current_setting('max_temp_directory_size') AS n")["n"].to_pylist() == ["1.5 GiB"]


def test_asking_for_columns_creates_no_database(tmp_path: Path):
    assert DuckDBWarehouse(tmp_path / "none.duckdb").columns("raw.seen") is None
    assert list(tmp_path.iterdir()) == []


def test_a_name_in_sql_reaches_no_python_variable(path: Path):
    secret = pa.table({"n": [42]})
    assert secret.num_rows == 1
    with pytest.raises(Exception, match="secret does not exist"):
        DuckDBWarehouse(path).query("SELECT * FROM secret")
