"""Interim."""

from collections.abc import Sequence

from ml_assets.core.feature_views import FeatureView, LatestView
from ml_assets.core.ports import Dialect
from ml_assets.core.spec import UseCase


def examples_query(use_case: UseCase, views: Sequence[FeatureView], *, dialect: Dialect) -> str:
    """Return the join."""
    lead = int(use_case.decisions.lead_time.total_seconds() // 60)
    ctes = [
        f"d as (select *, {use_case.decisions.event_at} - to_minutes({lead}) as decided_at from {use_case.decisions.table} "
        "where partition_on between $first_day and $last_day)"
    ]
    joins, cols = [], []
    for v in views:
        back = v.max_age.days + 3
        where = f"where partition_on between $first_day::date - {back} and $last_day::date + 1"
        es = ", ".join(v.entity)
        if isinstance(v, LatestView):
            ctes.append(f"{v.name} as (select * from {v.table} {where})")
            on = " and ".join(f"d.{e} = {v.name}.{e}" for e in v.entity)
            joins.append(f"asof left join {v.name} on {on} and d.decided_at >= {v.name}.{v.known_at}")
            fresh = f"d.decided_at - {v.name}.{v.known_at} <= to_minutes({int(v.max_age.total_seconds() // 60)})"
            cols += [f"case when {fresh} then {v.name}.{f.name} end as {f.name}" for f in v.features]
            continue
        sums = []
        for a in v.aggregates:
            if a.function == "count":
                sums.append(f"count(*) filter ({a.of}) as {a.name}_s" if a.of else f"count(*) as {a.name}_s")
            else:
                sums.append(f"sum({a.of}::double) as {a.name}_s, count({a.of}) as {a.name}_c")
        names = [f"{a.name}_s" for a in v.aggregates] + [f"{a.name}_c" for a in v.aggregates if a.function != "count"]
        ctes.append(f"{v.name}_e as (select {es}, {v.known_at} as k, {', '.join(sums)} from {v.table} {where} group by all)")
        run = ", ".join(f"sum({n}) over (partition by {es} order by k) as {n}" for n in names)
        ctes.append(f"{v.name} as (select {es}, k, {run} from {v.name}_e)")
        on = lambda x: " and ".join(f"d.{e} = {x}.{e}" for e in v.entity)  # noqa: E731
        joins.append(f"asof left join {v.name} as {v.name}_0 on {on(v.name + '_0')} and d.decided_at >= {v.name}_0.k")
        for j, w in enumerate(v.windows, 1):
            x = f"{v.name}_{j}"
            h = int(w.total_seconds() // 60)
            joins.append(f"asof left join {v.name} as {x} on {on(x)} and d.decided_at - to_minutes({h}) >= {x}.k")
            for a in v.aggregates:
                diff = lambda n: f"(coalesce({v.name}_0.{n}, 0) - coalesce({x}.{n}, 0))"  # noqa: B023, E731
                f = v.feature_name(v.name, a.name, w)
                cols.append(
                    f"{diff(a.name + '_s')}::double as {f}"
                    if a.function in ("count", "sum")
                    else f"{diff(a.name + '_s')} / nullif({diff(a.name + '_c')}, 0) as {f}"
                )
    return f"""with {", ".join(ctes)}
    select d.decision_id, d.partition_on, d.decided_at, {", ".join(cols)}, l.label, l.label_known_at,
      case when l.decision_id is null then 'not landed' else l.no_label_reason end as no_label_reason
    from d {" ".join(joins)} left join {use_case.label.table} l on d.decision_id = l.decision_id
      and l.partition_on between $first_day and $last_day"""
