"""What a store on S3 and GCS does when network, server or credentials fail: over HTTP, spoiled by a proxy."""

import base64
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from obstore.exceptions import UnauthenticatedError

from ml_assets.backends.object_store import PART_BYTES, ObjectArtifactStore
from ml_assets.backends.object_store_errors import Refusal
from ml_assets.core.errors import AlreadyExists, ArtifactMissing, StoreRefused, StoreUnavailable
from tests.servers.proxy import Asked, Fault, Proxy, proxy_before
from tests.servers.s3 import KEYS, s3_client

THREE_PARTS = os.urandom(2 * PART_BYTES + 1)
ROOTS = {"s3": "s3://bucket", "gcs": "gs://bucket"}
# Uploads 64 MB, which the proxy slows down.
UPLOADER = """
import sys
from ml_assets.backends.object_store import ObjectArtifactStore
url, endpoint = sys.argv[1:]
ObjectArtifactStore(url, endpoint=endpoint).put("training_sets/storm_delay/a/train.arrow", bytes(64_000_000))
"""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["s3", "gcs"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def proxy(kind: str, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    server = request.getfixturevalue(kind)
    with proxy_before(server if kind == "s3" else server.url) as proxy:
        yield proxy


@pytest.fixture
def store(kind: str, proxy: Proxy, request: pytest.FixtureRequest) -> ObjectArtifactStore:
    folder = request.node.name.partition("[")[0].replace("_", "-")
    return ObjectArtifactStore(f"{ROOTS[kind]}/{folder}", endpoint=proxy.url, patience=timedelta(seconds=5))


def is_put(asked: Asked) -> bool:
    return asked.method == "PUT"


def is_completion(asked: Asked) -> bool:
    return asked.method == "POST" and "uploadId=" in asked.path


def is_part(asked: Asked) -> bool:
    return asked.method == "PUT" and "partNumber=" in asked.path


# -- Busy servers, broken connections, lost answers ------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_request_that_failed_three_times_is_sent_a_fourth_time(store: ObjectArtifactStore, proxy: Proxy, status: int):
    def failing(n: int) -> list[Fault]:
        return [Fault(status=status, body=b"<Error><Code>SlowDown</Code></Error>", n_times=n)]

    proxy.faults = failing(3)
    store.put("models/a/model.onnx", b"1")
    proxy.faults = failing(3)
    assert store.get("models/a/model.onnx") == b"1"
    proxy.faults = failing(3)
    store.create("ledger/a/000001.json", b"{}")
    proxy.faults = failing(3)
    assert store.list("") == ["ledger/a/000001.json", "models/a/model.onnx"]
    proxy.faults = failing(3)
    store.delete("models/a/model.onnx")
    assert not store.exists("models/a/model.onnx")


def test_a_server_that_stays_busy_is_waited_for_and_then_named(kind: str, proxy: Proxy):
    store = ObjectArtifactStore(f"{ROOTS[kind]}/busy", endpoint=proxy.url, patience=timedelta(seconds=1))
    proxy.faults = [Fault(status=503, body=b"<Error><Code>SlowDown</Code></Error>", n_times=10_000)]
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.get("a"),
        lambda: store.create("a", b""),
        lambda: store.exists("a"),
    )
    for call in calls:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"busy/a: .*\(503 .*then try again"):
            call()
        assert time.monotonic() - started < 4


def test_a_create_whose_answer_was_lost_is_known_to_be_ones_own(store: ObjectArtifactStore, proxy: Proxy):
    for number, status in enumerate((0, 503), start=1):
        proxy.faults = [Fault(status=status, is_forwarded=True, is_meant=is_put)]
        store.create(f"ledger/a/00000{number}.json", b"mine")
        assert store.get(f"ledger/a/00000{number}.json") == b"mine"
        # Who was answered knows: the same bytes of another are another's.
        with pytest.raises(AlreadyExists):
            store.create(f"ledger/a/00000{number}.json", b"mine")


def test_a_create_whose_request_was_lost_gives_way_to_who_came_between(store: ObjectArtifactStore, proxy: Proxy):
    other = ObjectArtifactStore(store._url, endpoint=store._endpoint)

    def is_first_put(asked: Asked) -> bool:
        if is_put(asked) and not is_taken:
            is_taken.append(True)
            other.create("ledger/a/000001.json", b"theirs")
            return True
        return False

    is_taken: list[bool] = []
    proxy.lock = _NoLock()  # the other's requests come while this one's is looked at
    proxy.faults = [Fault(status=0, is_meant=is_first_put)]
    with pytest.raises(AlreadyExists, match=r"000001\.json is there already"):
        store.create("ledger/a/000001.json", b"mine")
    assert store.get("ledger/a/000001.json") == b"theirs"


