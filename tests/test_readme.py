"""The README holds: its commands run as written, its files work, its names exist.

The commands run in order in a copy of the project, so that their state is the copy's ``data/`` and never a
developer's.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from urllib import error, request

import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_assets.backends.sources.nycflights13_contracts import CONTRACTS
from ml_assets.core.days import DayRange

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# What the README says, and what is run for it. A command that is not listed here fails the test.
AS_WRITTEN = {
    'source .venv/bin/activate\nexport DAGSTER_HOME="$PWD/data/dagster"',
    "dagster asset materialize -m ml_assets.definitions "
    "--select 'group:raw or group:features or group:examples' --partition-range 2013-01-01...2013-01-31",
    "dagster asset materialize -m ml_assets.definitions --select '+key:\"arrival_delay/*\"' --partition 2013-07-08",
    "dagster definitions validate",
    "dg check defs",
    "ml-assets history",
    'ml-assets rollback --from 2013-07-08 --reason "too many false alarms at Newark"',
    "dagster asset list -m ml_assets.definitions --select 'key:\"arrival_delay_day_before/*\"'",
    "dagster asset materialize -m ml_assets.definitions "
    "--select 'key:\"arrival_delay_day_before/examples\"' --partition-range 2013-06-01...2013-06-30",
    "ml-assets experiments",
    'ml-assets experiments --kind training --where "roc_auc>0.7" --sort roc_auc',
    "ml-assets board",
    "ml-assets faults",
    "ml-assets trace US-1431-20130705T09",
    "ml-assets unreferenced",
    "ml-assets doctor",
    'export ML_ASSETS_SOURCES="flights=s3://acme-landing/flights '
    'weather=bigquery://acme/measured/weather?day=time_hour planes=file:///data/planes"',
    "make clean",
}
INSTEAD = {
    # The same commands on fewer days: a Monday with its training is left. Training on less would be refused.
    "make run": 'make run ARGS="--to 2013-07-07"',
    # Long enough to land and to live; the first training would come on the 74th day.
    "ml-assets replay --from 2013-01-01 --to 2013-12-31": "ml-assets replay --from 2013-01-01 --to 2013-01-10",
    # The second Monday has its training set.
    "ml-assets train --as-of 2013-07-08 --use-case arrival_delay": "ml-assets train --as-of 2013-07-08 --cold",
    # These would run this test again: that they run the tests, and what else, is read from what make would do.
    "make test": "make --dry-run test",
    "make check": "make --dry-run check",
}
# These do not end: they are asked over HTTP for the assets, and killed.
SERVERS = {"make ui": 'make ui ARGS="--port {port}"', "dagster dev": "dagster dev --host 127.0.0.1 --port {port}"}

PRINTS = {
    "make test": ["-m pytest"],
    "make check": ["ruff format --check", "ruff check", "pyright", "dbt parse", "dg check defs", "-m pytest"],
    "ml-assets history": ["promote", "2013-07-01"],
    "ml-assets doctor": ["DuckDB", "artifacts", "time zones"],
    "ml-assets experiments": ["promotion", "training", "arrival_delay", "air_time"],
    'ml-assets experiments --kind training --where "roc_auc>0.7" --sort roc_auc': ["arrival_delay"],
    "ml-assets board": ["board"],
    "ml-assets faults": ["No day is held."],
    "ml-assets trace US-1431-20130705T09": ["2013-07-01-", "identical to the last bit"],
    'ml-assets rollback --from 2013-07-08 --reason "too many false alarms at Newark"': [
        "is in charge from 2013-07-08",
        "predicted and monitored again",
    ],
    "dagster asset list -m ml_assets.definitions --select 'key:\"arrival_delay_day_before/*\"'": [
        f"arrival_delay_day_before/{stage}" for stage in ("examples", "candidate", "champion", "report")
    ],
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of the README."""

    language: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [Block(language=language, text=text.rstrip("\n")) for language, text in found]


def commands(block: Block) -> list[str]:
    """Return a block's commands: one a line, but settings of the shell, which belong together."""
    lines = block.text.splitlines()
    return [block.text] if lines[0].startswith("source ") else lines


def file_of(block: Block) -> tuple[str, str]:
    """Return path and content of a block whose first line names a file."""
    first, _, content = block.text.partition("\n")
    assert first.startswith("# "), f"a {block.language} block must begin with the path of its file: {first}"
    return first.removeprefix("# "), content


