"""What a feature view adds: one that holds the rule, and one of pure noise."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.ablation import ablate, margin
from ml_assets.core.ablation_records import Ablation, ViewGain, ablation_path, load_ablation, save_ablation
from ml_assets.core.errors import BadInput, DataMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.paired_bootstrap import Estimate
from ml_assets.core.spec import UseCase
from ml_assets.core.training_sets import TrainingSet, freeze

from .conftest import MemoryStore

AS_OF = date(2013, 1, 31)
NOISE = Feature(name="noise", kind="numeric", view="noise")


@pytest.fixture(scope="module")
def boosted(use_case: UseCase) -> UseCase:
    """A trainer that is quick and that the seed moves: each tree sees some of the rows and some of the columns."""
    quick = {"estimator": "lightgbm", "n_estimators": 60, "subsample": 0.5, "num_leaves": 8}
    return replace(use_case, trainer="sklearn", hyperparameters=quick)


@pytest.fixture(scope="module")
def training_set(examples: pa.Table, inputs: tuple[Feature, ...], use_case: UseCase) -> TrainingSet:
    """A training set without a single row of holdout, which has no say here."""
    noise = np.random.default_rng(11).normal(size=examples.num_rows)
    frozen = freeze(
        examples.append_column("noise", pa.array(noise)),
        use_case=use_case,
        inputs=(*inputs, NOISE),
        as_of=AS_OF,
        code_version="c1",
        store=MemoryStore(),
    )
    return replace(frozen, test=frozen.test.slice(0, 0))


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def ablation(
    training_set: TrainingSet,
    inputs: tuple[Feature, ...],
    boosted: UseCase,
    steps: list[tuple[str, int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Ablation:
    return ablate(
        training_set,
        use_case=boosted,
        inputs=(*inputs, NOISE),
        n_train_rows=1500,
        n_seeds=2,
        on_step=lambda *step: steps.append(step),
        work_folder=tmp_path_factory.mktemp("work"),
    )


def test_the_view_that_holds_the_rule_helps_and_noise_lies_within_the_noise(ablation: Ablation):
    found = {gain.view: gain for gain in ablation.views}
    assert set(found) == {"schedule", "weather", "noise"}
    # Without the wind, or without the airport, one flight in six late is all there is to say.
    assert found["weather"].verdict == found["schedule"].verdict == "helps"
    assert found["weather"].gain > 0.1
    assert found["noise"].verdict == "within the noise"
    assert ablation.views[-1].view == "noise"
    assert found["weather"].importance.value > 0.1 > abs(found["noise"].importance.value)
    assert (found["schedule"].n_columns, found["weather"].n_columns) == (2, 1)


def test_it_says_what_was_trained_and_on_what(ablation: Ablation, steps: Sequence[tuple[str, int, int]]):
    assert steps[0] == ("all views, seed 13", 1, 8)
    assert steps[-1] == ("without noise, seed 14", 8, 8)
    assert [number for _, number, _ in steps] == list(range(1, 9))
    assert ablation.n_validation == 400
    assert ablation.n_train < ablation.n_train_available
    assert ablation.n_train == pytest.approx(1500, rel=0.1)
    assert ablation.seed_noise > 0
    assert ablation.last_validation_day < date(2013, 1, 24)


def test_the_margin_holds_the_noise_of_the_days_and_that_of_the_seed():
    days = Estimate(value=0.0, standard_error=0.003, n_days=14)
    # t(13) at 0.975 is 2.1604.
    assert margin(days, seed_noise=0.0, n_seeds=2, n_variants=4) == pytest.approx(2.1604 * 0.003, rel=1e-4)
    # Two means of two trainings differ by the noise of one; t(4) at 0.975 is 2.7764.
    quiet = Estimate(value=0.0, standard_error=0.0, n_days=14)
    assert margin(quiet, seed_noise=0.004, n_seeds=2, n_variants=4) == pytest.approx(2.7764 * 0.004, rel=1e-4)
    # 3, 4, 5; freedom by Welch and Satterthwaite (9 + 16)^2 / (81 / 13 + 256 / 4) = 8.9.
    both = margin(days, seed_noise=0.004, n_seeds=2, n_variants=4)
    assert 2.262 * 0.005 < both < 2.306 * 0.005  # t(9) and t(8)
    assert margin(quiet, seed_noise=0.0, n_seeds=2, n_variants=4) == 0.0


def test_days_that_tell_no_noise_give_no_margin():
    with pytest.raises(DataMissing, match="validate on at least 2"):
        margin(Estimate(value=0.1, standard_error=None, n_days=1), seed_noise=0.0, n_seeds=2, n_variants=3)


@pytest.mark.parametrize(("gain", "verdict"), [(0.02, "helps"), (0.01, "within the noise"), (-0.02, "hurts")])
def test_a_gain_within_its_margin_is_no_finding(gain: float, verdict: str):
    importance = Estimate(value=0.0, standard_error=None, n_days=1)
    assert ViewGain(view="v", n_columns=1, gain=gain, margin=0.01, importance=importance).verdict == verdict


def test_what_is_kept_is_read_again_and_what_is_missing_or_damaged_is_said(ablation: Ablation, store):
    assert save_ablation(store, ablation) == ablation_path("storm_delay", AS_OF)
    assert load_ablation(store, "storm_delay", AS_OF) == ablation
    with pytest.raises(DataMissing, match="ml-assets ablation --use-case storm_delay --as-of 2013-02-01"):
        load_ablation(store, "storm_delay", date(2013, 2, 1))
    store.put(ablation_path("storm_delay", AS_OF), b"{}")
    with pytest.raises(BadInput, match="holds no ablation"):
        load_ablation(store, "storm_delay", AS_OF)


@pytest.mark.parametrize(("n_seeds", "views"), [(1, ("a", "b")), (2, ("a",))])
def test_one_seed_or_one_view_is_no_comparison(training_set, use_case, tmp_path, n_seeds, views):
    inputs = [Feature(name="wind_speed_mph", kind="numeric", view=view) for view in views]
    with pytest.raises(BadInput, match="expected at least 2 seeds"):
        ablate(
            training_set,
            use_case=use_case,
            inputs=inputs,
            n_train_rows=100,
            n_seeds=n_seeds,
            on_step=lambda *step: None,
            work_folder=tmp_path,
        )
