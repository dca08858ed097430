"""Landing by itself: new and changed files are noticed, their days land once, and what is made of them follows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

import dagster as dg
import msgspec
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.backends.environments import Environment
from ml_assets.backends.sources.files import FilesSource
from ml_assets.calendar import DAILY
from ml_assets.core.contracts import Contract
from ml_assets.core.day_files import LANDED_FILES, DayFiles, FilesVersion
from ml_assets.core.landing import Due, PastRun, RunState, due, next_attempt
from ml_assets.core.ports import Source
from ml_assets.core.routed_source import RoutedSource
from ml_assets.resources import source_of

# Which day of which table a run lands, and for which state of its files; the runs are the memory of the sensors.
SUBJECT, VERSION = "ml_assets/landing", "ml_assets/files"
FOLLOWED = "ml_assets/landed_day"
# What is made of the raw tables every day.
FOLLOWING_GROUPS = ("features", "examples", "predictions", "monitoring")
# Judgement: a listing of S3 has a thousand files, and a burst of runs should not keep all others waiting.
FILES_A_TICK, RUNS_A_TICK = 2000, 20
# Judgement: files of the last week come often; older days are looked through in turns.
_RECENT = timedelta(days=7)
_MOST_EVENTS = 1000
_WHOLE_TABLE = "None"
_STATES: Mapping[dg.DagsterRunStatus, RunState] = {
    dg.DagsterRunStatus.NOT_STARTED: "created",
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "failed",
}


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
    """The cursor: where the turn through old days is, what was seen last and not landed, and the newest day so far."""

    position: str = ""
    is_round: bool = False  # the turn has been through all days once
    newest: str = ""
    seen: Mapping[str, str] = {}


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
        files = files_in(source)[table]
        look = msgspec.json.decode(context.cursor, type=_Look) if context.cursor else _Look()
        if contract.is_partitioned and files.is_being_written():
            return dg.SensorResult(skip_reason="a job is writing several days and is not done", cursor=context.cursor)
        found, position = _looked_at(context, files, look)
        days = [str(each.day) for each in found]
        came = due(found, _landed(context.instance, contract, days), look.seen, marker=files.marker)
        for remark in came.remarks:
            context.log.info(remark)
        requests = _requests(context.instance, table, came.settled)
        # The turn stays where it is until nothing of it is left to ask for.
        is_done = not came.unsettled and len(requests) <= RUNS_A_TICK
        after = _Look(
            position=position if is_done else look.position,
            is_round=look.is_round or (is_done and not position),
            newest=max([look.newest, *days]),
            seen=_seen(came, requests[RUNS_A_TICK:]),
        )
        skip = None if requests else f"{len(came.unsettled)} days have changed since the last look, none is to land"
        return dg.SensorResult(
            run_requests=requests[:RUNS_A_TICK], skip_reason=skip, cursor=msgspec.json.encode(after).decode()
        )

    return _sensor
