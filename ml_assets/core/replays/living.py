"""Days lived one after the other: train where the day before asks for it, predict, watch, decide. Then the next."""

from collections.abc import Iterator
from dataclasses import asdict, replace
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
    days_left,
    mark_complete,
    rows_of,
)
from ml_assets.core.replays.rivals import evaluate_week, score_rivals
from ml_assets.core.scoring_days import write_predictions
from ml_assets.core.spec import UseCase

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
        trained = _train_where_asked(warehouse, store, use_case, day, workshop=workshop)
    with costs.of("predictions"):
        predicted = _predict(warehouse, store, use_case, today)
    lived = replace(
        trained,
        model_version=predicted["model_version"][0].as_py() if predicted.num_rows else "",
        n_decisions=predicted.num_rows,
    )
    if predicted.num_rows:
        lived = replace(lived, **asdict(watching.watch(warehouse, store, use_case, day, costs)))
    with costs.of("retraining"):
        watching.answer_for_people(warehouse, store, use_case, day)
        lived = replace(lived, **watching.decide(warehouse, store, use_case, day))
    is_end_of_week = day.weekday() == 6 or day == days.last
    if is_end_of_week and warehouse.columns(use_case.predictions_table) is not None:
        week = DayRange(first=max(days.first, day - timedelta(days=day.weekday())), last=day)
        with costs.of("rivals"):
            score_rivals(warehouse, store, use_case, week)
            evaluate_week(warehouse, use_case, week)
    mark_complete(warehouse, use_case, lived, costs)
    return lived


def _train_where_asked(
    warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, day: date, *, workshop: Workshop
) -> LivedDay:
    """Train as of a day if the decision of the day before asks for it; return the day with what came of that."""
    lived, yesterday = LivedDay(use_case=use_case.name, partition_on=day), day - timedelta(days=1)
    asked = rows_of(warehouse, RETRAINING, use_case, DayRange(first=yesterday, last=yesterday))
    if not asked.num_rows or asked["decision"][0].as_py() != "retrain":
        return lived
    try:
        entry = train_and_promote(
            warehouse, store, use_case, day, workshop=replace(workshop, now=lambda: day_starts_at(day))
        )
    except TrainingDataMissing as error:
        return replace(lived, outcome="impossible", outcome_reason=str(error))
    return replace(lived, outcome=_OUTCOMES[entry.action], candidate=entry.version, outcome_reason=entry.reason)


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
