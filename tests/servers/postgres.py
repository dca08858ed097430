"""A real PostgreSQL server on 127.0.0.1 with a password: made by initdb in a folder of its own, gone afterwards.

PostgreSQL refuses to run as root: there it runs as ``postgres`` or ``nobody``.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

PASSWORD = "canary-of-postgres"
_SECONDS_TO_START = 30.0


class PostgresMissing(Exception):
    """The server cannot be run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A running server."""

    port: int
    log_file: Path

    def log(self) -> str:
        """Return what the server has had to say so far."""
        return self.log_file.read_text()

    def url(self, database: str) -> str:
        """Return the URL of a database, which is made where it is not there."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            found = connection.execute("select 1 from pg_database where datname = %s", [database]).fetchone()
            if found is None:
                connection.execute(f'create database "{database}"')
        return self._url(database)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server and end it with everything it wrote; raise PostgresMissing where it cannot be had."""
    initdb, postgres = _program("initdb"), _program("postgres")
    user = _user()
    # Not below pytest's folder, which only its own user may enter.
    folder = Path(tempfile.mkdtemp(prefix="ml-assets-postgres-"))
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        if user is not None:
            for path in (folder, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        who = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        quiet = {"stdin": subprocess.DEVNULL, "cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
        data = folder / "data"
        subprocess.run(
            [
                *(initdb, "-D", data, "-U", "postgres", "--auth=password", f"--pwfile={password}"),
                *("--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"),
            ],
            check=True,
            capture_output=True,
            **quiet,
            **who,
        )
        port = _free_port()
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    *(postgres, "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", str(port)),
                    *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=8MB"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                **quiet,
                **who,
            )
        try:
            found = PostgresServer(port=port, log_file=folder / "log")
            _wait(server, found)
            yield found
        finally:
            server.terminate()  # to PostgreSQL: let nobody new in; after it, SIGQUIT: end now
            server.send_signal(3)
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    for folder in (*os.environ["PATH"].split(":"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))):
        if (Path(folder) / name).exists():
            return str(Path(folder) / name)
    raise PostgresMissing(f"there is no {name} here; install the Debian package postgresql")


def _user() -> pwd.struct_passwd | None:
    """Return the user to run it as, or None where this process is no root and needs no other."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresMissing("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _wait(server: "subprocess.Popen[bytes]", found: PostgresServer) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        try:
            found.url("dagster")
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{found.log()}") from error
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
