"""The example policies of deploy/iam: rendered with the names environments.py derives, linted, asked who may what."""

import fnmatch
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlglot
import yaml
from sqlglot import exp

from ml_assets.backends.environments import Environment
from ml_assets.use_cases import load_use_cases

ROOT = Path(__file__).parents[2]
IAM = ROOT / "deploy" / "iam"
ENVIRONMENT = Environment.of(
    {
        "ML_ASSETS_ENV": "staging",
        "ML_ASSETS_PROJECT": "acme-ml",
        "ML_ASSETS_CREDENTIALS": "attached",
        "ML_ASSETS_TRACKER": "disabled",
    }
)
NAMES = {
    "PROJECT": ENVIRONMENT.project,
    "LOCATION": ENVIRONMENT.location,
    "AWS_ACCOUNT": "123456789012",
    "OIDC_PROVIDER": "oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF",
}
ARTIFACTS, LANDING, LOGS = (
    urlsplit(url).netloc for url in (ENVIRONMENT.artifacts_url, ENVIRONMENT.landing_url, ENVIRONMENT.logs_url)
)
AWS = sorted(path.name for path in (IAM / "aws").iterdir())
GCP = sorted(path.name for path in (IAM / "gcp").glob("*.json"))
ROLES = {f"mlAssets{path.stem.removeprefix('role-').title()}": path for path in (IAM / "gcp").glob("role-*.yaml")}
# Google's own roles that a binding may name, each on the one kind of resource where it opens that resource alone.
PREDEFINED = {
    "bigtable.json": {"roles/bigtable.reader"},
    "identity-runs.json": {"roles/iam.workloadIdentityUser"},
    "identity-dagster.json": {"roles/iam.workloadIdentityUser"},
}
# As Google's reference of permissions writes them; what else would be a word that opens nothing, or more than is meant.
PERMISSIONS = {
    "bigquery.jobs.create",
    *(f"bigquery.readsessions.{verb}" for verb in ("create", "getData", "update")),
    *("storage.buckets.get", *(f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list"))),
    *(f"storage.multipartUploads.{verb}" for verb in ("abort", "create", "list", "listParts")),
}


def rendered(place: str) -> str:
    """Return a file as ``envsubst`` renders it; KeyError for a name that nobody sets."""
    return Template((IAM / place).read_text()).substitute(NAMES)


def bindings(name: str) -> list[dict[str, Any]]:
    return list(json.loads(rendered(f"gcp/{name}"))["bindings"])


@pytest.fixture(scope="module")
def parliament() -> Iterator[ModuleType]:
    """The linter of IAM policies; it asks setuptools, which has it no longer, where its own files are."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in = ModuleType("pkg_resources")
        stand_in.resource_filename = lambda package, name: str(files(package) / name)  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "pkg_resources", stand_in)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
            import parliament as linter

        yield linter


def findings(parliament: ModuleType, policy: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a policy: what the linter says, and every wildcard that is no path in one bucket."""
    said = [str(finding.issue) for finding in parliament.analyze_policy_string(json.dumps(policy)).findings]
    for statement in policy["Statement"]:
        actions, resources = (_list(statement.get(part, [])) for part in ("Action", "Resource"))
        said += [f"wildcard action {action}" for action in actions if "*" in action]
        said += [
            f"wildcard resource {r}" for r in resources if not re.fullmatch(r"arn:aws:s3:::[a-z0-9-]+(/[a-z*/]+)?", r)
        ]
    return said


def _list(found: str | list[str]) -> list[str]:
    return [found] if isinstance(found, str) else found


@pytest.mark.parametrize("name", [name for name in AWS if not name.startswith("trust")])
def test_aws_policies_pass_the_linter_and_have_no_wildcard(parliament: ModuleType, name: str):
    assert findings(parliament, json.loads(rendered(f"aws/{name}"))) == []


def test_a_seeded_wildcard_and_a_misspelt_action_are_found(parliament: ModuleType):
    policy = json.loads(rendered("aws/runs.json"))
    policy["Statement"][0]["Action"] = ["s3:*"]
    assert findings(parliament, policy) != []
    policy = json.loads(rendered("aws/runs.json"))
    policy["Statement"][0]["Resource"] = "*"
    assert "wildcard resource *" in findings(parliament, policy)
    policy["Statement"][0] |= {"Action": ["s3:ListBuckett"], "Resource": f"arn:aws:s3:::{ARTIFACTS}"}
    assert "UNKNOWN_ACTION" in findings(parliament, policy)


def may(who: str, action: str, place: str, **conditions: str) -> bool:
    """Tell whether an AWS policy lets its role do something: an allowing statement matches, and no denying one."""
    found = {"Allow": False, "Deny": False}
    for statement in json.loads(rendered(f"aws/{who}.json"))["Statement"]:
        is_meant = action in _list(statement["Action"]) and any(
            fnmatch.fnmatchcase(f"arn:aws:s3:::{place}", pattern) for pattern in _list(statement["Resource"])
        )
        for operator, keys in statement.get("Condition", {}).items():
            assert operator == "Null"
            is_meant = is_meant and all((key not in conditions) == (value == "true") for key, value in keys.items())
        found[statement["Effect"]] |= is_meant
    return found["Allow"] and not found["Deny"]


def test_runs_keep_artifacts_and_logs_and_only_read_what_others_land():
    for bucket in (ARTIFACTS, LOGS):
        for action in ("s3:PutObject", "s3:GetObject", "s3:DeleteObject"):
            assert may("runs", action, f"{bucket}/models/x.onnx")
    assert may("runs", "s3:GetObject", f"{LANDING}/flights/2013-01-01.parquet")
    assert not may("runs", "s3:PutObject", f"{LANDING}/flights/2013-01-01.parquet")
    assert not may("runs", "s3:GetObject", "acme-ml-production-artifacts/models/x.onnx")


def test_an_entry_of_the_ledger_is_written_once_and_stays():
    entry = f"{ARTIFACTS}/ledger/arrival_delay/000001.json"
    assert may("runs", "s3:PutObject", entry, **{"s3:if-none-match": "*"})
    assert not may("runs", "s3:PutObject", entry)
    assert not may("runs", "s3:DeleteObject", entry)
    assert may("runs", "s3:GetObject", entry)


def test_the_webserver_reads_logs_and_nothing_else():
    assert may("dagster", "s3:GetObject", f"{LOGS}/compute_logs/x")
    assert not may("dagster", "s3:PutObject", f"{LOGS}/compute_logs/x")
    assert not may("dagster", "s3:GetObject", f"{ARTIFACTS}/models/x.onnx")


@pytest.mark.parametrize("who", ["runs", "dagster"])
def test_one_service_account_of_the_environments_namespace_takes_the_role(who: str):
    (statement,) = json.loads(rendered(f"aws/trust-{who}.json"))["Statement"]
    said = statement["Condition"]["StringEquals"]
    assert said[f"{NAMES['OIDC_PROVIDER']}:sub"] == f"system:serviceaccount:{ENVIRONMENT.namespace}:ml-assets-{who}"
    assert said[f"{NAMES['OIDC_PROVIDER']}:aud"] == "sts.amazonaws.com"
    (identity,) = bindings(f"identity-{who}.json")
    assert identity["members"] == [
        f"serviceAccount:{ENVIRONMENT.project}.svc.id.goog[{ENVIRONMENT.namespace}/ml-assets-{who}]"
    ]


def wide(name: str, found: Mapping[str, Any]) -> list[str]:
    """Return what a GCP binding has that opens more than is meant."""
    role = found["role"]
    of_project = f"projects/{ENVIRONMENT.project}/roles/"
    is_ours = role.startswith(of_project) and role.removeprefix(of_project) in ROLES
    said = [] if is_ours or role in PREDEFINED.get(name, set()) else [f"role {role}"]
    member = re.compile(
        r"serviceAccount:[a-z][a-z0-9-]+@[a-z0-9-]+\.iam\.gserviceaccount\.com|serviceAccount:\S+\[\S+/\S+\]"
    )
    return said + [f"member {who}" for who in found["members"] if not member.fullmatch(who)]


@pytest.mark.parametrize("name", GCP)
def test_gcp_bindings_name_our_roles_and_service_accounts_alone(name: str):
    assert [text for found in bindings(name) for text in wide(name, found)] == []


@pytest.mark.parametrize(
    "seed",
    [
        {"role": "roles/owner"},
        {"role": "roles/editor"},
        {"role": "roles/viewer"},
        {"role": "roles/storage.admin"},
        {"members": ["allUsers"]},
        {"members": ["allAuthenticatedUsers"]},
        {"members": ["domain:acme.example"]},
    ],
)
def test_a_seeded_primitive_role_or_public_member_is_found(seed: dict[str, Any]):
    assert wide("landing.json", {**bindings("landing.json")[0], **seed}) != []


def test_our_roles_have_known_permissions_alone():
    assert set(ROLES) == {"mlAssetsJobs", "mlAssetsRead", "mlAssetsAdd", "mlAssetsReplace"}
    for path in ROLES.values():
        assert set(yaml.safe_load(path.read_text())["includedPermissions"]) <= PERMISSIONS, path


def test_whoever_adds_cannot_remove_and_what_removes_leaves_the_ledger():
    added = yaml.safe_load(ROLES["mlAssetsAdd"].read_text())["includedPermissions"]
    assert not [permission for permission in added if permission.endswith((".delete", ".update"))]
    replacing = [found for found in bindings("artifacts.json") if found["role"].endswith("mlAssetsReplace")]
    expression = f'!resource.name.startsWith("projects/_/buckets/{ARTIFACTS}/objects/ledger/")'
    assert [found["condition"]["expression"] for found in replacing] == [expression]
    # A policy with a condition is dropped by Google unless it says that it knows conditions.
    assert json.loads(rendered("gcp/artifacts.json"))["version"] == 3


def test_every_bucket_named_is_one_that_the_environment_derives():
    text = "".join(rendered(f"aws/{name}") for name in AWS) + "".join(rendered(f"gcp/{name}") for name in GCP)
    named = set(re.findall(r"arn:aws:s3:::([a-z0-9-]+)|buckets/([a-z0-9-]+)/", text))
    assert {one or other for one, other in named} == {ARTIFACTS, LANDING, LOGS}
    assert {name.removesuffix(".json") for name in GCP} >= {
        bucket.removeprefix(f"{ENVIRONMENT.project}-") for bucket in (ARTIFACTS, LANDING, LOGS)
    }


def test_the_datasets_are_those_the_graph_writes_and_runs_alone_may_write_them():
    statements = [each for each in rendered("gcp/datasets.sql").split(";") if each.strip()]
    created = [sqlglot.parse_one(each, dialect="bigquery") for each in statements[::2]]
    assert all(isinstance(each, exp.Create) and each.kind == "SCHEMA" for each in created)
    datasets = [re.search(r"`([\w-]+)\.(\w+)`", each).groups() for each in statements[::2]]  # type: ignore[union-attr]
    models = yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())["models"]["ml_assets"]
    of_use_cases = {t.partition(".")[0] for u in load_use_cases() for t in (u.examples_table, u.predictions_table)}
    of_dbt = {layer["+schema"] for layer in models.values() if isinstance(layer, dict) and "+schema" in layer}
    assert {dataset for _, dataset in datasets} == {"raw", "monitoring", *of_use_cases, *of_dbt}
    assert {project for project, _ in datasets} == {ENVIRONMENT.project}
    runs = f"serviceAccount:ml-assets-runs@{ENVIRONMENT.project}.iam.gserviceaccount.com"
    granted = [
        f"grant `roles/bigquery.dataEditor` on schema `{project}.{dataset}` to '{runs}'"
        for project, dataset in datasets
    ]
    assert [each.strip() for each in statements[1::2]] == granted
