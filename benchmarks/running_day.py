"""What the graph itself costs: loading the code location, and one more day of a running replay.

    python -m benchmarks.running_day [--home FOLDER] [--repeats 5]

Loading: CPU seconds (user and system) above importing dagster and dagster_dbt, in fresh processes, median. At most 1.5.

A day: CPU seconds of raw, features, examples, predictions and monitoring of one more day, in a process that has lived
two days already, median of four: with arrival_delay alone, at most 3, and with all use cases, which has no limit and
says what each further one costs. The features of all use cases are built in both. For that the half year before is
landed and a model of each use case promoted as of 2013-07-01, as ``ml-assets run`` does; with ``--home`` they are kept
there and used again by the next call.
Exits with 1 where a limit is missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.core import registry
from ml_assets.core.ports import DayRange
from ml_assets.lifecycle import LANDING, SERVING, Lifecycle
from ml_assets.use_cases import load_use_cases

USE_CASES = load_use_cases()
BEFORE = DayRange(first=date(2013, 1, 1), last=date(2013, 6, 30))
AS_OF, MONDAY = date(2013, 7, 1), date(2013, 7, 8)
GROUPS = (*LANDING, *SERVING)
# Tuesday to Sunday of two weeks, so that no weekly training is due among them; the first two warm the process up.
WITH_ALL, WITH_ONE = (DayRange(first=date(2013, 7, day), last=date(2013, 7, day + 5)) for day in (2, 9))
N_WARM_UP, ALONE = 2, "arrival_delay"
MOST_LOAD, MOST_DAY = 1.5, 3.0

LOADING = """
import time
import dagster, dagster_dbt
imported = time.process_time()
from ml_assets.definitions import defs
defs()
print(imported, time.process_time() - imported)
"""


@dataclass(frozen=True, kw_only=True)
class Day:
    """CPU seconds of one replayed day: all of it, and by step; what no step took is Dagster's own."""

    total: float
    steps: dict[str, float]


class StepClock:
    """Adds up the CPU seconds of this process between the start and the end of each step."""

    def __init__(self) -> None:
        self.steps: defaultdict[str, float] = defaultdict(float)

    def on_event(self, entry: dg.EventLogEntry) -> None:
        """Take the time when a step starts or ends."""
        event = entry.dagster_event
        if event is None or event.step_key is None:
            return
        if event.is_step_start:
            self.steps[event.step_key] -= time.process_time()
        elif event.is_step_success or event.is_step_failure:
            self.steps[event.step_key] += time.process_time()


def measure_loading(repeats: int) -> bool:
    """Print what loading the code location takes; return whether the limit is held."""
    with tempfile.TemporaryDirectory() as home:
        variables = os.environ | {"ML_ASSETS_HOME": home}
        command = [sys.executable, "-W", "ignore", "-c", LOADING]
        # The first process may have to parse the dbt project and compile modules.
        outputs = [
            subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout
            for _ in range(repeats + 1)
        ]
    pairs = [[float(value) for value in output.split()] for output in outputs[1:]]
    imported, above = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"importing dagster and dagster_dbt {imported:6.2f} CPU s")
    print(f"loading the code location above   {above:6.2f} CPU s  {above / imported:5.2f} x the imports")
    return _verdict("loading", above, MOST_LOAD)


def measure_day(home: Path) -> bool:
    """Print what one more day takes, by step; return whether the limit is held."""
    os.environ |= {"ML_ASSETS_HOME": str(home), "ML_ASSETS_TRACKER": "disabled"}
    clock = StepClock()
    life = Lifecycle(Environment.current(), on_event=clock.on_event)
    to_train = [u for u in USE_CASES if registry.champion_on(life.store, u.name, AS_OF) is None]
    if to_train:
        life.run_groups(LANDING, BEFORE)
    for use_case in to_train:
        life.train(use_case, AS_OF)
    of_all = _print_days("all use cases", _live(life, clock, WITH_ALL))
    # The Monday between, so that the days stay without a gap.
    life.run_groups(GROUPS, DayRange(first=MONDAY, last=MONDAY))
    others = tuple(use_case.name for use_case in USE_CASES if use_case.name != ALONE)
    alone = _print_days(f"{ALONE} alone", _live(life, clock, WITH_ONE, without=others))
    print(f"each further use case: {(of_all - alone) / len(others):.2f} CPU s a day")
    return _verdict(f"one more day, {ALONE} alone", alone, MOST_DAY)


def _live(life: Lifecycle, clock: StepClock, days: DayRange, *, without: Sequence[str] = ()) -> list[Day]:
    """Live these days one after the other, without some use cases; return what those after the warm-up took."""
    lived: list[Day] = []
    for day in days.dates:
        clock.steps.clear()
        started = time.process_time()
        life.run_groups(GROUPS, DayRange(first=day, last=day), without=without)
        lived.append(Day(total=time.process_time() - started, steps=dict(clock.steps)))
    return lived[N_WARM_UP:]


def _print_days(what: str, days: Sequence[Day]) -> float:
    """Print what a day takes, by step; return the median in CPU seconds."""
    by_step = {step: statistics.median(day.steps.get(step, 0.0) for day in days) for step in days[0].steps}
    total = statistics.median(day.total for day in days)
    around = statistics.median(day.total - sum(day.steps.values()) for day in days)
    for step, seconds in sorted({**by_step, "Dagster, around the steps": around}.items(), key=lambda pair: -pair[1]):
        print(f"{step:<34} {seconds:6.2f} CPU s  {seconds / total:6.1%}")
    print(f"{f'one more day, {what}':<34} {total:6.2f} CPU s  ({', '.join(f'{day.total:.2f}' for day in days)})\n")
    return total


def _verdict(what: str, found: float, limit: float) -> bool:
    print(f"{what}: {found:.2f} CPU s (limit {limit}): {'held' if found <= limit else 'MISSED'}\n")
    return found <= limit


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="keep the landed half year in this folder, and use it if it is there")
    parser.add_argument("--repeats", type=int, default=5, help="how many processes load the code location")
    arguments = parser.parse_args()
    is_held = measure_loading(arguments.repeats)
    if arguments.home is not None:
        return 0 if measure_day(arguments.home.absolute()) and is_held else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if measure_day(Path(folder)) and is_held else 1


if __name__ == "__main__":
    sys.exit(main())
