"""Flights and schedules in S3, weather in BigQuery and planes in GCS join in one use case, as if all were packaged."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from google.auth.credentials import AnonymousCredentials, CredentialsWithRegionalAccessBoundary
from google.cloud import bigquery

from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.days import DayRange
from tests.backends.sources.test_files import as_csv, as_parquet
from tests.conftest import Home, environment_of, small_life
from tests.servers.bigquery import BigQueryServer
from tests.servers.landing import gcs_place, s3_place
from tests.servers.s3 import KEYS
from tests.test_doctor import service_account

pytestmark = pytest.mark.slow

DAYS = DayRange(first=date(2013, 1, 1), last=date(2013, 1, 2))
PROJECT = "acme-weather"


@contextmanager
def landing_places(s3: str, gcs, folder: Path) -> Iterator[tuple[dict[str, str], BigQueryServer]]:
    """The two days as other people keep them, and the variables that say where they are."""
    packaged = NycFlights13Source(is_replaying=False)
    with (
        s3_place(s3, "several/flights") as flights,
        s3_place(s3, "several/schedules") as schedules,
        gcs_place(gcs, "several/planes") as planes,
        BigQueryServer(PROJECT) as server,
    ):
        for day in DAYS.dates:
            one = DayRange(first=day, last=day)
            flights.put(f"{day}/part-0.parquet", as_parquet(packaged.read("flights", one)))
            schedules.put(f"partition_on={day}/part-0.csv", as_csv(packaged.read("schedules", one)))
        planes.put("planes.csv", as_csv(packaged.read("planes")))
        # A day more, and no column that says the local day: the moment of each hour tells it.
        longer = DayRange(first=DAYS.first, last=DAYS.last + timedelta(days=1))
        load(server, "weather", packaged.read("weather", longer).drop_columns("partition_on"))
        sources = {
            "flights": flights.url,
            "schedules": schedules.url,
            "planes": planes.url,
            "weather": f"bigquery://{PROJECT}/lake/weather?day=time_hour",
        }
        variables = {
            **KEYS,
            "AWS_ENDPOINT_URL": s3,
            "STORAGE_EMULATOR_HOST": gcs.url,
            "BIGQUERY_EMULATOR_HOST": server.address,
            "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(folder / "google.json", server)),
            "ML_ASSETS_SOURCES": " ".join(f"{table}={url}" for table, url in sources.items()),
        }
        yield variables, server


def load(server: BigQueryServer, name: str, rows: pa.Table) -> None:
    """Load rows into a table of the dataset ``lake``, as its owner does."""
    with bigquery.Client(
        project=PROJECT, credentials=AnonymousCredentials(), client_options={"api_endpoint": server.address}
    ) as client:
        client.create_dataset("lake")
        config = bigquery.LoadJobConfig(source_format=bigquery.SourceFormat.PARQUET)
        job = client.load_table_from_file(io.BytesIO(as_parquet(rows)), f"{PROJECT}.lake.{name}", job_config=config)
        assert job.result().output_rows == rows.num_rows


def landed(home: Path, variables: dict[str, str]) -> dict[str, pa.Table]:
    with environment_of(home), pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        # google-auth asks Google itself, in the background, in which places the account may be used.
        patch.setattr(
            CredentialsWithRegionalAccessBoundary, "_maybe_start_regional_access_boundary_refresh", lambda *_: None
        )
        lifecycle, _ = small_life(lambda _: None)
        lifecycle.run_groups(("raw", "features", "examples"), DAYS)
    return Home(path=home).tables()


def test_every_table_and_example_is_the_one_of_the_packaged_source(s3: str, gcs, tmp_path: Path):
    with landing_places(s3, gcs, tmp_path) as (variables, server):
        from_elsewhere = landed(tmp_path / "elsewhere", variables)
        # The weather was asked of BigQuery, the warehouse of this run is DuckDB.
        assert [sql for sql in server.queries() if "lake.weather" in sql] == server.queries() != []
    packaged = landed(tmp_path / "packaged", {})
    assert packaged["examples.arrival_delay"].num_rows > 1500
    assert packaged["raw.weather"].num_rows > 100
    assert sorted(from_elsewhere) == sorted(packaged)
    assert [name for name, rows in packaged.items() if not from_elsewhere[name].equals(rows)] == []
