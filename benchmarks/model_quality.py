"""How good the models are on October to December 2013, trained on January to September: nothing from the future.

    python -m benchmarks.model_quality [--home FOLDER]

Lands the whole year through the asset graph, freezes the examples of each use case with the last 92 days as test, fits
and packages each candidate as the asset does, and prints its quality beside the baselines of its task on the same rows.
``arrival_delay`` is trained twice: as declared, and with the best other trainer. With ``--home`` the landed year is
kept there and used again by the next call.

The last weeks of September choose the epoch and the number of trees; the days that a use case leaves out lie on either
side of them. Exits with 1 where a limit is missed, or a baseline is not beaten in the first measure of the task.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

from ml_assets.backends.environments import Environment
from ml_assets.calendar import day_starts_at
from ml_assets.cli.faults import release
from ml_assets.core import training_sets
from ml_assets.core.candidates import TrainedCandidate, train_candidate
from ml_assets.core.data_quality.verdicts import faults_between
from ml_assets.core.feature_views import Feature
from ml_assets.core.ports import DayRange, Tracker
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyMetrics, meaning_of
from ml_assets.core.training_sets import TrainingSet
from ml_assets.lifecycle import LANDING, Lifecycle, RunFailed
from ml_assets.resources import feature_views_of, resources_of
from ml_assets.use_cases import air_time, arrival_delay, cancellation, code_version_of, load_use_cases

YEAR = DayRange(first=date(2013, 1, 1), last=date(2013, 12, 31))
N_TEST_DAYS = 92


def _tested_on_the_last_quarter(use_case: UseCase) -> UseCase:
    return replace(use_case, split=replace(use_case.split, train_days=365, test_days=N_TEST_DAYS))


def _as_of(use_case: UseCase) -> date:
    """Return the as-of date whose test part ends with the year: the days left out before it lie in January."""
    return YEAR.last + timedelta(days=1 + use_case.split.gap_days)


USE_CASE = _tested_on_the_last_quarter(arrival_delay.USE_CASE)
AS_OF = _as_of(USE_CASE)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A use case with a trainer, by the name of its library, and the least of each measure that it must reach."""

    name: str
    use_case: UseCase
    least: Mapping[str, float] = field(default_factory=dict[str, float])


CANDIDATES = (
    Candidate(name="Lightning", use_case=USE_CASE, least={"roc_auc": 0.735, "pr_auc": 0.50}),
    Candidate(
        name="LightGBM",
        # Chosen by time-ordered folds within January to September: trained to April, June and August, validated on the
        # month after; mean ROC AUC there 0.7751.
        use_case=replace(
            USE_CASE,
            trainer="sklearn",
            hyperparameters={
                "estimator": "lightgbm",
                "n_estimators": 2000,
                "learning_rate": 0.03,
                "num_leaves": 31,
                "min_child_samples": 50,
                "colsample_bytree": 0.4,
                "reg_lambda": 5.0,
                "cat_smooth": 20.0,
                "early_stopping_rounds": 80,
            },
        ),
        least={"roc_auc": 0.747, "pr_auc": 0.525},
    ),
    Candidate(name="LightGBM", use_case=_tested_on_the_last_quarter(cancellation.USE_CASE)),
    Candidate(name="LightGBM", use_case=_tested_on_the_last_quarter(air_time.USE_CASE)),
)


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
    """Land, build and join every day of the year for all use cases, unless the warehouse has all of them.

    Days of spoilt data, as the 31st of December without any weather, are released: the year is measured whole.
    """
    if all(_has_whole_year(life, use_case.examples_table) for use_case in load_use_cases()):
        return
    try:
        life.run_groups(LANDING, YEAR)
    except RunFailed as failure:
        if not failure.is_held:
            raise
        held = [fault for fault in faults_between(life.warehouse, YEAR) if not fault.released_by]
        for table, day in sorted({(fault.table, fault.day) for fault in held}):
            moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
            release(table=table, day=moment, by="benchmarks", reason="the year is measured whole")
        for day in sorted({fault.day for fault in held}):
            life.run_groups(LANDING, DayRange(first=day, last=day))


def _has_whole_year(life: Lifecycle, table: str) -> bool:
    if not life.warehouse.columns(table):
        return False
    found = life.warehouse.query(f"select count(distinct partition_on) as n_days from {table}").to_pylist()
    return found[0]["n_days"] == len(YEAR.dates)


def freeze(life: Lifecycle, inputs: tuple[Feature, ...], use_case: UseCase = USE_CASE) -> TrainingSet:
    """Freeze the examples of the year as the asset ``training_set`` does."""
    as_of = _as_of(use_case)
    examples = life.warehouse.query(
        training_sets.examples_sql(use_case, inputs, life.warehouse.dialect),
        training_sets.examples_parameters(use_case, as_of, day_starts_at(as_of)),
    )
    return training_sets.freeze(
        examples,
        use_case=use_case,
        inputs=inputs,
        as_of=as_of,
        code_version=code_version_of(use_case),
        store=life.store,
    )


