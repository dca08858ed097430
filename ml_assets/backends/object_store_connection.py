"""Opening S3 and GCS through obstore: credentials of the vendor's own client, an endpoint, retries and time limits."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import GCSStore, ObjectStore, S3Store

from ml_assets.core.errors import StoreRefused

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, RetryConfig, S3Config

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
# botocore renews what has less than ten minutes left, so that what it hands out lives that long.
_BOTO_LIFE = timedelta(minutes=10)
_NO_RETRIES: "RetryConfig" = {"max_retries": 0}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A bucket, twice: ``retrying`` sends a request again that failed, ``once`` never does."""

    retrying: ObjectStore
    once: ObjectStore


def connect(url: str, *, endpoint: str | None, patience: timedelta) -> Connection:
    """Open ``s3://bucket/folder`` or ``gs://bucket/folder``; ``retrying`` tries again for as long as ``patience``.

    Raises StoreRefused where there are no credentials. No request is made.
    """
    retries: RetryConfig = {"retry_timeout": patience}
    return _s3(url, endpoint, retries) if url.startswith("s3://") else _gcs(url, endpoint, retries)


def _s3(url: str, endpoint: str | None, retries: "RetryConfig") -> Connection:
    """Open S3, or what speaks its protocol at the endpoint, with the credentials that boto3 finds.

    These are keys, a profile, SSO, a web identity (IRSA), those of the container or the machine, and the region from
    the same places. Every upload carries its SHA-256, which the store compares.
    """
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        credentials = Boto3CredentialProvider(ttl=_BOTO_LIFE)
    except (ValueError, BotoCoreError) as error:
        raise StoreRefused(
            f"{url}: no AWS credentials found ({error}); expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, a web identity, or a machine with a role of its own"
        ) from error
    # One request for each file to delete, so that its refusal is an answer of its own.
    config: S3Config = {"checksum_algorithm": "sha256", "disable_bulk_delete": True}
    if endpoint:
        config["endpoint"] = endpoint
    retrying, once = (
        S3Store.from_url(
            url, config=config, client_options=_client(endpoint), retry_config=each, credential_provider=credentials
        )
        for each in (retries, _NO_RETRIES)
    )
    return Connection(retrying=retrying, once=once)


def _gcs(url: str, endpoint: str | None, retries: "RetryConfig") -> Connection:
    """Open Cloud Storage with the application default credentials, as google-auth finds them.

    These are a service account's key, gcloud's login, a workload identity (of GKE, or federated) or the machine's own.
    At an endpoint is an emulator, as for Google's own clients, and it gets none.
    """
    if endpoint:
        emulator = endpoint if "://" in endpoint else f"http://{endpoint}"
        # The token is no secret: without one obstore asks the machine for its own.
        config: GCSConfig = {"base_url": emulator.rstrip("/"), "bearer_token": "emulator"}
        retrying, once = (
            GCSStore.from_url(url, config=config, client_options=_client(emulator), retry_config=each)
            for each in (retries, _NO_RETRIES)
        )
        return Connection(retrying=retrying, once=once)
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from obstore.auth.google import GoogleCredentialProvider

    try:
        # A key of a service account gives no token without a scope.
        found, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
    except GoogleAuthError as error:
        raise StoreRefused(
            f"{url}: no Google credentials found ({error}); expected GOOGLE_APPLICATION_CREDENTIALS, the login of "
            "`gcloud auth application-default login`, or a machine with an identity of its own"
        ) from error
    credentials = GoogleCredentialProvider(found)
    retrying, once = (
        GCSStore.from_url(url, client_options=_client(None), retry_config=each, credential_provider=credentials)
        for each in (retries, _NO_RETRIES)
    )
    return Connection(retrying=retrying, once=once)


def _client(endpoint: str | None) -> "ClientConfig":
    """Return the time limits: a stalled connection is given up after a minute, a large file may take half an hour."""
    return {
        "connect_timeout": "5s",
        "read_timeout": "60s",
        "timeout": "30m",
        "allow_http": bool(endpoint and endpoint.startswith("http://")),
    }
