"""The quality of days as it is written: the same for a range as day after day, and nothing known too late is used."""

from datetime import date, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core import daily_quality
from ml_assets.core.daily_quality import write_performance
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.estimates import ErrorLevels
from ml_assets.core.expectations import DayNoise, Expectations
from ml_assets.core.monitored import ESTIMATED, PERFORMANCE, SHADOWS, SLICES
from ml_assets.core.spec import UseCase
from ml_assets.use_cases import air_time, arrival_delay

FIRST, N_DAYS, N_ROWS = date(2013, 6, 1), 12, 60
DAYS = DayRange(first=FIRST, last=FIRST + timedelta(days=N_DAYS - 1))
NEW_CHAMPION = FIRST + timedelta(days=8)
STORE = ObjectArtifactStore("memory://")
TABLES = (PERFORMANCE, SLICES, ESTIMATED, SHADOWS)
USE_CASES = {"binary_classification": arrival_delay.USE_CASE, "regression": air_time.USE_CASE}


@pytest.fixture(params=["binary_classification", "regression"])
def use_case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> UseCase:
    """A use case of either task, whose packages say what they expect and no more."""
    is_regression = request.param == "regression"
    p = np.linspace(0, 1, 400)
    expectations = Expectations(
        task=request.param,
        error_levels=ErrorLevels.of(p + np.tile([-0.2, 0.2], 200), p) if is_regression else None,
        day_noise={"rmse" if is_regression else "log_loss": DayNoise(variance=1e-4, n_days=35)},
    )
    package = SimpleNamespace(
        expectations=expectations, reference=SimpleNamespace(prediction=SimpleNamespace(edges=(0.3, 0.6)))
    )
    monkeypatch.setattr(daily_quality, "recall_package", lambda _store, _use_case, _version: package)
    return USE_CASES[request.param]


