"""No secret is in code, snapshots, logs, metadata, artifacts or errors: canaries in every credential, and a scan."""

import re
import subprocess
import traceback
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._core.workspace.load_target import ModuleTarget, PythonFileTarget
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.backends.environments import Environment
from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.core.errors import MlAssetsError
from ml_assets.core.ports import DayRange
from ml_assets.core.studies import SearchSettings
from ml_assets.definitions import defs
from ml_assets.lifecycle import Lifecycle, RunFailed
from ml_assets.resources import resources_of, store_of, warehouse_of
from tests.cloud import Cloud
from tests.webserver import answers

pytestmark = [
    pytest.mark.timeout(900),  # the first test lives a life over HTTP
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    # Dagster's own snapshot reads what Dagster has deprecated.
    pytest.mark.filterwarnings("ignore:Property .ScheduleDefinition.environment_vars:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning"),
]

ROOT = Path(__file__).parents[1]
# What keys look like, wherever they lie: of AWS, Google, GitHub, Slack, W&B; private keys; passwords in URLs.
LOOKS_LIKE_A_SECRET = {
    "AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "AWS secret": rb"(?i)aws_secret_access_key[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9/+]{40}\b",
    "Google API key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "Google token": rb"\bya29\.[0-9A-Za-z_-]{20,}",
    "GitHub token": rb"\b(?:ghp|gho|ghs|github_pat)_[0-9A-Za-z_]{30,}",
    "Slack token": rb"\bxox[abpr]-[0-9A-Za-z-]{10,}",
    "private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s*\\?n?[A-Za-z0-9+/=]{40}",
    "W&B key": rb"(?i)wandb_api_key[\"']?\s*[:=]\s*[\"']?[0-9a-f]{40}\b",
}


def found_in(places: Mapping[str, bytes], secrets: Mapping[str, str]) -> set[str]:
    """Return which secret is in which place, as ``secret: place``."""
    return {f"{name}: {place}" for place, text in places.items() for name, s in secrets.items() if s.encode() in text}


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file with its content."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


@pytest.fixture
def staging(cloud: Cloud) -> Iterator[Cloud]:
    """The life in staging, and this process in its environment with every canary in its place."""
    with cloud.environment():
        environment = Environment.current()
        assert environment.name == "staging"
        assert cloud.secrets["postgres"] in (environment.postgres_url or "")
        yield cloud


@pytest.mark.slow
def test_no_canary_is_in_what_dagster_keeps_and_shows(staging: Cloud):
    """The snapshot of the code location, and of every run its jobs, config, tags, events, metadata, what it printed."""
    with dg.DagsterInstance.from_config(str(staging.folder / "dagster")) as instance:
        runs = instance.get_runs()
        places = {
            "snapshot of the code location": dg.serialize_value(
                RepositorySnap.from_def(defs().get_repository_def())
            ).encode(),
            **{f"run {run.run_id}": dg.serialize_value(run).encode() for run in runs},
            **{
                f"job of {run.run_id}": dg.serialize_value(instance.get_job_snapshot(run.job_snapshot_id)).encode()
                for run in runs
                if run.job_snapshot_id
            },
            **{
                f"events of {run.run_id}": "\n".join(
                    dg.serialize_value(entry) for entry in instance.all_logs(run.run_id)
                ).encode()
                for run in runs
            },
        }
    places |= {f"dagster/{name}": content for name, content in files_below(staging.folder / "dagster")}
    assert len(runs) >= 4
    assert any(b"bigquery_bytes_billed" in text for place, text in places.items() if place.startswith("events"))
    assert found_in(places, staging.secrets) == set()


# A code location as nobody should write one: its secret is a plain string, beside one that Dagster is told to keep.
LEAKS = """
import os
import dagster as dg

class Service(dg.ConfigurableResource):
    key: str
    kept_key: str

class Form(dg.Config):
    password: str = os.environ["AWS_SECRET_ACCESS_KEY"]

@dg.asset(metadata={"opened_with": os.environ["ML_ASSETS_POSTGRES_URL"]})
def leaks(config: Form, service: Service): ...

service = Service(key=os.environ["WANDB_API_KEY"], kept_key=dg.EnvVar("AWS_SECRET_ACCESS_KEY"))
defs = dg.Definitions(assets=[leaks], jobs=[dg.define_asset_job("leak", [leaks])], resources={"service": service})
"""


