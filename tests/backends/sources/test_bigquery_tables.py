"""A raw table from BigQuery: its days and columns alone, in the contract's types, or an error that says what to do."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from ml_assets.backends.environments import Environment
from ml_assets.backends.sources.bigquery_tables import BigQueryTablesSource
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.backends.sources.nycflights13_contracts import CONTRACTS
from ml_assets.core.contracts import Column, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import (
    BadInput,
    ContractBroken,
    InvalidName,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from ml_assets.core.landing import landing
from ml_assets.resources import source_of
from tests.servers.bigquery import BigQueryServer
from tests.servers.unreliable import Unreliable

PROJECT = "acme-ml-staging"
MONDAY, TUESDAY = date(2013, 7, 1), date(2013, 7, 2)
DAYS = DayRange(first=MONDAY, last=TUESDAY)
SEEN = Contract(
    table="seen",
    description="Seen.",
    columns=(
        Column(name="partition_on", type=pa.date32(), description="Local day."),
        Column(name="carrier", type=pa.string(), description="Airline.", nullable=True),
        Column(name="flight", type=pa.int32(), description="Number."),
        Column(name="delay", type=pa.float64(), description="Minutes.", nullable=True),
        Column(name="fare", type=pa.decimal128(9, 2), description="Dollars.", nullable=True),
        Column(name="is_late", type=pa.bool_(), description="Late.", nullable=True),
        Column(name="seen_at", type=pa.timestamp("us", "UTC"), description="When."),
    ),
    key=("flight",),
    is_partitioned=True,
)


def row(day: date, flight: int, seen_at: datetime) -> dict[str, object]:
    fare = Decimal("19.90") if flight != 2 else None
    full = {"carrier": "UA", "delay": -1.5, "fare": fare, "is_late": True}
    return {"partition_on": day, "flight": flight, "seen_at": seen_at, **full, "gate": "A7"}


# New York is four hours behind: Monday begins at 04:00 UTC.
ROWS = [
    row(date(2013, 6, 30), 1, datetime(2013, 7, 1, 3, 59, tzinfo=UTC)),
    row(MONDAY, 2, datetime(2013, 7, 1, 4, 0, tzinfo=UTC)),
    row(TUESDAY, 3, datetime(2013, 7, 3, 3, 59, 59, tzinfo=UTC)),
    row(date(2013, 7, 3), 4, datetime(2013, 7, 3, 4, 0, tzinfo=UTC)),
]
SCHEMA = [
    *(bigquery.SchemaField("partition_on", "DATE"), bigquery.SchemaField("carrier", "STRING")),
    *(bigquery.SchemaField("flight", "INT64"), bigquery.SchemaField("delay", "FLOAT64")),
    *(bigquery.SchemaField("fare", "NUMERIC"), bigquery.SchemaField("is_late", "BOOL")),
    *(bigquery.SchemaField("seen_at", "TIMESTAMP"), bigquery.SchemaField("gate", "STRING")),
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    with BigQueryServer(project=PROJECT, location="US", page_rows=3) as server:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.address)
        yield server


@pytest.fixture
def connect(server: BigQueryServer) -> Callable[[], AbstractContextManager[bigquery.Client]]:
    return lambda: bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())


@pytest.fixture
def source(connect: Callable[[], AbstractContextManager[bigquery.Client]]) -> BigQueryTablesSource:
    """A source on a table that lies in the EU, with four rows around two days."""
    with connect() as client:
        dataset = bigquery.Dataset(f"{PROJECT}.lake")
        dataset.location = "EU"
        client.create_dataset(dataset)
        table = client.create_table(bigquery.Table(f"{PROJECT}.lake.seen", schema=SCHEMA))
        assert client.insert_rows(table, ROWS) == []
    return BigQueryTablesSource(project=PROJECT, dataset="lake", table="seen", contract=SEEN, connect=connect)


def landed(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist([{n: r[n] for n in SEEN.schema.names} for r in rows], schema=SEEN.schema)


def test_the_days_asked_for_come_in_the_contracts_columns_and_types(
    source: BigQueryTablesSource, server: BigQueryServer
):
    found = source.read("seen", DAYS)
    assert found.sort_by("flight").equals(landed(ROWS[1:3]))
    (sql,) = server.queries()
    assert "gate" not in sql
    assert "`partition_on` >= @first AND `partition_on` < @end" in sql, "BigQuery prunes by constant bounds"
    assert "2013" not in sql, "values are bound, not written into the statement"


def test_a_moment_tells_the_local_day(source: BigQueryTablesSource):
    wrong_day = replace(source, day_column="seen_at")
    assert wrong_day.read("seen", DAYS).sort_by("flight").equals(landed(ROWS[1:3]))
    assert wrong_day.note(DAYS) == "bigquery://acme-ml-staging/lake/seen, 2013-07-01..2013-07-02 by seen_at"


def test_the_day_of_the_clock_change_has_25_hours(connect: Callable[[], AbstractContextManager[bigquery.Client]]):
    contract, sunday = CONTRACTS["weather"], DayRange(first=date(2013, 11, 3), last=date(2013, 11, 3))
    around = DayRange(first=date(2013, 11, 2), last=date(2013, 11, 4))
    packaged = NycFlights13Source(is_replaying=False)
    rows = packaged.read("weather", around).drop_columns("partition_on")
    with connect() as client:
        client.create_dataset("lake")
        kinds = {"int64": "INT64", "double": "FLOAT64", "string": "STRING"}
        fields = [bigquery.SchemaField(f.name, kinds.get(str(f.type), "TIMESTAMP")) for f in rows.schema]
        table = client.create_table(bigquery.Table(f"{PROJECT}.lake.weather", schema=fields))
        assert client.insert_rows(table, rows.to_pylist()) == []
    source = BigQueryTablesSource(
        project=PROJECT, dataset="lake", table="weather", contract=contract, connect=connect, day_column="time_hour"
    )
    keys = [(name, "ascending") for name in contract.key]
    found, expected = source.read("weather", sunday).sort_by(keys), packaged.read("weather", sunday).sort_by(keys)
    assert found.equals(expected.combine_chunks())
    # Summer time ends: that night's midnight is 05:00 UTC, so that the hour of 04:00 still belongs to the Sunday.
    assert max(found["time_hour"].to_pylist()) == datetime(2013, 11, 4, 4, tzinfo=UTC)


def test_pages_come_one_after_the_other_and_a_lost_one_is_asked_for_again(
    source: BigQueryTablesSource, server: BigQueryServer
):
    days = DayRange(first=date(2013, 6, 1), last=date(2013, 7, 31))
    server.fail_next(2, path="GET /projects/.*/queries/.*|GET .*/data")
    parts = list(source.batches("seen", days))
    assert len(parts) == 2, "four rows, three to a page"
    assert sorted(pa.concat_tables(parts)["flight"].to_pylist()) == [1, 2, 3, 4]


def test_a_table_without_days_is_read_whole(source: BigQueryTablesSource):
    columns = tuple(column for column in SEEN.columns if column.name != "partition_on")
    whole = replace(source, contract=replace(SEEN, columns=columns, is_partitioned=False))
    assert sorted(whole.read("seen")["flight"].to_pylist()) == [1, 2, 3, 4]


def test_a_column_that_is_missing_or_of_another_type_is_named_before_anything_is_read(
    source: BigQueryTablesSource, server: BigQueryServer
):
    columns = (
        *SEEN.columns[:2],
        Column(name="flight", type=pa.string(), description="Number."),
        Column(name="wind_mph", type=pa.float64(), description="Wind."),
    )
    other = replace(source, contract=replace(SEEN, columns=columns))
    with pytest.raises(
        ContractBroken, match=r"'flight' is INT\w+, not string; column 'wind_mph' is missing. Found part"
    ):
        other.read("seen", DAYS)
    with pytest.raises(ContractBroken, match=r"day column 'carrier' is STRING, expected DATE or TIMESTAMP"):
        replace(source, day_column="carrier").read("seen", DAYS)
    assert server.queries() == []


def test_a_number_too_large_for_its_type_is_refused(source: BigQueryTablesSource):
    with source.connect() as client:
        moment = datetime(2013, 7, 1, 12, tzinfo=UTC)
        assert client.insert_rows(client.get_table("lake.seen"), [row(MONDAY, 2**31, moment)]) == []
    with pytest.raises(ContractBroken, match="does not fit its type"):
        source.read("seen", DAYS)


def test_what_is_not_there_is_named(source: BigQueryTablesSource):
    for other in (replace(source, table="gone"), replace(source, dataset="gone")):
        with pytest.raises(SourceMissing, match=r"bigquery://acme-ml-staging/.*gone.* is not there"):
            other.read("seen", DAYS)


@pytest.mark.parametrize(
    ("status", "reason", "kind", "told"),
    [
        (403, "accessDenied", SourceDenied, "needs bigquery.jobUser"),
        (403, "quotaExceeded", SourceError, "quota of the Google project is used up: .*midnight Pacific"),
        (400, "invalidQuery", SourceError, "BigQuery refused: .*correct the table or the view, trying again does not"),
        (400, "bytesBilledLimitExceeded", SourceError, "would bill more than 200 GiB.*Partition the table"),
    ],
)
def test_a_refusal_says_what_to_do(
    source: BigQueryTablesSource,
    server: BigQueryServer,
    status: int,
    reason: str,
    kind: type[SourceError],
    told: str,
):
    server.fail_next(20, status=status, reason=reason, in_job=True)
    with pytest.raises(kind, match=told) as refused:
        source.read("seen", DAYS)
    assert refused.type is kind, "no other kind, which a retry policy might take for one that passes"
    assert len(server.jobs) == 1


@pytest.mark.parametrize(("status", "reason"), [(503, "backendError"), (403, "rateLimitExceeded")])
@pytest.mark.parametrize("path", ["GET .*/tables/seen", "POST .*/jobs"])
def test_what_passes_is_tried_again_and_is_unavailable_at_the_deadline(
    source: BigQueryTablesSource, server: BigQueryServer, status: int, reason: str, path: str
):
    server.fail_next(1, status=status, reason=reason, path=path)
    assert source.read("seen", DAYS).num_rows == 2
    server.fail_next(10_000, status=status, reason=reason, path=path)
    with pytest.raises(SourceUnavailable, match=r"cannot be read now: .*injected by the test.*try again later"):
        replace(source, deadline=timedelta(seconds=0.3)).read("seen", DAYS)


@pytest.mark.slow
def test_whichever_request_is_never_answered_the_rows_come_once(
    source: BigQueryTablesSource, server: BigQueryServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("google.cloud.bigquery.client._MIN_GET_QUERY_RESULTS_TIMEOUT", 0)  # it is two minutes
    server.page_rows = 1
    with Unreliable(server.address) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.address)
        patient = replace(source, answer_within=timedelta(seconds=1))
        for n in range(1, 100):
            proxy.hold_at(n, held_for=15)
            began = time.monotonic()
            assert patient.read("seen", DAYS).sort_by("flight").equals(landed(ROWS[1:3]))
            assert time.monotonic() - began < 10
            if not proxy.was_cut:
                break
        assert n > 4


def test_a_server_that_accepts_and_never_answers_is_unavailable(
    source: BigQueryTablesSource, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = threading.Timer(15, silent.close)  # where nobody gives up, the test fails and does not hang
        ended.daemon = True
        ended.start()
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"lake/seen does not answer: .*try again later"):
            replace(source, deadline=timedelta(seconds=0.5)).read("seen", DAYS)
        assert time.monotonic() - began < 10
        ended.cancel()


def test_the_query_carries_its_cap_its_label_and_the_tables_location(
    source: BigQueryTablesSource, server: BigQueryServer
):
    replace(source, most_bytes=10**9).read("seen", DAYS)
    (job,) = server.jobs.values()
    assert job["configuration"]["query"]["maximumBytesBilled"] == "1000000000"
    assert job["configuration"]["labels"] == {"ml_assets": "raw_seen"}
    assert job["configuration"]["jobTimeoutMs"] == "900000"
    assert job["jobReference"]["location"] == "EU"


@pytest.mark.parametrize("name", ["a`b", "a b", "", "x;y", "../x"])
def test_names_that_are_no_names_reach_no_sql(source: BigQueryTablesSource, name: str):
    for field in ("project", "dataset", "table", "day_column"):
        with pytest.raises(InvalidName):
            replace(source, **{field: name})


def test_the_url_of_the_environment_leads_to_it_through_dagsters_resource(
    source: BigQueryTablesSource, server: BigQueryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    (tmp_path / "key.json").write_text(json.dumps(server.service_account(text)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with source.connect() as client:
        weather = bigquery.Table(
            f"{PROJECT}.lake.airlines", schema=[bigquery.SchemaField(n, "STRING") for n in ("carrier", "name")]
        )
        assert client.insert_rows(client.create_table(weather), [{"carrier": "UA", "name": "United"}]) == []
    url = f"bigquery://{PROJECT}/lake/airlines"
    credentials = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    routed = source_of(Environment.of({**credentials, "ML_ASSETS_SOURCES": f"airlines={url}"}))
    assert routed.read("airlines").to_pylist() == [{"carrier": "UA", "name": "United"}]
    server.expired_token(may_refresh=False)
    with pytest.raises(SourceDenied, match="GOOGLE_APPLICATION_CREDENTIALS"):
        routed.read("airlines")
    for wrong in (f"bigquery://{PROJECT}/airlines", f"{url}?location=US"):
        with pytest.raises(BadInput, match=r"expected bigquery://project/dataset/table\?day=COLUMN"):
            source_of(Environment.of({**credentials, "ML_ASSETS_SOURCES": f"airlines={wrong}"}))


def test_it_lands_like_any_other_source(source: BigQueryTablesSource, tmp_path: Path):
    wide = DayRange(first=MONDAY, last=MONDAY + timedelta(days=2))
    with landing(source, SEEN, wide, work_folder=tmp_path) as checked:
        assert list(checked.n_by_day.values()) == [1, 1, 1]
        assert checked.ignored_columns == ("gate",)
    with pytest.raises(BadInput, match="offers seen, by days"):
        source.read("seen")
