"""The commands on the promotion ledger, as W&B hears of them: a real client, and a server over HTTP."""

import time
from datetime import UTC, date, datetime

import pytest
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.backends.environments import Environment
from ml_assets.core import registry
from ml_assets.core.registry import PendingEntry
from ml_assets.resources import store_of
from tests.servers.wandb import WandbServer, wandb_server

FIRST, SECOND = "2013-07-01-0123456789ab", "2013-07-08-ba9876543210"


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "HOME", "ML_ASSETS_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("ML_ASSETS_TRACKER", "online")
        store = store_of(Environment.current())
        for version in (FIRST, SECOND):
            as_of = date.fromisoformat(version[:10])
            facts = {"package_hash": version[-12:], "reason": "passed", "recorded_by": "gates"}
            days = {"effective_from": as_of, "as_of": as_of, "recorded_at": datetime(2013, 7, 9, tzinfo=UTC)}
            store.put(f"models/arrival_delay/{version}/manifest.json", b"{}")
            registry.append(
                store, PendingEntry(action="promote", use_case="arrival_delay", version=version, **facts, **days)
            )
        yield server


def roll_back() -> None:
    answer = CliRunner().invoke(cli.app, ["rollback", "--from", "2013-07-10", "--reason", "late flights were missed"])
    assert answer.exit_code == 0, answer.output
    assert f"{FIRST} is in charge from 2013-07-10" in " ".join(answer.output.split())


def test_a_rollback_moves_the_alias_champion_to_the_version_that_is_back_in_charge(server: WandbServer):
    roll_back()
    deadline = time.monotonic() + 60  # its process is not waited for
    while not (server.streams and server.streams[-1].get("exitcode") is not None) and time.monotonic() < deadline:
        time.sleep(0.05)
    named = server.aliases[("arrival_delay-model", "champion")]
    assert any(FIRST in path and FIRST[-12:] in path for path in server.files(named))
    assert [run["displayName"] for run in server.runs.values()] == [f"rollback {FIRST}"]
    assert server.streams[-1]["exitcode"] == 0


def test_a_rollback_stands_whatever_the_tracker_does(server: WandbServer):
    server.status = 500
    roll_back()
    champion = registry.champion_required(store_of(Environment.current()), "arrival_delay", date(2013, 7, 10))
    assert (champion.action, champion.version) == ("rollback", FIRST)
