"""Skew: what the models read when they predicted, beside what the feature tables give for the same decisions now."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pyarrow as pa

from ml_assets.core.days import DayRange
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.monitored import SKEW
from ml_assets.core.point_in_time import Pruning, decisions_query, join_query, parts
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Dialect, Warehouse
from ml_assets.core.served import Value, values_in, values_of
from ml_assets.core.spec import UseCase

# Judgement: what comes late has come a week later. The last three days are made, and compared, again every morning.
LOOKS_BACK_DAYS = (0, 7)
# As long as the parts in which the examples are made, for the memory of the join.
_DAYS_AT_ONCE = 75
# The view under which it is reported that a decision is gone, or is taken at another moment by now.
DECISIONS = "decisions"
SKEW_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "view": pa.string(),
        "feature": pa.string(),
        "n_compared": pa.int64(),
        "n_different": pa.int64(),
        "largest_difference": pa.float64(),
        "decision_id": pa.string(),
        "served": pa.string(),
        "recomputed": pa.string(),
        "explanation": pa.string(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Read:
    """The features of one decision, as a model read them or as the tables give them now."""

    day: date
    decision_id: str
    decided_at: datetime
    features: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One feature of one decision of which the served and the recomputed value are not the same."""

    day: date
    decision_id: str
    view: str
    feature: str
    served: Value
    recomputed: Value

    @property
    def size(self) -> float | None:
        """How far the two numbers are apart; None where one of them is none."""
        return numeric_difference(self.served, self.recomputed)


def write_skew(warehouse: Warehouse, use_case: UseCase, days: DayRange, *, views: Sequence[FeatureView]) -> pa.Table:
    """Compare the sample of these days and of the days a week before them; write and return ``monitoring.skew``.

    The features are recomputed by the join that makes the examples, for the sampled decisions alone, from the tables
    as they are now. Each day gets one row per view, without a ``feature``, and one for each feature that differs; a day
    of which nothing was recorded gets none. Decisions are counted once, however often each was predicted. A feature
    that the use case reads no more, or did not read then, is not compared.

    No tolerance is needed: a latest view copies values, and a window is summed exactly, in whatever order its rows are.
    """
    compared = [_compared(warehouse, use_case, part, views) for part in parts(days, at_most_days=_DAYS_AT_ONCE)]
    rows = pa.concat_tables(compared)
    warehouse.replace_days({SKEW: rows}, days, use_case=use_case.name)
    return rows


def served_query(use_case: UseCase, *, dialect: Dialect, only_ids: bool = False) -> str:
    """Return the SELECT of the records to compare: those of the days that are judged, and of the days a week before.

    Its parameters are the DATEs first_day, which is a week before the first day that is judged, and last_day.
    """
    sql, longest = Sql(dialect=dialect), max(LOOKS_BACK_DAYS)
    days = " OR ".join(
        f"partition_on BETWEEN {sql.day('first_day', plus=longest - back)} AND {sql.day('last_day', plus=-back)}"
        for back in LOOKS_BACK_DAYS
    )
    table = f"FROM {sql.table(use_case.served_table)} WHERE {days}"
    if only_ids:
        return f"SELECT decision_id {table}"
    return (
        f"SELECT partition_on, decision_id, decided_at, features {table} "
        "ORDER BY partition_on, decision_id, predicted_at"
    )


def recomputed_query(use_case: UseCase, views: Sequence[FeatureView], *, dialect: Dialect) -> str:
    """Return the SELECT of the same decisions with their features as the tables give them now."""
    sampled = served_query(use_case, dialect=dialect, only_ids=True)
    decisions = decisions_query(use_case, views, dialect=dialect, among=sampled)
    return join_query(decisions, views, dialect=dialect, pruning=Pruning(lead_time=use_case.decisions.longest_lead))


def stored_query(use_case: UseCase, *, dialect: Dialect) -> str:
    """Return the SELECT of the same decisions' examples as they are stored now."""
    sql, sampled = Sql(dialect=dialect), served_query(use_case, dialect=dialect, only_ids=True)
    return (
        f"SELECT * FROM {sql.table(use_case.examples_table)} "
        f"WHERE partition_on BETWEEN {sql.day('first_day')} AND {sql.day('last_day')} AND decision_id IN ({sampled})"
    )


def differences(served: Read, now: Read | None, view_of: Mapping[str, str]) -> Iterator[Difference]:
    """Yield what is not the same of one decision: value, type or null; ``view_of`` is the view of each feature.

    One that is gone differs in its ``decision_id``, one that is taken at another moment in its ``decided_at``.
    """

    def found(view: str, feature: str, was: Value, is_now: Value) -> Difference:
        return Difference(
            day=served.day,
            decision_id=served.decision_id,
            view=view,
            feature=feature,
            served=was,
            recomputed=is_now,
        )

    if now is None:
        yield found(DECISIONS, "decision_id", served.decision_id, None)
        return
    if served.decided_at != now.decided_at:
        yield found(DECISIONS, "decided_at", served.decided_at.isoformat(), now.decided_at.isoformat())
    for name, value in now.features.items():
        if name in served.features and name in view_of and not is_same(served.features[name], value):
            yield found(view_of[name], name, served.features[name], value)


