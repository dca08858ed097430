"""What every process of an unattended machine begins with: a clock that the test sets, and perhaps a moment to die.

The file named by TEST_CLOCK holds two moments, in seconds since 1970: what the clock showed, and the real time then.
From there on it runs as fast as the real one. Two functions of Dagster, which are there to be replaced, and
``calendar.now`` show it; what else a process measures (timeouts, heartbeats of gRPC) stays real.

With TEST_KILL_AT_WRITE a process kills itself as it is about to write to Dagster's storage for the n-th time: between
two writes that belong together, if there are any.
"""

import os
import signal
import sys
import time
from datetime import UTC, datetime
from importlib.machinery import PathFinder
from pathlib import Path


def timestamp() -> float:
    shown, real = map(float, Path(os.environ["TEST_CLOCK"]).read_text(encoding="ascii").split())
    return shown + time.time() - real


def moment() -> datetime:
    return datetime.fromtimestamp(timestamp(), UTC)


def _soon(start: float) -> float:
    return start + 1


def _die_before_write(number: int) -> object:
    """Return what is to be told of every statement that SQLAlchemy sends."""
    n_writes = 0

    def on_statement(connection, cursor, statement, parameters, context, is_many) -> None:
        nonlocal n_writes
        # Heartbeats come by real time, and belong to nothing.
        if statement.split(None, 1)[0] in ("INSERT", "UPDATE", "DELETE") and "daemon_heartbeats" not in statement:
            n_writes += 1
            if n_writes == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return on_statement


def _listen(engine: type) -> None:
    from sqlalchemy import event

    event.listen(engine, "before_cursor_execute", _die_before_write(int(os.environ["TEST_KILL_AT_WRITE"])))


REPLACED = {
    "dagster._time": {"_mockable_get_current_timestamp": timestamp, "_mockable_get_current_datetime": moment},
    "ml_assets.calendar": {"now": moment},
    # They sleep in real seconds until the clock's next minute, and five: the clock may be moved meanwhile.
    "dagster._scheduler.scheduler": {"_get_next_scheduler_iteration_time": _soon},
    "dagster._daemon.sensor": {"MIN_INTERVAL_LOOP_TIME": 1},
}


class _Finder:
    """Finds these modules as usual, and replaces their parts as soon as they have been executed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name in REPLACED else None
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module) -> None:
            execute(module)
            for part, replacement in REPLACED[name].items():
                if not hasattr(module, part):
                    raise ImportError(f"{name} has no {part} any more, which the clock of the tests replaces")
                setattr(module, part, replacement)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder)
if "TEST_KILL_AT_WRITE" in os.environ:
    from sqlalchemy.engine import Engine

    _listen(Engine)
from tests import sqlite_that_waits_for_no_disk  # noqa: F401, E402 - as soon as it is imported
