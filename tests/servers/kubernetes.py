"""A Kubernetes API server that keeps the jobs it is given, and starts none: real HTTP, on 127.0.0.1.

It speaks of jobs and pods what dagster-k8s asks for: create, read, delete a job; list pods. No scheduling, no RBAC.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

TOKEN = "canary-of-kubernetes"
_JOBS = re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/?]+)/jobs(/(?P<name>[^/?]+)(/status)?)?")
_PODS = re.compile(r"/api/v1/namespaces/[^/?]+/pods")


@dataclass(kw_only=True)
class KubernetesServer:
    """A running server and what it was asked: every job posted, in order, and the names of those deleted.

    ``status_of_jobs`` is what it says of any of them.
    """

    port: int = 0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    status_of_jobs: Mapping[str, object] = field(default_factory=lambda: {"active": 1})

    def write_kubeconfig(self, path: Path) -> Path:
        """Write the file with which a client finds it, and may enter."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def of(self, *, component: str) -> list[dict[str, Any]]:
        """Return the jobs that were posted for a part of Dagster: ``run_worker`` or ``step_worker``."""
        return [job for job in self.jobs if job["metadata"]["labels"]["app.kubernetes.io/component"] == component]

    def answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Mapping[str, object]]:
        """Return the status and the document for a request."""
        if _PODS.fullmatch(path.partition("?")[0]) and method == "GET":
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}
        found = _JOBS.fullmatch(path.partition("?")[0])
        if found is None:
            return 404, _failure(404, f"{method} {path} is not known here")
        namespace, name = found["namespace"], found["name"]
        if method == "POST" and body is not None:
            if self._job(namespace, body["metadata"]["name"]):
                return 409, _failure(409, "there is one of that name")
            self.jobs.append({**body, "metadata": {**body["metadata"], "namespace": namespace}})
            return 201, self.jobs[-1]
        job = self._job(namespace, name)
        if job is None:
            return 404, _failure(404, f"there is no job {name} in {namespace}")
        if method == "DELETE":
            self.deleted.append(name)
        return 200, {**job, "status": dict(self.status_of_jobs)}

    def _job(self, namespace: str, name: str) -> dict[str, Any] | None:
        there = (job for job in self.jobs if job["metadata"]["name"] not in self.deleted)
        return next(
            (j for j in there if j["metadata"]["namespace"] == namespace and j["metadata"]["name"] == name), None
        )


def _failure(code: int, message: str) -> Mapping[str, object]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


@contextmanager
def kubernetes_server() -> Iterator[KubernetesServer]:
    """Run a server in a thread for as long as the context lasts."""
    cluster, lock = KubernetesServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            with lock:
                if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                    status, document = cluster.answer(self.command, self.path, body)
                else:
                    status, document = 401, _failure(401, "who are you?")
                if status >= 400:
                    cluster.refused.append(f"{status} {self.command} {self.path}")
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cluster.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
