"""Runs of the asset graph in this process: a stretch of days at once, a training, a search."""

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Literal, cast

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.calendar import refuse_unknown_partitions, today
from ml_assets.core import registry
from ml_assets.core.ablation_records import Ablation, load_ablation
from ml_assets.core.errors import BadInput, MlAssetsError
from ml_assets.core.ml_test_score.findings import SECTIONS
from ml_assets.core.ml_test_score.score import TABLE
from ml_assets.core.monitored import recent_rows
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, DayRange, Warehouse
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.spec import UseCase
from ml_assets.core.staleness_curves import StalenessCurve, load_curve
from ml_assets.core.tuned_parameters import TunedParameters, newest_tuned_parameters
from ml_assets.defs.automation import RESCORED, failure_reasons
from ml_assets.local_instance import LocalInstance
from ml_assets.resources import HELD_DAYS

LANDING = ("raw", "features", "examples")
SERVING = ("predictions", "monitoring")
WAREHOUSE_POOL = "warehouse"
TRAINING_STAGES = ("training_set", "candidate", "champion")
TUNING_STAGES = ("training_set", "tuning")
ABLATION_STAGES = ("training_set", "ablation")
STALENESS_STAGES = ("staleness",)
SCORE_STAGES = ("ml_test_score",)

TrainingOutcome = Literal["promoted", "refused", "waits"]
OnEvent = Callable[[dg.EventLogEntry], None]


class RunFailed(MlAssetsError):
    """A run of the asset graph failed; the message names the step and the reason.

    ``blocked`` are the assets of which a blocking check failed in this run; ``is_waiting`` tells that the one step that
    failed was a promotion that waits for a person, ``is_held`` that all went through but for days of spoilt data.
    """

    def __init__(
        self,
        message: str,
        *,
        blocked: frozenset[dg.AssetKey] = frozenset(),
        is_waiting: bool = False,
        is_held: bool = False,
    ) -> None:
        super().__init__(message)
        self.blocked = blocked
        self.is_waiting = is_waiting
        self.is_held = is_held


