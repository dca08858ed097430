"""The commands on what is stored, on two weeks of real flights: reproduce, unreferenced and prune."""

import os
import re
from dataclasses import replace
from datetime import date

import duckdb
import pytest
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.backends.environments import Environment
from ml_assets.core import registry
from ml_assets.core.candidates import candidate_of
from ml_assets.lifecycle import Lifecycle
from ml_assets.use_cases import arrival_delay

pytestmark = pytest.mark.slow

SATURDAY, SUNDAY, MONDAY = date(2013, 1, 12), date(2013, 1, 13), date(2013, 1, 14)


@pytest.fixture(autouse=True)
def _small_use_case(life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival_delay, "USE_CASE", life.use_case)


def said(*arguments: str) -> tuple[int, str]:
    """Return the exit code of a command and what it printed, in one line."""
    answer = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "100"})
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.output
    assert max(map(len, answer.output.splitlines())) <= 100
    return answer.exit_code, " ".join(re.sub("[│┃]", " ", answer.output).split())


def test_a_champion_is_rebuilt_to_the_last_bit_and_a_changed_example_is_named(life):
    store, before = life.lifecycle.store, life.home.files()
    version = registry.champion_required(store, "arrival_delay", MONDAY).version

    code, text = said("reproduce", version)
    assert (code, f"arrival_delay {version}, rebuilt, is identical to its record." in text) == (0, True)
    assert text.count("identical") == 5 + 8 + 2 + 1
    assert life.home.files() == before

    with duckdb.connect(str(life.home.path / "warehouse.duckdb")) as connection:
        connection.execute(
            "update examples.arrival_delay set distance_miles = 1 where decision_id in (select decision_id from "
            "examples.arrival_delay where partition_on = '2013-01-05' and label is not null limit 3)"
        )
    code, text = said("reproduce", version, "--use-case", "arrival_delay")
    assert code == 1
    assert "2013-01-05 0 0 3 distance_miles 3" in text
    assert f"{version}, rebuilt, is NOT identical to its record." in text
    assert text.count("differs") == 2, "content and fingerprint of the training set, and nothing of the model"
    assert life.home.files() == before


def test_a_version_nobody_has_is_an_error_that_says_where_to_look(life):
    code, text = said("reproduce", "2013-01-12-000000000000")
    assert (code, "no use case has a model 2013-01-12-000000000000; `ml-assets history`" in text) == (1, True)


def test_a_refused_candidate_can_be_removed_and_every_champion_serves_on(life, monkeypatch: pytest.MonkeyPatch):
    strict = replace(life.use_case, promotion=replace(life.use_case.promotion, minimum_roc_auc=0.99))
    monkeypatch.setattr(arrival_delay, "USE_CASE", strict)
    assert Lifecycle(Environment.current()).outcome_of_training(strict, SUNDAY) == "refused"
    monkeypatch.setattr(arrival_delay, "USE_CASE", life.use_case)
    store = life.lifecycle.store
    refused = candidate_of(store, "arrival_delay", SUNDAY)
    before, tables = life.home.files(), life.home.tables()

    code, text = said("prune", "--older-than", "1", "--yes")
    assert (code, text) == (0, "Nothing refers to 0 of the artifacts, which hold 0.0 MB. 0 removed."), "all are young"
    for path in (life.home.path / "artifacts").rglob("*"):
        os.utime(path, (0, 0))

    code, text = said("unreferenced")
    assert code == 0
    assert f"models/arrival_delay/{refused}/" in text
    assert f"candidate-{refused}.html" in text
    assert "Nothing refers to 5 of the artifacts" in text
    assert said("prune", "--older-than", "1")[1].endswith("Nothing was removed: say --yes to remove it.")
    assert life.home.files() == before

    code, text = said("prune", "--older-than", "1", "--yes")
    assert (code, text.endswith("5 removed.")) == (0, True)
    left = life.home.files()
    assert {path: before[path] for path in left} == left
    gone = set(before) - set(left)
    assert {path for path in gone if "training_sets/" not in path} == {path for path in before if refused in path} | {
        "candidates/arrival_delay/2013-01-13.json"
    }
    assert len(gone) == 9 + 1 + 2 + 4, "package, report, pointers, training set"

    life.serve(SATURDAY, MONDAY)
    after = life.home.tables()
    for name in ("predictions.arrival_delay", "monitoring.performance", "monitoring.drift"):
        assert after[name] == tables[name]
    assert said("reproduce", registry.entries(store, "arrival_delay")[0].version)[0] == 0
    code, text = said("champion", "--on", f"{SUNDAY}")
    assert (code, "promote of 2013-01-12" in text) == (0, True)
    code, text = said("rollback", "--from", f"{MONDAY}", "--reason", "late flights were missed", "--no-rescore")
    assert (code, "is in charge from 2013-01-14" in text) == (0, True)
