"""The SQL that looks up window views: differences of running totals as of the decision and as of each window's start.

Events are numbered in time within their entity, with running totals beside them. Laying the moments asked for
between the events and counting gives each moment the number of the last event known by then; the number then
fetches the totals by equality. Views that read the same events of the same entity share all of this.
"""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.feature_views import Aggregate, Feature, WindowView
from ml_assets.core.point_in_time.dialects import Sql, microseconds
from ml_assets.core.point_in_time.latest import Lookup


@dataclass(frozen=True, kw_only=True)
class _Totals:
    """The running totals that a group of views needs: column -> expression over one event, and how to use them."""

    sql: Sql
    events: dict[str, str]

    def column(self, kind: str, of: str) -> str:
        """Return the running total of one kind over a column, adding it where it is new."""
        name, sql = f"_{kind}_{of}", self.sql
        value = sql.name(of)
        self.events[name] = {
            "counted": f"COUNT(CASE WHEN {sql.counts(value)} THEN 1 END)",
            "present": f"COUNT({value})",
            "true": f"COUNT(CASE WHEN {value} THEN 1 END)",
            "sum": f"SUM({sql.exact(value)})",
        }[kind]
        return name

    def feature(self, aggregate: Aggregate, window: int) -> str:
        """Return the value of an aggregate over the window of that number."""

        def total(kind: str) -> str:
            column = self.column(kind, _of(aggregate))
            return f"(COALESCE(_r0.{column}, 0) - COALESCE(_r{window}.{column}, 0))"

        if aggregate.function == "count":
            return f"(_r._n0 - _r._n{window})" if aggregate.of is None else total("counted")
        if aggregate.function == "sum":
            return self.sql.double(total("sum"))
        above = total("sum" if aggregate.function == "mean" else "true")
        below = f"NULLIF({total('present')}, 0)"
        return f"{self.sql.double(above)} / {self.sql.double(below)}"


def _of(aggregate: Aggregate) -> str:
    if aggregate.of is None:
        raise InvalidDeclaration(f"the aggregate {aggregate.name!r} is a {aggregate.function} of no column; name one")
    return aggregate.of


def window_lookup(views: Sequence[WindowView], *, label: str, condition: str, sql: Sql) -> Lookup:
    """Return one look-up for window views that share table, entity and known_at, all their windows in one pass."""
    view, entity = views[0], sql.names(views[0].entity)
    windows = sorted({window for view in views for window in view.windows})
    totals = _Totals(sql=sql, events={})
    asked = {
        feature.name: (aggregate, totals.feature(aggregate, windows.index(window) + 1))
        for view in views
        for feature, aggregate, window in _features(view)
    }
    events = sql.cte(
        f"_{label}_events",
        f"SELECT {entity}, _at, ROW_NUMBER() OVER _w AS _n"
        + "".join(f", {total} OVER _w AS {name}" for name, total in totals.events.items())
        # The default frame takes in all events of the same moment: the totals do not depend on the order among them.
        + f" FROM (\n  SELECT *, {sql.micros(sql.name(view.known_at))} AS _at FROM {sql.table(view.table)}\n"
        f"  WHERE {condition})\nWINDOW _w AS (PARTITION BY {entity} ORDER BY _at)",
        is_shared=True,
    )
    moments = sql.cte(
        f"_{label}_moments", f"SELECT DISTINCT {entity}, _at FROM _d WHERE {sql.present(view.entity)}", is_shared=True
    )
    joins = "\n".join(
        f"LEFT JOIN _{label}_events _r{i} ON {sql.same('_r', f'_r{i}', view.entity)} AND _r._n{i} = _r{i}._n"
        for i in range(len(windows) + 1)
        if totals.events
    )
    differences = sql.cte(
        f"_{label}",
        f"SELECT {sql.names(view.entity, of='_r')}, _r._at"
        + "".join(f", {value} AS {sql.name(name)}" for name, (_, value) in asked.items())
        + f"\nFROM _{label}_numbers _r {joins}",
    )
    return Lookup(
        ctes=(events, moments, _numbers(view.entity, windows=windows, label=label, sql=sql), differences),
        join=f"LEFT JOIN _{label} ON {sql.same('_d', f'_{label}', view.entity)} AND _d._at = _{label}._at",
        columns={
            name: f"COALESCE(_{label}.{sql.name(name)}, 0)"  # a null entity has no moments, and no events
            if aggregate.function in ("count", "sum")
            else f"_{label}.{sql.name(name)}"
            for name, (aggregate, _) in asked.items()
        },
    )


def _numbers(columns: Sequence[str], *, windows: Sequence[timedelta], label: str, sql: Sql) -> str:
    """Number each moment (``_n0``) and each window's start (``_n1``, ...) by how many events were known by then."""
    entity = sql.names(columns)
    starts = [0, *(microseconds(window) for window in windows)]
    lines = "".join(
        f"\n    UNION ALL SELECT {entity}, _at - {start}, _at, {i}, NULL FROM _{label}_moments"
        for i, start in enumerate(starts)
    )
    numbers = ", ".join(f"MAX(CASE WHEN _which = {i} THEN _n END) AS _n{i}" for i in range(len(starts)))
    return sql.cte(
        f"_{label}_numbers",
        f"SELECT {entity}, _at, {numbers} FROM (\n"
        f"  SELECT {entity}, _at, _which, COUNT(_event) OVER (PARTITION BY {entity} ORDER BY _time) AS _n FROM (\n"
        f"    SELECT {entity}, _at AS _time, NULL AS _at, NULL AS _which, 1 AS _event FROM _{label}_events{lines}))\n"
        f"WHERE _which IS NOT NULL GROUP BY {entity}, _at",
    )


def _features(view: WindowView) -> Iterator[tuple[Feature, Aggregate, timedelta]]:
    declared = {
        WindowView.feature_name(view.name, aggregate.name, window): (aggregate, window)
        for window in view.windows
        for aggregate in view.aggregates
    }
    for feature in view.features:
        if feature.name not in declared:
            raise InvalidDeclaration(f"{view.name} offers {feature.name!r}, which no aggregate and window of it makes")
        aggregate, window = declared[feature.name]
        if window <= timedelta(0):
            raise InvalidDeclaration(f"{view.name} has a window of {window}; expected one longer than nothing")
        yield feature, aggregate, window
