import csv
import io
import json
from datetime import UTC, date, datetime

import pytest
from typer.testing import CliRunner, Result

from ml_assets.backends.environments import Environment
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.cli import app, terminal
from ml_assets.core.promotion import Gate
from ml_assets.core.registry import refuse
from ml_assets.core.studies import TrialRecord
from ml_assets.core.tuned_parameters import TunedParameters, save_tuned_parameters

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path, monkeypatch) -> ObjectArtifactStore:
    """A home with three trials, a refusal, and a ledger entry that is damaged."""
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(terminal.console, "_width", None)  # rich keeps the width that is set as its console is made
    store = ObjectArtifactStore(Environment.current().artifacts_url)
    save_tuned_parameters(
        store,
        TunedParameters(
            use_case="storm_delay",
            as_of=date(2013, 7, 1),
            study="storm_delay-1",
            training_set="ab" * 32,
            last_validation_day=date(2013, 6, 20),
            trainer="lightning",
            defaults={"learning_rate": 0.02},
            parameters={"learning_rate": 0.01},
            default_loss=0.5,
            loss=0.4,
            trials=tuple(
                TrialRecord(
                    number=number,
                    state="complete",
                    parameters={"learning_rate": rate},
                    loss=loss,
                    n_epochs=3,
                    reason="",
                    started_at=NOON.replace(minute=number),
                    seconds=7.5,
                )
                for number, (rate, loss) in enumerate([(0.02, 0.5), (0.01, 0.4), (0.3, 0.6)])
            ),
        ),
    )
    refuse(
        store,
        use_case="air_time",
        version="2013-07-01-abc",
        package_hash="9f" * 32,
        effective_from=date(2013, 7, 1),
        as_of=date(2013, 7, 1),
        reason="[red]MAE[/] 9.1 should be at most the floor 7.0000, " + 20 * "and so on ",
        gates=[Gate(name="mae_floor", is_passed=False, found=9.1, expected=7.0, detail="d")],
        recorded_at=NOON,
        recorded_by="gates",
    )
    store.put("ledger/air_time/000002.json", b"{")
    return store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_experiments_prints_every_row_within_100_columns(store):
    done = run("experiments")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert "5 of 5 experiments." in done.stdout
    assert "validation_loss 0.4000" in done.stdout
    assert "[red]MAE[/] 9.1" in done.stdout  # text of others is no markup
    # The newest first; what has no time comes last.
    ids = [line.split()[0] for line in lines if " trial " in line or " promotion " in line]
    assert [name.partition(".")[2] for name in ids] == ["2", "1", "0", "1", "2"]
    assert ids[-2:] == ["air_time.1", "air_time.2"]


def test_rows_are_filtered_sorted_and_limited(store):
    done = run(
        *("experiments", "--kind", "trial", "--where", "validation_loss<0.55"),
        *("--sort", "validation_loss", "--ascending", "--limit", "1", "--json"),
    )
    (row,) = json.loads(done.stdout)
    assert (row["status"], row["parameters"], row["seconds"]) == ("complete", {"learning_rate": 0.01}, 7.5)
    assert row["metrics"]["validation_loss"] == 0.4


def test_csv_has_a_column_for_each_value(store):
    rows = list(csv.DictReader(io.StringIO(run("experiments", "--csv", "--limit", "0").stdout)))
    assert len(rows) == 5
    assert {row["learning_rate"] for row in rows} == {"0.02", "0.01", "0.3", ""}
    assert [row["mae_floor"] for row in rows if row["kind"] == "promotion"] == ["9.1", ""]
    assert "DecodeError" in rows[-1]["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", "validation_loss"), "is no condition"),
        (("--where", "val_loss<1"), "no experiment has a 'val_loss'"),
        (("--kind", "model"), "there is no kind 'model'"),
        (("--json", "--csv"), "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(store, arguments, said):
    done = run("experiments", *arguments)
    assert done.exit_code == 1
    assert said in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout


def test_compare_prints_two_rows_and_writes_the_page(store, tmp_path):
    trials = json.loads(run("experiments", "--kind", "trial", "--json").stdout)
    one, other = trials[2]["id"], trials[1]["id"]
    page = tmp_path / "page.html"
    done = run("compare", one, other, "--html", str(page))
    assert done.exit_code == 0, done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 100
    (line,) = [line for line in done.stdout.splitlines() if "learning_rate" in line]
    assert line.split() == ["learning_rate", "0.02", "0.01", "differs"]
    (line,) = [line for line in done.stdout.splitlines() if "validation_loss" in line]
    assert line.split() == ["validation_loss", "0.5000", "0.4000", "-0.1000"]
    assert "no paired noise" in done.stdout
    assert "learning_rate" in page.read_text()
    assert run("compare", one, "nobody").exit_code == 1


def test_the_board_is_written_into_the_store(store):
    done = run("board")
    assert done.exit_code == 0
    address = store.address("reports/experiments.html")
    assert address in done.stdout
    page = store.get("reports/experiments.html").decode()
    assert "2013-07-01-abc" in page
    assert "DecodeError" in page