@pytest.fixture
def warehouse(use_case: UseCase) -> DuckDBWarehouse:
    """Twelve days, a new champion on the ninth; of every tenth flight the landing is known one or six days late."""
    generator = np.random.default_rng(12)
    found = DuckDBWarehouse(None)
    n_all = N_DAYS * N_ROWS
    place = np.arange(n_all)
    day = [FIRST + timedelta(days=int(i)) for i in place // N_ROWS]
    p = generator.random(n_all)
    is_true = generator.random(n_all) < p
    label = is_true if use_case.task != "regression" else p + generator.normal(0, 0.2, n_all)
    evening = [day_starts_at(of + timedelta(days=1)) - timedelta(hours=1) for of in day]
    late = np.where(place % 10 == 0, 1, np.where(place % 10 == 5, 6, 0))
    has_none = place % 30 == 7
    known_at = [
        None if none else at + timedelta(days=int(by)) for at, by, none in zip(evening, late, has_none, strict=True)
    ]
    ids = [f"{of}-{i:02}" for of, i in zip(day, place % N_ROWS, strict=True)]
    keys = {"decision_id": ids, "partition_on": pa.array(day, pa.date32())}
    examples = {
        **keys,
        "decided_at": pa.array(evening, pa.timestamp("us", tz="UTC")),
        **{name: [f"{name}{i % 3}" for i in place] for name in use_case.slices if name != "month"},
        "label": pa.array(label.tolist(), mask=has_none),
        "label_known_at": pa.array(known_at, pa.timestamp("us", tz="UTC")),
        "no_label_reason": ["cancelled" if none else None for none in has_none],
    }
    version = ["v2" if of >= NEW_CHAMPION else "v1" for of in day]
    worse = np.clip(p + generator.normal(0, 0.25, n_all), 0.01, 0.99)
    shadow = {**keys, "prediction": worse, "model_version": ["v0"] * n_all, "role": ["previous_1"] * n_all}
    found.replace_days(
        {
            use_case.examples_table: pa.table(examples),
            use_case.predictions_table: pa.table({**keys, "prediction": p, "model_version": version}),
            use_case.shadow_table: pa.table(shadow),
        },
        DAYS,
    )
    return found


def rows_in(warehouse: DuckDBWarehouse, table: str) -> pa.Table:
    return warehouse.query(f"select * from {table} order by all")


def everything(warehouse: DuckDBWarehouse) -> dict[str, pa.Table]:
    return {table: rows_in(warehouse, table) for table in TABLES}


def morning_after(day: date) -> datetime:
    return day_starts_at(day + timedelta(days=1))


def test_a_range_is_the_same_as_day_after_day_and_again_changes_nothing(warehouse, use_case):
    write_performance(warehouse, STORE, use_case, DAYS)
    at_once = everything(warehouse)
    assert [len(rows) > N_DAYS - 1 for rows in at_once.values()] == [True] * 4
    for day in DAYS.dates:
        write_performance(warehouse, STORE, use_case, DayRange(first=day, last=day))
    assert everything(warehouse) == at_once


def test_a_morning_that_is_replayed_sees_the_labels_of_that_morning(warehouse, use_case):
    day = FIRST + timedelta(days=3)
    only = DayRange(first=day, last=day)
    n_labelled = []
    for mornings in (1, 2, 7):
        moment = day_starts_at(day + timedelta(days=mornings))
        written = write_performance(warehouse, STORE, use_case, only, known_before=moment)
        (row,) = written.performance.to_pylist()
        n_labelled.append(row["n_labelled"])
        assert row["n_decisions"] == N_ROWS == row["n_labelled"] + row["n_unlabelled"]
        assert row["n_cancelled"] == 2  # a label that is not known yet is no cancellation
        assert set(written.estimates["n_labelled"].to_pylist()) == {row["n_labelled"]}
        slices = written.slices.filter(pc.field("slice") == use_case.slices[0])
        assert pc.sum(slices["n_labelled"]).as_py() == row["n_labelled"]
    # Of 60 flights 2 are cancelled, 6 known a day late, 6 after six days.
    assert n_labelled == [46, 52, 58]
    everything_landed = write_performance(warehouse, STORE, use_case, only)
    assert everything_landed.performance["n_labelled"].to_pylist() == [58]


def test_what_is_known_later_changes_what_came_true_and_never_what_was_judged(warehouse, use_case):
    day = FIRST + timedelta(days=7)
    only = DayRange(first=day, last=day)
    then = write_performance(warehouse, STORE, use_case, only, known_before=morning_after(day))
    now = write_performance(warehouse, STORE, use_case, only)
    judged = {
        "performance": [name for name in then.performance.column_names if name.startswith("week_")],
        "estimates": ["estimated", "low", "high", "mean_absolute_error", "mean_error", "is_reliable", "explanation"],
        "shadows": ["n_days_compared", "n_compared", "gain", "gain_low", "gain_high", "verdict", "explanation"],
    }
    for part, names in judged.items():
        assert getattr(then, part).select(names) == getattr(now, part).select(names)
    assert then.performance["n_labelled"].to_pylist() < now.performance["n_labelled"].to_pylist()
    assert then.estimates["error"] != now.estimates["error"]
    # The day itself was not over when it was judged, and of the days before the labels that took six days are not in.
    assert now.performance["week_n_days"].to_pylist() == [7]
    n_known = sum(58 if days_back >= 6 else 52 for days_back in range(1, 8))
    assert now.performance["week_n_labelled"].to_pylist() == [n_known]
    assert set(now.shadows["n_compared"].to_pylist()) == {n_known}


def test_nothing_of_a_later_day_reaches_an_earlier_one(warehouse, use_case):
    cut = DayRange(first=FIRST, last=FIRST + timedelta(days=5))
    write_performance(warehouse, STORE, use_case, DAYS)
    with_later = {
        t: rows.filter(pc.field("partition_on") <= pa.scalar(cut.last)) for t, rows in everything(warehouse).items()
    }
    later = DayRange(first=cut.last + timedelta(days=1), last=DAYS.last)
    for table in (use_case.examples_table, use_case.predictions_table, use_case.shadow_table):
        warehouse.replace_days({table: rows_in(warehouse, table).slice(0, 0)}, later)
    warehouse.replace_days({t: rows.slice(0, 0) for t, rows in with_later.items()}, DAYS, use_case=use_case.name)
    write_performance(warehouse, STORE, use_case, cut)
    assert everything(warehouse) == with_later


def test_a_new_champion_starts_with_a_clean_slate(warehouse, use_case):
    write_performance(warehouse, STORE, use_case, DAYS)
    checked = {row["partition_on"]: row["n_days_checked"] for row in rows_in(warehouse, ESTIMATED).to_pylist()}
    assert [checked[FIRST + timedelta(days=n)] for n in (0, 1, 7, 8, 9, 11)] == [0, 1, 7, 0, 1, 3]
    shadows = {row["partition_on"]: row for row in rows_in(warehouse, SHADOWS).to_pylist()}
    assert shadows[NEW_CHAMPION]["verdict"] == "too few days"
    last = shadows[DAYS.last]
    assert (last["model_version"], last["other_version"], last["n_days_compared"]) == ("v2", "v0", 3)


def test_a_champion_that_ranks_with_less_noise_is_shown_to_be_better(warehouse, use_case):
    write_performance(warehouse, STORE, use_case, DAYS)
    row = {of["partition_on"]: of for of in rows_in(warehouse, SHADOWS).to_pylist()}[FIRST + timedelta(days=7)]
    assert row["verdict"] == "better"
    assert 0 < row["gain_low"] < row["gain"] < row["gain_high"]
    loss = "rmse" if use_case.task == "regression" else "log_loss"
    assert row[f"other_{loss}"] > row[loss]
    assert row["explanation"].startswith("better: over 7 days")
    assert "lower than that of the champion before" in row["explanation"]


def test_days_without_shadows_or_predictions_are_no_error(warehouse, use_case):
    warehouse.replace_days({use_case.shadow_table: rows_in(warehouse, use_case.shadow_table).slice(0, 0)}, DAYS)
    before = DayRange(first=FIRST - timedelta(days=3), last=FIRST)
    written = write_performance(warehouse, STORE, use_case, before)
    assert written.performance["partition_on"].to_pylist() == [FIRST]
    assert written.shadows.num_rows == 0
