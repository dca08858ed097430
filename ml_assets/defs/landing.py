"""Landing by itself: new and changed files are noticed, their days land once, and what is made of them follows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import msgspec
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.backends.environments import Environment
from ml_assets.backends.sources.files import FilesSource
from ml_assets.calendar import DAILY, FIRST_DAY
from ml_assets.core.contracts import Contract
from ml_assets.core.day_files import LANDED_FILES, DayFiles, FilesVersion
from ml_assets.core.landing_due import Attempt, PastRun, RunState, due, is_over, next_attempt
from ml_assets.core.ports import Source
from ml_assets.core.routed_source import RoutedSource
from ml_assets.resources import source_of

# Which day of which table a run is for, and for which state of its files: the runs are the memory of the sensors.
SUBJECT, VERSION = "ml_assets/landing", "ml_assets/files"
# What is made of the raw tables every day.
FOLLOWING_GROUPS = ("features", "examples", "predictions", "monitoring")
# Judgement: a page of S3's listing has a thousand files; a burst of runs should not keep all others waiting.
FILES_A_TICK, RUNS_A_TICK = 2000, 20
# Judgement: files of the last week come often; older days are looked through in turns.
_RECENT = timedelta(days=7)
_MOST_EVENTS = 1000
# Dagster gives a tick a minute; what is not to be had now is looked for at the next one.
_PATIENCE_SECONDS = 20.0
_STATES: Mapping[dg.DagsterRunStatus, RunState] = {
    dg.DagsterRunStatus.NOT_STARTED: "created",
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "failed",
}
_UNFINISHED: tuple[RunState, ...] = ("created", "running")


@dg.definitions
def defs() -> dg.Definitions:
    """A job and a sensor for each table that comes from files, and one of each for what follows; else nothing."""
    source = source_of(Environment.current())
    tables = [source.contracts[name] for name in files_in(source)]
    if not tables:
        return dg.Definitions()
    daily = [contract.table for contract in source.contracts.values() if contract.is_partitioned]
    jobs = {contract.table: _landing_job(contract) for contract in tables}
    return dg.Definitions(
        jobs=[*jobs.values(), landed],
        sensors=[
            *(_files_changed(jobs[contract.table], contract) for contract in tables),
            _days_landed([contract.table for contract in tables if contract.is_partitioned], daily),
        ],
    )


def files_in(source: Source) -> Mapping[str, FilesSource]:
    """Return the tables of a source that come from files."""
    routes = source.routes if isinstance(source, RoutedSource) else {}
    return {name: route for name, route in routes.items() if isinstance(route, FilesSource)}


landed = dg.define_asset_job(
    "landed",
    selection=dg.AssetSelection.groups(*FOLLOWING_GROUPS),
    description="What is made of one day whose raw tables have landed: features to monitoring.",
)


def _landing_job(contract: Contract) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        f"{contract.table}_landing",
        selection=dg.AssetSelection.assets(["raw", contract.table]),
        description=f"Land raw/{contract.table} again from its files.",
    )


class _Look(msgspec.Struct, frozen=True):
    """The cursor of one table: how far the turn through old days is, the newest day so far, what differed last."""

    position: str = ""
    is_round: bool = False  # the turn has been through all days once
    newest: str = ""
    seen: dict[str, str] = {}


def _files_changed(job: UnresolvedAssetJobDefinition, contract: Contract) -> dg.SensorDefinition:
    table = contract.table

    @dg.sensor(
        name=f"{table}_files_changed",
        job=job,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=f"Lands each day of raw/{table} whose files are new or have changed, once they stop changing.",
    )
    def _sensor(context: dg.SensorEvaluationContext, source: dg.ResourceParam[Source]) -> dg.SensorResult:
        files = replace(files_in(source)[table], patience_seconds=_PATIENCE_SECONDS)
        look = msgspec.json.decode(context.cursor, type=_Look) if context.cursor else _Look()
        if contract.is_partitioned and files.is_being_written():
            return dg.SensorResult(skip_reason="a job is writing several days and is not done", cursor=context.cursor)
        if contract.is_partitioned:
            found, of_turn, position = _looked_at(context, files, look)
        else:
            found, of_turn, position = [files.whole_table()], set[str](), ""
        landed_before = _landed(context.instance, contract, [each.name for each in found])
        came = due(found, landed_before, look.seen, marker=files.marker)
        for remark in came.remarks:
            context.log.info(remark)
        settled = {f"{table}/{each.name}": each for each in came.settled}
        wanted = {subject: each.version.fingerprint for subject, each in settled.items()}
        attempts = _attempts(wanted, _past_runs(context.instance, list(wanted)))
        # The turn stays until each of its days has had a second look and was asked for; one that was still changing
        # then waits for the next turn: it must not keep the days after it from theirs.
        is_done = len(attempts) <= RUNS_A_TICK and not (of_turn & came.differing.keys()) - look.seen.keys()
        after = _Look(
            position=position if is_done else look.position,
            is_round=look.is_round or (is_done and not position),
            newest=max([look.newest, *(each.name for each in found)]),
            seen=dict(came.differing),
        )
        return dg.SensorResult(
            run_requests=[_request(attempt, settled[attempt.subject].day) for attempt in attempts[:RUNS_A_TICK]],
            skip_reason=None
            if attempts
            else f"{len(came.differing)} days differ from what landed, none is to land now",
            cursor=msgspec.json.encode(after).decode(),
        )

    return _sensor


def _looked_at(
    context: dg.SensorEvaluationContext, files: FilesSource, look: _Look
) -> tuple[list[DayFiles], set[str], str]:
    """Return the files of the newest days and of the turn's next ones, which these are, and where it goes on."""
    recent: list[DayFiles] = []
    if look.is_round and look.newest:
        recent = files.days_from(max(date.fromisoformat(look.newest) - _RECENT, FIRST_DAY))
    old, stray, position = files.some_days(look.position, FILES_A_TICK)
    for file in stray[:10]:
        context.log.warning(
            f"{files.store.address(file.path)} is of no day and is never read; expected YYYY-MM-DD/ or "
            "partition_on=YYYY-MM-DD/ before it"
        )
    last = date.fromisoformat(DAILY.get_last_partition_key() or FIRST_DAY.isoformat())
    by_day = {each.name: each for each in (*old, *recent) if each.day and FIRST_DAY <= each.day <= last}
    return [by_day[name] for name in sorted(by_day)], {each.name for each in old}, position


