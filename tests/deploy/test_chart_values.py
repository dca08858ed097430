"""The values for the Helm chart and what lies beside it: held against Kubernetes' schemas and against dagster.yaml."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._config import process_config
from dagster_k8s import K8sRunLauncher

from ml_assets.core.compute import Compute
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.pods import compute_of, step_config
from ml_assets.use_cases import load_use_cases
from tests.deploy import chart

KUBERNETES = kubernetes_validate.latest_version()
SETTINGS = Path(__file__).parents[2] / "deploy" / "cloud" / "dagster.yaml"
PODS = dict(chart.pods(chart.values()))
# The sections of the chart's values and, of those that refuse what they do not know, the keys: read in the chart's
# schema (helm/dagster/schema). The chart itself ignores a misspelt section without a word.
SECTIONS = {
    *("global", "postgresql", "generatePostgresqlPasswordSecret", "rabbitmq", "redis", "flower", "rbacEnabled"),
    *("serviceAccount", "dagster-user-deployments", "runLauncher", "dagsterDaemon", "concurrency", "dagsterWebserver"),
    *("computeLogManager", "additionalInstanceConfig", "ingress", "retention", "telemetry"),
}
KEYS = {
    "runLauncher.config.k8sRunLauncher": {
        *("image", "imagePullPolicy", "jobNamespace", "loadInclusterConfig", "kubeconfigFile", "envConfigMaps"),
        *("envSecrets", "envVars", "volumeMounts", "volumes", "labels", "failPodOnRunFailure", "resources"),
        *("schedulerName", "securityContext", "runK8sConfig"),
    },
    "runLauncher.config.k8sRunLauncher.runK8sConfig": {
        *("containerConfig", "podSpecConfig", "podTemplateSpecMetadata", "jobSpecConfig", "jobMetadata"),
    },
    "concurrency": {"enabled", "pools", "runs"},
    "concurrency.pools": {"defaultLimit", "granularity", "opGranularityRunBuffer"},
    "concurrency.runs": {"maxConcurrentRuns", "tagConcurrencyLimits"},
    "computeLogManager": {"type", "config"},
    "dagsterDaemon": {
        *(
            "schedulerName",
            "volumeMounts",
            "volumes",
            "enabled",
            "image",
            "runCoordinator",
            "heartbeatTolerance",
            "env",
        ),
        *("envConfigMaps", "envSecrets", "deploymentLabels", "labels", "nodeSelector", "affinity", "tolerations"),
        *("podSecurityContext", "securityContext", "resources", "livenessProbe", "readinessProbe", "startupProbe"),
        *("annotations", "runMonitoring", "runRetries", "sensors", "schedules"),
    },
    "dagsterWebserver": {
        *("dbStatementTimeout", "dbPoolRecycle", "logLevel", "schedulerName", "volumeMounts", "volumes", "pathPrefix"),
        *("replicaCount", "image", "nameOverride", "service", "workspace", "env", "envConfigMaps", "envSecrets"),
        *("deploymentLabels", "labels", "nodeSelector", "affinity", "tolerations", "podSecurityContext"),
        *("securityContext", "resources", "readinessProbe", "livenessProbe", "startupProbe", "annotations"),
        "enableReadOnly",
    },
}


def test_every_section_and_every_key_is_one_that_the_chart_reads():
    values = chart.values()
    assert {name for name in values if not name.startswith("x-")} == SECTIONS
    for place, known in KEYS.items():
        found: Any = values
        for step in place.split("."):
            found = found[step]
        assert set(found) <= known, place


def test_the_launchers_settings_are_those_it_knows(tmp_path: Path):
    config = chart.run_launcher(chart.values(), tmp_path / "kubeconfig")["config"]
    assert process_config(K8sRunLauncher.config_type(), config).success
    assert not process_config(K8sRunLauncher.config_type(), {**config, "job_namespaces": "x"}).success


def test_the_chart_writes_the_same_settings_as_the_shared_dagster_yaml():
    shared, written = yaml.safe_load(SETTINGS.read_text()), chart.instance(chart.values())
    # What the chart has no value for, and Dagster's default is the same or harmless.
    shared["retention"].pop("auto_materialize")
    # The chart writes the same database as host, user and the Secret of the password.
    assert set(shared.pop("storage")) == {"postgres"}
    assert written == shared


@pytest.mark.parametrize("part", PODS)
def test_every_pod_is_what_kubernetes_accepts_and_is_nobody_in_particular(part: str):
    kubernetes_validate.validate(PODS[part], KUBERNETES, strict=True)
    spec = PODS[part]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] >= 10000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]
    assert container["livenessProbe"]["failureThreshold"] > 1, (
        "one that hangs is replaced, one slow answer is not enough"
    )
    assert spec["serviceAccountName"] == ("ml-assets-runs" if "user" in part else "ml-assets-dagster")


def _values_of_secrets(found: object) -> Iterator[str]:
    if isinstance(found, Mapping):
        if "value" in found and any(word in str(found.get("name")) for word in ("KEY", "PASSWORD", "TOKEN", "URL")):
            yield str(found["name"])
        yield from (name for each in found.values() for name in _values_of_secrets(each))
    elif isinstance(found, list):
        yield from (name for each in found for name in _values_of_secrets(each))


def test_no_value_is_a_secret():
    assert list(_values_of_secrets(chart.values())) == []
    assert "postgresqlPassword" not in chart.values()["postgresql"]
    assert list(_values_of_secrets([{"name": "WANDB_API_KEY", "value": "abc"}])) == ["WANDB_API_KEY"]


def test_nobody_enters_without_a_name_and_everything_is_over_tls():
    ingress = chart.values()["ingress"]
    assert ingress["dagsterWebserver"]["tls"]["enabled"] is True
    assert ingress["annotations"]["nginx.ingress.kubernetes.io/auth-url"]
    assert chart.values()["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    assert chart.values()["postgresql"]["postgresqlParams"] == {"sslmode": "require"}


@pytest.mark.parametrize(
    "manifest", chart.manifests(), ids=lambda found: f"{found['kind']}-{found['metadata']['name']}"
)
def test_every_manifest_is_what_kubernetes_accepts_and_leaves_the_namespace_to_whoever_applies_it(manifest: Any):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert "namespace" not in manifest["metadata"]


def test_traffic_is_refused_unless_a_policy_lets_it_through():
    policies = {
        found["metadata"]["name"]: found["spec"] for found in chart.manifests() if found["kind"] == "NetworkPolicy"
    }
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    entering = {name: rules for name, spec in policies.items() for rules in spec.get("ingress", ())}
    assert set(entering) == {"webserver-from-ingress", "code-from-dagster"}
    assert all(rules["from"] and rules["ports"] for rules in entering.values())
    ports = {"webserver-from-ingress": chart.values()["dagsterWebserver"]["service"]["port"],
             "code-from-dagster": chart.deployment(chart.values())["port"]}  # fmt: skip
    assert {name: rules["ports"][0]["port"] for name, rules in entering.items()} == ports


def test_stages_that_train_have_what_the_use_case_asks_for_and_the_others_no_gpu():
    from dataclasses import replace

    asked = Compute(cpus=4, memory_gb=32, gpus=2)
    use_cases = [replace(load_use_cases()[0], compute=asked)]
    name = use_cases[0].name
    for stage in ("candidate", "tuning", "ablation", "staleness", "ml_test_score"):
        assert compute_of(dg.AssetKey([name, stage]), "models", use_cases) == asked
    for stage in ("training_set", "champion"):
        assert compute_of(dg.AssetKey([name, stage]), "models", use_cases) == Compute(cpus=4, memory_gb=32)
    assert compute_of(dg.AssetKey(["raw", "flights"]), "raw", use_cases).memory_gb == 2
    assert compute_of(dg.AssetKey([name, "predictions"]), "predictions", use_cases).gpus == 0


def test_memory_is_a_limit_and_processors_are_not():
    found = step_config(Compute(cpus=0.5, memory_gb=1.5))
    assert found == {
        "container_config": {
            "resources": {"requests": {"cpu": "500m", "memory": "1536Mi"}, "limits": {"memory": "1536Mi"}}
        }
    }


def test_a_machine_that_is_none_is_refused():
    with pytest.raises(InvalidDeclaration, match="no machine"):
        Compute(cpus=0, memory_gb=8)
