"""A server that takes webhooks as Slack does, and refuses, stalls or breaks where a test says so."""

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class SlackServer:
    """Answers one POST after the other with the next of ``answers``, then with 200; a context manager.

    An answer is a status, a status with headers, or ``hang``: nothing, until the server ends. ``posted`` are the
    messages of all requests, ``taken`` those that were answered with 200; ``n_asked`` counts GETs.
    """

    def __init__(self, *answers: int | tuple[int, dict[str, str]] | str) -> None:
        self.posted: list[dict[str, str]] = []
        self.taken: list[dict[str, str]] = []
        self.n_asked = 0
        self._answers, self._lock, self._ended = list(answers), threading.Lock(), threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def webhook(self) -> str:
        """The address to post to; its path is the secret."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/services/T0/B0/canary-webhook"

    def __enter__(self) -> "SlackServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def take(self, path: str, message: dict[str, str]) -> tuple[int, dict[str, str]] | None:
        """Return status and headers of the next answer, or None where there is to be none."""
        with self._lock:
            self.posted.append(message)
            answer = self._answers.pop(0) if self._answers else 200
            if answer == "hang":
                pass
            elif answer == 200 and path.endswith("/canary-webhook"):
                self.taken.append(message)
        if answer == "hang":
            self._ended.wait()
            return None
        return answer if isinstance(answer, tuple) else (int(answer), {})


def _handler(server: SlackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Slack shows a person who comes with a browser to its documentation.
            server.n_asked += 1
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/documentation")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = server.take(self.path, message)
            if answer is None:
                return
            self.send_response(answer[0])
            for name, value in answer[1].items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Sequence[object]) -> None:
            """Print nothing."""

    return Handler
