"""The BigQuery test server, asked by the real clients only."""

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
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


def of_day(day: date, *numbers: int) -> pa.Table:
    return pa.table({"partition_on": pa.array([day] * len(numbers), pa.date32()), "n": pa.array(numbers, pa.int64())})


# --- rows in and out


@pytest.mark.parametrize("is_resumable", [False, True])
def test_a_parquet_file_comes_back_value_by_value(client: bigquery.Client, is_resumable: bool):
    assert load(client, FLIGHTS, "raw.flights", is_resumable=is_resumable) == 2
    found = client.query("SELECT * FROM raw.flights").result().to_arrow(create_bqstorage_client=False)
    assert found == FLIGHTS


def test_values_of_every_type_come_in_bigquerys_form(client: bigquery.Client):
    sql = """SELECT 9007199254740993 AS i, 0.1 AS f, NUMERIC '1.50' AS n, TRUE AS b, 'x' AS s, b'\\x01' AS y,
        DATE '2013-03-10' AS d, TIMESTAMP '2013-03-10 02:30:00-05' AS t, DATETIME '2013-03-10 02:30:00' AS dt,
        [1, 2] AS a, STRUCT(1 AS x, 'q' AS y) AS st, [STRUCT(1 AS p)] AS sa, CAST(NULL AS FLOAT64) AS z, 7"""
    ((i, f, n, b, s, y, d, t, dt, a, st, sa, z, seven),) = rows(client, sql)
    assert (i, f, n, b, s, y) == (9007199254740993, 0.1, Decimal("1.5"), True, "x", b"\x01")
    assert (d, t) == (date(2013, 3, 10), datetime(2013, 3, 10, 7, 30, tzinfo=UTC))
    assert dt == datetime(2013, 3, 10, 2, 30)  # noqa: DTZ001 - a DATETIME has no zone
    assert (a, st, sa, z, seven) == ([1, 2], {"x": 1, "y": "q"}, [{"p": 1}], None, 7)


def test_parameters_are_values_and_never_sql(client: bigquery.Client):
    evil = "'; DROP TABLE raw.flights; --"
    bound = [
        bigquery.ScalarQueryParameter("day", "DATE", DAY),
        bigquery.ScalarQueryParameter("at", "TIMESTAMP", MOMENT),
        bigquery.ScalarQueryParameter("text", "STRING", evil),
        bigquery.ScalarQueryParameter("nothing", "INT64", None),
        bigquery.ArrayQueryParameter("days", "DATE", [DAY, DAY + timedelta(days=1)]),
    ]
    sql = "SELECT @day, @at, @text, @nothing IS NULL, DATE '2013-07-02' IN UNNEST(@days)"
    assert rows(client, sql, query_parameters=bound) == [(DAY, MOMENT, evil, True, True)]
    with pytest.raises(exceptions.BadRequest, match="Query parameter 'absent' not found"):
        rows(client, "SELECT @absent")


def test_results_and_tables_come_in_pages_and_in_order(server: BigQueryServer, client: bigquery.Client):
    load(client, of_day(DAY, *range(25)), "raw.numbers")
    server.page_rows = 10
    assert [n for (n,) in rows(client, "SELECT n FROM raw.numbers ORDER BY n")] == list(range(25))
    assert [row["n"] for row in client.list_rows("raw.numbers", page_size=4)] == list(range(25))
    assert len([r for r in server.requests if r.path.endswith("/data")]) == 7


def test_rows_inserted_one_by_one_are_taken_once(client: bigquery.Client):
    client.create_table(bigquery.Table(f"{PROJECT}.raw.n", schema=[bigquery.SchemaField("n", "INT64")]))
    assert client.insert_rows_json(f"{PROJECT}.raw.n", [{"n": 1}, {"n": 2}], row_ids=["a", "b"]) == []
    assert client.insert_rows_json(f"{PROJECT}.raw.n", [{"n": 1}, {"n": 3}], row_ids=["a", "c"]) == []
    errors = client.insert_rows_json(f"{PROJECT}.raw.n", [{"n": 4}, {"x": 5}])
    assert [(e["index"], e["errors"][0]["reason"]) for e in errors] == [(0, "stopped"), (1, "invalid")]
    assert rows(client, "SELECT n FROM raw.n ORDER BY n") == [(1,), (2,), (3,)]


