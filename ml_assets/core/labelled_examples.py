"""The examples a training may see: the query, their canonical form, what is refused, and the sample by hash."""

import hashlib
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import cast

import numpy as np
import pyarrow as pa

from ml_assets.core.errors import BadInput
from ml_assets.core.feature_views import Feature
from ml_assets.core.fingerprints import canonical_type
from ml_assets.core.names import identifier
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Dialect, Parameter
from ml_assets.core.spec import UseCase


def examples_sql(use_case: UseCase, inputs: Sequence[Feature], dialect: Dialect) -> str:
    """Return the SELECT of the examples a training may see: those whose label was known before the as-of date.

    Its parameters are those of ``examples_parameters``.
    """
    mark = Sql(dialect=dialect).parameter
    names = [
        "decision_id",
        "partition_on",
        "decided_at",
        *(identifier(f.name) for f in inputs),
        "label",
        "label_known_at",
    ]
    return (
        f"SELECT {', '.join(names)}\n"
        f"FROM {use_case.examples_table}\n"
        f"WHERE partition_on >= {mark('first_day')} AND partition_on < {mark('until_day')}\n"
        f"  AND label IS NOT NULL AND label_known_at < {mark('as_of_at')}\n"
        f"ORDER BY partition_on, decision_id"
    )


def examples_parameters(use_case: UseCase, as_of: date, as_of_at: datetime) -> dict[str, Parameter]:
    """Return the parameters of ``examples_sql``; ``as_of_at`` is the UTC moment at which the as-of date starts.

    The last days before it are left out: of a flight of the last evening only the landing before midnight is known, so
    that the late ones would be missing.
    """
    rule = use_case.split
    return {
        "first_day": as_of - timedelta(days=rule.days_back),
        "until_day": as_of - timedelta(days=rule.gap_days),
        "as_of_at": as_of_at,
    }


def canonical(examples: pa.Table, inputs: Sequence[Feature]) -> pa.Table:
    """Return the columns of ``examples_sql`` in its order, of canonical types, sorted by day and decision."""
    names = ["decision_id", "partition_on", "decided_at", *(f.name for f in inputs), "label", "label_known_at"]
    absent = [name for name in names if name not in examples.column_names]
    if absent:
        raise BadInput(f"the examples lack the columns {absent}; materialize the examples of these days again")
    table = examples.select(names)
    fields = [pa.field(field.name, canonical_type(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields)).sort_by([("partition_on", "ascending"), ("decision_id", "ascending")])


def of_days(table: pa.Table, days: tuple[date, ...]) -> pa.Table:
    """Return the rows of these days; the table is sorted by day."""
    return table.filter(pa.array(np.isin(table["partition_on"].to_numpy(), np.array(days, dtype="datetime64[D]"))))


def refuse_bad_examples(table: pa.Table, as_of: date) -> None:
    """Raise BadInput for an example of the as-of date or later, without a label, or of a decision that has two."""
    if table.num_rows == 0:
        return
    newest = cast("date", table["partition_on"][table.num_rows - 1].as_py())
    if newest >= as_of:
        raise BadInput(f"the examples reach {newest}; a training as of {as_of} may see earlier days only")
    n_unlabelled = table["label"].null_count
    if n_unlabelled:
        raise BadInput(f"{n_unlabelled} of {table.num_rows} examples have no label; read them with examples_sql")
    n_twice = table.num_rows - len(table["decision_id"].unique())
    if n_twice:
        raise BadInput(f"{n_twice} decisions occur more than once in the examples; materialize their days again")


def is_sampled(decision_ids: pa.ChunkedArray, fraction: float) -> pa.Array:
    """Tell which decisions are in a sample: the same ones on any machine, and all of a smaller sample's in a larger."""
    threshold = int(fraction * 2**64)
    hashes = (
        hashlib.blake2b(decision_id.encode(), digest_size=8).digest()
        for decision_id in cast("list[str]", decision_ids.to_pylist())
    )
    values = np.frombuffer(b"".join(hashes), dtype="<u8")
    return pa.array(values < np.uint64(min(threshold, 2**64 - 1)))
