"""The one place where local and cloud are swapped: which backend fulfils which port in this environment."""

from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.environments import Environment
from ml_assets.backends.log_alerter import LogAlerter
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.backends.wandb_tracker import WandbTracker
from ml_assets.core.feature_views import FeatureView, load_feature_views
from ml_assets.core.ports import ArtifactStore, Source, Tracker, Warehouse

if TYPE_CHECKING:
    from google.cloud.bigquery import Client
    from google.cloud.bigquery_storage import BigQueryReadClient


def source_of(environment: Environment) -> Source:
    """Return the source of the raw tables: replace it here to point the graph at tables of your own."""
    return NycFlights13Source(is_replaying=environment.is_replaying)


def warehouse_of(environment: Environment) -> Warehouse:
    """Return the tables of this environment: a DuckDB file, or the BigQuery datasets of its project."""
    if environment.warehouse == "duckdb":
        return DuckDBWarehouse(environment.warehouse_path)
    from ml_assets.backends.bigquery_warehouse import BigQueryWarehouse
    from ml_assets.job_costs import add_to_materialization, labels_of_step

    def connect() -> "AbstractContextManager[Client]":
        from dagster_gcp import BigQueryResource

        # Without credentials of its own it finds them as every Google client does: a file, or the machine's identity.
        return BigQueryResource(project=environment.project, location=environment.location).get_client()

    def connect_storage() -> "BigQueryReadClient":
        from google.cloud.bigquery_storage import BigQueryReadClient

        return BigQueryReadClient()

    # The server that stands in for BigQuery knows REST alone.
    has_storage = find_spec("google.cloud.bigquery_storage") and not environment.endpoints.bigquery
    return BigQueryWarehouse(
        connect,
        location=environment.location,
        labels=lambda: labels_of_step(environment.name),
        on_job=add_to_materialization,
        connect_storage=connect_storage if has_storage else None,
    )


def store_of(environment: Environment) -> ArtifactStore:
    """Return the artifacts of this environment: a folder, or a bucket of S3 or GCS."""
    endpoints = {"s3": environment.endpoints.s3, "gs": environment.endpoints.gcs}
    return ObjectArtifactStore(environment.artifacts_url, endpoint=endpoints.get(environment.objects))


def tracker_of(environment: Environment) -> Tracker:
    """Return the experiment tracker of this environment; W&B reads its key itself."""
    return WandbTracker(environment.wandb_folder, mode=environment.tracker_mode, project=environment.tracker_project)


def dbt_of(environment: Environment) -> DbtInProcess:
    """Return the dbt project, pointed at this environment's warehouse."""
    if environment.warehouse == "duckdb":
        target, variables = "local", {"warehouse_path": str(environment.warehouse_path)}
    else:
        target, variables = "bigquery", {"project": environment.project, "location": environment.location}
    return DbtInProcess(
        environment.dbt_project_folder, target=target, variables=variables, target_folder=environment.dbt_folder
    )


def feature_views_of(environment: Environment) -> dict[str, FeatureView]:
    """Return every declared feature view: of the dbt models, and of the features that Python computes."""
    models = environment.dbt_project_folder / "models" / "features"
    return load_feature_views(models, Path(__file__).parent / "defs" / "features")


def resources_of(environment: Environment) -> dict[str, object]:
    """Return the resources of the asset graph by role; nothing is opened before an asset uses it."""
    return {
        "source": source_of(environment),
        "warehouse": warehouse_of(environment),
        "store": store_of(environment),
        "studies": OptunaStudies(environment.studies_url),
        "tracker": tracker_of(environment),
        "alerter": LogAlerter(),
    }