class _NoLock:
    def __enter__(self) -> None:
        """Let everyone in."""

    def __exit__(self, *_error: object) -> None:
        """See above."""


def test_two_writers_at_once_of_which_neither_won_are_asked_again(store: ObjectArtifactStore, proxy: Proxy):
    """S3 answers 409 where two conditional writes meet: nothing is there, so it must not be called taken."""
    conflict = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
    proxy.faults = [Fault(status=409, body=conflict, is_meant=is_put, n_times=2)]
    store.create("ledger/a/000001.json", b"mine")
    assert store.get("ledger/a/000001.json") == b"mine"


def test_cloud_storage_is_asked_for_generation_0_and_s3_for_no_match(
    store: ObjectArtifactStore, proxy: Proxy, kind: str
):
    store.create("ledger/a/000001.json", b"mine")
    (asked,) = [asked for asked in proxy.asked if is_put(asked)]
    headers = {name.lower(): value for name, value in asked.headers.items()}
    name, value = {"s3": ("if-none-match", "*"), "gcs": ("x-goog-if-generation-match", "0")}[kind]
    assert headers[name] == value


# -- Uploads in parts ------------------------------------------------------------------------------------------------


def test_only_the_part_that_failed_is_sent_again(store: ObjectArtifactStore, proxy: Proxy):
    proxy.faults = [Fault(status=503, is_meant=is_part), Fault(status=0, is_meant=is_part)]
    store.put("training_sets/a/train.arrow", THREE_PARTS)
    assert store.get("training_sets/a/train.arrow") == THREE_PARTS
    assert len([asked for asked in proxy.asked if is_part(asked)]) == 3 + 2
    assert len([asked for asked in proxy.asked if is_completion(asked)]) == 1


def test_a_completion_whose_answer_was_lost_ends_in_the_whole_file(store: ObjectArtifactStore, proxy: Proxy):
    proxy.faults = [Fault(status=0, is_forwarded=True, is_meant=is_completion)]
    store.put("training_sets/a/train.arrow", THREE_PARTS)
    assert store.get("training_sets/a/train.arrow") == THREE_PARTS


def test_an_upload_that_is_refused_half_way_leaves_the_old_file_and_no_part(
    store: ObjectArtifactStore, proxy: Proxy, kind: str, request: pytest.FixtureRequest
):
    store.put("training_sets/a/train.arrow", b"old")
    denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    proxy.faults = [Fault(status=403, body=denied, is_meant=lambda a: is_part(a) and "partNumber=2" in a.path)]
    with pytest.raises(StoreRefused, match=r"403 AccessDenied no.*grant this identity"):
        store.put("training_sets/a/train.arrow", THREE_PARTS)
    assert store.get("training_sets/a/train.arrow") == b"old"
    assert pending_uploads(kind, request, "half-way") == []


def test_an_upload_that_is_killed_leaves_nothing_under_its_name(
    store: ObjectArtifactStore, proxy: Proxy, kind: str, request: pytest.FixtureRequest
):
    proxy.delay_seconds = 0.2
    process = subprocess.Popen([sys.executable, "-c", UPLOADER, store._url, proxy.url])
    deadline = time.monotonic() + 30
    while len([asked for asked in proxy.asked if is_part(asked)]) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    proxy.delay_seconds = 0
    assert not any(is_completion(asked) for asked in proxy.asked)
    assert (store.list(""), store.exists("training_sets/storm_delay/a/train.arrow")) == ([], False)
    with pytest.raises(ArtifactMissing):
        store.get("training_sets/storm_delay/a/train.arrow")
    # What is left of it no reader sees; the bucket's lifecycle rule removes it.
    assert len(pending_uploads(kind, request, "killed")) == 1
    store.put("training_sets/storm_delay/a/train.arrow", b"again")
    assert store.get("training_sets/storm_delay/a/train.arrow") == b"again"


def pending_uploads(kind: str, request: pytest.FixtureRequest, of: str) -> list[str]:
    """Return the names of the uploads that were begun by the test called so and not ended."""
    if kind == "s3":
        answer = s3_client(request.getfixturevalue("s3")).list_multipart_uploads(Bucket="bucket")
        names = [upload["Key"] for upload in answer.get("Uploads", [])]
    else:
        names = [name for name, _ in request.getfixturevalue("gcs").uploads.values()]
    return [name for name in names if of in name]


