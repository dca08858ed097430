"""Which experiments are shown, in which order: conditions such as ``roc_auc>0.73``, parsed, never evaluated."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from ml_assets.core.errors import BadInput
from ml_assets.core.experiment_rows import Experiment

Value = float | str
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|!=|==|=|>|<)\s*(\S(?:.*\S)?)\s*")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One comparison of a named value of a row with a number or a text.

    >>> Condition.parse("roc_auc > 0.73")
    Condition(name='roc_auc', comparison='>', value=0.73)
    >>> Condition.parse("layer_sizes=64,32").value
    '64,32'
    """

    name: str
    comparison: str
    value: Value

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition a person wrote; raise BadInput where it is none."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise BadInput(f"{text!r} is no condition; expected NAME, one of > >= < <= = !=, and a value: roc_auc>0.73")
        name, comparison, written = found.groups()
        value = _value(written)
        if comparison in _ORDER and isinstance(value, str):
            raise BadInput(f"{text!r} compares with {written!r}, which is no number; texts can only be equal or not")
        return cls(name=name, comparison="=" if comparison == "==" else comparison, value=value)

    def holds(self, row: Experiment) -> bool:
        """Tell whether a row has the value and the comparison is true of it; a row without it never matches."""
        found = values_of(row).get(self.name)
        if found is None:
            return False
        if self.comparison in ("=", "!="):
            return (found == self.value or str(found) == str(self.value)) == (self.comparison == "=")
        return isinstance(found, float) and isinstance(self.value, float) and _ORDER[self.comparison](found, self.value)


def values_of(row: Experiment) -> Mapping[str, Value]:
    """Return what a condition or an order may name: fields, ``n_rows_train`` and so on, hyperparameters, metrics.

    Of two of one name a metric comes before a hyperparameter, and that before a field.
    """
    fields: dict[str, Value | None] = {
        "id": row.id,
        "kind": row.kind,
        "status": row.status,
        "use_case": row.use_case,
        "as_of": row.as_of.isoformat() if row.as_of else None,
        "started_at": row.started_at.isoformat() if row.started_at else None,
        "seconds": row.seconds,
        "trainer": row.trainer,
        "seed": None if row.seed is None else float(row.seed),
        "training_set": row.training_set,
        "code_version": row.code_version,
        "environment_hash": row.environment_hash,
        "version": row.version,
        "parent_version": row.parent_version,
        "recorded_by": row.recorded_by,
        "run_id": row.run_id,
        **{f"n_rows_{part}": float(n) for part, n in row.n_rows.items()},
    }
    known = {name: value for name, value in fields.items() if value not in (None, "")}
    parameters = {name: value if isinstance(value, str) else float(value) for name, value in row.parameters.items()}
    return {**known, **parameters, **row.metrics}


def select(
    rows: Sequence[Experiment],
    *,
    use_case: str | None = None,
    kind: str | None = None,
    status: str | None = None,
    since: date | None = None,
    until: date | None = None,
    conditions: Sequence[Condition] = (),
) -> Sequence[Experiment]:
    """Return the rows that all of this is true of, in their order.

    ``since`` and ``until`` are UTC days of the start, both included; a row without a start is of its as-of date.
    Raises BadInput for a name in a condition that no row has.
    """
    known = {name for row in rows for name in values_of(row)} if conditions else set[str]()
    for condition in conditions if rows else ():
        refuse_unknown(condition.name, known)
    return [
        row
        for row in rows
        if use_case in (None, row.use_case)
        and kind in (None, row.kind)
        and status in (None, row.status)
        and (since is None or _day(row) >= since)
        and (until is None or _day(row) <= until)
        and all(condition.holds(row) for condition in conditions)
    ]


def ordered(rows: Sequence[Experiment], name: str, *, is_ascending: bool = False) -> Sequence[Experiment]:
    """Sort rows by a value, the largest first unless ascending; rows without it come last, texts after numbers.

    Raises BadInput for a name that no row has.
    """
    keyed = [(values_of(row).get(name), row) for row in rows]
    if rows and all(value is None for value, _ in keyed):
        refuse_unknown(name, {key for row in rows for key in values_of(row)})
    numbers = sorted(
        ((v, row) for v, row in keyed if isinstance(v, float)), key=lambda pair: pair[0], reverse=not is_ascending
    )
    texts = sorted(
        ((v, row) for v, row in keyed if isinstance(v, str)), key=lambda pair: pair[0], reverse=not is_ascending
    )
    return [row for _, row in numbers] + [row for _, row in texts] + [row for v, row in keyed if v is None]


def refuse_unknown(name: str, known: set[str]) -> None:
    """Raise BadInput for a name that no row has, with those that some have."""
    if name not in known:
        raise BadInput(f"no experiment has a {name!r}; there are {', '.join(sorted(known))}")


def found(rows: Sequence[Experiment], wanted: str) -> Experiment:
    """Return the row a person means: by its id, the beginning of one, or a model version (its newest training).

    Raises BadInput where there is none, or several ids begin so.
    """
    exact = [row for row in rows if row.id == wanted]
    trained = [row for row in rows if row.version == wanted and row.kind == "training"]
    with_model = [row for row in trained if row.status in ("complete", "reused")]
    begun = [row for row in rows if row.id.startswith(wanted)] if wanted else []
    candidates = exact or with_model[:1] or trained[:1] or begun
    if not candidates:
        raise BadInput(f"no experiment is called {wanted!r}; `ml-assets experiments` lists them with their ids")
    if len(candidates) > 1:
        several = ", ".join(f"{row.id} ({row.kind} of {row.use_case})" for row in candidates[:5])
        raise BadInput(f"{len(candidates)} experiments are called {wanted!r}: {several}; give more of the id")
    return candidates[0]


def _day(row: Experiment) -> date:
    at: datetime | None = row.started_at
    return at.date() if at else row.as_of or date.min


def _value(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text
