"""Files in a folder of this machine, or of a disk that is mounted on it."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ml_assets.core.day_files import Folder, ListedFile, walk
from ml_assets.core.errors import FileChanged, SourceDenied, SourceMissing, SourceUnavailable

_PIECE = 1 << 20


class LocalFileStore:
    """The FileStore port on a folder; the version of a file is its inode and the nanosecond it was last written in.

    What a link leads to is read as if it lay in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self, *, after: str = "", before: str | None = None) -> Iterator[ListedFile]:
        """Yield the files whose paths lie between these two, both excluded, sorted by path."""
        return walk(self._children, after=after, before=before)

    def open(self, file: ListedFile) -> Iterator[bytes]:
        """Yield the content of a file piece by piece; what it is after the last piece must be what was listed."""
        path = self._folder / file.path
        try:
            with path.open("rb") as opened:
                while piece := opened.read(_PIECE):
                    yield piece
                now = _version(os.fstat(opened.fileno()))
                is_same = now == file.version == _version(path.stat())
        except FileNotFoundError:
            is_same = False
        except PermissionError as error:
            raise SourceDenied(f"cannot read {path}: {error.strerror}; allow this user to read it") from error
        except OSError as error:
            raise SourceUnavailable(f"cannot read {path}: {error}") from error
        if not is_same:
            raise FileChanged(f"cannot read {path}: it was replaced or removed since it was listed; run the day again")

    def address(self, path: str = "") -> str:
        """Return the URL of a file, or of the folder itself."""
        return (self._folder / path).as_uri()

    def _children(self, folder: str) -> Iterator[ListedFile | Folder]:
        path = self._folder / folder
        try:
            for entry in os.scandir(path):
                inside = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    told = entry.stat()
                except FileNotFoundError:  # removed since the folder was opened, or a link to nowhere
                    continue
                if entry.is_dir():
                    yield Folder(path=inside)
                elif entry.is_file():
                    yield ListedFile(
                        path=inside,
                        size=told.st_size,
                        version=_version(told),
                        modified_at=datetime.fromtimestamp(told.st_mtime, UTC),
                    )
        except (FileNotFoundError, NotADirectoryError) as error:
            if not folder:
                raise SourceMissing(f"there is no folder {path}; create it, or correct ML_ASSETS_SOURCES") from error
        except PermissionError as error:
            raise SourceDenied(f"cannot list {path}: {error.strerror}; allow this user to read it") from error


def _version(told: os.stat_result) -> str:
    return f"{told.st_ino} {told.st_mtime_ns} {told.st_size}"
