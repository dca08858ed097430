"""A machine that nobody attends: Dagster's own processes over one home, with a clock that the test moves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.scheduler.instigation import InstigatorType

ROOT = Path(__file__).parents[2]
FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED]
# Of real time: a busy machine is slow, a broken one never gets there.
PATIENCE_SECONDS = 600
LOCATION = ["-m", "tests.unattended.location", "-d", str(ROOT)]


class Stuck(AssertionError):
    """What was waited for did not come."""


@dataclass(kw_only=True)
class Machine:
    """The processes of one home, which end with the test, and what they have done so far."""

    home: Path
    instance: dg.DagsterInstance
    processes: list[subprocess.Popen] = field(default_factory=list)
    n_killed: int = 0
    n_to_kill: int = 0
    _workspace: Path | None = None
    _daemon: subprocess.Popen | None = None
    _kills: Iterator[int] = field(default_factory=lambda: iter(()))

    @property
    def clock(self) -> Path:
        return self.home / "clock"

    @property
    def now(self) -> float:
        shown, real = map(float, self.clock.read_text().split())
        return shown + time.time() - real

    def set_clock(self, moment: datetime) -> None:
        """Let every process, and every one that is started later, see this moment; the clock goes on from there."""
        written = self.home / "clock.new"
        written.write_text(f"{moment.timestamp()} {time.time()}")
        written.replace(self.clock)

    def start(self, command: Sequence[str], **variables: str) -> subprocess.Popen:
        """Start a process in a session of its own, so that whatever it starts ends with it."""
        with (self.home / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**os.environ, **self.environment, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "startup"), str(ROOT)]),
            "TEST_CLOCK": str(self.clock),
            "ML_ASSETS_HOME": str(self.home),
            "DAGSTER_HOME": str(self.home / "dagster"),
            "ML_ASSETS_TRACKER": "disabled",
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            # Of dozens of processes the first compiles our modules, and the others read them, whatever the shell says.
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def start_code_server(self) -> Path:
        """Start the server of the code location, and return the workspace file that names it."""
        socket = self.home / "code.sock"
        self.start(["dagster", "api", "grpc", *LOCATION, "--socket", str(socket), "--heartbeat-timeout", "100000"])
        self.wait(socket.exists, "the code server")
        workspace = self.home / "workspace.yaml"
        server = {
            "grpc_server": {"socket": str(socket), "host": "localhost", "location_name": "tests.unattended.location"}
        }
        workspace.write_text(yaml.safe_dump({"load_from": [server]}))
        return workspace

    def keep_daemon(self, workspace: Path, kills: Sequence[int]) -> None:
        """Start the daemon, and again whenever it is gone; each of these is killed as it writes for the n-th time."""
        self._workspace, self._kills = workspace, iter(kills)
        self.n_to_kill += len(kills)
        self._start_daemon()

    def _start_daemon(self) -> None:
        number = next(self._kills, None)
        variables = {} if number is None else {"TEST_KILL_AT_WRITE": str(number)}
        self._daemon = self.start(["dagster._daemon", "run", "-w", str(self._workspace)], **variables)

    def _revive(self) -> None:
        if self._daemon is not None and self._daemon.poll() is not None:
            assert self._daemon.returncode == -signal.SIGKILL, (self.home / "log").read_text()[-6000:]
            self.n_killed += 1
            self._start_daemon()

    def runs(self, **tags: str) -> Sequence[dg.RunRecord]:
        """Return the runs with these tags (``_`` stands for ``/``), oldest first."""
        wanted = {name.replace("_", "/", 1): value for name, value in tags.items()}
        return list(reversed(self.instance.get_run_records(dg.RunsFilter(tags=wanted))))

    @property
    def is_busy(self) -> bool:
        return self.instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) > 0

    def settle(self) -> None:
        """Wait until no run is left and no sensor wants another, as a person would see it a minute later."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.wait(lambda: not self.is_busy, "the end of the runs")
            n_runs = self.instance.get_runs_count()
            since = self._a_minute_later()
            self.wait(lambda since=since: self.is_busy or self._have_looked(since), "a look of every sensor")
            if not self.is_busy and self.instance.get_runs_count() == n_runs:
                return
            if time.monotonic() > deadline:
                raise Stuck(f"runs without an end: {[record.dagster_run.tags for record in self.runs()[-5:]]}")

    def wait_for_kills(self) -> None:
        """Let minute after minute pass until each daemon that is to be killed has written often enough to be."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.n_killed < self.n_to_kill:
            if time.monotonic() > deadline:
                raise Stuck(f"{self.n_killed} of {self.n_to_kill} kills came")
            self.settle()

    def wait_for_sensors(self) -> None:
        """Wait until every sensor and schedule is known to the daemon: one that is not there yet misses the hour."""
        since = self._a_minute_later()
        self.wait(lambda: self._have_looked(since), "a first look of every sensor")

    def _a_minute_later(self) -> float:
        """Move the clock on so that every sensor looks again, and return the moment it then shows."""
        self.set_clock(datetime.fromtimestamp(self.now).astimezone() + timedelta(seconds=61))
        return self.now

    def _have_looked(self, since: float) -> bool:
        states = [s for s in self.instance.all_instigator_state() if s.instigator_type == InstigatorType.SENSOR]
        ticks = [getattr(state.instigator_data, "last_tick_timestamp", None) or 0 for state in states]
        return bool(ticks) and min(ticks) >= since

    def wait(self, is_there, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_there():
            self._revive()
            if time.monotonic() > deadline:
                raise Stuck(f"no sign of {what}; the log ends with\n{(self.home / 'log').read_text()[-6000:]}")
            time.sleep(0.3)

    def kill_daemon(self) -> None:
        """End the daemon for now, as a machine that is switched off; it does not count as one of the kills."""
        os.killpg(self._daemon.pid, signal.SIGKILL)
        self._daemon.wait()
        self._daemon = None

    def end(self) -> None:
        """End every process."""
        self._daemon = None
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()


@contextmanager
def machine_over(home: Path) -> Iterator[Machine]:
    """Yield the machine of a home; every process it started is gone when the context ends."""
    folder = home / "dagster"
    folder.mkdir(exist_ok=True)
    settings = yaml.safe_load((ROOT / "deploy" / "local" / "dagster.yaml").read_text())
    # As on every laptop, but that it looks at the queue every second.
    settings["run_coordinator"] = {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1},
    }
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        machine = Machine(home=home, instance=instance)
        try:
            yield machine
        finally:
            machine.end()
