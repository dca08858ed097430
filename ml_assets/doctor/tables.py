"""The warehouse: a DuckDB file that opens, or BigQuery datasets that can be asked and written; and dbt on it."""

import inspect
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ml_assets.backends.bigquery_errors import in_our_words
from ml_assets.backends.bigquery_warehouse import BigQueryWarehouse
from ml_assets.backends.dbt_in_process import DbtInProcess
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.environments import Environment
from ml_assets.core.errors import WarehouseBusy
from ml_assets.doctor.checkup import Skipped, Trouble

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

Connect = Callable[[], "AbstractContextManager[Client]"]

SCHEMAS = ("raw", "staging", "intermediate", "features", "labels", "examples", "predictions", "monitoring")
_PROBED = "examples"
_PATIENCE = timedelta(seconds=1)
_SECONDS = 10.0
# What is left of a probe whose process was killed goes by itself.
_LEFT_FOR = timedelta(hours=1)


def duckdb_file(environment: Environment) -> str:
    """Open the DuckDB file, which one process at a time may hold."""
    path = environment.warehouse_path
    if not path.exists():
        raise Skipped(f"{path} is made at the first run")
    try:
        found = DuckDBWarehouse(path, lock_patience=_PATIENCE).query("select count(*) as n from duckdb_tables()")
    except WarehouseBusy as busy:
        holder = re.search(r"PID (\d+)", str(busy))
        do = (
            f"wait for process {holder[1]} or end it: kill {holder[1]}" if holder else "wait for that process or end it"
        )
        raise Trouble(f"{path} is held by another process", do=do, status="warn") from busy
    return f"{path}: {found.to_pylist()[0]['n']} tables, {path.stat().st_size / 2**20:,.0f} MiB"


def sign_in(connect: Connect, environment: Environment) -> str:
    """Let BigQuery price a query, which costs nothing: it takes credentials, the project, and the right to run jobs."""
    from google.cloud.bigquery import QueryJobConfig

    cap = inspect.signature(BigQueryWarehouse).parameters["maximum_bytes_billed"].default
    with asked(connect) as client:
        config = QueryJobConfig(dry_run=True, use_query_cache=False, maximum_bytes_billed=cap)
        client.query("select 1", job_config=config, retry=None, job_retry=None, timeout=_SECONDS)
        return f"{environment.project}: jobs run in {environment.location}, {cap / 2**30:g} GiB a query at most"


def datasets(connect: Connect, environment: Environment) -> str:
    """Compare where the datasets lie with where this environment's jobs run."""
    from google.api_core.exceptions import NotFound

    found: dict[str, str] = {}
    with asked(connect) as client:
        for schema in SCHEMAS:
            try:
                dataset = client.get_dataset(f"{environment.project}.{schema}", retry=None, timeout=_SECONDS)
            except NotFound:
                continue
            found[schema] = str(dataset.location)
    elsewhere = {schema: place for schema, place in found.items() if place.lower() != environment.location.lower()}
    if elsewhere:
        places = sorted(set(elsewhere.values()))
        everything = len(elsewhere) == len(found) and len(places) == 1
        raise Trouble(
            f"{', '.join(f'{schema} lies in {place}' for schema, place in elsewhere.items())}; "
            f"expected {environment.location}: jobs there do not see it",
            do=f"set ML_ASSETS_LOCATION={places[0]}"
            if everything
            else f"make it anew, empty: bq rm -d {environment.project}:{next(iter(elsewhere))} && "
            f"bq mk --location={environment.location} -d {environment.project}:{next(iter(elsewhere))}",
        )
    if missing := [schema for schema in SCHEMAS if schema not in found]:
        raise Trouble(
            f"not there yet: {', '.join(missing)}; runs may not create datasets",
            do=f"PROJECT={environment.project} LOCATION={environment.location} envsubst < deploy/iam/gcp/datasets.sql "
            f"| bq query --project_id {environment.project} --use_legacy_sql=false",
        )
    return f"{len(found)} datasets in {environment.location}"


def writes(connect: Connect, environment: Environment) -> str:
    """Create, replace and drop a table, which holds one row, costs nothing and would expire by itself."""
    from google.cloud.bigquery import QueryJobConfig

    table = f"`{environment.project}.{_PROBED}.doctor_{uuid.uuid4().hex}`"
    expires = (datetime.now(UTC) + _LEFT_FOR).strftime("%Y-%m-%d %H:%M:%S+00")
    options = f"OPTIONS (expiration_timestamp = TIMESTAMP '{expires}')"
    capped = QueryJobConfig(maximum_bytes_billed=10 * 2**20)

    with asked(connect) as client:

        def run(statement: str) -> None:
            job = client.query(statement, job_config=capped, retry=None, job_retry=None, timeout=_SECONDS)
            job.result(retry=None, timeout=_SECONDS)

        try:
            run(f"CREATE OR REPLACE TABLE {table} {options} AS SELECT 1 AS n")
            run(f"CREATE OR REPLACE TABLE {table} {options} AS SELECT 2 AS n")
        finally:
            run(f"DROP TABLE IF EXISTS {table}")
    return f"a table of {_PROBED} created, replaced, dropped"


def dbt(project: DbtInProcess, environment: Environment) -> str:
    """Do what ``dbt debug`` does: read project and profile, and connect."""
    if environment.warehouse == "duckdb" and not environment.warehouse_path.exists():
        raise Skipped(f"{environment.warehouse_path} is made at the first run")
    if fault := project.debug():
        raise Trouble(
            fault, do=f"dbt debug --project-dir {project.project_folder} --profiles-dir {project.project_folder}"
        )
    return f"{project.project_folder} connects"


@contextmanager
def asked(connect: Connect) -> "Iterator[Client]":
    """Open a client of BigQuery; raise what it raises in our words."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests import RequestException

    try:
        with connect() as client:
            try:
                yield client
            finally:
                client.close()
    except (GoogleAPIError, GoogleAuthError, RequestException, ConnectionError, TimeoutError) as error:
        raise in_our_words(error, deadline=timedelta(seconds=_SECONDS)) from error
