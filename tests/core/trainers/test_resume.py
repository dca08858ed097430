"""kill -9 in the middle of a training; then the same training again: as if nothing had happened."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from ml_assets.core.encoding import Coded, Input, Signature, Vocabulary
from ml_assets.core.trainers import FittedModel, Labelled, WarmStart, checkpoints, trainer_named
from ml_assets.core.trainers.checkpoints import Checkpoints, clear_checkpoints
from ml_assets.core.trainers.launch import Launch
from ml_assets.core.trainers.lightning import LightningTrainer

# Validation is best in the middle, and early stopping ends the training before its last epoch.
SETTINGS = {"layer_sizes": "16", "embedding_size": 4, "n_epochs": 12, "learning_rate": 0.2, "patience": 3}
SIGNATURE = Signature(
    numeric=tuple(Input(name=name, view="v", description="") for name in ("wind_speed_mph", "visibility_miles")),
    categorical=(Input(name="origin", view="v", description=""),),
)
VOCABULARY = Vocabulary(values={"origin": ("EWR", "JFK", "LGA")})

# When the first attempt is killed: in an epoch, before its checkpoint, or at a call of fsync (a checkpoint makes two:
# of the file before it gets its name, and of the folder after).
KILLS = {
    "in epoch 1": ("epoch", 1, 0),
    "in epoch 2": ("epoch", 2, 1),
    "in epoch 4": ("epoch", 4, 3),
    "before the first checkpoint has its name": ("fsync", 1, 0),
    "before the third checkpoint has its name": ("fsync", 5, 2),
    "after the third checkpoint got its name": ("fsync", 6, 3),
}


def _examples(n: int, seed: int) -> Labelled:
    """True where the wind is missing or above 20 at origin 2, with 1 of 10 turned round."""
    draw = np.random.default_rng(seed)
    wind = draw.uniform(0, 40, n)
    wind[draw.random(n) < 0.2] = np.nan
    origin = draw.integers(2, 5, n)
    label = ((np.isnan(wind) | (wind > 20)) & (origin == 2)) ^ (draw.random(n) < 0.1)
    numeric = np.stack([wind, draw.normal(size=n)], axis=1).astype(np.float32)
    return Labelled(inputs=Coded(numeric=numeric, categorical=origin[:, None]), labels=label.astype(np.float32))


def _fit(work: Path, on_epoch: Callable[[int, Mapping[str, float]], None], **changes: object) -> FittedModel:
    arguments = {"hyperparameters": SETTINGS, "seed": 3, "warm_start": None, "train": _examples(2000, 1), **changes}
    return arguments.pop("trainer", LightningTrainer(Launch())).fit(
        arguments.pop("train"),
        _examples(600, 2),
        signature=SIGNATURE,
        vocabulary=VOCABULARY,
        on_epoch=on_epoch,
        work_folder=work,
        **arguments,
    )


def _saved(fitted: FittedModel) -> dict[str, object]:
    weights = {name: array.tolist() for name, array in fitted.weights().items()}
    return {"weights": weights, "history": [[e.number, e.train_loss, e.validation_loss] for e in fitted.history]}


def attempt_all(folder: Path) -> None:
    """Train undisturbed, then for each kill once until it comes and once to the end, each in a process of its own."""
    attempt(folder / "undisturbed", None)
    for name, (kind, number, _) in KILLS.items():
        attempt(folder / name, (kind, number))
        attempt(folder / name, None)


def attempt(folder: Path, kill: tuple[str, int] | None) -> None:
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        told: list[int] = []
        n_calls = 0
        fsync = os.fsync

        def on_epoch(number: int, metrics: Mapping[str, float]) -> None:
            told.append(number)
            if kill == ("epoch", number):
                os.kill(os.getpid(), signal.SIGKILL)

        def killed_at_fsync(descriptor: int) -> None:
            nonlocal n_calls
            n_calls += 1
            if kill == ("fsync", n_calls):
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        checkpoints.os.fsync = killed_at_fsync
        try:
            fitted = _fit(folder / "work", on_epoch)
            (folder / "end.json").write_text(json.dumps({**_saved(fitted), "trained": told}))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == (signal.SIGKILL if kill else 0), f"{folder.name}: it ended with {status}"


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """How each training ended. What takes long, importing torch, is done once, before the forks."""
    folder = tmp_path_factory.mktemp("kills")
    code = "import sys, pathlib, pytorch_lightning, test_resume; test_resume.attempt_all(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/end.json")}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_a_killed_training_goes_on_where_it_was_and_ends_with_the_very_same_weights(name: str, ends: dict):
    undisturbed, resumed, n_kept = ends["undisturbed"], ends[name], KILLS[name][2]
    assert resumed["weights"] == undisturbed["weights"]
    assert resumed["history"] == undisturbed["history"]
    numbers = [number for number, _, _ in undisturbed["history"]]
    assert resumed["trained"] == numbers[n_kept:]
    losses = [loss for _, _, loss in undisturbed["history"]]
    assert len(losses) < SETTINGS["n_epochs"]
    assert losses.index(min(losses)) < len(losses) - 1


@pytest.fixture
def half_done(tmp_path: Path) -> tuple[Path, list[Path], FittedModel]:
    """A work folder as a training left it that was interrupted in its fourth epoch, and how an undisturbed one ends."""

    def interrupt(number: int, metrics: Mapping[str, float]) -> None:
        if number == 4:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        _fit(tmp_path / "work", interrupt)
    kept = sorted((tmp_path / "work").rglob("*.checkpoint"))
    assert [path.stem for path in kept] == ["000002", "000003"]
    return tmp_path / "work", kept, _fit(tmp_path / "other", lambda number, metrics: None)


def _resumed(work: Path, **changes: object) -> tuple[list[int], FittedModel]:
    told: list[int] = []
    return told, _fit(work, lambda number, metrics: told.append(number), **changes)


def _same(one: FittedModel, other: FittedModel) -> bool:
    return all(np.array_equal(array, other.weights()[name]) for name, array in one.weights().items())


@pytest.mark.parametrize("damage", ["truncated", "one bit flipped", "empty"])
def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before(half_done, damage, caplog):
    work, (_, newest), undisturbed = half_done
    content = newest.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    newest.write_bytes({"truncated": content[:-7], "one bit flipped": flipped, "empty": b""}[damage])
    told, fitted = _resumed(work)
    assert told[0] == 3
    assert _same(fitted, undisturbed)
    assert "is damaged and is passed over" in caplog.text


def test_without_a_whole_checkpoint_the_training_begins_anew(half_done):
    work, kept, undisturbed = half_done
    for path in kept:
        path.write_bytes(path.read_bytes()[1:])
    told, fitted = _resumed(work)
    assert told[0] == 1
    assert _same(fitted, undisturbed)


def test_a_checkpoint_serves_the_same_training_only(half_done):
    work, _, undisturbed = half_done
    warm = WarmStart(weights=undisturbed.weights(), signature=SIGNATURE, vocabulary=VOCABULARY)
    short = {**SETTINGS, "n_epochs": 1}
    for change in ({"seed": 4}, {"hyperparameters": short}, {"train": _examples(2000, 5)}, {"warm_start": warm}):
        told, _ = _resumed(work, **{"hyperparameters": short, **change} if "seed" in change else change)
        assert told[0] == 1, change


def test_a_training_killed_after_early_stopping_is_not_trained_further(half_done):
    work, _, undisturbed = half_done
    _resumed(work)
    told, fitted = _resumed(work)
    assert told == []
    assert _same(fitted, undisturbed)
    assert fitted.history == undisturbed.history


@pytest.mark.parametrize("n_done", [1, 4])
def test_an_interrupted_training_of_keras_goes_on_with_the_same_bits(tmp_path: Path, n_done: int):
    pytest.importorskip("keras")
    trainer = trainer_named("keras", Launch())

    def interrupt(number: int, metrics: Mapping[str, float]) -> None:
        if number == n_done + 1:
            raise KeyboardInterrupt

    short = {**SETTINGS, "n_epochs": 6}
    undisturbed = _fit(tmp_path / "other", lambda number, metrics: None, trainer=trainer, hyperparameters=short)
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "work", interrupt, trainer=trainer, hyperparameters=short)
    told, resumed = _resumed(tmp_path / "work", trainer=trainer, hyperparameters=short)
    assert told[0] == n_done + 1
    assert resumed.history == undisturbed.history
    assert _same(resumed, undisturbed)


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(tmp_path, monkeypatch, caplog):
    told: list[int] = []

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        _fit(tmp_path, lambda number, metrics: told.append(number), hyperparameters={**SETTINGS, "n_epochs": 2})
    assert told == [1, 2]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert "epoch 1 has no checkpoint ([Errno 28] No space left on device)" in caplog.text


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path, key="k", kind=dict[str, int])
    kept.save(1, arrays={"a": np.array(1.5)}, facts={"n": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    kept.save(2, arrays={"a": np.array(2.5)}, facts={"n": 2})
    found = kept.newest()
    assert found is not None
    assert (found.facts, found.arrays["a"].shape, float(found.arrays["a"])) == ({"n": 1}, (), 1.5)


def test_a_finished_version_loses_its_work_and_one_that_runs_beside_it_keeps_it(tmp_path):
    week = 7 * 24 * 3600
    ages = {"2013-06-24-aaaaaaaaaaaa": week + 60, "2013-07-01-bbbbbbbbbbbb": 0, "2013-07-01-cccccccccccc": week - 60}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1_700_000_000 - age,) * 2)
    clear_checkpoints(tmp_path, "2013-07-01-bbbbbbbbbbbb")
    assert [path.name for path in tmp_path.iterdir()] == ["2013-07-01-cccccccccccc"]
