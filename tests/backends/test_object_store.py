"""What every artifact store must do: the same tests on a local folder, in memory, and over HTTP on S3 and GCS."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.errors import AlreadyExists, ArtifactMissing, BadInput, InvalidName
from tests.servers.s3 import KEYS

# Starts 16 processes, which all create one file at the same moment, each with its number; prints who say that they did.
SIXTEEN_WRITERS = """
import os, sys
import obstore.auth.boto3
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.errors import AlreadyExists
url, endpoint, path = sys.argv[1:]
gate, opener = os.pipe()
children = {}
for number in range(16):
    if (child := os.fork()) == 0:
        os.close(opener)
        store = ObjectArtifactStore(url, endpoint=endpoint or None)
        store.exists(path)
        os.read(gate, 1)
        try:
            store.create(path, str(number).encode())
        except AlreadyExists:
            os._exit(1)
        os._exit(0)
    children[child] = number
os.close(gate)
os.close(opener)
ended = {children[child]: os.waitpid(child, 0)[1] for child in children}
assert set(ended.values()) <= {0, 256}, ended
print(*[number for number, status in ended.items() if status == 0])
"""


@pytest.fixture
def store(any_store: ObjectArtifactStore) -> ObjectArtifactStore:
    return any_store


@pytest.mark.parametrize("content", [b"", b"one", bytes(range(256)) * 40_000], ids=["empty", "small", "in parts"])
def test_a_file_comes_back_byte_for_byte(store: ObjectArtifactStore, content: bytes):
    store.put("models/arrival_delay/2013-07-01-3fa2c1d0/model.onnx", content)
    assert store.get("models/arrival_delay/2013-07-01-3fa2c1d0/model.onnx") == content


@pytest.mark.parametrize(("scheme", "expected"), [("s3", 32), ("gs", 32), ("file", 1), ("memory", 1)])
def test_only_in_the_cloud_are_many_small_files_read_at_once(scheme: str, expected: int):
    assert ObjectArtifactStore(f"{scheme}://somewhere").n_reads_at_once == expected


def test_a_file_has_another_tag_once_it_has_other_content(store: ObjectArtifactStore):
    store.put("models/delay/model.onnx", b"one")
    (before,) = store.describe("models/delay")
    assert store.describe("models/delay") == [before]
    store.put("models/delay/model.onnx", b"two")
    (after,) = store.describe("models/delay")
    assert before.tag
    assert after.tag not in ("", before.tag)


def test_put_replaces_what_was_there(store: ObjectArtifactStore):
    store.put("reports/day.html", b"a long first version")
    store.put("reports/day.html", b"second")
    assert store.get("reports/day.html") == b"second"


def test_create_never_replaces_what_was_there(store: ObjectArtifactStore):
    store.create("ledger/arrival_delay/000001.json", b"first")
    with pytest.raises(AlreadyExists, match=r"ledger/arrival_delay/000001\.json is there already"):
        store.create("ledger/arrival_delay/000001.json", b"second")
    assert store.get("ledger/arrival_delay/000001.json") == b"first"


def test_of_many_creators_at_once_exactly_one_wins(store: ObjectArtifactStore):
    start, outcomes = threading.Barrier(8), list[str]()

    def claim(name: str) -> None:
        start.wait()
        try:
            store.create("ledger/arrival_delay/000002.json", name.encode())
            outcomes.append(name)
        except AlreadyExists:
            pass

    threads = [threading.Thread(target=claim, args=(f"claimant {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.get("ledger/arrival_delay/000002.json").decode()] == outcomes


@pytest.mark.parametrize("kind", ["local", "s3", "gcs"])
def test_of_sixteen_processes_that_create_at_once_exactly_one_wins(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    endpoint = {
        "local": lambda: "",
        "s3": lambda: request.getfixturevalue("s3"),
        "gcs": lambda: request.getfixturevalue("gcs").url,
    }[kind]()
    root = {"local": tmp_path.as_uri(), "s3": "s3://bucket/sixteen", "gcs": "gs://bucket/sixteen"}[kind]
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", SIXTEEN_WRITERS, root, endpoint, "ledger/arrival_delay/000001.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    written = ObjectArtifactStore(root, endpoint=endpoint or None).get("ledger/arrival_delay/000001.json").decode()
    assert [written] == done.stdout.split()


def test_an_absent_file_is_named(store: ObjectArtifactStore):
    store.put("models/a/manifest.json", b"{}")
    assert not store.exists("models/b/manifest.json")
    with pytest.raises(ArtifactMissing, match=r"models/b/manifest\.json"):
        store.get("models/b/manifest.json")
    # A folder is no file.
    assert not store.exists("models/a")
    with pytest.raises(ArtifactMissing):
        store.get("models/a")


def test_a_file_exists_once_it_is_written(store: ObjectArtifactStore):
    store.create("models/a/manifest.json", b"{}")
    assert store.exists("models/a/manifest.json")


def test_a_listing_is_sorted_and_ends_at_the_folders_border(store: ObjectArtifactStore):
    for path in ("ledger/a/000002.json", "ledger/a/000001.json", "ledger/ab/000001.json", "ledger/a/deep/er.json"):
        store.put(path, b"{}")
    assert store.list("ledger/a") == ["ledger/a/000001.json", "ledger/a/000002.json", "ledger/a/deep/er.json"]
    assert store.list("ledger/a/") == store.list("ledger/a")
    assert len(store.list("")) == 4
    assert store.list("ledger/none") == []


def test_a_file_is_described_by_its_size_and_when_it_was_last_written(store: ObjectArtifactStore):
    before = datetime.now(UTC).replace(microsecond=0)  # S3 tells whole seconds
    store.put("models/a/model.onnx", b"123")
    store.put("models/ab/model.onnx", b"1")
    store.put("models/a/model.onnx", b"1234567")
    (file,) = store.describe("models/a")
    assert (file.path, file.size) == ("models/a/model.onnx", 7)
    assert before <= file.modified_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert [file.path for file in store.describe("")] == ["models/a/model.onnx", "models/ab/model.onnx"]


def test_a_deleted_file_is_gone_and_nothing_else_and_deleting_it_again_is_no_error(store: ObjectArtifactStore):
    store.put("models/a/model.onnx", b"1")
    store.put("models/a/manifest.json", b"{}")
    for _ in range(2):
        store.delete("models/a/manifest.json")
        assert not store.exists("models/a/manifest.json")
        assert store.list("") == ["models/a/model.onnx"]
    store.create("models/a/manifest.json", b"again")
    assert store.get("models/a/manifest.json") == b"again"


def test_nothing_is_deleted_through_a_link(tmp_path: Path):
    store = ObjectArtifactStore((tmp_path / "artifacts").as_uri())
    store.put("models/a/model.onnx", b"whole")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").write_bytes(b"kept")
    (tmp_path / "artifacts/models/b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="expected a plain file"):
        store.delete("models/b/kept")
    assert (tmp_path / "elsewhere/kept").read_bytes() == b"kept"


@pytest.mark.parametrize(
    "path", ["../out", "a/../../out", "/etc/passwd", "a//b", "a/./b", "a/.hidden", "A", "a b", "", "a%2f"]
)
def test_no_path_leaves_the_store(store: ObjectArtifactStore, path: str):
    for call in (
        store.get,
        store.exists,
        store.address,
        store.delete,
        lambda p: store.put(p, b""),
        lambda p: store.create(p, b""),
    ):
        with pytest.raises(InvalidName):
            call(path)
    if path:
        with pytest.raises(InvalidName):
            store.list(path)


def test_a_stranger_to_the_schemes_is_refused():
    with pytest.raises(BadInput, match="'ftp://host/folder' is no artifact store; expected"):
        ObjectArtifactStore("ftp://host/folder")


def test_the_address_of_a_local_file_is_its_path(tmp_path: Path):
    store = ObjectArtifactStore((tmp_path / "a folder").as_uri())
    store.put("reports/day.html", b"hello")
    assert Path(store.address("reports/day.html")) == tmp_path / "a folder" / "reports" / "day.html"
    assert Path(store.address("reports/day.html")).read_bytes() == b"hello"


def test_the_address_of_a_file_elsewhere_opens_in_a_browser():
    """These are the vendors' own: the page of an object, and the link for who is logged in."""
    s3, gcs = ObjectArtifactStore("s3://bucket/ml/"), ObjectArtifactStore("gs://bucket")
    assert s3.address("a/b.json") == "https://s3.console.aws.amazon.com/s3/object/bucket?prefix=ml/a/b.json"
    assert gcs.address("a/b.json") == "https://storage.cloud.google.com/bucket/a/b.json"
    own = ObjectArtifactStore("s3://bucket/ml", endpoint="https://minio.acme.com/")
    assert own.address("a/b.json") == "https://minio.acme.com/bucket/ml/a/b.json"
    assert ObjectArtifactStore("memory://").address("a/b.json") == "memory://a/b.json"


