import logging

import pytest
import wandb

from ml_assets.backends.wandb_tracker import WandbRun, WandbTracker


@pytest.fixture
def no_settings_from_outside(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_cache"))


@pytest.mark.usefixtures("no_settings_from_outside")
def test_an_offline_run_is_written_below_the_folder_and_prints_nothing(tmp_path, capfd):
    tracker = WandbTracker(tmp_path / "tracking")
    run = tracker.start(
        use_case="storm_delay", run_name="2013-07-01-abc", parameters={"seed": 1, "parent_version": None}
    )
    run.log({"validation_loss": 0.5}, step=1)
    run.log({"validation_loss": 0.4}, step=2)
    run.finish({"holdout_roc_auc": 0.7})
    wandb.teardown()  # as at the end of a process: W&B's own process may write the file a moment after finish
    written = list((tmp_path / "tracking").rglob("*.wandb"))
    assert len(written) == 1
    assert written[0].stat().st_size > 0
    assert "offline-run" in written[0].parent.name
    content = written[0].read_bytes()
    assert b"holdout_roc_auc" in content
    assert b"2013-07-01-abc" in content
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


class _BrokenRun:
    def __init__(self) -> None:
        self.n_calls = 0

    def log(self, metrics: object, *, step: int) -> None:
        self.n_calls += 1
        raise ConnectionError("the service is gone")


def test_a_run_that_fails_is_reported_once_and_never_called_again(caplog):
    broken = _BrokenRun()
    run = WandbRun(broken)  # pyright: ignore[reportArgumentType] # stands in for wandb's
    with caplog.at_level(logging.WARNING):
        run.log({"validation_loss": 0.5}, step=1)
        run.log({"validation_loss": 0.4}, step=2)
        run.finish({"holdout_roc_auc": 0.7})
    assert broken.n_calls == 1
    assert len(caplog.records) == 1
    assert "ConnectionError" in caplog.text


def test_a_folder_that_cannot_be_made_does_not_stop_a_training(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        run = WandbTracker(tmp_path / "file" / "tracking").start(use_case="storm_delay", run_name="v", parameters={})
        run.log({"validation_loss": 0.5}, step=1)
        run.finish({})
    assert len(caplog.records) == 1
