"""kill -9, or a full disk, in the middle of each stage; then the same command again: as if nothing had happened.

ML_ASSETS_KILL_SEED chooses other moments.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

pytestmark = pytest.mark.slow

TUESDAY = date(2013, 1, 15)
SEED = int(os.environ.get("ML_ASSETS_KILL_SEED", "2013"))

# The seed chooses one of the stage's steps, and the moment in it.
STAGES = {
    "raw": ["raw__flights", "raw__schedules", "raw__weather"],
    "features": ["dbt_models", "features__feat_airport_network"],
    "examples": ["arrival_delay__examples"],
    "training set": ["arrival_delay__training_set"],
    "candidate": ["arrival_delay__candidate", "arrival_delay__champion"],
    "predictions": ["arrival_delay__predictions"],
    "monitoring": ["arrival_delay__drift", "arrival_delay__performance", "arrival_delay__report"],
}


def live_a_day(home: Path, order: dict, seen: dict[str, float]) -> None:
    """Land, train and serve a day; be killed, or find the disk full, on the way where the order says so."""
    from conftest import environment_of, small_life

    from ml_assets.core.ports import DayRange
    from ml_assets.lifecycle import LANDING, SERVING

    def on_event(event) -> None:
        if event.is_step_start:
            seen[event.step_key] = -time.perf_counter()
            if event.step_key == order.get("kill_in"):
                threading.Timer(order["after_seconds"], os.kill, (os.getpid(), signal.SIGKILL)).start()
            if event.step_key == order.get("disk_full_in"):
                n_bytes = (home / "warehouse.duckdb").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
        elif event.is_step_success:
            seen[event.step_key] += time.perf_counter()

    with environment_of(home):
        lifecycle, use_case = small_life(home, on_event)
        date_ = date.fromisoformat(order["day"])
        day = DayRange(first=date_, last=date_)
        lifecycle.run_groups(LANDING, day)
        if order["lands_only"]:
            return
        lifecycle.train(use_case, date_)
        lifecycle.run_groups(SERVING, day)


def serve_orders(home: Path) -> None:
    """Fork for each order read from stdin a process that lives the day, and print how it ended.

    What takes long and is the same for all (imports, dbt's parse) is done once, before any fork and without threads.
    """
    import onnxruntime  # noqa: F401
    import pytorch_lightning  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    from conftest import environment_of, small_life

    from ml_assets.backends.dbt_in_process import DbtInProcess
    from ml_assets.backends.environments import Environment
    from ml_assets.resources import dbt_of

    with environment_of(home):
        DbtInProcess._manifest = dbt_of(Environment.current())._manifest
        small_life(home, lambda event: None)
    answers = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            seen: dict[str, float] = {}
            said = ""
            try:
                live_a_day(home, json.loads(line), seen)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            (home / "said.json").write_text(json.dumps({"error": said, "seconds": seen}))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{status}\n".encode())


class Nursery:
    """The process that forks the ones to be killed, all of them in one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._log = home.parent / "nursery.log"
        script = "import sys, pathlib, test_kills; test_kills.serve_orders(pathlib.Path(sys.argv[1]))"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", script, str(home)],
                cwd=Path(__file__).parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def live(self, day: date, *, lands_only: bool = False, **disturbance: object) -> dict | None:
        """Live a day and return what the process told in the end, or None where it was killed."""
        order = {"day": day.isoformat(), "lands_only": lands_only, **disturbance}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._log.read_text()[-4000:]
        if os.WIFSIGNALED(int(answer)):
            assert os.WTERMSIG(int(answer)) == signal.SIGKILL
            return None
        return json.loads((self.home / "said.json").read_text())

    def end(self) -> None:
        # With whatever it has forked, should that hang.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What a Tuesday leaves when nothing happens, and how long each step took."""

    tables: Mapping[str, pa.Table]
    files: Mapping[str, bytes]
    seconds: Mapping[str, float]


@pytest.fixture(scope="module")
def nursery(as_built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    home = tmp_path_factory.mktemp("kills") / "home"
    as_built.copy_to(home)
    found = Nursery(home)
    yield found
    found.end()


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, as_built) -> Undisturbed:
    told = nursery.live(TUESDAY)
    assert told is not None
    assert told["error"] == ""
    home = type(as_built)(path=nursery.home)
    return Undisturbed(tables=timeless(home.tables()), files=undated(home.files()), seconds=told["seconds"])


def timeless(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables without what tells which run wrote a prediction, and when."""
    predictions = tables["predictions.arrival_delay"].drop_columns(["run_id", "predicted_at"])
    by_all = [(name, "ascending") for name in predictions.column_names]
    return {**tables, "predictions.arrival_delay": predictions.sort_by(by_all)}


def undated(files: Mapping[str, bytes]) -> dict[str, object]:
    """Return the artifacts, with the ledger as documents that do not tell when an entry was made."""
    entries = {path: json.loads(content) for path, content in files.items() if path.startswith("ledger/")}
    return {**files, **{path: {**entry, "recorded_at": None} for path, entry in entries.items()}}


def differing(one: Mapping, other: Mapping) -> list[str]:
    """Return the names whose content is not the same in both."""
    return sorted(name for name in {*one, *other} if name not in one or name not in other or one[name] != other[name])


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_day_killed_in_the_middle_and_lived_again_is_like_an_undisturbed_one(
    stage: str, nursery: Nursery, as_built, undisturbed: Undisturbed
):
    choose = random.Random(f"{SEED} {stage}")
    step = choose.choice(STAGES[stage])
    after_seconds = choose.uniform(0, 0.9) * undisturbed.seconds[step]
    print(f"ML_ASSETS_KILL_SEED={SEED}: kill -9 {after_seconds:.3f} s after {step} began")
    home = as_built.copy_to(nursery.home)

    assert nursery.live(TUESDAY, kill_in=step, after_seconds=after_seconds) is None, "it ended before it was killed"
    again = nursery.live(TUESDAY)

    assert again is not None
    assert again["error"] == ""
    assert differing(undisturbed.tables, timeless(home.tables())) == []
    assert differing(undisturbed.files, undated(home.files())) == []


@pytest.mark.slow
def test_the_first_day_of_all_killed_while_dbt_makes_the_tables_is_like_an_undisturbed_one(
    nursery: Nursery, as_built, undisturbed: Undisturbed
):
    new_year, choose = date(2013, 1, 1), random.Random(f"{SEED} first")
    after_seconds = choose.uniform(0.1, 0.9) * undisturbed.seconds["dbt_models"]
    print(f"ML_ASSETS_KILL_SEED={SEED}: kill -9 {after_seconds:.3f} s after dbt_models began")
    home = as_built.copy_to(nursery.home)
    (nursery.home / "warehouse.duckdb").unlink()

    assert nursery.live(new_year, lands_only=True, kill_in="dbt_models", after_seconds=after_seconds) is None
    again = nursery.live(new_year, lands_only=True)

    assert again is not None
    assert again["error"] == ""
    tables, is_first = home.tables(), pc.field("partition_on") == pa.scalar(new_year)
    expected = {name: rows for name, rows in as_built.tables().items() if name in tables}
    expected = {
        n: rows.filter(is_first) if "partition_on" in rows.column_names else rows for n, rows in expected.items()
    }
    assert {"raw.flights", "features.feat_arrivals", "examples.arrival_delay"} <= set(tables)
    assert differing(expected, tables) == []


@pytest.mark.slow
def test_a_disk_that_is_full_while_dbt_runs_is_named_and_the_next_run_mends_the_day(
    nursery: Nursery, as_built, undisturbed: Undisturbed
):
    before = as_built.tables()
    home = as_built.copy_to(nursery.home)

    told = nursery.live(TUESDAY, disk_full_in="dbt_models")
    changed = differing(before, home.tables())
    again = nursery.live(TUESDAY)

    assert told is not None
    assert "dbt_models" in told["error"]
    assert "File too large" in told["error"]
    assert {name for name in changed if not name.startswith("raw.")} <= {"features.feat_flight_schedule"}
    assert again is not None
    assert again["error"] == ""
    assert differing(undisturbed.tables, timeless(home.tables())) == []