# --- partitions


def test_a_load_into_a_partition_replaces_that_day_and_no_other(client: bigquery.Client):
    by_day = {"time_partitioning": bigquery.TimePartitioning(field="partition_on"), "clustering_fields": ["n"]}
    next_day = DAY + timedelta(days=1)
    load(client, of_day(DAY, 1, 2), "raw.n", **by_day)
    load(client, of_day(next_day, 3), "raw.n")
    for _ in range(2):
        load(client, of_day(DAY, 9), "raw.n$20130701", write_disposition="WRITE_TRUNCATE", **by_day)
    assert rows(client, "SELECT partition_on, n FROM raw.n ORDER BY n") == [(next_day, 3), (DAY, 9)]
    with pytest.raises(exceptions.BadRequest, match="Some rows belong to different partitions"):
        load(client, of_day(next_day, 4), "raw.n$20130701", write_disposition="WRITE_TRUNCATE")
    partitions = "SELECT partition_id, total_rows FROM raw.INFORMATION_SCHEMA.PARTITIONS ORDER BY 1"
    assert rows(client, partitions) == [("20130701", 1), ("20130702", 1)]
    table = client.get_table("raw.n")
    assert (table.time_partitioning.field, table.clustering_fields, table.num_rows) == ("partition_on", ["n"], 2)
    columns = "SELECT column_name, data_type, is_partitioning_column FROM raw.INFORMATION_SCHEMA.COLUMNS"
    assert rows(client, columns) == [("partition_on", "DATE", "YES"), ("n", "INT64", "NO")]


def test_a_load_of_other_columns_is_refused_and_changes_nothing(client: bigquery.Client):
    load(client, of_day(DAY, 1), "raw.n")
    wrong_type = pa.table({"partition_on": [DAY], "n": [1.5]})
    with pytest.raises(exceptions.BadRequest, match="Field n has changed type from INTEGER to FLOAT"):
        load(client, wrong_type, "raw.n")
    more = of_day(DAY, 2).append_column("extra", pa.array(["x"]))
    with pytest.raises(exceptions.BadRequest, match=r"Cannot add fields \(field: extra\)"):
        load(client, more, "raw.n")
    load(client, more, "raw.n", schema_update_options=["ALLOW_FIELD_ADDITION"])
    assert rows(client, "SELECT n, extra FROM raw.n ORDER BY n") == [(1, None), (2, "x")]


# --- statements


def test_a_transaction_happens_whole_or_not_at_all(client: bigquery.Client):
    load(client, of_day(DAY, 1, 2), "raw.n")
    change = "DELETE FROM raw.n WHERE n = 1; INSERT INTO raw.n (n) VALUES (7)"
    with pytest.raises(exceptions.BadRequest, match="boom"):
        rows(client, f"BEGIN TRANSACTION; {change}; SELECT ERROR('boom'); COMMIT TRANSACTION")
    rows(client, f"BEGIN TRANSACTION; {change}; ROLLBACK TRANSACTION")
    rows(client, f"BEGIN TRANSACTION; {change}")
    assert rows(client, "SELECT n FROM raw.n ORDER BY n") == [(1,), (2,)]
    job = client.query(f"BEGIN TRANSACTION; {change}; COMMIT TRANSACTION;")
    job.result()
    assert (job.statement_type, rows(client, "SELECT n FROM raw.n ORDER BY n")) == ("SCRIPT", [(2,), (7,)])
    with pytest.raises(exceptions.BadRequest, match="not supported inside a transaction"):
        rows(client, "BEGIN TRANSACTION; CREATE TABLE raw.m (n INT64); COMMIT TRANSACTION")


def test_a_statement_that_fails_changes_nothing(client: bigquery.Client):
    rows(client, "CREATE TABLE raw.n (n INT64 NOT NULL)")
    with pytest.raises(exceptions.BadRequest, match="Required field n cannot be null"):
        rows(client, "INSERT INTO raw.n (n) SELECT * FROM UNNEST([1, 2, NULL])")
    assert rows(client, "SELECT COUNT(*) FROM raw.n") == [(0,)]


