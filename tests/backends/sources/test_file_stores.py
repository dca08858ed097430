"""What every file store must do: the same tests on a folder, and over HTTP on S3, GCS and HDFS."""

import gc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.backends.sources.gcs_files import GcsFileStore
from ml_assets.backends.sources.local_files import LocalFileStore
from ml_assets.backends.sources.s3_files import S3FileStore
from ml_assets.backends.sources.webhdfs_files import WebHdfsFileStore
from ml_assets.core.errors import FileChanged, SourceDenied, SourceError, SourceMissing, SourceUnavailable
from ml_assets.core.ports import FileStore
from tests.servers.landing import Place, gcs_client, webhdfs_place
from tests.servers.proxy import Fault
from tests.servers.webhdfs import webhdfs_server

DAYS = ("2013-06-30", "2013-07-01", "2013-07-02", "2013-07-10")


def paths(store: FileStore, after: str = "", before: str | None = None) -> list[str]:
    return [file.path for file in store.list(after=after, before=before) if file.path != "_created"]


def test_a_listing_is_sorted_deep_and_ends_at_its_bounds(place: Place):
    for day in DAYS:
        place.put(f"{day}/05/b.csv", b"2")
        place.put(f"{day}/a.csv", b"1")
    place.put("2013-07-01.csv", b"3")
    place.put("partition_on=2013-07-01/a.csv", b"4")
    everything = paths(place.store)
    assert everything == sorted(everything)
    assert len(everything) == 10
    # The day before and the tenth, whose name begins with the first one's, are outside.
    between = paths(place.store, after="2013-07-01", before="2013-07-020")
    assert between == [
        *("2013-07-01.csv", "2013-07-01/05/b.csv", "2013-07-01/a.csv", "2013-07-02/05/b.csv", "2013-07-02/a.csv")
    ]
    assert paths(place.store, after="2013-07-01/05/b.csv", before="2013-07-010") == ["2013-07-01/a.csv"]
    assert paths(place.store, after="partition_on=") == ["partition_on=2013-07-01/a.csv"]


def test_a_folder_without_files_has_none(place: Place):
    assert paths(place.store) == []


def test_a_file_is_told_by_size_time_and_a_version_that_changes_with_each_write(place: Place):
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 tells whole seconds
    place.put("2013-07-01/a b+ü=.csv", b"12345")
    [first] = [file for file in place.store.list() if file.path != "_created"]
    assert (first.path, first.size) == ("2013-07-01/a b+ü=.csv", 5)
    assert before <= first.modified_at <= datetime.now(UTC) + timedelta(seconds=2)
    assert [file for file in place.store.list() if file.path != "_created"] == [first]
    place.put("2013-07-01/a b+ü=.csv", b"54321")
    [second] = [file for file in place.store.list() if file.path != "_created"]
    assert second.version != first.version


