"""A proxy that loses requests: it stands before a test server and cuts or holds a connection where a test says so."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_Answer = tuple[int, list[tuple[str, str]], bytes]


class Unreliable:
    """Passes HTTP requests on to ``address``, and cuts or holds the connection of one of them; a context manager.

    ``cut_at(n)`` cuts the n-th request from now, before it reaches the server or, with ``after``, once the server has
    done what was asked: only the answer is lost. ``hold_at(n)`` leaves it open and never answers, until the proxy ends
    or ``held_for`` seconds have passed. ``was_cut`` tells whether there were so many.
    """

    def __init__(self, address: str) -> None:
        self._target = urlsplit(address).netloc
        self._lock = threading.Lock()
        self._until_cut, self._after, self.was_cut = 0, False, False
        self._held_for, self._ended = 0.0, threading.Event()
        self._http = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        """The URL to give to clients."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def cut_at(self, n: int, *, after: bool) -> None:
        """Cut the n-th request from now, counted from one."""
        with self._lock:
            self._until_cut, self._after, self.was_cut, self._held_for = n, after, False, 0.0

    def hold_at(self, n: int, *, held_for: float) -> None:
        """Let the n-th request from now, counted from one, wait for an answer that does not come."""
        self.cut_at(n, after=False)
        self._held_for = held_for

    def __enter__(self) -> "Unreliable":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(
        self, method: str, path: str, headers: dict[str, str], content: bytes
    ) -> http.client.HTTPResponse | None:
        """Return the server's status, headers and body, or None where the connection is to be cut."""
        with self._lock:
            is_cut = self._until_cut == 1
            self._until_cut = max(0, self._until_cut - 1)
            self.was_cut |= is_cut
        if is_cut and not self._after:
            self._ended.wait(self._held_for)
            return None
        connection = http.client.HTTPConnection(self._target)
        connection.request(method, path, body=content, headers=headers)
        found = connection.getresponse()
        answer = (found.status, found.getheaders(), found.read())
        connection.close()
        return None if is_cut else answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], proxy: Unreliable) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")}
        found = self.server.proxy.answer(self.command, self.path, headers, content)
        self.close_connection = True
        if found is None:
            return
        status, received, body = found
        self.send_response(status)
        for key, value in received:
            if key.lower() in ("content-type", "location", "range"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names http.server calls