def is_same(one: Value, other: Value) -> bool:
    """Tell whether two values are the same, type and last bit; null is the same as null alone, and NaN as NaN.

    >>> is_same(1, 1), is_same(1, 1.0), is_same(1, True), is_same(0.1, 0.1), is_same(None, 0)
    (True, False, False, True, False)
    """
    return type(one) is type(other) and (one == other or (one != one and other != other))


def numeric_difference(one: Value, other: Value) -> float | None:
    """Return how far two numbers are apart, None where one of them is no number.

    >>> numeric_difference(1.5, 4), numeric_difference(None, 4), numeric_difference("a", "b")
    (2.5, None, None)
    """
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(float(one) - float(other))
    return None


def _compared(warehouse: Warehouse, use_case: UseCase, days: DayRange, views: Sequence[FeatureView]) -> pa.Table:
    if warehouse.columns(use_case.served_table) is None:
        return SKEW_SCHEMA.empty_table()
    bounds = {"first_day": days.first - timedelta(days=max(LOOKS_BACK_DAYS)), "last_day": days.last}
    records = warehouse.query(served_query(use_case, dialect=warehouse.dialect), bounds)
    if not records.num_rows:
        return SKEW_SCHEMA.empty_table()
    served = _reads(records, [values_in(document) for document in records["features"].to_pylist()])
    found = warehouse.query(recomputed_query(use_case, views, dialect=warehouse.dialect), bounds)
    now = {read.decision_id: read for read in _reads(found, values_of(found))}
    view_of = {feature.name: view.name for view in views for feature in view.features}
    different = [one for read in served for one in differences(read, now.get(read.decision_id), view_of)]
    examples: dict[str, Read] = {}
    if different:
        stored = warehouse.query(stored_query(use_case, dialect=warehouse.dialect), bounds)
        examples = {read.decision_id: read for read in _reads(stored, values_of(stored))}
    rows: list[dict[str, object]] = []
    for day in days.dates:
        looked_at = {day - timedelta(days=back) for back in LOOKS_BACK_DAYS}
        n_compared = len({read.decision_id for read in served if read.day in looked_at})
        of_day = [one for one in different if one.day in looked_at]
        if n_compared:
            rows += _rows_of_day(of_day, examples, use_case=use_case, day=day, n_compared=n_compared, views=views)
    return pa.Table.from_pylist(rows, schema=SKEW_SCHEMA)


def _reads(rows: pa.Table, values: Sequence[Mapping[str, Value]]) -> list[Read]:
    names = ("partition_on", "decision_id", "decided_at")
    columns = zip(*(rows[name].to_pylist() for name in names), values, strict=True)
    return [
        Read(day=day, decision_id=decision, decided_at=decided_at, features=features)
        for day, decision, decided_at, features in columns
    ]


def _rows_of_day(
    different: Sequence[Difference],
    examples: Mapping[str, Read],
    *,
    use_case: UseCase,
    day: date,
    n_compared: int,
    views: Sequence[FeatureView],
) -> list[dict[str, object]]:
    tables = {DECISIONS: use_case.decisions.table} | {view.name: view.table for view in views}
    rows: list[dict[str, object]] = []
    for view, table in tables.items():
        of_view = [one for one in different if one.view == view]
        words = explained(of_view, examples, table=table, n_compared=n_compared) if of_view else ""
        features = dict.fromkeys(one.feature for one in of_view)
        # The row of the view comes first and counts examples, whichever of its features differ in them.
        for feature, those in [
            ("", of_view),
            *((name, [o for o in of_view if o.feature == name]) for name in features),
        ]:
            sizes = [one.size for one in those if one.size is not None]
            example = max(those, key=lambda one: (one.size or 0.0, one.decision_id), default=None)
            rows.append(
                {
                    "use_case": use_case.name,
                    "partition_on": day,
                    "view": view,
                    "feature": feature,
                    "n_compared": n_compared,
                    "n_different": len({one.decision_id for one in those}),
                    "largest_difference": max(sizes) if feature and sizes else None,
                    "decision_id": example.decision_id if example else "",
                    "served": json.dumps(example.served) if example and feature else "",
                    "recomputed": json.dumps(example.recomputed) if example and feature else "",
                    "explanation": words,
                }
            )
    return rows


def explained(different: Sequence[Difference], examples: Mapping[str, Read], *, table: str, n_compared: int) -> str:
    """Return in one sentence what differs in a view and what that may mean; ``examples`` are those stored by now."""
    features = ", ".join(dict.fromkeys(one.feature for one in different))
    n_different = len({one.decision_id for one in different})
    what = f"{n_different} of {n_compared} sampled examples were read with another {features} than {table} gives now"
    if different[0].view == DECISIONS:
        return f"{what}: the schedule was changed after the prediction was made"

    def stored_value(one: Difference) -> Value:
        stored = examples.get(one.decision_id)
        return stored.features.get(one.feature) if stored else None

    if all(is_same(stored_value(one), one.recomputed) for one in different):
        return (
            f"{what}; the examples have been made again since: its rows came late or were corrected, or it has changed"
        )
    if all(is_same(stored_value(one), one.served) for one in different):
        return (
            f"{what}; the examples still hold what was read: {table} has changed since they were made, by late or "
            "corrected rows or by another model; materialize the examples and predictions of these days again"
        )
    return f"{what}; some examples have been made again since, some have not"
