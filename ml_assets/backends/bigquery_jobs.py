"""BigQuery jobs: run once however often a request is lost, tried again where that helps, refused in clear words."""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, cast

from ml_assets.backends.bigquery_errors import USD_PER_TIB, helps_to_retry
from ml_assets.core.ports import Parameter

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client, LoadJob, LoadJobConfig, QueryJob

# Judgement: no single request takes so long, for BigQuery answers within ten seconds that a job is still running.
ANSWER_WITHIN = timedelta(seconds=60)
# Judgement: however short the deadline, a server that is well answers so soon.
_ANSWER_AT_LEAST_WITHIN = timedelta(seconds=1)
_LONGEST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class JobUsage:
    """What one job came to. A script counts its statements as jobs of their own; loading rows bills nothing."""

    job_id: str
    n_jobs: int
    bytes_billed: int
    slot_seconds: float

    @property
    def usd(self) -> float:
        """What the bytes billed cost on demand, in US dollars.

        >>> JobUsage(job_id="x", n_jobs=1, bytes_billed=2**40, slot_seconds=9.0).usd
        6.25
        """
        return self.bytes_billed / 2**40 * USD_PER_TIB

    def __add__(self, other: "JobUsage") -> "JobUsage":
        """Return the sum of both, under the newer id."""
        return JobUsage(
            job_id=other.job_id,
            n_jobs=self.n_jobs + other.n_jobs,
            bytes_billed=self.bytes_billed + other.bytes_billed,
            slot_seconds=self.slot_seconds + other.slot_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Runs jobs in one location.

    A job has an id before it is sent. Where an answer is lost, the same id is sent again: BigQuery then names the job
    that is already there, which is waited for instead. Only a job known to have failed is run anew, under a new id. All
    of this ends after ``deadline``, and a request that was under way then after ``seconds_to_answer``; BigQuery itself
    stops a job that runs longer.

    Args:
        location: of the datasets, such as ``US``.
        maximum_bytes_billed: of one query; above it BigQuery refuses the query before it reads anything.
        deadline: for one job with all that is tried again.
        first_pause: how long to wait at most before the second attempt; it doubles, up to ten seconds.
        labels: asked for each job; what they say is found on the bill and in INFORMATION_SCHEMA.JOBS.
        on_job: told of each job that ended.
        answer_within: how long one request waits before it counts as lost.
    """

    location: str
    maximum_bytes_billed: int
    deadline: timedelta
    first_pause: timedelta
    labels: Callable[[], Mapping[str, str]]
    on_job: Callable[[JobUsage], None]
    answer_within: timedelta = ANSWER_WITHIN

    @property
    def seconds_to_answer(self) -> float:
        """How long one request waits, at most as long as the deadline: no retry can interrupt one.

        For a page of rows, Google's client waits two minutes whatever less it is told.
        """
        return min(self.answer_within, max(self.deadline, _ANSWER_AT_LEAST_WITHIN)).total_seconds()

    @property
    def retry(self) -> "Retry":
        """How a request that changes nothing when it is sent twice is tried again."""
        from google.api_core.retry import Retry

        return Retry(
            predicate=helps_to_retry,
            initial=self.first_pause.total_seconds(),
            maximum=_LONGEST_PAUSE_SECONDS,
            multiplier=2.0,
            timeout=self.deadline.total_seconds(),
        )

    def query(self, client: "Client", sql: str, parameters: Mapping[str, Parameter] | None = None) -> "QueryJob":
        """Run a query or a script to its end."""
        from google.cloud.bigquery import QueryJobConfig

        config = QueryJobConfig(
            query_parameters=[_parameter(name, value) for name, value in (parameters or {}).items()],
            maximum_bytes_billed=self.maximum_bytes_billed,
            labels=self._labels(),
            job_timeout_ms=self._milliseconds,
        )

        def begin(job_id: str) -> "QueryJob":
            return client.query(
                sql,
                job_config=config,
                job_id=job_id,
                location=self.location,
                retry=None,  # type: ignore[reportArgumentType] # what the client documents as no retry
                job_retry=None,
                timeout=self.seconds_to_answer,
            )

        return cast("QueryJob", self._run(client, begin))

    def load(self, client: "Client", table: str, content: bytes, config: "LoadJobConfig") -> "LoadJob":
        """Load a file into a table."""
        config.labels = self._labels()
        config.job_timeout_ms = self._milliseconds

        def begin(job_id: str) -> "LoadJob":
            return client.load_table_from_file(
                BytesIO(content),
                table,
                size=len(content),
                num_retries=0,
                job_id=job_id,
                location=self.location,
                job_config=config,
                timeout=self.seconds_to_answer,
            )

        return cast("LoadJob", self._run(client, begin))

    @property
    def _milliseconds(self) -> int:
        return round(self.deadline.total_seconds() * 1000)

    def _labels(self) -> dict[str, str]:
        """Return the labels as BigQuery admits them: lower case, 63 characters of a-z, 0-9, ``_`` and ``-``."""
        return {key: re.sub(r"[^a-z0-9_-]", "_", value.lower())[:63] for key, value in self.labels().items()}

    def _run(self, client: "Client", begin: "Callable[[str], QueryJob | LoadJob]") -> "QueryJob | LoadJob":
        attempt = _Attempt(client=client, location=self.location, begin=begin, seconds_to_answer=self.seconds_to_answer)

        def once() -> "QueryJob | LoadJob":
            job = attempt.job()
            try:
                _wait(job, self.seconds_to_answer)
            except Exception:
                # What is not known to have failed may have run, or be running: its id is asked for again.
                if job.state == "DONE" and job.error_result:
                    attempt.forget()
                    self.on_job(_usage(job))
                raise
            self.on_job(_usage(job))
            return job

        return self.retry(once)()


@dataclass(kw_only=True)
class _Attempt:
    """A job under an id that is known before it is sent, begun once."""

    client: "Client"
    location: str
    begin: "Callable[[str], QueryJob | LoadJob]"
    seconds_to_answer: float
    _id: str = ""
    _job: "QueryJob | LoadJob | None" = None

    def job(self) -> "QueryJob | LoadJob":
        """Begin the job, or find the one of this id that a request began whose answer was lost."""
        from google.api_core.exceptions import Conflict, NotFound, ServiceUnavailable

        if self._job is None:
            self._id = self._id or f"ml_assets_{uuid.uuid4().hex}"
            try:
                self._job = self.begin(self._id)
            except Conflict:
                try:
                    found = self.client.get_job(
                        self._id,
                        location=self.location,
                        retry=None,  # type: ignore[reportArgumentType] # what the client documents as no retry
                        timeout=self.seconds_to_answer,
                    )
                except NotFound as error:
                    raise ServiceUnavailable(f"the job {self._id} is there and cannot be seen yet") from error
                self._job = cast("QueryJob | LoadJob", found)
        return self._job

    def forget(self) -> None:
        """Begin a new job the next time."""
        self._id, self._job = "", None


def _wait(job: "QueryJob | LoadJob", seconds: float) -> None:
    """Wait until a job has ended, at most for as long as one request may take; raise what it failed with."""
    from google.cloud.bigquery import QueryJob

    if isinstance(job, QueryJob):
        job.result(retry=None, job_retry=None, timeout=seconds)
    else:
        job.result(retry=None, timeout=seconds)


def _usage(job: "QueryJob | LoadJob") -> JobUsage:
    billed = getattr(job, "total_bytes_billed", None) or 0
    slot_milliseconds = getattr(job, "slot_millis", None) or 0
    return JobUsage(
        job_id=str(job.job_id),
        n_jobs=1 + (job.num_child_jobs or 0),
        bytes_billed=int(billed),
        slot_seconds=slot_milliseconds / 1000,
    )


_SQL_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "BOOL"),
    (int, "INT64"),
    (float, "FLOAT64"),
    (str, "STRING"),
    (datetime, "TIMESTAMP"),
    (date, "DATE"),
)


def _parameter(name: str, value: Parameter) -> object:
    """Return a named parameter. BigQuery wants the type of a null: it is a STRING, which fits text and times."""
    from google.cloud.bigquery import ScalarQueryParameter

    kind = next((sql for python, sql in _SQL_TYPES if isinstance(value, python)), "STRING")
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return ScalarQueryParameter(name, kind, value)