@dataclass(frozen=True, kw_only=True)
class Shell:
    """A newcomer's terminal in a copy of the project."""

    folder: Path
    environment: Mapping[str, str]
    settings: list[str] = field(default_factory=list[str])

    def run(self, command: str) -> str:
        """Run one command as typed and return what it printed; fail where it fails."""
        done = subprocess.run(
            ["bash", "-ec", "\n".join([*self.settings, command])],
            cwd=self.folder,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-6000:]}"
        if command.startswith("source "):
            self.settings.append(command)
        return done.stdout

    def serve(self, command: str) -> list[str]:
        """Start a server, return the assets it shows, and kill it with all it started."""
        port = _free_port()
        log = self.folder / "server.log"
        script = "\n".join([*self.settings, command.format(port=port)])
        with log.open("w") as output:
            server = subprocess.Popen(
                ["bash", "-ec", script],
                cwd=self.folder,
                env=dict(self.environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while True:
                assets = _assets_shown(port)
                if assets:
                    return assets
                with pytest.raises(subprocess.TimeoutExpired):  # it must not end by itself
                    server.wait(timeout=0.5)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The project as cloned, with this environment in the place of an installation."""
    folder = tmp_path_factory.mktemp("readme") / "ml-assets"
    left_out = shutil.ignore_patterns(
        *(".git", ".venv", "data", "target", "logs", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info")
    )
    shutil.copytree(ROOT, folder, ignore=left_out)
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        (folder / ".venv" / entry.name).symlink_to(entry)
    installed = folder / ".venv" / "installed"
    installed.unlink(missing_ok=True)
    installed.touch()
    return Shell(
        folder=folder,
        environment={
            "PATH": os.environ["PATH"],
            "HOME": str(folder.parent),
            "COLUMNS": "160",
            "PYTHONPATH": str(folder),
            "GIT_CEILING_DIRECTORIES": str(folder.parent),
        },
    )


@pytest.mark.timeout(1200)
def test_every_command_runs_as_written(shell: Shell) -> None:
    assert (ROOT / ".venv").resolve() != (shell.folder / ".venv").resolve()
    for block in blocks():
        if block.language == "python":
            path, content = file_of(block)
            (shell.folder / path).write_text(content + "\n")
        if block.language != "bash":
            continue
        for command in commands(block):
            if command in SERVERS:
                assert {"raw/flights", "arrival_delay/champion"} <= set(shell.serve(SERVERS[command]))
                continue
            assert command in AS_WRITTEN | INSTEAD.keys(), f"tests/test_readme.py does not know `{command}`"
            printed = shell.run(INSTEAD.get(command, command))
            for expected in [*PRINTS.get(command, []), *(_table_labels() if command == "make run" else [])]:
                assert expected in printed, f"`{command}` did not print {expected!r} but\n{printed[-3000:]}"
    assert not (shell.folder / "data").exists(), "make clean left the state"


def test_no_command_known_to_the_test_has_left_the_readme() -> None:
    told = {command for block in blocks() if block.language == "bash" for command in commands(block)}
    assert told == AS_WRITTEN | INSTEAD.keys() | SERVERS.keys()


def test_the_source_of_the_readme_reads_days_and_whole_tables(tmp_path: Path) -> None:
    module = _module_of("ml_assets/backends/sources/parquet_folder.py", tmp_path)
    contracts = {"airlines": CONTRACTS["airlines"], "weather": CONTRACTS["weather"]}
    source = module.ParquetFolder(folder=tmp_path, contracts=contracts)
    airlines = pa.table({"carrier": ["UA"], "name": ["United Air Lines Inc."]})
    parquet.write_table(airlines, tmp_path / "airlines.parquet")
    (tmp_path / "weather").mkdir()
    weather = CONTRACTS["weather"].schema.empty_table()
    rows = pa.Table.from_pylist([{"partition_on": date(2013, 7, 2), "origin": "EWR"}], schema=weather.schema)
    parquet.write_table(rows, tmp_path / "weather" / "2013-07-02.parquet")

    assert source.read("airlines").equals(airlines)
    assert source.read("weather", DayRange(first=date(2013, 7, 1), last=date(2013, 7, 3))).equals(rows)
    assert source.read("weather", DayRange(first=date(2013, 7, 1), last=date(2013, 7, 1))).equals(weather)


@pytest.mark.parametrize("block", [block for block in blocks() if block.language == "yaml"], ids=lambda b: b.text[:60])
def test_an_excerpt_is_in_the_file_it_names(block: Block) -> None:
    path, content = file_of(block)
    assert content in (ROOT / path).read_text()


def test_every_path_and_picture_exists() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`((?:[\w.-]+/)+(?:[\w-]+\.\w+)?|[\w-]+\.(?:py|md|yaml))`", prose))
    paths = {path for path in named if not path.startswith("data/") and not path.endswith("dagster.yaml")}
    missing = {path for path in paths if not any((ROOT / room / path).exists() for room in (".", "ml_assets"))}
    assert not missing
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / picture).stat().st_size < 400_000 for picture in pictures)


def test_the_settings_are_those_the_code_reads() -> None:
    code = (ROOT / "ml_assets/backends/environments.py").read_text()
    assert set(re.findall(r"ML_ASSETS_[A-Z]+", README)) == set(re.findall(r"ML_ASSETS_[A-Z]+", code))


def _table_labels() -> Iterator[str]:
    """Yield the labels of the table that the README says `make run` ends with."""
    printed = next(block.text for block in blocks() if block.language == "text" and "landed" in block.text)
    yield from re.findall(r"^│ (\w[\w ]*?) +│", printed, flags=re.MULTILINE)


def _module_of(path: str, folder: Path):
    content = next(text for name, text in (file_of(b) for b in blocks() if b.language == "python") if name == path)
    file = folder / Path(path).name
    file.write_text(content)
    spec = importlib.util.spec_from_file_location("readme_example", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses looks its module up
    spec.loader.exec_module(module)
    return module


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _assets_shown(port: int) -> list[str]:
    """Return the assets the UI lists, none while it is still starting."""
    body = json.dumps({"query": "{ assetNodes { assetKey { path } } }"}).encode()
    ask = request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    try:
        with request.urlopen(ask, timeout=60) as answer:
            nodes = json.load(answer)["data"]["assetNodes"]
    except (error.URLError, ConnectionError):
        return []
    return ["/".join(node["assetKey"]["path"]) for node in nodes]
