"""The ports of the library: what it needs from a warehouse, an artifact store, a source and a tracker."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

from ml_assets.core.contracts import Contract
from ml_assets.core.day_files import ListedFile
from ml_assets.core.days import DayRange

Dialect = Literal["duckdb", "bigquery"]
Parameter = str | int | float | bool | date | datetime | None
JobType = Literal["training", "tuning", "promotion"]
# A table at once, or a stream of its batches for one that is larger than memory. A reader can be read once.
Rows: TypeAlias = pa.Table | pa.RecordBatchReader


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

    def replace_days(self, writes: Mapping[str, Rows], days: DayRange, *, use_case: str | None = None) -> None:
        """Replace the days in every named table with these rows, all in one transaction.

        The batches of a reader are written as they come, never all held in memory; where one cannot be had, its error
        is raised and nothing is changed.

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
    """A file of an artifact store; ``size`` in bytes, ``modified_at`` (UTC) by the clock of the store.

    ``tag`` is another one once other content is written (an ETag); empty where the store has none.
    """

    path: str
    size: int
    modified_at: datetime
    tag: str = ""


class ArtifactStore(Protocol):
    """Immutable files under validated paths: training sets, model packages, the ledger, reports."""

    @property
    def n_reads_at_once(self) -> int:
        """For how many small files it is best asked at a time."""
        ...

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


@runtime_checkable
class BatchSource(Source, Protocol):
    """A source that also hands a table over in parts, so that one larger than memory can land."""

    def batches(self, table: str, days: DayRange | None = None) -> Iterator[pa.Table]:
        """Yield the rows that ``read`` returns, in the same order, as tables of a size that fits in memory."""
        ...


@runtime_checkable
class VersionedSource(Source, Protocol):
    """A source that can tell whether a day has changed without reading it."""

    def versions(self, table: str, days: DayRange | None = None) -> Mapping[date | None, str]:
        """Return which state each day with data is in now; of an unpartitioned table under None.

        Asked before ``read``, it is never newer than what is read: a day that changes between the two differs later.
        """
        ...


class FileStore(Protocol):
    """A folder in S3, GCS, HDFS or on a disk, in which others leave files; it is read and never written.

    Every operation raises SourceMissing, SourceDenied or, where trying again may help, SourceUnavailable.
    """

    def list(self, *, after: str = "", before: str | None = None) -> Iterator[ListedFile]:
        """Yield the files at any depth whose paths lie between these two, both excluded, sorted by path.

        Pages are asked for as they are needed, from ``after`` on: stopping early is cheap.
        """
        ...

    def open(self, file: ListedFile) -> Iterator[bytes]:
        """Yield the content of a file piece by piece, exactly as it was when it was listed.

        Raises FileChanged where it is another one now, at the latest after the last piece.
        """
        ...

    def address(self, path: str = "") -> str:
        """Return the URL of a file, or of the folder itself."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrackedArtifact:
    """A training set or a model as the tracker is told of it: what and where it is, not its data.

    ``digest`` is its fingerprint, or its package's hash: equal ones are one artifact. ``alias`` is what the tracker
    calls it besides its version, until another of its kind and use case is called so.
    """

    kind: Literal["training_set", "model"]
    use_case: str
    version: str
    digest: str
    address: str
    facts: Mapping[str, Parameter]
    alias: str = ""


class TrackedRun(Protocol):
    """One training, search or decision as the experiment tracker sees it."""

    def used(self, artifact: TrackedArtifact) -> None:
        """Say what the run reads."""
        ...

    def made(self, artifact: TrackedArtifact) -> None:
        """Say what the run has made."""
        ...

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
        """Deliver one alert; raise AlertFailed where it could not be, without the secret that opens the receiver."""
        ...
