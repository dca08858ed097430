"""The retraining sensor on a Dagster of its own, by ticks, with kills at every step: never two trainings, never none.

The stages of the training are stand-ins that enter the ledger as the real ones do; a stand-in can fail or be refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import RUN_KEY_TAG

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.calendar import DAILY, LOCAL_ZONE
from ml_assets.core import registry
from ml_assets.core.spec import UseCase
from ml_assets.defs import retraining
from ml_assets.defs.retraining import ATTEMPT, EVIDENCE, SUBJECT
from ml_assets.use_cases import arrival_delay

pytestmark = [pytest.mark.filterwarnings("ignore::dagster.BetaWarning")]

USE_CASE: UseCase = arrival_delay.USE_CASE
SENSOR = "arrival_delay_retraining_decided"
DAY, AS_OF = "2013-07-03", "2013-07-04"
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
CLOCK = "ml_assets.defs.retraining.now"


class Killed(BaseException):
    """The daemon's process is gone: what it had not written is lost."""


@dataclass
class Daemon:
    """What Dagster's daemon does with this sensor: tick, start runs by their key, keep the cursor; and be killed."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    store: ObjectArtifactStore
    behaviour: dict[str, str]
    now: datetime = datetime(2013, 7, 4, 12, tzinfo=UTC)
    cursor: str | None = None
    kill_after: int | None = None
    n_steps: int = 0
    said: list[str] = field(default_factory=list)

    def decide(self, word: str, day: str = DAY, evidence: str = "e1") -> None:
        """Materialize a decision, as the asset does."""
        as_of = (date.fromisoformat(day) + timedelta(days=1)).isoformat()
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                USE_CASE.key("retraining"),
                partition=day,
                metadata={"decision": word, "as_of": as_of, "fingerprint": evidence, "reason": "because"},
            )
        )

    def champion(self) -> None:
        """Let there have been a champion."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(USE_CASE.key("champion"), partition="2013-06-01", metadata={"version": "v0"})
        )

    def tick(self) -> list[dg.RunRequest]:
        definition = self.definitions.resolve_sensor_def(SENSOR)
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.definitions,
            sensor_name=SENSOR,
            resources={"store": self.store},
        )
        found = definition.evaluate_tick(context)
        self._step()
        for request in found.run_requests or []:
            self._start(request)
        self._step()
        self.said.append(found.skip_message or "")
        self.cursor = found.cursor
        self._step()
        return list(found.run_requests or [])

    def until_quiet(self, *, minutes: float = 10) -> None:
        """Tick every so often, and come back after a kill, until five ticks in a row ask for nothing."""
        n_quiet = 0
        for _ in range(60):
            try:
                n_quiet = 0 if self.tick() else n_quiet + 1
            except Killed:
                n_quiet = 0
            self.now += timedelta(minutes=minutes)
            if n_quiet == 5:
                return
        raise AssertionError("it never comes to rest")

    def _start(self, request: dg.RunRequest) -> None:
        known = self.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: request.run_key or ""}))
        if known and known[0].status != dg.DagsterRunStatus.NOT_STARTED:
            return
        job = self.definitions.resolve_job_def(request.job_name or "")
        tags = {**request.tags, "dagster/partition": request.partition_key or "", RUN_KEY_TAG: request.run_key or ""}
        run = known[0] if known else self.instance.create_run_for_job(job, run_config=SILENT, tags=tags)
        self._step()
        execute_run(InMemoryJob(job), run, self.instance, raise_on_error=False)
        self._step()

    def _step(self) -> None:
        self.n_steps += 1
        if self.kill_after == self.n_steps:
            self.kill_after = None
            raise Killed

    def runs(self, job: str = "arrival_delay_training") -> list[tuple[str, str, str]]:
        """As-of date, evidence and how it ended, of each run of a job, oldest first."""
        found = reversed(self.instance.get_runs(dg.RunsFilter(job_name=job)))
        return [(r.tags["dagster/partition"], r.tags.get(EVIDENCE, ""), r.status.value) for r in found]

    @property
    def entered(self) -> list[tuple[str, str]]:
        """What the ledger says: action and as-of date."""
        return [(one.action, str(one.as_of)) for one in registry.entries(self.store, USE_CASE.name)]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    store = ObjectArtifactStore((tmp_path / "artifacts").as_uri())
    behaviour: dict[str, str] = {}

    @dg.asset(key=USE_CASE.key("training_set"), partitions_def=DAILY)
    def training_set() -> None: ...

    @dg.asset(
        key=USE_CASE.key("candidate"),
        partitions_def=DAILY,
        deps=[USE_CASE.key("training_set")],
        check_specs=[dg.AssetCheckSpec("better", asset=USE_CASE.key("candidate"), blocking=True)],
    )
    def candidate(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        what = behaviour.get(context.partition_key, "")
        if what.startswith("fail"):
            n_left = int(what.removeprefix("fail"))
            behaviour[context.partition_key] = f"fail{n_left - 1}" if n_left > 1 else ""
            raise OSError("the disk is full")
        if what == "refuse":
            registry.refuse(store, **entry(context.partition_key))
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="better", passed=what != "refuse")])

    @dg.asset(key=USE_CASE.key("champion"), partitions_def=DAILY, deps=[USE_CASE.key("candidate")])
    def champion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        made = registry.promote(
            store, needs_approval=behaviour.get(context.partition_key) == "wait", **entry(context.partition_key)
        )
        if made.action == "wait":
            raise dg.Failure("it waits for a person")
        return dg.MaterializeResult(metadata={"version": made.version})

    @dg.asset(key=USE_CASE.key("retraining"), partitions_def=DAILY)
    def retraining_(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        word = behaviour.get("first", "wait")
        as_of = (date.fromisoformat(context.partition_key) + timedelta(days=1)).isoformat()
        return dg.MaterializeResult(metadata={"decision": word, "as_of": as_of, "fingerprint": "first"})

    monkeypatch.setattr(retraining, "load_use_cases", lambda: (USE_CASE,))
    definitions = dg.Definitions.merge(
        dg.Definitions(
            assets=[training_set, candidate, champion, retraining_],
            resources={"store": store},
            executor=dg.in_process_executor,
        ),
        retraining.defs(),
    )
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        found = Daemon(definitions=definitions, instance=instance, store=store, behaviour=behaviour)

        # Runs end at the real time; the clock of the sensor goes on from there.
        found.now = datetime.now(UTC)
        monkeypatch.setattr(CLOCK, lambda: found.now)
        found.champion()
        yield found


def entry(as_of: str) -> registry.Decision:
    day = date.fromisoformat(as_of)
    return {
        "use_case": USE_CASE.name,
        "version": f"v-{as_of}",
        "package_hash": "a" * 64,
        "effective_from": day,
        "as_of": day,
        "reason": "",
        "gates": (),
        "recorded_at": datetime(2013, 7, 5, tzinfo=UTC),
        "recorded_by": "gates",
    }


def test_a_decision_to_retrain_starts_one_training_as_of_the_next_day(daemon: Daemon):
    daemon.decide("retrain")
    [request] = daemon.tick()
    assert (request.job_name, request.partition_key) == ("arrival_delay_training", AS_OF)
    assert {SUBJECT: f"arrival_delay/{AS_OF}", EVIDENCE: "e1", ATTEMPT: "1"}.items() <= request.tags.items()
    daemon.until_quiet()
    assert daemon.runs() == [(AS_OF, "e1", "SUCCESS")]
    assert daemon.entered == [("promote", AS_OF)]


@pytest.mark.parametrize("word", ["wait", "stopped"])
def test_nothing_starts_where_the_decision_is_to_wait_or_has_stopped(daemon: Daemon, word: str):
    daemon.decide(word)
    daemon.until_quiet()
    assert daemon.runs() == []
    assert daemon.said[0] == "no decision asks for a training"
    # From then on nothing is even looked at.
    assert daemon.said[-1] == "no decision since the last look"


@pytest.mark.slow
def test_wherever_the_daemon_is_killed_there_is_one_training(daemon: Daemon):
    """Kill it after its first step, its second, and so on, a decision each; every other time its cursor is lost too."""
    n_killed = 0
    for n in range(7):
        day = (date(2013, 7, 3) + timedelta(days=n)).isoformat()
        daemon.decide("retrain", day, evidence=f"e{n}")
        daemon.kill_after = daemon.n_steps + n + 1
        if n % 2:
            daemon.cursor = None
        daemon.until_quiet()
        n_killed += daemon.kill_after is None
        daemon.kill_after = None
        assert len(daemon.runs()) == len(daemon.entered) == n + 1
        assert daemon.runs()[-1][1:] == (f"e{n}", "SUCCESS")
    # One tick, a run with two steps, and four ticks that are quiet: every kill hit.
    assert n_killed == 7


def test_a_daemon_that_forgot_everything_but_its_runs_starts_nothing_again(daemon: Daemon):
    daemon.decide("retrain")
    daemon.until_quiet()
    for _ in range(3):
        daemon.cursor = None
        assert daemon.tick() == []
    assert daemon.said[-1] == f"the training as of {AS_OF} has its entry in the ledger"


def test_a_decision_made_again_trains_once_on_the_same_evidence_and_on_other_evidence_of_the_day(daemon: Daemon):
    daemon.decide("retrain")
    daemon.decide("retrain")  # a rescore between two ticks
    daemon.until_quiet()
    daemon.decide("retrain")  # and after
    daemon.decide("retrain", evidence="e2")  # a late label came: the training as of the day would learn the same
    daemon.until_quiet()
    assert daemon.runs() == [(AS_OF, "e1", "SUCCESS")]


def test_two_decisions_between_two_ticks_are_one_training_and_it_is_not_lost(daemon: Daemon):
    """The second waits only because the first has asked: on the word of the newest alone nothing would ever start."""
    daemon.decide("retrain")
    daemon.decide("wait", "2013-07-04")
    daemon.until_quiet()
    assert daemon.entered == [("promote", AS_OF)]


def test_of_two_days_that_ask_between_two_ticks_the_later_is_trained(daemon: Daemon):
    daemon.decide("retrain", "2013-07-03")
    daemon.decide("retrain", "2013-07-12", evidence="e2")
    daemon.until_quiet()
    assert daemon.entered == [("promote", "2013-07-13")]


def test_a_decision_taken_back_before_it_was_heard_starts_nothing(daemon: Daemon):
    daemon.decide("retrain")
    daemon.decide("wait")
    daemon.until_quiet()
    assert daemon.runs() == []


def test_an_earlier_day_made_again_does_not_take_back_what_a_later_one_asked_for(daemon: Daemon):
    daemon.decide("retrain")
    daemon.decide("wait", "2013-07-01")
    daemon.until_quiet()
    assert daemon.entered == [("promote", AS_OF)]


def test_what_was_asked_for_before_a_cool_down_of_days_that_wait_is_too_late(daemon: Daemon):
    for n in range(USE_CASE.retraining.cool_down_days + 2):
        daemon.decide("retrain" if n == 0 else "wait", (date(2013, 7, 3) + timedelta(days=n)).isoformat())
    daemon.until_quiet()
    assert daemon.runs() == []


def test_a_failed_run_is_tried_again_after_a_while_until_it_succeeds(daemon: Daemon):
    daemon.behaviour[AS_OF] = "fail2"
    daemon.decide("retrain")
    assert daemon.tick()
    # Not at once: what has failed is seldom well again by then.
    assert daemon.tick() == []
    assert "is tried again at" in daemon.said[-1]
    daemon.now += timedelta(minutes=6)
    [second] = daemon.tick()
    assert (second.tags[ATTEMPT], second.tags[EVIDENCE]) == ("2", "e1")
    daemon.now += timedelta(minutes=20)  # 26 after the first run ended
    assert daemon.tick() == []
    daemon.now += timedelta(minutes=10)
    [third] = daemon.tick()
    assert third.run_key != second.run_key
    daemon.until_quiet()
    assert [status for _, _, status in daemon.runs()] == ["FAILURE", "FAILURE", "SUCCESS"]
    assert daemon.entered == [("promote", AS_OF)]


def test_what_fails_three_times_is_given_up_until_there_is_a_new_decision(daemon: Daemon):
    daemon.behaviour[AS_OF] = "fail9"
    daemon.decide("retrain")
    daemon.until_quiet(minutes=40)
    assert [status for _, _, status in daemon.runs()] == ["FAILURE"] * 3
    daemon.decide("retrain", "2013-07-04", evidence="e2")
    daemon.until_quiet()
    assert daemon.entered == [("promote", "2013-07-05")]


@pytest.mark.parametrize(("outcome", "action"), [("refuse", "refuse"), ("wait", "wait")])
def test_a_candidate_that_is_refused_or_waits_for_a_person_is_no_failure(daemon: Daemon, outcome: str, action: str):
    daemon.behaviour[AS_OF] = outcome
    daemon.decide("retrain")
    daemon.until_quiet(minutes=40)
    # To Dagster the run has failed: a gate blocks what follows.
    assert daemon.runs() == [(AS_OF, "e1", "FAILURE")]
    assert daemon.entered == [(action, AS_OF)]


def test_a_training_that_a_person_cancelled_is_not_started_again(daemon: Daemon):
    daemon.decide("retrain")
    [request] = (
        daemon.definitions.resolve_sensor_def(SENSOR)
        .evaluate_tick(
            dg.build_sensor_context(
                instance=daemon.instance, definitions=daemon.definitions, resources={"store": daemon.store}
            )
        )
        .run_requests
        or []
    )
    job = daemon.definitions.resolve_job_def("arrival_delay_training")
    run = daemon.instance.create_run_for_job(job, tags=dict(request.tags))
    daemon.instance.report_run_canceled(run)
    daemon.until_quiet()
    assert daemon.entered == []


def test_a_training_by_hand_is_the_one_that_was_asked_for(daemon: Daemon):
    daemon.decide("retrain")
    registry.promote(daemon.store, **entry(AS_OF))
    daemon.until_quiet()
    assert daemon.runs() == []


def test_a_decision_of_a_day_that_is_not_over_trains_as_of_today(daemon: Daemon):
    today = daemon.now.astimezone(LOCAL_ZONE).date().isoformat()
    daemon.decide("retrain", today)
    [request] = daemon.tick()
    assert request.partition_key == today


def test_as_long_as_nobody_was_ever_in_charge_each_new_day_of_examples_is_decided_once(
    daemon: Daemon,
):
    daemon.instance.wipe_assets([dg.AssetKey(USE_CASE.key("champion"))])

    def land(day: str) -> None:
        daemon.instance.report_runless_asset_event(dg.AssetMaterialization(USE_CASE.key("examples"), partition=day))

    land("2013-07-01")
    daemon.until_quiet()
    assert [day for day, _, _ in daemon.runs("arrival_delay_first_decision")] == ["2013-07-01"]
    land("2013-07-02")
    daemon.behaviour["first"] = "retrain"  # enough days are labelled by now
    daemon.cursor = None
    daemon.until_quiet()
    assert [day for day, _, _ in daemon.runs("arrival_delay_first_decision")] == ["2013-07-01", "2013-07-02"]
    assert daemon.entered == [("promote", "2013-07-03")]
    # From then on the daily run decides.
    land("2013-07-03")
    daemon.until_quiet()
    assert len(daemon.runs("arrival_delay_first_decision")) == 2
