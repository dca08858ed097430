"""Whether everything that an environment relies on can be reached and does what it must; and if not, what to do."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.backends.environments import Environment, wandb_key
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.errors import BadInput
from ml_assets.core.ports import ArtifactStore
from ml_assets.doctor import machine, objects, services, sources, tables
from ml_assets.doctor.checkup import Check, Trouble
from ml_assets.resources import dbt_of

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

_ROOT = Path(__file__).parents[2]
_PATIENCE = timedelta(seconds=5)
_SIGN_IN = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a valid key, or: gcloud auth application-default login; "
    "give its account the role mlAssetsJobs on {project} (docs/cloud.md, step 2)"
)


def checks_of_this_process() -> Iterator[Check]:
    """Yield every check of the environment that the variables describe: of none but the machine where they do not."""
    try:
        environment = Environment.current()
    except BadInput as error:
        yield Check(name="settings", look=partial(_raise, error), do="")
        yield from _of_machine(None)
        return
    project = f", project {environment.project}, {environment.objects}://" if environment.project else ""
    yield Check(name="settings", look=lambda: f"{environment.name}{project}", do="")
    yield from checks_of(environment)


def checks_of(environment: Environment) -> Iterator[Check]:
    """Yield the checks, in the order in which a newcomer creates what they look at."""
    yield from _of_machine(environment)
    yield from _of_objects(environment)
    yield from _of_warehouse(environment)
    yield from _of_sources(environment)
    yield from _of_services(environment)


def _raise(error: BadInput) -> str:
    raise Trouble(str(error), do="docs/cloud.md says what each is for; then again: ml-assets doctor")


def _of_machine(environment: Environment | None) -> Iterator[Check]:
    is_cloud = environment is not None and environment.name != "local"
    look = partial(machine.packages, _ROOT / "constraints.txt", is_cloud=is_cloud)
    yield Check(name="packages", look=look, do="make install")
    yield Check(name="time zones", look=machine.time_zones, do="pip install tzdata")
    if environment is not None:
        yield Check(name="local folder", look=partial(objects.room, environment.home), do="set ML_ASSETS_HOME")


def _of_objects(environment: Environment) -> Iterator[Check]:
    url = environment.artifacts_url
    yield Check(
        name="artifacts", look=partial(objects.artifacts, _store(environment, url), url), do=_make(environment, url)
    )
    if environment.name != "local":
        do = _make(environment, environment.logs_url)
        yield Check(name="compute logs", look=partial(services.compute_logs, environment), do=do)


def _of_warehouse(environment: Environment) -> Iterator[Check]:
    if environment.warehouse == "duckdb":
        do = f"move the file away and land the days again, or restore it: {environment.warehouse_path}"
        yield Check(name="DuckDB", look=partial(tables.duckdb_file, environment), do=do)
        needs = ()
    else:
        connect = partial(_connect, environment)
        sign_in = _SIGN_IN.format(project=environment.project)
        yield Check(name="BigQuery", look=partial(tables.sign_in, connect, environment), do=sign_in)
        needs = ("BigQuery",)
        do = f"let the account of runs edit the datasets of {environment.project}: deploy/iam/gcp/datasets.sql"
        yield Check(name="datasets", look=partial(tables.datasets, connect, environment), do=do, needs=needs)
        look = partial(tables.writes, connect, environment)
        yield Check(name="writing", look=look, do=do, needs=(*needs, "datasets"))
    project = dbt_of(environment)
    do = f"look at {project.project_folder / 'profiles.yml'}"
    yield Check(name="dbt", look=partial(tables.dbt, project, environment), do=do, seconds=60.0, needs=needs)


def _of_sources(environment: Environment) -> Iterator[Check]:
    for table, url in environment.sources.items():
        is_bucket = url.startswith(("s3://", "gs://"))
        do = _make(environment, "/".join(url.split("/")[:3])) if is_bucket else sources.advice(url)
        needs = ("BigQuery",) if url.startswith("bigquery://") else ()
        yield Check(name=f"source {table}", look=partial(sources.reached, environment, table), do=do, needs=needs)


def _of_services(environment: Environment) -> Iterator[Check]:
    do = "check ML_ASSETS_POSTGRES_URL, and that PostgreSQL lets this machine in"
    template = _ROOT / "deploy" / ("local" if environment.name == "local" else "cloud") / "dagster.yaml"
    yield Check(
        name="dagster.yaml", look=partial(machine.dagster_settings, environment, template), do="set DAGSTER_HOME"
    )
    yield Check(name="Dagster storage", look=partial(services.dagster_storage, environment), do=do)
    needs = ("dagster.yaml", "Dagster storage")
    yield Check(name="daemon", look=partial(services.daemon, environment), do="dagster-daemon run", needs=needs)
    yield Check(name="studies", look=partial(services.studies, environment), do=do)
    do = "check WANDB_API_KEY and the network"
    yield Check(name="W&B", look=partial(services.wandb, environment, wandb_key()), do=do)
    do = "check ML_ASSETS_SLACK_WEBHOOK and the network; until then alerts are in the log alone"
    yield Check(name="alerts by Slack", look=partial(services.slack, environment), do=do)
    do = "check ML_ASSETS_SMTP_URL and ML_ASSETS_ALERT_EMAIL; until then alerts are in the log alone"
    yield Check(name="alerts by mail", look=partial(services.mail, environment), do=do)


def _store(environment: Environment, url: str) -> ArtifactStore:
    """Return a store that gives up soon: whoever waits for the doctor wants to know, not to succeed."""
    endpoint = environment.endpoints.s3 if url.startswith("s3://") else environment.endpoints.gcs
    return ObjectArtifactStore(url, endpoint=None if url.startswith("file://") else endpoint, patience=_PATIENCE)


def _make(environment: Environment, url: str) -> str:
    """Return the command that makes a bucket, and who must be allowed what."""
    if url.startswith("file://"):
        return "set ML_ASSETS_HOME to a folder that can be written to"
    if url.startswith("s3://"):
        return f"aws s3 mb {url}; or give this identity list, read, write and delete on it (deploy/iam/aws)"
    place = f"--project={environment.project} --location={environment.location}"
    return f"gcloud storage buckets create {url} {place}; or let this account use it (deploy/iam/gcp)"


def _connect(environment: Environment) -> "AbstractContextManager[Client]":
    from dagster_gcp import BigQueryResource

    return BigQueryResource(project=environment.project, location=environment.location).get_client()
