"""How good the model is: trained on January to September 2013, tested on October to December, nothing from the future.

    python -m benchmarks.model_quality [--home FOLDER]

Lands the whole year through the asset graph, freezes the examples as of 2014-01-02 with the last 92 days as test, fits
the candidate as the asset does, and prints its quality beside the base rate, the logistic baseline and gradient boosted
trees on the same examples. With ``--home`` the landed year is kept there and used again by the next call.

The last two weeks of September choose the epoch (and the number of trees); one day is left out on either side of them.
Exits with 1 where ROC AUC is below 0.72 or PR AUC below 0.48.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from ml_assets.backends.environments import Environment
from ml_assets.calendar import day_starts_at
from ml_assets.core import training_sets
from ml_assets.core.candidates import train_candidate
from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.evaluation import Metrics, evaluate
from ml_assets.core.feature_views import Feature
from ml_assets.core.ports import DayRange, Tracker
from ml_assets.core.spec import SplitRule
from ml_assets.core.training_sets import TrainingSet
from ml_assets.lifecycle import LANDING, Lifecycle
from ml_assets.resources import feature_views_of, resources_of
from ml_assets.use_cases import arrival_delay, code_version_of

YEAR = DayRange(first=date(2013, 1, 1), last=date(2013, 12, 31))
AS_OF = date(2014, 1, 2)
SPLIT = SplitRule(train_days=365, validation_days=14, test_days=92, gap_days=1)
USE_CASE = replace(arrival_delay.USE_CASE, split=SPLIT)
LEAST_ROC_AUC, LEAST_PR_AUC = 0.72, 0.48
MOST_TREES = 400


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage took, in seconds: ``cpu`` of this process with its threads, ``wall`` on the clock."""

    cpu: float
    wall: float


class Clock:
    """Takes the time from its making to ``stop``."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def stop(self) -> Cost:
        """Return what passed since the start."""
        return Cost(cpu=time.process_time() - self._cpu, wall=time.perf_counter() - self._wall)


def land_year(life: Lifecycle) -> None:
    """Land, build and join every day of the year, unless the warehouse has all of them."""
    table = USE_CASE.examples_table
    if life.warehouse.columns(table):
        found = life.warehouse.query(f"select count(distinct partition_on) as n_days from {table}").to_pylist()
        if found[0]["n_days"] == len(YEAR.dates):
            return
    life.run_groups(LANDING, YEAR)


def freeze(life: Lifecycle, inputs: tuple[Feature, ...]) -> TrainingSet:
    """Freeze the examples of the year as the asset ``training_set`` does."""
    examples = life.warehouse.query(
        training_sets.examples_sql(USE_CASE, inputs, life.warehouse.dialect),
        training_sets.examples_parameters(USE_CASE, AS_OF, day_starts_at(AS_OF)),
    )
    return training_sets.freeze(
        examples,
        use_case=USE_CASE,
        inputs=inputs,
        as_of=AS_OF,
        code_version=code_version_of(USE_CASE),
        store=life.store,
    )


def boosted_trees(training_set: TrainingSet, inputs: tuple[Feature, ...]) -> tuple[Metrics, int]:
    """Return the quality of histogram gradient boosting on the same rows, and how many trees validation chose."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import log_loss
    from threadpoolctl import threadpool_limits

    signature = Signature.of(inputs)
    vocabulary = Vocabulary.of(training_set.train, signature)
    parts = (training_set.train, training_set.validation, training_set.test)
    coded = [encode(part, signature, vocabulary) for part in parts]
    train, validation, test = (np.hstack([c.numeric, c.categorical.astype(np.float32)]) for c in coded)
    labels = [part["label"].to_numpy() for part in parts]
    n_numeric = coded[0].numeric.shape[1]
    model = HistGradientBoostingClassifier(
        max_iter=MOST_TREES,
        learning_rate=0.04,
        max_leaf_nodes=31,
        min_samples_leaf=100,
        l2_regularization=1.0,
        categorical_features=[i >= n_numeric for i in range(train.shape[1])],
        early_stopping=False,
        random_state=1,
    )
    with threadpool_limits(1):  # more threads than idle cores wait for each other, at full load
        model.fit(train, labels[0])
        losses = [log_loss(labels[1], p[:, 1]) for p in model.staged_predict_proba(validation)]
        n_trees = int(np.argmin(losses)) + 1
        staged = enumerate(model.staged_predict_proba(test), start=1)
        predictions = next(p[:, 1] for number, p in staged if number == n_trees)
    return evaluate(labels[2], predictions), n_trees


