"""The query that makes a use case's examples: decisions, features as known then, and the label."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from collections.abc import Sequence

from ml_assets.core.days import LOCAL_ZONE_NAME
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.point_in_time.join import KEPT, Pruning, join_query
from ml_assets.core.ports import Dialect
from ml_assets.core.spec import UseCase

NOT_LANDED = "not landed"


def examples_query(use_case: UseCase, views: Sequence[FeatureView], *, dialect: Dialect) -> str:
    """Return the SELECT of ``examples.<use_case>`` for the decisions whose event falls on first_day..last_day.

    Its parameters are the DATEs first_day and last_day. Columns: decision_id, partition_on, decided_at, the features
    in the order of the views, label, label_known_at, no_label_reason (null where there is a label, ``not landed``
    where the label table does not have the decision yet). ``Pruning`` says which days of the views are read. The query
    fails where a decision, or the label of one, is there twice.
    """
    sql = Sql(dialect=dialect)
    label, taken = use_case.label, decisions_query(use_case, views, dialect=dialect)
    days = f"partition_on BETWEEN {sql.day('first_day')} AND {sql.day('last_day')}"
    joined = join_query(taken, views, dialect=dialect, pruning=Pruning(lead_time=use_case.decisions.longest_lead))
    features = "".join(f", _e.{sql.name(feature.name)}" for view in views for feature in view.features)
    return f"""SELECT {sql.names(KEPT, of="_e")}{features}, _l.label, _l.label_known_at,
  CASE WHEN _l._n IS NULL THEN '{NOT_LANDED}' ELSE _l.no_label_reason END AS no_label_reason
FROM (
{joined}
) _e
LEFT JOIN (
  SELECT decision_id, MAX(label) AS label, MAX(label_known_at) AS label_known_at,
    MAX(no_label_reason) AS no_label_reason,
    CASE WHEN COUNT(*) > 1 THEN {_twice(label.table)} ELSE 1 END AS _n
  FROM {sql.table(label.table)} WHERE {days} GROUP BY decision_id
) _l ON _e.decision_id = _l.decision_id"""


def decisions_query(use_case: UseCase, views: Sequence[FeatureView], *, dialect: Dialect, among: str = "") -> str:
    """Return the SELECT of the decisions whose event falls on first_day..last_day, and the entities of these views.

    ``among`` is a SELECT of one column; with it only the decisions whose decision_id is in it are asked for.
    """
    sql, decisions = Sql(dialect=dialect), use_case.decisions
    entity = dict.fromkeys(column for view in views for column in view.entity if column not in KEPT)
    if decisions.lead_time is not None:
        decided_at = sql.earlier(sql.name(decisions.event_at), decisions.lead_time)
    else:
        at, days_before = decisions.local
        decided_at = sql.local_moment("partition_on", at=at, days_before=days_before, zone=LOCAL_ZONE_NAME)
    columns = "".join(f", {sql.name(column)}" for column in entity)
    once = f"CASE WHEN COUNT(*) OVER (PARTITION BY decision_id) > 1 THEN {_twice(decisions.table)} ELSE decision_id END"
    wanted = f" AND decision_id IN ({among})" if among else ""
    return f"""SELECT {once} AS decision_id, partition_on, {decided_at} AS decided_at{columns}
FROM {sql.table(decisions.table)}
WHERE partition_on BETWEEN {sql.day("first_day")} AND {sql.day("last_day")}{wanted}"""


def _twice(table: str) -> str:
    """Return the expression that ends the query with an error."""
    return f"ERROR('{table} has a decision_id twice')"
