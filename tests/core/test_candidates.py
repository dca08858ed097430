import logging
from dataclasses import replace
from datetime import date
from importlib.metadata import version

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ml_assets.core.encoding import UNSEEN_CODE, encode
from ml_assets.core.errors import PackageRefused
from ml_assets.core.parity import compare
from ml_assets.core.scoring import score, score_coded
from ml_assets.core.trainers import FittedModel
from ml_assets.core.trainers.lightning import FittedNetwork
from ml_assets.core.training_sets import freeze


def test_the_candidate_beats_its_baselines_on_the_pinned_holdout(trained):
    training_set, candidate, _, _ = trained
    metrics = candidate.package.metrics
    # 5 of 100 labels are turned round and 5 of 100 winds hidden; a sixth of the rest is true.
    assert metrics.holdout.roc_auc > 0.8 > metrics.baselines["logistic"].roc_auc
    assert metrics.baselines["base_rate"].roc_auc == 0.5
    assert metrics.holdout.n_rows == training_set.counts["test"] == 600
    assert (metrics.n_train, metrics.n_validation) == (1800, 400)
    assert metrics.largest_parity_difference < 1e-6
    libraries = candidate.package.manifest.libraries
    assert set(libraries) == {"numpy", "onnx", "onnxruntime", "pyarrow", "pytorch-lightning", "torch"}
    assert libraries["torch"] == version("torch")
    assert metrics.best_epoch <= metrics.n_epochs == len(candidate.history)


def test_the_holdout_metrics_are_those_of_the_packaged_model(trained):
    training_set, candidate, _, _ = trained
    scores = score(candidate.package, training_set.test)
    labels = training_set.test["label"].to_numpy()
    assert candidate.package.metrics.holdout.brier == pytest.approx(float(np.mean((scores - labels) ** 2)))


def test_the_same_recipe_gives_the_same_package_to_the_last_bit(trained, train):
    again = train()
    assert not again.is_reused
    assert again.package.package_hash == trained[1].package.package_hash


def test_a_package_of_the_same_recipe_is_used_again(trained, train):
    again = train(store=trained[2])
    assert again.is_reused
    assert again.history == trained[1].history != ()
    assert again.package == trained[1].package


def test_a_damaged_package_of_the_same_recipe_is_trained_again_and_healed(trained, train):
    _, candidate, shared, _ = trained
    store = type(shared)(shared.files)
    path = f"models/storm_delay/{candidate.package.version}/weights.safetensors"
    store.files[path] = b"0" + store.files[path][1:]
    assert not train(store=store).is_reused
    assert store.files == shared.files


def test_another_seed_code_or_hyperparameter_is_another_version(train, trained, use_case):
    short = {**use_case.hyperparameters, "n_epochs": 1}
    versions = {
        trained[1].package.version,
        train(use_case=replace(use_case, hyperparameters=short)).package.version,
        train(use_case=replace(use_case, hyperparameters=short, seed=99)).package.version,
        train(use_case=replace(use_case, hyperparameters=short), code_version="c2").package.version,
    }
    assert len(versions) == 4


def test_the_tracker_hears_parameters_every_epoch_and_the_holdout(trained):
    _, candidate, _, tracker = trained
    assert tracker.parameters["run_name"] == candidate.package.version
    assert tracker.parameters["n_bins"] == 8
    assert [step for step, _ in tracker.logged] == [epoch.number for epoch in candidate.history]
    assert tracker.summaries[0]["holdout_roc_auc"] == candidate.package.metrics.holdout.roc_auc
    assert "logistic_log_loss" in tracker.summaries[0]


def test_a_broken_export_is_refused_and_nothing_is_saved(trained, train, monkeypatch):
    export = FittedNetwork.to_onnx

    def with_one_weight_off(fitted: FittedNetwork) -> bytes:
        model = onnx.load_model_from_string(export(fitted))
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "layers.3.bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.001), bias.name))
        return model.SerializeToString()

    monkeypatch.setattr(FittedNetwork, "to_onnx", with_one_weight_off)
    store, tracker = type(trained[2])(), type(trained[3])()
    with pytest.raises(PackageRefused, match=r"differs from the fitted model by .* expected at most 1e-05"):
        train(store=store, tracker=tracker)
    assert store.files == {}
    assert tracker.summaries == [{}]


