"""The Dagster instance outside a laptop: PostgreSQL by connections that are kept, compute logs in a bucket.

Dagster opens a connection for every statement: some four hundred for a run of twenty steps, most of what the run costs.
In Dagster's own storage a run also fails where another one uses a pool for the first time at the same moment.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.event_log.schema import ConcurrencyLimitsTable
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy.dialects import postgresql

from ml_assets.backends.environments import Environment
from ml_assets.core.errors import BadInput

# Judgement: within a step's burst of events; long before a proxy, or a server that failed over, has dropped it.
_SECONDS_A_CONNECTION_IS_KEPT = 30
_STATEMENT_MILLISECONDS = 60_000
_WITHOUT_LIMIT = -1
# Judgement: whoever watches a long step sees its last words within this many seconds.
_UPLOAD_SECONDS = 30


class CloudInstance(dg.DagsterInstance):
    """What ``instance_class`` in deploy/cloud/dagster.yaml names. Without it the same tables are read, at more cost."""

    def __init__(self, *, event_storage: PostgresEventLogStorage, **settings: object) -> None:
        super().__init__(event_storage=_events_of(event_storage), **settings)
        # What Dagster does for its webserver serves a run as well.
        self.optimize_for_webserver(
            statement_timeout=_STATEMENT_MILLISECONDS,
            pool_recycle=_SECONDS_A_CONNECTION_IS_KEPT,
            max_overflow=_WITHOUT_LIMIT,
        )

    @staticmethod
    def config_schema() -> Mapping[str, object]:
        """Return the settings it has beside Dagster's: none."""
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        """Return Dagster's defaults."""
        return InstanceRef.config_defaults(base_dir)


class _Events(PostgresEventLogStorage):
    """Dagster's events and pools on PostgreSQL, except that a pool is made, or its limit changed, by one statement.

    Dagster inserts the pool and, where it is there already, goes on in a transaction that PostgreSQL has given up: the
    run fails. See https://github.com/dagster-io/dagster/issues/33552.
    """

    def initialize_concurrency_limit_to_default(self, concurrency_key: str) -> bool:
        """Give a pool the limit of dagster.yaml; without one, or in an older Dagster's database, as Dagster does."""
        limit = self._instance.global_op_concurrency_default_limit
        if limit is None or not self.has_default_pool_limit_col:
            return super().initialize_concurrency_limit_to_default(concurrency_key)
        pool = {"concurrency_key": concurrency_key, "limit": limit, "using_default_limit": True}
        insert = postgresql.insert(ConcurrencyLimitsTable).values(pool)
        with self.index_transaction() as connection:
            # Whoever comes second waits here for the first, and finds its places made.
            connection.execute(insert.on_conflict_do_update(index_elements=["concurrency_key"], set_={"limit": limit}))
            self._allocate_concurrency_slots(connection, concurrency_key, limit)
        return True


def _events_of(storage: PostgresEventLogStorage) -> _Events:
    return _Events(
        storage.postgres_url,
        should_autocreate_tables=False,  # the storage that is handed over has made them
        inst_data=storage.inst_data,
        token_provider=storage._token_provider,
    )


class EnvironmentComputeLogs(ComputeLogManager, ConfigurableClass):
    """What ``compute_logs`` in deploy/cloud/dagster.yaml names: it becomes Dagster's own manager for S3 or GCS.

    The bucket is derived from the environment's name like every other address, so that one dagster.yaml serves all.
    """

    @classmethod
    def config_type(cls) -> Mapping[str, dg.Field]:
        """Return the settings it has: none."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, object]
    ) -> ComputeLogManager:
        """Return the manager of this environment's log bucket; raise BadInput where GCS has no such bucket."""
        return compute_logs_of(Environment.current(), inst_data)


def compute_logs_of(environment: Environment, inst_data: ConfigurableClassData | None = None) -> ComputeLogManager:
    """Return the manager of an environment's log bucket; raise BadInput where GCS has no such bucket."""
    parts = urlsplit(environment.logs_url)
    settings = {"bucket": parts.netloc, "prefix": "compute_logs", "upload_interval": _UPLOAD_SECONDS}
    if parts.scheme == "s3":
        from dagster_aws.s3 import S3ComputeLogManager

        return S3ComputeLogManager(inst_data=inst_data, **settings)
    if parts.scheme != "gs":
        raise BadInput(
            "deploy/cloud/dagster.yaml is for staging and production, whose steps print to a bucket; "
            f"{environment.name} needs deploy/local/dagster.yaml"
        )
    from dagster_gcp.gcs import GCSComputeLogManager
    from dagster_shared.check import CheckError

    try:
        return GCSComputeLogManager(inst_data=inst_data, **settings)
    except CheckError as error:  # it asks for the bucket, and fails without a word where there is none
        raise BadInput(
            f"there is no bucket gs://{parts.netloc} for what steps print; "
            f"create it: gcloud storage buckets create gs://{parts.netloc}"
        ) from error
