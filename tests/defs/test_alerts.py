"""The sensors that tell people, by ticks on an instance in memory: against servers that this file starts."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.slack_alerter import SlackAlerter
from ml_assets.backends.smtp_alerter import SmtpAlerter
from ml_assets.core.alerts import Receivers
from ml_assets.core.errors import AlertFailed
from ml_assets.core.ports import Alerter, DayRange
from tests.servers.slack import SlackServer
from tests.servers.smtp import SmtpServer

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning"),
]
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.Definitions]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_ASSETS_HOME", str(tmp_path_factory.mktemp("home")))
        from ml_assets.definitions import defs

        yield defs()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def store(tmp_path: Path) -> ObjectArtifactStore:
    return ObjectArtifactStore((tmp_path / "artifacts").as_uri())


class Log:
    def __init__(self) -> None:
        self.sent = list[tuple[str, str]]()

    def send(self, *, title: str, text: str) -> None:
        self.sent.append((title, text))


def alarm(subject: str, *, severity: str = "warning", since: str = "2013-07-01") -> dict[str, str]:
    said = f"{subject}: 31 % of the day's mass moved above the training range"
    incident = f"drift:{subject}:{since}"
    return {"kind": "drift", "subject": subject, "severity": severity, "explanation": said, "since": since} | {
        "incident": incident
    }


def monitored(instance: dg.DagsterInstance, day: str, *alarms: dict[str, str], asset: str = "alarms") -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            ["arrival_delay", asset], partition=day, metadata={"alarms": dg.MetadataValue.json(list(alarms))}
        )
    )


def tick(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    store: ObjectArtifactStore,
    alerter: Alerter,
    cursor: str | None = None,
) -> SensorExecutionData:
    resources = {"alerter": alerter, "store": store}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions, resources=resources)
    return definitions.get_repository_def().get_sensor_def("alarms_told").evaluate_tick(context)


def test_each_incident_is_told_once_to_slack_and_by_mail_with_a_link_to_the_report_of_the_day(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: ObjectArtifactStore
):
    log, cursor = Log(), None
    with SlackServer() as slack, SmtpServer() as mail:
        everyone = Receivers(
            {
                "log": log,
                "slack": SlackAlerter(slack.webhook),
                "email": SmtpAlerter(f"smtp://{mail.address}", to=("oncall@example.com",)),
            }
        )
        for day in ("2013-07-02", "2013-07-03"):
            monitored(instance, day, alarm("wind_speed_mph"))
            for _ in range(2):
                cursor = tick(definitions, instance, store, everyone, cursor).cursor
        # A daemon that has lost its cursor, or another one beside it, tells nobody again.
        tick(definitions, instance, store, everyone)
    [(title, text)] = log.sent
    assert title == "arrival_delay: warning drift alarm on 2013-07-02 since 2013-07-01"
    assert text.splitlines() == [
        "wind_speed_mph: 31 % of the day's mass moved above the training range",
        store.address("reports/arrival_delay/2013-07-02.html"),
    ]
    assert [message["text"] for message in slack.taken] == [f"*{title}*\n{text}"]
    assert [found.message["Subject"] for found in mail.mails] == [title]


def test_an_incident_that_grows_severe_is_told_again(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: ObjectArtifactStore
):
    log = Log()
    monitored(instance, "2013-07-02", alarm("wind"))
    cursor = tick(definitions, instance, store, log).cursor
    monitored(instance, "2013-07-03", alarm("wind", severity="severe"))
    tick(definitions, instance, store, log, cursor)
    assert [title.split()[1] for title, _ in log.sent] == ["warning", "severe"]


def test_the_end_of_an_incident_is_told_once_after_a_quiet_week_in_which_it_may_stand_again(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: ObjectArtifactStore
):
    log, cursor = Log(), None
    for day, *standing in [
        ("2013-07-02", "wind", "gust"),
        ("2013-07-03", "wind"),
        ("2013-07-02",),  # made again: the day before has no say in what stands now
        ("2013-07-04",),
        ("2013-07-09", "gust"),  # quiet for a week, and so the same incident as before
        ("2013-07-09",),  # made again, after a rollback: gust is over from here on
        ("2013-07-10",),
        ("2013-07-11",),
        ("2013-07-16",),
        ("2013-07-17",),
        ("2013-07-18",),
    ]:
        monitored(instance, day, *map(alarm, standing))
        for _ in range(2):
            cursor = tick(definitions, instance, store, log, cursor).cursor
    begun, ended = log.sent[:2], log.sent[2:]
    assert all("warning drift alarm on 2013-07-02" in title for title, _ in begun)
    assert [title for title, _ in ended] == [
        "arrival_delay: the drift alarm of 2013-07-01 is over, it stood until 2013-07-03",
        "arrival_delay: the drift alarm of 2013-07-01 is over, it stood until 2013-07-09",
    ]
    assert [text.splitlines()[0].split(":")[:2] for _, text in ended] == [["It was", " wind"], ["It was", " gust"]]
    assert [text.rpartition("/")[2] for _, text in ended] == ["2013-07-11.html", "2013-07-17.html"]


def test_days_that_are_filled_in_tell_nobody_of_what_is_over(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: ObjectArtifactStore
):
    log = Log()
    monitored(instance, "2013-07-05")
    cursor = tick(definitions, instance, store, log).cursor
    monitored(instance, "2013-07-02", alarm("wind"))
    monitored(instance, "2013-07-03", alarm("wind"))
    cursor = tick(definitions, instance, store, log, cursor).cursor
    assert log.sent == []
    # Of a stretch that reaches further the newest day has the say.
    for day, subject in (("2013-07-06", "gust"), ("2013-07-07", "snow")):
        monitored(instance, day, alarm(subject))
    tick(definitions, instance, store, log, cursor)
    assert ["snow" in text for _, text in log.sent] == [True], "of gust, which nobody was told of, no end is told"


def test_a_receiver_that_is_down_is_a_failed_tick_and_is_told_by_a_later_one(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: ObjectArtifactStore
):
    log = Log()
    monitored(instance, "2013-07-02", alarm("wind"))
    with SlackServer(404) as slack:
        both = Receivers({"slack": SlackAlerter(slack.webhook), "log": log})
        with pytest.raises(AlertFailed, match="refuses the alert with 404"):
            tick(definitions, instance, store, both)
        assert len(log.sent) == 1
        # Within the minute nothing is tried, and the cursor stays so that it is not forgotten.
        waiting = tick(definitions, instance, store, both)
        assert (waiting.cursor, waiting.skip_message) == (
            None,
            "another attempt is under way; looked at again at the next tick",
        )
    assert (len(log.sent), len(slack.posted)) == (1, 1)


def test_alarms_of_retraining_are_told_too(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: ObjectArtifactStore
):
    log = Log()
    stopped = {"kind": "retraining", "subject": "stopped", "severity": "severe", "since": "2013-07-02"}
    said = {"explanation": "3 candidates were refused", "incident": "retraining:stopped:2013-07-02"}
    monitored(instance, "2013-07-02", {**stopped, **said}, asset="retraining")
    tick(definitions, instance, store, log)
    assert log.sent[0][0] == "arrival_delay: severe retraining alarm on 2013-07-02"


@dg.op
def judge_raw_days() -> None:
    raise ValueError("raw.weather of 2013-07-01 has a severe fault")


@dg.job(tags={"dagster/partition": "2013-07-01"})
def landing() -> None:
    judge_raw_days()


def faults_tick(
    definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None, **resources: object
) -> SensorExecutionData:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions, resources=resources)
    return definitions.get_repository_def().get_sensor_def("faults_told").evaluate_tick(context)


def test_a_severe_fault_of_a_raw_day_is_told_once_however_many_runs_it_stops(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: ObjectArtifactStore, tmp_path: Path
):
    warehouse, log = DuckDBWarehouse(tmp_path / "warehouse.duckdb"), Log()
    resources = {"alerter": log, "store": store, "warehouse": warehouse}
    landing.execute_in_process(instance=instance, run_config=SILENT, raise_on_error=False)
    cursor = faults_tick(definitions, instance, **resources).cursor
    landing.execute_in_process(instance=instance, run_config=SILENT, raise_on_error=False)
    # Nobody has looked for faults yet: there is no such table.
    cursor = faults_tick(definitions, instance, cursor, **resources).cursor
    assert log.sent == []
    day = date(2013, 7, 1)
    rows = [
        ("weather", "units", "severe", ""),
        ("weather", "late", "warning", ""),
        ("flights", "nulls", "severe", "ann"),
    ]
    table = pa.table(
        {
            "partition_on": [day] * 3,
            "table_name": [name for name, *_ in rows],
            "check_name": [name for _, name, *_ in rows],
            "column_name": ["temperature_f", "", "dep_time"],
            "severity": [severity for _, _, severity, _ in rows],
            "fault": [f"{name}:{check}" for name, check, *_ in rows],
            "released_by": [by for *_, by in rows],
            "explanation": ["the temperatures are in Celsius", "", ""],
        }
    )
    warehouse.replace_days({"monitoring.data_quality": table}, DayRange(first=day, last=day))
    for _ in range(2):
        landing.execute_in_process(instance=instance, run_config=SILENT, raise_on_error=False)
        cursor = faults_tick(definitions, instance, cursor, **resources).cursor
    assert log.sent == [
        ("raw.weather of 2013-07-01 has a severe fault: units", "the temperatures are in Celsius"),
    ]
