"""The one place where local and cloud are swapped: which backend fulfils which port in this environment."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import dagster as dg

from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.environments import Environment
from ml_assets.backends.log_alerter import LogAlerter
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.backends.slack_alerter import SlackAlerter
from ml_assets.backends.smtp_alerter import SmtpAlerter
from ml_assets.backends.sources.bigquery_tables import BigQueryTablesSource
from ml_assets.backends.sources.bigtable import BigtableSource
from ml_assets.backends.sources.files import FilesSource
from ml_assets.backends.sources.gcs_files import GcsFileStore
from ml_assets.backends.sources.local_files import LocalFileStore
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.backends.sources.s3_files import S3FileStore
from ml_assets.backends.sources.webhdfs_files import WebHdfsFileStore
from ml_assets.backends.wandb_tracker import WandbTracker
from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN
from ml_assets.core.alerts import Receivers
from ml_assets.core.contracts import PARTITION, Contract
from ml_assets.core.errors import BadInput, DayHeld
from ml_assets.core.feature_views import FeatureView, load_feature_views
from ml_assets.core.ports import Alerter, ArtifactStore, FileStore, Source, Tracker, Warehouse
from ml_assets.core.routed_source import RoutedSource
from ml_assets.core.spec import UseCase

if TYPE_CHECKING:
    from google.cloud.bigquery import Client
    from google.cloud.bigquery_storage import BigQueryReadClient
    from google.cloud.bigtable.data import BigtableDataClient
    from google.cloud.storage import Client as StorageClient
    from requests import Session

    from ml_assets.backends.sources.s3_files import S3Client

# What a failure says in its metadata where nothing but spoilt data stood in the way.
HELD_DAYS = "held_days"


def source_of(environment: Environment) -> Source:
    """Return the source of the raw tables: replace it here to point the graph at tables of your own.

    The packaged flights, but for the tables for which ``ML_ASSETS_SOURCES`` names another place.
    """
    packaged = NycFlights13Source(is_replaying=environment.is_replaying)
    unknown = sorted(set(environment.sources) - set(packaged.contracts))
    if unknown:
        raise BadInput(
            f"ML_ASSETS_SOURCES names {', '.join(unknown)}; there are contracts of {', '.join(packaged.contracts)}"
        )
    routes = {
        table: _routed(urlsplit(url), packaged.contracts[table], environment)
        for table, url in environment.sources.items()
    }
    return RoutedSource(routes=routes, otherwise=packaged) if routes else packaged


def _routed(url: SplitResult, contract: Contract, environment: Environment) -> Source:
    """Return the source of one table; one line here for each scheme of ``ML_ASSETS_SOURCES``."""
    files = partial(_files, url=url, contract=contract, work_folder=environment.work_folder)
    match url.scheme:
        case "file":
            return files(LocalFileStore(Path(unquote(url.path))))
        case "s3":
            return files(S3FileStore(url.netloc, unquote(url.path), connect=_s3))
        case "gs":
            return files(GcsFileStore(url.netloc, unquote(url.path), connect=partial(_gcs, environment)))
        case "webhdfs":
            user, _, host = url.netloc.rpartition("@")
            return files(WebHdfsFileStore(host, unquote(url.path), connect=_http, user=user or None))
        case "bigquery":
            return _bigquery_table(url, contract, environment)
        case "bigtable":
            return _bigtable(url, contract)
        case _:
            raise BadInput(
                f"ML_ASSETS_SOURCES: {contract.table} is in {url.geturl()}; there is no source for {url.scheme}"
            )


def _files(store: FileStore, *, url: SplitResult, contract: Contract, work_folder: Path) -> FilesSource:
    """Return a table in files; ``?marker=_SUCCESS`` and ``?null=NA`` at the end of its URL say how they are written."""
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    unknown = sorted(set(options) - {"marker", "null"})
    if unknown or url.fragment:
        raise BadInput(f"ML_ASSETS_SOURCES: {url.geturl()} ends in what means nothing; expected ?marker= or ?null=")
    nulls = ("", options["null"]) if options.get("null") else ("",)
    marker = options.get("marker") or None
    return FilesSource(store=store, contract=contract, work_folder=work_folder, nulls=nulls, marker=marker)


def _bigquery_table(url: SplitResult, contract: Contract, environment: Environment) -> BigQueryTablesSource:
    """Return a table in BigQuery; ``?day=time_hour`` names the column that tells the local day."""
    names, options = url.path.strip("/").split("/"), dict(parse_qsl(url.query, keep_blank_values=True))
    if len(names) != 2 or set(options) - {"day"} or url.fragment:
        raise BadInput(f"ML_ASSETS_SOURCES: found {url.geturl()}; expected bigquery://project/dataset/table?day=COLUMN")

    def connect() -> "AbstractContextManager[Client]":
        from dagster_gcp import BigQueryResource

        # What a query costs is billed to this environment's project, wherever the table is.
        return BigQueryResource(project=environment.project or url.netloc).get_client()

    return BigQueryTablesSource(
        project=url.netloc,
        dataset=names[0],
        table=names[1],
        contract=contract,
        connect=connect,
        day_column=options.get("day", PARTITION),
    )


def _bigtable(url: SplitResult, contract: Contract) -> BigtableSource:
    """Return a table in Bigtable; ``?family=f`` names the column family."""
    names, options = url.path.strip("/").split("/"), dict(parse_qsl(url.query, keep_blank_values=True))
    if len(names) != 2 or set(options) != {"family"} or url.fragment:
        raise BadInput(f"ML_ASSETS_SOURCES: found {url.geturl()}; expected bigtable://project/instance/table?family=F")

    def connect() -> "BigtableDataClient":
        from google.cloud.bigtable.data import BigtableDataClient

        return BigtableDataClient(project=url.netloc)

    return BigtableSource(
        project=url.netloc,
        instance=names[0],
        table=names[1],
        family=options["family"],
        contract=contract,
        connect=connect,
    )


def _s3() -> "S3Client":
    from dagster_aws.s3 import S3Resource

    # No second attempt: the source itself tries again, up to a deadline. Keys and region come from AWS's own variables.
    return S3Resource(max_attempts=0).get_client()


def _gcs(environment: Environment) -> "StorageClient":
    from dagster_gcp import GCSResource

    return GCSResource(project=environment.project or None).get_client()


def _http() -> "Session":
    from requests import Session

    return Session()


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


def link_to(store: ArtifactStore, path: str) -> dg.MetadataValue[str]:
    """Return where a person finds an artifact: a link that opens in a browser, or the path of a local file."""
    address = store.address(path)
    return dg.MetadataValue.url(address) if address.startswith("http") else dg.MetadataValue.path(address)


def tracker_of(environment: Environment) -> Tracker:
    """Return the experiment tracker of this environment; W&B reads its key itself.

    A pod's folders and processes end with its first process, so that there the store takes what W&B did not get.
    """
    return WandbTracker(
        environment.wandb_folder,
        mode=environment.tracker_mode,
        project=environment.tracker_project,
        outlasting=store_of(environment) if environment.is_on_kubernetes else None,
    )


def alerter_of(environment: Environment) -> Alerter:
    """Return who is told when something needs a person: the log, and whoever the environment names besides."""
    receivers: dict[str, Alerter] = {"log": LogAlerter()}
    alerting = environment.alerting
    if alerting.slack_webhook:
        receivers["slack"] = SlackAlerter(alerting.slack_webhook)
    if alerting.smtp_url:
        receivers["email"] = SmtpAlerter(alerting.smtp_url, to=alerting.emails)
    return Receivers(receivers)


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


def seconds_per_day(instance: dg.DagsterInstance, views: Sequence[FeatureView]) -> Mapping[str, float]:
    """Return what a day of each view's table took when it was last made, where its run has recorded it."""
    found: dict[str, float] = {}
    for table in dict.fromkeys(view.table for view in views):
        newest = instance.get_latest_materialization_event(dg.AssetKey(table.split(".")))
        facts = newest.asset_materialization.metadata if newest and newest.asset_materialization else {}
        value = facts["seconds_per_day"].value if "seconds_per_day" in facts else None
        if isinstance(value, float):
            found[table] = value
    return found