def test_s3_is_told_the_sha256_of_what_it_gets_so_that_it_can_compare(s3: str):
    with proxy_before(s3) as proxy:
        store = ObjectArtifactStore("s3://bucket/checked", endpoint=proxy.url)
        store.put("models/a/model.onnx", b"123")
        store.put("models/a/weights", THREE_PARTS)
        puts = [{name.lower(): value for name, value in a.headers.items()} for a in proxy.asked if is_put(a)]
    parts = [THREE_PARTS[at : at + PART_BYTES] for at in range(0, len(THREE_PARTS), PART_BYTES)]
    expected = {base64.b64encode(hashlib.sha256(content).digest()).decode() for content in (b"123", *parts)}
    assert {headers["x-amz-checksum-sha256"] for headers in puts} == expected


def test_what_was_written_is_what_googles_own_client_reads(gcs, monkeypatch: pytest.MonkeyPatch):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    ObjectArtifactStore("gs://bucket/theirs", endpoint=gcs.url).put("models/a/model.onnx", THREE_PARTS)
    bucket = storage.Client(project="acme", credentials=AnonymousCredentials()).bucket("bucket")
    assert bucket.blob("theirs/models/a/model.onnx").download_as_bytes() == THREE_PARTS


# -- Refusals --------------------------------------------------------------------------------------------------------

REFUSALS = {
    "expired token": (400, "ExpiredToken", "log in again"),
    "no rights": (403, "AccessDenied", "grant this identity"),
    "unknown key": (403, "InvalidAccessKeyId", "set AWS_ACCESS_KEY_ID"),
    "wrong secret": (403, "SignatureDoesNotMatch", "set AWS_SECRET_ACCESS_KEY anew"),
    "clock skew": (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
    "other region": (400, "AuthorizationHeaderMalformed", "set AWS_REGION"),
    "used up": (403, "QuotaExceeded", "quota is used up"),
    "not logged in": (401, "", "log in again"),
    "no words": (403, "", "grant this identity"),
}


@pytest.mark.parametrize(("status", "code", "advice"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_is_raised_at_once_and_says_what_to_do(
    store: ObjectArtifactStore, proxy: Proxy, status: int, code: str, advice: str
):
    body = f"<Error><Code>{code}</Code><Message>as it says</Message></Error>" if code else ""
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.put("ledger/a/000001.json", b"1"),
        lambda: store.create("ledger/a/000001.json", b"1"),
        lambda: store.get("ledger/a/000001.json"),
        lambda: store.exists("ledger/a/000001.json"),
        lambda: store.size("ledger/a/000001.json"),
        lambda: store.list("ledger"),
        lambda: store.delete("ledger/a/000001.json"),
    )
    started = time.monotonic()
    for call in calls:
        proxy.faults = [Fault(status=status, body=body.encode(), n_times=100)]
        with pytest.raises(StoreRefused, match=advice) as refused:
            call()
        assert f"{status} {code}".strip() in str(refused.value)
    assert time.monotonic() - started < 5


def test_a_redirect_to_another_region_says_so(store: ObjectArtifactStore, proxy: Proxy):
    proxy.faults = [Fault(status=301, n_times=100)]
    for call in (store.get, store.exists):
        with pytest.raises(StoreRefused, match="lies in another region: set AWS_REGION"):
            call("ledger/a/000001.json")


def test_a_bucket_that_is_not_there_is_no_missing_file(kind: str, proxy: Proxy):
    root = ROOTS[kind].replace("bucket", "nobody-made-this")
    calls: tuple[Callable[[ObjectArtifactStore], object], ...] = (
        lambda store: store.put("a", b"1"),
        lambda store: store.put("a", THREE_PARTS),
        lambda store: store.create("a", b"1"),
        lambda store: store.get("a"),
        lambda store: store.exists("a"),
        lambda store: store.size("a"),
        lambda store: store.list(""),
        lambda store: store.delete("a"),
    )
    for call in calls:
        with pytest.raises(StoreRefused, match=r"nobody-made-this.*404 NoSuchBucket.*create the bucket"):
            call(ObjectArtifactStore(root, endpoint=proxy.url, patience=timedelta(seconds=2)))


def test_a_server_of_credentials_that_cannot_be_reached_has_refused_nothing():
    said = "TransportError(MaxRetryError(host='oauth2.googleapis.com': Failed to resolve 'oauth2.googleapis.com'))"
    unreachable = Refusal.of(UnauthenticatedError(f"Generic GCS error: credential provider: {said}"))
    assert unreachable.is_transient
    assert "see whether it can be reached from here" in str(unreachable.as_error("gs://b/x", waited_seconds=9.0))
    nobody = Refusal.of(UnauthenticatedError("Generic GCS error: credential provider: no credentials were found"))
    assert not nobody.is_transient
    assert "gcloud auth application-default login" in str(nobody.as_error("gs://b/x", waited_seconds=0.0))
