"""How often a training is asked for though nothing has changed, and how soon one that is due.

    python -m benchmarks.false_retrainings [--home FOLDER] [--years N] [--changes N] [--seed N] [--use-case NAME]

A stationary world of real days: the flights of 2013, in which a model is fitted on every other day of the calendar and
scores the rest. These days, whole, are drawn with replacement into years of 365 days, so that a day has the queues and
the weather it had; what a season changes is gone. Drawn singly, or in runs of seven days of the calendar, so that bad
weather comes in spells. The reference of drift is made of all scored days, and each model has a holdout of 21 drawn
days with its luck. Daily rows are measured once per day, by the functions of monitoring, and so is the calibration of
each week of the drawn year, with the noise of days that the model's own held-out days show; every evening the
alarms that stand are made of them as ``<use_case>/alarms`` does, and the decision of these, with cool-down, budget and
age. Estimates before labels and skew are left out: they need rows of their own, and neither asks alone.

False is a training that neither age nor growth asks for. The other side: from one day on a share of the labels is drawn
anew among the decisions of the day, which a model could learn nothing about; the odds of a positive label grow for all
alike, 4.5-fold, as from 25 % to 60 % (of a regression all labels, by half the RMSE), so that the ranking holds and what
is predicted no longer comes true; and a world whose features move by a training standard deviation while quality stays,
which no training mends.

Exits with 1 where there is more than one false training a year, where less than 95 % of the changes that turn all
labels, or of those that let them grow, are answered within three weeks by what was found (age asks besides), or where
drift of inputs adds a training. It is three weeks since most losses are severe only where they have lasted two: no
week of weather does.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.model_quality import YEAR, land_year
from ml_assets.backends.environments import Environment
from ml_assets.calendar import day_starts_at
from ml_assets.core.alarms import Watch
from ml_assets.core.baselines import labels_of
from ml_assets.core.calibration import N_DAYS_POOLED, week_calibration
from ml_assets.core.day_variation import DAYS_OF_A_WEEK
from ml_assets.core.drift import measure_drift
from ml_assets.core.drift_alarms import N_DAYS as DAYS_OF_AN_ALARM
from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.evaluation import Floats
from ml_assets.core.expectations import DayNoise, HeldOut, learn_expectations
from ml_assets.core.feature_views import Feature
from ml_assets.core.intervals import Interval, confidence_intervals
from ml_assets.core.labelled_examples import canonical, examples_parameters, examples_sql, is_sampled, of_days
from ml_assets.core.monitored import HISTORY
from ml_assets.core.package import ModelPackage
from ml_assets.core.performance import PERFORMANCE_SCHEMA, measure_performance
from ml_assets.core.reference import Reference, build_reference
from ml_assets.core.retraining import Evidence, RetrainingDecision, StandingAlarm, decide
from ml_assets.core.retraining_evidence import realised_quality
from ml_assets.core.scored_rows import DayRows
from ml_assets.core.scoring import score_coded
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyMetrics, meaning_of
from ml_assets.core.trainers import Labelled, trainer_named
from ml_assets.lifecycle import Lifecycle
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import load_use_cases

AS_OF = YEAR.last + timedelta(days=1)
N_TRAIN_ROWS, N_HOLDOUT_DAYS, SPELL = 60_000, 21, 7
START, N_DAYS = date(2013, 1, 1), 365
# Judgement: a training too many a year is cheap, and every change of a model is a risk.
MOST_FALSE_A_YEAR, LEAST_ANSWERED, WITHIN_DAYS = 1.0, 0.95, 21
_N_HOLDOUTS = 60
AS_BEFORE, HALF_ANEW, ALL_ANEW, GROWN = "as before", "half drawn anew", "all drawn anew", "grown"
SHARES_TURNED = {HALF_ANEW: 0.5, ALL_ANEW: 1.0}
# By how much the odds of a positive label grow, and by which share of the RMSE the label of a regression.
ODDS_GROWN, SHARE_GROWN = 4.5, 0.5
# Of the worlds; the weighing was tuned on years drawn with it, so that years are measured with another.
SEED = 13
# What alarms read of a day's drift, and how many days ahead they are looked at in one go.
_OF_DRIFT = ["partition_on", "model_version", "feature", "kind", "n_rows", "bin_counts", "moved_share"]
_OF_DRIFT += ["is_drifted", "severity", "explanation"]
_DAYS_AT_ONCE = 30


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came true on a day: the label of each row, and the day's row of ``monitoring.performance``."""

    labels: Floats
    quality: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Day:
    """One scored day of the calendar: its rows, and what monitoring makes of them, as it is and in changed worlds."""

    rows: pa.Table
    predictions: Floats
    outcomes: Mapping[str, Outcome]
    drift: pa.Table
    moved: pa.Table


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """What a model shows on the days it is chosen on: its figures, their limits, and how far days stray."""

    metrics: AnyMetrics
    limits: Mapping[str, Interval]
    noise: DayNoise | None


