"""HDFS for tests: the reading half of WebHDFS over HTTP, with a data node of its own to which OPEN is redirected."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

_PREFIX, _DATA = "/webhdfs/v1", "/datanode"


@dataclass(frozen=True)
class _File:
    content: bytes
    file_id: int
    modified_ms: int


class WebHdfsServer(ThreadingHTTPServer):
    """A name node that holds ``files``; ``page`` entries of a folder are listed at a time.

    Where ``users`` is not empty, only they may read. While ``is_standby`` it answers as the passive one of two does.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, _File] = {}
        self.users: set[str] = set()
        self.is_standby = False
        self.page = 3
        self._ids = count(16386)

    @property
    def host(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, content: bytes) -> None:
        """Leave a file there, in place of any that was."""
        self.files[path] = _File(content, next(self._ids), time.time_ns() // 1_000_000)

    def children(self, folder: str) -> dict[str, _File | None]:
        """Return what lies in a folder by name, folders as None."""
        inside = f"{folder.rstrip('/')}/"
        found: dict[str, _File | None] = {}
        for path, file in self.files.items():
            if path.startswith(inside):
                name, slash, _ = path.removeprefix(inside).partition("/")
                found[name] = None if slash else file
        return dict(sorted(found.items()))


@contextmanager
def webhdfs_server() -> Iterator[WebHdfsServer]:
    """Run an empty server, until the context ends."""
    with WebHdfsServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: WebHdfsServer

    def handle(self) -> None:
        """Let a client go without a word."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        if path.startswith(_DATA):
            self._answer(200, self.server.files[path.removeprefix(_DATA)].content, kind="application/octet-stream")
        elif self.server.is_standby:
            self._refuse(403, "StandbyException", "Operation category READ is not supported in state standby")
        elif self.server.users and query.get("user.name") not in self.server.users:
            self._refuse(403, "AccessControlException", "Permission denied: user=dr.who, access=READ_EXECUTE")
        else:
            self._serve(query["op"], path.removeprefix(_PREFIX).rstrip("/") or "/", query)

    def _serve(self, operation: str, path: str, query: dict[str, str]) -> None:
        file, children = self.server.files.get(path), self.server.children(path)
        if file is None and not children:
            self._refuse(404, "FileNotFoundException", f"File does not exist: {path}")
        elif operation == "OPEN" and file is not None:
            self.send_response_only(307)
            self.send_header("Location", f"http://{self.server.host}{_DATA}{quote(path)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif operation == "GETFILESTATUS":
            self._json({"FileStatus": _status("", file)})
        elif operation in ("LISTSTATUS", "LISTSTATUS_BATCH"):
            listed = {"": file} if file is not None else children
            after = query.get("startAfter", "")
            rest = [_status(name, each) for name, each in listed.items() if not after or name > after]
            if operation == "LISTSTATUS":
                self._json({"FileStatuses": {"FileStatus": rest}})
                return
            page, n_left = rest[: self.server.page], max(len(rest) - self.server.page, 0)
            listing = {"partialListing": {"FileStatuses": {"FileStatus": page}}, "remainingEntries": n_left}
            self._json({"DirectoryListing": listing})
        else:
            self._refuse(400, "UnsupportedOperationException", operation)

    def _refuse(self, status: int, exception: str, message: str) -> None:
        told = {"RemoteException": {"exception": exception, "javaClassName": exception, "message": message}}
        self._answer(status, json.dumps(told).encode())

    def _json(self, told: dict[str, Any]) -> None:
        self._answer(200, json.dumps(told).encode())

    def _answer(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_what: object) -> None:
        """Say nothing."""


def _status(name: str, file: _File | None) -> dict[str, Any]:
    told = {"pathSuffix": name, "owner": "hdfs", "group": "supergroup", "permission": "644", "accessTime": 0}
    if file is None:
        return told | {"type": "DIRECTORY", "length": 0, "fileId": 1, "modificationTime": 0}
    return told | {
        "type": "FILE",
        "length": len(file.content),
        "fileId": file.file_id,
        "modificationTime": file.modified_ms,
    }
