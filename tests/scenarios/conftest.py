"""A world of real flights that is lived to a morning, from where each scenario goes on in its own way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pyarrow as pa
import pytest

from ml_assets.backends.environments import Environment
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.ports import Source
from ml_assets.core.promoting import train_and_promote
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.replays import watching
from ml_assets.core.replays.record import Costs, LivedDay
from ml_assets.core.scoring_days import rows_of_days, write_predictions
from ml_assets.core.spec import PromotionRule, SplitRule, UseCase
from ml_assets.lifecycle import LANDING, Lifecycle
from ml_assets.replaying import Life
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import arrival_delay
from tests.conftest import Home, environment_of, only_use_case
from tests.faults import delivering
from tests.scenarios.difference import Difference, difference

# Six weeks of spring: on the days from the fork on nothing alarms by itself.
FIRST_LANDED, FIRST_LIVED, FORK, LAST = date(2013, 4, 8), date(2013, 5, 8), date(2013, 5, 15), date(2013, 5, 19)
DAYS = DayRange(first=FORK, last=LAST)


def scenario_use_case() -> UseCase:
    """Return the real question, answered by trees that are fitted in a second, by rules that a month can satisfy."""
    return replace(
        arrival_delay.USE_CASE,
        features=(
            "flight_schedule",
            "origin_weather",
            "origin_departures",
            "origin_carrier_departures",
            "origin_cancellations",
            "destination_arrivals",
        ),
        trainer="sklearn",
        hyperparameters={"estimator": "lightgbm", "n_estimators": 40, "learning_rate": 0.15},
        baseline_features=("n_planned_departures_origin", "origin_departures_late_share_3h"),
        slices=("origin", "carrier"),
        split=SplitRule(validation_days=4, test_days=7),
        # A week of holdout tells little noise, and a machine that runs tests may be slow.
        promotion=PromotionRule(
            maximum_calibration_error=0.3,
            confidence=0.5,
            against_champion="not_worse",
            slice_may_lose_log_loss=1.0,
            slice_may_lose_roc_auc=1.0,
            maximum_one_row_ms=10_000,
            maximum_thousand_rows_ms=10_000,
        ),
        # The month it was trained on doubles soon; here only what goes wrong shall ask for a training.
        retraining=replace(arrival_delay.USE_CASE.retraining, growth_share=9.0),
    )


@dataclass(frozen=True, kw_only=True)
class World:
    """One home with the asset graph over it, that is put back to the fork before each scenario; and its calm twin."""

    lifecycle: Lifecycle
    use_case: UseCase
    home: Home
    fork: Home

    def land(self, days: DayRange = DAYS, source: Callable[[Source], Source] = lambda source: source) -> None:
        """Land days as the source would have delivered them; raise RunFailed where some of them are held."""
        with delivering(source), self.lifecycle.warehouse.session():
            self.lifecycle.run_groups(LANDING, days)

    def make(self, days: DayRange) -> None:
        """Make features and examples of days that have landed."""
        with self.lifecycle.warehouse.session():
            self.lifecycle.run_groups(("features", "examples"), days)

    def live(self, last: date = LAST) -> list[LivedDay]:
        """Live the days that are left, as `ml-assets replay` does."""
        return list(self.life(last).live())

    def life(self, last: date = LAST) -> Life:
        """The replay of the use case, with tables and models in this home."""
        return Life(
            use_case=self.use_case,
            inputs=self.use_case.inputs(feature_views_of(Environment.current())),
            code_version="scenarios",
            days=DayRange(first=FIRST_LIVED, last=last),
            folder=self.home.path,
        )

    def watch_again(self) -> None:
        """Predict, watch and decide the lived days once more, each as on the morning after it."""
        warehouse, store, use_case = self.lifecycle.warehouse, self.lifecycle.store, self.use_case
        with warehouse.session():
            for day in DAYS.dates:
                today, after = DayRange(first=day, last=day), day_starts_at(day + timedelta(days=1))
                write_predictions(warehouse, store, use_case, today, run_id="again", predicted_at=after)
                watching.watch(warehouse, store, use_case, day, Costs())
                watching.decide(warehouse, store, use_case, day)

    def train(self, as_of: date, *, examples: pa.Table) -> LedgerEntry:
        """Train and judge as of a day on these examples, as if they were what had landed; what has landed stays."""
        table, days = self.use_case.examples_table, DayRange(first=FIRST_LANDED, last=as_of - timedelta(days=1))
        warehouse = self.lifecycle.warehouse
        landed = rows_of_days(warehouse, table, days)
        warehouse.replace_days({table: examples}, days)
        workshop = self.life().workshop
        entry = train_and_promote(warehouse, self.lifecycle.store, self.use_case, as_of, workshop=workshop)
        warehouse.replace_days({table: landed}, days)
        return entry

    def query(self, sql: str) -> list[dict[str, object]]:
        """Return the rows of a SELECT."""
        return self.lifecycle.warehouse.query(sql).to_pylist()


@pytest.fixture(scope="session")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Home]:
    """The world at its fork, and the twin that lived on without any fault."""
    folder = tmp_path_factory.mktemp("scenarios")
    home, use_case = Home(path=folder / "home"), scenario_use_case()
    with environment_of(home.path):
        with only_use_case(use_case):
            lifecycle = Lifecycle(Environment.current())
        world = World(lifecycle=lifecycle, use_case=use_case, home=home, fork=Home(path=folder / "fork"))
        before = FORK - timedelta(days=1)
        world.land(DayRange(first=FIRST_LANDED, last=before))
        world.live(before)
        home.copy_to(world.fork.path)
        world.land()
        world.live()
        return world, home.copy_to(folder / "twin")


@pytest.fixture(scope="session")
def twin(_worlds: tuple[World, Home]) -> Home:
    """The home of the world in which nothing went wrong; to be read."""
    return _worlds[1]


@pytest.fixture
def world(_worlds: tuple[World, Home]) -> Iterator[World]:
    """The world on the morning of the fork: landed and lived to the day before."""
    world = _worlds[0]
    world.fork.copy_to(world.home.path)
    with environment_of(world.home.path):
        yield world


@pytest.fixture
def differs(world: World, twin: Home) -> Callable[[], Difference]:
    """Tell what is by now not as in the twin."""
    return lambda: difference(twin, world.home)
