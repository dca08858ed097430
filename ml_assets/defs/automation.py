"""Automation: what runs without a person: the day, and what follows a new champion; a failed run is told."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.calendar import FIRST_DAY, LOCAL_ZONE, today
from ml_assets.core.ports import Alerter
from ml_assets.core.spec import UseCase
from ml_assets.use_cases import load_use_cases

Job = dg.JobDefinition | UnresolvedAssetJobDefinition

DAILY_GROUPS = ("raw", "features", "examples", "predictions", "monitoring")
# What is made again of the days that another version takes over.
RESCORED = ("predictions", "drift", "performance", "skew", "alarms", "retraining", "report")
ZONE = str(LOCAL_ZONE)
RUNNING = dg.DefaultSensorStatus.RUNNING
# Judgement: a flight that was still in the air, or a row that was corrected, is there two days later.
LATE_DAYS = 2
_MOST_EVENTS = 1000


@dg.definitions
def defs() -> dg.Definitions:
    """A job and a sensor per use case, the daily job and its schedule, the failure alert."""
    use_cases = load_use_cases()
    rescores = {use_case.name: _rescore_job(use_case) for use_case in use_cases}
    return dg.Definitions(
        jobs=[daily, *rescores.values()],
        schedules=[every_day],
        sensors=[
            *(_champion_changed(rescores[use_case.name], use_case) for use_case in use_cases),
            run_failed,
        ],
    )


daily = dg.define_asset_job(
    "daily",
    selection=dg.AssetSelection.groups(*DAILY_GROUPS),
    description="One local day, raw to monitoring, with the champion that is in charge of it.",
)


@dg.schedule(
    job=daily,
    cron_schedule="30 6 * * *",
    execution_timezone=ZONE,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning: yesterday, and the two days before it again for what came late or was corrected.",
)
def every_day(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask for yesterday and the days before it that may have changed, once and in one run."""
    yesterday = today(context.scheduled_execution_time) - timedelta(days=1)
    if yesterday < FIRST_DAY:
        return dg.SkipReason(f"{yesterday} is before the first day, {FIRST_DAY}")
    first = max(yesterday - timedelta(days=LATE_DAYS), FIRST_DAY)
    return dg.RunRequest(run_key=f"daily:{yesterday}", tags=_range_tags(first.isoformat(), yesterday.isoformat()))


def _rescore_job(use_case: UseCase) -> Job:
    keys = [dg.AssetKey(use_case.key(stage)) for stage in RESCORED]
    return dg.define_asset_job(
        f"{use_case.name}_rescore",
        selection=dg.AssetSelection.assets(*keys),
        description="Predict and monitor again the days that a new champion or a rollback took over.",
    )


def _champion_changed(job: Job, use_case: UseCase) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{use_case.name}_champion_changed",
        job=job,
        default_status=RUNNING,
        minimum_interval_seconds=30,
        description="Predicts again the days already predicted that a new champion or a rollback took over.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        news = _news(context, use_case.key("champion"), names="effective_from")
        if not news.events:
            return dg.SensorResult(skip_reason="nobody new is in charge", cursor=news.cursor)
        effective_from = min(str(event.facts["effective_from"]) for event in news.events)
        predicted = context.instance.get_materialized_partitions(dg.AssetKey(use_case.key("predictions")))
        stretches = list(_stretches(sorted(day for day in predicted if day >= effective_from)))
        if not stretches:
            reason = f"no day since {effective_from} has been predicted yet"
            return dg.SensorResult(skip_reason=reason, cursor=news.cursor)
        requests = [
            dg.RunRequest(
                run_key=f"{use_case.name}:{first}:{last}:{news.cursor}",
                tags=_range_tags(first, last),
            )
            for first, last in stretches
        ]
        return dg.SensorResult(run_requests=requests, cursor=news.cursor)

    return _sensor


@dataclass(frozen=True, kw_only=True)
class _Event:
    """A materialization of one partition: where in the log it is, and the metadata it came with."""

    storage_id: int
    run_id: str
    day: str
    facts: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class _News:
    """What an asset said since the last tick, oldest first, and the cursor of the next one."""

    events: Sequence[_Event]
    cursor: str | None


def _news(context: dg.SensorEvaluationContext, key: Sequence[str], *, names: str) -> _News:
    """Return the materializations since the cursor that have the fact named; without a cursor the newest one only.

    Dagster's own ``asset_sensor`` passes on the newest and no other: two champions between two ticks would be one.
    """
    since = int(context.cursor) if context.cursor else None
    found = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(key), after_storage_id=since),
        limit=1 if since is None else _MOST_EVENTS,
        ascending=since is not None,
    )
    events = [
        _Event(
            storage_id=record.storage_id,
            run_id=record.run_id,
            day=record.partition_key or "",
            facts={name: value.value for name, value in record.asset_materialization.metadata.items()},
        )
        for record in found.records
        if record.asset_materialization
    ]
    cursor = str(events[-1].storage_id) if events else context.cursor
    return _News(events=[event for event in events if names in event.facts], cursor=cursor)


def _range_tags(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _stretches(days: list[str]) -> Iterator[tuple[str, str]]:
    """Yield first and last day of each unbroken stretch of sorted ISO days."""
    start = 0
    for place, day in enumerate(days):
        following = (date.fromisoformat(day) + timedelta(days=1)).isoformat()
        if place + 1 == len(days) or days[place + 1] != following:
            yield days[start], day
            start = place + 1


@dg.run_failure_sensor(default_status=RUNNING, description="Tells the person on call that a run failed.")
def run_failed(context: dg.RunFailureSensorContext, alerter: dg.ResourceParam[Alerter]) -> None:
    """Send one alert per failed run, with the innermost reason of each failed step."""
    alerter.send(
        title=f"{context.dagster_run.job_name} failed",
        text="\n".join(
            [
                f"run {context.dagster_run.run_id}: {context.failure_event.message}",
                *failure_reasons(context.get_step_failure_events()),
            ]
        ),
    )


def failure_reasons(events: Iterable[dg.DagsterEvent]) -> list[str]:
    """Return for each failed step its name and the error that the asset raised, without Dagster's wrapping."""
    return [f"{event.step_key}: {_raised(event)}" for event in events if event.is_step_failure]


def _raised(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return error.message.strip() if error else str(event.message)