@pytest.mark.parametrize("n_bytes", [0, 5, 20_000_001], ids=["empty", "small", "in pieces"])
def test_a_file_comes_back_byte_for_byte(place: Place, n_bytes: int):
    content = (bytes(range(256)) * (n_bytes // 256 + 1))[:n_bytes]
    place.put("day/a b+ü=.csv", content)
    [file] = [file for file in place.store.list() if file.path != "_created"]
    assert b"".join(place.store.open(file)) == content


@pytest.mark.parametrize("content", [b"other", b"longer than before"], ids=["same size", "another size"])
def test_a_file_that_was_replaced_after_it_was_listed_is_not_read_as_the_old_one(place: Place, content: bytes):
    place.put("a.csv", b"12345")
    [file] = [file for file in place.store.list() if file.path != "_created"]
    place.put("a.csv", content)
    with pytest.raises(FileChanged, match=r"a\.csv.*replaced|a\.csv.*not what was listed"):
        b"".join(place.store.open(file))


def test_a_file_that_was_removed_after_it_was_listed_is_named(place: Place):
    place.put("a.csv", b"12345")
    [file] = [file for file in place.store.list() if file.path != "_created"]
    place.remove("a.csv")
    with pytest.raises(FileChanged, match=r"a\.csv.*(replaced|removed)"):
        b"".join(place.store.open(file))


@pytest.mark.parametrize("place", ["s3", "gcs", "webhdfs"], indirect=True)
@pytest.mark.parametrize("status", [503, 504, 429, 0], ids=str)
def test_what_may_pass_is_told_apart(place: Place, status: int):
    assert place.proxy is not None
    place.put("a.csv", b"12345")
    [file] = [file for file in place.store.list() if file.path != "_created"]
    place.proxy.faults.append(Fault(status=status, n_times=2))
    with pytest.raises(SourceUnavailable, match="cannot list"):
        paths(place.store)
    with pytest.raises(SourceUnavailable, match=r"cannot read .*a\.csv"):
        b"".join(place.store.open(file))
    assert b"".join(place.store.open(file)) == b"12345"


def s3_store(endpoint: str, bucket: str, **keys: str) -> S3FileStore:
    from dagster_aws.s3 import S3Resource

    resource = S3Resource(endpoint_url=endpoint, max_attempts=0, region_name="us-east-1", **keys)
    return S3FileStore(bucket, "", connect=resource.get_client)


SOME_KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


def test_a_missing_bucket_or_folder_is_named(s3: str, gcs, tmp_path: Path):
    with pytest.raises(SourceMissing, match=r"cannot list s3://none/: there is no bucket 'none'; create it"):
        paths(s3_store(s3, "none", **SOME_KEYS))
    with pytest.raises(SourceMissing, match=r"cannot list gs://none/: there is no bucket 'none'; create it"):
        paths(GcsFileStore("none", "", connect=lambda: gcs_client(gcs.url)))
    with pytest.raises(SourceMissing, match=r"there is no folder .*none; create it"):
        paths(LocalFileStore(tmp_path / "none"))
    with webhdfs_server() as server, webhdfs_place(server, "there") as place:
        nowhere = WebHdfsFileStore(server.host, "none", connect=place.store._connect)
        with pytest.raises(SourceMissing, match=f"there is no folder webhdfs://{server.host}/none/; create it"):
            paths(nowhere)


S3_REFUSALS = {
    "ExpiredToken": (400, SourceDenied, "the token has expired: renew"),
    "InvalidAccessKeyId": (403, SourceDenied, "check the AWS credentials"),
    "SignatureDoesNotMatch": (403, SourceDenied, "check the AWS credentials"),
    "AccessDenied": (403, SourceDenied, "allow to list and read"),
    "InvalidObjectState": (403, SourceError, ""),
}


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize("code", S3_REFUSALS)
def test_what_s3_refuses_is_said_with_what_to_do(place: Place, code: str):
    status, kind, hint = S3_REFUSALS[code]
    body = f"<Error><Code>{code}</Code><Message>The reason.</Message></Error>".encode()
    place.proxy.faults.append(Fault(status=status, body=body))
    with pytest.raises(kind, match=rf"cannot list {place.url}/: S3 answers {code}, The reason\..*{hint}") as refused:
        paths(place.store)
    assert type(refused.value) is kind


def test_no_credentials_at_all_are_said_to_be_missing(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceDenied, match="Unable to locate credentials; set AWS_ACCESS_KEY_ID"):
        paths(s3_store(s3, "bucket"))


@pytest.mark.parametrize("place", ["gcs"], indirect=True)
@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "cannot be refreshed; renew the credentials"), (403, "no access.*check GOOGLE_APPLICATION_CREDENTIALS")],
)
def test_what_gcs_refuses_is_said_with_what_to_do(place: Place, status: int, hint: str):
    body = f'{{"error": {{"code": {status}, "message": "no access"}}}}'.encode()
    place.proxy.faults.append(Fault(status=status, body=body))
    with pytest.raises(SourceDenied, match=f"cannot list {place.url}/: .*{hint}"):
        paths(place.store)


def test_what_hdfs_refuses_is_said_with_what_to_do():
    with webhdfs_server() as server, webhdfs_place(server, "data") as place:
        server.users.add("somebody else")
        with pytest.raises(SourceDenied, match=r"403 AccessControlException, Permission denied.*check the user"):
            paths(place.store)
        server.is_standby = True
        with pytest.raises(SourceUnavailable, match="StandbyException"):
            paths(place.store)


def test_the_test_server_of_hdfs_speaks_to_the_client_of_fsspec_too():
    from fsspec.implementations.webhdfs import WebHDFS

    with webhdfs_server() as server:
        server.put("/data/2013-07-01/a.csv", b"12345")
        host, _, port = server.host.partition(":")
        client = WebHDFS(host, port=int(port), skip_instance_cache=True)
        assert client.ls("/data") == ["/data/2013-07-01"]
        assert client.info("/data/2013-07-01/a.csv")["size"] == 5
        client.session.close()
        gc.collect()
