"""The staleness backtest on a small world whose rule is known to change, and the curve fitted to it."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.costs_of_age import AGES_IN_WEEKS, costs_of_age, headline_of
from ml_assets.core.errors import BadInput, DataMissing, TrainingDataMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.spec import Decisions, Label, SplitRule, UseCase
from ml_assets.core.staleness import measure_staleness, plan
from ml_assets.core.staleness_curves import StalenessCurve, isotonic, load_curve, newest_curve, save_curve
from ml_assets.core.tasks import CLASSIFICATION, REGRESSION
from tests.core.conftest import MemoryStore

FIRST, LAST = date(2013, 1, 1), date(2013, 4, 20)
AS_OF = date(2013, 4, 10)
USE_CASE = UseCase(
    name="delay",
    question="Late?",
    owners=("team:x",),
    task="binary_classification",
    decisions=Decisions(table="a.b", event_at="at", lead_time=timedelta(hours=2)),
    label=Label(table="c.d"),
    features=("view",),
    trainer="sklearn",
    hyperparameters={"estimator": "logistic_regression"},
    split=SplitRule(train_days=14, validation_days=2, test_days=3, minimum_train_days=3),
)
INPUTS = (Feature(name="x", view="view", kind="numeric", description="A number.", unit=None),)


def starts_at(day: date) -> datetime:
    return datetime.combine(day, time(5), UTC)


def world(*, turn_days: float, seed: int = 1) -> pa.Table:
    """Forty decisions a day on one number; the sign of its effect turns round once in ``turn_days``."""
    random, parts = np.random.default_rng(seed), []
    for n in range((LAST - FIRST).days + 1):
        day, x = FIRST + timedelta(days=n), random.normal(size=40)
        effect = 3 * np.cos(2 * np.pi * n / turn_days)
        label = random.random(40) < 1 / (1 + np.exp(-effect * x))
        parts.append(
            {
                "decision_id": [f"{day}-{i:02}" for i in range(40)],
                "partition_on": [day] * 40,
                "decided_at": [starts_at(day)] * 40,
                "x": x.tolist(),
                "label": label.tolist(),
                "label_known_at": [starts_at(day) + timedelta(hours=20)] * 40,
            }
        )
    columns = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    types = {"partition_on": pa.date32(), "decided_at": pa.timestamp("us", tz="UTC")}
    types["label_known_at"] = types["decided_at"]
    return pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()})


def measure(table: pa.Table, store: MemoryStore, folder: Path, *, as_of: date = AS_OF, **changed) -> StalenessCurve:
    settings = {
        "use_case": USE_CASE,
        "inputs": INPUTS,
        "as_of": as_of,
        "starts_at": starts_at,
        "n_train_rows": 400,
        "code_version": "1",
        "store": store,
        "on_step": lambda *_: None,
        "work_folder": folder,
    }
    known = table.filter(pa.compute.field("partition_on") < pa.scalar(as_of - timedelta(days=1)))
    return measure_staleness(known, **settings | changed)


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> StalenessCurve:
    """Measured where the rule turns."""
    return measure(world(turn_days=200), MemoryStore(), tmp_path_factory.mktemp("turning"))


def test_a_plan_has_a_fresh_model_for_each_window_that_is_over_and_none_before_the_first_date():
    found = plan(first_as_of=date(2013, 2, 1), as_of=AS_OF, gap_days=1)
    assert found.windows[-1] + timedelta(days=14) <= AS_OF - timedelta(days=1)
    assert min(found.models) >= date(2013, 2, 1)
    for window in found.windows:
        ages = sorted((window - as_of).days // 7 for as_of, scored in found.models.items() if window in scored)
        assert ages[0] == 0
        assert ages[1:]
        assert set(ages[1:]) <= set(AGES_IN_WEEKS)
    # What is measured later has the same windows, so that what is done need not be done again.
    later = plan(first_as_of=date(2013, 2, 1), as_of=AS_OF + timedelta(days=30), gap_days=1)
    assert later.windows[: len(found.windows)] == found.windows


def test_where_the_rule_turns_age_costs_and_where_it_does_not_age_costs_nothing(
    turning: StalenessCurve, tmp_path: Path
):
    still = measure(world(turn_days=1e9), MemoryStore(), tmp_path)
    assert [age.weeks for age in turning.ages] == [1, 2, 4, 8]
    fitted = [age.fitted for age in turning.ages]
    assert fitted == sorted(fitted)
    assert fitted[0] > 0.01
    assert fitted[-1] > 0.2
    assert all(age.cost_low > 0 for age in turning.ages[1:])
    assert all(age.headline_loss > 0 for age in turning.ages[1:])
    assert max(age.fitted for age in still.ages) < 0.01
    assert all(age.cost_low < 0.005 for age in still.ages)
    assert turning.useful_days(0.05) < 14 < still.useful_days(0.05) == 56


def test_nothing_of_the_as_of_date_or_later_counts_and_no_label_of_before_that_was_not_known(tmp_path: Path):
    table = world(turn_days=200)
    with pytest.raises(BadInput, match="earlier days only"):
        measure_staleness(
            table,
            use_case=USE_CASE,
            inputs=INPUTS,
            as_of=AS_OF,
            starts_at=starts_at,
            n_train_rows=400,
            code_version="1",
            store=MemoryStore(),
            on_step=lambda *_: None,
            work_folder=tmp_path,
        )
    # Labels turned round that became known only after every model had been trained: no model may have seen them.
    known = table.filter(pa.compute.field("partition_on") < pa.scalar(AS_OF - timedelta(days=1)))
    is_late = np.arange(known.num_rows) % 10 == 0
    late_at = np.where(is_late, np.datetime64(starts_at(AS_OF).replace(tzinfo=None), "us"), known["label_known_at"])
    late = known.set_column(
        known.column_names.index("label_known_at"), "label_known_at", pa.array(late_at, pa.timestamp("us", tz="UTC"))
    )
    turned = np.where(is_late, ~known["label"].to_numpy(), known["label"].to_numpy())
    both = late.set_column(late.column_names.index("label"), "label", pa.array(turned.astype(bool)))
    one, other = MemoryStore(), MemoryStore()
    measure(late, one, tmp_path), measure(both, other, tmp_path)
    predictions = [sorted(v for k, v in s.files.items() if "/predictions/" in k) for s in (one, other)]
    assert predictions[0] == predictions[1]
    assert predictions[0]


def test_a_measurement_killed_anywhere_goes_on_where_it_was_and_comes_to_the_same(
    turning: StalenessCurve, tmp_path: Path
):
    class Killed(BaseException):
        pass

    table, store, trained = world(turn_days=200), MemoryStore(), list[int]()

    for kill_at in (3, 6):

        def on_step(what: str, number: int, n: int, kill_at: int = kill_at) -> None:
            trained.append(len(store.files))
            if number == kill_at:
                raise Killed

        with pytest.raises(Killed):
            measure(table, store, tmp_path, on_step=on_step)
    # The second call found what the first had done: two models, and trained three more.
    assert trained == [0, 1, 2, 2, 2, 2, 3, 4, 5][: len(trained)]
    assert measure(table, store, tmp_path) == turning
    n_files = len(store.files)
    measure(table, store, tmp_path)
    assert len(store.files) == n_files == turning.n_models
    # Damaged predictions are made again; other settings are another measurement.
    path = next(iter(store.files))
    store.files[path] = b"torn"
    assert measure(table, store, tmp_path) == turning
    assert measure(table, store, tmp_path, n_train_rows=300).fingerprint != turning.fingerprint


def test_too_few_days_are_told_what_is_missing(tmp_path: Path):
    with pytest.raises(TrainingDataMissing, match="12 for the first model and 21 more"):
        measure(world(turn_days=200), MemoryStore(), tmp_path, as_of=date(2013, 1, 20))


def test_the_costs_of_two_windows_by_hand():
    """Fresh is sure of every label, the model of a week before says one half: 1 - log(0.5) / log(0.8)."""
    one, two = date(2013, 3, 4), date(2013, 3, 18)
    days = [one + timedelta(days=n) for n in range(2)]
    windows = {
        first: pa.table({"partition_on": pa.array([*days, *days], pa.date32()), "label": [True, False, False, True]})
        for first in (one, two)
    }
    fresh, aged = np.array([0.8, 0.2, 0.2, 0.8]), np.full(4, 0.5)
    predictions = {
        (first - timedelta(weeks=weeks), first): p for first in windows for weeks, p in ((0, fresh), (1, aged))
    }
    [cost] = costs_of_age(windows, predictions, meaning=CLASSIFICATION, seed=1)
    assert (cost.weeks, cost.n_windows, cost.n_rows) == (1, 2, 8)
    assert cost.fresh_loss == pytest.approx(-np.log(0.8))
    assert cost.cost == cost.fitted == pytest.approx(np.log(0.5) / np.log(0.8) - 1)
    # Every day says the same, so nothing is unsure.
    assert cost.cost_low == pytest.approx(cost.cost_high)
    # A sure model ranks all pairs rightly, one that says the same of all half of them.
    assert cost.headline_loss == pytest.approx(0.5)
    assert (headline_of(CLASSIFICATION).name, headline_of(REGRESSION).name) == ("roc_auc", "mae")


def test_limits_of_costs_hold_as_often_as_they_say():
    """Models of equal worth whose luck is shared by the days of a fortnight: 0 is between them 95 times in 100."""
    random, n_held, n_runs = np.random.default_rng(5), 0, 40
    for run in range(n_runs):
        windows, predictions = {}, {}
        for n in range(10):
            first = date(2013, 3, 4) + timedelta(days=14 * n)
            days = [first + timedelta(days=d) for d in range(14) for _ in range(4)]
            y = random.normal(size=56)
            windows[first] = pa.table({"partition_on": pa.array(days, pa.date32()), "label": y})
            for weeks in (0, 1):
                luck = random.normal(0, 0.3)
                predictions[first - timedelta(weeks=weeks), first] = y + luck + random.normal(size=56)
        [cost] = costs_of_age(windows, predictions, meaning=REGRESSION, seed=run)
        n_held += cost.cost_low <= 0 <= cost.cost_high
    # Ten fortnights are few for a bootstrap: a little less than 95 is what it gives.
    assert n_held >= 0.8 * n_runs


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ([0.1, 0.2, 0.3], [1, 1, 1], [0.1, 0.2, 0.3]),
        ([0.3, 0.1, 0.2], [1, 1, 1], [0.2, 0.2, 0.2]),
        ([0.3, 0.1], [1, 3], [0.15, 0.15]),
        ([-0.2, 0.1], [1, 1], [0.0, 0.1]),
        ([-0.2, -0.3, -0.1], [1, 1, 1], [0.0, 0.0, 0.0]),
    ],
)
def test_costs_are_made_not_to_fall_by_pooling_neighbours(values, weights, expected):
    assert isotonic(np.array(values), np.array(weights, float)).tolist() == pytest.approx(expected)


def test_the_fit_is_that_of_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    random = np.random.default_rng(3)
    for _ in range(50):
        values, weights = random.normal(size=6), random.uniform(0.1, 3, size=6)
        expected = IsotonicRegression(y_min=0.0).fit_transform(np.arange(6), values, sample_weight=weights)
        assert isotonic(values, weights) == pytest.approx(expected)


def test_a_curve_is_written_once_and_of_several_the_newest_known_counts(turning: StalenessCurve):
    store, curve = MemoryStore(), turning
    save_curve(store, curve)
    save_curve(store, curve)
    with pytest.raises(BadInput, match="decisions rest on it"):
        save_curve(store, replace(curve, fingerprint="another"))
    later = replace(curve, as_of=AS_OF + timedelta(days=30))
    save_curve(store, later)
    assert load_curve(store, "delay", AS_OF) == curve
    assert newest_curve(store, "delay") == later
    assert newest_curve(store, "delay", AS_OF + timedelta(days=29)) == curve
    assert newest_curve(store, "delay", AS_OF - timedelta(days=1)) is None
    with pytest.raises(DataMissing, match="ml-assets staleness --use-case delay --as-of 2013-01-01"):
        load_curve(store, "delay", date(2013, 1, 1))


def test_the_page_says_all_figures_and_whether_the_declaration_holds(turning: StalenessCurve):
    from ml_assets.core.reports.staleness import staleness_report

    curve = turning
    page = staleness_report(curve, USE_CASE.retraining, question="<script>Late?")
    for age in curve.ages:
        assert f"{100 * age.cost:+.2f}" in page
        assert f"{100 * age.fitted:+.2f}" in page
    assert "too old" in page
    assert "maximum_age_days is 28" in page
    assert "<script>" not in page
    held = replace(USE_CASE.retraining, maximum_age_days=7)
    assert "holds" in staleness_report(curve, held, question="Late?")
