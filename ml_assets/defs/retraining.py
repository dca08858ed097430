"""Retraining by itself: the training that a decision asks for starts exactly once, and again where its run failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import msgspec
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.calendar import LOCAL_ZONE, now, today
from ml_assets.core import registry
from ml_assets.core.landing_due import MOST_ATTEMPTS, PastRun, RunState, is_over, next_attempt
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.spec import UseCase
from ml_assets.use_cases import load_use_cases

# Which training a run is, and on which evidence it was asked for: the runs are the memory of the sensor.
SUBJECT, EVIDENCE, ATTEMPT = "ml_assets/retraining", "ml_assets/evidence", "ml_assets/attempt"
# Judgement: a network that is down, or a full disk, is seldom well again at once.
BACKOFF = (timedelta(minutes=5), timedelta(minutes=30))
_ENTERED = ("promote", "refuse", "wait")
_STATES: Mapping[dg.DagsterRunStatus, RunState] = {
    dg.DagsterRunStatus.NOT_STARTED: "created",
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    # Who cancels a training does not want it: the next decision may ask again.
    dg.DagsterRunStatus.CANCELED: "succeeded",
}


@dg.definitions
def defs() -> dg.Definitions:
    """The training job, the job of the first decision, and the sensor that starts both, per use case."""
    use_cases = load_use_cases()
    jobs = {use_case.name: (_training_job(use_case), _decision_job(use_case)) for use_case in use_cases}
    return dg.Definitions(
        jobs=[job for pair in jobs.values() for job in pair],
        sensors=[_retraining_decided(*jobs[use_case.name], use_case) for use_case in use_cases],
    )


def _training_job(use_case: UseCase) -> UnresolvedAssetJobDefinition:
    keys = [dg.AssetKey(use_case.key(stage)) for stage in ("training_set", "candidate", "champion")]
    return dg.define_asset_job(
        f"{use_case.name}_training",
        selection=dg.AssetSelection.assets(*keys),
        description="Freeze a training set as of one day, fit a candidate, promote it if it passes the gates.",
    )


def _decision_job(use_case: UseCase) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        f"{use_case.name}_first_decision",
        selection=dg.AssetSelection.assets(use_case.key("retraining")),
        description="Decide whether enough days are labelled for a first training: as long as nobody is in charge.",
    )


class _Looked(msgspec.Struct, frozen=True):
    """The cursor: the newest event of the decisions that is dealt with, and whether there has been a champion.

    It saves work and decides nothing: without it everything is looked at again, and nothing is started twice.
    """

    settled: int = 0
    had_champion: bool = False


@dataclass(frozen=True, kw_only=True)
class _Order:
    """The training that the decisions ask for: as of which date, decided on which day and evidence."""

    day: date
    as_of: date
    fingerprint: str


def _retraining_decided(
    training: UnresolvedAssetJobDefinition, first_decision: UnresolvedAssetJobDefinition, use_case: UseCase
) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{use_case.name}_retraining_decided",
        jobs=[training, first_decision],
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Starts the training that a decision asks for, once; a failed run is tried again, twice at most. Asks for "
            "a decision itself as long as nobody has ever been in charge."
        ),
    )
    def _sensor(context: dg.SensorEvaluationContext, store: dg.ResourceParam[ArtifactStore]) -> dg.SensorResult:
        looked = msgspec.json.decode(context.cursor, type=_Looked) if context.cursor else _Looked()
        # The ledger knows, also where this Dagster instance is newer than the champion.
        had_champion = looked.had_champion or any(
            e.action in registry.ACTING for e in registry.entries(store, use_case.name)
        )
        newest = _newest(context.instance, use_case.key("retraining"))
        requests = [] if had_champion else _first_decision(context.instance, use_case)
        is_settled, remark = True, "no decision since the last look"
        if newest != looked.settled:
            request, is_settled, remark = _asked_for(context.instance, store, use_case, now())
            requests += [request] if request else []
        after = _Looked(settled=newest if is_settled else 0, had_champion=had_champion)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else remark,
            cursor=msgspec.json.encode(after).decode(),
        )

    return _sensor


def _asked_for(
    instance: dg.DagsterInstance, store: ArtifactStore, use_case: UseCase, now: datetime
) -> tuple[dg.RunRequest | None, bool, str]:
    """Return the run to ask for now, whether nothing more will come of these decisions, and what there is to say."""
    order = standing_order(_decisions(instance, use_case), cool_down_days=use_case.retraining.cool_down_days)
    if order is None:
        return None, True, "no decision asks for a training"
    # A day that is not over yet can decide too; the training it asks for uses what is known before today.
    as_of = min(order.as_of, today(now.astimezone(LOCAL_ZONE)))
    entries = registry.entries(store, use_case.name)
    if any(entry.as_of >= as_of and entry.action in _ENTERED for entry in entries):
        return None, True, f"the training as of {as_of} has its entry in the ledger"
    subject = f"{use_case.name}/{as_of}"
    records = instance.get_run_records(dg.RunsFilter(tags={SUBJECT: subject}))
    runs = [
        PastRun(
            subject=subject,
            version=record.dagster_run.tags.get(EVIDENCE, ""),
            state=_STATES.get(record.dagster_run.status, "running"),
        )
        for record in records
    ]
    # One training as of a date is enough, on whatever evidence: another would learn the same.
    if any(run.state == "succeeded" for run in runs):
        return None, True, f"the training as of {as_of} has run, or was cancelled"
    if is_over(subject, order.fingerprint, runs):
        return None, True, f"the training as of {as_of} has failed {MOST_ATTEMPTS} times and is given up"
    attempt = next_attempt(subject, order.fingerprint, runs)
    if attempt is None:
        return None, False, f"the training as of {as_of} is under way"
    if attempt.number > 1:
        ended = max(record.end_time or record.update_timestamp.timestamp() for record in records)
        again_at = datetime.fromtimestamp(ended, UTC) + BACKOFF[min(attempt.number - 2, len(BACKOFF) - 1)]
        if now < again_at:
            return None, False, f"the training as of {as_of} failed and is tried again at {again_at:%H:%M} UTC"
    request = dg.RunRequest(
        run_key=attempt.key,
        job_name=f"{use_case.name}_training",
        partition_key=as_of.isoformat(),
        tags={SUBJECT: subject, EVIDENCE: attempt.version, ATTEMPT: str(attempt.number)},
    )
    return request, False, ""


def standing_order(decisions: Sequence["_Decision"], *, cool_down_days: int) -> _Order | None:
    """Return the training that the newest word of each day comes to, if any.

    The newest day that asks for one has the say. Days after it that wait do not take it back: they wait because it was
    asked for. Once its cool-down is over they were free to ask again, and where none did, it is too late for it.
    """
    if not decisions:
        return None
    asking = [decision for decision in decisions if decision.word == "retrain"]
    last = max(asking, key=lambda decision: decision.day, default=None)
    newest = max(decision.day for decision in decisions)
    if last is None or newest > last.day + timedelta(days=max(1, cool_down_days)):
        return None
    return _Order(day=last.day, as_of=last.as_of, fingerprint=last.fingerprint)


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """The newest word on one day."""

    day: date
    word: str
    as_of: date
    fingerprint: str


def _decisions(instance: dg.DagsterInstance, use_case: UseCase) -> list[_Decision]:
    """Return the newest decision on each of the newest days, as many as a cool-down has and one more."""
    key = dg.AssetKey(use_case.key("retraining"))
    days = sorted(instance.get_materialized_partitions(key))[-max(2, use_case.retraining.cool_down_days + 2) :]
    event_type = dg.DagsterEventType.ASSET_MATERIALIZATION
    newest = list(instance.get_latest_storage_id_by_partition(key, event_type, partitions=set(days)).values())
    if not newest:
        return []
    which = dg.AssetRecordsFilter(asset_key=key, storage_ids=newest)
    found: list[_Decision] = []
    for record in instance.fetch_materializations(which, limit=len(newest)).records:
        facts = record.asset_materialization.metadata if record.asset_materialization else {}
        if "decision" in facts and record.partition_key:
            found.append(
                _Decision(
                    day=date.fromisoformat(record.partition_key),
                    word=str(facts["decision"].value),
                    as_of=date.fromisoformat(str(facts["as_of"].value)),
                    # Decided by an earlier version of this asset, without evidence: the run stands for it.
                    fingerprint=str(facts["fingerprint"].value) if "fingerprint" in facts else record.run_id,
                )
            )
    return found


def _first_decision(instance: dg.DagsterInstance, use_case: UseCase) -> list[dg.RunRequest]:
    """Return the run that decides the newest day with examples: the daily run ends before it while none is in charge.

    The key is the day's: it is asked for once a day.
    """
    examples = instance.get_materialized_partitions(dg.AssetKey(use_case.key("examples")))
    decided = instance.get_materialized_partitions(dg.AssetKey(use_case.key("retraining")))
    newest = max(examples, default=None)
    if newest is None or newest in decided:
        return []
    return [
        dg.RunRequest(
            run_key=f"{use_case.name}:first_decision:{newest}",
            job_name=f"{use_case.name}_first_decision",
            partition_key=newest,
        )
    ]


def _newest(instance: dg.DagsterInstance, key: Sequence[str]) -> int:
    """Return the storage id of an asset's newest materialization; 0 without one."""
    records = instance.fetch_materializations(dg.AssetKey(key), limit=1).records
    return records[0].storage_id if records else 0
