"""The point-in-time join, as SQL: each decision with its features as they were known at ``decided_at``.

- Rows out are the decisions in. No row of a view that became known after ``decided_at`` changes anything.
- A *latest* view gives the newest row of the entity with ``decided_at - max_age <= known_at <= decided_at``, both ends
  included. Of several rows known at the same moment the one with the greatest feature values counts, compared in
  the declared order of the features, null below every value. A null in the chosen row stays null. No row: all null.
- A *window* view counts exactly the events known in ``(decided_at - window, decided_at]``; ``Aggregate`` says what
  null means. Values are taken as decimals with nine places (rounded half away from zero), summed exactly, and given
  back as doubles; a value of 10**29 or more, NaN or infinity is an error of the warehouse, not a wrong sum.
- A null in an entity column matches nothing. NaN is no value of a feature table: the engines order it differently.
"""

from ml_assets.core.point_in_time.examples import decisions_query, examples_query
from ml_assets.core.point_in_time.join import Pruning, join_query, parts

__all__ = ["Pruning", "decisions_query", "examples_query", "join_query", "parts"]