def test_a_session_sees_its_own_changes_and_loses_against_a_faster_one(client: bigquery.Client):
    load(client, of_day(DAY, 1), "raw.n")

    def begun() -> bigquery.QueryJobConfig:
        job = client.query("BEGIN TRANSACTION", job_config=bigquery.QueryJobConfig(create_session=True))
        job.result()
        session = bigquery.ConnectionProperty("session_id", job.session_info.session_id)
        return bigquery.QueryJobConfig(connection_properties=[session])

    slow, fast = begun(), begun()
    change = "UPDATE raw.n SET n = n + 1 WHERE TRUE"
    client.query(change, job_config=fast).result()
    assert [row["n"] for row in client.query("SELECT n FROM raw.n", job_config=fast).result()] == [2]
    assert rows(client, "SELECT n FROM raw.n") == [(1,)]
    with pytest.raises(exceptions.BadRequest, match="aborted due to concurrent update"):
        client.query(change, job_config=slow, job_retry=None).result()
    client.query("COMMIT TRANSACTION", job_config=fast).result()
    assert rows(client, "SELECT n FROM raw.n") == [(2,)]


def test_variables_and_temporary_tables_live_as_long_as_their_script(client: bigquery.Client):
    load(client, of_day(DAY, 1, 2, 3), "raw.n")
    script = """
        DECLARE days ARRAY<DATE>; DECLARE least INT64 DEFAULT 2;
        -- a comment; with a semicolon
        CREATE TEMP TABLE kept AS SELECT * FROM raw.n WHERE n >= least;
        SET (days) = (SELECT AS STRUCT ARRAY_AGG(DISTINCT partition_on IGNORE NULLS) FROM kept);
        SET least = (SELECT MAX(n) FROM kept);
        SELECT COUNT(*), least FROM kept WHERE partition_on IN UNNEST(days)"""
    assert rows(client, script) == [(2, 3)]
    with pytest.raises(exceptions.BadRequest, match='Table "kept" must be qualified with a dataset'):
        rows(client, "SELECT * FROM kept")


@pytest.mark.parametrize(
    ("statement", "counts", "left"),
    [
        ("INSERT INTO raw.n (n) VALUES (8), (9)", (2, 0, 0), [1, 2, 3, 8, 9]),
        ("UPDATE raw.n SET n = n * 10 WHERE n > 1", (0, 2, 0), [1, 20, 30]),
        ("DELETE FROM raw.n WHERE n < 3", (0, 0, 2), [3]),
        (
            """MERGE raw.n AS d USING (SELECT 3 AS n UNION ALL SELECT 4) AS s ON d.n = s.n
               WHEN MATCHED THEN UPDATE SET n = 33 WHEN NOT MATCHED THEN INSERT (n) VALUES (s.n)""",
            (1, 1, 0),
            [1, 2, 4, 33],
        ),
        (  # what dbt replaces days with
            """MERGE INTO raw.n AS d USING (SELECT n + 10 AS n FROM raw.n) AS s ON FALSE
               WHEN NOT MATCHED BY SOURCE AND d.n IN (2, 3) THEN DELETE
               WHEN NOT MATCHED THEN INSERT (`n`) VALUES (`n`)""",
            (3, 0, 2),
            [1, 11, 12, 13],
        ),
    ],
)
def test_a_change_tells_how_many_rows_it_was(
    client: bigquery.Client, statement: str, counts: tuple[int, int, int], left: list[int]
):
    load(client, of_day(DAY, 1, 2, 3), "raw.n")
    job = client.query(statement)
    job.result()
    stats = job.dml_stats
    assert (stats.inserted_row_count, stats.updated_row_count, stats.deleted_row_count) == counts
    assert job.num_dml_affected_rows == sum(counts)
    assert [n for (n,) in rows(client, "SELECT n FROM raw.n ORDER BY n")] == left


