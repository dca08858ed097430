"""The one place where local and cloud are swapped: which backend fulfils which port in this environment."""

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.environments import Environment
from ml_assets.backends.log_alerter import LogAlerter
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.backends.wandb_tracker import WandbTracker
from ml_assets.core.ports import Source


def source_of(environment: Environment) -> Source:
    """Return the source of the raw tables: replace it here to point the graph at tables of your own."""
    return NycFlights13Source(is_replaying=environment.is_replaying)


def resources_of(environment: Environment) -> dict[str, object]:
    """Return the resources of the asset graph by role; nothing is opened before an asset uses it."""
    return {
        "source": source_of(environment),
        "warehouse": DuckDBWarehouse(environment.warehouse_path),
        "store": ObjectArtifactStore(environment.artifacts_url),
        "tracker": WandbTracker(environment.wandb_folder, mode=environment.tracker_mode),
        "alerter": LogAlerter(),
    }
