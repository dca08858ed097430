"""A landing folder of each kind, with what a producer does to it and the store that reads it, over real HTTP."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_assets.backends.sources.gcs_files import GcsFileStore
from ml_assets.backends.sources.local_files import LocalFileStore
from ml_assets.backends.sources.s3_files import S3FileStore
from ml_assets.backends.sources.webhdfs_files import WebHdfsFileStore
from ml_assets.core.ports import FileStore
from tests.servers.gcs import GcsServer
from tests.servers.proxy import Proxy, proxy_before
from tests.servers.s3 import s3_client
from tests.servers.webhdfs import WebHdfsServer


@dataclass(frozen=True)
class Place:
    """Where a producer leaves files; ``proxy`` stands between the store and the server, but for a local folder."""

    store: FileStore
    url: str
    put: Callable[[str, bytes], None]
    remove: Callable[[str], None]
    proxy: Proxy | None = None


def local_place(folder: Path) -> Place:
    """A folder; files appear in it under their names at once."""
    folder.mkdir(parents=True, exist_ok=True)

    def put(path: str, content: bytes) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.parent / "unfinished"
        unfinished.write_bytes(content)
        unfinished.rename(target)

    return Place(
        store=LocalFileStore(folder), url=folder.as_uri(), put=put, remove=lambda path: (folder / path).unlink()
    )


@contextmanager
def s3_place(endpoint: str, folder: str) -> Generator[Place]:
    """A folder of the bucket called ``bucket``, through dagster-aws's client without attempts of its own."""
    from dagster_aws.s3 import S3Resource

    producer = s3_client(endpoint)
    with proxy_before(endpoint) as proxy:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        resource = S3Resource(endpoint_url=proxy.url, max_attempts=0, **keys)
        yield Place(
            store=S3FileStore("bucket", folder, connect=resource.get_client),
            url=f"s3://bucket/{folder}",
            put=lambda path, content: producer.put_object(Bucket="bucket", Key=f"{folder}/{path}", Body=content),
            remove=lambda path: producer.delete_object(Bucket="bucket", Key=f"{folder}/{path}"),
            proxy=proxy,
        )


@contextmanager
def gcs_place(server: GcsServer, folder: str) -> Generator[Place]:
    """A folder of the bucket called ``bucket``, through google-cloud-storage."""
    with proxy_before(server.url) as proxy:
        bucket = gcs_client(server.url).bucket("bucket")
        yield Place(
            store=GcsFileStore("bucket", folder, connect=lambda: gcs_client(proxy.url)),
            url=f"gs://bucket/{folder}",
            put=lambda path, content: bucket.blob(f"{folder}/{path}").upload_from_string(content),
            remove=lambda path: bucket.blob(f"{folder}/{path}").delete(),
            proxy=proxy,
        )


@contextmanager
def webhdfs_place(server: WebHdfsServer, folder: str) -> Generator[Place]:
    """A folder of HDFS; it is there before its first file, as ``hdfs dfs -mkdir`` makes it."""
    from requests import Session

    with proxy_before(f"http://{server.host}") as proxy, Session() as session:
        host = proxy.url.removeprefix("http://")
        server.put(f"/{folder}/_created", b"")
        yield Place(
            store=WebHdfsFileStore(host, folder, connect=lambda: session, user="ml"),
            url=f"webhdfs://ml@{host}/{folder}",
            put=lambda path, content: server.put(f"/{folder}/{path}", content),
            remove=lambda path: server.files.pop(f"/{folder}/{path}") and None,
            proxy=proxy,
        )


def gcs_client(endpoint: str) -> Any:
    """Return Google's own client of a server, without credentials."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    return Client(project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoint})