def test_definitions_say_what_tables_are_like(client: bigquery.Client):
    rows(
        client,
        f"""CREATE OR REPLACE TABLE `{PROJECT}`.`raw`.`made` PARTITION BY d CLUSTER BY s
        OPTIONS (description = 'one row', labels = [('team', 'ml')],
                 expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 12 HOUR))
        AS (SELECT DATE '2013-07-01' AS d, 'x' AS s, SUM(1) AS n, NULL AS unknown)""",
    )
    table = client.get_table("raw.made")
    assert [(f.name, f.field_type) for f in table.schema] == [
        ("d", "DATE"),
        ("s", "STRING"),
        ("n", "INTEGER"),
        ("unknown", "INTEGER"),
    ]
    assert (table.time_partitioning.field, table.clustering_fields) == ("d", ["s"])
    assert (table.description, table.labels) == ("one row", {"team": "ml"})
    assert timedelta(hours=11) < table.expires - datetime.now(UTC) < timedelta(hours=13)
    rows(client, "ALTER TABLE raw.made ADD COLUMN IF NOT EXISTS more FLOAT64, ADD COLUMN IF NOT EXISTS n INT64")
    assert rows(client, "SELECT n, more FROM raw.made") == [(1, None)]
    with pytest.raises(exceptions.BadRequest, match="different partitioning"):
        rows(client, "CREATE OR REPLACE TABLE raw.made AS SELECT 1 AS n")
    rows(client, "CREATE VIEW raw.seen AS SELECT n FROM raw.made; DROP TABLE IF EXISTS raw.absent")
    assert {t.table_id: t.table_type for t in client.list_tables("raw")} == {"made": "TABLE", "seen": "VIEW"}
    with pytest.raises(exceptions.Conflict):
        rows(client, "CREATE TABLE raw.made (n INT64)")


def test_time_arithmetic_is_bigquerys(client: bigquery.Client):
    sql = """SELECT TIMESTAMP_DIFF(TIMESTAMP '2013-07-01 00:01:30+00', TIMESTAMP '2013-07-01 00:00:45+00', MINUTE),
        DATE_ADD(DATE '2013-01-31', INTERVAL 1 MONTH), EXTRACT(DAYOFWEEK FROM DATE '2013-06-30'),
        TIMESTAMP(DATETIME '2013-03-10 03:00:00', 'America/New_York'),
        DATE(TIMESTAMP '2013-07-01 02:00:00+00', 'America/New_York'),
        FORMAT_TIMESTAMP('%Y%m%dT%H', TIMESTAMP '2013-07-01 05:00:00+00', 'UTC'), DIV(-7, 2), 1 / 4"""
    seven = datetime(2013, 3, 10, 7, tzinfo=UTC)
    assert rows(client, sql) == [(0, date(2013, 2, 28), 1, seven, date(2013, 6, 30), "20130701T05", -3, 0.25)]


# --- what is refused


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT $day", "Illegal input character"),
        ("SELECT 1::INT64", "Unexpected"),
        ("SELECT strftime_utc(1)", "Function not found: strftime_utc"),
        ("SELECT COUNT(*) FILTER (WHERE TRUE)", "FILTER"),
        ("SELECT FROM WHERE", "Syntax error"),
        ("SELECT nobody FROM raw.n", "Unrecognized name: nobody"),
        ("SELECT 1 AS a, 2 AS a", "Duplicate column names"),
        ("SELECT 1 / 0", "division by zero"),
        ("DELETE FROM raw.n", "must have a WHERE clause"),
        ("SELECT DATE_TRUNC(DATE '2013-07-01', WEEK)", "counts no WEEK"),
    ],
)
def test_what_bigquery_does_not_accept_is_refused(client: bigquery.Client, sql: str, message: str):
    load(client, of_day(DAY, 1), "raw.n")
    with pytest.raises(exceptions.BadRequest, match=message):
        rows(client, sql)
    assert rows(client, "SELECT n FROM raw.n") == [(1,)]


def test_what_is_named_in_no_dataset_of_the_location_is_not_found(client: bigquery.Client):
    load(client, FLIGHTS, "raw.flights")
    with pytest.raises(exceptions.NotFound, match="raw was not found in location EU"):
        client.query("SELECT * FROM raw.flights", location="EU", job_retry=None).result()
    with pytest.raises(exceptions.NotFound, match=r"Not found: Table acme-ml-staging:raw\.nothing"):
        rows(client, "SELECT * FROM raw.nothing")
    with pytest.raises(exceptions.Conflict, match="Already Exists: Dataset"):
        client.create_dataset("raw")
    with pytest.raises(exceptions.BadRequest, match="still in use"):
        client.delete_dataset("raw")
    client.delete_dataset("raw", delete_contents=True)
    assert list(client.list_datasets()) == []