@pytest.fixture(scope="module")
def shown(cloud: Cloud) -> Mapping[str, bytes]:
    """What the webserver shows of this project's code location in staging, its runs, and a location that leaks."""
    leaking = cloud.folder / "leaking.py"
    leaking.write_text(LEAKS)
    locations = [
        ModuleTarget("ml_assets.definitions", None, None, "ml_assets"),
        PythonFileTarget(str(leaking), None, None, "leaking"),
    ]
    with cloud.environment(), dg.DagsterInstance.from_config(str(cloud.folder / "dagster")) as instance:
        return answers(instance, locations)


@pytest.mark.slow
def test_no_canary_is_in_what_the_webserver_shows(staging: Cloud, shown: Mapping[str, bytes]):
    """Resources, run config, the launchpad's forms, variables, metadata, logs, and what the steps have printed."""
    ours = {place: text for place, text in shown.items() if not place.startswith("leaking: ")}
    parts = "allTopLevelResourceDetails", "jobs", "assetNodes", "variables", "launchpad of __ASSET_JOB"
    assert {f"ml_assets: {part}" for part in parts} < set(ours)
    assert b"bigquery_bytes_billed" in ours["ml_assets: assetNodes"]
    assert b'"warehouse"' in ours["ml_assets: allTopLevelResourceDetails"]
    logs = [text for place, text in ours.items() if place.startswith("logs of run")]
    assert sum(b"bigquery_bytes_billed" in text for text in logs) >= 2
    assert found_in(ours, staging.secrets) == set()


@pytest.mark.slow
def test_a_secret_that_a_code_location_leaks_is_seen_in_the_webserver(staging: Cloud, shown: Mapping[str, bytes]):
    leaked = found_in({place: text for place, text in shown.items() if place.startswith("leaking: ")}, staging.secrets)
    assert leaked >= {
        "wandb: leaking: allTopLevelResourceDetails",
        "aws: leaking: assetNodes",
        "postgres: leaking: assetNodes",
        "aws: leaking: launchpad of leak",
    }
    assert "aws: leaking: allTopLevelResourceDetails" not in leaked  # dg.EnvVar is shown by its name
    assert b"AWS_SECRET_ACCESS_KEY" in shown["leaking: variables"]


@pytest.mark.slow
def test_no_canary_is_in_artifacts_tables_local_files_or_what_bigquery_was_told(staging: Cloud):
    told = {
        f"{n}: {request.method} {request.path}": repr((request.parameters, request.body, request.labels)).encode()
        for n, request in enumerate(staging.bigquery.requests)
        if request.path != "/token"
    }
    places = {
        **staging.files(),
        **told,
        **{f"home/{name}": content for name, content in files_below(staging.folder / "home")},
    }
    assert any(place.startswith("ledger/") for place in places)
    assert any(place.endswith(".html") for place in places)
    assert any("wandb" in place for place in places), "W&B has kept its runs, with its key in reach"
    assert any("manifest.json" in place and "dbt" in place for place in places)
    assert found_in(places, staging.secrets) == set()


@pytest.mark.slow
def test_no_canary_is_in_the_text_of_the_environment_its_resources_or_a_connection_that_fails(staging: Cloud):
    environment = Environment.current()
    resources = resources_of(environment)
    places = {"environment": repr(environment).encode()}
    places |= {f"resource {name}": f"{found!r} {found}".encode() for name, found in resources.items()}
    studies = OptunaStudies(environment.studies_url)
    attempts = {
        "postgres": lambda: studies.open("a_study", space={}, first={}, settings=SearchSettings()),
        "bigquery": lambda: warehouse_of(environment).query("select 1 as one"),
        "alerts": lambda: resources["alerter"].send(title="a title", text="a text"),
        "s3": lambda: store_of(Environment.of({**staging.variables, "ML_ASSETS_PROJECT": "other"})).list(""),
    }
    staging.bigquery.expired_token(may_refresh=False)
    try:
        for name, attempt in attempts.items():
            with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, its whole text is read
                attempt()
            places[f"failure of {name}"] = "".join(traceback.format_exception(caught.value)).encode()
    finally:
        staging.bigquery.expired_token()  # and the account gets new ones again
    assert found_in(places, staging.secrets) == set()


def test_the_scan_finds_a_canary_that_was_leaked():
    secrets = {"wandb": "canary-1", "aws": "canary-2"}
    places = {"log": b"... key=canary-1 ...", "report": b"all is well", "table": "é canary-2".encode()}
    assert found_in(places, secrets) == {"wandb: log", "aws: table"}