def measure(home: Path) -> bool:
    """Print a table per use case for the year landed below ``home``; return whether all limits are held."""
    os.environ |= {"ML_ASSETS_HOME": str(home), "ML_ASSETS_TRACKER": "disabled"}
    environment = Environment.current()
    tracker: Tracker = resources_of(environment)["tracker"]  # type: ignore[assignment]
    life = Lifecycle(environment)
    clock = Clock()
    land_year(life)
    _print_cost("land, build, join all use cases", clock.stop())
    declared = feature_views_of(environment)
    verdicts: list[bool] = []
    for name, candidates in groupby(CANDIDATES, key=lambda candidate: candidate.use_case.name):
        members = list(candidates)
        use_case = members[0].use_case
        inputs = use_case.inputs(declared)
        print(f"\n== {name}: {use_case.question} {len(inputs)} features")
        clock = Clock()
        training_set = freeze(life, inputs, use_case)
        costs = {"freeze": clock.stop()}
        trained: list[TrainedCandidate] = []
        for candidate in members:
            clock = Clock()
            trained.append(_train(training_set, candidate.use_case, inputs, life, tracker))
            stage = "load the kept model" if trained[-1].is_reused else "train, export, evaluate"
            costs[f"{candidate.name}: {stage}"] = clock.stop()
        _print_table(training_set, members, trained)
        verdicts += [_is_reached(*pair) for pair in zip(members, trained, strict=True)]
        print()
        for stage, cost in costs.items():
            _print_cost(stage, cost)
    return all(verdicts)


def _train(
    training_set: TrainingSet, use_case: UseCase, inputs: tuple[Feature, ...], life: Lifecycle, tracker: Tracker
) -> TrainedCandidate:
    with tempfile.TemporaryDirectory() as work:
        return train_candidate(
            training_set,
            use_case=use_case,
            inputs=inputs,
            store=life.store,
            tracker=tracker,
            code_version=code_version_of(use_case),
            parent=None,
            on_epoch=lambda _epoch, _metrics: None,
            work_folder=Path(work),
        )


def _print_table(training_set: TrainingSet, members: Sequence[Candidate], trained: Sequence[TrainedCandidate]) -> None:
    days, counts, use_case = training_set.days, training_set.counts, members[0].use_case
    spans = {"train": days.train, "validation": days.validation, "test": days.test}
    print("; ".join(f"{part} {span[0]} to {span[-1]}, {counts[part]:,}" for part, span in spans.items()) + "\n")
    meaning, baselines = meaning_of(use_case.task), trained[0].package.metrics.baselines
    columns: dict[str, AnyMetrics] = {words: baselines[name] for name, words in meaning.baseline_words.items()}
    columns |= {m.name: t.package.metrics.holdout for m, t in zip(members, trained, strict=True)}
    print(f"{'on the test part':<31}" + "".join(f" | {name}" for name in columns))
    for measure in meaning.measures:
        values = {name: meaning.figures(found)[measure.name] for name, found in columns.items()}
        written = {name: "-" if value is None else measure.write(value) for name, value in values.items()}
        print(f"{measure.title(use_case.label.unit):<31}" + "".join(f" | {t:>{len(n)}}" for n, t in written.items()))
    print()


def _is_reached(candidate: Candidate, trained: TrainedCandidate) -> bool:
    """Print what the candidate must reach or beat, and whether it does; return whether it does in everything."""
    metrics, meaning = trained.package.metrics, meaning_of(candidate.use_case.task)
    print(f"{candidate.name}: validation chose round {metrics.best_epoch} of {metrics.n_epochs}")
    verdicts: list[bool] = []
    for measure in meaning.measures:
        value = float(getattr(metrics.holdout, measure.name))
        if measure.name in candidate.least:
            least = candidate.least[measure.name]
            verdicts.append(value >= least)
            _print_verdict(f"{measure.words} {measure.write(value)}, at least {least}", verdicts[-1])
        if measure == meaning.measures[0]:
            for name, words in meaning.baseline_words.items():
                other = float(getattr(metrics.baselines[name], measure.name))
                verdicts.append(value < other if measure.is_loss else value > other)
                _print_verdict(f"{measure.words} {measure.write(value)}, {words} {measure.write(other)}", verdicts[-1])
            interval = metrics.intervals[measure.name]
            print(f"  {measure.words}, 95 % over days: {measure.write(interval.low)} to {measure.write(interval.high)}")
    return all(verdicts)


def _print_verdict(what: str, is_held: bool) -> None:
    print(f"  {what}: {'held' if is_held else 'MISSED'}")


def _print_cost(stage: str, cost: Cost) -> None:
    print(f"{stage:<50} {cost.cpu:8.1f} CPU s {cost.wall:8.1f} s", flush=True)


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
