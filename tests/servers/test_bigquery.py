"""The BigQuery test server, asked by the real clients only."""

import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from tests.servers.bigquery import BigQueryServer

PROJECT = "acme-ml-staging"
DAY = date(2013, 7, 1)
MOMENT = datetime(2013, 7, 1, 5, 0, 0, 123456, tzinfo=UTC)
FLIGHTS = pa.table(
    {
        "partition_on": pa.array([DAY, DAY]),
        "flight": pa.array([1545, None], pa.int64()),
        "delay": pa.array([1.5, -0.25]),
        "carrier": pa.array(['U"A\né', None]),
        "left_at": pa.array([MOMENT, None], pa.timestamp("us", "UTC")),
        "is_late": pa.array([True, False]),
        "blob": pa.array([b"\x00a", b""]),
    }
)


@pytest.fixture
def server() -> Iterator[BigQueryServer]:
    with BigQueryServer(project=PROJECT, location="US") as server:
        yield server


@pytest.fixture
def client(server: BigQueryServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[bigquery.Client]:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.address)
    with bigquery.Client(project=PROJECT, credentials=AnonymousCredentials(), location="US") as client:
        client.create_dataset("raw")
        yield client


def load(client: bigquery.Client, rows: pa.Table, table: str, *, is_resumable: bool = False, **config: Any) -> int:
    file = io.BytesIO()
    pq.write_table(rows, file)
    size = None if is_resumable else file.tell()
    file.seek(0)
    options = bigquery.LoadJobConfig(source_format="PARQUET", **config)
    return client.load_table_from_file(file, f"{PROJECT}.{table}", size=size, job_config=options).result().output_rows


def rows(client: bigquery.Client, sql: str, **config: Any) -> list[tuple[Any, ...]]:
    found = client.query(sql, job_config=bigquery.QueryJobConfig(**config), job_retry=None).result()
    return [tuple(row.values()) for row in found]


@pytest.mark.parametrize("is_resumable", [False, True])
def test_a_parquet_file_comes_back_value_by_value(client: bigquery.Client, is_resumable: bool):
    assert load(client, FLIGHTS, "raw.flights", is_resumable=is_resumable) == 2
    found = client.query("SELECT * FROM raw.flights").result().to_arrow(create_bqstorage_client=False)
    assert found == FLIGHTS


def test_values_of_every_type_come_in_bigquerys_form(client: bigquery.Client):
    sql = """SELECT 9007199254740993 AS i, 0.1 AS f, NUMERIC '1.50' AS n, TRUE AS b, 'x' AS s, b'\\x01' AS y,
        DATE '2013-03-10' AS d, TIMESTAMP '2013-03-10 02:30:00-05' AS t, DATETIME '2013-03-10 02:30:00' AS dt,
        [1, 2] AS a, STRUCT(1 AS x, 'q' AS y) AS st, [STRUCT(1 AS p)] AS sa, CAST(NULL AS FLOAT64) AS z,
        CAST('nan' AS FLOAT64) > 1 AS nan, 7"""
    ((i, f, n, b, s, y, d, t, dt, a, st, sa, z, nan, seven),) = rows(client, sql)
    assert (i, f, n, b, s, y) == (9007199254740993, 0.1, Decimal("1.5"), True, "x", b"\x01")
    assert (d, t) == (date(2013, 3, 10), datetime(2013, 3, 10, 7, 30, tzinfo=UTC))
    assert dt == datetime(2013, 3, 10, 2, 30)  # noqa: DTZ001 - a DATETIME has no zone
    assert (a, st, sa, z, seven) == ([1, 2], {"x": 1, "y": "q"}, [{"p": 1}], None, 7)


def test_what_is_named_in_no_dataset_of_the_location_is_not_found(client: bigquery.Client):
    load(client, FLIGHTS, "raw.flights")
    elsewhere = bigquery.QueryJobConfig()
    with pytest.raises(exceptions.NotFound, match="raw was not found in location EU"):
        client.query("SELECT * FROM raw.flights", location="EU", job_config=elsewhere, job_retry=None).result()
    with pytest.raises(exceptions.NotFound, match=r"Not found: Table acme-ml-staging:raw\.nothing"):
        rows(client, "SELECT * FROM raw.nothing")
