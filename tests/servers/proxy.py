"""A proxy before a test server: it records what is asked, and spoils as many answers as it is told to."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request that came: ``path`` with its query."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(kw_only=True)
class Fault:
    """What becomes of the next ``n_times`` requests that ``is_meant`` chooses.

    ``is_forwarded``: the server gets it, and does it, before its answer is spoiled. The client then gets ``status`` and
    ``body``, or with status 0 its connection reset.
    """

    status: int
    body: bytes = b""
    n_times: int = 1
    is_forwarded: bool = False
    is_meant: Callable[[Asked], bool] = field(default=lambda _: True)


class Proxy(ThreadingHTTPServer):
    """Forwards to ``target``, ``delay_seconds`` later; ``asked`` are the requests so far."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.delay_seconds = 0.0
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its own address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault_for(self, asked: Asked) -> Fault | None:
        """Note a request and return what is to become of it."""
        with self.lock:
            self.asked.append(asked)
            for fault in self.faults:
                if fault.n_times > 0 and fault.is_meant(asked):
                    fault.n_times -= 1
                    return fault
        return None


@contextmanager
def proxy_before(target: str) -> Iterator[Proxy]:
    """Run a proxy before a server, until the context ends."""
    with Proxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Proxy

    def handle(self) -> None:
        """Let a client go without a word."""
        with suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault_for(Asked(method=self.command, path=self.path, headers=dict(self.headers)))
        time.sleep(self.server.delay_seconds)
        if fault is None:
            self._answer(*self._forwarded(content))
            return
        if fault.is_forwarded:
            self._forwarded(content)
        if fault.status:
            self._answer(fault.status, {"Content-Type": "application/xml"}, fault.body)
        else:
            self.close_connection = True
            self.connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 # the names of the library

    def _forwarded(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self.server.target, timeout=60)
        try:
            connection.request(self.command, self.path, content, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_what: object) -> None:
        """Say nothing."""
