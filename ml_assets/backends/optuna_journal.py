"""The journal of one study: a file of JSON lines that several processes of one machine append to and read.

It has the format of Optuna's ``JournalFileBackend``, which reads it too, and stands in its place for two reasons. Its
lock is the kernel's and dies with its process, and half a line left by one is cut off, where Optuna waits half a minute
and can never read the file again. And it costs less than half: one open file, and only an ended trial waits for the
disk. A machine that loses power may thus lose trials under way, no ended one.
"""

import fcntl
import json
import os
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TRIAL_STATE_CHANGED = 6  # JournalOperation.SET_TRIAL_STATE_VALUES
_BLOCK = 1 << 16


class JournalFile:
    """The backend of an ``optuna.storages.JournalStorage`` in one file, made where there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     JournalFile(Path(folder) / "a.journal").append_logs([{"op_code": 0}])
    ...     list(JournalFile(Path(folder) / "a.journal").read_logs(0))
    [{'op_code': 0}]
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, self._descriptor)
        self._n_read, self._offset = 0, 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any]]:
        """Yield the entries from this number on; what another process has not finished writing is left for later."""
        if log_number_from != self._n_read:
            self._n_read, self._offset = 0, 0
        for line in self._whole_lines():
            self._n_read += 1
            self._offset += len(line)
            if self._n_read > log_number_from:
                yield json.loads(line)

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Write entries behind all others, whole."""
        lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        descriptor = self._descriptor
        with _locked(descriptor):
            _drop_half_written_line(descriptor)
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            if any(log["op_code"] == _TRIAL_STATE_CHANGED for log in logs):
                os.fsync(descriptor)

    def _whole_lines(self) -> list[bytes]:
        descriptor = self._descriptor
        n_bytes = os.fstat(descriptor).st_size - self._offset
        if n_bytes <= 0:
            return []
        *lines, _unfinished = os.pread(descriptor, n_bytes, self._offset).split(b"\n")
        return [line + b"\n" for line in lines]


@contextmanager
def _locked(descriptor: int) -> Generator[None]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _drop_half_written_line(descriptor: int) -> None:
    """Cut the file back to its last whole line: whatever is appended to half a line can never be read."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            os.ftruncate(descriptor, start + found + 1)
            return
        end = start
    os.ftruncate(descriptor, 0)