def test_the_parity_gate_sees_a_difference_that_only_nulls_show(trained, examples):
    package = trained[1].package

    class BlindToNulls(FittedModel):
        """Answers as the package does, but takes a null for a zero."""

        def predict(self, inputs):
            return score_coded(package.model, replace(inputs, numeric=np.nan_to_num(inputs.numeric)))

    complete = examples.filter(examples["wind_speed_mph"].is_valid())
    coded = encode(complete, package.signature, package.vocabulary)
    with pytest.raises(PackageRefused, match="of 5"):
        compare(package.model, BlindToNulls(), [coded])


def test_the_parity_gate_sees_a_difference_that_only_an_unseen_category_shows(trained, examples):
    package = trained[1].package

    class BlindToUnseen(FittedModel):
        """Answers as the package does, but takes an unseen category for the first one."""

        def predict(self, inputs):
            seen = np.where(inputs.categorical == UNSEEN_CODE, 2, inputs.categorical)
            return score_coded(package.model, replace(inputs, categorical=seen))

    coded = encode(examples, package.signature, package.vocabulary)
    with pytest.raises(PackageRefused, match=r"differs .* of (5|64);"):
        compare(package.model, BlindToUnseen(), [coded])


def test_the_parity_gate_sees_a_difference_at_one_float32_beside_a_threshold(trained, examples):
    package = trained[1].package
    beside = np.nextafter(np.float32(20.1), np.float32(np.inf))

    class Jumps(FittedModel):
        """Answers as the package does, but for one single wind."""

        thresholds = {0: np.array([20.1])}  # noqa: RUF012 # a constant of the test

        def predict(self, inputs):
            return score_coded(package.model, inputs) + (inputs.numeric[:, 0] == beside)

    coded = encode(examples, package.signature, package.vocabulary)
    with pytest.raises(PackageRefused, match=r"differs from the fitted model by 1 on row \d+ of 48"):
        compare(package.model, Jumps(), [coded])


def test_an_answer_of_nan_is_a_difference(trained, examples):
    package = trained[1].package

    class Silent(FittedModel):
        def predict(self, inputs):
            return np.full(len(inputs), np.nan)

    with pytest.raises(PackageRefused, match="by nan on row 0"):
        compare(package.model, Silent(), [encode(examples, package.signature, package.vocabulary)])


def test_a_champion_lends_its_weights_only_if_it_never_saw_the_days_it_would_be_judged_on(trained, train):
    training_set, candidate, _, _ = trained
    days = training_set.days
    champion = candidate.package

    def trained_until(last_train: date, last_validation: date) -> bool:
        manifest = replace(champion.manifest, last_train_day=last_train, last_validation_day=last_validation)
        return train(parent=replace(champion, manifest=manifest)).package.manifest.is_warm_started

    assert trained_until(days.train[-1], days.validation[-1])
    assert not trained_until(days.validation[0], days.validation[-1])
    assert not trained_until(days.train[-1], days.test[0])


def test_a_weekly_retraining_starts_from_the_champion(trained, train, inputs, use_case, examples):
    later = freeze(
        examples.filter(np.asarray(examples["partition_on"].to_numpy() >= np.datetime64("2013-01-04"))),
        use_case=replace(use_case, split=replace(use_case.split, test_days=3)),
        inputs=inputs,
        as_of=date(2013, 1, 31),
        code_version="c1",
        store=trained[2],
    )
    champion = trained[1].package
    found = train(training_set=later, parent=champion).package.manifest
    assert found.is_warm_started
    assert found.recipe.parent_version == champion.version


def test_a_tracker_that_fails_does_not_fail_a_training(train, tmp_path, caplog, use_case):
    from ml_assets.backends.wandb_tracker import WandbTracker

    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        found = train(
            tracker=WandbTracker(tmp_path / "file" / "tracking"),
            use_case=replace(use_case, hyperparameters={"layer_sizes": "8", "n_epochs": 2}),
        )
    assert found.package.metrics.n_epochs == 2
    (record,) = caplog.records
    assert record.message.startswith("W&B failed; the training went on without it: NotADirectoryError")
