"""A regression from examples to monitoring on two weeks of real flights: the minutes a flight takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest

import ml_assets.use_cases
from ml_assets.backends.environments import Environment
from ml_assets.core import registry
from ml_assets.core.candidates import candidate_of
from ml_assets.core.package import load_package
from ml_assets.core.ports import DayRange
from ml_assets.core.promotion import GATES
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.spec import UseCase
from ml_assets.lifecycle import Lifecycle
from tests.conftest import Home, environment_of

pytestmark = pytest.mark.slow

SATURDAY, MONDAY = date(2013, 1, 12), date(2013, 1, 14)
NAME = "flight_minutes"
DECLARED = '''"""How many minutes will this flight take?"""

from dataclasses import replace

from ml_assets.core.spec import Label, PromotionRule, SplitRule
from ml_assets.use_cases.arrival_delay import USE_CASE as DELAY

USE_CASE = replace(
    DELAY,
    name="flight_minutes",
    question="How many minutes will this flight take?",
    task="regression",
    label=Label(table="labels.label_flight_minutes", unit="minutes"),
    trainer="sklearn",
    hyperparameters={"estimator": "lightgbm", "n_estimators": 60},
    baseline_features=("n_planned_departures_origin",),
    slices=("origin",),
    split=SplitRule(train_days=7, validation_days=2, test_days=3, minimum_train_days=3),
    promotion=PromotionRule(
        minimum_r2=-1.0,
        maximum_bias=1.0,
        confidence=0.5,
        against_champion="not_worse",
        may_lose_to_champion_by=1.0,
        slice_may_lose_rmse=1.0,
        maximum_one_row_ms=10_000,
        maximum_thousand_rows_ms=10_000,
    ),
)
'''
LABELS = """
    select decision_id, partition_on, cast(date_diff('minute', departed_at, arrived_at) as double) as label,
           arrived_at as label_known_at, case when outcome <> 'arrived' then outcome end as no_label_reason
    from intermediate.int_flight_outcomes where partition_on between $first and $last
"""


@dataclass(frozen=True)
class Minutes:
    """The graph with the regression beside the classification, and its use case."""

    lifecycle: Lifecycle
    use_case: UseCase


@pytest.fixture(scope="module")
def minutes(as_built: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minutes]:
    """The small life with one more file in use_cases, trained as of Saturday and served to Monday."""
    folder: Path = tmp_path_factory.mktemp("minutes")
    (folder / "declared").mkdir()
    (folder / "declared" / f"{NAME}.py").write_text(DECLARED)
    home = as_built.copy_to(folder / "home")
    with environment_of(home.path), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ml_assets.use_cases, "__path__", [*ml_assets.use_cases.__path__, str(folder / "declared")])
        lifecycle = Lifecycle(Environment.current())
        use_case = next(found for found in ml_assets.use_cases.load_use_cases() if found.name == NAME)
        others = [found.name for found in ml_assets.use_cases.load_use_cases() if found.name != NAME]
        days = DayRange(first=date(2013, 1, 1), last=MONDAY)
        parameters = {"first": days.first, "last": days.last}
        lifecycle.warehouse.replace_days_with_query("labels.label_flight_minutes", LABELS, days, parameters)
        lifecycle.run_groups(("examples",), days, without=others)
        assert lifecycle.outcome_of_training(use_case, SATURDAY) == "promoted"
        served = DayRange(first=SATURDAY, last=MONDAY)
        lifecycle.run_groups(("predictions", "monitoring"), served, without=others)
        yield Minutes(lifecycle, use_case)


def test_the_package_says_what_it_answers_and_how_good_it_is_in_minutes(minutes: Minutes):
    store = minutes.lifecycle.store
    package = load_package(store, NAME, candidate_of(store, NAME, SATURDAY))
    assert (package.signature.output.task, package.signature.output.unit) == ("regression", "minutes")
    assert isinstance(package.metrics.holdout, RegressionMetrics)
    assert package.metrics.holdout.rmse < package.metrics.baselines["mean"].rmse
    assert set(package.metrics.intervals) == {"rmse", "mae", "bias", "r2"}
    assert package.metrics.largest_parity_difference <= 1e-5


def test_the_ledger_has_the_gates_of_a_regression(minutes: Minutes):
    entry = registry.champion_required(minutes.lifecycle.store, NAME, MONDAY)
    assert {gate.name for gate in entry.gates} == set(GATES["regression"])
    assert "RMSE" in next(gate.detail for gate in entry.gates if gate.name == "beats_linear_rmse")


def test_the_table_of_performance_has_the_errors_of_the_days_beside_those_of_the_classification(minutes: Minutes):
    query = minutes.lifecycle.warehouse.query
    rows = query(
        """
        select m.partition_on, m.rmse, m.mae, m.bias, m.roc_auc, sqrt(avg((p.prediction - e.label) ** 2)) as rmse_again,
               avg(abs(p.prediction - e.label)) as mae_again, avg(p.prediction - e.label) as bias_again
        from monitoring.performance m
        join predictions.flight_minutes p using (partition_on) join examples.flight_minutes e using (decision_id)
        where m.use_case = 'flight_minutes' and e.label is not null group by all order by all
        """
    ).to_pylist()
    assert [row["partition_on"].day for row in rows] == [12, 13, 14]
    for row in rows:
        assert (row["rmse"], row["mae"], row["bias"]) == pytest.approx(
            (row["rmse_again"], row["mae_again"], row["bias_again"])
        )
        assert row["roc_auc"] is None
    of_delay = query("select rmse, roc_auc from monitoring.performance where use_case = 'arrival_delay'").to_pylist()
    assert len(of_delay) == 3
    assert all(row["rmse"] is None and row["roc_auc"] is not None for row in of_delay)


def test_the_reports_speak_of_minutes_and_of_no_probability(minutes: Minutes):
    store = minutes.lifecycle.store
    version = candidate_of(store, NAME, SATURDAY)
    pages = [
        store.get(path).decode()
        for path in (f"reports/{NAME}/candidate-{version}.html", f"reports/{NAME}/{MONDAY}.html")
    ]
    for page in pages:
        assert "RMSE" in page
        assert "minutes" in page
        assert not any(word in page for word in ("ROC AUC", "came true", "log loss", "probability", "nats"))


def test_drift_bins_the_predictions_in_minutes_and_the_retraining_decision_is_made(minutes: Minutes):
    query = minutes.lifecycle.warehouse.query
    drift = query(
        "select psi from monitoring.drift where use_case = 'flight_minutes' and kind = 'prediction'"
    ).to_pylist()
    assert len(drift) == 3
    assert all(np.isfinite(row["psi"]) for row in drift)
    decided = query(
        "select decision from monitoring.retraining_decisions where use_case = 'flight_minutes'"
    ).to_pylist()
    assert len(decided) == 3
