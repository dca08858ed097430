"""The statements a warehouse in BigQuery sends of itself: partition writes, loaded rows, new columns."""

# Names are quoted, days are dates: nothing else gets into these statements.
# ruff: noqa: S608

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from ml_assets.core.contracts import PARTITION
from ml_assets.core.days import DayRange
from ml_assets.core.errors import WarehouseError

# BigQuery's limit of partitions that one job may change; a day is one.
MOST_DAYS = 4_000
# A killed write leaves the rows it loaded aside; BigQuery drops them after this long.
LOADED_ROWS_EXPIRE_AFTER = timedelta(days=1)


def quoted(name: str) -> str:
    """Return a name as GoogleSQL quotes it.

    >>> quoted("wind_speed_mph")
    '`wind_speed_mph`'
    """
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quoted_table(table: str) -> str:
    """Return ``schema.table`` with both halves quoted."""
    return ".".join(quoted(part) for part in table.split("."))


def _is_of(days: DayRange) -> str:
    """Return the condition that a row is of these days: constants, by which BigQuery chooses the partitions it reads.

    >>> from datetime import date
    >>> _is_of(DayRange(first=date(2013, 7, 1), last=date(2013, 7, 2)))
    "partition_on BETWEEN DATE '2013-07-01' AND DATE '2013-07-02'"
    """
    return f"{PARTITION} BETWEEN DATE '{days.first.isoformat()}' AND DATE '{days.last.isoformat()}'"


def refuse_too_many_days(tables: Iterable[str], days: DayRange) -> None:
    """Raise WarehouseError for more days than BigQuery lets one job change."""
    n_days = (days.last - days.first).days + 1
    if n_days > MOST_DAYS:
        raise WarehouseError(
            f"{', '.join(tables)}: {days} is {n_days:,} days, and BigQuery changes {MOST_DAYS:,} partitions in one job "
            "at most, one for each day; nothing was loaded or changed: write shorter ranges of days"
        )


def transaction(statements: Sequence[str]) -> str:
    """Return a script that does all of this or, whatever ends it, nothing."""
    return ";\n".join(["BEGIN TRANSACTION", *statements, "COMMIT TRANSACTION"]) + ";"


def delete(table: str, days: DayRange, use_case: str | None = None) -> str:
    """Return the statement that empties days, or one use case's part of them (its parameter is ``use_case``)."""
    of_use_case = " AND use_case = @use_case" if use_case is not None else ""
    return f"DELETE FROM {quoted_table(table)} WHERE {_is_of(days)}{of_use_case}"


def insert(table: str, place: str, columns: Mapping[str, str]) -> str:
    """Return the statement that copies all rows of one table into another, column by name."""
    names = ", ".join(map(quoted, columns))
    return f"INSERT INTO {quoted_table(table)} ({names})\nSELECT {names} FROM {quoted_table(place)}"


def create_as(place: str, sql: str) -> str:
    """Return the statement that keeps the rows of a SELECT in a table which expires; its last line may be a comment."""
    hours = LOADED_ROWS_EXPIRE_AFTER // timedelta(hours=1)
    expires = f"TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {hours} HOUR)"
    return f"CREATE TABLE {quoted_table(place)} OPTIONS (expiration_timestamp = {expires}) AS\n{sql}\n"


def count_inside(place: str, days: DayRange) -> str:
    """Return the query of how many rows a table has, and how many of them are of these days."""
    return f"SELECT COUNT(*) AS n_rows, COUNTIF({_is_of(days)}) AS n_inside FROM {quoted_table(place)}"


def add_columns(table: str, columns: Mapping[str, str]) -> str:
    """Return the statement that adds columns, null in every row; it changes nothing where they are there."""
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {quoted(name)} {kind}" for name, kind in columns.items())
    return f"ALTER TABLE {quoted_table(table)} {added}"
