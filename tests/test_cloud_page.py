"""docs/cloud.md holds: its variables are those of the code, and after each step the doctor finds what the page says."""

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat
from google.cloud.bigquery import Client, Dataset
from typer.main import get_command
from typer.testing import CliRunner

from ml_assets import cli
from tests.servers.bigquery import BigQueryServer
from tests.servers.gcs import gcs_server
from tests.servers.postgres import PostgresServer
from tests.test_doctor import WANDB_KEY, service_account, wandb_url

__all__ = ["wandb_url"]

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cloud.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
PROJECT = "acme-ml-staging"


def commands(text: str) -> list[str]:
    """Return the commands of a text's bash blocks, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def promised(section: str) -> set[str]:
    found = re.search(r"^Now ok: (.*)\.$", SECTIONS[section], flags=re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", found[1])) if found else set()


def test_the_table_of_variables_is_that_of_the_code():
    code = (ROOT / "ml_assets" / "backends" / "environments.py").read_text()
    vendors = "ML_ASSETS|GOOGLE|AWS|WANDB|BIGQUERY|STORAGE|BIGTABLE|DAGSTER"
    read = set(re.findall(rf'"((?:{vendors})_[A-Z0-9_]+)"', code))
    assert set(re.findall(rf"`((?:{vendors})_[A-Z0-9_]+)`", SECTIONS["All variables"])) == read


def test_every_command_of_the_page_is_one():
    known = get_command(cli.app).commands  # pyright: ignore[reportAttributeAccessIssue]
    told = [shlex.split(line) for line in commands(PAGE)]
    ours = [words for words in told if words and words[0] == "ml-assets"]
    assert {words[1] for words in ours} >= {"doctor", "run", "history", "rollback"}
    for words in ours:
        options = {option for parameter in known[words[1]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
    for words in told:
        if "cp" in words:
            assert (ROOT / words[words.index("cp") + 1]).is_file()
    files = [
        f for line in commands(PAGE) for f in re.findall(r"deploy/[\w./*-]+", re.sub(r"\$\([^)]*\)|\$\w+", "*", line))
    ]
    assert "deploy/iam/gcp/role-*.yaml" in files
    assert all(any(ROOT.glob(file)) for file in files)


@pytest.mark.slow
def test_whoever_follows_the_page_sees_what_it_says_after_each_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres: PostgresServer,
    wandb_url: str,
    request: pytest.FixtureRequest,
):
    home = tmp_path / "dagster"

    def statuses() -> dict[str, str]:
        answer = CliRunner().invoke(cli.app, ["doctor", "--json"])
        found = {result["name"]: result["status"] for result in json.loads(answer.output)}
        assert answer.exit_code == int("fail" in found.values())
        return found

    def follow(section: str) -> None:
        """Set what the section exports, but for addresses and secrets, which are this machine's."""
        for line in commands(SECTIONS[section]):
            words = shlex.split(line, comments=True)
            for name, _, value in (word.partition("=") for word in words[1:] if words[0] == "export"):
                monkeypatch.setenv(name, own.get(name, value))
            if words[:1] == ["unset"]:
                monkeypatch.delenv(words[1])

    with BigQueryServer(PROJECT) as bigquery, gcs_server() as gcs:
        own = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(tmp_path / "google.json", bigquery)),
            "ML_ASSETS_POSTGRES_URL": postgres.url(f"page_{tmp_path.name}"),
            "DAGSTER_HOME": str(home),
            "WANDB_API_KEY": WANDB_KEY,
        }
        monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.address)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        monkeypatch.setenv("WANDB_BASE_URL", wandb_url)

        def make_buckets() -> None:
            for name in re.findall(r"^for name in (.*?); do", SECTIONS["3. Buckets"], flags=re.MULTILINE)[0].split():
                gcs.create_bucket(f"{PROJECT}-{name}")

        def make_datasets() -> None:
            [file] = re.findall(
                r"^envsubst < (\S+datasets.sql) \| bq .*query", SECTIONS["4. Datasets"], flags=re.MULTILINE
            )
            made_there = (ROOT / file).read_text()
            names = re.findall(r"^create schema if not exists `\$\{PROJECT\}\.(\w+)`", made_there, flags=re.MULTILINE)
            with Client(project=PROJECT) as client:
                for name in names:
                    made = Dataset(f"{PROJECT}.{name}")
                    made.location = "US"
                    client.create_dataset(made)

        def make_databases() -> None:
            postgres.url("studies")
            home.mkdir()
            shutil.copy(ROOT / "deploy" / "cloud" / "dagster.yaml", home)

        def start_daemon() -> None:
            with dg.DagsterInstance.from_config(str(home)) as instance:
                for kind in instance.get_required_daemon_types():
                    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), kind, None, None))

        steps: dict[str, Callable[[], object]] = {
            "1. Names": lambda: None,
            "2. Credentials": lambda: None,
            "3. Buckets": make_buckets,
            "4. Datasets": make_datasets,
            "5. PostgreSQL": make_databases,
            "6. W&B": lambda: None,
            "8. Schedules on": start_daemon,
        }
        before: set[str] = set()
        for section, step in steps.items():
            follow(section)
            step()
            if promised(section):
                now = {name for name, status in statuses().items() if status == "ok"}
                assert now - before - {"packages"} == promised(section), section
                assert before <= now
                before = now
        assert "fail" not in statuses().values()
