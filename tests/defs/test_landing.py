"""Files that appear in S3 and GCS land by themselves, each state of a day once, wherever the daemon is killed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import RUN_KEY_TAG

from ml_assets.backends.sources.files import FilesSource
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.data_quality.evidence import CHECKS
from ml_assets.core.day_files import LANDED_FILES
from ml_assets.core.days import DayRange
from ml_assets.core.landing_due import MOST_ATTEMPTS
from ml_assets.defs.landing import RUNS_A_TICK, SUBJECT, VERSION
from tests.servers.landing import Place, gcs_place, s3_place
from tests.servers.s3 import KEYS

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning"),
]

PACKAGED = NycFlights13Source(is_replaying=False)
MONDAY, TUESDAY = date(2013, 7, 1), date(2013, 7, 2)
HEADER = "origin,time_hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib\n"
SENSOR = "weather_files_changed"


class Killed(Exception):
    """The daemon dies here."""


def hours(day: date, *temperatures: float) -> bytes:
    """One hour of weather at Newark for each temperature, as CSV."""
    rows = "".join(f"EWR,{day}T{5 + n:02}:00:00Z,{t},,,,,,,,\n" for n, t in enumerate(temperatures))
    return (HEADER + rows).encode()


@dataclass
class Daemon:
    """What Dagster's daemon does with a sensor: tick, create each run whose key is new, start it, keep the cursor.

    ``kill_after`` is after how many of these steps it dies, once; a run that has started goes on without it.
    """

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    home: Path
    cursor: str | None = None
    kill_after: int | None = None
    n_steps: int = 0
    skipped: list[str] = field(default_factory=list)

    def tick(self, sensor: str = SENSOR) -> list[dg.RunRequest]:
        definition = self.definitions.resolve_sensor_def(sensor)
        needed = {} if sensor == "days_landed" else {"source": self.definitions.resources["source"]}
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.definitions,
            sensor_name=sensor,
            resources=needed,
        )
        found = definition.evaluate_tick(context)
        self._step()
        for request in found.run_requests or []:
            self._start(definition.job_name, request)
        if found.skip_message:
            self.skipped.append(found.skip_message)
        self._step()
        self.cursor = found.cursor
        self._step()
        return list(found.run_requests or [])

    def until_quiet(self, sensor: str = SENSOR) -> None:
        """Tick, and come back after a kill, until three ticks in a row ask for nothing."""
        n_quiet = 0
        for _ in range(200):
            try:
                n_quiet = 0 if self.tick(sensor) else n_quiet + 1
            except Killed:
                n_quiet = 0
            if n_quiet == 3:
                return
        raise AssertionError("it never comes to rest")

    def _start(self, job_name: str, request: dg.RunRequest) -> None:
        job = self.definitions.resolve_job_def(job_name)
        known = self.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: request.run_key or ""}))
        if known and known[0].status != dg.DagsterRunStatus.NOT_STARTED:
            return
        partition = {"dagster/partition": request.partition_key} if request.partition_key else {}
        tags = {**request.tags, **partition, RUN_KEY_TAG: request.run_key or ""}
        run = known[0] if known else self.instance.create_run_for_job(job, tags=tags)
        self._step()
        execute_run(InMemoryJob(job), run, self.instance, raise_on_error=False)
        self._step()

    def _step(self) -> None:
        self.n_steps += 1
        if self.kill_after == self.n_steps:
            self.kill_after = None
            raise Killed

    def runs(self, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> list[tuple[str, str]]:
        """Subject and state of the files of each run that ended so, oldest first."""
        found = self.instance.get_runs(dg.RunsFilter(statuses=[status]))
        return [(run.tags[SUBJECT], run.tags[VERSION]) for run in reversed(found)]

    def temperatures(self, day: date) -> list[float]:
        return self._column(f"select temp from raw.weather where partition_on = '{day}' order by time_hour")

    def airlines(self) -> list[str]:
        return self._column("select carrier from raw.airlines order by carrier")

    def ignored_columns(self, table: str) -> str:
        """What the newest materialization of a table without days says of columns that nobody has promised."""
        [record] = self.instance.fetch_materializations(dg.AssetKey(["raw", table]), limit=1).records
        assert record.asset_materialization
        return str(record.asset_materialization.metadata["ignored_columns"].value)

    def _column(self, sql: str) -> list:
        with duckdb.connect(str(self.home / "warehouse.duckdb")) as connection:
            return [value for (value,) in connection.execute(sql).fetchall()]


@pytest.fixture(params=["s3", "gcs"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    folder = f"{tmp_path.name.lower().replace('_', '-')}/weather"
    server = request.getfixturevalue(request.param)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_place(server, folder) if request.param == "s3" else gcs_place(server, folder) as place:
        monkeypatch.setenv("AWS_ENDPOINT_URL", place.proxy.url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", place.proxy.url)
        yield place


only_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


@pytest.fixture
def table() -> str:
    """Which table comes from the files of the place; a test that is parametrized by it has another one."""
    return "weather"


@pytest.fixture
def daemon(place: Place, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ML_ASSETS_SOURCES", f"{table}={place.url}")
    from ml_assets.backends.environments import Environment
    from ml_assets.calendar import DAILY
    from ml_assets.defs import landing, raw
    from ml_assets.resources import resources_of

    @dg.asset(partitions_def=DAILY, group_name="features")
    def made_of_it() -> None: ...

    definitions = dg.Definitions.merge(
        dg.Definitions(assets=[made_of_it]),
        raw.defs(),
        landing.defs(),
        dg.Definitions(resources=resources_of(Environment.current()), executor=dg.in_process_executor),
    )
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield Daemon(definitions=definitions, instance=instance, home=tmp_path / "home")


def test_a_new_day_lands_once_it_has_stopped_changing(place: Place, daemon: Daemon):
    assert daemon.tick() == []
    place.put("2013-07-01/00.csv", hours(MONDAY, 70))
    assert daemon.tick() == []
    place.put("2013-07-01/01.csv", hours(MONDAY, 70, 71))  # the writer was still at work
    assert daemon.tick() == []
    [request] = daemon.tick()
    assert (request.partition_key, request.tags[SUBJECT]) == ("2013-07-01", "weather/2013-07-01")
    assert daemon.temperatures(MONDAY) == [70, 71]
    daemon.until_quiet()
    assert len(daemon.runs()) == 1


@only_s3
def test_a_landing_judges_the_day_of_its_table_and_fails_where_it_is_faulty(place: Place, daemon: Daemon):
    """That what follows refuses the day in a run of its own, which lands nothing, is in tests/test_data_quality.py."""
    from ml_assets.defs.data_quality import defs

    daemon.definitions = dg.Definitions.merge(daemon.definitions, defs())
    assert not daemon.definitions.resolve_job_def("landed").graph.has_node_named("data_quality")
    place.put("2013-07-01/00.csv", hours(MONDAY, 70))  # and nothing of the other 23 hours
    daemon.until_quiet()
    sql = "select check_name, severity from monitoring.data_quality where table_name = 'weather'"
    with duckdb.connect(str(daemon.home / "warehouse.duckdb")) as connection:
        verdicts = dict(connection.execute(sql).fetchall())
    assert set(verdicts) == set(CHECKS)
    assert verdicts["freshness"] == "severe"
    assert {subject for subject, _ in daemon.runs(dg.DagsterRunStatus.FAILURE)} == {"weather/2013-07-01"}
    assert daemon.temperatures(MONDAY) == [70], "what came is there to be looked at"


@pytest.mark.slow
def test_a_late_file_of_an_old_day_and_a_corrected_one_replace_their_days_and_no_other(place: Place, daemon: Daemon):
    for n in range(3):
        day = MONDAY + timedelta(days=n)
        place.put(f"partition_on={day}/00.csv", hours(day, 60 + n))
    daemon.until_quiet()
    assert len(daemon.runs()) == 3
    place.put("partition_on=2013-07-01/late.csv", hours(MONDAY, 60, 90))
    place.put("partition_on=2013-07-02/00.csv", hours(TUESDAY, 55))
    daemon.until_quiet()
    assert [subject for subject, _ in daemon.runs()[3:]] == ["weather/2013-07-01", "weather/2013-07-02"]
    assert (daemon.temperatures(MONDAY), daemon.temperatures(TUESDAY)) == ([60, 90], [55])
    place.remove("partition_on=2013-07-01/00.csv")  # as a life-cycle rule does
    daemon.until_quiet()
    assert len(daemon.runs()) == 5


@pytest.mark.slow
@only_s3
def test_a_burst_of_a_thousand_files_is_one_landing_of_each_of_its_days(place: Place, daemon: Daemon):
    for n in range(1000):
        day = MONDAY + timedelta(days=n % 4)
        place.put(f"{day}/{n:04}.csv", hours(day, n % 90) if n < 8 else hours(day))
    daemon.until_quiet()
    assert [subject for subject, _ in daemon.runs()] == [f"weather/2013-07-0{n}" for n in (1, 2, 3, 4)]
    # A daemon without a memory lists everything again and lands nothing.
    daemon.cursor = None
    daemon.until_quiet()
    assert len(daemon.runs()) == 4


@pytest.mark.slow
@only_s3
def test_wherever_the_daemon_is_killed_every_day_lands_exactly_once(place: Place, daemon: Daemon):
    n_steps = 0
    for n in range(40):
        day = MONDAY + timedelta(days=n)
        place.put(f"{day}/00.csv", hours(day, 70))
        before = daemon.n_steps
        daemon.kill_after = before + n + 1
        daemon.until_quiet()
        was_killed = daemon.kill_after is None
        daemon.kill_after = None
        assert daemon.runs().count(("weather/" + str(day), daemon.runs()[-1][1])) == 1
        assert len(daemon.runs()) == n + 1
        assert daemon.temperatures(day) == [70]
        if not was_killed:
            n_steps = n
            break
    # Two looks, a run with two steps, and three quiet ticks: more steps than that to be killed at there are not.
    assert n_steps >= 10


@only_s3
def test_a_failed_landing_is_tried_again_until_it_is_given_up_and_new_files_begin_anew(place: Place, daemon: Daemon):
    place.put("2013-07-01/00.csv", HEADER.encode() + b"EWR,2013-07-01T05:00:00Z,warm,,,,,,,,\n")
    daemon.until_quiet()
    failed = daemon.runs(dg.DagsterRunStatus.FAILURE)
    assert failed == [failed[0]] * MOST_ATTEMPTS
    place.put("2013-07-01/00.csv", hours(MONDAY, 70))
    daemon.until_quiet()
    assert [subject for subject, _ in daemon.runs()] == ["weather/2013-07-01"]
    assert daemon.temperatures(MONDAY) == [70]


@pytest.mark.parametrize("table", ["airlines"])
def test_a_table_without_days_lands_whole_once_for_each_state_of_its_files(place: Place, daemon: Daemon):
    def until_quiet() -> list[str]:
        """Tick until nothing is asked for; the subjects of all runs so far that succeeded."""
        daemon.until_quiet("airlines_files_changed")
        return [subject for subject, _ in daemon.runs()]

    assert until_quiet() == []
    place.put("airlines.csv", b"carrier,name\nUA,United\n")
    assert until_quiet() == ["airlines/whole"]
    assert (daemon.airlines(), daemon.ignored_columns("airlines")) == (["UA"], "")
    # Nothing has changed, not even for a daemon that has lost its memory.
    daemon.cursor = None
    place.put("archive/airlines.csv", b"no airline at all")
    assert until_quiet() == ["airlines/whole"]
    # One that cannot land is tried again, and what has landed stays.
    place.put("airlines.csv", b"carrier\nB6\n")
    assert until_quiet() == ["airlines/whole"]
    failed = daemon.runs(dg.DagsterRunStatus.FAILURE)
    assert failed == [("airlines/whole", failed[0][1])] * MOST_ATTEMPTS
    assert daemon.airlines() == ["UA"]
    # The corrected file begins anew and replaces the whole table.
    place.put("airlines.csv", b"carrier,name,country\nB6,JetBlue,US\n")
    assert until_quiet() == ["airlines/whole"] * 2
    assert (daemon.airlines(), daemon.ignored_columns("airlines")) == (["B6"], "country")
    assert len(daemon.runs(dg.DagsterRunStatus.FAILURE)) == MOST_ATTEMPTS


@only_s3
def test_what_somebody_else_has_landed_is_not_landed_again(place: Place, daemon: Daemon):
    place.put("2013-07-01/00.csv", hours(MONDAY, 70))
    job = daemon.definitions.resolve_job_def("weather_landing")
    assert job.execute_in_process(partition_key="2013-07-01", instance=daemon.instance).success
    daemon.until_quiet()
    assert len(daemon.instance.get_runs()) == 1


@only_s3
def test_a_day_waits_while_it_is_landing_and_while_a_file_of_it_is_being_written(place: Place, daemon: Daemon):
    place.put("2013-07-01/00.csv", hours(MONDAY, 70))
    job = daemon.definitions.resolve_job_def("weather_landing")
    tags = {SUBJECT: "weather/2013-07-01", VERSION: "another"}
    running = daemon.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    for _ in range(4):
        assert daemon.tick() == []
    daemon.instance.report_run_failed(running)
    place.put("2013-07-01/01.csv.tmp", b"")
    for _ in range(4):
        assert daemon.tick() == []
    place.remove("2013-07-01/01.csv.tmp")
    daemon.until_quiet()
    assert len(daemon.runs()) == 1


@only_s3
def test_many_days_at_once_are_asked_for_a_few_at_a_time(place: Place, daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Daemon, "_start", lambda *_: None)
    for n in range(RUNS_A_TICK + 5):
        day = MONDAY + timedelta(days=n)
        place.put(f"{day}/00.csv", hours(day))
    daemon.tick()
    first = daemon.tick()
    assert [request.partition_key for request in first] == [str(MONDAY + timedelta(days=n)) for n in range(RUNS_A_TICK)]


@only_s3
def test_a_look_at_months_of_days_lists_the_newest_week_and_a_page_of_the_rest(
    place: Place, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Daemon, "_start", lambda *_: None)
    monkeypatch.setattr("ml_assets.defs.landing._landed", lambda _instance, _contract, days: {})
    monkeypatch.setattr("ml_assets.defs.landing.due", lambda found, *_, **__: looked(found))
    monkeypatch.setattr("ml_assets.defs.landing.FILES_A_TICK", 30)
    looks: list[list[str]] = []

    def looked(found):
        from ml_assets.core.landing_due import Due

        looks.append([each.name for each in found])
        return Due(settled=(), differing={}, remarks=())

    days = [str(MONDAY + timedelta(days=n)) for n in range(90)]
    for day in days:
        place.put(f"{day}/00.csv", b"x")
    for _ in range(8):
        daemon.tick()
    # First through all days in turns, from then on the newest week as well.
    assert sorted({day for look in looks[:4] for day in look}) == days
    assert all(set(days[-8:]) <= set(look) and len(look) <= 8 + 31 for look in looks[4:])
    assert sorted({day for look in looks[4:] for day in look}) == days


@only_s3
@pytest.mark.parametrize("changing", ["2013-07-30", "2013-07-04"])
def test_a_day_that_changes_at_every_look_keeps_no_late_file_of_an_old_day_waiting(
    place: Place, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, changing: str
):
    monkeypatch.setattr("ml_assets.defs.landing.FILES_A_TICK", 3)
    for n in range(30):
        place.put(f"{MONDAY + timedelta(days=n)}/00.csv", hours(MONDAY + timedelta(days=n), 70))
    days = DayRange(first=MONDAY, last=MONDAY + timedelta(days=29))
    source = FilesSource(store=place.store, contract=PACKAGED.contracts["weather"], work_folder=daemon.home)
    for day, version in source.versions("weather", days).items():
        facts = {LANDED_FILES: version}
        event = dg.AssetMaterialization(["raw", "weather"], partition=str(day), metadata=facts)
        daemon.instance.report_runless_asset_event(event)
    daemon.until_quiet()  # the first turn, on which there is nothing new
    for _ in range(10):
        daemon.tick()
    place.put("2013-07-06/late.csv", hours(date(2013, 7, 6), 70, 71))
    # A turn is eleven pages, the last one empty, and three of them have a second look.
    for n in range(14):
        place.put(f"{changing}/late-{n}.csv", hours(date.fromisoformat(changing), n))
        daemon.tick()
    assert [subject for subject, _ in daemon.runs()] == ["weather/2013-07-06"]
    assert daemon.temperatures(date(2013, 7, 6)) == [70, 71]
    # Once it stops, it lands as well.
    for _ in range(14):
        daemon.tick()
    assert [subject for subject, _ in daemon.runs()] == ["weather/2013-07-06", f"weather/{changing}"]


@only_s3
def test_what_follows_waits_for_every_raw_table_of_the_day_and_comes_once(
    place: Place, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
):
    place.put("2013-07-01/00.csv", hours(MONDAY, 70))
    daemon.until_quiet()
    daemon.cursor = None
    started: list[dg.RunRequest] = []
    monkeypatch.setattr(Daemon, "_start", lambda _self, _job, request: started.append(request))
    assert daemon.tick("days_landed") == []
    for table in ("flights", "schedules"):
        event = dg.AssetMaterialization(["raw", table], partition="2013-07-01")
        daemon.instance.report_runless_asset_event(event)
    [request] = daemon.tick("days_landed")
    assert (request.partition_key, request.tags[SUBJECT]) == ("2013-07-01", "landed/2013-07-01")
    # It is asked for under the same key until it has run.
    assert [again.run_key for again in daemon.tick("days_landed")] == [request.run_key]
    job = daemon.definitions.resolve_job_def("weather_landing")
    daemon.instance.create_run_for_job(
        job, tags={**request.tags, RUN_KEY_TAG: request.run_key}, status=dg.DagsterRunStatus.SUCCESS
    )
    assert daemon.tick("days_landed") == []
    assert daemon.tick("days_landed") == []
