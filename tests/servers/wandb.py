"""A W&B server for tests: the GraphQL, file stream and upload calls of a W&B client, and what they said."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer(ThreadingHTTPServer):
    """Remembers runs, artifacts, and which run used or made which artifact. WANDB_BASE_URL is its ``url``.

    An artifact is known by its collection and digest: who logs what is there already gets that version, and moves the
    aliases onto it. ``is_hanging`` makes it accept requests and never answer them, as a dead proxy does; ``status`` is
    what it answers instead of an answer, where it is not 200. ``refused`` are the GraphQL operations that it fails.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.is_hanging = False
        self.status = 200
        self.refused: set[str] = set()
        self.runs: dict[str, dict[str, Any]] = {}
        self.streams: list[dict[str, Any]] = []
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.aliases: dict[tuple[str, str], str] = {}  # (collection, alias) -> artifact
        self.used: set[tuple[str, str]] = set()  # (run, artifact)
        self.made: set[tuple[str, str]] = set()
        self.uploads: dict[str, bytes] = {}
        self.keys: set[str] = set()
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        """What WANDB_BASE_URL must be."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def history(self) -> list[dict[str, Any]]:
        """Return the rows that were logged, in the order of their coming."""
        return self._rows("wandb-history.jsonl")

    def summary(self) -> dict[str, Any]:
        """Return the summary as it was sent last."""
        return self._rows("wandb-summary.json")[-1]

    def lineage(self) -> set[tuple[str, str, str]]:
        """Return (name of a run, used or made, collection of an artifact) for all artifacts that were committed."""
        committed = {key: each["collection"] for key, each in self.artifacts.items() if each["state"] == "COMMITTED"}
        names = {run: each["displayName"] for run, each in self.runs.items()}
        noted = {"made": self.made, "used": self.used}
        return {(names[r], verb, committed[a]) for verb, of in noted.items() for r, a in of if a in committed}

    def files(self, artifact: str) -> dict[str, Any]:
        """Return what the manifest of an artifact lists, by path."""
        return json.loads(self.uploads[f"manifest-{artifact}"])["contents"]

    def _rows(self, file: str) -> list[dict[str, Any]]:
        streams = (stream.get("files", {}).get(file, {"content": []}) for stream in self.streams)
        return [json.loads(line) for stream in streams for line in stream["content"]]


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Run a server until the context ends."""
    with WandbServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:
            server.is_hanging = False
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: WandbServer

    def handle(self) -> None:
        """Let a client go without a word: W&B resets connections as it ends."""
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:  # the name of the library
        content = self._content()
        if self.server.status != 200:
            self._answer({"errors": [{"message": "no"}]}, self.server.status)
        elif self.path.endswith("/graphql"):
            self._graphql(json.loads(content))
        elif self.path.endswith("/file_stream"):
            self.server.streams.append(json.loads(content))
            self._answer({"exitcode": None, "limits": {}})
        else:
            self._answer({})  # what W&B counts of itself

    def do_PUT(self) -> None:  # the name of the library
        self.server.uploads[self.path.rpartition("/")[2]] = self._content()
        self._answer({})

    def do_GET(self) -> None:  # the name of the library
        self._content()
        self._answer({})

    def _content(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.keys.add(self.headers.get("Authorization", ""))
        while self.server.is_hanging:
            time.sleep(0.05)
        return content

    def _graphql(self, body: dict[str, Any]) -> None:
        query, variables = body["query"], body.get("variables") or {}
        with self.server.lock:
            for operation, answer in self._operations().items():
                if operation in query:
                    if operation in self.server.refused:
                        self._answer({"errors": [{"message": f"{operation} is refused"}], "data": None})
                    else:
                        self._answer({"data": {operation.rstrip("("): answer(variables)}})
                    return
        self._answer({"data": {}})

    def _operations(self) -> dict[str, Any]:
        """Return what answers each operation; a name that is part of another's comes after it."""
        return {
            "upsertBucket": self._run,
            "createRunFiles": self._run_files,
            "createArtifactManifest": self._manifest,
            "updateArtifactManifest": self._manifest,
            "createArtifact": self._artifact,
            "commitArtifact": self._commit,
            "useArtifact": self._use,
            "project(": lambda _: None,  # no artifact of that name has another type
            "viewer": lambda _: {
                "id": "u1",
                "entity": "team",
                "username": "team",
                "flags": "{}",
                "teams": {"edges": []},
            },
        }

    def _run(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = {key: value for key, value in variables.items() if value is not None}
        self.server.runs.setdefault(str(run["name"]), {}).update(run)
        project = {"name": run.get("project"), "entity": {"name": "team"}}
        bucket = {"id": "r1", "name": run["name"], "displayName": run.get("displayName"), "project": project}
        return {"bucket": bucket, "inserted": True}

    def _run_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": each, "uploadUrl": f"{self.server.url}/upload/{each}"} for each in variables["files"]]
        return {"runID": "r1", "uploadHeaders": [], "files": files}

    def _artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        asked = variables["input"]
        collection = (asked.get("artifactCollectionNames") or [asked.get("artifactCollectionName")])[0]
        wanted = (collection, asked["digest"])
        same = (key for key, each in self.server.artifacts.items() if (each["collection"], each["digest"]) == wanted)
        key = next(same, None) or f"artifact{len(self.server.artifacts)}"
        known = self.server.artifacts.setdefault(key, {**asked, "collection": collection, "state": "PENDING"})
        if asked["runName"]:  # what a run only reads names none
            self.server.made.add((asked["runName"], key))
        for alias in asked.get("aliases") or []:
            self.server.aliases[collection, alias["alias"]] = key
        return {"artifact": {"id": key, "state": known["state"], "artifactSequence": {"latestArtifact": None}}}

    def _manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        key = variables.get("artifactID") or variables["artifactManifestID"].removeprefix("manifest-")
        url = f"{self.server.url}/upload/manifest-{key}" if variables["includeUpload"] else None
        return {
            "artifactManifest": {"id": f"manifest-{key}", "file": {"id": "f", "uploadUrl": url, "uploadHeaders": []}}
        }

    def _commit(self, variables: dict[str, Any]) -> dict[str, Any]:
        known = self.server.artifacts[variables["artifactID"]]
        known["state"] = "COMMITTED"
        return {"artifact": {"id": variables["artifactID"], "digest": known["digest"]}}

    def _use(self, variables: dict[str, Any]) -> dict[str, Any]:
        asked = variables["input"]
        self.server.used.add((asked["runName"], asked["artifactID"]))
        return {"artifact": {"id": asked["artifactID"]}}

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_what: object) -> None:
        """Say nothing."""
