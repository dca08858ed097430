"""The doctor over real connections: in good health nothing fails, and each fault trips its own check and no other."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import duckdb
import psycopg
import pytest
from dagster._daemon.types import DaemonHeartbeat
from dbt.adapters.bigquery.credentials import _create_bigquery_defaults
from google.cloud.bigquery import Client, Dataset
from google.cloud.bigtable import Client as BigtableAdmin
from google.cloud.bigtable.column_family import MaxVersionsGCRule
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.doctor.checkup import Check, Skipped, Trouble, examine
from ml_assets.doctor.tables import SCHEMAS
from tests.servers.bigquery import BigQueryServer
from tests.servers.bigtable import BigtableServer
from tests.servers.gcs import GcsServer
from tests.servers.landing import gcs_client
from tests.servers.postgres import PASSWORD, PostgresServer
from tests.servers.s3 import KEYS, s3_client
from tests.servers.slack import SlackServer
from tests.servers.smtp import SmtpServer
from tests.servers.webhdfs import WebHdfsServer, webhdfs_server

pytestmark = pytest.mark.filterwarnings("ignore:Connecting to Bigtable emulator:RuntimeWarning")

ROOT = Path(__file__).parents[1]
PROJECT = "acme-ml-staging"
BUCKETS = (f"{PROJECT}-artifacts", f"{PROJECT}-logs")
WANDB_KEY = "canary0" + 33 * "a"
# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"
OF_STAGING = [
    *("settings", "packages", "time zones", "local folder", "artifacts", "compute logs", "BigQuery", "datasets"),
    *("writing", "dbt", "dagster.yaml", "Dagster storage", "daemon", "studies", "W&B"),
    *("alerts by Slack", "alerts by mail"),
]


@dataclass(frozen=True, kw_only=True)
class Staging:
    """A staging environment in good health: its variables are those of this process."""

    bigquery: BigQueryServer
    gcs: GcsServer
    slack: SlackServer
    mail: SmtpServer
    postgres_url: str
    dagster_home: Path

    def dataset(self, name: str, location: str) -> None:
        """Make a dataset anew, in a location."""
        with Client(project=PROJECT) as client:
            client.delete_dataset(name, delete_contents=True, not_found_ok=True)
            made = Dataset(f"{PROJECT}.{name}")
            made.location = location
            client.create_dataset(made)

    def beat(self, at: float) -> None:
        """Let every daemon be heard of at a time."""
        with dg.DagsterInstance.from_config(str(self.dagster_home)) as instance:
            for kind in instance.get_required_daemon_types():
                instance.add_daemon_heartbeat(DaemonHeartbeat(at, kind, None, None))

    def execute(self, sql: str) -> None:
        """Run a statement in Dagster's database."""
        with psycopg.connect(self.postgres_url) as connection:
            connection.execute(sql)  # pyright: ignore[reportArgumentType]


