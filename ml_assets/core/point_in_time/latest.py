"""The SQL that looks up a latest view: the newest row known at the decision and not older than ``max_age``."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from dataclasses import dataclass

from ml_assets.core.feature_views import LatestView
from ml_assets.core.point_in_time.dialects import Sql, microseconds

_HOUR = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A part of the join: WITH entries, what to join the decisions ``_d`` with, and the features' expressions.

    ``moments`` are columns to add to the decisions, from the one-row relations ``settings``.
    """

    ctes: tuple[str, ...]
    join: str
    columns: dict[str, str]
    moments: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def latest_lookup(view: LatestView, *, label: str, condition: str, sql: Sql) -> Lookup:
    """Return the look-up of one view; ``condition`` limits the rows it reads, ``label`` makes its names unique."""
    return (_by_buckets if sql.is_duckdb else _by_last_value)(view, label=label, condition=condition, sql=sql)


def _by_buckets(view: LatestView, *, label: str, condition: str, sql: Sql) -> Lookup:
    """Cut each row's time of validity at multiples of a width, so that a hash join on entity and multiple finds it.

    A row is valid from its known_at until the next row's or until it is too old. The width is about the mean
    validity, as a power of two times one hour: then there are about two pieces a row, however rare or frequent the
    rows are, and few pieces share a bucket. Hourly rows give exactly one hour.
    """
    entity = sql.names(view.entity)
    features = [feature.name for feature in view.features]
    values = "".join(f", {sql.name(name)}" for name in features)
    ties = "".join(f", {sql.name(name)} ASC NULLS FIRST" for name in features)
    oldest = f"_from + {microseconds(view.max_age)}"
    rows = sql.cte(
        f"_{label}_rows",
        f"SELECT {entity}{values}, _from, least(coalesce(_next - 1, {oldest}), {oldest}) AS _to FROM (\n"
        f"  SELECT *, lead(_from) OVER (PARTITION BY {entity} ORDER BY _from{ties}) AS _next FROM (\n"
        f"    SELECT {entity}{values}, {sql.micros(sql.name(view.known_at))} AS _from FROM {sql.table(view.table)}\n"
        f"    WHERE {condition}))\n"
        # of rows known at the same moment all but the last are valid for no time at all
        f"WHERE _next IS NULL OR _next > _from",
        is_shared=True,
    )
    width = sql.cte(
        f"_{label}_width",
        f"SELECT coalesce(greatest(CAST({_HOUR} * pow(2, round(log2(greatest(avg(_to - _from + 1), 1) / {_HOUR})))"
        f" AS BIGINT), 1), {_HOUR}) AS _{label}_w FROM _{label}_rows",
    )
    pieces = (
        f"_{label} AS (\n"
        f"SELECT {entity}{values}, _from, _to, unnest(range(_from // _{label}_w, _to // _{label}_w + 1)) AS _bucket\n"
        f"FROM _{label}_rows, _{label}_width\n)"
    )
    join = (
        f"LEFT JOIN _{label} ON {sql.same('_d', f'_{label}', view.entity)} AND _d._{label}_b = _{label}._bucket"
        f" AND _d._at >= _{label}._from AND _d._at <= _{label}._to"
    )
    return Lookup(
        ctes=(rows, width, pieces),
        join=join,
        columns={name: f"_{label}.{sql.name(name)}" for name in features},
        moments=(f"_at // _{label}_w AS _{label}_b",),
        settings=(f"_{label}_width",),
    )


def _by_last_value(view: LatestView, *, label: str, condition: str, sql: Sql) -> Lookup:
    """Line up rows and decisions of an entity in time; the last row before a decision is the one it sees.

    The row travels as a struct: a null inside it survives IGNORE NULLS, and does not fall back to an older row.
    """
    entity = sql.names(view.entity)
    features = [feature.name for feature in view.features]
    values = sql.names(features)
    ties = "".join(f", _row.{sql.name(name)} ASC NULLS FIRST" for name in features)
    line = sql.cte(
        f"_{label}_line",
        f"SELECT {entity}, _at, FALSE AS _asks, STRUCT(_at AS _from, {values}) AS _row FROM (\n"
        f"  SELECT {entity}, {values}, {sql.micros(sql.name(view.known_at))} AS _at FROM {sql.table(view.table)}\n"
        f"  WHERE {condition})\n"
        f"UNION ALL\n"
        # a bare NULL fits any type, one under DISTINCT is an INT64
        f"SELECT {entity}, _at, TRUE, NULL\n"
        f"FROM (SELECT DISTINCT {entity}, _at FROM _d WHERE {sql.present(view.entity)})",
    )
    seen = sql.cte(
        f"_{label}_seen",
        f"SELECT {entity}, _at, _asks, LAST_VALUE(_row IGNORE NULLS) OVER (PARTITION BY {entity}"
        f" ORDER BY _at, _asks{ties} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS _row FROM _{label}_line",
    )
    fresh = f"_at - _row._from <= {microseconds(view.max_age)}"
    chosen = ", ".join(f"CASE WHEN {fresh} THEN _row.{sql.name(name)} END AS {sql.name(name)}" for name in features)
    return Lookup(
        ctes=(line, seen, sql.cte(f"_{label}", f"SELECT {entity}, _at, {chosen} FROM _{label}_seen WHERE _asks")),
        join=f"LEFT JOIN _{label} ON {sql.same('_d', f'_{label}', view.entity)} AND _d._at = _{label}._at",
        columns={name: f"_{label}.{sql.name(name)}" for name in features},
    )