class Lifecycle:
    """The asset graph of this environment with a Dagster instance that remembers its runs.

    ``on_event`` is told of every event and log line of a run while it goes on.
    """

    def __init__(self, environment: Environment, *, on_event: OnEvent = lambda _event: None) -> None:
        from ml_assets.definitions import defs

        self._instance = instance_of(environment)
        self._definitions = defs()
        self._job = self._definitions.resolve_implicit_global_asset_job_def()
        self._graph = self._definitions.resolve_asset_graph()
        self._on_event = on_event
        self.warehouse: Warehouse = self._definitions.resources["warehouse"]  # type: ignore[index]
        self.store: ArtifactStore = self._definitions.resources["store"]  # type: ignore[index]

    def run_groups(self, groups: Sequence[str], days: DayRange, *, without: Sequence[str] = ()) -> None:
        """Materialize every asset of these groups for these days, in one run; raise RunFailed where a step fails.

        ``without`` are the names of use cases to leave out, such as one that nobody is in charge of yet.
        """
        keys = [
            key
            for key in self._graph.get_all_asset_keys()
            if self._graph.get(key).group_name in groups and key.path[0] not in without
        ]
        if not keys:
            return  # to Dagster an empty selection means everything
        self._run_held(sorted(keys), days)

    def train(self, use_case: UseCase, as_of: date) -> bool:
        """Freeze, fit and promote as of a day; return whether the candidate was promoted."""
        return self.outcome_of_training(use_case, as_of) == "promoted"

    def outcome_of_training(self, use_case: UseCase, as_of: date) -> TrainingOutcome:
        """Freeze, fit and promote as of a day; tell whether gates refused the candidate, or it waits for a person."""
        keys = [dg.AssetKey(use_case.key(stage)) for stage in TRAINING_STAGES]
        try:
            self._run(keys, DayRange(first=as_of, last=as_of))
        except RunFailed as failure:
            if dg.AssetKey(use_case.key("candidate")) in failure.blocked:
                return "refused"
            if failure.is_waiting:
                return "waits"
            raise
        return "promoted"

    def tune(self, use_case: UseCase, as_of: date, config: Mapping[str, object]) -> TunedParameters:
        """Freeze and search as of a day, with these fields of the tuning form, and return the best that is known."""
        keys = [dg.AssetKey(use_case.key(stage)) for stage in TUNING_STAGES]
        op = dg.AssetKey(use_case.key("tuning")).to_python_identifier()
        self._run(keys, DayRange(first=as_of, last=as_of), ops={op: {"config": dict(config)}})
        tuned = newest_tuned_parameters(self.store, use_case.name, as_of)
        if tuned is None:
            raise RunFailed(f"the study of {use_case.name} as of {as_of} ended without tuned parameters")
        return tuned

    def ablate(self, use_case: UseCase, as_of: date, config: Mapping[str, object]) -> Ablation:
        """Freeze as of a day and train without each feature view, with these fields of the ablation form."""
        keys = [dg.AssetKey(use_case.key(stage)) for stage in ABLATION_STAGES]
        op = dg.AssetKey(use_case.key("ablation")).to_python_identifier()
        self._run(keys, DayRange(first=as_of, last=as_of), ops={op: {"config": dict(config)}})
        return load_ablation(self.store, use_case.name, as_of)

    def measure_staleness(self, use_case: UseCase, as_of: date, config: Mapping[str, object]) -> StalenessCurve:
        """Backtest models of several ages on the days before a day, with these fields of the staleness form."""
        keys = [dg.AssetKey(use_case.key(stage)) for stage in STALENESS_STAGES]
        op = dg.AssetKey(use_case.key("staleness")).to_python_identifier()
        self._run(keys, DayRange(first=as_of, last=as_of), ops={op: {"config": dict(config)}})
        return load_curve(self.store, use_case.name, as_of)

    def rescore(self, use_case: UseCase, days: DayRange) -> None:
        """Predict and monitor days again, by whom the ledger names now; once more, and nothing changes."""
        self._run_held([dg.AssetKey(use_case.key(stage)) for stage in RESCORED], days)

    def score(self, use_case: UseCase, day: date) -> Sequence[Mapping[str, object]]:
        """Carry out the ML Test Score at the end of a day; return the row of each test, in the order of the paper."""
        keys = [dg.AssetKey(use_case.key(stage)) for stage in SCORE_STAGES]
        op = dg.AssetKey(use_case.key("ml_test_score")).to_python_identifier()
        self._run(keys, DayRange(first=day, last=day), ops={op: {"config": {"is_asked": True}}})
        rows = recent_rows(self.warehouse, TABLE, use_case, day, since=day).to_pylist()
        return sorted(rows, key=lambda row: (SECTIONS.index(row["section"]), row["number"]))

    def first_day_in_charge(self, use_case: UseCase, days: DayRange) -> date | None:
        """Return the first of these days whose decisions were all taken with somebody in charge, or None."""
        sql = f"""
            select partition_on, min(decided_at) as decided_at from {use_case.examples_table}
            where {Sql(dialect=self.warehouse.dialect).of_days()} group by partition_on order by partition_on
        """  # noqa: S608 - validated names
        ledger = registry.entries(self.store, use_case.name)
        decided = self.warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist()
        in_charge = (row["partition_on"] for row in decided if registry.in_charge(ledger, today(row["decided_at"])))
        return next(in_charge, None)

    def _run_held(self, keys: Sequence[dg.AssetKey], days: DayRange) -> None:
        """Run, and hold the warehouse meanwhile where it is one day.

        That opens it thirty times within seconds. A long range would keep others out for minutes.
        """
        is_one_day = days.first == days.last
        self._run(keys, days, holds_warehouse=is_one_day and isinstance(self._instance, LocalInstance))

    def _run(
        self,
        keys: Sequence[dg.AssetKey],
        days: DayRange,
        *,
        holds_warehouse: bool = False,
        ops: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        refuse_unknown_partitions(days)
        is_one_day = days.first == days.last
        run_id = str(uuid.uuid4())
        tags = {
            "dagster/asset_partition_range_start": days.first.isoformat(),
            "dagster/asset_partition_range_end": days.last.isoformat(),
        }
        with ExitStack() as stack:
            self._instance.add_event_listener(run_id, self._on_event)
            if holds_warehouse:
                # The pool first: who has the file and waits for the pool would keep out the one who has the pool.
                stack.enter_context(cast("LocalInstance", self._instance).hold_pool(WAREHOUSE_POOL, run_id))
                stack.enter_context(self.warehouse.session())
            result = self._job.execute_in_process(
                run_id=run_id,
                instance=self._instance,
                asset_selection=list(keys),
                partition_key=days.first.isoformat() if is_one_day else None,
                tags={} if is_one_day else tags,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, "ops": dict(ops or {})},
                raise_on_error=False,
            )
        if not result.success:
            reasons = failure_reasons(result.all_events) or ["the run ended without saying why"]
            raise RunFailed(
                f"{days}: " + "; ".join(reasons),
                blocked=_blocked(result.all_events),
                is_waiting=_has_failed_only_with("waits_for_approval", result.all_events),
                is_held=_has_failed_only_with(HELD_DAYS, result.all_events),
            )


def instance_of(environment: Environment) -> dg.DagsterInstance:
    """Return the Dagster instance of this environment: in local set up from deploy/local/dagster.yaml on first use.

    Elsewhere the folder ``DAGSTER_HOME`` has the settings; raise BadInput where it has none.
    """
    home = environment.dagster_home
    if environment.name == "local":
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"the state cannot be kept in {environment.home}: {error}; set ML_ASSETS_HOME") from error
        settings = Path(__file__).parents[1] / "deploy" / "local" / "dagster.yaml"
        if not (home / "dagster.yaml").exists():
            shutil.copy(settings, home / "dagster.yaml")
    elif not (home / "dagster.yaml").is_file():
        raise BadInput(
            f"{home} has no dagster.yaml, which says where {environment.name} keeps its runs; set DAGSTER_HOME to the "
            "folder that has it"
        )
    return dg.DagsterInstance.from_config(str(home))


def tell_dagster(instance: dg.DagsterInstance, use_case: UseCase, entry: LedgerEntry) -> None:
    """Report a ledger entry that no run wrote as a materialization of the champion, which sensors and people see."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=use_case.key("champion"),
            partition=entry.effective_from.isoformat(),
            metadata=dict(entry.facts),
            tags={"dagster/data_version": entry.package_hash},
        )
    )


def _blocked(events: Sequence[dg.DagsterEvent]) -> frozenset[dg.AssetKey]:
    checks = [e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    return frozenset(check.asset_key for check in checks if check.blocking and not check.passed)


def _has_failed_only_with(fact: str, events: Sequence[dg.DagsterEvent]) -> bool:
    """Tell whether steps failed, and every one of them said this fact of its failure."""
    told = [event.step_failure_data.user_failure_data for event in events if event.is_step_failure]
    return bool(told) and all(failure is not None and fact in failure.metadata for failure in told)
