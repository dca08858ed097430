"""The drift of days as it is written: of a range as of day after day, each by the model of its day."""

import dataclasses
from datetime import date, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core import drift
from ml_assets.core.drift import DRIFT_SCHEMA, build_reference, measure_drift, write_drift
from ml_assets.core.errors import BadInput
from ml_assets.core.feature_views import Feature
from ml_assets.core.ports import DayRange
from ml_assets.use_cases import load_use_cases

FIRST = date(2013, 7, 1)
DAYS = DayRange(first=FIRST, last=FIRST + timedelta(days=5))
INPUTS = [
    Feature(name="wind_speed_mph", kind="numeric", view="v"),
    Feature(name="carrier", kind="categorical", view="v"),
]
USE_CASE = next(use_case for use_case in load_use_cases() if use_case.name == "arrival_delay")
N = 40


def examples(shift: float = 0.0) -> pa.Table:
    generator = np.random.default_rng(1)
    n = N * len(DAYS.dates)
    return pa.table(
        {
            "decision_id": [f"{i}" for i in range(n)],
            "partition_on": pa.array([FIRST + timedelta(days=i // N) for i in range(n)], pa.date32()),
            "wind_speed_mph": pa.array(generator.normal(10 + shift, 3, n), mask=generator.random(n) < 0.1),
            "carrier": generator.choice(["AA", "UA", "B6", "ZZ"], n).tolist(),
        }
    )


# v1, then v2, an unpredicted day, and v1 again.
VERSIONS = ["v1", "v1", "v2", "v2", None, "v1"]
REFERENCES = {
    version: build_reference(examples(shift), INPUTS, np.linspace(0, 1, 240))
    for version, shift in (("v1", 0), ("v2", 9))
}


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch) -> DuckDBWarehouse:
    monkeypatch.setattr(
        drift, "recall_package", lambda store, name, version: SimpleNamespace(reference=REFERENCES[version])
    )
    rows = examples()
    of_rows = [VERSIONS[i // N] for i in range(rows.num_rows)]
    predictions = rows.select(["decision_id", "partition_on"])
    predictions = predictions.append_column("prediction", pa.array(np.linspace(0, 1, rows.num_rows)))
    predictions = predictions.append_column("model_version", pa.array(of_rows, pa.string()))
    warehouse = DuckDBWarehouse(None)
    predicted = predictions.filter(pa.compute.is_valid(predictions["model_version"]))
    warehouse.replace_days({USE_CASE.examples_table: rows, USE_CASE.predictions_table: predicted}, DAYS)
    return warehouse


def written(warehouse: DuckDBWarehouse) -> list[dict[str, object]]:
    return warehouse.query("select * from monitoring.drift order by partition_on, feature").to_pylist()


def test_a_range_writes_what_its_days_write_one_after_the_other(warehouse: DuckDBWarehouse):
    of_range = write_drift(warehouse, None, USE_CASE, DAYS)  # pyright: ignore[reportArgumentType] - no store is asked
    assert of_range.schema == DRIFT_SCHEMA
    first = written(warehouse)
    for day in DAYS.dates:
        write_drift(warehouse, None, USE_CASE, DayRange(first=day, last=day))  # pyright: ignore[reportArgumentType]
    assert written(warehouse) == first
    versions = {row["partition_on"]: row["model_version"] for row in first}
    expected = {day: version for day, version in zip(DAYS.dates, VERSIONS, strict=True) if version}
    assert versions == expected


def test_what_is_written_is_what_the_rows_at_hand_measure(warehouse: DuckDBWarehouse):
    rows = write_drift(warehouse, None, USE_CASE, DAYS).to_pylist()  # pyright: ignore[reportArgumentType]
    table = examples()
    scores = np.linspace(0, 1, table.num_rows)
    by_hand: list[dict[str, object]] = []
    for i, (day, version) in enumerate(zip(DAYS.dates, VERSIONS, strict=True)):
        if version:
            at_hand = table.slice(i * N, N)
            names = {"use_case": USE_CASE.name, "model_version": version, "day": day}
            by_hand += measure_drift(REFERENCES[version], at_hand, scores[i * N : (i + 1) * N], **names).to_pylist()
    key = lambda row: (row["partition_on"], row["feature"])  # noqa: E731
    for found, expected in zip(sorted(rows, key=key), sorted(by_hand, key=key), strict=True):
        for name, value in expected.items():
            # The middle of an array at hand is another origin than training's mean.
            close = pytest.approx(value, rel=1e-6) if name in ("mean", "sd") and value is not None else value
            assert found[name] == close, (found["partition_on"], found["feature"], name)


def test_the_rows_of_a_day_do_not_depend_on_later_days(warehouse: DuckDBWarehouse):
    before = write_drift(warehouse, None, USE_CASE, DAYS)  # pyright: ignore[reportArgumentType]
    last = DayRange(first=DAYS.last, last=DAYS.last)
    storm = examples(shift=60.0).slice((len(DAYS.dates) - 1) * N)
    warehouse.replace_days({USE_CASE.examples_table: storm}, last)
    after = write_drift(warehouse, None, USE_CASE, DAYS)  # pyright: ignore[reportArgumentType]
    earlier = pa.compute.field("partition_on") < pa.scalar(DAYS.last)
    assert after.filter(earlier) == before.filter(earlier)
    assert after != before


def test_a_day_of_two_models_is_refused(warehouse: DuckDBWarehouse):
    one = DayRange(first=FIRST, last=FIRST)
    mixed = warehouse.query(f"select * from {USE_CASE.predictions_table} where partition_on = $day", {"day": FIRST})
    mixed = mixed.set_column(3, "model_version", pa.array(["v2", *["v1"] * (N - 1)]))
    warehouse.replace_days({USE_CASE.predictions_table: mixed}, one)
    with pytest.raises(BadInput, match="predictions of v1 and v2 on 2013-07-01"):
        write_drift(warehouse, None, USE_CASE, DAYS)  # pyright: ignore[reportArgumentType]


def test_a_reference_of_an_earlier_release_has_no_carried_distance():
    old = dataclasses.replace(
        REFERENCES["v1"], features=tuple(dataclasses.replace(b, sd=None, mean=None) for b in REFERENCES["v1"].features)
    )
    names = {"use_case": "a", "model_version": "v1", "day": FIRST}
    rows = {row["feature"]: row for row in measure_drift(old, examples(), np.linspace(0, 1, 240), **names).to_pylist()}
    assert rows["wind_speed_mph"]["wasserstein"] is None
    assert rows["wind_speed_mph"]["ks"] is not None
