"""The join of any decisions with any feature views, as one SELECT."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.feature_views import FeatureView, LatestView, WindowView
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.point_in_time.latest import Lookup, latest_lookup
from ml_assets.core.point_in_time.windows import window_lookup
from ml_assets.core.ports import DayRange, Dialect

KEPT = ("decision_id", "partition_on", "decided_at")


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Which days of the views' tables can matter to decisions whose event falls on first_day..last_day.

    A decision is taken at most ``lead_time`` before its event. A row's ``known_at`` is promised to fall on one of the
    local days from ``days_known_before`` before its ``partition_on`` to ``days_known_after`` after it. The defaults are
    a judgement: schedules count as known on the day before the flight, and a flight that leaves 22 hours late lands two
    days after its day. A row that breaks the promise may be missed, never used too early.
    """

    lead_time: timedelta
    days_known_before: int = 1
    days_known_after: int = 2

    def first_offset(self, max_age: timedelta) -> int:
        """Return the first partition day a row of this age can be on, in days from first_day (negative).

        A row that serves was known no earlier than lead time and max_age before first_day begins; that is at most
        so many days rounded up, and one more because a local day can have 23 hours.

        >>> Pruning(lead_time=timedelta(hours=2)).first_offset(timedelta(hours=24))
        -5
        """
        return -(math.ceil((self.lead_time + max_age) / timedelta(days=1)) + 1 + self.days_known_after)

    def last_offset(self) -> int:
        """Return the last partition day a row can be on, in days from last_day: none is known after the event."""
        return self.days_known_before


def parts(days: DayRange, *, at_most_days: int) -> Iterator[DayRange]:
    """Cut a long range of days into shorter ones: joining them one after the other bounds the memory of a join.

    >>> from datetime import date
    >>> [str(part) for part in parts(DayRange(first=date(2013, 1, 1), last=date(2013, 3, 1)), at_most_days=31)]
    ['2013-01-01..2013-01-31', '2013-02-01..2013-03-01']
    """
    if at_most_days < 1:
        raise ValueError(f"a part of {at_most_days} days is none; expected at least one")
    first = days.first
    while first <= days.last:
        last = min(days.last, first + timedelta(days=at_most_days - 1))
        yield DayRange(first=first, last=last)
        first = last + timedelta(days=1)


def join_query(
    decisions: str,
    views: Sequence[FeatureView],
    *,
    dialect: Dialect,
    kept: Sequence[str] = KEPT,
    pruning: Pruning | None = None,
) -> str:
    """Return a SELECT of the decisions' ``kept`` columns and then every view's features, one row for each decision.

    ``decisions`` is a SELECT (trusted SQL, not a name) with the kept columns, ``decided_at`` and the views' entity
    columns. With ``pruning`` the query has the DATE parameters first_day and last_day and reads only the partitions
    that can matter; without it, the views' tables need no ``partition_on`` and are read whole.
    Raises InvalidName for a name that is not safe inside SQL and InvalidDeclaration where two columns share a name.
    """
    sql = Sql(dialect=dialect)
    _check_names([*kept, *(feature.name for view in views for feature in view.features)])
    lookups = [
        _lookup(group, label=f"v{number}", sql=sql, pruning=pruning)
        for number, group in enumerate(_groups([view for view in views if view.features]))
    ]
    columns = {name: expression for lookup in lookups for name, expression in lookup.columns.items()}
    asked = [f"_d.{sql.name(name)}" for name in kept]
    asked += [f"{columns[feature.name]} AS {sql.name(feature.name)}" for view in views for feature in view.features]
    has_windows = any(isinstance(view, WindowView) for view in views)
    ctes = [
        sql.cte("_d", f"SELECT *, {sql.micros('decided_at')} AS _at FROM (\n{decisions}\n)", is_shared=has_windows),
        *(cte for lookup in lookups for cte in lookup.ctes),
    ]
    moments = "".join(f", {moment}" for lookup in lookups for moment in lookup.moments)
    source = ", ".join(["_d", *(name for lookup in lookups for name in lookup.settings)])
    return "\n".join(
        [
            f"WITH {(',' + chr(10)).join(ctes)}",
            f"SELECT {', '.join(asked)}",
            f"FROM (SELECT _d.*{moments} FROM {source}) _d" if moments else "FROM _d",
            *(lookup.join for lookup in lookups),
        ]
    )


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidDeclaration(f"the join would have two columns each called {twice}; rename one of each")


def _groups(views: Sequence[FeatureView]) -> list[list[FeatureView]]:
    """Put window views together that read the same events of the same entity; every latest view stands alone."""
    groups: dict[tuple[object, ...], list[FeatureView]] = {}
    for view in views:
        shared = (view.table, view.entity, view.known_at) if isinstance(view, WindowView) else (view.name,)
        groups.setdefault((type(view), *shared), []).append(view)
    return list(groups.values())


def _lookup(views: Sequence[FeatureView], *, label: str, sql: Sql, pruning: Pruning | None) -> Lookup:
    view = views[0]
    if not view.entity:
        raise InvalidDeclaration(f"the feature view {view.name!r} has no entity column to join on")
    condition = sql.present([*view.entity, view.known_at])
    if pruning:
        first = sql.day("first_day", plus=pruning.first_offset(max(view.max_age for view in views)))
        last = sql.day("last_day", plus=pruning.last_offset())
        condition += f" AND partition_on BETWEEN {first} AND {last}"
    if isinstance(view, LatestView):
        return latest_lookup(view, label=label, condition=condition, sql=sql)
    windows = [view for view in views if isinstance(view, WindowView)]
    return window_lookup(windows, label=label, condition=condition, sql=sql)
