"""The predictions of whole days: each day scored by the champion that was in charge when its decisions were taken."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core import registry
from ml_assets.core.days import DayRange, local_day
from ml_assets.core.package import load_package
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.scoring import PREDICTIONS_SCHEMA, keep_confirmed, prediction_rows, score
from ml_assets.core.spec import UseCase


@dataclass(frozen=True, kw_only=True)
class WrittenPredictions:
    """What came of scoring some days.

    Attributes:
        rows: the rows that the table of predictions now has of these days.
        examples: the examples that were to be scored: those of all days but the ones that are too early.
        too_early: the days that were decided before the first champion took charge, and that nobody predicts.
    """

    rows: pa.Table
    examples: pa.Table
    too_early: tuple[date, ...]

    @property
    def is_nobodys(self) -> bool:
        """Whether nothing was written, because all that there is was decided before the first champion."""
        return bool(self.too_early) and not self.examples.num_rows


def write_predictions(
    warehouse: Warehouse,
    store: ArtifactStore,
    use_case: UseCase,
    days: DayRange,
    *,
    run_id: str,
    predicted_at: datetime,
) -> WrittenPredictions:
    """Score every decision of these days and replace the days in ``predictions.<use_case>``.

    A prediction that comes out as it stands there already keeps the run and the time that it was first made in, so
    that scoring a day again changes nothing. Where all days were decided before the first champion took charge,
    nothing is written. ``predicted_at`` is in UTC.

    Raises ChampionMissing for a day of which nobody is in charge by now.
    """
    table = use_case.predictions_table
    examples = rows_of_days(warehouse, use_case.examples_table, days)
    too_early = tuple(days_before_the_first_champion(examples, use_case=use_case, store=store))
    if too_early:
        examples = examples.filter(pc.invert(pc.field("partition_on").isin(pa.array(too_early, pa.date32()))))
        if not examples.num_rows:
            return WrittenPredictions(rows=PREDICTIONS_SCHEMA.empty_table(), examples=examples, too_early=too_early)
    parts = [
        prediction_rows(rows, scores, model_version=version, run_id=run_id, predicted_at=predicted_at)
        for version, rows, scores in score_days(examples, use_case=use_case, store=store)
    ]
    rows = pa.concat_tables([*parts, PREDICTIONS_SCHEMA.empty_table()])
    existing = rows_of_days(warehouse, table, days) if warehouse.columns(table) else PREDICTIONS_SCHEMA.empty_table()
    rows = keep_confirmed(rows, existing)
    warehouse.replace_days({table: rows}, days)
    return WrittenPredictions(rows=rows, examples=examples, too_early=too_early)


def days_before_the_first_champion(examples: pa.Table, *, use_case: UseCase, store: ArtifactStore) -> list[date]:
    """Return the local days that have a champion by now, and had none yet when their decisions were taken."""
    ledger = registry.entries(store, use_case.name)
    return [
        day
        for day, decided_on in _decided_on(examples)
        if registry.in_charge(ledger, day) and not registry.in_charge(ledger, decided_on)
    ]


def score_days(
    examples: pa.Table, *, use_case: UseCase, store: ArtifactStore
) -> Iterator[tuple[str, pa.Table, np.ndarray]]:
    """Yield version, examples and scores for each stretch of days with the same model.

    A day has the champion of the local day on which its first decision is taken: where decisions are taken a day ahead,
    the champion of the day itself has been trained on what came true since.
    """
    ledger = registry.entries(store, use_case.name)
    champions = [
        (day, registry.required(ledger, use_case.name, decided_on)) for day, decided_on in _decided_on(examples)
    ]
    for (version, package_hash), stretch in groupby(
        champions, key=lambda pair: (pair[1].version, pair[1].package_hash)
    ):
        dates = [day for day, _ in stretch]
        rows = examples.filter(pc.field("partition_on").isin(pa.array(dates, pa.date32())))
        package = load_package(store, use_case.name, version, expected_hash=package_hash)
        yield version, rows, score(package, rows)


def rows_of_days(warehouse: Warehouse, table: str, days: DayRange) -> pa.Table:
    """Return all columns of a table's rows of these days, by day and decision."""
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = f"select * from {table} where {of_days} order by partition_on, decision_id"  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last})


def _decided_on(examples: pa.Table) -> list[tuple[date, date]]:
    """Return each local day with the local day on which the first of its decisions is taken, in order."""
    firsts = examples.group_by("partition_on").aggregate([("decided_at", "min")]).sort_by("partition_on").to_pylist()
    return [(row["partition_on"], local_day(row["decided_at_min"])) for row in firsts]
