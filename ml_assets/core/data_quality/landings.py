"""What each landing leaves beside the rows of a raw table: their state, how many came first, what was refused.

It is written in one transaction with the rows, so that a verdict on the day is known to be of these rows or of others.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from ml_assets.core.contracts import PARTITION
from ml_assets.core.days import DayRange
from ml_assets.core.errors import ContractBroken
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Warehouse

LANDINGS_SCHEMA = pa.schema(
    [
        (PARTITION, pa.date32()),
        ("n_rows", pa.int64()),
        ("n_at_first", pa.int64()),
        ("content", pa.string()),
        ("refused", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Landing:
    """The newest landing of one day.

    Attributes:
        n_rows: how many rows of the day are in the table.
        n_at_first: how many there were when the day first landed; None where no landing is on record.
        content: what tells these rows from any others; empty where none is on record.
        refused: why the newest delivery did not land at all, so that the rows are those of a landing before; or empty.
    """

    n_rows: int = 0
    n_at_first: int | None = None
    content: str = ""
    refused: str = ""

    @property
    def state(self) -> str:
        """What a verdict on the day is bound to.

        >>> Landing().state, Landing(content="24-00f1").state
        ('unrecorded', '24-00f1')
        """
        refusal = f" refused {hashlib.sha256(self.refused.encode()).hexdigest()[:12]}" if self.refused else ""
        return (self.content or "unrecorded") + refusal


NEVER_LANDED = Landing()


def landings_table(table: str) -> str:
    """Return where the landings of a raw table are."""
    return f"raw.{table}_landings"


def read_landings(warehouse: Warehouse, table: str, days: DayRange) -> Mapping[date, Landing]:
    """Return the newest landing of each of these days that has one on record."""
    place = landings_table(table)
    if warehouse.columns(place) is None:
        return {}
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = f"select * from {place} where {of_days}"  # noqa: S608 - validated names
    rows = warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist()
    return {row.pop(PARTITION): Landing(**row) for row in rows}


def landed(n_by_day: Mapping[date, int], contents: Mapping[date, str], before: Mapping[date, Landing]) -> pa.Table:
    """Return the records of days whose rows have landed."""
    landings = {
        day: Landing(n_rows=n, n_at_first=_n_at_first(before.get(day), n), content=contents[day])
        for day, n in n_by_day.items()
    }
    return _table(landings)


def not_landed(broken: ContractBroken, days: DayRange, before: Mapping[date, Landing]) -> pa.Table:
    """Return the records of days of which a delivery was refused: all of them, or the one that is to blame.

    Their rows stay those that were there before.
    """
    landings = {day: before[day] for day in days.dates if day in before}
    for day in [broken.day] if broken.day in days.dates and broken.day else days.dates:
        earlier = before.get(day, NEVER_LANDED)
        landings[day] = Landing(
            n_rows=earlier.n_rows, n_at_first=earlier.n_at_first, content=earlier.content, refused=str(broken)
        )
    return _table(landings)


def _n_at_first(earlier: Landing | None, n_rows: int) -> int:
    return n_rows if earlier is None or earlier.n_at_first is None else earlier.n_at_first


def _table(landings: Mapping[date, Landing]) -> pa.Table:
    rows = [{PARTITION: day, **vars(landing)} for day, landing in sorted(landings.items())]
    return pa.Table.from_pylist(rows, schema=LANDINGS_SCHEMA)
