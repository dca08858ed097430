"""Days lived one after the other: nothing later is used, a kill changes nothing, and comparisons say what is true."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core import registry
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.errors import StorageFull
from ml_assets.core.feature_views import Feature
from ml_assets.core.promoting import Workshop
from ml_assets.core.replays.living import live
from ml_assets.core.replays.record import LivedDay, lived_days
from ml_assets.core.replays.rivals import BASELINE, LATER, ONCE, compare
from ml_assets.core.replays.story import Story, record_of, tell
from ml_assets.core.replays.worth import periods_of
from ml_assets.core.reports import replay_report
from ml_assets.core.spec import PromotionRule, RetrainingRule, SplitRule, UseCase
from tests.core.conftest import FIRST_DAY, MemoryStore, SpyTracker, make_examples

N_DAYS, TURN = 42, 26
DAYS = DayRange(first=FIRST_DAY, last=FIRST_DAY + timedelta(days=N_DAYS - 1))


def day(number: int) -> date:
    """Return a day of the window; the first is number 1."""
    return FIRST_DAY + timedelta(days=number - 1)


@pytest.fixture(scope="module")
def storms(use_case: UseCase) -> UseCase:
    """The use case with trees that are fitted in a moment, judged by rules that days of 60 rows can satisfy."""
    rule = PromotionRule(
        minimum_roc_auc=0.5,
        maximum_calibration_error=0.5,
        confidence=0.5,
        against_champion="not_worse",
        may_lose_to_champion_by=1.0,
        slice_may_lose_log_loss=9.0,
        slice_may_lose_roc_auc=1.0,
        maximum_one_row_ms=10_000,
        maximum_thousand_rows_ms=10_000,
    )
    return replace(
        use_case,
        trainer="sklearn",
        hyperparameters={"estimator": "lightgbm", "n_estimators": 15, "min_child_samples": 5, "learning_rate": 0.3},
        split=SplitRule(train_days=10, validation_days=2, test_days=3, minimum_train_days=5),
        promotion=rule,
        retraining=RetrainingRule(
            cool_down_days=3, minimum_new_examples=60, budget_trainings=9, most_refusals=9, growth_share=9.0
        ),
    )


@pytest.fixture(scope="module")
def weather() -> pa.Table:
    """Six weeks in which storms delay flights; from day 26 on they are what makes flights be on time."""
    rows = make_examples(N_DAYS, 60)
    is_turned = pc.greater_equal(rows["partition_on"], pa.scalar(day(TURN)))
    label = pc.if_else(is_turned, pc.invert(rows["label"]), rows["label"])
    return rows.set_column(rows.column_names.index("label"), "label", label)


class Lab:
    """One replay in memory: examples, store, and what it lived."""

    def __init__(self, examples: pa.Table, use_case: UseCase, inputs: tuple[Feature, ...], folder: Path) -> None:
        self.use_case, self.warehouse, self.store = use_case, DuckDBWarehouse(None), MemoryStore()
        self.warehouse.replace_days({use_case.examples_table: examples}, DAYS)
        self.workshop = Workshop(
            inputs=inputs,
            tracker=SpyTracker(),
            code_version="c1",
            work_folder=folder,
            records=None,
            now=lambda: datetime(2013, 1, 1, tzinfo=UTC),
        )

    def live(self, days: DayRange = DAYS) -> list[LivedDay]:
        return list(live(self.warehouse, self.store, self.use_case, days, workshop=self.workshop))

    def tell(self, days: DayRange = DAYS) -> Story:
        return tell(self.warehouse, self.store, self.use_case, days)


Begin = Callable[[pa.Table], Lab]


@pytest.fixture
def begin(storms: UseCase, inputs: tuple[Feature, ...], tmp_path: Path) -> Begin:
    return lambda examples: Lab(examples, storms, inputs, tmp_path)


@pytest.fixture(scope="module")
def lived(
    weather: pa.Table, storms: UseCase, inputs: tuple[Feature, ...], tmp_path_factory: pytest.TempPathFactory
) -> Lab:
    """The six weeks, lived without interruption; to be read."""
    lab = Lab(weather, storms, inputs, tmp_path_factory.mktemp("lived"))
    lab.live()
    return lab


def test_the_first_training_comes_once_its_parts_are_whole_and_nobody_predicts_before(lived: Lab):
    story = lived.tell()
    assert [one.partition_on for one in story.days] == list(DAYS.dates)
    first = next(one for one in story.days if one.outcome)
    # Validation, test and a gap for each, twice; a gap before the as-of date, and the as-of date itself.
    assert first.partition_on == day(2 * (2 + 3 + 1) + 1 + 1)
    predicted = [one.partition_on for one in story.days if one.n_decisions]
    promoted = [entry.effective_from for entry in story.ledger if entry.action == "promote"]
    assert predicted == [one for one in DAYS.dates if one >= promoted[0]]
    assert story.performance["partition_on"].to_pylist() == predicted


def test_a_world_that_turns_is_answered_by_a_training_on_the_morning_after_the_decision(lived: Lab):
    story = lived.tell()
    asked = [one.partition_on for one in story.days if one.decision == "retrain"]
    trained = [one.partition_on for one in story.days if one.outcome]
    assert any(day(TURN) <= one <= day(TURN + 3) for one in asked), "a turned world must be noticed"
    assert trained == [one + timedelta(days=1) for one in asked if one < DAYS.last]
    assert {"promoted", "refused"} <= {one.outcome for one in story.days}
    assert {entry.version for entry in story.ledger} == {one.candidate for one in story.days if one.outcome}
    weeks = [row for row in story.weeks.to_pylist() if row["rival"] == ONCE and row["measure"] == "log_loss"]
    assert weeks[0]["gain"] == weeks[0]["margin"] == 0.0, "until somebody is trained again they are the same model"
    # On the last day, a week of its own, the model that has seen enough of the turned world is in charge.
    assert story.days[-1].outcome == "promoted"
    assert (weeks[-1]["n_days"], weeks[-1]["margin"]) == (1, None)
    assert weeks[-1]["other"] > 2 > 0.6 > weeks[-1]["production"]


def test_a_training_sees_only_labels_that_were_known_before_its_day_began(lived: Lab):
    for one in (one for one in lived.tell().days if one.outcome):
        entry = next(e for e in registry.entries(lived.store, lived.use_case.name) if e.version == one.candidate)
        gate = next(gate for gate in entry.gates if gate.name == "labels_known_in_time")
        assert gate.is_passed
        assert entry.recorded_at == day_starts_at(one.partition_on)


def test_another_future_leaves_all_that_was_recorded_before_it_to_the_bit(begin: Begin, lived: Lab, weather: pa.Table):
    """From day 33 on, one day after the end of a week and amid trainings, every value and label is another."""
    last = day(33)
    rng = np.random.default_rng(3)
    is_later = pc.greater(weather["partition_on"], pa.scalar(last))
    noise = pa.array(rng.uniform(-50, 90, weather.num_rows))
    other = {
        "origin": pc.if_else(is_later, "SFO", weather["origin"]),
        "wind_speed_mph": pc.if_else(is_later, noise, weather["wind_speed_mph"]),
        "label": pc.if_else(is_later, pc.invert(weather["label"]), weather["label"]),
    }
    altered = weather
    for name, column in other.items():
        altered = altered.set_column(altered.column_names.index(name), name, column)
    lab = begin(altered)
    lab.live()

    mine, theirs = (lines_until(last, one) for one in (lab, lived))
    assert mine == theirs
    for table in (lab.use_case.predictions_table, "replay.rivals", "monitoring.drift"):
        sql = f"select * from {table} where partition_on <= $last order by all"
        assert lab.warehouse.query(sql, {"last": last}) == lived.warehouse.query(sql, {"last": last}), table
    # It is no test of nothing: trainings were asked for by then, and what came later did differ.
    assert b'"outcome":"promoted"' in b"".join(mine)
    assert lines_until(DAYS.last, lab) != lines_until(DAYS.last, lived)


def lines_until(last: date, lab: Lab) -> list[bytes]:
    """Return the lines of the record up to a day, but for the sums over all days."""
    lines = record_of([lab.tell()]).splitlines()
    events = [(line, json.loads(line)) for line in lines]
    return [line for line, event in events if event["day"] <= last.isoformat() and event["kind"] != "worth"]


class Failing:
    """A store or warehouse of which a certain operation fails; its parts count together, as they come."""

    def __init__(self, whole: object, fuse: "Fuse") -> None:
        self._whole, self._fuse = whole, fuse

    def __getattr__(self, name: str) -> object:
        found = getattr(self._whole, name)
        return found if name in ("dialect", "session", "address", "n_reads_at_once") else self._fuse.guard(found)


class Fuse:
    """Counts operations, and fails the next one that is due: half of the time when it is done already."""

    def __init__(self, seed: int) -> None:
        self.draw, self.n_failures = random.Random(seed), 0
        self.left = self.draw.randint(1, 40)

    def guard(self, operation: Callable[..., object]) -> Callable[..., object]:
        def guarded(*arguments: object, **options: object) -> object:
            self.left -= 1
            if self.left:
                return operation(*arguments, **options)
            # As far apart as a day's operations, so that days do get completed.
            self.left = self.draw.randint(1, 400)
            self.n_failures += 1
            if self.draw.random() < 0.5:
                operation(*arguments, **options)
            raise StorageFull("the disk is full")

        return guarded


@pytest.mark.parametrize("seed", [1])
def test_a_replay_that_fails_again_and_again_ends_with_the_record_of_one_that_never_did(
    seed: int, begin: Begin, lived: Lab, weather: pa.Table
):
    print("seed", seed)
    lab, fuse = begin(weather), Fuse(seed)
    whole = lab.warehouse, lab.store
    lab.warehouse, lab.store = Failing(lab.warehouse, fuse), Failing(lab.store, fuse)  # pyright: ignore - they are ports
    complete: list[LivedDay] = []
    while len(complete) < N_DAYS:
        try:
            for one in live(lab.warehouse, lab.store, lab.use_case, DAYS, workshop=lab.workshop):
                complete.append(one)
        except StorageFull:
            continue
    lab.warehouse, lab.store = whole
    assert fuse.n_failures > 10
    assert record_of([lab.tell()]) == record_of([lived.tell()])
    # What is complete is not lived again.
    assert [one.partition_on for one in complete] == sorted({one.partition_on for one in complete})


def test_days_that_are_complete_are_not_lived_again(begin: Begin, lived: Lab):
    assert lived.live() == []
    assert len(lived_days(lived.warehouse, lived.use_case, DAYS)) == N_DAYS


def rows(labels: list[float], ours: list[float], once: list[float | None], days: list[int]) -> pa.Table:
    return pa.table(
        {
            "partition_on": pa.array([day(number) for number in days], pa.date32()),
            "label": pa.array(labels, pa.float64()),
            "prediction": ours,
            ONCE: pa.array(once, pa.float64()),
            LATER: pa.nulls(len(labels), pa.float64()),
            BASELINE: pa.array([None] * len(labels), pa.float64()),
        }
    )


def test_a_comparison_is_the_difference_of_the_losses_on_the_rows_that_both_predicted(storms: UseCase):
    minutes = replace(storms, task="regression")
    table = rows([10, 20, 30, 40], [11, 19, 32, 40], [None, 25, 20, 41], [1, 1, 2, 2])
    (found,) = compare(table, minutes, DayRange(first=day(1), last=day(2))).to_pylist()
    # The first row has no rival's answer, so that it counts for neither.
    assert (found["rival"], found["measure"], found["n_labelled"], found["n_days"]) == (ONCE, "rmse", 3, 2)
    assert found["production"] == pytest.approx(np.sqrt((1 + 4 + 0) / 3))
    assert found["other"] == pytest.approx(np.sqrt((25 + 100 + 1) / 3))
    assert found["gain"] == pytest.approx(found["other"] - found["production"])
    assert found["margin"] > found["gain"], "two days tell nothing"


def test_a_week_is_judged_by_the_labels_that_were_known_on_the_morning_after_it(
    begin: Begin, weather: pa.Table, lived: Lab
):
    """One label of each day becomes known a fortnight late: the weeks lack it, the sum in hindsight has it."""
    is_late = pa.array([number % 60 == 0 for number in range(weather.num_rows)])
    late = pc.add(weather["label_known_at"], pa.scalar(timedelta(days=14)))
    known = pc.if_else(is_late, late, weather["label_known_at"])
    lab = begin(weather.set_column(weather.column_names.index("label_known_at"), "label_known_at", known))
    lab.live(DayRange(first=FIRST_DAY, last=day(28)))
    story = lab.tell(DayRange(first=FIRST_DAY, last=day(28)))
    whole_week = [row for row in story.weeks.to_pylist() if row["n_days"] == 7 and row["rival"] == ONCE]
    assert {row["n_labelled"] for row in whole_week} == {7 * 59}
    predicted = sum(bool(one.n_decisions) for one in story.days)
    in_all = next(row for row in story.worth.to_pylist() if row["period"] == "all days" and row["rival"] == ONCE)
    # Of the last days the late label is not known a week later either.
    assert 59 * predicted < in_all["n_labelled"] < 60 * predicted


@pytest.mark.parametrize(
    ("first", "last", "quarters"),
    [
        (date(2013, 1, 1), date(2013, 12, 31), ["2013 Q1", "2013 Q2", "2013 Q3", "2013 Q4"]),
        (date(2013, 12, 31), date(2014, 1, 1), ["2013 Q4", "2014 Q1"]),
        (date(2013, 5, 5), date(2013, 5, 5), ["2013 Q2"]),
    ],
)
def test_quarters_cover_the_days_once(first: date, last: date, quarters: list[str]):
    days = DayRange(first=first, last=last)
    *found, whole = periods_of(days)
    assert [name for name, _ in found] == quarters
    assert [one for _, period in found for one in period.dates] == list(days.dates)
    assert whole == ("all days", days)


def test_the_page_tells_of_everything_that_happened_and_keeps_foreign_text_inert(lived: Lab):
    story = lived.tell()
    attack = "<script>alert(1)</script>"
    days = [replace(one, reason=attack) if one.decision == "retrain" else one for one in story.days]
    page = replay_report([replace(story, days=days)], days=DAYS)
    assert attack not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for entry in story.ledger:
        assert f"{entry.version}: " in page
    n_asked = sum(one.decision == "retrain" for one in days)
    assert page.count("asked to retrain</span>") == n_asked
    assert page.count("<svg") == 2
    assert replay_report([story], days=DAYS) == replay_report([story], days=DAYS)


def test_the_page_says_so_where_nobody_was_ever_in_charge(begin: Begin, weather: pa.Table):
    lab, days = begin(weather), DayRange(first=FIRST_DAY, last=day(5))
    lab.live(days)
    assert "Nobody was ever in charge" in replay_report([lab.tell(days)], days=days)
