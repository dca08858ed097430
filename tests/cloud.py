"""The small life in the staging environment: tables in a BigQuery over HTTP, artifacts in an S3 over HTTP."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from dbt.adapters.bigquery.credentials import _create_bigquery_defaults
from google.auth.credentials import CredentialsWithRegionalAccessBoundary

from tests.conftest import Home, Life, environment_of, live, small_life
from tests.servers.bigquery import BigQueryServer
from tests.servers.s3 import s3_server

PROJECT, BUCKET = "acme-ml-staging", "acme-ml-staging-artifacts"


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A life lived in staging; ``secrets`` are what it was given to open things with, by what they open."""

    life: Life
    folder: Path
    bigquery: BigQueryServer
    variables: Mapping[str, str]
    secrets: Mapping[str, str]

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Let this process be in staging."""
        with _staging(self.folder, self.variables):
            yield

    def tables(self) -> dict[str, pa.Table]:
        """Return the rows of every table and view of every dataset."""
        from google.cloud.bigquery import Client

        warehouse = self.life.lifecycle.warehouse
        with self.environment(), Client(project=PROJECT) as client:
            names = [
                f"{dataset.dataset_id}.{table.table_id}"
                for dataset in client.list_datasets()
                for table in client.list_tables(dataset.dataset_id)
            ]
            return {name: warehouse.query(f"select * from {name}") for name in sorted(names)}

    def files(self) -> dict[str, bytes]:
        """Return the content of every artifact, by path."""
        store = self.life.lifecycle.store
        with self.environment():
            return {path: store.get(path) for path in store.list("")}


@contextmanager
def staging(folder: Path) -> Iterator[Cloud]:
    """Live the small life in staging, in a folder for what is local to it; the servers stay until the context ends.

    Every secret is made anew, so that no other text is it by chance.
    """
    found = {
        name: f"canary-{name}-{secrets.token_hex(16)}"
        for name in ("wandb", "aws", "postgres", "google", "slack", "smtp")
    }
    with BigQueryServer(PROJECT) as bigquery, s3_server(BUCKET) as s3:
        variables = {
            "ML_ASSETS_ENV": "staging",
            "ML_ASSETS_PROJECT": "acme-ml",
            "ML_ASSETS_OBJECTS": "s3",
            # W&B writes its files here, with the key in its environment, and sends nothing.
            "ML_ASSETS_TRACKER": "offline",
            "BIGQUERY_EMULATOR_HOST": bigquery.address,
            "GOOGLE_APPLICATION_CREDENTIALS": str(_service_account(folder / "google.json", bigquery, found)),
            "AWS_ENDPOINT_URL": s3,
            "AWS_ACCESS_KEY_ID": "test-key-id",
            "AWS_SECRET_ACCESS_KEY": found["aws"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "WANDB_API_KEY": found["wandb"],
            "ML_ASSETS_POSTGRES_URL": f"postgresql://dagster:{found['postgres']}@127.0.0.1:1/dagster",
            "ML_ASSETS_SLACK_WEBHOOK": f"http://127.0.0.1:1/services/{found['slack']}",
            "ML_ASSETS_SMTP_URL": f"smtp://oncall:{found['smtp']}@127.0.0.1:1",
            "ML_ASSETS_ALERT_EMAIL": "oncall@example.com",
            "DAGSTER_HOME": str(folder / "dagster"),
        }
        (folder / "dagster").mkdir(parents=True)
        (folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        events: list[dg.DagsterEvent] = []
        with _staging(folder, variables):
            lifecycle, use_case = small_life(events.append)
            life = Life(lifecycle=lifecycle, use_case=use_case, home=Home(path=folder / "home"), events=events)
            live(life)
        yield Cloud(life=life, folder=folder, bigquery=bigquery, variables=variables, secrets=found)


@contextmanager
def _staging(folder: Path, variables: Mapping[str, str]) -> Iterator[None]:
    with environment_of(folder / "home"), pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        # google-auth asks Google itself, in the background, in which places the account may be used.
        patch.setattr(
            CredentialsWithRegionalAccessBoundary, "_maybe_start_regional_access_boundary_refresh", _no_request
        )
        # dbt keeps, for the life of a process, the credentials that it found first.
        _create_bigquery_defaults.cache_clear()
        try:
            yield
        finally:
            _create_bigquery_defaults.cache_clear()


def _no_request(*_: object) -> None:
    """Ask nobody."""


def _service_account(path: Path, server: BigQueryServer, found: dict[str, str]) -> Path:
    """Write the file of a service account that the server gives tokens to; add the parts of it that are secret."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {**server.service_account(key.decode()), "private_key_id": found["google"]}
    found["google_key"] = key.decode().splitlines()[5]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(account))
    return path
