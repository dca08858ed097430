"""Files that others leave in a folder, by the local day they are of: which are whole, which are still being written."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Literal

# 2013-07-01/any/depth.csv, partition_on=2013-07-01/any/depth.csv, or 2013-07-01.csv where a day has one file.
_DAY = re.compile(r"(?:partition_on=)?(\d{4}-\d{2}-\d{2})[/.]")
# Where and under which endings Hadoop, Spark, browsers and SFTP servers keep what they have not finished.
_UNFINISHED_FOLDERS = ("_temporary",)
_UNFINISHED_ENDINGS = (".tmp", ".temp", ".part", ".partial", ".filepart", ".inprogress", ".crdownload", "._copying_")
_VERSION = re.compile(r"(?P<fingerprint>[0-9a-f]{16}) of (?P<n_files>\d+) files, the newest of (?P<newest>\S+)")

# The metadata that a materialization names the state of the files under that it has read.
LANDED_FILES = "landed_files"

Kind = Literal["data", "unfinished", "hidden"]


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file as a listing told of it.

    ``path`` is relative to the folder that was listed. ``size`` in bytes. ``version`` is another one after every write:
    an ETag or a generation, as the store has it. ``modified_at`` (UTC) by the clock of the store.
    """

    path: str
    size: int
    version: str
    modified_at: datetime


@dataclass(frozen=True, kw_only=True)
class FilesVersion:
    """Which state of a day's files was read or listed; two states of the same fingerprint are the same bytes."""

    fingerprint: str
    n_files: int
    newest_at: datetime

    def __str__(self) -> str:
        """Return the text that ``parse`` reads, for the metadata of a materialization."""
        return f"{self.fingerprint} of {self.n_files} files, the newest of {self.newest_at.isoformat()}"

    @classmethod
    def parse(cls, text: str) -> "FilesVersion | None":
        """Return what ``str`` wrote, or None for any other text.

        >>> found = FilesVersion.parse("3fa2c1d04b5e6f70 of 24 files, the newest of 2013-07-02T05:00:00+00:00")
        >>> found.n_files if found else None
        24
        """
        match = _VERSION.fullmatch(text)
        if match is None:
            return None
        newest_at = datetime.fromisoformat(match["newest"])
        return cls(fingerprint=match["fingerprint"], n_files=int(match["n_files"]), newest_at=newest_at)

    def only_lost_files_since(self, earlier: "FilesVersion") -> bool:
        """Tell whether this state has fewer files than the earlier one and none that is newer.

        So a folder looks from which a life-cycle rule removes what is old: no correction, nothing to land.
        """
        return self.n_files < earlier.n_files and self.newest_at <= earlier.newest_at


@dataclass(frozen=True, kw_only=True)
class DayFiles:
    """The files of one local day, or of a table without days (``day`` is None), each list in the order of its paths."""

    day: date | None
    data: tuple[ListedFile, ...]
    unfinished: tuple[ListedFile, ...]
    hidden: tuple[ListedFile, ...]

    @property
    def name(self) -> str:
        """The day as text, ``whole`` for a table without days."""
        return str(self.day or "whole")

    @property
    def version(self) -> FilesVersion:
        """Which state of the data files this is."""
        told = hashlib.sha256()
        for file in self.data:
            told.update(f"{file.path}\0{file.size}\0{file.version}\0{file.modified_at.isoformat()}\n".encode())
        newest_at = max((file.modified_at for file in self.data), default=datetime.min.replace(tzinfo=UTC))
        return FilesVersion(fingerprint=told.hexdigest()[:16], n_files=len(self.data), newest_at=newest_at)

    def has_marker(self, name: str) -> bool:
        """Tell whether a file of this name, such as ``_SUCCESS``, is there: some writers leave one when all is done."""
        return any(file.path.rpartition("/")[2] == name for file in self.hidden)


def kind_of(path: str) -> Kind:
    """Tell by its name what a file is: data, not finished yet, or no data at all (``_SUCCESS``, ``.crc``, folders).

    >>> [kind_of(path) for path in ("2013-07-01/a.csv", "2013-07-01/a.csv.tmp", "2013-07-01/_SUCCESS", "2013-07-01/")]
    ['data', 'unfinished', 'hidden', 'hidden']
    """
    *folders, name = path.split("/")
    if any(folder in _UNFINISHED_FOLDERS for folder in folders) or name.lower().endswith(_UNFINISHED_ENDINGS):
        return "unfinished"
    if not name or name.endswith("_$folder$") or any(segment.startswith((".", "_")) for segment in (*folders, name)):
        return "hidden"
    return "data"


def day_of(path: str) -> date | None:
    """Return the local day that a path is of, or None where it names none.

    >>> [day_of(path) for path in ("2013-07-01/a.csv", "partition_on=2013-07-01/05/a.csv", "2013-07-01.csv", "a.csv")]
    [datetime.date(2013, 7, 1), datetime.date(2013, 7, 1), datetime.date(2013, 7, 1), None]
    """
    match = _DAY.match(path)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:  # 2013-02-30
        return None


def bounds_of(first: date, last: date | None) -> tuple[tuple[str, str], ...]:
    """Return what a listing must lie between, both excluded, to find the days first..last (None: and all later) whole.

    One pair for each layout: what follows a day in a path, ``.`` and ``/``, sorts before ``0``.

    >>> bounds_of(date(2013, 7, 1), date(2013, 7, 2))
    (('2013-07-01', '2013-07-020'), ('partition_on=2013-07-01', 'partition_on=2013-07-020'))
    """
    end = f"{last}0" if last else ":"  # the character after 9
    return (str(first), end), (f"partition_on={first}", f"partition_on={end}")


def sorted_by_day(listed: Iterable[ListedFile]) -> list[DayFiles]:
    """Return the files of a listing by day, in the order of the days; a file that is of no day is left out."""
    dated = sorted(((day, file.path, file) for file in listed if (day := day_of(file.path))), key=lambda each: each[:2])
    return [files_of([file for *_, file in each], day=day) for day, each in groupby(dated, key=lambda each: each[0])]


def files_of(listed: Sequence[ListedFile], *, day: date | None) -> DayFiles:
    """Return the files of one day, parted by what their names say."""
    parted: dict[Kind, list[ListedFile]] = {"data": [], "unfinished": [], "hidden": []}
    for file in sorted(listed, key=lambda file: file.path):
        parted[kind_of(file.path)].append(file)
    return DayFiles(
        day=day, data=tuple(parted["data"]), unfinished=tuple(parted["unfinished"]), hidden=tuple(parted["hidden"])
    )


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder inside a tree; ``path`` is relative to its root and has no slash at its end."""

    path: str


def walk(
    children_of: Callable[[str], Iterable[ListedFile | Folder]], *, after: str, before: str | None, folder: str = ""
) -> Iterator[ListedFile]:
    """Yield the files of a tree whose paths lie between two others, sorted as an object store sorts them.

    ``children_of`` lists one folder ("" is the root). A folder in which no path can lie between is never listed.
    """
    named = [(f"{each.path}/" if isinstance(each, Folder) else each.path, each) for each in children_of(folder)]
    for name, each in sorted(named, key=lambda pair: pair[0]):
        if before is not None and name >= before:
            return
        if isinstance(each, ListedFile):
            if name > after:
                yield each
        elif f"{each.path}0" > after:  # every path below it begins with name, and the character after / is 0
            yield from walk(children_of, after=after, before=before, folder=each.path)
