"""The environment's name decides every address; a variable that means nothing is refused."""

import os
from pathlib import Path

import pytest

from ml_assets.backends.environments import Environment
from ml_assets.core.errors import BadInput

REPOSITORY = Path(__file__).parents[2]


def test_without_variables_it_is_local_replaying_and_offline():
    environment = Environment.of({})
    assert environment.name == "local"
    assert environment.home == REPOSITORY / "data"
    assert environment.is_replaying
    assert environment.tracker_mode == "offline"


def test_the_tracker_is_online_where_its_key_is_set_unless_someone_says_otherwise():
    assert Environment.of({"WANDB_API_KEY": "a" * 40}).tracker_mode == "online"
    assert Environment.of({"WANDB_API_KEY": "a" * 40, "ML_ASSETS_TRACKER": "disabled"}).tracker_mode == "disabled"
    assert Environment.of({"WANDB_API_KEY": ""}).tracker_mode == "offline"


def test_every_address_lies_in_the_home(tmp_path: Path):
    environment = Environment.of({"ML_ASSETS_HOME": str(tmp_path)})
    assert environment.warehouse_path == tmp_path / "warehouse.duckdb"
    assert environment.artifacts_url == f"file://{tmp_path}/artifacts"
    assert environment.dagster_home == tmp_path / "dagster"
    assert environment.wandb_folder == tmp_path / "wandb"
    assert environment.studies_url == f"file://{tmp_path}/studies"


def test_a_shared_storage_of_studies_is_used_and_its_password_not_shown():
    environment = Environment.of({"ML_ASSETS_STUDIES": "postgresql://tuner:hunter2@db/studies"})
    assert environment.studies_url == "postgresql://tuner:hunter2@db/studies"
    assert "hunter2" not in repr(environment)


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert Environment.of({"ML_ASSETS_HOME": "state"}).home == tmp_path / "state"


@pytest.mark.parametrize(("said", "meant"), [("1", True), ("yes", True), ("0", False), ("No", False), ("", True)])
def test_replay_is_switched_by_yes_or_no(said: str, meant: bool):
    assert Environment.of({"ML_ASSETS_REPLAY": said}).is_replaying is meant


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ML_ASSETS_ENV": "prod"}, "ML_ASSETS_ENV='prod' is unknown; expected one of local, staging, production"),
        ({"ML_ASSETS_ENV": "production"}, "ML_ASSETS_ENV=production is not built yet; there is local"),
        ({"ML_ASSETS_REPLAY": "maybe"}, "ML_ASSETS_REPLAY='maybe' is unknown"),
        (
            {"ML_ASSETS_TRACKER": "loud"},
            "ML_ASSETS_TRACKER='loud' is unknown; expected one of offline, online, disabled",
        ),
    ],
)
def test_a_variable_without_meaning_is_refused(variables: dict[str, str], message: str):
    with pytest.raises(BadInput, match=message):
        Environment.of(variables)


def test_the_current_environment_is_read_from_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("ML_ASSETS_ENV", raising=False)
    assert Environment.current().home == tmp_path


def test_keras_is_put_on_torch_unless_someone_has_chosen(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    Environment.current()
    assert os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.delenv("KERAS_BACKEND")
    Environment.current()
    assert os.environ["KERAS_BACKEND"] == "torch"
