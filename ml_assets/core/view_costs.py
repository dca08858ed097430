"""What a feature view costs and how fresh it is in use: rows, bytes, seconds, nulls, and age at the decision."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from ml_assets.core.evaluation import Floats
from ml_assets.core.feature_views import Feature, FeatureView, LatestView, WindowView
from ml_assets.core.point_in_time import Pruning, join_query
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import DayRange, Dialect, Warehouse
from ml_assets.core.spec import UseCase

_HOUR = timedelta(hours=1)
# Judgement: enough to know the width of a row, few enough for a table of any size.
_WEIGHED_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class ViewCost:
    """One view over some days; the table may feed other views too.

    Attributes:
        view: its name.
        table: where its rows are.
        is_window: whether it aggregates a window of events, or looks up the newest row.
        n_columns: the features it gives.
        null_share: of all its features in all decisions.
        stale_share: decisions for which there is no row, or none young enough.
        age_p50_hours: from the newest usable row's ``known_at`` to the decision, the median; of a window view that is
            the newest event. None where no decision has one.
        age_p95_hours: the same, the 95th percentile.
        max_age_hours: what the view declares; of a window view its longest window.
        rows_per_day: of the table.
        bytes_per_day: of the table, uncompressed as Arrow holds it.
        seconds_per_day: that making a day of the table took when it was last made; None where no run recorded it.
    """

    view: str
    table: str
    is_window: bool
    n_columns: int
    null_share: float
    stale_share: float
    age_p50_hours: float | None
    age_p95_hours: float | None
    max_age_hours: float
    rows_per_day: float
    bytes_per_day: float
    seconds_per_day: float | None


def view_costs(
    warehouse: Warehouse,
    views: Sequence[FeatureView],
    *,
    use_case: UseCase,
    days: DayRange,
    examples: pa.Table,
    seconds_per_day: Mapping[str, float],
) -> tuple[ViewCost, ...]:
    """Measure each view over the decisions of these days, in the order of the views.

    ``examples`` are rows with the features, for the nulls; ``seconds_per_day`` is what is known, by table.
    """
    tables = {view.table: _weigh(warehouse, view.table, days) for view in views}
    return tuple(
        _cost(view, ages(warehouse, view, use_case=use_case, days=days), examples, tables[view.table], seconds_per_day)
        for view in views
    )


def ages(warehouse: Warehouse, view: FeatureView, *, use_case: UseCase, days: DayRange) -> Floats:
    """Return the age in hours of the newest row each decision could use, float64 [n]; NaN where there is none.

    The look-up is the one that made the examples, asked for the row's ``known_at`` instead of its features.
    """
    found = warehouse.query(
        newest_rows_query(use_case, view, dialect=warehouse.dialect), {"first_day": days.first, "last_day": days.last}
    )
    decided_at, known_at = (
        found[name].cast(pa.timestamp("us", tz="UTC")).to_numpy() for name in ("decided_at", view.known_at)
    )
    return (decided_at - known_at) / np.timedelta64(1, "h")


def newest_rows_query(use_case: UseCase, view: FeatureView, *, dialect: Dialect) -> str:
    """Return the SELECT of decision_id, partition_on, decided_at and the ``known_at`` of the newest row known then.

    One row for each example from first_day to last_day, its DATE parameters.
    """
    sql = Sql(dialect=dialect)
    entity = [column for column in view.entity if column != "decision_id"]
    columns = "".join(f", _t.{sql.name(column)}" for column in entity)
    days = sql.of_days()
    decisions = f"""SELECT _x.decision_id, _x.partition_on, _x.decided_at{columns}
FROM (SELECT decision_id, partition_on, decided_at FROM {sql.table(use_case.examples_table)} WHERE {days}) _x
JOIN (SELECT {sql.names(["decision_id", *entity])} FROM {sql.table(use_case.decisions.table)} WHERE {days}) _t
ON _x.decision_id = _t.decision_id"""
    newest = LatestView(
        name=view.name,
        table=view.table,
        entity=view.entity,
        known_at=view.known_at,
        max_age=view.max_age,
        features=(Feature(name=view.known_at, kind="numeric", view=view.name),),
    )
    # The gap of a split is longer than any lead time of its use case: UseCase sees to that.
    pruning = Pruning(lead_time=timedelta(days=use_case.split.gap_days))
    return join_query(decisions, [newest], dialect=dialect, pruning=pruning)


def _cost(
    view: FeatureView, hours: Floats, examples: pa.Table, weight: tuple[float, float], seconds: Mapping[str, float]
) -> ViewCost:
    known = hours[np.isfinite(hours)]
    nulls = [examples[feature.name].null_count for feature in view.features]
    return ViewCost(
        view=view.name,
        table=view.table,
        is_window=isinstance(view, WindowView),
        n_columns=len(view.features),
        null_share=sum(nulls) / max(1, len(nulls) * examples.num_rows),
        stale_share=1 - len(known) / max(1, len(hours)),
        age_p50_hours=float(np.quantile(known, 0.5)) if len(known) else None,
        age_p95_hours=float(np.quantile(known, 0.95)) if len(known) else None,
        max_age_hours=view.max_age / _HOUR,
        rows_per_day=weight[0],
        bytes_per_day=weight[1],
        seconds_per_day=seconds.get(view.table),
    )


def _weigh(warehouse: Warehouse, table: str, days: DayRange) -> tuple[float, float]:
    """Return rows and bytes a day; the bytes from the width of a bounded number of rows."""
    sql = Sql(dialect=warehouse.dialect)
    name, where = sql.table(table), f"WHERE {sql.of_days()}"
    bounds = {"first_day": days.first, "last_day": days.last}
    counted = warehouse.query(f"SELECT COUNT(*) AS n_rows FROM {name} {where}", bounds)
    rows_per_day = int(counted["n_rows"][0].as_py()) / len(days.dates)
    weighed = warehouse.query(f"SELECT * FROM {name} {where} LIMIT {_WEIGHED_ROWS}", bounds)
    return rows_per_day, rows_per_day * weighed.nbytes / max(1, weighed.num_rows)
