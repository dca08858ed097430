"""What BigQuery answers when it does not do what it was asked: which of it a moment helps, and what it means."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import cast

from ml_assets.core.errors import (
    AccessRefused,
    DataMissing,
    MlAssetsError,
    QuotaExhausted,
    WarehouseBusy,
    WarehouseError,
)

# The list price of on-demand queries in the US multi-region, in US dollars per TiB billed: an estimate, not the bill.
USD_PER_TIB = 6.25

_HELPED_BY_TIME = {
    *("rateLimitExceeded", "backendError", "internalError", "badGateway", "tableUnavailable"),
    *("jobRateLimitExceeded", "jobBackendError", "jobInternalError"),
}
_CONFLICT = re.compile(r"due to concurrent update", re.I)
_ABSENT = re.compile(r"Not found: (?:Dataset|Table) ([a-z0-9.:-]+):(\w+)", re.I)
_PARTITIONS = re.compile(r"too many partitions", re.I)
_CAP = re.compile(r"limit for bytes billed: (\d+).*?(\d+) or higher required", re.S)


def helps_to_retry(error: BaseException) -> bool:
    """Tell whether the same request can do better a moment later; a job that failed of itself fails again."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import RefreshError, TransportError

    if isinstance(error, RefreshError):
        return error.retryable
    if isinstance(error, exceptions.GoogleAPICallError):
        reasons = reasons_of(error)
        if reasons & {"quotaExceeded", "bytesBilledLimitExceeded"}:
            return False
        of_the_moment = (
            *(exceptions.InternalServerError, exceptions.BadGateway, exceptions.ServiceUnavailable),
            *(exceptions.GatewayTimeout, exceptions.TooManyRequests),
        )
        return bool(reasons & _HELPED_BY_TIME or _CONFLICT.search(str(error)) or isinstance(error, of_the_moment))
    lost = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, (*lost, TransportError, ConnectionError, TimeoutError)) and not isinstance(
        error, requests.exceptions.SSLError
    )


def reasons_of(error: BaseException) -> set[str]:
    """Return the reasons the API gives, beside its HTTP status: one word each."""
    details: object = getattr(error, "errors", ())
    return {str(detail.get("reason")) for detail in cast("list[object]", details or ()) if isinstance(detail, Mapping)}


def in_our_words(error: Exception, *, deadline: timedelta) -> MlAssetsError:
    """Return the error of this project for one of the client: what was found, and what to do."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(error, exceptions.RetryError) and error.cause is not None:
        error = cast("Exception", error.cause)
    said, reasons = _in_one_line(error), reasons_of(error)
    if helps_to_retry(error):
        words = "kept refusing a write beside another one to the table" if _CONFLICT.search(said) else "did not answer"
        return WarehouseBusy(
            f"BigQuery {words} within {deadline.total_seconds():g} s: {said}; "
            "a write that was under way happened whole or not at all: run it again"
        )
    if isinstance(error, GoogleAuthError | exceptions.Unauthorized) and not isinstance(error, TransportError):
        return AccessRefused(
            f"Google refused the credentials: {said}; renew them (a new key in GOOGLE_APPLICATION_CREDENTIALS, or "
            "`gcloud auth application-default login`) and run again: nothing was changed"
        )
    if cap := _CAP.search(str(error)):
        most, needed = int(cap[1]), int(cap[2])
        return QuotaExhausted(
            f"the query would read {_size(needed)} ({needed / 2**40 * USD_PER_TIB:.4f} USD), this project's cap is "
            f"{_size(most)} a query; nothing was read or billed. Ask for fewer days, or raise the cap"
        )
    if "quotaExceeded" in reasons:
        return QuotaExhausted(
            f"a quota of the Google project is used up: {said}; wait until it is renewed (daily ones at midnight "
            "Pacific time) or have it raised in the console under IAM & Admin, Quotas"
        )
    if isinstance(error, exceptions.Forbidden):
        return AccessRefused(f"not allowed: {said}; grant the role that is missing to the account that runs this")
    if isinstance(error, exceptions.NotFound) and dataset_not_found(error):
        return DataMissing(f"{said}; materialize the asset that writes it first")
    if _PARTITIONS.search(str(error)):
        return WarehouseError(f"BigQuery refused: {said}; write shorter ranges of days, nothing was changed")
    return WarehouseError(f"BigQuery refused: {said}; correct the statement, trying again does not help")


def dataset_not_found(error: Exception) -> str | None:
    """Return ``project.dataset`` of the dataset or table that an error says is not there.

    >>> dataset_not_found(Exception("Not found: Table acme-ml:raw.flights was not found in location US"))
    'acme-ml.raw'
    """
    found = _ABSENT.search(str(error))
    return f"{found[1]}.{found[2]}" if found else None


def _in_one_line(error: BaseException) -> str:
    """Return what an error says, and of which job, where the client has written it below."""
    lines = [line.strip() for line in str(getattr(error, "message", "") or error).splitlines() if line.strip()]
    job = next((f" ({line})" for line in lines[1:] if line.startswith("Job ID: ")), "")
    return (lines[0] if lines else type(error).__name__) + job


def _size(n_bytes: int) -> str:
    """Return a number of bytes as a person writes it.

    >>> _size(10485760), _size(3 * 2**39)
    ('10.0 MiB', '1.5 TiB')
    """
    for unit, power in (("TiB", 4), ("GiB", 3)):
        if n_bytes >= 2 ** (10 * power):
            return f"{n_bytes / 2 ** (10 * power):.1f} {unit}"
    return f"{n_bytes / 2**20:.1f} MiB"
