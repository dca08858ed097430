"""One raw table from the files that others leave in a folder, wherever that is: day by day, whole files or none."""

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, TypeVar

import pyarrow as pa
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from ml_assets.core.contract_checks import joined
from ml_assets.core.contracts import Contract
from ml_assets.core.day_files import DayFiles, ListedFile, bounds_of, day_of, files_of, kind_of, sorted_by_day
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput, ContractBroken, HalfWritten, SourceUnavailable, StorageFull
from ml_assets.core.file_formats import format_of, read_batches
from ml_assets.core.ports import FileStore
from ml_assets.core.spool import NO_ROOM

# Where a Spark job keeps what it has not committed, when it writes several days at once.
_UNCOMMITTED = ("_temporary/", "_temporary0")
_PIECE = 1 << 20
_GZIP = b"\x1f\x8b"

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class FilesSource:
    """The BatchSource port on Parquet, CSV and JSON-lines files (also .gz), for one table.

    The files of a day lie in ``2013-07-01/`` or ``partition_on=2013-07-01/``, at any depth, or are named
    ``2013-07-01.csv``; those of a table without days lie right in the folder. They are read in the order of their
    paths. A day without files has no rows. Where a ``marker`` such as ``_SUCCESS`` is named, files without it beside
    them are not finished.

    A file is copied to a nameless one in the work folder before its first row is handed out, so memory stays bounded,
    and one that is cut off, still being written or replaced meanwhile raises HalfWritten or FileChanged, and
    StorageFull where the work folder has no room for it. What may pass is tried again for ``patience_seconds``.
    ``nulls`` are the texts that mean null in CSV.
    """

    store: FileStore
    contract: Contract
    work_folder: Path
    nulls: tuple[str, ...] = ("",)
    marker: str | None = None
    patience_seconds: float = 300.0

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contract of the one table."""
        return {self.contract.table: self.contract}

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return the table's rows of these local days, or all rows of an unpartitioned one."""
        return joined(self.batches(table, days), self.contract)

    def batches(self, table: str, days: DayRange | None = None) -> Iterator[pa.Table]:
        """Yield the rows that ``read`` returns in parts, in the same order."""
        for files in self._whole(table, days):
            for file in files.data:
                with self._copy_of(file) as content:
                    name = self.store.address(file.path)
                    for batch in read_batches(content, self.contract, name=name, day=files.day, nulls=self.nulls):
                        yield pa.Table.from_batches([batch])

    def note(self, days: DayRange) -> str:
        """Say in one line where the rows of these days come from."""
        return f"{self.store.address()}, {days}" if self.contract.is_partitioned else self.store.address()

    def versions(self, table: str, days: DayRange | None = None) -> Mapping[date | None, str]:
        """Return for each day that has files which state of them is there; for a table without days under None."""
        return {files.day: str(files.version) for files in self._listed_days(table, days) if files.data}

    def days_from(self, first: date) -> list[DayFiles]:
        """Return the files of this day and all later ones, by day."""
        return sorted_by_day(file for after, before in bounds_of(first, None) for file in self._listed(after, before))

    def some_days(self, position: str, n_files: int) -> tuple[list[DayFiles], Sequence[ListedFile], str]:
        """Return whole days of about so many files after a position, and the position to go on from, "" at the end.

        In the middle are data files that are of no day: nothing reads them. The first position is "".
        """
        listed, after = self._listed(position, None, n_files), ""
        if len(listed) >= n_files and (day := day_of(listed[-1].path)):
            path = listed[-1].path
            after = f"{path[: path.index(str(day))]}{day}0"
            listed += self._listed(path, after)
        elif len(listed) >= n_files:
            after = listed[-1].path
        stray = [file for file in listed if day_of(file.path) is None and kind_of(file.path) == "data"]
        return sorted_by_day(listed), stray, after

    def is_being_written(self) -> bool:
        """Tell whether a job that writes several days at once has not committed yet."""
        return bool(self._listed(*_UNCOMMITTED, 1))

    def whole_table(self) -> DayFiles:
        """Return the files of a table without days."""
        return files_of([file for file in self._listed("", None) if "/" not in file.path], day=None)

    def _whole(self, table: str, days: DayRange | None) -> list[DayFiles]:
        """Return what is to be read; raise HalfWritten or ContractBroken where it is not all whole and readable."""
        found = self._listed_days(table, days)
        if found and self.contract.is_partitioned and self.is_being_written():
            raise HalfWritten(
                f"{self.store.address('_temporary/')} is there: a job is still writing, or has died; wait for its end, "
                "or remove what it left"
            )
        for files in found:
            for file in files.unfinished:
                raise HalfWritten(
                    f"{self.store.address(file.path)} is still being written; wait until it has its final name, or "
                    "remove it"
                )
            if files.data and self.marker and not files.has_marker(self.marker):
                raise HalfWritten(
                    f"{self.store.address(files.data[0].path)} has no {self.marker} beside it: its writer is not done"
                )
            for file in files.data:
                self._refuse_unreadable(file)
            self._refuse_two_layouts(files)
        return found

    def _refuse_unreadable(self, file: ListedFile) -> None:
        address = self.store.address(file.path)
        if format_of(file.path) is None:
            raise ContractBroken(f"{address}: found no known ending; expected .parquet, .csv, .jsonl or .json, or .gz")
        if file.size == 0:
            raise HalfWritten(f"{address} has no bytes: is it half written? Write it again, or remove it")

    def _refuse_two_layouts(self, files: DayFiles) -> None:
        layouts = {file.path.startswith("partition_on=") for file in files.data}
        if files.day and len(layouts) == 2:
            raise ContractBroken(
                f"{files.day} lies twice in {self.store.address()}: as {files.day} and as partition_on={files.day}; "
                "keep one of them"
            )

    def _listed_days(self, table: str, days: DayRange | None) -> list[DayFiles]:
        if table != self.contract.table:
            raise BadInput(f"{self.store.address()} holds {self.contract.table}, not {table!r}")
        if self.contract.is_partitioned != (days is not None):
            raise BadInput(f"{table} is read {'by days' if self.contract.is_partitioned else 'whole, not by days'}")
        if days is None:
            return [self.whole_table()]
        bounds = bounds_of(days.first, days.last)
        return sorted_by_day(file for after, before in bounds for file in self._listed(after, before))

    def _listed(self, after: str, before: str | None, n_files: int | None = None) -> list[ListedFile]:
        """Return the files between two paths, at most so many; a listing that breaks off goes on where it was."""
        found: list[ListedFile] = []

        def go_on() -> None:
            for file in self.store.list(after=found[-1].path if found else after, before=before):
                found.append(file)
                if len(found) == n_files:
                    return

        self._patiently(go_on)
        return found

    def _copy_of(self, file: ListedFile) -> IO[bytes]:
        """Return a file's content, unpacked, as a temporary file."""

        def copied() -> IO[bytes]:
            copy = _temporary(self.store.open(file), self.work_folder)
            if copy.tell() != file.size:
                copy.close()
                raise SourceUnavailable(f"{self.store.address(file.path)} broke off before its {file.size} bytes came")
            return copy

        copy = self._patiently(copied)
        copy.seek(0)
        is_packed = copy.read(2) == _GZIP
        if is_packed:
            copy = self._unpacked(copy, file)
        copy.seek(0)
        return copy

    def _unpacked(self, packed: IO[bytes], file: ListedFile) -> IO[bytes]:
        packed.seek(0)
        with packed, gzip.open(packed) as opened:
            try:
                return _temporary(iter(lambda: opened.read(_PIECE), b""), self.work_folder)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                address = self.store.address(file.path)
                raise HalfWritten(f"{address} is no whole gzip file: {error}; write it again") from error

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception_type(SourceUnavailable),
            stop=stop_after_delay(self.patience_seconds),
            wait=wait_random_exponential(multiplier=0.2, max=20),
            reraise=True,
        )
        try:
            return retrying(ask)
        except SourceUnavailable as error:
            raise SourceUnavailable(
                f"{error}; tried again for {self.patience_seconds:g} s, nothing was written: run it again later"
            ) from error


def _temporary(pieces: Iterable[bytes], folder: Path) -> IO[bytes]:
    """Return a file without a name on the disk of a folder with this content, at its end; it goes when it is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by whoever reads it
    try:
        for piece in pieces:
            copy.write(piece)
        copy.flush()
    except BaseException as error:
        with suppress(OSError):  # what it could not write it tries again on closing
            copy.close()
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise StorageFull(
                f"{folder} has no room for a copy of the file that is being landed: {error}; "
                f"{shutil.disk_usage(folder).free} bytes are free, nothing was changed, free some space and retry"
            ) from error
        raise
    return copy