@dataclass(frozen=True, kw_only=True)
class World:
    """The days to draw from, of one use case."""

    use_case: UseCase
    days: tuple[Day, ...]
    reference: Reference
    n_fitted: int
    holdouts: tuple[Holdout, ...]

    def holdout(self, random: np.random.Generator) -> Holdout:
        """Return what a model shows on a holdout of drawn days."""
        return self.holdouts[int(random.integers(len(self.holdouts)))]

    def sequence(self, random: np.random.Generator, *, spell: int) -> list[int]:
        """Draw a year of days: each by itself, or in runs that follow each other on the calendar."""
        firsts = random.integers(len(self.days), size=-(-N_DAYS // spell))
        return [(first + n) % len(self.days) for first in firsts.tolist() for n in range(spell)][:N_DAYS]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is different from a day of the year on: what comes true, or features that have moved."""

    on: int = N_DAYS
    labels: str = AS_BEFORE
    has_moved: bool = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model in charge since a day of the year: what its package says of it, as far as alarms and decisions ask."""

    version: int
    since: int
    holdout: Holdout

    @property
    def as_of(self) -> date:
        """The as-of date of its training."""
        return START + timedelta(days=self.since)

    def package(self, world: World) -> ModelPackage:
        """Return what alarms read of a package; its holdout lies between the gaps before its as-of date."""
        apart = timedelta(days=N_HOLDOUT_DAYS + 1 + 2 * world.use_case.split.gap_days)
        found = SimpleNamespace(
            version=f"v{self.version}",
            as_of=self.as_of,
            reference=world.reference,
            metrics=SimpleNamespace(holdout=self.holdout.metrics, intervals=self.holdout.limits),
            manifest=SimpleNamespace(last_validation_day=self.as_of - apart),
        )
        return cast("ModelPackage", found)


@dataclass(kw_only=True)
class Year:
    """A drawn year as monitoring sees it: the rows of each of its days, and the alarms that stand on them."""

    world: World
    sequence: Sequence[int]
    change: Change
    _watch: Watch | None = None
    _watched: tuple[int, int] = (0, 0)
    _rows: dict[tuple[int, int], Mapping[str, object]] = field(default_factory=dict)

    def n_rows(self, first: int, until: int) -> int:
        """Return how many decisions these days have."""
        return sum(self.world.days[self.sequence[n]].rows.num_rows for n in range(first, until))

    def performance(self, model: Model, first: int, until: int) -> pa.Table:
        """Return the rows of ``monitoring.performance`` of these days; one model made them all."""
        rows = [self._performance_of(n, model) for n in range(first, until)]
        return pa.Table.from_pylist(rows, schema=PERFORMANCE_SCHEMA)

    def _performance_of(self, n: int, model: Model) -> Mapping[str, object]:
        """Return a day's row: its own quality, and the calibration of the last complete days of its model."""
        key = (model.version, n)
        if key not in self._rows:
            last = n - self.world.use_case.split.gap_days
            pooled = range(max(model.since, last - N_DAYS_POOLED + 1), last + 1)
            week = week_calibration(
                [self._scored(k, model) for k in pooled], task=self.world.use_case.task, noise=model.holdout.noise
            )
            self._rows[key] = {
                **self._outcome(n).quality,
                **(week.as_columns() if week else {}),
                "partition_on": START + timedelta(days=n),
                "model_version": f"v{model.version}",
            }
        return self._rows[key]

    def _outcome(self, n: int) -> Outcome:
        outcomes = self.world.days[self.sequence[n]].outcomes
        return outcomes[self.change.labels if n >= self.change.on else AS_BEFORE]

    def _scored(self, n: int, model: Model) -> DayRows:
        predictions, labels = self.world.days[self.sequence[n]].predictions, self._outcome(n).labels
        return DayRows(
            day=START + timedelta(days=n),
            version=f"v{model.version}",
            predictions=predictions,
            labels=labels,
            is_known=np.ones(len(labels), np.bool_),
        )

    def alarms(self, n: int, model: Model) -> tuple[StandingAlarm, ...]:
        """Return the alarms on a day, from the days of its model: no row of a later day counts."""
        if self._watch is None or self._watched[0] != model.version or n >= self._watched[1]:
            until = min(n + _DAYS_AT_ONCE, len(self.sequence))
            self._watch, self._watched = self._look(model, n, until), (model.version, until)
        found = self._watch.alarms(START + timedelta(days=n))
        return tuple(
            StandingAlarm(kind=a.kind, subject=a.subject, severity=a.severity, explanation=a.explanation) for a in found
        )

    def _look(self, model: Model, n: int, until: int) -> Watch:
        since = max(model.since, n - DAYS_OF_A_WEEK - DAYS_OF_AN_ALARM)
        drift = [
            _dated(day.moved if self.change.has_moved and k >= self.change.on else day.drift, k, model.version)
            for k, day in ((k, self.world.days[self.sequence[k]]) for k in range(since, until))
        ]
        return Watch(
            self.world.use_case,
            drift=pa.concat_tables(drift),
            performance=self.performance(model, max(model.since, n - HISTORY.days), until),
            package_of=lambda _: model.package(self.world),
        )


def live(
    world: World, random: np.random.Generator, *, spell: int, change: Change | None = None, until: int = N_DAYS
) -> list[RetrainingDecision]:
    """Live a year: every evening alarms and decision; a model that was asked for is in charge the day after.

    The first model is of the first day, and every candidate is promoted: in this world all are alike.
    """
    rule, n_days = world.use_case.retraining, min(N_DAYS, until)
    year = Year(world=world, sequence=world.sequence(random, spell=spell)[:n_days], change=change or Change())
    model = Model(version=1, since=0, holdout=world.holdout(random))
    trained, decisions = [START], list[RetrainingDecision]()
    for n in range(n_days):
        recent = year.performance(model, max(model.since, n - HISTORY.days), n + 1)
        as_of = START + timedelta(days=n + 1)
        evidence = Evidence(
            use_case=world.use_case.name,
            day=START + timedelta(days=n),
            model_version=f"v{model.version}",
            model_as_of=model.as_of,
            alarms=year.alarms(n, model),
            realised=realised_quality(
                recent, model.holdout.metrics, model.holdout.limits, n_holdout_days=N_HOLDOUT_DAYS
            ),
            n_new_examples=year.n_rows(model.since, n),
            n_fitted_examples=world.n_fitted,
            last_training_on=trained[-1],
            n_trainings=sum(one > as_of - timedelta(days=rule.budget_days) for one in trained),
        )
        found = decide(evidence, rule)
        decisions.append(found)
        if found.decision == "retrain":
            # Trained before a change had labels to learn from, it is judged on what it was chosen on: days as before.
            model = Model(version=model.version + 1, since=n + 1, holdout=world.holdout(random))
            trained.append(found.as_of)
    return decisions


def is_false(decision: RetrainingDecision) -> bool:
    """Tell a training that is asked for by neither age nor growth."""
    votes = {factor.name: factor.votes for factor in decision.factors}
    return decision.decision == "retrain" and not (votes["age"] or votes["growth"])


def build(life: Lifecycle, use_case: UseCase, inputs: Sequence[Feature]) -> World:
    """Fit a model on every other day and measure the rest, once each."""
    table = canonical(
        life.warehouse.query(
            examples_sql(use_case, inputs, life.warehouse.dialect),
            {**examples_parameters(use_case, AS_OF, day_starts_at(AS_OF)), "first_day": YEAR.first},
        ),
        inputs,
    )
    present = sorted(table["partition_on"].unique().to_pylist())
    scored, fitted = present[0::2], present[1::2]
    validation, train = (
        of_days(table, tuple(fitted[0::8])),
        of_days(table, tuple(day for n, day in enumerate(fitted) if n % 8)),
    )
    train = train.filter(is_sampled(train["decision_id"], min(1.0, N_TRAIN_ROWS / train.num_rows)))
    signature = Signature.of(inputs, use_case.output)
    vocabulary = Vocabulary.of(train, signature)
    parts = [
        Labelled(inputs=encode(part, signature, vocabulary), labels=labels_of(part).astype(np.float32))
        for part in (train, validation)
    ]
    trainer = trainer_named(use_case.trainer)
    with tempfile.TemporaryDirectory() as folder:
        model = trainer.fit(
            *parts,
            signature=signature,
            vocabulary=vocabulary,
            hyperparameters=trainer.resolve(use_case.hyperparameters),
            seed=use_case.seed,
            warm_start=None,
            on_epoch=lambda _number, _metrics: None,
            work_folder=Path(folder),
        ).to_onnx()
    rows = of_days(table, tuple(scored))
    rows = rows.append_column("prediction", pa.array(score_coded(model, encode(rows, signature, vocabulary))))
    reference = build_reference(rows.drop_columns(["prediction"]), inputs, rows["prediction"].to_numpy())
    random = np.random.default_rng(SEED)
    rmse = float(np.sqrt(np.mean((labels_of(rows) - rows["prediction"].to_numpy()) ** 2)))
    days = tuple(_measured(of_days(rows, (day,)), day, use_case, reference, inputs, rmse, random) for day in scored)
    return World(
        use_case=use_case,
        days=days,
        reference=reference,
        n_fitted=2 * rows.num_rows,
        holdouts=tuple(_holdout(days, use_case, random) for _ in range(_N_HOLDOUTS)),
    )


def _holdout(days: Sequence[Day], use_case: UseCase, random: np.random.Generator) -> Holdout:
    """Draw days to test a model on, and others that it was chosen on: what is expected of it is learnt on both."""
    test = random.choice(len(days), N_HOLDOUT_DAYS, replace=False)
    others = np.setdiff1d(np.arange(len(days)), test)
    chosen_on = np.random.default_rng([SEED, *test.tolist()]).permutation(others)[: use_case.split.validation_days]

    def held_out(drawn: npt.NDArray[np.int64]) -> HeldOut:
        sizes = [len(days[n].predictions) for n in drawn]
        return HeldOut(
            labels=np.concatenate([days[n].outcomes[AS_BEFORE].labels for n in drawn]),
            predictions=np.concatenate([days[n].predictions for n in drawn]),
            days=np.repeat(np.datetime64(START) + drawn, sizes),
        )

    shown = held_out(test)
    expected = learn_expectations(held_out(chosen_on), shown, task=use_case.task, baselines=(), seed=SEED)
    y, p, place = shown.labels, shown.predictions, np.unique(shown.days, return_inverse=True)[1]
    return Holdout(
        metrics=meaning_of(use_case.task).evaluate(y, p),
        limits=confidence_intervals(y, p, place, seed=SEED, task=use_case.task),
        noise=expected.day_noise.get("mean_label" if use_case.task == "regression" else "positive_share"),
    )


def _measured(
    rows: pa.Table,
    day: date,
    use_case: UseCase,
    reference: Reference,
    inputs: Sequence[Feature],
    rmse: float,
    random: np.random.Generator,
) -> Day:
    rows = rows.append_column("no_label_reason", pa.nulls(rows.num_rows, pa.string()))
    edges, place = reference.prediction.edges, rows.column_names.index("label")

    def outcome(labels: pa.Array) -> Outcome:
        of = rows.set_column(place, "label", labels)
        [quality] = measure_performance(
            of, use_case=use_case.name, day=day, model_version="v", task=use_case.task, edges=edges
        ).to_pylist()
        return Outcome(labels=labels_of(of), quality=quality)

    def drift(of: pa.Table) -> pa.Table:
        found = measure_drift(reference, of, of["prediction"], use_case=use_case.name, model_version="v", day=day)
        return found.select(_OF_DRIFT)

    outcomes = {AS_BEFORE: outcome(rows["label"])}
    for name, share in SHARES_TURNED.items():
        labels, chosen = rows["label"].to_numpy().copy(), random.random(rows.num_rows) < share
        labels[chosen] = random.permutation(labels[chosen])
        outcomes[name] = outcome(pa.array(labels, rows["label"].type))
    outcomes[GROWN] = outcome(_grown(rows, use_case, rmse, np.random.default_rng([SEED, day.toordinal()])))
    moved = rows
    for feature in inputs:
        if feature.kind == "numeric" and pa.types.is_floating(rows[feature.name].type):
            column = rows[feature.name]
            spread = pc.stddev(column).as_py() or 0.0
            moved = moved.set_column(rows.column_names.index(feature.name), feature.name, pc.add(column, spread))
    return Day(
        rows=rows.select(["label", "prediction"]),
        predictions=np.asarray(rows["prediction"].to_numpy(), np.float64),
        outcomes=outcomes,
        drift=drift(rows),
        moved=drift(moved),
    )


def _grown(rows: pa.Table, use_case: UseCase, rmse: float, random: np.random.Generator) -> pa.Array:
    """Return labels of a world where delays grow for all alike: a model that ranks them ranks them still."""
    labels = rows["label"]
    if use_case.task == "regression":
        return pa.array(labels.cast(pa.float64()).to_numpy() + SHARE_GROWN * rmse)
    # A negative label turns as often as it takes for odds that were as predicted to be so many times that.
    p = np.asarray(rows["prediction"].to_numpy(), np.float64)
    turns = random.random(len(p)) < (ODDS_GROWN - 1) * p / (1 + (ODDS_GROWN - 1) * p)
    return pa.array(labels.cast(pa.bool_()).to_numpy() | turns).cast(labels.type)


def _dated(table: pa.Table, n: int, version: int) -> pa.Table:
    """Return rows of another day of the year and another model version."""
    day = START + timedelta(days=n)
    columns = {"partition_on": pa.array([day] * table.num_rows, pa.date32())}
    columns["model_version"] = pa.array([f"v{version}"] * table.num_rows)
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def report(world: World, *, n_years: int, n_changes: int, seed: int) -> bool:
    """Print the figures of one use case; return whether its targets are held."""
    name = world.use_case.name
    print(f"\n== {name}: {len(world.days)} scored days to draw from")
    held: list[bool] = []
    for spell in (1, SPELL):
        years = [live(world, np.random.default_rng([seed, spell, n]), spell=spell) for n in range(n_years)]
        n_false = [sum(map(is_false, year)) for year in years]
        n_due = [sum(d.decision == "retrain" for d in year) - f for year, f in zip(years, n_false, strict=True)]
        n_alarms = [sum(bool(d.evidence.alarms) for d in year) for year in years]
        held.append(np.mean(n_false) <= MOST_FALSE_A_YEAR)
        print(
            f"no change, days drawn {'singly' if spell == 1 else f'in runs of {spell}'}: {np.mean(n_false):.2f} false "
            f"trainings a year ({min(n_false)} to {max(n_false)}) beside {np.mean(n_due):.2f} by age; "
            f"{np.mean(n_alarms):.1f} days a year with an alarm; {n_years} years: {_word(held[-1])}",
            flush=True,
        )
    for labels in (*SHARES_TURNED, GROWN):
        answered: list[int] = []
        for n in range(n_changes):
            random = np.random.default_rng([seed, 99, n])
            # After the cool-down of the first model, and before its age asks.
            on = world.use_case.retraining.cool_down_days + 1
            change = Change(on=on, labels=labels)
            year = live(world, random, spell=SPELL, change=change, until=on + WITHIN_DAYS)
            first = next((k for k in range(on, len(year)) if is_false(year[k])), N_DAYS)
            answered.append(first - on + 1)
        is_within = np.mean(np.array(answered) <= WITHIN_DAYS)
        is_judged = labels != HALF_ANEW
        if is_judged:
            held.append(bool(is_within >= LEAST_ANSWERED))
        print(
            f"labels {labels} from one day on: {is_within:.1%} answered within {WITHIN_DAYS} days, "
            f"{_median(answered)}; {n_changes} runs" + (f": {_word(held[-1])}" if is_judged else ""),
            flush=True,
        )
    drawn = range(max(1, n_years // 4))
    moved = Change(on=30, has_moved=True)
    years = [live(world, np.random.default_rng([seed, 7, n]), spell=1, change=moved) for n in drawn]
    baseline = [live(world, np.random.default_rng([seed, 7, n]), spell=1) for n in drawn]
    n_more = np.mean([sum(map(is_false, year)) for year in years]) - np.mean([sum(map(is_false, b)) for b in baseline])
    n_drift = np.mean([sum(any(a.kind == "drift" for a in d.evidence.alarms) for d in year) for year in years])
    held.append(bool(n_more <= 0.25))
    print(
        f"features moved by a standard deviation, quality as before: {n_drift:.0f} days a year with a drift alarm, "
        f"{n_more:+.2f} false trainings a year more than without: {_word(held[-1])}",
        flush=True,
    )
    return all(held)


def _median(answered: Sequence[int]) -> str:
    """Say on which day half of the changes were answered, counted from the day of the change."""
    middle = float(np.median(answered))
    return f"the median on day {middle:.0f}" if middle <= WITHIN_DAYS else "less than half in that time"


def _word(is_held: bool) -> str:
    return "held" if is_held else "MISSED"


def measure(home: Path, *, n_years: int, n_changes: int, seed: int, names: Sequence[str]) -> bool:
    """Print the figures of each use case for the year landed below ``home``; return whether all targets are held."""
    os.environ |= {"ML_ASSETS_HOME": str(home), "ML_ASSETS_TRACKER": "disabled"}
    environment = Environment.current()
    life, declared, verdicts = Lifecycle(environment), feature_views_of(environment), list[bool]()
    land_year(life)
    for use_case in (use_case for use_case in load_use_cases() if not names or use_case.name in names):
        started = time.process_time()
        world = build(life, use_case, use_case.inputs(declared))
        built = time.process_time()
        verdicts.append(report(world, n_years=n_years, n_changes=n_changes, seed=seed))
        print(
            f"CPU seconds: {built - started:.0f} to fit and measure the days, {time.process_time() - built:.0f} to live"
        )
    return all(verdicts)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="keep the landed year in this folder, and use it if it is there")
    parser.add_argument("--years", type=int, default=10, help="of each stationary world")
    parser.add_argument("--use-case", action="append", default=[], help="which; all unless given")
    parser.add_argument("--changes", type=int, default=40, help="of each share of labels")
    parser.add_argument("--seed", type=int, default=29, help="of the years that are drawn")
    given = parser.parse_args()
    settings = {"n_years": given.years, "n_changes": given.changes, "seed": given.seed, "names": given.use_case}
    if given.home is not None:
        return 0 if measure(given.home.absolute(), **settings) else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if measure(Path(folder), **settings) else 1


if __name__ == "__main__":
    sys.exit(main())
