"""The SQL that looks up window views: differences of running totals as of the decision and as of each window's start.

Events are numbered in time within their entity, with running totals beside them. Laying the moments asked for
between the events and counting gives each moment the number of the last event known by then; the number then
fetches the totals by equality. Views that read the same events of the same entity share all of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.feature_views import Aggregate, WindowView
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
        return f"{self.sql.double(above)} / {self.sql.double(f'NULLIF({total("present")}, 0)')}"


def _of(aggregate: Aggregate) -> str:
    if aggregate.of is None:
        raise InvalidDeclaration(f"the aggregate {aggregate.name!r} is a {aggregate.function} of no column; name one")
    return aggregate.of


def window_lookup(views: Sequence[WindowView], *, label: str, condition: str, sql: Sql) -> Lookup:
    """Return one look-up for window views that share table, entity and known_at, all their windows in one pass."""
    windows = sorted({window for view in views for window in view.windows})
    totals = _Totals(sql=sql, events={})
    features = {
        name: expression
        for view in views
        for name, expression in _features(view, windows=windows, totals=totals).items()
    }
    entity = views[0].entity
    keys = sql.names(entity)
    return Lookup(
        ctes=(
            _events(views[0], totals=totals, label=label, condition=condition),
            _moments(entity, windows=windows, label=label, sql=sql),
            _numbers(entity, n_windows=len(windows), label=label, sql=sql),
            sql.cte(
                f"_{label}",
                f"SELECT {', '.join(f'_r.{sql.name(column)}' for column in entity)}, _r._at, "
                + ", ".join(f"{value} AS {sql.name(name)}" for name, value in features.items())
                + f"\nFROM _{label}_numbers _r"
                + _fetches(entity, n_windows=len(windows) if totals.events else -1, label=label, sql=sql),
            ),
        ),
        join=f"LEFT JOIN _{label} ON {sql.same('_d', f'_{label}', entity)} AND _d._at = _{label}._at",
        columns={
            name: _counted_as_zero(f"_{label}.{sql.name(name)}", null_entity=name in _zeros(views))
            for name in features
        },
    ) if keys else Lookup(ctes=(), join="", columns={})
