"""Alerts: people are told once that an incident has begun and that it is over, by what is said of the newest day."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import dagster as dg
import msgspec

from ml_assets.calendar import now
from ml_assets.core.alerts import Notice, tell
from ml_assets.core.data_quality.verdicts import faults_between
from ml_assets.core.incidents import QUIET_DAYS
from ml_assets.core.monitored import report_path
from ml_assets.core.names import identifier
from ml_assets.core.ports import Alerter, ArtifactStore, DayRange, Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.use_cases import load_use_cases

_MOST_EVENTS = 1000
# The assets whose materializations can carry alarms, as JSON in the fact ``alarms``.
_STAGES = ("alarms", "retraining")


@dg.definitions
def defs() -> dg.Definitions:
    """One sensor for the alarms of all use cases, and one for the faults of raw days."""
    return dg.Definitions(sensors=[alarms_told, faults_told])


class AlarmFact(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm as a materialization shows it."""

    kind: str
    subject: str
    severity: Literal["warning", "severe"]
    explanation: str
    since: date
    incident: str


@dataclass(frozen=True, kw_only=True)
class _Quiet:
    """An incident that does not stand, and the last day on which it did."""

    alarm: AlarmFact
    last: date


@dataclass(frozen=True, kw_only=True)
class _Place:
    """How far one asset's materializations have been told.

    The newest of them, the newest day with its alarms, and the incidents that may still stand again.
    """

    storage_id: int
    day: str
    standing: tuple[AlarmFact, ...] = ()
    quiet: tuple[_Quiet, ...] = ()

    def after(self, before: "_Place") -> "_Place":
        """Return the place with what stood at the place before it, or was quiet there, and does not stand here."""
        stands = {alarm.incident for alarm in self.standing}
        stood = [_Quiet(alarm=alarm, last=date.fromisoformat(before.day)) for alarm in before.standing]
        return replace(self, quiet=tuple(one for one in (*before.quiet, *stood) if one.alarm.incident not in stands))

    def without_over(self) -> tuple["_Place", Sequence[_Quiet]]:
        """Return the place without the incidents that have been quiet for a week, and these: they are over."""
        is_over = [(date.fromisoformat(self.day) - one.last).days > QUIET_DAYS for one in self.quiet]
        pairs = list(zip(self.quiet, is_over, strict=True))
        return replace(self, quiet=tuple(one for one, gone in pairs if not gone)), [one for one, gone in pairs if gone]


@dg.sensor(
    name="alarms_told",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Tells each receiver once of every incident of the newest day, again if it grows worse or is over.",
)
def alarms_told(
    context: dg.SensorEvaluationContext, alerter: dg.ResourceParam[Alerter], store: dg.ResourceParam[ArtifactStore]
) -> dg.SensorResult:
    """Tell what is new; a receiver that fails is a failed tick, and is told by a later one.

    The newest day has the say: days that are filled in or made again tell nobody of what is over. What has been quiet
    for no longer than a week may stand again, as the same incident; only then it is over.
    """
    places = msgspec.json.decode(context.cursor or "{}", type=dict[str, _Place])
    notices: list[Notice] = []
    for use_case in load_use_cases():
        for stage in _STAGES:
            key = "/".join(use_case.key(stage))
            before = places.get(key)
            place = _newest(context.instance, use_case.key(stage), before)
            if before is None or place.storage_id > before.storage_id:
                notices += [_notice(store, use_case, place.day, alarm) for alarm in place.standing]
            places[key], over = place.after(before or place).without_over()
            notices += [_notice(store, use_case, place.day, one.alarm, over_since=one.last) for one in over]
    told = tell(store, alerter, notices, now=now())
    if told.is_pending:
        return dg.SensorResult(skip_reason="another attempt is under way; looked at again at the next tick")
    words = f"{told.n_told} told" if told.n_told else "nothing new"
    return dg.SensorResult(skip_reason=words, cursor=msgspec.json.encode(places).decode())


def _newest(instance: dg.DagsterInstance, key: Sequence[str], place: _Place | None) -> _Place:
    """Return what is said of the newest day by now, looking at what has been said since ``place`` alone."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(key), after_storage_id=place.storage_id if place else None),
        limit=_MOST_EVENTS if place else 1,
        ascending=place is not None,
    )
    newest = place or _Place(storage_id=0, day="")
    for record in found.records:
        newest = replace(newest, storage_id=max(newest.storage_id, record.storage_id))
        said = record.asset_materialization
        if (
            said is not None
            and record.partition_key
            and record.partition_key >= newest.day
            and "alarms" in said.metadata
        ):
            alarms = msgspec.convert(said.metadata["alarms"].value, tuple[AlarmFact, ...])
            newest = replace(newest, day=record.partition_key, standing=alarms)
    return newest


def _notice(
    store: ArtifactStore, use_case: UseCase, day: str, alarm: AlarmFact, *, over_since: date | None = None
) -> Notice:
    kind = alarm.kind.replace("_", " ")
    lasts = f" since {alarm.since}" if alarm.since.isoformat() != day else ""
    title = f"{alarm.severity} {kind} alarm on {day}{lasts}"
    if over_since:
        title = f"the {kind} alarm of {alarm.since} is over, it stood until {over_since}"
    return Notice(
        topic=use_case.name,
        incident=alarm.incident,
        severity="over" if over_since else alarm.severity,
        title=f"{use_case.name}: {title}",
        text=f"It was: {alarm.explanation}" if over_since else alarm.explanation,
        link=store.address(report_path(use_case, date.fromisoformat(day))),
    )


@dg.run_failure_sensor(
    name="faults_told",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells each receiver once of every severe fault of a raw day that keeps a run from going on.",
)
def faults_told(
    context: dg.RunFailureSensorContext,
    alerter: dg.ResourceParam[Alerter],
    warehouse: dg.ResourceParam[Warehouse],
    store: dg.ResourceParam[ArtifactStore],
) -> None:
    """Tell of the faults of the days of the run; that the run failed is told by ``run_failed``, each time."""
    days = _days_of(context.dagster_run.tags)
    if days is not None:
        tell(store, alerter, list(_of_faults(warehouse, days)), now=now())


def _days_of(tags: Mapping[str, str]) -> DayRange | None:
    first = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition")
    last = tags.get("dagster/asset_partition_range_end") or first
    return DayRange(first=date.fromisoformat(first), last=date.fromisoformat(last)) if first and last else None


def _of_faults(warehouse: Warehouse, days: DayRange) -> Iterator[Notice]:
    for fault in faults_between(warehouse, days):
        if fault.released_by:
            continue
        table = identifier(fault.table)
        yield Notice(
            topic="data_quality",
            incident=f"{table}:{fault.check_name}:{fault.column_name}:{fault.day}",
            severity="severe",
            title=f"raw.{table} of {fault.day} has a severe fault: {fault.check_name}",
            text=fault.explanation,
        )
