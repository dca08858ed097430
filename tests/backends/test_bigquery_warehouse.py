"""What is particular to BigQuery: requests that are lost or refused, what is tried again, what it costs."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import pyarrow as pa
import pytest
import sqlglot
from dagster_gcp import BigQueryResource
from sqlglot import exp

from ml_assets.backends.bigquery_jobs import JobUsage
from ml_assets.backends.bigquery_warehouse import BigQueryWarehouse
from ml_assets.core.errors import (
    AccessRefused,
    DataMissing,
    QuotaExhausted,
    SchemaChanged,
    WarehouseBusy,
    WarehouseError,
)
from ml_assets.core.ports import DayRange
from ml_assets.job_costs import add_to_materialization, labels_of_step
from tests.servers.bigquery import BigQueryServer
from tests.servers.bigquery_storage import BigQueryStorageServer
from tests.servers.unreliable import Unreliable

MONDAY, TUESDAY = date(2013, 7, 1), date(2013, 7, 2)
DAY = DayRange(first=MONDAY, last=MONDAY)
JOBS = "POST /bigquery/v2/projects/[^/]+/jobs"
UPLOADS = "POST /upload/"
TOO_MANY = "Too many partitions produced by query, allowed 4000, query modifies at least 4018 partitions"

_KILLED_WHILE_WRITING = """
import os, signal, sys
from datetime import date
import pyarrow as pa
from dagster_gcp import BigQueryResource
from ml_assets.backends.bigquery_jobs import Jobs
from ml_assets.backends.bigquery_warehouse import BigQueryWarehouse
from ml_assets.core.ports import DayRange