def measure(home: Path) -> bool:
    """Print the table for the year landed below ``home``; return whether the targets are reached."""
    os.environ |= {"ML_ASSETS_HOME": str(home), "ML_ASSETS_TRACKER": "disabled"}
    environment = Environment.current()
    tracker: Tracker = resources_of(environment)["tracker"]  # type: ignore[assignment]
    inputs = USE_CASE.inputs(feature_views_of(environment))
    life = Lifecycle(environment)
    costs: dict[str, Cost] = {}
    clock = Clock()
    land_year(life)
    costs["land, build, join"] = clock.stop()
    clock = Clock()
    training_set = freeze(life, inputs)
    costs["freeze"] = clock.stop()
    clock = Clock()
    with tempfile.TemporaryDirectory() as work:
        trained = train_candidate(
            training_set,
            use_case=USE_CASE,
            inputs=inputs,
            store=life.store,
            tracker=tracker,
            code_version=code_version_of(USE_CASE),
            parent=None,
            on_epoch=lambda _epoch, _metrics: None,
            work_folder=Path(work),
        )
    costs["train, export, evaluate" if not trained.is_reused else "load the kept model"] = clock.stop()
    clock = Clock()
    trees, n_trees = boosted_trees(training_set, inputs)
    costs["boosted trees, one thread"] = clock.stop()
    metrics = trained.package.metrics
    rows = {
        "base rate": metrics.baselines["base_rate"],
        f"logistic regression, {len(USE_CASE.baseline_features)} features": metrics.baselines["logistic"],
        f"gradient boosting (sklearn, {n_trees} trees)": trees,
        f"Lightning (epoch {metrics.best_epoch} of {metrics.n_epochs})": metrics.holdout,
    }
    _print(training_set, rows, costs, len(inputs))
    return _is_reached(metrics.holdout)


def _print(training_set: TrainingSet, rows: dict[str, Metrics], costs: dict[str, Cost], n_features: int) -> None:
    days, counts = training_set.days, training_set.counts
    spans = {"train": days.train, "validation": days.validation, "test": days.test}
    print("; ".join(f"{part} {span[0]} to {span[-1]}, {counts[part]:,} flights" for part, span in spans.items()))
    print(f"{n_features} features known two hours before departure; {training_set.fingerprint[:12]}\n")
    print(f"{'on the test part':<40} {'ROC AUC':>8} {'PR AUC':>8} {'log loss':>9} {'Brier':>7} {'calibration':>12}")
    for name, found in rows.items():
        print(
            f"{name:<40} {_number(found.roc_auc):>8} {_number(found.pr_auc):>8} "
            f"{found.log_loss:>9.4f} {found.brier:>7.4f} {found.calibration_error:>12.4f}"
        )
    print()
    for name, cost in costs.items():
        print(f"{name:<40} {cost.cpu:8.1f} CPU s {cost.wall:8.1f} s")


def _is_reached(found: Metrics) -> bool:
    is_reached = (found.roc_auc or 0) >= LEAST_ROC_AUC and (found.pr_auc or 0) >= LEAST_PR_AUC
    print(
        f"\nLightning: ROC AUC {_number(found.roc_auc)} (at least {LEAST_ROC_AUC}), PR AUC {_number(found.pr_auc)} "
        f"(at least {LEAST_PR_AUC}): {'held' if is_reached else 'MISSED'}"
    )
    return is_reached


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="keep the landed year in this folder, and use it if it is there")
    home = parser.parse_args().home
    if home is not None:
        return 0 if measure(home.absolute()) else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if measure(Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
