"""The predictions of whole days: each day scored by the champion that was in charge when its decisions were taken."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core import registry
from ml_assets.core.days import DayRange, local_day
from ml_assets.core.package import ModelPackage
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.recalled import recall_package
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.scoring import PREDICTIONS_SCHEMA, keep_confirmed, prediction_rows, score
from ml_assets.core.served import served_rows
from ml_assets.core.shadows import N_PREVIOUS, SHADOW_SCHEMA, Skipped, shadow_rows
from ml_assets.core.spec import UseCase


@dataclass(frozen=True, kw_only=True)
class WrittenPredictions:
    """What came of scoring some days.

    Attributes:
        rows: the rows that the table of predictions now has of these days.
        examples: the examples that were to be scored: those of all days but the ones that are too early.
        too_early: the days that were decided before the first champion took charge, and that nobody predicts.
        skipped: the shadows that could not score some of the days, and why.
    """

    rows: pa.Table
    examples: pa.Table
    too_early: tuple[date, ...]
    skipped: tuple[Skipped, ...] = ()

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
    """Score every decision of these days and replace the days in ``predictions.<use_case>``, and those of its shadows.

    Of a sample of the decisions, ``predictions.<use_case>_served`` keeps what the model read (``core/served.py``).

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
    parts, shadows, skipped = [PREDICTIONS_SCHEMA.empty_table()], [SHADOW_SCHEMA.empty_table()], list[Skipped]()
    ledger = registry.entries(store, use_case.name)
    for stretch in scored_stretches(examples, use_case=use_case, store=store, ledger=ledger):
        version = stretch.package.version
        parts.append(
            prediction_rows(
                stretch.examples, stretch.scores, model_version=version, run_id=run_id, predicted_at=predicted_at
            )
        )
        of_shadows, not_scored = shadow_rows(stretch.examples, stretch.package, stretch.previous, store)
        shadows.append(of_shadows)
        skipped += not_scored
    existing = rows_of_days(warehouse, table, days) if warehouse.columns(table) else PREDICTIONS_SCHEMA.empty_table()
    rows = keep_confirmed(pa.concat_tables(parts), existing)
    tables = {
        table: rows,
        use_case.shadow_table: pa.concat_tables(shadows),
        use_case.served_table: served_rows(warehouse, use_case, days, examples=examples, predictions=rows),
    }
    warehouse.replace_days(tables, days)
    return WrittenPredictions(rows=rows, examples=examples, too_early=too_early, skipped=tuple(skipped))


def days_before_the_first_champion(examples: pa.Table, *, use_case: UseCase, store: ArtifactStore) -> list[date]:
    """Return the local days that have a champion by now, and had none yet when their decisions were taken."""
    ledger = registry.entries(store, use_case.name)
    return [
        day
        for day, decided_on in _decided_on(examples)
        if registry.in_charge(ledger, day) and not registry.in_charge(ledger, decided_on)
    ]


def stretches_in_charge(
    warehouse: Warehouse, use_case: UseCase, entry: LedgerEntry, store: ArtifactStore
) -> list[DayRange]:
    """Return the days with predictions that an entry of the ledger is in charge of, as unbroken stretches.

    Whoever made these predictions: after a rollback they are the days that the version before it has predicted.
    """
    table, ledger = use_case.predictions_table, registry.entries(store, use_case.name)
    if warehouse.columns(table) is None:
        return []
    sql = f"""
        select partition_on, min(decided_at) as decided_at from {table}
        where partition_on >= {Sql(dialect=warehouse.dialect).parameter("first_day")} group by partition_on
    """  # noqa: S608 - validated names
    rows = warehouse.query(sql, {"first_day": entry.effective_from}).to_pylist()
    decided = {row["partition_on"]: local_day(row["decided_at"]) for row in rows}
    days = {day for day, decided_on in decided.items() if registry.in_charge(ledger, decided_on) == entry}
    first = min(days, default=entry.effective_from)
    whole = DayRange(first=first, last=max(days, default=first))
    return list(whole.without(set(whole.dates) - days)) if days else []


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Days in a row that have the same champion and the same predecessors of it, scored by the champion."""

    package: ModelPackage
    previous: Sequence[LedgerEntry]
    examples: pa.Table
    scores: np.ndarray


def scored_stretches(
    examples: pa.Table, *, use_case: UseCase, store: ArtifactStore, ledger: Sequence[LedgerEntry]
) -> Iterator[Stretch]:
    """Score the examples by stretches of days with the same models in charge.

    A day has the champion of the local day on which its first decision is taken: where decisions are taken a day ahead,
    the champion of the day itself has been trained on what came true since.
    """
    champions = [
        (
            day,
            registry.required(ledger, use_case.name, decided_on),
            registry.predecessors(ledger, decided_on, most=N_PREVIOUS),
        )
        for day, decided_on in _decided_on(examples)
    ]
    for (version, package_hash, _), found in groupby(
        champions, key=lambda of: (of[1].version, of[1].package_hash, tuple(entry.sequence for entry in of[2]))
    ):
        stretch = list(found)
        rows = examples.filter(pc.field("partition_on").isin(pa.array([day for day, *_ in stretch], pa.date32())))
        package = recall_package(store, use_case.name, version, expected_hash=package_hash)
        yield Stretch(package=package, previous=stretch[0][2], examples=rows, scores=score(package, rows))


def rows_of_days(warehouse: Warehouse, table: str, days: DayRange) -> pa.Table:
    """Return all columns of a table's rows of these days, by day and decision."""
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = f"select * from {table} where {of_days} order by partition_on, decision_id"  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last})


def _decided_on(examples: pa.Table) -> list[tuple[date, date]]:
    """Return each local day with the local day on which the first of its decisions is taken, in order."""
    firsts = examples.group_by("partition_on").aggregate([("decided_at", "min")]).sort_by("partition_on").to_pylist()
    return [(row["partition_on"], local_day(row["decided_at_min"])) for row in firsts]
