"""The Dagster instance of a laptop: Dagster's own, with the event log of this project and pools for whole runs."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from ml_assets.local_event_log import LocalEventLog

_WHOLE_RUN = "whole_run"
_SECONDS_BETWEEN_CLAIMS = 0.5


class LocalInstance(dg.DagsterInstance):
    """What ``instance_class`` in deploy/local/dagster.yaml names. Without it the same files are read."""

    @contextmanager
    def hold_pool(self, pool: str, run_id: str) -> Iterator[None]:
        """Wait for a place in a pool and keep it for every step of a run, until the context ends."""
        log = self.event_log_storage
        log.initialize_concurrency_limit_to_default(pool)
        try:
            while not log.claim_concurrency_slot(pool, run_id, _WHOLE_RUN).is_claimed:
                time.sleep(_SECONDS_BETWEEN_CLAIMS)
            log.held_pools.add((pool, run_id))
            yield
        finally:
            log.held_pools.discard((pool, run_id))
            log.free_concurrency_slot_for_step(run_id, _WHOLE_RUN)

    def _get_event_batch_size(self) -> int:
        # Dagster offers what it plans for a run in one batch; it takes the size from an environment variable.
        return 1000

    @staticmethod
    def config_schema() -> Mapping[str, object]:
        """Return the settings it has beside Dagster's: none."""
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        """Return Dagster's defaults with the storage of this module, in the same folder."""
        storage = ConfigurableClassData(__name__, LocalStorage.__name__, yaml.safe_dump({"base_dir": base_dir}))
        return {**InstanceRef.config_defaults(base_dir), "storage": storage}


class LocalStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with the event log of this module."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = LocalEventLog(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, str]
    ) -> "LocalStorage":
        """Return the storage in the folder ``base_dir``."""
        return cls.from_local(config_value["base_dir"], inst_data)
