"""The services of compose.yaml as processes: their own commands and variables, on real PostgreSQL behind real nginx."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dockerfile
import pytest

from tests.deploy import compose
from tests.deploy.test_image import SET
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
NAME, PASSWORD = "ada", "canary-of-the-proxy"
QUESTION = """{
  repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
}"""


@dataclass(frozen=True, kw_only=True)
class Up:
    """Where the proxy answers, and how."""

    port: int
    folder: Path

    def ask(self, path: str, *, password: str | None, body: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Return the status and what came back."""
        headers = {"Content-Type": "application/json"}
        if password is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{NAME}:{password}".encode()).decode()
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture(scope="module")
def up(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Start what compose starts, in its order."""
    if NGINX is None:
        pytest.skip("there is no nginx here; install the Debian package nginx-light")
    folder = tmp_path_factory.mktemp("compose")
    services = compose.services({**SET, "ML_ASSETS_OBJECTS": "s3"})
    ports = {name: _free_port() for name in ("code", "webserver", "proxy")}
    (folder / "dagster").mkdir()
    shutil.copy(ROOT / "deploy" / "cloud" / "dagster.yaml", folder / "dagster")
    workspace = (compose.DOCKER / "workspace.yaml").read_text()
    workspace = _once(workspace, "host: code, port: 4000", f"host: 127.0.0.1, port: {ports['code']}")
    (folder / "dagster" / "workspace.yaml").write_text(workspace)
    here = {
        "ML_ASSETS_POSTGRES_URL": postgres.url("compose"),
        "ML_ASSETS_CREDENTIALS": "attached",
        "ML_ASSETS_HOME": str(folder),
        "DAGSTER_HOME": str(folder / "dagster"),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
    }
    with ExitStack() as stack:

        def start(name: str, command: Sequence[str]) -> None:
            given = services[name]["environment"].items()
            variables = {key: value or "" for key, value in given if "GOOGLE" not in key}
            stack.enter_context(_running(command, {**variables, **here}, folder / f"{name}.log"))

        start("code", [word.replace("4000", str(ports["code"])) for word in _command_of_the_image()])
        _wait(lambda: _listens(ports["code"]), folder)
        for name in ("webserver", "daemon"):
            command = [w.replace("/opt/dagster", here["DAGSTER_HOME"]) for w in services[name]["command"]]
            start(name, [str(ports["webserver"]) if word == "3000" else word for word in command])
        config = (compose.DOCKER / "nginx.conf").read_text().replace(" /tmp/", f" {folder}/")
        config = _once(config, "listen 8080;", f"listen 127.0.0.1:{ports['proxy']};")
        config = _once(config, "http://webserver:3000", f"http://127.0.0.1:{ports['webserver']}")
        config = _once(config, "/run/secrets/htpasswd", str(folder / "htpasswd"))
        (folder / "nginx.conf").write_text(config)
        crypted = subprocess.run(
            ["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True
        ).stdout
        (folder / "htpasswd").write_text(f"{NAME}:{crypted}")
        # Its worker would be nobody, whom pytest's folder is closed to.
        as_root = " user root;" if os.geteuid() == 0 else ""
        nginx = [NGINX, "-c", str(folder / "nginx.conf"), "-e", "/dev/stderr"]
        stack.enter_context(_running([*nginx, "-g", f"daemon off;{as_root}"], here, folder / "proxy.log"))
        found = Up(port=ports["proxy"], folder=folder)
        _wait(lambda: found.ask("/server_info", password=PASSWORD)[0] == 200, folder)
        yield found


def _command_of_the_image() -> list[str]:
    commands = dockerfile.parse_file(str(compose.DOCKER / "Dockerfile"))
    (command,) = [command.value for command in commands if command.cmd.upper() == "CMD"]
    return list(command)


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=dict(environment), stdout=stream, stderr=stream, cwd=log.parent)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(is_there: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if is_there():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError("\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in folder.glob("*.log")))
        time.sleep(0.3)


def _once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("path", ["/", "/graphql", "/server_info"])
@pytest.mark.parametrize("password", [None, "wrong"])
def test_without_the_password_there_is_no_way_in(up: Up, path: str, password: str | None):
    status, said = up.ask(path, password=password)
    assert status == 401
    assert "dagster" not in said.lower()


def test_the_proxy_says_that_it_is_well_without_a_password(up: Up):
    assert up.ask("/healthz", password=None) == (204, "")


def test_with_it_the_webserver_shows_the_code_of_the_code_server_and_a_daemon_at_work(up: Up):
    def answer() -> Any:
        status, said = up.ask("/graphql", password=PASSWORD, body={"query": QUESTION})
        assert status == 200
        return json.loads(said)["data"]

    (repository,) = answer()["repositoriesOrError"]["nodes"]
    assert repository["location"]["name"] == "ml_assets"

    def is_at_work() -> bool:
        statuses = answer()["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(status["healthy"] for status in statuses if status["required"])

    _wait(is_at_work, up.folder)