def _landed(instance: dg.DagsterInstance, contract: Contract, days: Sequence[str]) -> dict[str, FilesVersion]:
    """Return by day which state of the files the newest materialization has read, whoever asked for it."""
    key = dg.AssetKey(["raw", contract.table])
    if contract.is_partitioned:
        event_type = dg.DagsterEventType.ASSET_MATERIALIZATION
        newest = list(instance.get_latest_storage_id_by_partition(key, event_type, partitions=set(days)).values())
        if not newest:
            return {}
        which = dg.AssetRecordsFilter(asset_key=key, storage_ids=newest)
        records = instance.fetch_materializations(which, limit=len(newest)).records
    else:
        records = instance.fetch_materializations(key, limit=1).records
    found: dict[str, FilesVersion] = {}
    for record in records:
        facts = record.asset_materialization.metadata if record.asset_materialization else {}
        version = FilesVersion.parse(str(facts[LANDED_FILES].value)) if LANDED_FILES in facts else None
        if version:
            found[record.partition_key or "whole"] = version
    return found


def _past_runs(instance: dg.DagsterInstance, subjects: Sequence[str]) -> list[PastRun]:
    """Return all runs so far that were asked for these subjects, whoever tried them again."""
    if not subjects:
        return []
    runs = instance.get_runs(dg.RunsFilter(tags={SUBJECT: list(subjects)}))
    return [
        PastRun(subject=run.tags[SUBJECT], version=run.tags.get(VERSION, ""), state=_STATES.get(run.status, "running"))
        for run in runs
    ]


def _attempts(wanted: Mapping[str, str], before: Sequence[PastRun]) -> list[Attempt]:
    """Return the runs to ask for so that each subject gets the version wanted."""
    attempts = (next_attempt(subject, version, before) for subject, version in wanted.items())
    return [attempt for attempt in attempts if attempt]


def _request(attempt: Attempt, day: date | None) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=attempt.key,
        partition_key=str(day) if day else None,
        tags={SUBJECT: attempt.subject, VERSION: attempt.version},
    )


class _Waiting(msgspec.Struct, frozen=True):
    """The cursor of what follows: the newest event read of each table, and the days that landed, with their event."""

    read: dict[str, int] = {}
    days: dict[str, int] = {}


def _days_landed(tables: Sequence[str], daily: Sequence[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name="days_landed",
        job=landed,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Makes features to monitoring of a day that landed from files, once all its raw tables are there.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance = context.instance
        waiting = msgspec.json.decode(context.cursor, type=_Waiting) if context.cursor else _Waiting()
        read, days = dict(waiting.read), dict(waiting.days)
        for table in tables:
            for day, event in _landings_since(instance, table, read):
                days[day] = max(event, days.get(day, 0))
        wanted = {f"landed/{day}": str(event) for day, event in days.items()}
        before = _past_runs(instance, list(wanted))
        days = {day: event for day, event in days.items() if not is_over(f"landed/{day}", str(event), before)}
        ready = _ready(instance, sorted(days), tables, daily)
        attempts = _attempts({f"landed/{day}": str(days[day]) for day in ready}, before)
        return dg.SensorResult(
            run_requests=[
                _request(attempt, date.fromisoformat(attempt.subject.removeprefix("landed/")))
                for attempt in attempts[:RUNS_A_TICK]
            ],
            skip_reason=None if attempts else f"{len(days)} days wait for a raw table or a run",
            cursor=msgspec.json.encode(_Waiting(read=read, days=days)).decode(),
        )

    return _sensor


def _landings_since(instance: dg.DagsterInstance, table: str, read: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Yield day and event of each materialization that a landing run made, and note in ``read`` how far that went."""
    which = dg.AssetRecordsFilter(asset_key=dg.AssetKey(["raw", table]), after_storage_id=read.get(table, 0))
    records = instance.fetch_materializations(which, limit=_MOST_EVENTS, ascending=True).records
    if not records:
        return
    read[table] = records[-1].storage_id
    runs = instance.get_runs(dg.RunsFilter(run_ids=sorted({record.run_id for record in records})))
    of_landing = {run.run_id for run in runs if SUBJECT in run.tags}
    yield from ((str(r.partition_key), r.storage_id) for r in records if r.run_id in of_landing)


def _ready(instance: dg.DagsterInstance, days: Sequence[str], tables: Sequence[str], daily: Sequence[str]) -> list[str]:
    """Return the days of which every raw table is there and none is landing."""
    if not days:
        return []
    subjects = [f"{table}/{day}" for table in tables for day in days]
    landing = {run.subject.partition("/")[2] for run in _past_runs(instance, subjects) if run.state in _UNFINISHED}
    is_there = [instance.get_materialized_partitions(dg.AssetKey(["raw", table])) for table in daily]
    return [day for day in days if day not in landing and all(day in found for found in is_there)]
