"""``ml-assets train``: the package it leaves is the one the candidate's asset would have made."""

import json

import pytest
from typer.testing import CliRunner

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.cli import app, training
from ml_assets.core.package import list_versions, load_package
from ml_assets.core.spec import UseCase


@pytest.fixture
def command(tmp_path, monkeypatch, use_case, inputs):
    """The command in a home that is empty, for the use case of these tests."""
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("ML_ASSETS_TRACKER", "disabled")
    monkeypatch.setattr(UseCase, "inputs", lambda self, declared: inputs)
    monkeypatch.setattr(training, "known", lambda name: use_case)
    monkeypatch.setattr(training, "code_version_of", lambda declared: "c1")
    return lambda: CliRunner().invoke(app, ["train", "--as-of", "2013-01-31", "--use-case", "storm_delay"])


def test_the_command_leaves_the_package_of_the_recipe_and_no_unfinished_work(command, tmp_path, trained):
    training_set, candidate, earlier, _ = trained
    store = ObjectArtifactStore((tmp_path / "artifacts").as_uri())
    for path, content in earlier.files.items():
        if path.startswith(f"training_sets/storm_delay/{training_set.fingerprint}/"):
            store.put(path, content)
    # The shared store's own may name what another test has frozen.
    pointer = json.dumps({"fingerprint": training_set.fingerprint}).encode()
    store.put("training_sets/storm_delay/as_of/2013-01-31.json", pointer)
    done = command()
    assert done.exit_code == 0, done.output
    (version,) = list_versions(store, "storm_delay")
    package = load_package(store, "storm_delay", version)
    assert package.manifest == candidate.package.manifest
    assert package.package_hash == candidate.package.package_hash
    assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == []
    again = command()
    assert f"{version}, used again (processes: 1)" in again.output


def test_without_a_training_set_the_command_says_what_to_materialize(command):
    done = command()
    assert done.exit_code == 1
    assert "TrainingDataMissing storm_delay has no training set as of 2013-01-31" in " ".join(done.output.split())