def secret_like(content: bytes) -> set[str]:
    return {name for name, pattern in LOOKS_LIKE_A_SECRET.items() if re.search(pattern, content)}


def test_nothing_in_the_repository_looks_like_a_secret():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    assert len(paths) > 200
    found = {str(path.relative_to(ROOT)): secret_like(path.read_bytes()) for path in paths if path.is_file()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("AWS key", ("AKIA", "IOSFODNN7EXAMPLE")),
        ("AWS secret", ("aws_secret_access_key = ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")),
        ("Google API key", ("AIza", "SyD" + "x" * 32)),
        ("GitHub token", ("ghp", "_" + "a1" * 18)),
        ("private key", ("-----BEGIN PRIVATE", " KEY-----\n" + "MIIEvQ" * 8)),
        ("private key", ("-----BEGIN RSA PRIVATE", " KEY-----\\n" + "MIIEvQ" * 8)),
        ("W&B key", ("WANDB_API_KEY=", "0123456789" * 4)),
    ],
)
def test_the_scan_of_the_repository_knows_a_secret_when_it_sees_one(name: str, parts: tuple[str, ...]):
    assert name in secret_like(b"x = '" + "".join(parts).encode() + b"'")


@pytest.mark.slow
def test_datasets_elsewhere_are_one_sentence_in_the_failed_run(staging: Cloud, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ML_ASSETS_LOCATION", "EU")
    engine = staging.bigquery.engine
    before = deepcopy((engine.datasets, engine.tables))  # each with an etag, which any write changes
    with pytest.raises(RunFailed) as caught:
        Lifecycle(Environment.current()).run_groups(("raw",), DayRange(first=date(2013, 1, 3), last=date(2013, 1, 3)))
    assert isinstance(caught.value, MlAssetsError)
    sentence = (
        "the dataset raw lies in US, this environment's jobs run in EU; set ML_ASSETS_LOCATION=US, or copy the "
        "datasets to EU"
    )
    assert f"raw__airlines: ml_assets.core.errors.WarehouseError: {sentence}" in str(caught.value)
    assert (engine.datasets, engine.tables) == before


@pytest.mark.slow
def test_a_token_that_expires_within_a_run_of_a_day_leaves_its_tables_whole_and_one_more_run_heals(
    staging: Cloud, monkeypatch: pytest.MonkeyPatch
):
    lifecycle, day, landed = staging.life.lifecycle, DayRange(first=date(2013, 1, 3), last=date(2013, 1, 3)), set[str]()

    def expire_after_the_first(entry: dg.EventLogEntry) -> None:
        if entry.dagster_event and entry.dagster_event.is_step_materialization:
            landed.add(entry.dagster_event.asset_key.to_user_string())
            if len(landed) == 1:
                staging.bigquery.expired_token(may_refresh=False)

    before = raw_rows(staging)
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "_on_event", expire_after_the_first)
        try:
            with pytest.raises(RunFailed, match="AccessRefused: Google refused the credentials"):
                lifecycle.run_groups(("raw",), day)
        finally:
            staging.bigquery.expired_token()  # and the account gets new ones again
        assert len(landed) == 1
        assert raw_rows(staging) == before
        patch.setattr(lifecycle, "_on_event", lambda entry: None)
        lifecycle.run_groups(("raw",), day)
    assert raw_rows(staging) == before


def raw_rows(staging: Cloud) -> dict[str, pa.Table]:
    """Return the rows of every raw table as the server has them, sorted by all columns."""
    engine = staging.bigquery.engine
    tables = {name: engine.table_rows((schema, name))[1] for schema, name in list(engine.tables) if schema == "raw"}
    assert tables["flights"].num_rows > 10_000
    return {n: rows.sort_by([(column, "ascending") for column in rows.column_names]) for n, rows in tables.items()}


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_one_sentence_on_the_command_line(
    staging: Cloud, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ML_ASSETS_PROJECT", "elsewhere")
    answer = CliRunner().invoke(cli.app, ["history"])
    words = " ".join(answer.output.split())
    assert answer.exit_code == 1
    assert "elsewhere-staging-artifacts" in words
    assert "Traceback" not in words
    assert len(words) < 400


@pytest.mark.slow
def test_what_is_not_set_is_one_sentence_on_the_command_line(staging: Cloud, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    answer = CliRunner().invoke(cli.app, ["history"])
    words = " ".join(answer.output.split())
    assert answer.exit_code == 1
    assert words.startswith("BadInput ML_ASSETS_ENV=staging cannot start. GOOGLE_APPLICATION_CREDENTIALS is not set")
