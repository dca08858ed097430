"""The few expressions in which the SQL of DuckDB and of BigQuery differ."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import time, timedelta

from ml_assets.core.names import identifier, table_name
from ml_assets.core.ports import Dialect

_MICROSECOND = timedelta(microseconds=1)


def microseconds(duration: timedelta) -> int:
    """Return a duration in whole microseconds.

    >>> microseconds(timedelta(hours=2))
    7200000000
    """
    return duration // _MICROSECOND


@dataclass(frozen=True, kw_only=True)
class Sql:
    """Writes expressions in one dialect. Every name is validated and quoted, so a reserved word is a legal name.

    Names beginning with ``_`` are the join's own: no validated name begins so, hence they never collide.
    """

    dialect: Dialect

    @property
    def is_duckdb(self) -> bool:
        """Tell DuckDB from BigQuery."""
        return self.dialect == "duckdb"

    def name(self, column: str) -> str:
        """Return a validated, quoted column name; raise InvalidName."""
        return f'"{identifier(column)}"' if self.is_duckdb else f"`{identifier(column)}`"

    def names(self, columns: Iterable[str], *, of: str = "") -> str:
        """Return validated, quoted column names with commas between, each of one relation if ``of`` names it."""
        return ", ".join(f"{of}.{self.name(column)}" if of else self.name(column) for column in columns)

    def table(self, table: str) -> str:
        """Return a validated, quoted ``schema.table``; raise InvalidName."""
        return ".".join(self.name(part) for part in table_name(table).split("."))

    def cte(self, name: str, select: str, *, is_shared: bool = False) -> str:
        """Return one entry of a WITH list; DuckDB is told to compute and keep one that is read more than once."""
        return f"{name} AS {'MATERIALIZED ' if is_shared and self.is_duckdb else ''}(\n{select}\n)"

    def micros(self, timestamp: str) -> str:
        """Return a timestamp as microseconds since 1970: integers compare exactly and skip time-zone arithmetic."""
        return f"{'epoch_us' if self.is_duckdb else 'UNIX_MICROS'}({timestamp})"

    def earlier(self, timestamp: str, duration: timedelta) -> str:
        """Return a timestamp moved back by a duration."""
        if self.is_duckdb:
            return f"{timestamp} - INTERVAL {microseconds(duration)} MICROSECOND"
        return f"TIMESTAMP_SUB({timestamp}, INTERVAL {microseconds(duration)} MICROSECOND)"

    def local_moment(self, day: str, *, at: time, days_before: int, zone: str) -> str:
        """Return the moment at which the clock of a zone shows a time, whole days before a DATE column.

        ``zone`` is trusted, a constant.
        """
        column, clock = self.name(day), at.isoformat()
        if self.is_duckdb:
            return f"timezone('{zone}', ({column} - {days_before}) + CAST('{clock}' AS TIME))"
        return f"TIMESTAMP(DATETIME(DATE_SUB({column}, INTERVAL {days_before} DAY), TIME '{clock}'), '{zone}')"

    def parameter(self, name: str) -> str:
        """Return the mark that stands for a bound value in a query."""
        return f"{'$' if self.is_duckdb else '@'}{identifier(name)}"

    def of_days(self, *, of: str = "") -> str:
        """Return the condition that a row is of the local days ``first_day`` to ``last_day``, its DATE parameters."""
        column = f"{of}.partition_on" if of else "partition_on"
        return f"{column} BETWEEN {self.parameter('first_day')} AND {self.parameter('last_day')}"

    def day(self, parameter: str, *, plus: int = 0) -> str:
        """Return a DATE parameter moved by whole days."""
        if self.is_duckdb:
            return f"CAST({self.parameter(parameter)} AS DATE) + {plus}"
        return f"DATE_ADD({self.parameter(parameter)}, INTERVAL {plus} DAY)"

    def exact(self, value: str) -> str:
        """Return a number as a decimal with nine places: sums of it are exact in any order."""
        return f"CAST({value} AS {'DECIMAL' if self.is_duckdb else 'NUMERIC'}(38, 9))"

    def double(self, value: str) -> str:
        """Return a number as a double."""
        return f"CAST({value} AS {'DOUBLE' if self.is_duckdb else 'FLOAT64'})"

    def text(self, value: str) -> str:
        """Return a value as text; a truth value is true or false."""
        return f"CAST({value} AS {'VARCHAR' if self.is_duckdb else 'STRING'})"

    def counts(self, value: str) -> str:
        """Return the condition under which ``count`` counts a value: not null, and not false if it is a boolean."""
        if self.is_duckdb:
            return f"{value} IS NOT NULL AND NOT (typeof({value}) = 'BOOLEAN' AND CAST({value} AS VARCHAR) = 'false')"
        return f"TO_JSON_STRING({value}) NOT IN ('null', 'false')"

    def same(self, left: str, right: str, columns: Iterable[str]) -> str:
        """Return the condition that two relations agree in these columns."""
        return " AND ".join(f"{left}.{self.name(column)} = {right}.{self.name(column)}" for column in columns)

    def present(self, columns: Iterable[str]) -> str:
        """Return the condition that none of these columns is null."""
        return " AND ".join(f"{self.name(column)} IS NOT NULL" for column in columns)
