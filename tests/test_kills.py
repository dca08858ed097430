"""kill -9, or a full disk, in the middle of each stage; then the same command again: as if nothing had happened.

ML_ASSETS_KILL_SEED chooses other moments.
"""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import Home

TUESDAY = date(2013, 1, 15)
SEED = int(os.environ.get("ML_ASSETS_KILL_SEED", "2013"))

# Each stage with the command that runs it and the steps it has: the seed chooses one of them, and the moment in it.
STAGES = {
    "raw": ("land", ["raw__flights", "raw__schedules", "raw__weather"]),
    "features": ("land", ["dbt_models", "features__feat_airport_network"]),
    "examples": ("land", ["arrival_delay__examples"]),
    "training set": ("train", ["arrival_delay__training_set"]),
    "candidate": ("train", ["arrival_delay__candidate"]),
    "champion": ("train", ["arrival_delay__champion"]),
    "predictions": ("serve", ["arrival_delay__predictions"]),
    "monitoring": (
        "serve",
        [f"arrival_delay__{stage}" for stage in ("drift", "performance", "skew", "report", "retraining")],
    ),
}


def obey(home: Path, order: Mapping[str, str | float], seconds: dict[str, float]) -> None:
    """Land a day, train as of it or serve it, and note what steps took; be killed where the order says so."""
    from conftest import environment_of, small_life

    from ml_assets.core.ports import DayRange
    from ml_assets.lifecycle import LANDING, SERVING

    def on_event(event) -> None:
        if event.is_step_start:
            seconds[event.step_key] = -time.perf_counter()
            if event.step_key == order.get("kill_in"):
                threading.Timer(order["after_seconds"], os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif event.is_step_success:
            seconds[event.step_key] += time.perf_counter()

    day = date.fromisoformat(order["day"])
    with environment_of(home):
        lifecycle, use_case = small_life(on_event)
        if order["command"] == "train":
            lifecycle.train(use_case, day)
        else:
            groups = LANDING if order["command"] == "land" else SERVING
            lifecycle.run_groups(groups, DayRange(first=day, last=day))


def keep_nursery(home: Path) -> None:
    """Fork a process for each order read from stdin, and print how it ended.

    What takes long and is the same for all (imports, dbt's parse) is done once, before any fork and without threads.
    """
    from conftest import environment_of, small_life

    from ml_assets.backends.dbt_in_process import DbtInProcess
    from ml_assets.backends.environments import Environment
    from ml_assets.resources import dbt_of

    for name in ("altair", "igraph", "onnxruntime", "pytorch_lightning", "sklearn.linear_model", "vl_convert"):
        importlib.import_module(name)
    with environment_of(home):
        DbtInProcess._manifest = dbt_of(Environment.current())._manifest
        small_life(lambda event: None)
    answers = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            seconds: dict[str, float] = {}
            error = ""
            try:
                obey(home, json.loads(line), seconds)
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
            (home / "told.json").write_text(json.dumps({"error": error, "seconds": seconds}))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{status}\n".encode())


class Nursery:
    """The process that forks the ones to be killed, all of them in one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._log = home.parent / "nursery.log"
        script = (
            "import sys, pathlib; sys.path.append(str(pathlib.Path.cwd().parent)); import test_kills; "
            "test_kills.keep_nursery(pathlib.Path(sys.argv[1]))"
        )
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

    def order(self, command: str, day: date, **killed: str | float) -> Mapping[str, float] | None:
        """Have a command obeyed; return the seconds of each step, or None where its process was killed."""
        line = json.dumps({"command": command, "day": day.isoformat(), **killed})
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._log.read_text()[-4000:]
        if os.WIFSIGNALED(int(answer)):
            assert os.WTERMSIG(int(answer)) == signal.SIGKILL
            return None
        told = json.loads((self.home / "told.json").read_text())
        assert told["error"] == ""
        return told["seconds"]

    def end(self) -> None:
        # With whatever it has forked, should that hang.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A command that nothing disturbs: what it found, what it left, and how long each step took."""

    found: "Home"
    tables: Mapping[str, pa.Table]
    files: Mapping[str, object]
    seconds: Mapping[str, float]


@pytest.fixture(scope="module")
def nursery(as_built: "Home", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    home = tmp_path_factory.mktemp("kills") / "home"
    as_built.copy_to(home)
    found = Nursery(home)
    yield found
    found.end()


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, as_built: "Home", tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """A Tuesday landed, then a model trained as of it, then served."""
    states, home = tmp_path_factory.mktemp("states"), as_built.copy_to(nursery.home)
    commands = {}
    for command in ("land", "train", "serve"):
        found = home.copy_to(states / command)
        seconds = nursery.order(command, TUESDAY)
        assert seconds is not None
        commands[command] = Undisturbed(
            found=found, tables=timeless(home.tables()), files=undated(home.files()), seconds=seconds
        )
    return commands


def timeless(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables without what tells which run wrote a prediction, and when."""
    found = dict(tables)
    for name in ("predictions.arrival_delay", "predictions.arrival_delay_served"):
        rows = tables[name].drop_columns(["run_id", "predicted_at"])
        found[name] = rows.sort_by([(column, "ascending") for column in rows.column_names])
    return found


def undated(files: Mapping[str, bytes]) -> dict[str, object]:
    """Return the artifacts, with the ledger as documents without when an entry was made and what calls took."""
    entries = {path: json.loads(content) for path, content in files.items() if path.startswith("ledger/")}
    for gate in (gate for entry in entries.values() for gate in entry["gates"]):
        gate["found"] = None if gate["name"].endswith("_latency") else gate["found"]
    return {**files, **{path: {**entry, "recorded_at": None} for path, entry in entries.items()}}


def differing(one: Mapping, other: Mapping) -> list[str]:
    """Return the names whose content is not the same in both."""
    return sorted(name for name in {*one, *other} if name not in one or name not in other or one[name] != other[name])


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_killed_in_the_middle_and_given_again_ends_like_an_undisturbed_one(
    stage: str, nursery: Nursery, undisturbed: Mapping[str, Undisturbed]
):
    command, steps = STAGES[stage]
    expected, choose = undisturbed[command], random.Random(f"{SEED} {stage}")
    step = choose.choice(steps)
    after_seconds = choose.uniform(0, 0.9) * expected.seconds[step]
    # A short step can be over before the signal comes, where the machine was slower when it was timed: then earlier.
    for delay in (after_seconds, after_seconds / 4, after_seconds / 16, 0.0):
        print(f"ML_ASSETS_KILL_SEED={SEED}: kill -9 {delay:.3f} s after {step} began")
        home = expected.found.copy_to(nursery.home)
        if nursery.order(command, TUESDAY, kill_in=step, after_seconds=delay) is None:
            break
    else:
        pytest.fail("it ended before it was killed")
    nursery.order(command, TUESDAY)

    assert differing(expected.tables, timeless(home.tables())) == []
    assert differing(expected.files, undated(home.files())) == []


def test_the_first_landing_of_all_killed_while_dbt_makes_its_tables_ends_like_an_undisturbed_one(
    nursery: Nursery, as_built: "Home", undisturbed: Mapping[str, Undisturbed]
):
    new_year, choose = date(2013, 1, 1), random.Random(f"{SEED} first")
    after_seconds = choose.uniform(0.1, 0.9) * undisturbed["land"].seconds["dbt_models"]
    for delay in (after_seconds, after_seconds / 4, after_seconds / 16, 0.0):
        print(f"ML_ASSETS_KILL_SEED={SEED}: kill -9 {delay:.3f} s after dbt_models began")
        home = as_built.copy_to(nursery.home)
        (home.path / "warehouse.duckdb").unlink()
        if nursery.order("land", new_year, kill_in="dbt_models", after_seconds=delay) is None:
            break
    else:
        pytest.fail("it ended before it was killed")
    nursery.order("land", new_year)

    tables, is_first = home.tables(), pc.field("partition_on") == pa.scalar(new_year)
    assert {"raw.flights", "features.feat_arrivals", "examples.arrival_delay"} <= set(tables)
    expected = {name: rows for name, rows in as_built.tables().items() if name in tables}
    of_day = {name: rows.filter(is_first) for name, rows in expected.items() if "partition_on" in rows.column_names}
    assert differing({**expected, **of_day}, tables) == []
