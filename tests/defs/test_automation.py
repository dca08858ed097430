"""The schedules and sensors by ticks: what they would start, on an instance in memory, nothing is run."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._utils.schedules import schedule_execution_time_iterator

from ml_assets.calendar import DAILY, LOCAL_ZONE
from ml_assets.core.registry import LedgerEntry
from ml_assets.lifecycle import tell_dagster
from ml_assets.use_cases import arrival_delay

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    # dagster-dbt installs sqlglot with a parser that calls itself outdated when it is first imported.
    pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning"),
]

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
USE_CASES = ("air_time", "arrival_delay", "cancellation")
CHAMPION, PREDICTIONS = (["arrival_delay", stage] for stage in ("champion", "predictions"))


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


def scheduled(definitions: dg.Definitions, name: str, at: datetime) -> list[dg.RunRequest]:
    repository = definitions.get_repository_def()
    context = dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository)
    return list(repository.get_schedule_def(name).evaluate_tick(context).run_requests or [])


def ticks(definitions: dg.Definitions, name: str, first: date, last: date) -> list[datetime]:
    """Every moment from the first day to the last, in UTC, at which the cron expression is due."""
    schedule = definitions.get_repository_def().get_schedule_def(name)
    start = datetime(first.year, first.month, first.day, tzinfo=LOCAL_ZONE)
    found = list[datetime]()
    for moment in schedule_execution_time_iterator(
        start.timestamp(), schedule.cron_schedule, schedule.execution_timezone, ascending=True
    ):
        if moment.astimezone(LOCAL_ZONE).date() > last:
            return found
        found.append(moment.astimezone(UTC))
    return found


def tick(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    *,
    cursor: str | None = None,
    resources: Mapping[str, object] | None = None,
) -> SensorExecutionData:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, definitions=definitions, resources=dict(resources or {})
    )
    return definitions.get_repository_def().get_sensor_def(name).evaluate_tick(context)


def materialize(instance: dg.DagsterInstance, key: list[str], facts: Mapping[str, Mapping[str, str]]) -> str:
    """Materialize these days of an asset in one run, each with facts of its own, and return the run's id."""

    @dg.asset(key=key, partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run())
    def stand_in(context: dg.AssetExecutionContext) -> None:
        for day, metadata in facts.items():
            context.add_asset_metadata(dict(metadata), partition_key=day)

    days = sorted(facts)
    is_one_day = len(days) == 1
    result = dg.materialize(
        [stand_in],
        instance=instance,
        partition_key=days[0] if is_one_day else None,
        tags={} if is_one_day else {RANGE_START: days[0], RANGE_END: days[-1]},
        run_config=SILENT,
    )
    return result.run_id


def promoted(instance: dg.DagsterInstance, as_of: str, *, version: str = "v1") -> str:
    return materialize(instance, CHAMPION, {as_of: {"version": version, "effective_from": as_of}})


def predict(instance: dg.DagsterInstance, *days: str) -> None:
    for day in days:
        instance.report_runless_asset_event(dg.AssetMaterialization(PREDICTIONS, partition=day))


def stretches(found: SensorExecutionData) -> list[tuple[str, str]]:
    return [(request.tags[RANGE_START], request.tags[RANGE_END]) for request in found.run_requests or []]


@pytest.mark.parametrize(
    ("at", "yesterday"),
    [
        ("2013-07-02T10:30", "2013-07-01"),
        # 03:59 in UTC is still the evening before in New York, 04:00 is midnight; in winter midnight is at 05:00.
        ("2013-07-02T03:59:59", "2013-06-30"),
        ("2013-07-02T04:00", "2013-07-01"),
        ("2013-01-02T04:59:59", "2012-12-31"),
        ("2013-01-02T05:00", "2013-01-01"),
        # The nights on which the clocks change, and the mornings after.
        ("2013-03-10T10:30", "2013-03-09"),
        ("2013-03-11T10:30", "2013-03-10"),
        ("2013-11-03T11:30", "2013-11-02"),
        ("2013-11-04T11:30", "2013-11-03"),
        ("2014-01-01T11:30", "2013-12-31"),
    ],
)
def test_a_morning_asks_for_the_local_day_before_it(definitions: dg.Definitions, at: str, yesterday: str):
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    asked = scheduled(definitions, "every_day", moment)
    assert [request.tags[RANGE_END] for request in asked] == ([yesterday] if yesterday >= "2013-01-01" else [])


