"""Tuning as the UI, the CLI and the next training see it, on two weeks of real flights."""

import base64
from datetime import date

import dagster as dg
import pytest
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.core.candidates import candidate_of
from ml_assets.core.package import ModelPackage, load_package
from ml_assets.core.tuned_parameters import newest_tuned_parameters

AS_OF = date(2013, 1, 14)
FORM = {"n_trials": 3, "minutes": 5.0, "sampler": "random", "seed": 3}


@pytest.fixture
def definitions(life) -> dg.Definitions:
    return life.lifecycle._definitions


def candidate(life) -> ModelPackage:
    store = life.lifecycle.store
    return load_package(store, "arrival_delay", candidate_of(store, "arrival_delay", AS_OF))


def picture_of(facts, name: str) -> bytes:
    head, _, data = facts[name].rstrip(")").partition("base64,")
    assert head.endswith("(data:image/png;")
    return base64.b64decode(data)


def test_a_search_shows_what_it_found_and_the_next_training_uses_it(life):
    before = candidate(life)
    life.events.clear()
    tuned = life.lifecycle.tune(life.use_case, AS_OF, FORM)

    facts = life.facts("arrival_delay/tuning")
    assert (facts["n_complete"], facts["n_pruned"], facts["n_failed"], facts["n_abandoned"]) == (3, 0, 0, 0)
    assert facts["n_trials_of_this_run"] == 3
    assert facts["best_parameters"] == dict(tuned.parameters)
    assert facts["validation_loss"] == min(trial.loss for trial in tuned.trials)
    assert facts["default_validation_loss"] == tuned.trials[0].loss
    assert facts["study_address"] == (life.home.path / "studies" / f"{tuned.study}.journal").as_uri()
    for chart in ("optimisation_history", "parameter_importance"):
        assert picture_of(facts, chart).startswith(b"\x89PNG")
    # What the small use case pins stays; what is searched is the rest of the trainer's space.
    assert {frozenset(trial.parameters) for trial in tuned.trials} == {frozenset({"dropout", "weight_decay"})}

    assert life.train(AS_OF)
    expected = tuned.parameters if tuned.beats_defaults else before.manifest.recipe.hyperparameters
    assert candidate(life).manifest.recipe.hyperparameters == expected


def test_a_second_run_goes_on_with_the_study_and_a_run_without_trials_does_nothing(life):
    first = life.lifecycle.tune(life.use_case, AS_OF, {**FORM, "n_trials": 1})
    again = life.lifecycle.tune(life.use_case, AS_OF, {**FORM, "n_trials": 2})
    assert again.trials[:1] == first.trials
    assert life.facts("arrival_delay/tuning")["n_trials_of_this_run"] == 1
    life.events.clear()
    life.lifecycle.tune(life.use_case, AS_OF, {})
    made = {event.asset_key.path[-1] for event in life.events if event.is_step_materialization}
    assert made == {"training_set"}


def test_the_form_of_the_job_is_filled_in(definitions):
    job = definitions.resolve_job_def("arrival_delay_tuning")
    filled_in = job.get_run_config_for_partition_key(str(AS_OF))
    assert filled_in["ops"]["arrival_delay__tuning"]["config"]["n_trials"] == 20
    dg.validate_run_config(job, filled_in)
    op = definitions.resolve_asset_graph().assets_def_for_key(dg.AssetKey(["arrival_delay", "tuning"])).op
    fields = op.config_schema.config_type.fields
    assert set(fields) == {"n_trials", "minutes", "sampler", "is_pruning", "seed"}
    assert all(field.description for field in fields.values())


def test_the_command_searches_and_says_what_it_found(life, monkeypatch):
    monkeypatch.setattr(cli.lifecycle, "Lifecycle", lambda environment, on_event: life.lifecycle)
    monkeypatch.setattr(cli.terminal, "load_use_cases", lambda: (life.use_case,))
    arguments = ["tune", "--as-of", str(AS_OF), "--trials", "2", "--minutes", "5", "--sampler", "random"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    tuned = newest_tuned_parameters(life.lifecycle.store, "arrival_delay", AS_OF)
    text = " ".join(done.output.split())
    assert f"validation loss {tuned.loss:.4f} with the tuned, {tuned.default_loss:.4f} with the default ones" in text
    assert "2 trials complete, 0 pruned, 0 failed" in text
    wrong = CliRunner().invoke(cli.app, ["tune", "--as-of", str(AS_OF), "--sampler", "grid"])
    assert wrong.exit_code == 1
    assert "there is no sampler 'grid'; there are tpe, random, gp" in " ".join(wrong.output.split())
