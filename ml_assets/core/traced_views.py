"""One feature view of a traced prediction: its features then and now, and the rows they were made from."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast

from ml_assets.core.feature_views import FeatureView, LatestView, WindowView
from ml_assets.core.point_in_time import Pruning
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Parameter, Warehouse
from ml_assets.core.provenance import Provenance, Row, cells
from ml_assets.core.served import Value
from ml_assets.core.spec import UseCase
from ml_assets.core.traced import FeatureValue, Prediction, Source, TracedView, Window

_HOUR = timedelta(hours=1)
# Judgement: of a window with hundreds of events, the newest few show what they are.
NEWEST_EVENTS = 3


def traced_view(
    provenance: Provenance,
    use_case: UseCase,
    view: FeatureView,
    predicted: Prediction,
    decision: Row,
    read: Mapping[str, Value],
    now: Mapping[str, Value],
) -> TracedView:
    """Return a view as a decision saw it: ``read`` is what the model read, ``now`` what the join gives by now."""
    entity = {name: decision[name] for name in view.entity}
    rows = _rows_known(provenance.warehouse, use_case, view, predicted, entity)
    is_window = isinstance(view, WindowView)
    windows = [
        Window(
            hours=window / _HOUR,
            after=predicted.decided_at - window,
            until=predicted.decided_at,
            n_events=sum(row[view.known_at] > predicted.decided_at - window for row in rows),
        )
        for window in (view.windows if is_window else ())
    ]
    made_from = provenance.lineage.parents.get(view.table, ())
    return TracedView(
        name=view.name,
        table=view.table,
        kind="window" if is_window else "latest",
        max_age_hours=view.max_age / _HOUR,
        entity=cells(entity),
        features=tuple(
            FeatureValue(name=f.name, value=read.get(f.name), recomputed=now.get(f.name), unit=f.unit)
            for f in view.features
        ),
        windows=tuple(windows),
        sources=tuple(
            Source(
                known_at=row[view.known_at],
                age_hours=(predicted.decided_at - row[view.known_at]) / _HOUR,
                values=cells(row),
                origins=provenance.origins(view.table, row),
            )
            for row in rows[: NEWEST_EVENTS if is_window else 1]
        ),
        made_from=tuple(made_from),
    )


def _rows_known(
    warehouse: Warehouse, use_case: UseCase, view: FeatureView, predicted: Prediction, entity: Row
) -> list[dict[str, datetime]]:
    """Return the rows of a view that the decision could use, the newest first; of a latest view the one it did use."""
    sql, pruning = Sql(dialect=warehouse.dialect), Pruning(lead_time=use_case.decisions.longest_lead)
    if any(value is None for value in entity.values()):
        return []
    equal = "".join(f" AND {sql.name(name)} = {sql.parameter(name)}" for name in entity)
    known_at, since = sql.name(view.known_at), sql.parameter("since")
    order, limit, oldest = f"{known_at} DESC", "", f"{known_at} > {since}"
    if isinstance(view, LatestView):
        # As the join does: of rows known at one moment the greatest values count, null below all.
        order += "".join(f", {sql.name(feature.name)} DESC NULLS LAST" for feature in view.features)
        limit, oldest = " LIMIT 1", f"{known_at} >= {since}"
    query = (
        f"SELECT * FROM {sql.table(view.table)} WHERE {sql.of_days()} AND {known_at} <= {sql.parameter('decided_at')} "
        f"AND {oldest}{equal} ORDER BY {order}{limit}"
    )
    bound: dict[str, object] = {
        "first_day": predicted.partition_on + timedelta(days=pruning.first_offset(view.max_age)),
        "last_day": predicted.partition_on + timedelta(days=pruning.last_offset()),
        "decided_at": predicted.decided_at,
        "since": predicted.decided_at - view.max_age,
        **entity,
    }
    return warehouse.query(query, cast("Mapping[str, Parameter]", bound)).to_pylist()
