"""Days that nobody attends: Dagster's own processes, a clock that advances, a daemon that is killed again and again.

ML_ASSETS_KILL_SEED chooses other moments.
"""

import os
import random
import socket
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets.backends.environments import Environment
from ml_assets.calendar import LOCAL_ZONE
from ml_assets.core import registry
from ml_assets.core.days import DayRange
from ml_assets.lifecycle import LANDING, SERVING, Lifecycle, tell_dagster
from tests.conftest import Home, environment_of, only_use_case
from tests.unattended.location import USE_CASE
from tests.unattended.machine import LOCATION, Machine, machine_over

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SEED = int(os.environ.get("ML_ASSETS_KILL_SEED", "2013"))
DAYS = [date(2013, 1, 15) + timedelta(days=n) for n in range(4)]
ROLLED_BACK_FROM, AFTER = date(2013, 1, 14), date(2013, 1, 16)
N_KILLS = 20
# What a run writes of itself into its rows.
OF_A_RUN = ("run_id", "predicted_at")


def morning_after(day: date) -> datetime:
    """Just before the daily schedule is due."""
    return datetime.combine(day + timedelta(days=1), time(6, 29, 58), LOCAL_ZONE)


def roll_back(instance: dg.DagsterInstance, life: Lifecycle) -> None:
    """What `ml-assets rollback` does: the one thing here that a person does."""
    entry = registry.rollback(
        life.store,
        USE_CASE.name,
        effective_from=ROLLED_BACK_FROM,
        reason="too many false alarms",
        recorded_at=datetime(2013, 1, 17, 15, tzinfo=UTC),
        recorded_by="a person",
    )
    tell_dagster(instance, USE_CASE, entry)


@dataclass(kw_only=True)
class Lived:
    """What happened: the as-of dates of the trainings, and the days that were scored again."""

    trained: list[date] = field(default_factory=list)
    rescored: list[tuple[date, date]] = field(default_factory=list)


def by_hand(home: Home) -> Lived:
    """Live the same days in this process, one thing after the other."""
    with only_use_case(USE_CASE):
        life = Lifecycle(Environment.current())
    lived = Lived()
    for day in DAYS:
        life.run_groups((*LANDING, *SERVING), DayRange(first=day - timedelta(days=2), last=day))
        train_where_asked(life, lived, DayRange(first=day, last=day))
        if day == AFTER:
            with dg.DagsterInstance.ephemeral() as nobody:
                roll_back(nobody, life)
            again = DayRange(first=ROLLED_BACK_FROM, last=day)
            life.run_groups(SERVING, again)
            lived.rescored.append((again.first, again.last))
            # The model of before is older: had it been in charge, one of these days had asked for a training.
            train_where_asked(life, lived, again)
    return lived


def train_where_asked(life: Lifecycle, lived: Lived, days: DayRange) -> None:
    """Train as the newest decision on these days asks, and score again what the new model is in charge of."""
    asked = """
        select max(as_of) as as_of from monitoring.retraining_decisions
        where decision = 'retrain' and partition_on between $first and $last
    """
    (as_of,) = life.warehouse.query(asked, {"first": days.first, "last": days.last})["as_of"].to_pylist()
    if as_of is None:
        return
    assert life.train(USE_CASE, as_of)
    lived.trained.append(as_of)
    if as_of <= days.last:
        life.run_groups(SERVING, DayRange(first=as_of, last=days.last))
        lived.rescored.append((as_of, days.last))


def rows(home: Home) -> dict[str, pa.Table]:
    tables = home.tables()
    return {name: rows.drop_columns([n for n in OF_A_RUN if n in rows.column_names]) for name, rows in tables.items()}


@pytest.fixture
def expected(as_built: Home, tmp_path: Path) -> tuple[dict[str, pa.Table], Lived]:
    home = as_built.copy_to(tmp_path / "by_hand")
    with environment_of(home.path):
        lived = by_hand(home)
    assert lived.trained, "these days are to ask for a training"
    return rows(home), lived


def test_days_run_themselves_with_each_effect_once_while_the_daemon_is_killed(
    as_built: Home, tmp_path: Path, expected: tuple[dict[str, pa.Table], Lived]
):
    expected_rows, lived = expected
    home = as_built.copy_to(tmp_path / "home")
    moments = random.Random(SEED)
    with environment_of(home.path), machine_over(home.path) as machine:
        # After the hour of the day before, which the daemon would make up for.
        machine.set_clock(morning_after(DAYS[0]) - timedelta(hours=1))
        under_dagster_dev(machine, DAYS[0])
        workspace = machine.start_code_server()
        n_left = N_KILLS
        for n, day in enumerate(DAYS[1:]):
            n_today = n_left // (len(DAYS) - 1 - n)
            n_left -= n_today
            machine.keep_daemon(workspace, [moments.randint(1, 45) for _ in range(n_today)])
            a_day(machine, day)
            if day == AFTER:
                roll_back(machine.instance, Lifecycle(Environment.current()))
                machine.settle()
            machine.wait_for_kills()
            machine.kill_daemon()
        assert machine.n_killed == N_KILLS
        effects = Counter((r.dagster_run.job_name, *_subject(r.dagster_run)) for r in machine.runs())
        failed = [r.dagster_run for r in machine.runs() if r.dagster_run.status != dg.DagsterRunStatus.SUCCESS]
    assert not failed
    name = USE_CASE.name
    assert effects == Counter(
        [
            *(("daily", str(day - timedelta(days=2)), str(day)) for day in DAYS),
            *((f"{name}_training", str(as_of), str(as_of)) for as_of in lived.trained),
            *((f"{name}_rescore", str(first), str(last)) for first, last in lived.rescored),
        ]
    )
    found = rows(home)
    assert found.keys() == expected_rows.keys()
    assert [table for table in found if not found[table].equals(expected_rows[table])] == []


def under_dagster_dev(machine: Machine, day: date) -> None:
    """Live a day with all that `make ui` starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machine.start(["dagster", "dev", *LOCATION, "--host", "127.0.0.1", "--port", str(port)])
    machine.wait_for_sensors()
    a_day(machine, day)
    machine.end()


def a_day(machine: Machine, day: date) -> None:
    """Let the morning after a day come, and the machine do what it does."""
    machine.wait_for_sensors()
    machine.set_clock(morning_after(day))
    machine.wait(lambda: machine.runs(dagster_run_key=f"daily:{day}"), f"the daily run of {day}")
    machine.settle()


def _subject(run: dg.DagsterRun) -> tuple[str, str]:
    tags, name = run.tags, "dagster/asset_partition_range_"
    day = tags.get("dagster/partition", "")
    return tags.get(f"{name}start", day), tags.get(f"{name}end", day)
