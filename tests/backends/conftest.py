"""BigQuery over the wire: the test server, and what a process needs to find it and to be let in."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.bigquery import BigQueryServer


@pytest.fixture(scope="session")
def private_key() -> str:
    """The key of a service account that nobody has."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    # So short because every client that opens the key file checks it anew, which would be most of a test.
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode()


@pytest.fixture
def bigquery(private_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    """An empty BigQuery project in the US, to which Google's clients connect by themselves."""
    with BigQueryServer("acme-ml-staging", "US") as server:
        path = tmp_path / "service_account.json"
        path.write_text(json.dumps(server.service_account(private_key)))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.address)
        yield server
