"""What the official Helm chart makes of our values, as far as its templates can be read: there is no helm here.

Read in dagster-io/dagster, helm/dagster: templates/helpers/instance/_run-launcher.tpl,
templates/configmap-instance.yaml, the helpers of charts/dagster-user-deployments, and the schema of the values.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
NAMESPACE = "acme-ml-staging"
Values = dict[str, Any]


def values() -> Values:
    """Return the values file."""
    return cast("Values", yaml.safe_load((FOLDER / "values.yaml").read_text()))


def manifests() -> list[Values]:
    """Return what lies beside the chart."""
    return list(yaml.safe_load_all((FOLDER / "manifests.yaml").read_text()))


def run_launcher(found: Values, kubeconfig: Path) -> Values:
    """Return ``run_launcher`` of the dagster.yaml that the chart writes, but for where the API server is."""
    config = found["runLauncher"]["config"]["k8sRunLauncher"]
    return {
        "module": "dagster_k8s",
        "class": found["runLauncher"]["type"],
        "config": {
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig),
            "job_namespace": NAMESPACE,
            "image_pull_policy": config["imagePullPolicy"],
            "service_account_name": found["serviceAccount"]["name"],
            "dagster_home": found["global"]["dagsterHome"],
            "instance_config_map": "dagster-instance",
            "postgres_password_secret": found["global"]["postgresqlSecretName"],
            "env_config_maps": ["dagster-pipeline-env"],
            "fail_pod_on_run_failure": config["failPodOnRunFailure"],
            "security_context": config["securityContext"],
            "run_k8s_config": {_snake(name): value for name, value in config["runK8sConfig"].items()},
        },
    }


def deployment(found: Values) -> Values:
    """Return the one deployment of user code."""
    (only,) = found["dagster-user-deployments"]["deployments"]
    return cast("Values", only)


def container_context(found: Values) -> Values:
    """Return what the code server passes on to the runs of its code."""
    code = deployment(found)
    return {
        "k8s": {
            "image_pull_policy": code["image"]["pullPolicy"],
            "env_config_maps": [f"dagster-{code['name']}-user-env", *(each["name"] for each in code["envConfigMaps"])],
            "volume_mounts": code["volumeMounts"],
            "volumes": code["volumes"],
            "resources": code["resources"],
            "namespace": NAMESPACE,
            "service_account_name": found["dagster-user-deployments"]["serviceAccount"]["name"],
            "env": code["env"],
            "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
        }
    }


def image(found: Mapping[str, Any]) -> str:
    """Return the image of a part of the values, as a pod names it."""
    return f"{found['image']['repository']}:{found['image']['tag']}"


def code_server_environment(found: Values) -> dict[str, str]:
    """Return the variables that the chart sets on the code server beside those of the deployment."""
    return {
        "DAGSTER_CURRENT_IMAGE": image(deployment(found)),
        "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT": json.dumps(container_context(found)),
    }


def instance(found: Values) -> Values:
    """Return what the chart writes into dagster.yaml of the settings that deploy/cloud/dagster.yaml has too."""
    daemon, concurrency = found["dagsterDaemon"], found["concurrency"]
    logs = found["computeLogManager"]["config"]["customComputeLogManager"]
    return {
        **found["additionalInstanceConfig"],
        "compute_logs": {key: logs[key] for key in ("module", "class")},
        "telemetry": found["telemetry"],
        "concurrency": {part: _snake_keys(concurrency[part]) for part in ("runs", "pools")},
        "run_monitoring": _snake_keys(daemon["runMonitoring"]),
        "run_retries": _snake_keys(daemon["runRetries"]),
        "retention": {part: _snake_keys(found["retention"][part]) for part in ("schedule", "sensor")},
    }


def pods(found: Values) -> Iterator[tuple[str, Values]]:
    """Yield each long-running part of Dagster with the pod it becomes."""
    for part in ("dagsterWebserver", "dagsterDaemon", "dagster-user-deployments"):
        of_part = deployment(found) if part == "dagster-user-deployments" else found[part]
        account = found["dagster-user-deployments" if of_part is not found.get(part) else "serviceAccount"]
        container = {
            "name": "dagster",
            "image": image(of_part),
            "imagePullPolicy": of_part["image"]["pullPolicy"],
            "env": of_part["env"],
            "envFrom": [{"configMapRef": each} for each in of_part["envConfigMaps"]],
            "securityContext": of_part["securityContext"],
            "resources": of_part["resources"],
            "volumeMounts": of_part["volumeMounts"],
            **{probe: of_part[probe] for probe in ("readinessProbe", "livenessProbe") if probe in of_part},
        }
        yield (
            part,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": part.lower()},
                "spec": {
                    "serviceAccountName": account.get("serviceAccount", account)["name"],
                    "securityContext": of_part["podSecurityContext"],
                    "containers": [container],
                    "volumes": of_part["volumes"],
                },
            },
        )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _snake_keys(found: Mapping[str, Any]) -> Values:
    return {_snake(name): value for name, value in found.items()}
