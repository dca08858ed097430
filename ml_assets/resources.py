"""The one place where local and cloud are swapped: which backend fulfils which port in this environment."""

from pathlib import Path

from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.environments import Environment
from ml_assets.backends.log_alerter import LogAlerter
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.backends.wandb_tracker import WandbTracker
from ml_assets.core.feature_views import FeatureView, load_feature_views
from ml_assets.core.ports import Source


def source_of(environment: Environment) -> Source:
    """Return the source of the raw tables: replace it here to point the graph at tables of your own."""
    return NycFlights13Source(is_replaying=environment.is_replaying)


def dbt_of(environment: Environment) -> DbtInProcess:
    """Return the dbt project, pointed at this environment's warehouse."""
    return DbtInProcess(
        environment.dbt_project_folder, target="local", variables={"warehouse_path": str(environment.warehouse_path)}
    )


def feature_views_of(environment: Environment) -> dict[str, FeatureView]:
    """Return every declared feature view: of the dbt models, and of the features that Python computes."""
    models = environment.dbt_project_folder / "models" / "features"
    return load_feature_views(models, Path(__file__).parent / "defs" / "features")


def resources_of(environment: Environment) -> dict[str, object]:
    """Return the resources of the asset graph by role; nothing is opened before an asset uses it."""
    return {
        "source": source_of(environment),
        "warehouse": DuckDBWarehouse(environment.warehouse_path),
        "store": ObjectArtifactStore(environment.artifacts_url),
        "studies": OptunaStudies(environment.studies_url),
        "tracker": WandbTracker(environment.wandb_folder, mode=environment.tracker_mode),
        "alerter": LogAlerter(),
    }
