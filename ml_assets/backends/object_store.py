"""Artifacts in a local folder, S3, GCS or memory, through obstore: one API, the same meaning everywhere."""

import os
import random
import stat
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast
from urllib.parse import quote

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from ml_assets.backends.object_store_connection import Connection, connect
from ml_assets.backends.object_store_errors import Refusal
from ml_assets.core.errors import AlreadyExists, ArtifactMissing, BadInput, MlAssetsError
from ml_assets.core.names import artifact_path
from ml_assets.core.ports import StoredFile

_SCHEMES = ("file://", "s3://", "gs://", "memory://")
# Where a person who is logged in sees an object in the browser, by scheme.
_PAGES = {
    "s3": "https://s3.console.aws.amazon.com/s3/object/{bucket}?prefix={name}",
    "gs": "https://storage.cloud.google.com/{bucket}/{name}",
}
# Larger content goes up in parts, of which a few are on their way at a time.
PART_BYTES = 8 * 1024 * 1024
_N_PARTS_AT_ONCE = 4
_N_READS_AT_ONCE = 32
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0

_T = TypeVar("_T")


class ObjectArtifactStore:
    """The ArtifactStore port on ``file:///folder``, ``s3://bucket/folder``, ``gs://bucket/folder`` or ``memory://``.

    Credentials of S3 and GCS are those that the vendor's own client finds (see ``object_store_connection``).
    ``endpoint`` is the URL of what stands in for the vendor's servers: AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST. Nothing
    is opened before the first use.

    Requests to S3 and GCS that meet a busy, silent or broken server are sent again; none is begun after ``patience``,
    when StoreUnavailable is raised. StoreRefused is raised at once: its answer would be the same tomorrow.

    >>> store = ObjectArtifactStore("memory://")
    >>> store.put("reports/monday.html", b"<p>all is well</p>")
    >>> store.get("reports/monday.html"), store.list("reports")
    (b'<p>all is well</p>', ['reports/monday.html'])
    """

    def __init__(self, url: str, *, endpoint: str | None = None, patience: timedelta = timedelta(minutes=2)) -> None:
        if not url.startswith(_SCHEMES):
            raise BadInput(f"{url!r} is no artifact store; expected a URL that begins with {', '.join(_SCHEMES)}")
        self._url = url.rstrip("/") if not url.endswith("://") else url
        self._endpoint = endpoint
        self._patience = patience
        self._has_bucket_answered = False

    @property
    def _is_remote(self) -> bool:
        return self._url.startswith(("s3://", "gs://"))

    @property
    def n_reads_at_once(self) -> int:
        """For how many small files it is best asked at a time: of a local folder one, a thread takes longer than it."""
        return _N_READS_AT_ONCE if self._is_remote else 1

    @cached_property
    def _connection(self) -> Connection:
        return connect(self._url, endpoint=self._endpoint, patience=self._patience)

    @cached_property
    def _store(self) -> ObjectStore:
        if self._is_remote:
            return self._connection.retrying
        # The folder is made on first use.
        return from_url(self._url, mkdir=True) if self._url.startswith("file://") else from_url("memory:///")

    def put(self, path: str, content: bytes) -> None:
        """Write a file whole: a reader sees the old content or the new one, never a part.

        To S3 and GCS a large one goes in parts, each sent again where it fails; until all are there, nothing is under
        the name. What a killed process leaves of them is not listed, and goes with the bucket's lifecycle rule
        (``AbortIncompleteMultipartUpload``).
        """
        name = artifact_path(path)
        in_parts = self._is_remote and len(content) > PART_BYTES

        def write() -> None:
            obstore.put(
                self._store,
                name,
                content,
                use_multipart=in_parts,
                chunk_size=PART_BYTES,
                max_concurrency=_N_PARTS_AT_ONCE,
            )

        self._ask(path, write)
        self._flush(path)

    def create(self, path: str, content: bytes) -> None:
        """Write a file only if there is none of that name; raise AlreadyExists otherwise (compare-and-set).

        Where the answer to a write was lost and the file is there then with the same content, it is this write's.
        """
        name = artifact_path(path)
        store = self._connection.once if self._is_remote else self._store
        is_unanswered = False

        def write() -> None:
            nonlocal is_unanswered
            try:
                obstore.put(store, name, content, mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                if Refusal.of(error).status == 409:  # of two writers at once neither has won yet
                    raise
                if not (is_unanswered and self._holds(path, content)):
                    raise AlreadyExists(f"{self._uri(path)} is there already and is never overwritten") from error
            except BaseError:
                is_unanswered = True
                raise

        self._ask(path, write)
        self._flush(path)

    def get(self, path: str) -> bytes:
        """Return a file's content; raise ArtifactMissing where there is none, BadInput for a link in a local folder."""
        self._refuse_links(path)
        name = artifact_path(path)
        return self._ask(path, lambda: obstore.get(self._store, name).bytes().to_bytes())

    def size(self, path: str) -> int:
        """Return how many bytes a file has, without reading it; raises what ``get`` does."""
        self._refuse_links(path)
        name = artifact_path(path)
        return self._ask(path, lambda: obstore.head(self._store, name)["size"])

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of that name."""
        name = artifact_path(path)
        try:
            self._ask(path, lambda: obstore.head(self._store, name))
        except ArtifactMissing:
            return False
        return True

    def list(self, prefix: str) -> Sequence[str]:
        """Return the sorted paths of all files below a folder; of the whole store for an empty prefix."""
        return [file.path for file in self.describe(prefix)]

    def describe(self, prefix: str) -> Sequence[StoredFile]:
        """Return the files below a folder, or of the whole store for an empty prefix, sorted by path."""
        folder = artifact_path(prefix.rstrip("/")) if prefix else None
        if folder:
            self._refuse_links(folder)
        found = self._ask(prefix, lambda: [meta for batch in obstore.list(self._store, folder) for meta in batch])
        files = [
            StoredFile(path=m["path"], size=m["size"], modified_at=m["last_modified"], tag=m["e_tag"] or "")
            for m in found
        ]
        return sorted(files, key=lambda file: file.path)

    def delete(self, path: str) -> None:
        """Remove a file for good; one that is not there is no error, so that a second attempt can finish the first.

        In a local folder its removal is on the disk before the next one begins, whatever the power does.
        """
        self._refuse_links(path)
        name = artifact_path(path)
        try:
            self._ask(path, lambda: obstore.delete(self._store, name))
        except ArtifactMissing:
            return
        if isinstance(self._store, LocalStore):
            _sync(self._local_path(self._store, path).parent)

    def address(self, path: str) -> str:
        """Return where a person finds the file: its path in a local folder, a page for the browser in S3 and GCS."""
        name = artifact_path(path)
        if self._url.startswith("file://"):
            return str(self._local_path(cast("LocalStore", self._store), path))
        scheme, _, place = self._uri(name).partition("://")
        bucket, _, key = place.partition("/")
        if self._is_remote and self._endpoint:
            return f"{self._endpoint.rstrip('/')}/{bucket}/{quote(key)}"
        return _PAGES[scheme].format(bucket=bucket, name=quote(key)) if scheme in _PAGES else self._uri(name)

    def _holds(self, path: str, content: bytes) -> bool:
        try:
            return self.get(path) == content
        except ArtifactMissing:
            return False

    def _uri(self, path: str) -> str:
        """Return the path as the vendor's command line takes it, and messages name it."""
        return f"{self._url}{'' if self._url.endswith('/') else '/'}{path}"

    def _ask(self, path: str, call: Callable[[], _T]) -> _T:
        """Return what a call of obstore's does, asking a remote store again while that may help."""
        started = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                found = call()
            except (FileNotFoundError, BaseError) as error:
                waited = time.monotonic() - started
                if not self._is_remote:
                    raise self._local_error(path, error) from error
                refusal = self._explained(error)
                if refusal.is_of_the_object:
                    raise self._missing(path) from error
                if not refusal.is_transient or waited + pause > self._patience.total_seconds():
                    raise refusal.as_error(self._uri(path), waited_seconds=waited) from error
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 # no secret: so that not all come at once
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._has_bucket_answered = True
                return found

    def _local_error(self, path: str, error: Exception) -> Exception:
        return self._missing(path) if isinstance(error, FileNotFoundError) else error

    def _missing(self, path: str) -> MlAssetsError:
        return ArtifactMissing(f"there is no {self._uri(path)}; materialize the asset that writes it")

    def _explained(self, error: Exception) -> Refusal:
        """Return what a remote store said; where that was a bare number, ask it for something that has an answer.

        HEAD has no body: a missing bucket, an expired token and a missing file look alike there.
        """
        refusal = Refusal.of(error)
        is_bare = refusal.status in (301, 400, 403, 404) and not refusal.code
        if not is_bare or (refusal.status == 404 and self._has_bucket_answered):
            return refusal
        try:
            next(iter(obstore.list(self._store, chunk_size=1)), None)
        except (FileNotFoundError, BaseError) as told:
            return Refusal.of(told)
        self._has_bucket_answered = True
        return refusal

    def _refuse_links(self, path: str) -> None:
        """Raise BadInput where a local path leads through a link, or to a pipe or device: such a file lies elsewhere.

        The root itself may be a link: it is where the person who runs this wants the files.
        """
        store = self._store
        if not isinstance(store, LocalStore):
            return
        found = str(store.prefix)
        for segment in artifact_path(path).split("/"):
            found = f"{found}/{segment}"
            try:
                mode = os.lstat(found).st_mode
            except FileNotFoundError:
                return
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BadInput(f"{found} is {stat.filemode(mode)}, a link or device; expected a plain file; remove it")

    def _flush(self, path: str) -> None:
        """Make a file of a local folder survive a power cut.

        obstore writes a temporary name and renames it, but leaves the content to the operating system. What is
        written after this (a manifest, a ledger entry) may rely on what was written before.
        """
        store = self._store
        if not isinstance(store, LocalStore):
            return
        local = self._local_path(store, path)
        for name in (local, local.parent):
            _sync(name)

    @staticmethod
    def _local_path(store: LocalStore, path: str) -> Path:
        return Path(cast("str", store.prefix)) / artifact_path(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
