"""Days lived one after the other: train where the day before asks for it, predict, watch, decide. Then the next."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pyarrow as pa

from ml_assets.core import registry
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.monitored import RETRAINING
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.promoting import Workshop, train_and_promote
from ml_assets.core.replays import watching
from ml_assets.core.replays.record import (
    Costs,
    LivedDay,
    Outcome,
    Training,
    days_left,
    lived_days,
    mark_complete,
    rows_of,
)
from ml_assets.core.replays.rivals import evaluate_week, score_rivals
from ml_assets.core.scoring_days import write_predictions
from ml_assets.core.spec import UseCase

# Judgement: until somebody is in charge, a weekly schedule tries again.
_BETWEEN_FIRST_TRAININGS = timedelta(days=7)
_OUTCOMES: dict[str, Outcome] = {"promote": "promoted", "refuse": "refused", "wait": "waits", "reject": "refused"}


def live(
    warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange, *, workshop: Workshop
) -> Iterator[LivedDay]:
    """Live the days that are not complete yet, and yield what each came to once it is.

    The warehouse holds the examples of all days from the start; what a day may see of them is what was known on the
    morning after it. A day that was begun and not completed is lived again and comes to the same: every step replaces
    the rows of its day, uses the package of the same recipe again and keeps the ledger's first word.

    On the morning after the last day of each week (Sunday, or the last of all) those that are not in charge are
    compared with who is; see ``rivals``.
    """
    left = days_left(warehouse, use_case, days)
    for day in left.dates if left else ():
        yield _live(warehouse, store, use_case, day, days, workshop=workshop)


def _live(
    warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date, days: DayRange, *, workshop: Workshop
) -> LivedDay:
    """Live one day and mark it complete."""
    costs, today = Costs(), DayRange(first=day, last=day)
    with costs.of("training"):
        trained = _train_where_asked(warehouse, store, use_case, day, days, workshop=workshop)
    lived = LivedDay(use_case=use_case.name, partition_on=day, **trained.__dict__)
    with costs.of("predictions"):
        predicted = _predict(warehouse, store, use_case, today)
    if predicted.num_rows:
        seen = watching.watch(warehouse, store, use_case, day, costs)
        lived = replace(
            lived,
            model_version=predicted["model_version"][0].as_py(),
            n_decisions=predicted.num_rows,
            n_labelled=seen.n_labelled,
            decision=seen.decision,
            reason=seen.reason,
            n_alarms=seen.n_alarms,
            n_severe=seen.n_severe,
        )
    is_end_of_week = day.weekday() == 6 or day == days.last
    if is_end_of_week and warehouse.columns(use_case.predictions_table) is not None:
        week = DayRange(first=max(days.first, day - timedelta(days=day.weekday())), last=day)
        with costs.of("rivals"):
            score_rivals(warehouse, store, use_case, week)
            evaluate_week(warehouse, use_case, week)
    mark_complete(warehouse, use_case, lived, costs)
    return lived


@dataclass(frozen=True, kw_only=True)
class _Trained:
    training: Training = ""
    outcome: Outcome = ""
    candidate: str = ""
    outcome_reason: str = ""


def _train_where_asked(
    warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date, days: DayRange, *, workshop: Workshop
) -> _Trained:
    """Train as of a day if the day before asks for it or, until somebody is in charge, as soon as it is possible."""
    training = _training_due(warehouse, store, use_case, day, days)
    if not training:
        return _Trained()
    then = replace(workshop, now=lambda: day_starts_at(day))
    try:
        entry = train_and_promote(warehouse, store, use_case, day, workshop=then)
    except TrainingDataMissing as error:
        # The first training waits for enough days: that is no event. One that was asked for and cannot be is one.
        is_event = training == "asked_for"
        return _Trained(training=training, outcome="impossible", outcome_reason=str(error)) if is_event else _Trained()
    return _Trained(
        training=training, outcome=_OUTCOMES[entry.action], candidate=entry.version, outcome_reason=entry.reason
    )


def _training_due(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date, days: DayRange) -> Training:
    yesterday = day - timedelta(days=1)
    # Of a day that is lived again, the ledger may hold the day's own promotion.
    if registry.champion_on(store, use_case.name, yesterday) is None:
        tried = [one.partition_on for one in lived_days(warehouse, use_case, days) if one.training]
        return "first" if not tried or day - tried[-1] >= _BETWEEN_FIRST_TRAININGS else ""
    asked = rows_of(warehouse, RETRAINING, use_case, DayRange(first=yesterday, last=yesterday))
    return "asked_for" if asked.num_rows and asked["decision"][0].as_py() == "retrain" else ""


def _predict(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, today: DayRange) -> pa.Table:
    """Return what the champion predicts of a day; nothing where nobody was in charge when it was decided."""
    if registry.champion_on(store, use_case.name, today.first) is None:
        return pa.table({})
    written = write_predictions(
        warehouse,
        store,
        use_case,
        today,
        run_id=f"replay-{today.first}",
        predicted_at=day_starts_at(today.first + timedelta(days=1)),
    )
    return written.rows