def test_bytes_are_estimated_billed_and_capped(client: bigquery.Client):
    load(client, of_day(DAY, *range(100)), "raw.n")
    dry = client.query("SELECT n FROM raw.n", job_config=bigquery.QueryJobConfig(dry_run=True))
    assert (dry.total_bytes_processed, [f.name for f in dry.schema]) == (800, ["n"])
    job = client.query("SELECT * FROM raw.n", job_config=bigquery.QueryJobConfig(maximum_bytes_billed=10 * 2**20))
    job.result()
    assert (job.total_bytes_processed, job.total_bytes_billed) == (1600, 10 * 2**20)
    with pytest.raises(exceptions.InternalServerError, match=r"exceeded limit for bytes billed: 1000\. 10485760 or"):
        rows(client, "SELECT n FROM raw.n", maximum_bytes_billed=1000)


def test_a_query_writes_its_destination_as_it_was_told_to(client: bigquery.Client):
    load(client, of_day(DAY, 1, 2), "raw.n")
    target = {"destination": f"{PROJECT}.raw.copied"}
    rows(client, "SELECT n FROM raw.n", **target)
    with pytest.raises(exceptions.Conflict, match="Already Exists: Table"):
        rows(client, "SELECT n FROM raw.n", **target)
    rows(
        client,
        "SELECT n FROM n WHERE n = 2",
        write_disposition="WRITE_APPEND",
        default_dataset="acme-ml-staging.raw",
        **target,
    )
    assert rows(client, "SELECT n FROM raw.copied ORDER BY n") == [(1,), (2,), (2,)]


# --- faults, and what is remembered


def test_a_job_id_runs_once(server: BigQueryServer, client: bigquery.Client):
    client.query("CREATE TABLE raw.n (n INT64)", job_id="once", job_retry=None).result()
    with pytest.raises(exceptions.Conflict, match="Already Exists: Job"):
        client.query("DROP TABLE raw.n", job_id="once", job_retry=None)
    assert rows(client, "SELECT COUNT(*) FROM raw.n") == [(0,)]
    assert client.get_job("once").state == "DONE"
    with pytest.raises(exceptions.NotFound):
        client.get_job("once", location="EU")


def test_the_client_survives_an_answer_that_is_lost(server: BigQueryServer, client: bigquery.Client):
    rows(client, "CREATE TABLE raw.n (n INT64)")
    server.fail_next(1, path="POST .*/jobs", after=True)
    client.query("INSERT INTO raw.n (n) VALUES (1)").result()
    assert rows(client, "SELECT n FROM raw.n") == [(1,)]


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (503, "backendError", exceptions.ServiceUnavailable),
        (403, "quotaExceeded", exceptions.Forbidden),
        (403, "rateLimitExceeded", exceptions.Forbidden),
    ],
)
def test_faults_come_as_bigquery_words_them(
    server: BigQueryServer, client: bigquery.Client, status: int, reason: str, error: type[Exception]
):
    server.fail_next(1, status=status, reason=reason, message="too much")
    with pytest.raises(error, match="too much") as raised:
        client.get_dataset("raw", retry=None)
    assert raised.value.errors[0]["reason"] == reason  # pyright: ignore
    assert client.get_dataset("raw", retry=None).location == "US"


def test_requests_are_remembered_with_their_labels(server: BigQueryServer, client: bigquery.Client):
    rows(client, "SELECT 1", labels={"use_case": "arrival_delay"})
    (asked,) = [request for request in server.requests if request.query]
    assert (asked.method, asked.query, asked.labels) == ("POST", "SELECT 1", {"use_case": "arrival_delay"})
    assert server.queries() == ["SELECT 1"]


@pytest.fixture(scope="module")
def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    encoded = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()


