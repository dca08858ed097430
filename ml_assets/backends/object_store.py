"""Artifacts in a local folder, S3, GCS or memory, through obstore: one API, the same meaning everywhere."""

import os
import stat
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, ObjectStore, from_url

from ml_assets.core.errors import AlreadyExists, ArtifactMissing, BadInput
from ml_assets.core.names import artifact_path
from ml_assets.core.ports import StoredFile

_SCHEMES = ("file://", "s3://", "gs://", "memory://")


class ObjectArtifactStore:
    """The ArtifactStore port on ``file:///folder``, ``s3://bucket/folder``, ``gs://bucket/folder`` or ``memory://``.

    Credentials of S3 and GCS come from the usual chain of their clients. ``options`` are obstore's settings of the
    store, for an endpoint that differs from the vendor's. Nothing is opened before the first use.

    >>> store = ObjectArtifactStore("memory://")
    >>> store.put("reports/monday.html", b"<p>all is well</p>")
    >>> store.get("reports/monday.html"), store.list("reports")
    (b'<p>all is well</p>', ['reports/monday.html'])
    """

    def __init__(self, url: str, *, options: Mapping[str, object] | None = None) -> None:
        if not url.startswith(_SCHEMES):
            raise BadInput(f"{url!r} is no artifact store; expected a URL that begins with {', '.join(_SCHEMES)}")
        self._url = url.rstrip("/") if not url.endswith("://") else url
        self._options = dict(options or {})

    @cached_property
    def _store(self) -> ObjectStore:
        if self._url.startswith("memory://"):
            return from_url("memory:///")
        # A folder is made on first use; the other stores know no such option.
        options = {"mkdir": True} if self._url.startswith("file://") else self._options
        return from_url(self._url, **options)  # pyright: ignore[reportCallIssue, reportArgumentType] - typed per scheme

    def put(self, path: str, content: bytes) -> None:
        """Write a file whole: a reader sees the old content or the new one, never a part."""
        obstore.put(self._store, artifact_path(path), content, use_multipart=False)
        self._flush(path)

    def create(self, path: str, content: bytes) -> None:
        """Write a file only if there is none of that name; raise AlreadyExists otherwise (compare-and-set)."""
        try:
            obstore.put(self._store, artifact_path(path), content, mode="create", use_multipart=False)
        except AlreadyExistsError as error:
            raise AlreadyExists(f"{self.address(path)} is there already and is never overwritten") from error
        self._flush(path)

    def get(self, path: str) -> bytes:
        """Return a file's content; raise ArtifactMissing where there is none, BadInput for a link in a local folder."""
        self._refuse_links(path)
        try:
            return obstore.get(self._store, artifact_path(path)).bytes().to_bytes()
        except FileNotFoundError as error:
            raise ArtifactMissing(f"there is no {self.address(path)}; materialize the asset that writes it") from error

    def size(self, path: str) -> int:
        """Return how many bytes a file has, without reading it; raises what ``get`` does."""
        self._refuse_links(path)
        try:
            return obstore.head(self._store, artifact_path(path))["size"]
        except FileNotFoundError as error:
            raise ArtifactMissing(f"there is no {self.address(path)}; materialize the asset that writes it") from error

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of that name."""
        try:
            obstore.head(self._store, artifact_path(path))
        except FileNotFoundError:
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
        found = (meta for batch in obstore.list(self._store, folder) for meta in batch)
        files = [StoredFile(path=m["path"], size=m["size"], modified_at=m["last_modified"]) for m in found]
        return sorted(files, key=lambda file: file.path)

    def delete(self, path: str) -> None:
        """Remove a file for good; one that is not there is no error, so that a second attempt can finish the first.

        In a local folder its removal is on the disk before the next one begins, whatever the power does.
        """
        self._refuse_links(path)
        try:
            obstore.delete(self._store, artifact_path(path))
        except FileNotFoundError:
            return
        if isinstance(self._store, LocalStore):
            _sync(self._local_path(self._store, path).parent)

    def address(self, path: str) -> str:
        """Return where a person finds the file: its path in a local folder, its URL anywhere else."""
        store = self._store
        if isinstance(store, LocalStore):
            return str(self._local_path(store, path))
        return f"{self._url}{'' if self._url.endswith('/') else '/'}{artifact_path(path)}"

    def _refuse_links(self, path: str) -> None:
        """Raise BadInput where a local path leads through a link, or to a pipe or device: such a file lies elsewhere.

        The root itself may be a link: it is where the person who runs this wants the files.
        """
        store = self._store
        if not isinstance(store, LocalStore):
            return
        found = Path(cast("str", store.prefix))
        for segment in artifact_path(path).split("/"):
            found /= segment
            try:
                mode = found.lstat().st_mode
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
