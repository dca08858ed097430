"""What production does on the morning after a day: quality, drift, alarms, and the decision to retrain."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from ml_assets.core.alarms import write_alarms
from ml_assets.core.daily_quality import write_performance
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.drift import write_drift
from ml_assets.core.monitored import RETRAINING
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.replays.record import Costs, rows_of
from ml_assets.core.resumes import resume
from ml_assets.core.retraining_evidence import write_decisions
from ml_assets.core.spec import UseCase

# Judgement: a person who is alerted that retraining has stopped has looked into it, and says go on, after this time.
PERSON_ANSWERS_AFTER = timedelta(days=14)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a morning saw of the day before; ``n_labelled`` and the alarms are 0 where nothing was predicted."""

    n_labelled: int = 0
    n_alarms: int = 0
    n_severe: int = 0


def watch(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date, costs: Costs) -> Seen:
    """Measure and judge a day that was predicted, with what was known on the morning after it."""
    today = DayRange(first=day, last=day)
    with costs.of("drift"):
        write_drift(warehouse, store, use_case, today)
    with costs.of("quality"):
        known_before = day_starts_at(day + timedelta(days=1))
        quality = write_performance(warehouse, store, use_case, today, known_before=known_before)
    with costs.of("alarms"):
        alarms = write_alarms(warehouse, store, use_case, today)
    return Seen(
        n_labelled=quality.performance["n_labelled"][0].as_py(),
        n_alarms=alarms.num_rows,
        n_severe=alarms["severity"].to_pylist().count("severe"),
    )


def decide(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date) -> Mapping[str, str]:
    """Return decision and reason of a day, which may be one on which nobody is in charge yet; none is empty."""
    rows = write_decisions(
        warehouse, store, use_case, DayRange(first=day, last=day), starts_at=day_starts_at
    ).to_pylist()
    return {name: rows[0][name] for name in ("decision", "reason")} if rows else {}


def answer_for_people(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date) -> None:
    """Say go on, as a person would, where retraining has been stopped for a fortnight before a day.

    Nobody is there to read the alerts of a replay, and a use case that nobody answers for would stay as it is for ever.
    """
    first = day - PERSON_ANSWERS_AFTER
    decided = rows_of(warehouse, RETRAINING, use_case, DayRange(first=first, last=day - timedelta(days=1)))
    decisions = decided["decision"].to_pylist() if decided.num_rows else []
    if decisions == ["stopped"] * PERSON_ANSWERS_AFTER.days:
        resume(
            store,
            use_case.name,
            day=day,
            reason=f"stopped since {first}; nobody mends anything in a replay",
            recorded_at=day_starts_at(day),
            recorded_by="replay",
        )
