"""A backfill of trainings on Kubernetes: Dagster's own launcher and executor against an API server over HTTP.

The settings are those of deploy/kubernetes/values.yaml, the code is the real asset graph in a code server, and the
pods are what dagster-k8s posts: each is held against the schema of Kubernetes and against what it must be.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from ml_assets.backends.environments import Environment
from tests.deploy import chart
from tests.servers.kubernetes import KubernetesServer, kubernetes_server

pytestmark = [
    pytest.mark.slow,
    # Said by Dagster's own daemon.
    pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
KUBERNETES = kubernetes_validate.latest_version()
# Ten Mondays, two more than the values let one backfill have at once.
DAYS = [(date(2013, 3, 4) + timedelta(weeks=week)).isoformat() for week in range(10)]
N_AT_ONCE = 8
CANDIDATE = dg.AssetKey(["arrival_delay", "candidate"])
# What the ConfigMap and the Secrets of the namespace hold, for the processes that stand in for pods.
CANARY = "canary-of-the-tracker"
POD = {
    "ML_ASSETS_ENV": "staging",
    "ML_ASSETS_PROJECT": "acme-ml",
    "ML_ASSETS_CREDENTIALS": "attached",
    "WANDB_API_KEY": CANARY,
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
}


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What a backfill of candidates led to."""

    cluster: KubernetesServer
    instance: dg.DagsterInstance
    runs: list[dict[str, Any]]
    step: dict[str, Any]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Backfill the candidate of ten days, then let one of the runs start its step."""
    home, values = tmp_path_factory.mktemp("dagster"), chart.values()
    with kubernetes_server() as cluster, pytest.MonkeyPatch.context() as patch:
        launcher = chart.run_launcher(values, cluster.write_kubeconfig(home / "kubeconfig"))
        settings = {"run_launcher": launcher, "concurrency": chart.instance(values)["concurrency"]}
        (home / "dagster.yaml").write_text(yaml.safe_dump({**settings, "telemetry": {"enabled": False}}))
        pod = {**POD, **chart.code_server_environment(values), "ML_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home)}
        for name, value in pod.items():
            patch.setenv(name, value)
        target = PythonFileTarget(
            python_file=str(Path(__file__).with_name("with_gpu.py")),
            attribute=None,
            working_directory=str(ROOT),
            location_name="ml_assets",
        )
        with dg.DagsterInstance.from_config(str(home)) as instance:
            with WorkspaceProcessContext(instance, target) as workspace:
                _backfill(workspace, instance)
            runs = cluster.of(component="run_worker")
            step = _step_of(runs[0], cluster, environment={**os.environ, "PYTHONPATH": str(ROOT)})
            yield Launched(cluster=cluster, instance=instance, runs=runs, step=step)


def _backfill(workspace: WorkspaceProcessContext, instance: dg.DagsterInstance) -> None:
    """Ask for the days as the UI does, and do what the daemon does about it and about its queue."""
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="trainings",
        asset_graph=workspace.create_request_context().asset_graph,
        partition_names=DAYS,
        asset_selection=[CANDIDATE],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    errors = [error for error in execute_backfill_iteration(workspace, logging.getLogger("backfill")) if error]
    assert errors == []
    queue = QueuedRunCoordinatorDaemon(interval_seconds=1)
    assert [error for error in queue.run_iteration(workspace) if error] == []


def _step_of(run: Mapping[str, Any], cluster: KubernetesServer, environment: Mapping[str, str]) -> dict[str, Any]:
    """Do what the pod of a run does, until Kubernetes says that the pod of its step has failed."""
    (container,) = run["spec"]["template"]["spec"]["containers"]
    program, *arguments = container["args"]
    assert program == "dagster"
    cluster.status_of_jobs = {"failed": 1}
    command = [sys.executable, "-W", "ignore", "-m", "dagster", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    steps = cluster.of(component="step_worker")
    assert len(steps) == 1, done.stdout + done.stderr
    return steps[0]


def _container(job: Mapping[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def test_a_backfill_of_ten_days_is_ten_runs_of_which_eight_are_jobs_at_once(launched: Launched):
    records = launched.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": "trainings"}))
    assert sorted(run.tags["dagster/partition"] for run in records) == DAYS
    waiting = {run.run_id for run in records if run.status == dg.DagsterRunStatus.QUEUED}
    assert len(waiting) == len(DAYS) - N_AT_ONCE
    of_jobs = [job["metadata"]["labels"]["dagster/run-id"] for job in launched.runs]
    assert sorted(of_jobs) == sorted({run.run_id for run in records} - waiting)
    assert launched.cluster.refused == []


def test_they_run_in_the_namespace_of_the_environment(launched: Launched):
    namespaces = {job["metadata"]["namespace"] for job in (*launched.runs, launched.step)}
    assert namespaces == {Environment.of(POD).namespace}


def test_every_job_is_what_kubernetes_accepts(launched: Launched):
    for job in (*launched.runs, launched.step):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def test_the_validation_would_refuse_a_wrong_word(launched: Launched):
    wrong = json.loads(json.dumps(launched.step))
    _container(wrong)["resources"]["limit"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_runs_and_steps_start_from_the_image_of_the_code(launched: Launched):
    image = chart.image(chart.deployment(chart.values()))
    assert {_container(job)["image"] for job in (*launched.runs, launched.step)} == {image}


def test_runs_and_steps_are_nobody_in_particular_and_may_write_to_their_volumes_alone(launched: Launched):
    for job in (*launched.runs, launched.step):
        pod = job["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == "ml-assets-runs"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert _container(job)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        writable = {
            mount["mountPath"] for mount in _container(job)["volumeMounts"] if "emptyDir" in volumes[mount["name"]]
        }
        assert writable == {"/state", "/tmp"}
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_secrets_come_by_reference_and_no_value_is_posted(launched: Launched):
    for job in (*launched.runs, launched.step):
        from_secrets = {e["name"] for e in _container(job)["env"] if "secretKeyRef" in e.get("valueFrom", {})}
        assert from_secrets == {"DAGSTER_PG_PASSWORD", "WANDB_API_KEY", "ML_ASSETS_POSTGRES_URL"}
        # A Secret as a whole would bring keys that nobody named.
        assert not any("secretRef" in source for source in _container(job)["envFrom"])
        assert CANARY not in json.dumps(job)


def test_names_come_from_the_config_map_of_the_namespace(launched: Launched):
    for job in (*launched.runs, launched.step):
        maps = [source["configMapRef"]["name"] for source in _container(job)["envFrom"]]
        assert "ml-assets-environment" in maps


def test_the_run_is_small_and_its_training_has_what_the_use_case_asks_for(launched: Launched):
    assert _container(launched.runs[0])["resources"] == {
        "requests": {"cpu": "250m", "memory": "1Gi"},
        "limits": {"memory": "2Gi"},
    }
    assert launched.step["metadata"]["labels"]["dagster/op"] == "arrival_delay__candidate"
    # Compute(cpus=4, memory_gb=32, gpus=1)
    assert _container(launched.step)["resources"] == {
        "requests": {"cpu": "4000m", "memory": "32768Mi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "32768Mi", "nvidia.com/gpu": "1"},
    }
    tolerations = launched.step["spec"]["template"]["spec"]["tolerations"]
    assert tolerations == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_a_step_whose_pod_failed_fails_the_run(launched: Launched):
    (run,) = launched.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    logs = launched.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert len(logs) == 1
    assert "Discovered failed Kubernetes job" in str(logs[0].dagster_event.event_specific_data.error.message)
