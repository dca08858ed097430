"""Replays in processes of their own: killed at any moment they go on, and what was begun by other code is refused."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from html import escape
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from ml_assets.backends.environments import Environment
from ml_assets.cli import app
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput
from ml_assets.core.feature_views import Feature
from ml_assets.core.replays.record import LivedDay
from ml_assets.core.replays.story import record_of
from ml_assets.core.spec import Decisions, Label, PromotionRule, SplitRule, UseCase
from ml_assets.replaying import MANIFEST, PAGE, RECORD, Life, Manifest, Replay, ReplayFailed
from ml_assets.replaying.lives import live_all
from tests.conftest import environment_of
from tests.core.conftest import FIRST_DAY, make_examples

DAYS = DayRange(first=FIRST_DAY, last=FIRST_DAY + timedelta(days=15))
NAMES = ("storms", "gales", "squalls")


def lives_in(folder: Path, names: Sequence[str] = NAMES[:2]) -> list[Life]:
    """Return use cases on the same storms, their examples landed."""
    use_case = UseCase(
        name="storms",
        question="Will it storm?",
        owners=("team@example.com",),
        task="binary_classification",
        decisions=Decisions(table="features.flights", event_at="departs_at", lead_time=timedelta(hours=2)),
        label=Label(table="labels.label_storm"),
        features=("schedule", "weather"),
        trainer="sklearn",
        hyperparameters={"estimator": "lightgbm", "n_estimators": 5, "min_child_samples": 5, "learning_rate": 0.3},
        baseline_features=("wind_speed_mph",),
        split=SplitRule(train_days=10, validation_days=2, test_days=3, minimum_train_days=3),
        promotion=PromotionRule(
            minimum_roc_auc=0.5,
            maximum_calibration_error=1.0,
            confidence=0.5,
            slice_may_lose_log_loss=9.0,
            slice_may_lose_roc_auc=1.0,
            maximum_one_row_ms=10_000,
            maximum_thousand_rows_ms=10_000,
        ),
    )
    inputs = (
        Feature(name="origin", kind="categorical", view="schedule", description="Airport of departure."),
        Feature(name="wind_speed_mph", kind="numeric", view="weather", description="Mean wind.", unit="mph"),
    )
    found: list[Life] = []
    for name in names:
        one = replace(use_case, name=name)
        life = Life(use_case=one, inputs=inputs, code_version="c1", days=DAYS, folder=folder / name)
        if not (life.folder / "warehouse.duckdb").exists():
            life.warehouse.replace_days({one.examples_table: make_examples(16, 60)}, DAYS)
        found.append(life)
    return found


def test_killed_again_and_again_a_replay_ends_with_the_record_of_one_that_was_left_alone(tmp_path: Path):
    live_all(lives_in(tmp_path / "alone", names=NAMES), lambda lived: None, n_at_once=1)
    expected = record_of([life.tell() for life in lives_in(tmp_path / "alone", names=NAMES)])
    lives, seed = lives_in(tmp_path / "killed", names=NAMES), 5
    draw = random.Random(seed)
    print("seed", seed)
    n_kills = 0
    while not all(len(life.lived()) == len(DAYS.dates) for life in lives):
        target = sum(len(life.lived()) for life in lives) + draw.randint(8, 14)
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.test_replaying", str(tmp_path / "killed"), str(target)],
            start_new_session=True,
        ) as process:
            n_kills += process.wait() == -signal.SIGKILL
    assert n_kills >= 2
    assert record_of([life.tell() for life in lives]) == expected


def test_of_three_lives_the_one_that_is_ahead_waits_for_the_others(tmp_path: Path):
    ahead, *others = lives_in(tmp_path, names=NAMES)
    for lived in ahead.live():
        if lived.partition_on == DAYS.dates[9]:
            break
    seen: list[tuple[str, date]] = []
    live_all([ahead, *others], lambda lived: seen.append((lived.use_case, lived.partition_on)), n_at_once=2)
    assert sorted(seen) == sorted(
        [(ahead.use_case.name, day) for day in DAYS.dates[10:]]
        + [(life.use_case.name, day) for life in others for day in DAYS.dates]
    )
    # Where it stands is known once it has told of a day.
    before = seen[: seen.index((ahead.use_case.name, DAYS.dates[11]))]
    assert max(day for name, day in before if name != ahead.use_case.name) >= DAYS.dates[10]


@pytest.mark.parametrize("nth", [0, 2], ids=["at once", "on a later day"])
def test_a_life_whose_process_is_killed_ends_the_replay_and_the_others_with_it(tmp_path: Path, nth: int):
    lives = lives_in(tmp_path, names=NAMES)

    def on_day(lived: LivedDay) -> None:
        if lived.use_case == "gales" and lived.partition_on == DAYS.dates[nth]:
            of_gales = next(p for p in multiprocessing.active_children() if p.name == "replay of gales")
            of_gales.kill()

    with pytest.raises(ReplayFailed, match="lives gales ended with -9; run the command again"):
        live_all(lives, on_day, n_at_once=2)
    assert not multiprocessing.active_children()
    assert all(len(life.lived()) < len(DAYS.dates) for life in lives)


def test_a_life_that_cannot_go_on_ends_the_replay_and_says_which_it_was(tmp_path: Path):
    lives = lives_in(tmp_path)
    (lives[0].folder / "warehouse.duckdb").write_bytes(b"no tables, but noise" * 1000)
    with pytest.raises(ReplayFailed, match="lives storms ended with 1; run the command again"):
        live_all(lives, lambda lived: None, n_at_once=2)


def manifest(folder: Path, **changes: object) -> None:
    found = Manifest(days=DAYS, code_version="of another time", use_cases=("arrival_delay",))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(replace(found, **changes)))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.of({"ML_ASSETS_HOME": str(tmp_path)})


def test_what_other_code_began_is_not_gone_on_with_and_what_it_finished_stays(environment: Environment):
    folder = environment.replays_folder / f"{DAYS.first}_{DAYS.last}"
    manifest(folder)
    with pytest.raises(BadInput, match="begin it again with --anew"):
        Replay(environment, DAYS)
    begun = Replay(environment, DAYS, is_anew=True)
    assert begun.is_of_this_code
    assert not (folder / MANIFEST).exists(), "nothing of the other is left"
    manifest(folder, is_finished=True)
    finished = Replay(environment, DAYS)
    assert finished.manifest.is_finished
    assert not finished.is_of_this_code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_day_of_spoilt_data_is_held_and_said_and_all_others_are_there_to_be_lived(tmp_path: Path):
    """The source has no weather of the last day of the year."""
    days = DayRange(first=date(2013, 12, 30), last=date(2013, 12, 31))
    with environment_of(tmp_path):
        replay = Replay(Environment.current(), days)
        replay.land(lambda event: None)
    assert "raw.weather of 2013-12-31" in replay.manifest.held
    assert "ml-assets release --table weather --day 2013-12-31" in replay.manifest.held
    assert {(fault.table, fault.day) for fault in replay.manifest.faults} == {("weather", date(2013, 12, 31))}
    for life in replay.lives:
        landed = life.warehouse.query(f"select distinct partition_on from {life.use_case.examples_table}")
        assert landed["partition_on"].to_pylist() == [date(2013, 12, 30)]
    replay.conclude()
    faults = replay.manifest.faults
    kept = [msgspec.json.decode(line) for line in (replay.folder / RECORD).read_bytes().splitlines()]
    told = [(line["day"], line["table"], line["explanation"]) for line in kept if line["kind"] == "held"]
    assert told == [(f"{fault.day}", fault.table, fault.explanation) for fault in faults]
    page = (replay.folder / PAGE).read_text()
    assert all(f'<td>raw.weather</td><td class="explanation">{escape(f.explanation)}</td>' in page for f in faults)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_replay_of_a_held_day_alone_ends_and_says_why_nothing_was_predicted(tmp_path: Path):
    day = "2013-12-31"
    with environment_of(tmp_path):
        answer = CliRunner().invoke(app, ["replay", "--from", day, "--to", day, "--at-once", "1"])
        assert answer.exit_code == 0, answer.output
        replay = Replay(Environment.current(), DayRange(first=date(2013, 12, 31), last=date(2013, 12, 31)))
    said = " ".join(answer.output.split())
    assert "Not predicted: 2013-12-31: data_quality: " in said
    assert "raw.weather of 2013-12-31 has a severe fault (volume): no row" in said
    assert replay.manifest.is_finished
    assert [lived.n_decisions for life in replay.lives for lived in life.lived()] == [0, 0, 0]


def test_a_replay_belongs_on_this_machine(environment: Environment):
    with pytest.raises(BadInput, match="ML_ASSETS_ENV is staging"):
        Replay(replace(environment, name="staging"), DAYS)


def _kill_all_at(target: int) -> None:
    """Live, and die with all processes as soon as so many days are complete: in the midst of the next ones."""
    lives = lives_in(Path(sys.argv[1]), names=NAMES)
    n_lived = sum(len(life.lived()) for life in lives)

    def on_day(_lived: object) -> None:
        nonlocal n_lived
        n_lived += 1
        if n_lived >= target:
            os.kill(os.getpid(), signal.SIGKILL)

    live_all(lives, on_day, n_at_once=2)


if __name__ == "__main__":
    _kill_all_at(int(sys.argv[2]))