def resources_of(environment: Environment) -> dict[str, object]:
    """Return the resources of the asset graph by role; nothing is opened before an asset uses it."""
    return {
        "source": source_of(environment),
        "warehouse": warehouse_of(environment),
        "store": store_of(environment),
        "studies": OptunaStudies(environment.studies_url),
        "tracker": tracker_of(environment),
        "alerter": alerter_of(environment),
    }


def not_made(held: DayHeld) -> dg.Failure:
    """Return the failure of a step that made nothing of a held day: whoever started the run can tell it from others."""
    return dg.Failure(str(held), metadata={HELD_DAYS: str(held)})


def monitoring_asset(use_case: UseCase, *, table: str | None) -> dict[str, object]:
    """Return what all assets of the stage monitoring have in common; ``table`` is None for one that writes pages."""
    return {
        "group_name": "monitoring",
        "partitions_def": DAILY,
        "backfill_policy": ONE_RUN,
        "freshness_policy": DAILY_FRESHNESS,
        "pool": "warehouse",
        "owners": list(use_case.owners),
        "kinds": {"python", Environment.current().warehouse} if table else {"html"},
        "tags": {"cadence": "daily", "use_case": use_case.name},
        "metadata": {"dagster/table_name": table} if table else {},
    }


def warning(is_passed: bool, reasons: tuple[str, ...]) -> dg.AssetCheckResult:
    """Return the result of a check that warns and never blocks."""
    return dg.AssetCheckResult(
        passed=is_passed, severity=dg.AssetCheckSeverity.WARN, description="; ".join(reasons) or "nothing to report"
    )
