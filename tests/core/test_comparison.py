from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest

from ml_assets.core.comparison import Line, compare_experiments
from ml_assets.core.evaluation import evaluate
from ml_assets.core.experiment_filters import found
from ml_assets.core.experiment_rows import Experiment, experiments
from ml_assets.core.experiments import ExperimentLog
from ml_assets.core.intervals import Interval
from ml_assets.core.scoring import score
from ml_assets.core.training_sets import freeze


def log_in(store, minute: int) -> ExperimentLog:
    at = datetime(2026, 11, 24, 12, minute, tzinfo=UTC)
    return ExperimentLog(store=store, now=lambda: at, recorded_by="dagster", run_id="r")


def line(comparison, name: str) -> Line:
    return next(line for lines in comparison.sections.values() for line in lines if line.name == name)


def test_two_trainings_on_one_holdout_are_compared_with_the_noise_of_their_difference(trained, train, use_case):
    training_set, _, shared, _ = trained
    store = type(shared)(shared.files)
    packages = [
        train(
            store=store,
            use_case=replace(use_case, hyperparameters={**use_case.hyperparameters, **other, "n_epochs": 2}),
            experiments=log_in(store, minute),
        ).package
        for minute, other in enumerate(({"layer_sizes": "8"}, {"layer_sizes": "12"}))
    ]
    rows = experiments(store)
    one, other = (found(rows, package.version) for package in packages)

    comparison = compare_experiments(store, one, other)

    labels = training_set.test["label"].to_numpy()
    first, second = (evaluate(labels, score(package, training_set.test)) for package in packages)
    assert comparison.gains["roc_auc"].value == pytest.approx(second.roc_auc - first.roc_auc)
    assert comparison.gains["log_loss"].value == pytest.approx(second.log_loss - first.log_loss)
    assert comparison.gains["roc_auc"].n_days == 6
    assert "the same 600 rows of 6 days" in comparison.note
    changed = line(comparison, "layer_sizes")
    assert (changed.one, changed.other, changed.is_different) == ("8", "12", True)
    assert not line(comparison, "n_epochs").is_different
    assert line(comparison, "rows, train").one == "1,800"
    shown = line(comparison, "roc_auc")
    assert shown.one.startswith(f"{first.roc_auc:.4f} (")
    assert shown.difference.startswith(f"{second.roc_auc - first.roc_auc:+.4f} ± ")
    assert [number for number, _, _ in comparison.epochs[one.id]] == [1, 2]
    assert sum(found.n_rows for found in comparison.calibration[other.id]) == 600


def test_trainings_judged_on_different_days_have_no_common_noise_and_it_says_so(
    trained, train, use_case, inputs, examples
):
    _, candidate, shared, _ = trained
    store = type(shared)(shared.files)
    is_earlier = np.asarray(examples["partition_on"].to_numpy() < np.datetime64("2013-01-28"))
    earlier = freeze(
        examples.filter(is_earlier),
        use_case=use_case,
        inputs=inputs,
        as_of=date(2013, 1, 28),
        code_version="c1",
        store=store,
    )
    short = replace(use_case, hyperparameters={"layer_sizes": "8", "n_epochs": 1})
    other = train(training_set=earlier, store=store, use_case=short).package
    rows = experiments(store)
    comparison = compare_experiments(store, found(rows, candidate.package.version), found(rows, other.version))
    assert comparison.gains == {}
    assert comparison.calibration == {}
    assert "different holdouts (2013-01-25 to 2013-01-30, 2013-01-22 to 2013-01-27)" in comparison.note


def test_what_left_no_model_is_compared_by_what_is_recorded_of_it(store):
    one = Experiment(id="a", kind="trial", status="complete", use_case="u", metrics={"mae": 5.0}, seconds=2.0)
    interval = {"mae": Interval(low=3.5, high=4.5)}
    other = Experiment(id="b", kind="training", status="failed", use_case="u", metrics={"mae": 4.0}, intervals=interval)
    comparison = compare_experiments(store, one, other)
    assert comparison.note == "no paired noise: a and b left no model in the store that could be judged again"
    assert line(comparison, "mae") == Line(
        name="mae", one="5", other="4 (3.5000\N{EN DASH}4.5000)", is_different=True, difference="-1"
    )
    assert (line(comparison, "seconds").one, line(comparison, "seconds").other) == ("2.0", "-")
