"""The doctor over real connections: in good health nothing fails, and each fault trips its own check and no other."""

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import duckdb
import psycopg
import pytest
from dagster._daemon.types import DaemonHeartbeat
from google.cloud.bigquery import Client, Dataset
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.doctor.checkup import Check, Skipped, Trouble, examine
from ml_assets.doctor.tables import SCHEMAS
from tests.servers.bigquery import BigQueryServer
from tests.servers.gcs import GcsServer
from tests.servers.postgres import PASSWORD, PostgresServer
from tests.servers.s3 import KEYS, s3_client

ROOT = Path(__file__).parents[1]
PROJECT = "acme-ml-staging"
BUCKETS = (f"{PROJECT}-artifacts", f"{PROJECT}-logs")
WANDB_KEY = "canary0" + 33 * "a"
# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"
OF_STAGING = [
    *("settings", "packages", "time zones", "local folder", "artifacts", "compute logs", "BigQuery", "datasets"),
    *("writing", "dbt", "dagster.yaml", "Dagster storage", "daemon", "studies", "W&B"),
]


@dataclass(frozen=True, kw_only=True)
class Staging:
    """A staging environment in good health: its variables are those of this process."""

    bigquery: BigQueryServer
    gcs: GcsServer
    postgres_url: str
    dagster_home: Path

    def dataset(self, name: str, location: str) -> None:
        """Make a dataset anew, in a location."""
        with Client(project=PROJECT) as client:
            client.delete_dataset(name, delete_contents=True, not_found_ok=True)
            made = Dataset(f"{PROJECT}.{name}")
            made.location = location
            client.create_dataset(made)

    def execute(self, sql: str) -> None:
        """Run a statement in Dagster's database."""
        with psycopg.connect(self.postgres_url) as connection:
            connection.execute(sql)  # pyright: ignore[reportArgumentType]


class _Wandb(BaseHTTPRequestHandler):
    """W&B as far as it says who a key belongs to."""

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        import base64

        self.rfile.read(int(self.headers["Content-Length"]))
        known = base64.b64encode(f"api:{WANDB_KEY}".encode()).decode()
        is_known = self.headers["Authorization"] == f"Basic {known}"
        answer = json.dumps({"data": {"viewer": {"username": "olga", "entity": "acme"} if is_known else None}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def wandb_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Wandb) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def bigquery() -> Iterator[BigQueryServer]:
    with BigQueryServer(PROJECT) as server:
        yield server


@pytest.fixture
def staging(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bigquery: BigQueryServer,
    gcs: GcsServer,
    postgres: PostgresServer,
    wandb_url: str,
) -> Staging:
    """Everything is there, on the servers of this machine; the daemon was heard of a moment ago."""
    database = f"dagster_{tmp_path.name}"
    home = tmp_path / "dagster"
    variables = {
        "ML_ASSETS_ENV": "staging",
        "ML_ASSETS_PROJECT": "acme-ml",
        "ML_ASSETS_HOME": str(tmp_path / "home"),
        "ML_ASSETS_CREDENTIALS": "",
        "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(tmp_path / "google.json", bigquery)),
        "BIGQUERY_EMULATOR_HOST": bigquery.address,
        "STORAGE_EMULATOR_HOST": gcs.url,
        "ML_ASSETS_POSTGRES_URL": postgres.url(database),
        "ML_ASSETS_STUDIES": postgres.url("studies"),
        "DAGSTER_HOME": str(home),
        "WANDB_API_KEY": WANDB_KEY,
        "WANDB_BASE_URL": wandb_url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for bucket in BUCKETS:
        if gcs.storage.get_bucket(bucket) is None:
            gcs.create_bucket(bucket)
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "cloud" / "dagster.yaml", home / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), kind, None, None))
    found = Staging(
        bigquery=bigquery, gcs=gcs, postgres_url=variables["ML_ASSETS_POSTGRES_URL"], dagster_home=home
    )
    with Client(project=PROJECT) as client:
        for name in SCHEMAS:
            client.create_dataset(name, exists_ok=True)
    return found


def service_account(path: Path, server: BigQueryServer) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_text(json.dumps(server.service_account(key.decode())))
    return path


def told(*options: str) -> tuple[int, str]:
    """Return exit code and output of the command."""
    answer = CliRunner().invoke(cli.app, ["doctor", *options], env={"COLUMNS": "100"})
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.output
    return answer.exit_code, answer.output


def results(*, code: int) -> dict[str, dict[str, str]]:
    """Return what the command says of each check, for machines; no secret may be in it."""
    found, output = told("--json")
    for secret in (PASSWORD, WANDB_KEY, KEYS["AWS_SECRET_ACCESS_KEY"] + "-secret"):
        assert secret not in output
    assert found == code, output
    return {result["name"]: result for result in json.loads(output)}


def test_in_good_health_nothing_fails_and_nothing_is_left_behind(staging: Staging):
    found = results(code=0)
    assert list(found) == OF_STAGING
    assert {name for name, result in found.items() if result["status"] != "ok"} <= {"packages"}
    assert all(result["do"] == "" for result in found.values() if result["status"] == "ok")
    for bucket in BUCKETS:
        assert staging.gcs.storage.get_file_list(bucket)[0] == []
    with Client(project=PROJECT) as client:
        assert [table for name in SCHEMAS for table in client.list_tables(name)] == []
    assert not (ROOT / "dbt_project" / "logs").exists()
