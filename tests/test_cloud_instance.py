"""Dagster outside a laptop: many runs at once on a real PostgreSQL server, and what steps print in S3 and GCS."""

import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.concurrency import execute_concurrency_slots_iteration
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from tests.servers.postgres import PASSWORD, PostgresServer

SETTINGS = Path(__file__).parents[1] / "deploy" / "cloud" / "dagster.yaml"
N_RUNS, N_STEPS = 8, 20
MINUTE = timedelta(minutes=1)

# Runs of one graph side by side, each a process of its own: all of them write the same assets, in the same pool. The
# last one is killed by the kernel in the middle of a step. Prints run ids and exit codes.
RUNS = """
import json, os, signal, sys
import dagster as dg

home, n_runs, n_steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def asset_of(number):
    @dg.asset(name=f"table_{number:02}", pool="warehouse")
    def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        if number == n_steps // 2 and context.run.tags.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        return dg.MaterializeResult(metadata={"n_rows": number})
    return table

job = dg.Definitions(
    assets=[asset_of(number) for number in range(n_steps)], jobs=[dg.define_asset_job("all")]
).resolve_job_def("all")
silent = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

def run(number):
    tags = {"dies": "yes"} if number == n_runs - 1 else {}
    with dg.DagsterInstance.from_config(home) as instance:
        result = job.execute_in_process(instance=instance, run_config=silent, tags={"number": str(number), **tags})
        sys.exit(0 if result.success else 1)

children = []
for number in range(n_runs):
    child = os.fork()
    if child == 0:
        run(number)
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


@pytest.fixture
def home(tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster home with the settings of the cloud and a database of its own."""
    monkeypatch.setenv("ML_ASSETS_POSTGRES_URL", postgres.url(f"dagster_{tmp_path.name}"))
    shutil.copy(SETTINGS, tmp_path / "dagster.yaml")
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def test_the_settings_hold_no_address_and_no_secret(instance: dg.DagsterInstance):
    assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
    told = json.dumps([instance.get_ref().to_dict(), yaml.safe_load(instance.info_str())], default=str)
    assert "ML_ASSETS_POSTGRES_URL" in told
    assert PASSWORD not in told


def test_eight_runs_of_twenty_steps_at_once_lose_nothing_and_one_that_is_killed_harms_no_other(
    home: Path, instance: dg.DagsterInstance, postgres: PostgresServer
):
    # What is printed has a test of its own.
    settings = {name: value for name, value in yaml.safe_load(SETTINGS.read_text()).items() if name != "compute_logs"}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))

    command = [sys.executable, "-W", "ignore", "-c", RUNS, str(home), str(N_RUNS), str(N_STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0] * (N_RUNS - 1) + [-9]
    assert "locked" not in done.stderr
    assert "deadlock" not in postgres.log()

    runs = {int(run.tags["number"]): run for run in instance.get_runs()}
    assert sorted(runs) == list(range(N_RUNS))
    for number, run in runs.items():
        kinds = Counter(entry.dagster_event_type for entry in instance.all_logs(run.run_id))
        dies = number == N_RUNS - 1
        assert run.status == (dg.DagsterRunStatus.STARTED if dies else dg.DagsterRunStatus.SUCCESS)
        assert kinds[dg.DagsterEventType.STEP_START] == (N_STEPS // 2 + 1 if dies else N_STEPS)
        assert kinds[dg.DagsterEventType.STEP_SUCCESS] == (N_STEPS // 2 if dies else N_STEPS)
        assert kinds[dg.DagsterEventType.ASSET_MATERIALIZATION] == (N_STEPS // 2 if dies else N_STEPS)
    for number in range(N_STEPS):
        records = instance.fetch_materializations(dg.AssetKey(f"table_{number:02}"), limit=1000).records
        assert len(records) == (N_RUNS if number < N_STEPS // 2 else N_RUNS - 1)

    # Who waits for or has a place. Not `claimed_slots`: on PostgreSQL two steps can be written into the same one.
    def in_the_pool() -> set[str]:
        return {step.run_id for step in instance.event_log_storage.get_concurrency_info("warehouse").pending_steps}

    assert in_the_pool() == {runs[N_RUNS - 1].run_id}
    longest = timedelta(seconds=settings["run_monitoring"]["max_runtime_seconds"])
    to_free = timedelta(seconds=settings["run_monitoring"]["free_slots_after_run_end_seconds"])
    logger = logging.getLogger("dagster")
    with (
        dg.DagsterInstance.from_config(str(home)) as daemon,
        WorkspaceProcessContext(daemon, EmptyWorkspaceTarget()) as workspace,
    ):
        for waited, last in ((-MINUTE, dg.DagsterRunStatus.STARTED), (MINUTE, dg.DagsterRunStatus.FAILURE)):
            with freeze_time(datetime.now(UTC) + longest + waited):
                assert [error for error in execute_run_monitoring_iteration(workspace, logger) if error] == []
            statuses = Counter(run.status for run in instance.get_runs())
            assert statuses == {dg.DagsterRunStatus.SUCCESS: N_RUNS - 1, last: 1}
        assert in_the_pool() == {runs[N_RUNS - 1].run_id}
        with freeze_time(datetime.now(UTC) + longest + MINUTE + to_free + MINUTE):
            list(execute_concurrency_slots_iteration(workspace, logger))
        assert in_the_pool() == set()
