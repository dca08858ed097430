"""BigQuery counts what DuckDB counts, to the bit."""

import math
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.backends.bigquery_warehouse import BigQueryWarehouse
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.column_statistics import column_statistics
from ml_assets.core.feature_views import Feature
from ml_assets.core.ports import DayRange
from ml_assets.core.reference import build_reference
from tests.servers.bigquery import BigQueryServer

SEED = 20130701
FIRST = date(2013, 7, 1)
DAYS = DayRange(first=FIRST, last=FIRST + timedelta(days=2))
INPUTS = [
    *(Feature(name=name, kind="numeric", view="v") for name in ("wind", "delay", "n_flights", "is_holiday", "unknown")),
    *(Feature(name=name, kind="categorical", view="v") for name in ("carrier", "weekday")),
]


def examples(n: int, *, spread: float = 1.0) -> pa.Table:
    generator = np.random.default_rng(SEED)
    wind = generator.normal(11.3, spread, n)
    odd = np.array([math.nan, math.inf, -math.inf, 1e300, -0.0, 0.1 + 0.2])
    wind[: len(odd)] = odd
    return pa.table(
        {
            "partition_on": pa.array([FIRST + timedelta(days=int(i) % 3) for i in range(n)], pa.date32()),
            "wind": pa.array(wind, mask=generator.random(n) < 0.1),
            "delay": pa.array(np.round(generator.normal(-3, 40, n), 1)),
            "n_flights": pa.array(generator.integers(0, 30, n)),
            "is_holiday": pa.array(generator.random(n) < 0.2),
            "unknown": pa.array([None] * n, pa.float64()),
            "carrier": pa.array(generator.choice([*(f"C{i}" for i in range(60)), "O'Hare", 'a"b`\\', ""], n)),
            "weekday": pa.array(generator.integers(0, 7, n)),
        }
    )


@pytest.fixture
def bins():
    rows = examples(300)
    training = rows.filter(pa.compute.is_finite(rows["wind"])).slice(3)
    return build_reference(training, INPUTS, np.zeros(training.num_rows)).features


def test_bigquery_counts_what_duckdb_counts(bins, bigquery: BigQueryServer):
    from dagster_gcp import BigQueryResource

    there = BigQueryWarehouse(BigQueryResource(project=bigquery.project, location="US").get_client, location="US")
    here = DuckDBWarehouse(None)
    for warehouse in (here, there):
        warehouse.replace_days({"examples.delay": examples(400, spread=3.0)}, DAYS)
    ours, theirs = (column_statistics(warehouse, "examples.delay", bins, DAYS) for warehouse in (here, there))
    assert list(ours) == list(theirs) == list(DAYS.dates)
    for day in DAYS.dates:
        assert list(ours[day]) == list(theirs[day]) == [b.feature for b in bins]
        for name, found in ours[day].items():
            other = theirs[day][name]
            assert (found.counts.tolist(), found.moments, found.unseen) == (
                other.counts.tolist(),
                other.moments,
                other.unseen,
            ), name
