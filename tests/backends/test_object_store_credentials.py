"""Which credentials a store on S3 or GCS uses: those that the vendor's own client would, asked for over HTTP."""

import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.object_store_connection import connect
from ml_assets.core.errors import StoreRefused
from tests.servers.proxy import Fault, Proxy, proxy_before


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "CLOUDSDK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def proxy(s3: str) -> Iterator[Proxy]:
    with proxy_before(s3) as proxy:
        yield proxy


def keys_used(proxy: Proxy) -> set[str]:
    """Return the access keys that the requests so far were signed with."""
    signed = [asked.headers.get("Authorization") or asked.headers["authorization"] for asked in proxy.asked]
    return {key for header in signed for key in re.findall(r"Credential=(\w+)/", header)}


def test_without_credentials_the_variables_are_named():
    with pytest.raises(StoreRefused, match=r"no AWS credentials found .*AWS_ACCESS_KEY_ID"):
        ObjectArtifactStore("s3://bucket").exists("a")
    with pytest.raises(StoreRefused, match=r"no Google credentials found .*GOOGLE_APPLICATION_CREDENTIALS"):
        ObjectArtifactStore("gs://bucket").exists("a")


def test_a_profile_of_the_aws_command_line_is_used(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / ".aws").mkdir()
    profile = "[team]\naws_access_key_id = AKIATEAM\naws_secret_access_key = secret\nregion = us-east-1\n"
    (tmp_path / ".aws/credentials").write_text(profile)
    monkeypatch.setenv("AWS_PROFILE", "team")
    ObjectArtifactStore("s3://bucket/profile", endpoint=proxy.url).put("a", b"1")
    assert keys_used(proxy) == {"AKIATEAM"}


def test_a_web_identity_is_exchanged_for_keys_as_on_eks(
    s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "token").write_text("a.web.token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/acme-ml")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3)
    ObjectArtifactStore("s3://bucket/irsa", endpoint=proxy.url).put("a", b"1")
    (key,) = keys_used(proxy)
    assert key.startswith("ASIA")  # what STS hands out for a while
    assert all({name.lower() for name in asked.headers} >= {"x-amz-security-token"} for asked in proxy.asked)


def test_the_key_of_a_service_account_is_exchanged_for_a_token(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    write_service_account(tmp_path / "key.json", token_uri=f"{proxy.url}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    connection = connect("gs://bucket", endpoint=None, patience=timedelta(seconds=1))
    proxy.faults = [Fault(status=200, body=json.dumps({"access_token": "ya29.abc", "expires_in": 3600}).encode())]
    assert connection.retrying.credential_provider()["token"] == "ya29.abc"
    assert connection.once.credential_provider is connection.retrying.credential_provider


def test_a_key_that_was_withdrawn_is_a_refusal_that_says_so(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    write_service_account(tmp_path / "key.json", token_uri=f"{proxy.url}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    answer = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    proxy.faults = [Fault(status=400, body=json.dumps(answer).encode(), n_times=100)]
    with pytest.raises(StoreRefused, match=r"gs://bucket/a: .*Invalid JWT Signature.*log in again") as refused:
        ObjectArtifactStore("gs://bucket").create("a", b"1")
    assert "PRIVATE KEY" not in str(refused.value)


def write_service_account(path: Path, *, token_uri: str) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "acme-ml-staging",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "ml@acme-ml-staging.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(account))
