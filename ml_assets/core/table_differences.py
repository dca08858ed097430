"""What differs between two tables of examples: rows added, removed and changed, by day and column."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class DayDifference:
    """How the examples of one day differ; ``columns`` says for each column that does in how many examples."""

    day: date
    n_added: int
    n_removed: int
    n_changed: int
    columns: Mapping[str, int]


def differences_by_day(before: pa.Table, after: pa.Table) -> tuple[DayDifference, ...]:
    """Return the days on which two tables differ, ascending.

    A row is known by ``partition_on`` and ``decision_id``, unique in each table: one that has moved to another day was
    removed there and added here. Null equals null, NaN equals NaN; a column that only one of the tables has, or of
    another type, differs in every row.
    """
    keys = [_keys(table) for table in (before, after)]
    added = after.filter(pa.array(~np.isin(keys[1], keys[0])))
    removed = before.filter(pa.array(~np.isin(keys[0], keys[1])))
    _, mine, theirs = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    old, new = before.take(pa.array(mine)), after.take(pa.array(theirs))
    changed = {name: _is_changed(old, new, name) for name in sorted({*before.column_names, *after.column_names})}
    any_changed = np.any(list(changed.values()), axis=0)
    days = _days(old)
    found = {*_days(added), *_days(removed), *days[any_changed]}
    return tuple(
        DayDifference(
            day=cast("date", day.astype(object)),
            n_added=int(np.count_nonzero(_days(added) == day)),
            n_removed=int(np.count_nonzero(_days(removed) == day)),
            n_changed=int(np.count_nonzero(any_changed & (days == day))),
            columns={name: n for name, one in changed.items() if (n := int(np.count_nonzero(one & (days == day))))},
        )
        for day in sorted(found)
    )


def _keys(table: pa.Table) -> np.ndarray:
    """Return day and decision of each row as one text, object [n]."""
    parts = [table["partition_on"].cast(pa.string()), table["decision_id"], pa.scalar(" ")]
    return pc.call_function("binary_join_element_wise", parts).to_numpy()


def _days(table: pa.Table) -> np.ndarray:
    return table["partition_on"].to_numpy().astype("datetime64[D]")


def _is_changed(old: pa.Table, new: pa.Table, name: str) -> np.ndarray:
    """Tell of each row, bool [n], whether the two tables differ in a column."""
    if name not in old.column_names or name not in new.column_names or old[name].type != new[name].type:
        return np.ones(old.num_rows, dtype=bool)
    a, b = old[name].combine_chunks(), new[name].combine_chunks()
    is_other = pc.call_function("not_equal", [a, b]).fill_null(False).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(a.type):
        numbers = [column.fill_null(0.0).to_numpy(zero_copy_only=False) for column in (a, b)]
        is_other &= ~(np.isnan(numbers[0]) & np.isnan(numbers[1]))
    return is_other | (a.is_null().to_numpy(zero_copy_only=False) != b.is_null().to_numpy(zero_copy_only=False))