def test_dagsters_resource_gets_a_token_and_a_new_one_when_it_expires(
    server: BigQueryServer, private_key: str, monkeypatch: pytest.MonkeyPatch
):
    from dagster_gcp import BigQueryResource

    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.address)
    key = base64.b64encode(json.dumps(server.service_account(private_key)).encode()).decode()
    with BigQueryResource(project=PROJECT, location="US", gcp_credentials=key).get_client() as client, client:
        assert rows(client, "SELECT 1") == [(1,)]
        server.expired_token()
        assert rows(client, "SELECT 2") == [(2,)]
        assert len([r for r in server.requests if r.path == "/token"]) == 2
        assert [r.status for r in server.requests if r.status == 401] == [401]


# --- dbt


_MODEL = """{{ config(materialized='incremental', incremental_strategy='insert_overwrite', on_schema_change='fail',
    partition_by={'field': 'partition_on', 'data_type': 'date'}, cluster_by=['kind'], partitions=[PARTITIONS]) }}
select date '2013-07-01' as partition_on, 'a' as kind, 1.5 as delay, {{ var('n') }} as n"""
_YML = """models:
  - name: delays
    description: One row per kind.
    config: {contract: {enforced: true}}
    columns:
      - {name: partition_on, data_type: date, constraints: [{type: not_null}], data_tests: [not_null]}
      - {name: kind, data_type: string, description: Of delay., data_tests: [unique]}
      - {name: delay, data_type: float64}
      - {name: n, data_type: int64}
  - {name: seen, columns: [{name: n, data_tests: [{accepted_values: {arguments: {values: [1, 2], quote: false}}}]}]}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("partitions", ["\"date '2013-07-01'\"", ""], ids=["days given", "days found"])
def test_dbt_builds_tests_and_documents_a_project(
    server: BigQueryServer, client: bigquery.Client, tmp_path: Path, partitions: str
):
    from dbt.adapters.factory import reset_adapters
    from dbt.cli.main import dbtRunner

    target = {"type": "bigquery", "method": "oauth-secrets", "token": "fake", "project": PROJECT, "dataset": "made"}
    target |= {"api_endpoint": server.address, "location": "US", "threads": 2, "job_retries": 0}
    files = {
        "profiles.yml": json.dumps({"tiny": {"target": "test", "outputs": {"test": target}}}),
        "dbt_project.yml": json.dumps({"name": "tiny", "version": "1.0", "profile": "tiny", "model-paths": ["models"]}),
        "models/delays.sql": _MODEL.replace("PARTITIONS", partitions).replace(", partitions=[]", ""),
        "models/seen.sql": "select n, kind from {{ ref('delays') }}",
        "models/models.yml": _YML,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    def dbt(*arguments: str) -> None:
        folders = ["--project-dir", str(tmp_path), "--profiles-dir", str(tmp_path)]
        quiet = ["--quiet", "--log-level-file=none", "--no-send-anonymous-usage-stats"]
        try:
            result = dbtRunner().invoke([*quiet, *arguments, *folders])
        finally:
            reset_adapters()
        assert result.success, result.exception or result.result

    dbt("debug")
    for n in (1, 2):
        dbt("build", "--vars", json.dumps({"n": n}))
        assert rows(client, "SELECT * FROM made.delays") == [(DAY, "a", 1.5, n)]
    rows(client, "INSERT INTO made.delays SELECT DATE '2013-07-02', 'b', NULL, 1")
    dbt("build", "--vars", json.dumps({"n": 1}))
    assert rows(client, "SELECT kind, n FROM made.seen ORDER BY kind") == [("a", 1), ("b", 1)]
    table = client.get_table("made.delays")
    assert (table.schema[0].name, table.schema[0].field_type, table.schema[0].mode) == (
        "partition_on",
        "DATE",
        "REQUIRED",
    )
    assert (table.time_partitioning.field, table.clustering_fields) == ("partition_on", ["kind"])
    assert [t.table_id for t in client.list_tables("made")] == ["delays", "seen"]
    dbt("docs", "generate", "--vars", json.dumps({"n": 1}))
    catalog = json.loads((tmp_path / "target" / "catalog.json").read_text())["nodes"]["model.tiny.delays"]
    assert {name: column["type"] for name, column in catalog["columns"].items()} == {
        "partition_on": "DATE",
        "kind": "STRING",
        "delay": "FLOAT64",
        "n": "INT64",
    }
    assert catalog["stats"]["partitioning_type"]["value"] == "partition_on"
