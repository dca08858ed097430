"""Flights and schedules in S3 join with weather in GCS in one use case, as if all came from the package."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.days import DayRange
from tests.backends.sources.test_files import as_csv, as_parquet
from tests.conftest import Home, environment_of, small_life
from tests.servers.landing import gcs_place, s3_place
from tests.servers.s3 import KEYS

pytestmark = pytest.mark.slow

DAYS = DayRange(first=date(2013, 1, 1), last=date(2013, 1, 2))


@contextmanager
def landing_buckets(s3: str, gcs) -> Iterator[dict[str, str]]:
    """The two days as other people's files, and the variables that say where they are."""
    packaged = NycFlights13Source(is_replaying=False)
    with (
        s3_place(s3, "several/flights") as flights,
        s3_place(s3, "several/schedules") as schedules,
        gcs_place(gcs, "several/weather") as weather,
    ):
        for day in DAYS.dates:
            one = DayRange(first=day, last=day)
            flights.put(f"{day}/part-0.parquet", as_parquet(packaged.read("flights", one)))
            schedules.put(f"partition_on={day}/part-0.csv", as_csv(packaged.read("schedules", one)))
            weather.put(f"{day}/part-0.parquet", as_parquet(packaged.read("weather", one)))
        sources = {"flights": flights.url, "schedules": schedules.url, "weather": weather.url}
        yield {
            **KEYS,
            "AWS_ENDPOINT_URL": s3,
            "STORAGE_EMULATOR_HOST": gcs.url,
            "ML_ASSETS_SOURCES": " ".join(f"{table}={url}" for table, url in sources.items()),
        }


def landed(home: Path, variables: dict[str, str]) -> dict[str, pa.Table]:
    with environment_of(home), pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        lifecycle, _ = small_life(lambda _: None)
        lifecycle.run_groups(("raw", "features", "examples"), DAYS)
    return Home(path=home).tables()


def test_every_table_and_example_is_the_one_of_the_packaged_source(s3: str, gcs, tmp_path: Path):
    with landing_buckets(s3, gcs) as variables:
        from_files = landed(tmp_path / "files", variables)
    packaged = landed(tmp_path / "packaged", {})
    assert packaged["examples.arrival_delay"].num_rows > 1500
    assert sorted(from_files) == sorted(packaged)
    assert [name for name, rows in packaged.items() if not from_files[name].equals(rows)] == []