def test_a_write_that_was_killed_leaves_no_file_to_be_read(tmp_path: Path):
    store = ObjectArtifactStore(tmp_path.as_uri())
    store.put("models/a/model.onnx", b"whole")
    # What obstore leaves behind when it is killed before it renames.
    (tmp_path / "models" / "a" / "manifest.json#1").write_bytes(b'{"half')
    assert store.list("models/a") == ["models/a/model.onnx"]
    store.create("models/a/manifest.json", b"{}")
    assert store.get("models/a/manifest.json") == b"{}"


def test_nothing_is_opened_before_the_first_use(tmp_path: Path):
    ObjectArtifactStore((tmp_path / "later").as_uri())
    assert not (tmp_path / "later").exists()


def test_the_size_of_a_file_is_known_without_reading_it(store: ObjectArtifactStore):
    store.put("models/a/model.onnx", b"1234567")
    assert store.size("models/a/model.onnx") == 7
    with pytest.raises(ArtifactMissing, match="there is no"):
        store.size("models/a/weights.safetensors")


def test_a_link_in_a_local_folder_leads_nowhere_and_is_replaced_by_a_write(tmp_path: Path):
    store = ObjectArtifactStore((tmp_path / "artifacts").as_uri())
    store.put("models/a/model.onnx", b"whole")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "artifacts/models/a/vocabulary.json").symlink_to(tmp_path / "secret")
    (tmp_path / "artifacts/models/b").symlink_to(tmp_path)
    for path in ("models/a/vocabulary.json", "models/b/secret"):
        for read in (store.get, store.size):
            with pytest.raises(BadInput, match="is lrwxrwxrwx, a link or device; expected a plain file"):
                read(path)
    with pytest.raises(BadInput, match="expected a plain file"):
        store.list("models/b")
    store.put("models/a/vocabulary.json", b"{}")
    assert (store.get("models/a/vocabulary.json"), (tmp_path / "secret").read_bytes()) == (b"{}", b"secret")


def test_the_root_of_a_local_store_may_be_a_link(tmp_path: Path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "artifacts").symlink_to(tmp_path / "big_disk")
    store = ObjectArtifactStore((tmp_path / "artifacts").as_uri())
    store.put("models/a/model.onnx", b"whole")
    assert (store.get("models/a/model.onnx"), store.list("models")) == (b"whole", ["models/a/model.onnx"])