class _Wandb(BaseHTTPRequestHandler):
    """W&B as far as it says who a key belongs to."""

    def do_POST(self) -> None:
        import base64

        self.rfile.read(int(self.headers["Content-Length"]))
        known = base64.b64encode(f"api:{WANDB_KEY}".encode()).decode()
        is_known = self.headers["Authorization"] == f"Basic {known}"
        answer = json.dumps({"data": {"viewer": {"username": "olga", "entity": "acme"} if is_known else None}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def wandb_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Wandb) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def receivers() -> Iterator[tuple[SlackServer, SmtpServer]]:
    with SlackServer() as slack, SmtpServer(refused=("nobody@example.com",)) as mail:
        yield slack, mail


@pytest.fixture(scope="module")
def bigquery() -> Iterator[BigQueryServer]:
    with BigQueryServer(PROJECT) as server:
        yield server


@pytest.fixture
def staging(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bigquery: BigQueryServer,
    gcs: GcsServer,
    postgres: PostgresServer,
    wandb_url: str,
    receivers: tuple[SlackServer, SmtpServer],
) -> Staging:
    """Everything is there, on the servers of this machine; the daemon was heard of a moment ago."""
    database, (slack, mail) = f"dagster_{tmp_path.name}", receivers
    home = tmp_path / "dagster"
    variables = {
        "ML_ASSETS_ENV": "staging",
        "ML_ASSETS_PROJECT": "acme-ml",
        "ML_ASSETS_HOME": str(tmp_path / "home"),
        "ML_ASSETS_CREDENTIALS": "",
        "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(tmp_path / "google.json", bigquery)),
        "BIGQUERY_EMULATOR_HOST": bigquery.address,
        "STORAGE_EMULATOR_HOST": gcs.url,
        "ML_ASSETS_POSTGRES_URL": postgres.url(database),
        "ML_ASSETS_STUDIES": postgres.url("studies"),
        "DAGSTER_HOME": str(home),
        "WANDB_API_KEY": WANDB_KEY,
        "WANDB_BASE_URL": wandb_url,
        "ML_ASSETS_SLACK_WEBHOOK": slack.webhook,
        "ML_ASSETS_SMTP_URL": f"smtp://{mail.address}",
        "ML_ASSETS_ALERT_EMAIL": "oncall@example.com",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # dbt keeps, for the life of a process, the credentials that it found first: those of another test's server.
    _create_bigquery_defaults.cache_clear()
    for bucket in BUCKETS:
        if gcs.storage.get_bucket(bucket) is None:
            gcs.create_bucket(bucket)
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "cloud" / "dagster.yaml", home / "dagster.yaml")
    postgres_url = variables["ML_ASSETS_POSTGRES_URL"]
    found = Staging(bigquery=bigquery, gcs=gcs, slack=slack, mail=mail, postgres_url=postgres_url, dagster_home=home)
    found.beat(time.time())
    with Client(project=PROJECT) as client:
        for name in SCHEMAS:
            client.create_dataset(name, exists_ok=True)
    return found


def service_account(path: Path, server: BigQueryServer) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_text(json.dumps(server.service_account(key.decode())))
    return path


def told(*options: str, width: int = 100) -> tuple[int, str]:
    """Return exit code and output of the command."""
    from ml_assets.cli import terminal

    terminal.console._width = None  # rich keeps for good the width that is set as its console is made
    answer = CliRunner().invoke(cli.app, ["doctor", *options], env={"COLUMNS": str(width)})
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.output
    return answer.exit_code, answer.output


def results(*, code: int) -> dict[str, dict[str, str]]:
    """Return what the command says of each check, for machines; no secret may be in it."""
    found, output = told("--json")
    for secret in (PASSWORD, WANDB_KEY, "canary-webhook", KEYS["AWS_SECRET_ACCESS_KEY"] + "-secret"):
        assert secret not in output
    assert found == code, output
    return {result["name"]: result for result in json.loads(output)}


def test_in_good_health_nothing_fails_and_nothing_is_left_behind(staging: Staging):
    beside_dbt = _of_dbt()
    found = results(code=0)
    assert list(found) == OF_STAGING
    assert {name for name, result in found.items() if result["status"] != "ok"} <= {"packages"}
    assert all(result["do"] == "" for result in found.values() if result["status"] == "ok")
    for bucket in BUCKETS:
        assert staging.gcs.storage.get_file_list(bucket)[0] == []
    with Client(project=PROJECT) as client:
        assert [table for name in SCHEMAS for table in client.list_tables(name)] == []
    assert _of_dbt() == beside_dbt
    assert (staging.slack.posted, staging.mail.mails) == ([], []), "nobody is alerted by being asked"


def _of_dbt() -> list[str]:
    """Return what lies in the dbt project, but for what any dbt leaves there, also that of a test beside this one."""
    return sorted(path.name for path in (ROOT / "dbt_project").iterdir() if path.name not in {"logs", "target"})


# A fault -> the one check it trips, and what the advice must name.
Fault = Callable[[Staging, pytest.MonkeyPatch], object]
FAULTS: dict[str, tuple[Fault, str, str]] = {
    "a dataset in another location": (
        lambda s, _: s.dataset("features", "EU"),
        "datasets",
        f"bq mk --location=US -d {PROJECT}:features",
    ),
    "a dataset that is not there": (
        lambda s, _: s.bigquery.engine.drop_dataset("features", with_contents=True),
        "datasets",
        f"PROJECT={PROJECT} LOCATION=US envsubst < deploy/iam/gcp/datasets.sql | bq query",
    ),
    "no bucket of artifacts": (
        lambda s, _: s.gcs.storage.delete_bucket(BUCKETS[0]),
        "artifacts",
        f"gcloud storage buckets create gs://{BUCKETS[0]} --project={PROJECT} --location=US",
    ),
    "no bucket of logs": (
        lambda s, _: s.gcs.storage.delete_bucket(BUCKETS[1]),
        "compute logs",
        f"gcloud storage buckets create gs://{BUCKETS[1]}",
    ),
    "no landing bucket": (
        lambda _, m: m.setenv("ML_ASSETS_SOURCES", "flights=gs://acme-ml-staging-landing/flights"),
        "source flights",
        "gcloud storage buckets create gs://acme-ml-staging-landing ",
    ),
    "no such table at a source": (
        lambda _, m: m.setenv("ML_ASSETS_SOURCES", f"weather=bigquery://{PROJECT}/raw/observed"),
        "source weather",
        "correct ML_ASSETS_SOURCES",
    ),
    "a dead BigQuery": (lambda _, m: m.setenv("BIGQUERY_EMULATOR_HOST", NOWHERE), "BigQuery", "mlAssetsJobs"),
    "a revoked key": (
        lambda s, _: s.bigquery.expired_token(may_refresh=False),
        "BigQuery",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "a key that W&B does not know": (lambda _, m: m.setenv("WANDB_API_KEY", "b" * 40), "W&B", "set WANDB_API_KEY"),
    "a dead webhook": (
        lambda _, m: m.setenv("ML_ASSETS_SLACK_WEBHOOK", f"{NOWHERE}/services/canary-webhook"),
        "alerts by Slack",
        "ML_ASSETS_SLACK_WEBHOOK",
    ),
    "a recipient that the mail server does not know": (
        lambda _, m: m.setenv("ML_ASSETS_ALERT_EMAIL", "nobody@example.com"),
        "alerts by mail",
        "ML_ASSETS_ALERT_EMAIL",
    ),
    "a dead W&B": (lambda _, m: m.setenv("WANDB_BASE_URL", NOWHERE), "W&B", "ML_ASSETS_TRACKER=offline"),
    "tables of another Dagster": (
        lambda s, _: s.execute("update alembic_version set version_num = '7e2f3204cf8e'"),
        "Dagster storage",
        "dagster instance migrate",
    ),
    "a silent daemon": (
        lambda s, _: s.beat(time.time() - 7200),
        "daemon",
        "dagster-daemon run",
    ),
    "no database of studies": (
        lambda s, m: m.setenv("ML_ASSETS_STUDIES", s.postgres_url.rpartition("/")[0] + "/nothing"),
        "studies",
        "gcloud sql databases create nothing",
    ),
    "studies in Dagster's database": (
        lambda s, m: m.setenv("ML_ASSETS_STUDIES", s.postgres_url),
        "studies",
        "let ML_ASSETS_STUDIES end in /studies",
    ),
    "a wrong password": (
        lambda s, m: m.setenv("ML_ASSETS_POSTGRES_URL", s.postgres_url.replace(PASSWORD, "wrong")),
        "Dagster storage",
        "set the password of postgres in ML_ASSETS_POSTGRES_URL",
    ),
    "a dead PostgreSQL": (
        lambda _, m: m.setenv("ML_ASSETS_POSTGRES_URL", f"postgresql://dagster:{PASSWORD}@127.0.0.1:9/dagster"),
        "Dagster storage",
        "check that PostgreSQL runs there",
    ),
    "a laptop's dagster.yaml": (
        lambda s, _: shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", s.dagster_home / "dagster.yaml"),
        "dagster.yaml",
        "set DAGSTER_HOME to a folder of its own",
    ),
    "no dagster.yaml": (
        lambda s, _: (s.dagster_home / "dagster.yaml").unlink(),
        "dagster.yaml",
        f"cp {ROOT}/deploy/cloud/dagster.yaml",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_trips_its_own_check_whose_advice_names_what_to_do(
    name: str, staging: Staging, monkeypatch: pytest.MonkeyPatch
):
    fault, tripped, advice = FAULTS[name]
    fault(staging, monkeypatch)
    try:
        found = results(code=1)
    finally:
        staging.bigquery._may_refresh = True
        if tripped == "datasets":
            staging.dataset("features", "US")
    assert [each for each, result in found.items() if result["status"] == "fail"] == [tripped]
    assert advice in found[tripped]["do"]
    assert set(OF_STAGING) <= set(found), "every check is told, whatever fails"


@dataclass(frozen=True, kw_only=True)
class Lake:
    """Where each of the six raw tables comes from, each from a place of another kind."""

    folder: Path
    hdfs: WebHdfsServer
    bigtable: BigtableServer
    urls: dict[str, str]


@pytest.fixture
def lake(staging: Staging, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """One file, row or table at every place."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "airports.csv").touch()
    s3_client(s3).create_bucket(Bucket="lake")
    s3_client(s3).put_object(Bucket="lake", Key="schedules/2013-07-01.csv", Body=b"")
    staging.gcs.create_bucket("lake")
    blob = gcs_client(staging.gcs.url).bucket("lake").blob("flights/2013-07-01.csv")
    blob.upload_from_string("")
    with webhdfs_server() as hdfs, BigtableServer() as bigtable, Client(project=PROJECT) as client:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3, "BIGTABLE_EMULATOR_HOST": bigtable.address}.items():
            monkeypatch.setenv(name, value)
        hdfs.put("/lake/weather/2013-07-01.csv", b"")
        client.query("create table raw.all_airlines as select 'UA' as carrier, 'United' as name").result()
        table = BigtableAdmin(project=PROJECT, admin=True).instance("lake").table("planes")
        table.create(column_families={"f": MaxVersionsGCRule(1)})
        row = table.direct_row("N12345")
        row.set_cell("f", "tailnum", b"N12345")
        row.commit()
        urls = {
            "airports": (tmp_path / "lake").as_uri(),
            "schedules": "s3://lake/schedules",
            "flights": "gs://lake/flights",
            "weather": f"webhdfs://olga@{hdfs.host}/lake/weather",
            "airlines": f"bigquery://{PROJECT}/raw/all_airlines",
            "planes": f"bigtable://{PROJECT}/lake/planes?family=f",
        }
        monkeypatch.setenv("ML_ASSETS_SOURCES", " ".join(f"{table}={url}" for table, url in urls.items()))
        yield Lake(folder=tmp_path / "lake", hdfs=hdfs, bigtable=bigtable, urls=urls)
        client.delete_table("raw.all_airlines", not_found_ok=True)
    s3_client(s3).delete_object(Bucket="lake", Key="schedules/2013-07-01.csv")
    s3_client(s3).delete_bucket(Bucket="lake")
    blob.delete()
    staging.gcs.storage.delete_bucket("lake")


def test_every_place_that_raw_tables_come_from_is_asked(lake: Lake):
    found = results(code=0)
    told = {name.removeprefix("source "): each for name, each in found.items() if name.startswith("source ")}
    assert {table: (each["status"], each["found"].removeprefix(lake.urls[table])) for table, each in told.items()} == {
        "airports": ("ok", ": begins with airports.csv"),
        "schedules": ("ok", ": begins with 2013-07-01.csv"),
        "flights": ("ok", ": begins with 2013-07-01.csv"),
        "weather": ("ok", ": begins with 2013-07-01.csv"),
        "airlines": ("ok", ": 1 rows in US"),
        "planes": ("ok", ": begins with row N12345"),
    }


def _renamed(lake: Lake, table: str, old: str, new: str) -> str:
    return " ".join(f"{name}={url.replace(old, new) if name == table else url}" for name, url in lake.urls.items())


# A fault at one place of six -> the table it is of, what must be found, and what the advice must name.
FAULTS_AT_SOURCES: dict[str, tuple[Callable[[Lake, pytest.MonkeyPatch], object], str, str, str]] = {
    "no folder": (lambda lake, _: shutil.rmtree(lake.folder), "airports", "there is no folder", "mkdir -p /"),
    "no bucket of S3": (
        lambda lake, m: m.setenv("ML_ASSETS_SOURCES", _renamed(lake, "schedules", "/lake/", "/nowhere/")),
        "schedules",
        "there is no bucket 'nowhere'",
        "aws s3 mb s3://nowhere;",
    ),
    "no bucket of GCS": (
        lambda lake, m: m.setenv("ML_ASSETS_SOURCES", _renamed(lake, "flights", "/lake/", "/nowhere/")),
        "flights",
        "there is no bucket 'nowhere'",
        "gcloud storage buckets create gs://nowhere ",
    ),
    "no folder in HDFS": (lambda lake, _: lake.hdfs.files.clear(), "weather", "there is no folder", "port 9870"),
    "a user whom HDFS refuses": (lambda lake, _: lake.hdfs.users.add("ivan"), "weather", "403", "lets this user read"),
    "a dead HDFS": (
        lambda lake, m: m.setenv("ML_ASSETS_SOURCES", _renamed(lake, "weather", lake.hdfs.host, "127.0.0.1:9")),
        "weather",
        "cannot list webhdfs://127.0.0.1:9/lake/weather/",
        "check that 127.0.0.1:9 is",
    ),
    "a column that the table lacks": (
        lambda _, m: m.setenv("ML_ASSETS_SOURCES", f"weather=bigquery://{PROJECT}/raw/all_airlines?day=seen_on"),
        "weather",
        "seen_on",
        "?day=COLUMN",
    ),
    "no table in Bigtable": (
        lambda lake, _: lake.bigtable.tables.clear(),
        "planes",
        "not found",
        "roles/bigtable.reader",
    ),
    "a table that has no contract": (
        lambda lake, m: m.setenv("ML_ASSETS_SOURCES", f"bookings={lake.folder.as_uri()}"),
        "bookings",
        "there are contracts of",
        "correct ML_ASSETS_SOURCES",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS_AT_SOURCES)
def test_a_fault_at_a_source_trips_the_check_of_its_table_alone(name: str, lake: Lake, monkeypatch: pytest.MonkeyPatch):
    fault, table, wrong, advice = FAULTS_AT_SOURCES[name]
    fault(lake, monkeypatch)
    found = results(code=1)
    assert [each for each, result in found.items() if result["status"] == "fail"] == [f"source {table}"]
    assert wrong in found[f"source {table}"]["found"]
    assert advice in found[f"source {table}"]["do"]


def test_a_place_where_nothing_lies_yet_is_no_failure_and_is_told(lake: Lake):
    for rows in lake.bigtable.tables.values():
        rows.clear()
    (lake.folder / "airports.csv").unlink()
    found = results(code=0)
    warned = {name: result["do"] for name, result in found.items() if result["status"] == "warn"}
    in_vain = "write rows there, or correct ML_ASSETS_SOURCES"
    assert {name: do for name, do in warned.items() if name != "packages"} == {
        "source airports": in_vain,
        "source planes": in_vain,
    }


def test_variables_that_are_missing_are_told_at_once(staging: Staging, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ML_ASSETS_PROJECT")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    found = results(code=1)
    assert found["settings"]["status"] == "fail"
    assert "ML_ASSETS_PROJECT is not set" in found["settings"]["found"]
    assert "GOOGLE_APPLICATION_CREDENTIALS is not set" in found["settings"]["found"]
    assert found["time zones"]["status"] == "ok"


def test_artifacts_in_s3_are_looked_at_there(staging: Staging, s3: str, monkeypatch: pytest.MonkeyPatch):
    for name, value in {**KEYS, "ML_ASSETS_OBJECTS": "s3", "AWS_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(name, value)
    s3_client(s3).create_bucket(Bucket=BUCKETS[0])
    # Servers of one process share what they hold: another file's life may have left artifacts in a bucket of this name.
    before = s3_client(s3).list_objects_v2(Bucket=BUCKETS[0]).get("Contents")
    found = results(code=1)
    assert found["artifacts"]["status"] == "ok"
    assert found["compute logs"]["status"] == "fail"
    assert found["compute logs"]["do"].startswith(f"aws s3 mb s3://{BUCKETS[1]}")
    assert s3_client(s3).list_objects_v2(Bucket=BUCKETS[0]).get("Contents") == before


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ENV", "POSTGRES_URL", "SLACK_WEBHOOK", "SMTP_URL", "ALERT_EMAIL"):
        monkeypatch.delenv(f"ML_ASSETS_{name}", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_on_a_fresh_clone_it_takes_seconds_and_makes_nothing(local: Path):
    begun = time.process_time()
    found = results(code=0)
    assert time.process_time() - begun < 10
    for name in ("DuckDB", "W&B", "alerts by Slack", "alerts by mail"):
        assert found[name]["status"] == "skipped"
    assert found["artifacts"]["status"] == "ok"
    assert not local.exists()


@pytest.mark.parametrize("width", [80, 100])
def test_a_person_reads_it_in_a_terminal_and_copies_paths_and_commands_whole(
    width: int, local: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = "/mnt/" + "a_folder_of_a_very_long_name_/" * 5 + "flights"
    monkeypatch.setenv("ML_ASSETS_SOURCES", f"flights=file://{folder}")
    code, output = told(width=width)
    [advice] = [line for line in output.splitlines() if line.startswith("source flights: ")]
    assert f"mkdir -p {folder}," in advice
    rest = [line for line in output.splitlines() if line != advice]
    assert max(map(len, rest)) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in output
    assert (code, rest[-1]) == (1, "1 of 15 checks failed.")


def test_a_warehouse_that_another_process_holds_is_no_failure_and_names_the_process(local: Path):
    import subprocess
    import sys

    local.mkdir()
    with duckdb.connect(str(local / "warehouse.duckdb")):
        pass
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    held = subprocess.Popen(
        [sys.executable, "-c", code, str(local / "warehouse.duckdb")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert held.stdout is not None
        held.stdout.readline()
        found = examine([check for check in _checks() if check.name == "DuckDB"])
    finally:
        held.communicate()
    assert (found[0].status, found[0].do) == ("warn", f"wait for process {held.pid} or end it: kill {held.pid}")


def _checks() -> list[Check]:
    from ml_assets.doctor import checks_of_this_process

    return list(checks_of_this_process())


def test_a_host_that_never_answers_is_left_after_its_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        def look() -> str:
            with socket.create_connection(silent.getsockname()) as connection:
                return connection.recv(1).decode()

        [found, after] = examine(
            [
                Check(name="silent", look=look, do="call someone", seconds=0.2),
                Check(name="after", look=lambda: "well", do=""),
            ]
        )
        assert (found.status, found.do) == ("fail", "call someone")
        assert "no answer within 0.2 s" in found.found
        assert after.status == "ok"
        silent.accept()[0].close()  # lets the thread go that was left behind


def test_whatever_a_check_raises_is_its_result_and_no_password_is_told():
    def raising(error: Exception) -> Callable[[], str]:
        def look() -> str:
            raise error

        return look

    found = examine(
        [
            Check(name="a", look=raising(OSError("cannot open\n postgresql://olga:hunter2@db/x")), do="call someone"),
            Check(name="b", look=raising(Trouble("too old", do="make it new", status="warn")), do=""),
            Check(name="c", look=raising(Skipped("not here")), do=""),
            Check(name="d", look=lambda: "well", do="", needs=("a",)),
            Check(name="e", look=lambda: "well", do="", needs=("b", "c")),
        ]
    )
    assert [(each.status, each.found, each.do) for each in found] == [
        ("fail", "OSError: cannot open postgresql://***@db/x", "call someone"),
        ("warn", "too old", "make it new"),
        ("skipped", "not here", ""),
        ("skipped", "a comes first", ""),
        ("ok", "well", ""),
    ]


def test_what_dbt_debug_finds_wrong_is_told(tmp_path: Path):
    folder = ROOT / "dbt_project"
    elsewhere = {"warehouse_path": str(tmp_path / "nowhere" / "warehouse.duckdb")}
    said = DbtInProcess(folder, target="local", variables=elsewhere).debug()
    assert f'Cannot open file "{elsewhere["warehouse_path"]}"' in said
    here = {"warehouse_path": str(tmp_path / "warehouse.duckdb")}
    assert DbtInProcess(folder, target="local", variables=here).debug() == ""