def test_a_year_of_mornings_asks_for_every_day_once_as_the_newest_and_again_for_what_came_late(
    definitions: dg.Definitions,
):
    mornings = ticks(definitions, "every_day", date(2013, 1, 2), date(2014, 1, 1))
    asked = [request for morning in mornings for request in scheduled(definitions, "every_day", morning)]
    days = [(date(2013, 1, 1) + timedelta(days=n)).isoformat() for n in range(365)]
    assert [request.tags[RANGE_END] for request in asked] == days
    assert [request.tags[RANGE_START] for request in asked] == [days[0], days[0], *days[:-2]]
    assert len({request.run_key for request in asked}) == 365


def test_schedules_and_sensors_are_on_from_the_start(definitions: dg.Definitions):
    repository = definitions.get_repository_def()
    assert {one.name: one.default_status.name for one in [*repository.schedule_defs, *repository.sensor_defs]} == {
        "every_day": "RUNNING",
        "every_week": "RUNNING",
        **{
            f"{use_case}_{what}": "RUNNING"
            for use_case in USE_CASES
            for what in ("retraining_decided", "champion_changed")
        },
        "run_failed": "RUNNING",
        "alarms_told": "RUNNING",
        "faults_told": "RUNNING",
    }


def test_a_job_makes_what_its_name_says_and_a_rescore_never_a_champion(definitions: dg.Definitions):
    def made(job: str) -> set[str]:
        return {key.to_user_string() for key in definitions.resolve_job_def(job).asset_layer.selected_asset_keys}

    training = {f"arrival_delay/{stage}" for stage in ("training_set", "candidate", "champion")}
    every = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert made("arrival_delay_training") == training
    tuning, ablation = {"arrival_delay/tuning"}, {"arrival_delay/ablation"}
    not_daily = ("training_set", "candidate", "champion", "tuning", "ablation", "staleness", "ml_test_score")
    assert made("daily") == every - {f"{use_case}/{stage}" for use_case in USE_CASES for stage in not_daily}
    assert made("arrival_delay_tuning") == tuning | {"arrival_delay/training_set"}
    assert made("arrival_delay_ablation") == ablation | {"arrival_delay/training_set"}
    assert made("arrival_delay_staleness") == {"arrival_delay/staleness"}
    assert made("arrival_delay_ml_test_score") == {"arrival_delay/ml_test_score"}
    assert made("ml_test_scores") == {f"{use_case}/ml_test_score" for use_case in USE_CASES}
    assert made("arrival_delay_first_decision") == {"arrival_delay/retraining"}
    assert made("arrival_delay_rescore") == {
        f"arrival_delay/{stage}"
        for stage in ("predictions", "drift", "performance", "skew", "alarms", "report", "retraining")
    }


def test_a_new_champion_scores_again_exactly_the_predicted_days_from_its_own_on(
    definitions: dg.Definitions, instance: dg.DagsterInstance
):
    predict(instance, "2013-06-29", "2013-06-30", "2013-07-01", "2013-07-02", "2013-07-03", "2013-07-05")
    promoted(instance, "2013-07-02")
    first = tick(definitions, instance, "arrival_delay_champion_changed")
    assert stretches(first) == [("2013-07-02", "2013-07-03"), ("2013-07-05", "2013-07-05")]
    assert tick(definitions, instance, "arrival_delay_champion_changed", cursor=first.cursor).run_requests == []
    sensor = definitions.get_repository_def().get_sensor_def("arrival_delay_champion_changed")
    assert sensor.job_name == "arrival_delay_rescore"


def test_two_champions_between_two_ticks_score_again_from_the_earlier_one_on(
    definitions: dg.Definitions, instance: dg.DagsterInstance
):
    predict(instance, *(f"2013-07-{day:02}" for day in range(1, 11)))
    promoted(instance, "2013-07-01", version="v1")
    first = tick(definitions, instance, "arrival_delay_champion_changed")
    promoted(instance, "2013-07-04", version="v2")
    promoted(instance, "2013-07-08", version="v3")
    found = tick(definitions, instance, "arrival_delay_champion_changed", cursor=first.cursor)
    assert stretches(found) == [("2013-07-04", "2013-07-10")]
    assert tick(definitions, instance, "arrival_delay_champion_changed", cursor=found.cursor).run_requests == []


