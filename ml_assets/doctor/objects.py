"""Buckets and folders: artifacts, what others leave for the raw tables, what steps print."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ml_assets.core.errors import AlreadyExists
from ml_assets.core.ports import ArtifactStore
from ml_assets.doctor.checkup import Trouble

# Judgement: the ledger's times are taken here, those of files there. S3 refuses requests that are 15 minutes off.
_MOST_SKEW = timedelta(minutes=2)
# Judgement: half a year of the packaged flights with its models takes about one.
_LEAST_FREE_GIB = 2.0
_PROBE = b"ml-assets doctor"


def artifacts(store: ArtifactStore, url: str) -> str:
    """Write, read, list and remove a file, and try to write it twice: only the first may succeed."""
    path = f"doctor/{uuid.uuid4().hex}"
    with _no_new_folder(url):
        try:
            store.create(path, _PROBE)
            _refuse_second(store, path, url)
            if store.get(path) != _PROBE:
                raise Trouble(
                    f"{url} does not give back what was written", do="ask whoever runs it; nothing is safe there"
                )
            probe = next(file for file in store.describe("doctor") if file.path == path)
        finally:
            store.delete(path)
        if store.exists(path):
            raise Trouble(f"{store.address(path)} is still there", do="grant the right to delete files")
    skew = abs(datetime.now(UTC) - probe.modified_at)
    if skew > _MOST_SKEW:
        raise Trouble(
            f"the clocks of this machine and of {url} differ by {skew.total_seconds():.0f} s",
            do="timedatectl set-ntp true",
        )
    return f"{url}: written, read, listed, not written twice, removed"


def _refuse_second(store: ArtifactStore, path: str, url: str) -> None:
    with suppress(AlreadyExists):
        store.create(path, b"another")
        raise Trouble(
            f"{url} lets a second writer take a name that is taken: two promotions at once could both win",
            do="use a store with conditional writes: S3, GCS or a local folder",
        )


def room(folder: Path) -> str:
    """Look whether the local folder of all state can be written to, and how much room it has."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    probe = there / f".doctor-{uuid.uuid4().hex}"
    try:
        probe.touch()
    except OSError as error:
        raise Trouble(
            f"{there} cannot be written to: {error.strerror}", do="set ML_ASSETS_HOME to a folder that can"
        ) from error
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(there).free / 2**30
    if free < _LEAST_FREE_GIB:
        raise Trouble(
            f"{there} has {free:.1f} GiB free; expected {_LEAST_FREE_GIB:g}",
            do="free some room, or set ML_ASSETS_HOME to another disk",
        )
    return f"{folder}, {free:,.0f} GiB free"


@contextmanager
def _no_new_folder(url: str) -> Iterator[None]:
    """Remove the folders of a local store that the probe has made."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        yield
        return
    probed = Path(url2pathname(parts.path)) / "doctor"
    new = [folder for folder in (probed, *probed.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()