class Killed(Jobs):
    def query(self, client, sql, parameters=None):
        if sql.startswith("BEGIN TRANSACTION"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().query(client, sql, parameters)

day = date(2013, 7, 1)
warehouse = BigQueryWarehouse(BigQueryResource(project=sys.argv[1], location="US").get_client, location="US")
warehouse._jobs = Killed(**vars(warehouse._jobs))
warehouse.replace_days({"raw.seen": pa.table({"partition_on": [day], "n": [2]})}, DayRange(first=day, last=day))
"""


def warehouse_on(server: BigQueryServer, **settings: Any) -> BigQueryWarehouse:
    connect = BigQueryResource(project=server.project, location="US").get_client
    patient = {"first_pause": timedelta(milliseconds=1), "deadline": timedelta(seconds=20)}
    return BigQueryWarehouse(connect, **{"location": "US", **patient, **settings})


@pytest.fixture
def warehouse(bigquery: BigQueryServer) -> BigQueryWarehouse:
    """A warehouse with one row in raw.seen, n = 1, on Monday; the server has forgotten how it came there."""
    made = warehouse_on(bigquery)
    made.replace_days({"raw.seen": seen(1)}, DAY)
    bigquery.requests.clear()
    return made


def seen(*numbers: int, day: date = MONDAY) -> pa.Table:
    return pa.table({"partition_on": pa.array([day] * len(numbers), pa.date32()), "n": pa.array(numbers, pa.int64())})


def numbers_in(warehouse: BigQueryWarehouse, table: str = "raw.seen") -> list[int]:
    return warehouse.query(f"SELECT n FROM {table} ORDER BY n")["n"].to_pylist()


def sent(server: BigQueryServer, pattern: str) -> int:
    """How many requests came whose method and path match."""
    return sum(bool(re.search(pattern, f"{request.method} {request.path}")) for request in server.requests)


def scripts_run(server: BigQueryServer) -> int:
    """How many transactions ran, whoever got to know of it."""
    queries = [job["configuration"].get("query", {}).get("query", "") for job in server.jobs.values()]
    return sum(sql.startswith("BEGIN TRANSACTION") for sql in queries)


# --- requests that are lost


@pytest.mark.parametrize("after", [False, True], ids=["the request", "the answer"])
def test_whichever_request_is_lost_a_write_of_two_tables_happens_once(
    bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch, after: bool
):
    with Unreliable(bigquery.address) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.address)
        warehouse = warehouse_on(bigquery)
        for n in range(1, 100):
            proxy.cut_at(n, after=after)
            warehouse.replace_days({"raw.seen": seen(n), "raw.bad": seen(n, -n)}, DAY)
            if not proxy.was_cut:
                break
            assert scripts_run(bigquery) == n
        assert n > 10
        assert numbers_in(warehouse) == [n]
        assert numbers_in(warehouse, "raw.bad") == [-n, n]
    assert tables_of(bigquery) == ["bad", "seen"]


@pytest.mark.parametrize("after", [False, True], ids=["the request", "the answer"])
def test_whichever_request_is_lost_a_query_is_written_and_read_once(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch, after: bool
):
    with Unreliable(bigquery.address) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.address)
        warehouse = warehouse_on(bigquery)  # its client is not yet opened, on the server itself
        for n in range(1, 100):
            proxy.cut_at(n, after=after)
            sql = "SELECT partition_on, n + @more AS n FROM raw.seen"
            assert warehouse.replace_days_with_query("examples.seen", sql, DAY, {"more": n}) == 1
            assert numbers_in(warehouse, "examples.seen") == [n + 1]
            if not proxy.was_cut:
                break
        assert n > 10


@pytest.mark.slow
def test_whichever_request_is_never_answered_it_is_sent_again_and_a_write_happens_once(
    bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("google.cloud.bigquery.client._MIN_GET_QUERY_RESULTS_TIMEOUT", 0)  # it is two minutes
    bigquery.page_rows = 1
    with Unreliable(bigquery.address) as proxy:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", proxy.address)
        warehouse = warehouse_on(bigquery, answer_within=timedelta(seconds=1))
        for n in range(1, 100):
            proxy.hold_at(n, held_for=15)
            began = time.monotonic()
            warehouse.replace_days({"raw.seen": seen(n, n + 1)}, DAY)
            assert numbers_in(warehouse) == [n, n + 1]
            assert time.monotonic() - began < 10
            if not proxy.was_cut:
                break
        assert n > 8
    assert scripts_run(bigquery) == n
    assert tables_of(bigquery) == ["seen"]


def test_a_server_that_accepts_and_never_answers_is_given_up_at_the_deadline(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = threading.Timer(15, silent.close)  # where nobody gives up, the test fails and does not hang
        ended.daemon = True
        ended.start()
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        waiting = warehouse_on(bigquery, deadline=timedelta(seconds=0.5))
        began = time.monotonic()
        with pytest.raises(WarehouseBusy, match=r"did not answer within 0.5 s: .*run it again"):
            waiting.columns("raw.seen")
        assert time.monotonic() - began < 10
        ended.cancel()


def test_a_job_whose_answer_was_lost_is_found_again_and_not_sent_under_another_id(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer
):
    bigquery.fail_next(1, path=JOBS, after=True)
    assert numbers_in(warehouse) == [1]
    asked = [request.job_id for request in bigquery.requests if request.query]
    assert len(asked) == 2
    assert len(set(asked)) == 1
    assert sent(bigquery, f"GET .*/jobs/{asked[0]}") == 1


def test_a_job_that_bigquery_failed_by_itself_is_run_anew(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    bigquery.fail_next(1, in_job=True)
    assert numbers_in(warehouse) == [1]
    asked = {request.job_id for request in bigquery.requests if request.query}
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [(503, "backendError"), (500, "internalError"), (403, "rateLimitExceeded"), (502, "badGateway")],
)
@pytest.mark.parametrize("path", [JOBS, UPLOADS, "GET .*/tables/seen"])
def test_what_passes_is_tried_again_until_it_has_passed(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer, status: int, reason: str, path: str
):
    bigquery.fail_next(3, status=status, reason=reason, path=path)
    warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    assert sent(bigquery, path) == 4
    assert numbers_in(warehouse) == [2]


def test_what_does_not_pass_ends_at_the_deadline(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    bigquery.fail_next(10_000, path=JOBS)
    impatient = warehouse_on(bigquery, deadline=timedelta(seconds=0.3))
    with pytest.raises(WarehouseBusy, match=r"did not answer within 0.3 s: .*injected by the test.*run it again"):
        impatient.replace_days({"raw.seen": seen(2)}, DAY)
    assert sent(bigquery, JOBS) > 2


def test_a_transaction_that_another_one_aborted_is_tried_again(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    aborted = (
        "Transaction is aborted due to concurrent update against table acme-ml-staging:raw.seen. Transaction ID: 1"
    )
    # The upload is the first job, so that it is the one that fails here; then the transaction fails twice.
    bigquery.fail_next(3, status=400, reason="invalidQuery", message=aborted, in_job=True)
    warehouse.replace_days({"raw.seen": seen(2, 3)}, DAY)
    assert numbers_in(warehouse) == [2, 3]
    bigquery.fail_next(10_000, status=400, reason="invalidQuery", message=aborted, in_job=True)
    with pytest.raises(WarehouseBusy, match=r"kept refusing a write beside another one to the table within 0.2 s"):
        warehouse_on(bigquery, deadline=timedelta(seconds=0.2)).replace_days({"raw.seen": seen()}, DAY)


# --- what trying again does not help


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ((403, "quotaExceeded"), QuotaExhausted, r"quota of the Google project is used up: .*midnight"),
        ((403, "accessDenied"), AccessRefused, r"not allowed: .*grant the role"),
        ((400, "invalidQuery"), WarehouseError, r"BigQuery refused: .*correct the statement"),
        ((400, "invalidQuery", TOO_MANY), WarehouseError, r"at least 4018 partitions .*; write shorter ranges of days"),
    ],
)
def test_what_trying_again_does_not_help_is_refused_at_once(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer, fault: tuple[Any, ...], error: type, message: str
):
    bigquery.fail_next(1, **dict(zip(("status", "reason", "message"), fault, strict=False)), path=JOBS)
    with pytest.raises(error, match=message):
        numbers_in(warehouse)
    assert sent(bigquery, JOBS) == 1


def test_wrong_sql_is_sent_once_and_named_with_its_job(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    with pytest.raises(WarehouseError, match=r"BigQuery refused: .*nobody.*\(Job ID: ml_assets_[0-9a-f]{32}\)"):
        warehouse.query("SELECT nobody FROM raw.seen")
    assert sent(bigquery, JOBS) == 1


def test_a_query_above_the_cap_reads_nothing_and_says_what_it_would_have_read(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer
):
    capped = warehouse_on(bigquery, maximum_bytes_billed=2**20)
    with pytest.raises(QuotaExhausted, match=r"read 10.0 MiB \(0.0001 USD\).*cap is 1.0 MiB.*fewer days, or raise"):
        numbers_in(capped)
    assert sent(bigquery, JOBS) == 1


def test_bigquery_itself_stops_a_query_or_a_load_that_outlives_the_deadline(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer
):
    bigquery.jobs.clear()
    warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    configured = [job["configuration"] for job in bigquery.jobs.values()]
    assert [(next(iter(of.keys() & {"load", "query"})), of["jobTimeoutMs"]) for of in configured] == [
        ("load", "20000"),
        ("query", "20000"),
    ]


def test_a_token_that_expires_is_renewed_unnoticed(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    assert numbers_in(warehouse) == [1]
    bigquery.expired_token()
    assert numbers_in(warehouse) == [1]
    assert sent(bigquery, "POST /token") == 1


def test_a_token_that_cannot_be_renewed_is_one_clear_error(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    bigquery.expired_token(may_refresh=False)
    with pytest.raises(AccessRefused, match=r"refused the credentials: .*a new key in GOOGLE_APPLICATION_CREDENTIALS"):
        warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    assert sent(bigquery, "POST /token") == 1
    assert scripts_run(bigquery) == 1


def test_a_token_that_expires_in_the_middle_of_a_write_leaves_the_day_old_or_new_and_one_more_run_heals(
    bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch
):
    answer, left = bigquery.answer, [sys.maxsize]

    def answer_until_expired(*request: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            bigquery.expired_token(may_refresh=False)
        return answer(*request)

    monkeypatch.setattr(bigquery, "answer", answer_until_expired)
    refused, day = 0, (list[int](), list[int]())
    warehouse_on(bigquery).replace_days({"raw.seen": seen(), "raw.bad": seen()}, DAY)
    for n in range(1, 100):
        new, left[0] = ([n], [-n]), n
        try:
            warehouse_on(bigquery).replace_days({"raw.seen": seen(n), "raw.bad": seen(-n)}, DAY)
        except AccessRefused:
            refused += 1
        left[0] = sys.maxsize
        bigquery.expired_token()  # and the account gets new ones again
        healed = warehouse_on(bigquery)
        assert (numbers_in(healed), numbers_in(healed, "raw.bad")) in (day, new)
        healed.replace_days({"raw.seen": seen(n), "raw.bad": seen(-n)}, DAY)
        assert (numbers_in(healed), numbers_in(healed, "raw.bad")) == new
        if refused < n:
            break
        day = new
    assert refused > 10
    aside = [name for name in tables_of(bigquery) if name not in ("seen", "bad")]
    assert all("expirationTime" in bigquery.engine.tables["raw", name] for name in aside)


def test_a_process_without_credentials_is_told_so(bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
    with pytest.raises(AccessRefused, match="such/key"):
        warehouse_on(bigquery).query("SELECT 1")
    with pytest.raises(AccessRefused, match="such/key"), warehouse_on(bigquery).session():
        pass


def test_a_dataset_in_another_location_is_called_so_and_not_absent(bigquery: BigQueryServer):
    bigquery.engine.create_dataset("raw", "EU")
    warehouse = warehouse_on(bigquery)
    elsewhere = r"dataset raw lies in EU, this environment's jobs run in US; set ML_ASSETS_LOCATION=EU"
    with pytest.raises(WarehouseError, match=elsewhere):
        warehouse.replace_days({"raw.seen": seen(1)}, DAY)
    with pytest.raises(WarehouseError, match=elsewhere):
        warehouse.query("SELECT * FROM raw.seen")
    assert tables_of(bigquery) == []
    with pytest.raises(DataMissing, match="materialize the asset"):
        warehouse.query("SELECT * FROM examples.seen")


# --- what is left behind


def tables_of(server: BigQueryServer, dataset: str = "raw") -> list[str]:
    return sorted(name for of, name in server.engine.tables if of == dataset)


def test_a_kill_between_load_and_transaction_leaves_the_old_day_and_rows_that_expire(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer
):
    command = [sys.executable, "-c", _KILLED_WHILE_WRITING, bigquery.project]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert numbers_in(warehouse) == [1]
    (left,) = [name for name in tables_of(bigquery) if name != "seen"]
    assert left.startswith("loaded_seen_")
    expires_at = datetime.fromtimestamp(int(bigquery.engine.tables["raw", left]["expirationTime"]) / 1000, UTC)
    assert timedelta(hours=23) < expires_at - datetime.now(UTC) < timedelta(hours=25)
    warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    assert numbers_in(warehouse) == [2]
    assert tables_of(bigquery) == [left, "seen"]


def test_a_write_that_fails_leaves_the_old_day_and_no_table(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    bigquery.fail_next(1, status=400, reason="invalid", path=JOBS)
    with pytest.raises(WarehouseError):
        warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    bigquery.fail_next(1, status=400, reason="invalid", path=UPLOADS)
    with pytest.raises(WarehouseError):
        warehouse.replace_days({"raw.seen": seen(2)}, DAY)
    with pytest.raises(ValueError, match="null or outside"):
        warehouse.replace_days_with_query("raw.seen", "SELECT DATE '2013-07-09' AS partition_on, 1 AS n", DAY)
    assert tables_of(bigquery) == ["seen"]
    assert numbers_in(warehouse) == [1]


def test_rows_of_a_query_wait_aside_in_a_table_that_expires(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    warehouse.replace_days_with_query("raw.seen", "SELECT DATE '2013-07-01' AS partition_on, 1 AS n", DAY)
    (created,) = [sql for sql in bigquery.queries() if sql.startswith("CREATE TABLE")]
    assert "expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)" in created
    assert tables_of(bigquery) == ["seen"]


# --- several writers


def test_writers_of_the_same_and_of_other_days_leave_each_day_whole(warehouse: BigQueryWarehouse):
    days = [DayRange(first=day, last=day) for day in (MONDAY, TUESDAY)]
    failures = list[BaseException]()

    def write(number: int) -> None:
        day = days[number % 2]
        rows = seen(*[number] * 3, day=day.first)
        try:
            warehouse.replace_days({"raw.seen": rows, "raw.both": rows}, day)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for table in ("raw.seen", "raw.both"):
        found = warehouse.query(f"SELECT partition_on, n FROM {table} ORDER BY partition_on, n").to_pylist()
        of_days = [[row["n"] for row in found if row["partition_on"] == day.first] for day in days]
        assert [len(numbers) for numbers in of_days] == [3, 3]
        assert [len(set(numbers)) for numbers in of_days] == [1, 1]


# --- tables, types, partitions


def test_tables_are_partitioned_by_their_day_and_clustered_by_what_is_asked_for(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer
):
    shared = seen(1).append_column("use_case", pa.array(["delay"])).append_column("decision_id", pa.array(["UA-1"]))
    warehouse.replace_days({"monitoring.drift": shared}, DAY, use_case="delay")
    with warehouse._connect() as client:
        drift, plain = client.get_table("monitoring.drift"), client.get_table("raw.seen")
        client.close()
    assert drift.time_partitioning.field == plain.time_partitioning.field == "partition_on"
    assert drift.clustering_fields == ["use_case", "decision_id"]
    assert plain.clustering_fields is None


def test_what_a_write_deletes_is_chosen_by_constant_days(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    week = DayRange(first=MONDAY, last=MONDAY + timedelta(days=6))
    warehouse.replace_days({"raw.seen": seen(2), "raw.bad": seen(3)}, week)
    warehouse.replace_days_with_query("raw.seen", "SELECT DATE '2013-07-01' AS partition_on, 1 AS n", week)
    scripts = [sql for sql in bigquery.queries() if sql.startswith("BEGIN")]
    deletes = [tree for sql in scripts for tree in sqlglot.parse(sql, read="bigquery") if isinstance(tree, exp.Delete)]
    assert len(deletes) == 3
    for delete in deletes:
        between = delete.args["where"].this
        assert between.this.name == "partition_on"
        assert [str(between.args[end].this.this) for end in ("low", "high")] == ["2013-07-01", "2013-07-07"]


def test_more_days_than_bigquery_changes_at_once_are_refused_before_anything_is_sent(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer
):
    most = DayRange(first=MONDAY, last=date(2024, 6, 12))
    more = DayRange(first=MONDAY, last=date(2024, 6, 13))
    told = r"raw.seen: 2013-07-01\.\.2024-06-13 is 4,001 days, and BigQuery changes 4,000 .*shorter ranges of days"
    with pytest.raises(WarehouseError, match=told):
        warehouse.replace_days({"raw.seen": seen(2)}, more)
    with pytest.raises(WarehouseError, match=told):
        warehouse.replace_days_with_query("raw.seen", "SELECT DATE '2013-07-01' AS partition_on, 2 AS n", more)
    assert bigquery.requests == []
    warehouse.replace_days({"raw.seen": seen(2)}, most)
    assert numbers_in(warehouse) == [2]


def test_a_type_that_would_not_come_back_as_it_was_is_refused(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    rows = seen(1).append_column("tags", pa.array([None], pa.list_(pa.string())))
    with pytest.raises(SchemaChanged, match=r"column tags is list<.*store a list or a structure as JSON text"):
        warehouse.replace_days({"raw.tagged": rows}, DAY)
    assert bigquery.requests == []


def test_results_of_many_pages_come_whole_and_in_order(bigquery: BigQueryServer):
    bigquery.page_rows = 7
    warehouse = warehouse_on(bigquery)
    warehouse.replace_days({"raw.seen": seen(*range(50))}, DAY)
    bigquery.fail_next(2, path="GET .*/queries/")
    assert numbers_in(warehouse) == list(range(50))


# --- the Storage API


@pytest.fixture
def many(bigquery: BigQueryServer) -> list[int]:
    """So many rows in raw.seen that they are read by the Storage API, where there is one."""
    numbers = list(range(25_000))
    warehouse_on(bigquery).replace_days({"raw.seen": seen(*numbers)}, DAY)
    bigquery.requests.clear()
    return numbers


def test_many_rows_come_by_the_storage_api_and_are_those_of_rest(bigquery: BigQueryServer, many: list[int]):
    with BigQueryStorageServer(pa.table({"n": many}), batch_rows=9_999) as storage:
        by_storage = warehouse_on(bigquery, connect_storage=storage.client).query("SELECT n FROM raw.seen ORDER BY n")
    assert sent(bigquery, "GET .*/(queries|data)") == 1  # until the query is done, not for rows
    by_rest = warehouse_on(bigquery).query("SELECT n FROM raw.seen ORDER BY n")
    assert by_storage.equals(by_rest)
    assert by_storage["n"].to_pylist() == many
    job = next(request.job_id for request in bigquery.requests if request.query)
    assert storage.tables == [f"projects/acme-ml-staging/datasets/_anonymous/tables/{job}"]


def test_few_rows_open_no_read_session(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    with BigQueryStorageServer(seen(), batch_rows=1) as storage:
        assert numbers_in(warehouse_on(bigquery, connect_storage=storage.client)) == [1]
    assert storage.tables == []


@pytest.mark.parametrize("refusal", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE])
def test_where_the_storage_api_cannot_be_used_the_rows_come_by_rest(
    bigquery: BigQueryServer, many: list[int], refusal: grpc.StatusCode, caplog: pytest.LogCaptureFixture
):
    with BigQueryStorageServer(pa.table({"n": many}), batch_rows=9_999, refusal=refusal) as storage:
        assert numbers_in(warehouse_on(bigquery, connect_storage=storage.client)) == many
    assert len(storage.tables) == 1
    assert "the Storage API of BigQuery cannot be used" in caplog.text


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK], ids=["gives up", "is silent"])
def test_where_the_storage_api_stalls_amid_the_rows_all_of_them_come_by_rest(
    bigquery: BigQueryServer, many: list[int], status: grpc.StatusCode, caplog: pytest.LogCaptureFixture
):
    with BigQueryStorageServer(pa.table({"n": many}), batch_rows=9_999, stalls_with=status) as storage:
        warehouse = warehouse_on(bigquery, connect_storage=storage.client, deadline=timedelta(seconds=3))
        assert numbers_in(warehouse) == many
    assert "the Storage API of BigQuery cannot be used" in caplog.text


def test_where_the_storage_api_gives_too_few_rows_all_of_them_come_by_rest(
    bigquery: BigQueryServer, many: list[int], caplog: pytest.LogCaptureFixture
):
    with BigQueryStorageServer(pa.table({"n": many[:-1]}), batch_rows=9_999) as storage:
        assert numbers_in(warehouse_on(bigquery, connect_storage=storage.client)) == many
    assert "gave 24999 rows of 25000, all come by REST" in caplog.text


# --- what it costs, and for whom


def test_every_job_bears_labels_that_bigquery_admits(bigquery: BigQueryServer):
    labels = {"environment": "staging", "use_case": "arrival_delay", "run": "A Run/With: odd characters" + "x" * 80}
    warehouse = warehouse_on(bigquery, labels=lambda: labels)
    warehouse.replace_days({"raw.seen": seen(1)}, DAY)
    found = [request.labels for request in bigquery.requests if request.labels or request.job_id]
    odd = ("a_run_with__odd_characters" + "x" * 80)[:63]
    assert found == [{"environment": "staging", "use_case": "arrival_delay", "run": odd}] * 2


def test_what_the_jobs_of_a_step_cost_stands_on_its_asset_and_who_ran_them_on_the_bill(bigquery: BigQueryServer):
    warehouse = warehouse_on(bigquery, labels=lambda: labels_of_step("staging"), on_job=add_to_materialization)
    warehouse.replace_days({"raw.seen": seen(*range(1000))}, DAY)
    bigquery.jobs.clear()

    @dg.asset(key=["delay", "examples"], tags={"use_case": "delay"})
    def examples() -> dg.MaterializeResult:
        warehouse.replace_days_with_query("examples.delay", "SELECT partition_on, n FROM raw.seen", DAY)
        return dg.MaterializeResult(metadata={"n_rows": len(numbers_in(warehouse, "examples.delay"))})

    result = dg.materialize([examples])
    (event,) = result.asset_materializations_for_node("delay__examples")
    statistics = [job["statistics"] for job in bigquery.jobs.values()]
    found = {name: value.value for name, value in event.metadata.items()}
    billed = sum(int(of["query"]["totalBytesBilled"]) for of in statistics)
    assert found == {
        "n_rows": 1000,
        "bigquery_jobs": len(statistics) + sum(int(of.get("numChildJobs", 0)) for of in statistics),
        "bigquery_bytes_billed": billed,
        "bigquery_slot_seconds": sum(int(of["query"]["totalSlotMs"]) for of in statistics) / 1000,
        "bigquery_usd_on_demand": pytest.approx(billed / 1024**4 * 6.25),
    }
    # The rows aside, how many they are, the transaction with the two statements in it, the query.
    assert found["bigquery_jobs"] == 4 + 2
    assert billed >= 3 * 10 * 2**20  # BigQuery bills 10 MiB for a table at least
    labels = {"environment": "staging", "use_case": "delay", "step": "delay__examples", "run": result.run_id}
    assert [job["configuration"]["labels"] for job in bigquery.jobs.values()] == [labels] * 4
    assert sent(bigquery, "POST /token") == 1  # of all that the step asked, and of the write before it


def test_a_job_that_failed_is_told_of_too(warehouse: BigQueryWarehouse, bigquery: BigQueryServer):
    told = list[JobUsage]()
    bigquery.fail_next(1, in_job=True)
    numbers_in(warehouse_on(bigquery, on_job=told.append))
    assert [usage.job_id for usage in told] == [request.job_id for request in bigquery.requests if request.query]


def test_the_operations_of_a_thread_share_one_access_token(
    warehouse: BigQueryWarehouse, bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch
):
    numbers_in(warehouse)
    assert sent(bigquery, "POST /token") == 0  # that of the write before is used
    thread = threading.Thread(target=numbers_in, args=(warehouse,))
    thread.start()
    thread.join()
    assert sent(bigquery, "POST /token") == 1
    with pytest.raises(WarehouseError, match="Syntax error"):
        warehouse.query("SELECT SELECT")
    numbers_in(warehouse)
    assert sent(bigquery, "POST /token") == 2  # what failed may have failed for its client
    monkeypatch.setattr("ml_assets.backends.bigquery_warehouse._CLIENT_IS_KEPT", timedelta(0))
    now = warehouse_on(bigquery)
    numbers_in(now)
    numbers_in(now)
    assert sent(bigquery, "POST /token") == 4
    with now.session(), now.session():
        numbers_in(now)
        numbers_in(now)
    assert sent(bigquery, "POST /token") == 5
    with pytest.raises(TimeoutError, match="of the caller"), warehouse.session():
        raise TimeoutError("of the caller")


def test_the_key_of_the_account_is_in_no_message(bigquery: BigQueryServer, tmp_path: Path, private_key: str):
    warehouse = warehouse_on(bigquery)
    bigquery.expired_token(may_refresh=False)
    with pytest.raises(AccessRefused) as refused:
        warehouse.query("SELECT 1")
    secret = json.loads((tmp_path / "service_account.json").read_text())["private_key"].splitlines()[1]
    assert secret in private_key
    assert secret not in str(refused.value) + repr(warehouse) + repr(warehouse._jobs)
