"""Tables kept in a nameless file while they are looked at more than once: neither memory nor a kill keeps them."""

import errno
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pyarrow as pa
from pyarrow import ipc

from ml_assets.core.errors import StorageFull

# What the system says where a disk, a quota or a limit has no room for more.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Spool:
    """Tables of one schema, written one after the other and then read, as often as needed.

    The file has no name in its folder, so that the system removes it with the process, however that ends.
    Raises StorageFull where the folder's disk has no room.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.schema = schema
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._writer = ipc.new_file(self._file, schema, options=ipc.IpcWriteOptions(compression="lz4"))
        self._is_written = False

    def __enter__(self) -> "Spool":
        """Return itself; the file is gone when the context ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the file."""
        self._file.close()

    def write(self, rows: pa.Table) -> None:
        """Add a table; one without rows leaves no trace."""
        with self._told_if_full():
            for batch in rows.combine_chunks().to_batches():
                if batch.num_rows:
                    self._writer.write_batch(batch)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the tables as they were written. Nothing can be added any more."""
        if not self._is_written:
            with self._told_if_full():
                self._writer.close()
                self._file.flush()
            self._is_written = True
        reader = ipc.open_file(self._file)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])

    @contextmanager
    def _told_if_full(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StorageFull(
                    f"{self._folder} has no room for the rows that are being landed: {error}; nothing was changed, "
                    "free some space and retry"
                ) from error
            raise