def test_a_stretch_goes_on_over_the_end_of_a_month_a_year_and_a_night_of_25_hours(
    definitions: dg.Definitions, instance: dg.DagsterInstance
):
    predict(instance, "2013-11-02", "2013-11-03", "2013-11-04", "2013-12-31", "2014-01-01", "2014-02-28", "2014-03-01")
    promoted(instance, "2013-11-02")
    assert stretches(tick(definitions, instance, "arrival_delay_champion_changed")) == [
        ("2013-11-02", "2013-11-04"),
        ("2013-12-31", "2014-01-01"),
        ("2014-02-28", "2014-03-01"),
    ]


def test_a_champion_of_days_not_predicted_yet_starts_nothing(definitions: dg.Definitions, instance: dg.DagsterInstance):
    predict(instance, "2013-06-30")
    promoted(instance, "2013-07-01")
    found = tick(definitions, instance, "arrival_delay_champion_changed")
    assert found.run_requests == []
    assert found.skip_message == "no day since 2013-07-01 has been predicted yet"


def test_a_champion_promoted_again_scores_again(definitions: dg.Definitions, instance: dg.DagsterInstance):
    predict(instance, "2013-07-01")
    keys, cursor = list[str | None](), None
    for _ in range(2):
        promoted(instance, "2013-07-01")
        found = tick(definitions, instance, "arrival_delay_champion_changed", cursor=cursor)
        cursor = found.cursor
        keys += [request.run_key for request in found.run_requests or []]
    assert len(set(keys)) == len(keys) == 2


def test_a_rollback_by_hand_scores_again_and_the_asset_shows_it(
    definitions: dg.Definitions, instance: dg.DagsterInstance
):
    predict(instance, "2013-07-07", "2013-07-08", "2013-07-09")
    promoted(instance, "2013-07-07", version="v2")
    before = tick(definitions, instance, "arrival_delay_champion_changed")
    entry = LedgerEntry(
        action="rollback",
        use_case="arrival_delay",
        version="v1",
        package_hash="a" * 64,
        effective_from=date(2013, 7, 8),
        as_of=date(2013, 7, 1),
        reason="too many false alarms",
        recorded_at=datetime(2013, 7, 9, tzinfo=UTC),
        recorded_by="ann",
        sequence=3,
    )
    tell_dagster(instance, arrival_delay.USE_CASE, entry)

    found = tick(definitions, instance, "arrival_delay_champion_changed", cursor=before.cursor)
    assert stretches(found) == [("2013-07-08", "2013-07-09")]
    shown = instance.get_latest_materialization_event(dg.AssetKey(CHAMPION)).asset_materialization
    assert (shown.partition, shown.metadata["version"].value, shown.metadata["recorded_by"].value) == (
        "2013-07-08",
        "v1",
        "ann",
    )


class FakeAlerter:
    def __init__(self) -> None:
        self.sent = list[tuple[str, str]]()

    def send(self, *, title: str, text: str) -> None:
        self.sent.append((title, text))


@dg.op
def write_a_day() -> None:
    raise OSError("the disk is full")


@dg.op
def write_nothing() -> None:
    return


@dg.job
def nightly() -> None:
    write_a_day()


@dg.job
def quiet() -> None:
    write_nothing()


def test_a_failed_run_alerts_the_person_on_call_once(definitions: dg.Definitions, instance: dg.DagsterInstance):
    alerter = FakeAlerter()
    nightly.execute_in_process(instance=instance, run_config=SILENT, raise_on_error=False)
    # A sensor that starts for the first time looks at what fails from then on.
    cursor = tick(definitions, instance, "run_failed", resources={"alerter": alerter}).cursor
    assert alerter.sent == []
    quiet.execute_in_process(instance=instance, run_config=SILENT)
    failed = nightly.execute_in_process(instance=instance, run_config=SILENT, raise_on_error=False)
    for _ in range(3):
        cursor = tick(definitions, instance, "run_failed", cursor=cursor, resources={"alerter": alerter}).cursor
    [(title, text)] = alerter.sent
    assert title == "nightly failed"
    assert failed.run_id in text
    # Who is woken at night reads in the alert itself which step failed, and why.
    assert "write_a_day" in text
    assert "the disk is full" in text
