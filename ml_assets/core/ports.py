"""The ports of the library: what it needs from a warehouse, an artifact store, a source and a tracker."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, Protocol

import pyarrow as pa

from ml_assets.core.contracts import Contract
from ml_assets.core.days import DayRange

Dialect = Literal["duckdb", "bigquery"]
Parameter = str | int | float | bool | date | datetime | None
JobType = Literal["training", "tuning", "promotion"]


class Warehouse(Protocol):
    """SQL tables: Arrow in, Arrow out. Partitioned tables carry the local day in a DATE column ``partition_on``."""

    @property
    def dialect(self) -> Dialect:
        """Which SQL the queries must be written in."""
        ...

    def session(self) -> AbstractContextManager[None]:
        """Let the operations of this thread share what opening a connection costs, until the context ends."""
        ...

    def query(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> pa.Table:
        """Return the rows of a SELECT. Parameters are named: ``$name`` on DuckDB, ``@name`` on BigQuery."""
        ...

    def columns(self, table: str) -> Mapping[str, str] | None:
        """Return column name -> SQL type of a table, or None where there is no such table."""
        ...

    def replace_days(self, writes: Mapping[str, pa.Table], days: DayRange, *, use_case: str | None = None) -> None:
        """Replace the days in every named table with these rows, all in one transaction.

        Where several use cases share the tables, only the rows whose ``use_case`` column says this one are replaced,
        and a column that such a table does not have yet is added to it, null in the rows it has.

        Creates a missing schema or table from the rows' Arrow schema. A day without rows ends up empty.
        Raises SchemaChanged where the columns differ from the table's, ValueError for a row outside the days.
        """
        ...

    def replace_days_with_query(
        self, table: str, sql: str, days: DayRange, parameters: Mapping[str, Parameter] | None = None
    ) -> int:
        """Replace the days of one table with the rows of a SELECT inside the warehouse; return how many."""
        ...

    def replace_table(self, writes: Mapping[str, pa.Table]) -> None:
        """Replace whole unpartitioned tables, columns included, with these rows: each of them whole or not at all."""
        ...


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of an artifact store; ``size`` in bytes, ``modified_at`` (UTC) by the clock of the store."""

    path: str
    size: int
    modified_at: datetime


class ArtifactStore(Protocol):
    """Immutable files under validated paths: training sets, model packages, the ledger, reports."""

    def put(self, path: str, content: bytes) -> None:
        """Write a file whole: a reader sees the old content or the new one, never a part."""
        ...

    def create(self, path: str, content: bytes) -> None:
        """Write a file only if there is none of that name; raise AlreadyExists otherwise (compare-and-set)."""
        ...

    def get(self, path: str) -> bytes:
        """Return a file's content; raise ArtifactMissing where there is none."""
        ...

    def size(self, path: str) -> int:
        """Return how many bytes a file has, without reading it; raise ArtifactMissing where there is none."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is a file of that name."""
        ...

    def list(self, prefix: str) -> Sequence[str]:
        """Return the sorted paths of all files below a folder."""
        ...

    def describe(self, prefix: str) -> Sequence[StoredFile]:
        """Return the files below a folder, or of the whole store for an empty prefix, sorted by path."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file for good; one that is not there is no error, so that a second attempt can finish the first."""
        ...

    def address(self, path: str) -> str:
        """Return the URL a person opens the file under."""
        ...


class Source(Protocol):
    """A place raw tables come from. Every table it offers has a contract."""

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contract of each table, by table name (``flights``, not ``raw.flights``)."""
        ...

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return a table's rows of these local days, or all rows of an unpartitioned one."""
        ...

    def note(self, days: DayRange) -> str:
        """Say in one line where the rows of these days come from (for the asset's metadata)."""
        ...


class TrackedRun(Protocol):
    """One training, search or decision as the experiment tracker sees it."""

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record metrics at a step (an epoch, a trial)."""
        ...

    def finish(self, summary: Mapping[str, float]) -> None:
        """Record the final metrics and close the run; without any it is marked as failed."""
        ...


class Tracker(Protocol):
    """The experiment tracker. A tracker that fails never fails a training."""

    def start(
        self,
        *,
        use_case: str,
        run_name: str,
        parameters: Mapping[str, Parameter],
        job_type: JobType = "training",
    ) -> TrackedRun:
        """Open a run."""
        ...


class Alerter(Protocol):
    """Where a person on call is told that something needs them."""

    def send(self, *, title: str, text: str) -> None:
        """Deliver one alert."""
        ...
