"""The environment this process runs in, and every address derived from its name: the only reader of ``os.environ``."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from ml_assets.core.errors import BadInput
from ml_assets.core.names import identifier
from ml_assets.core.trainers.launch import ONE_PROCESS, Launch

EnvironmentName = Literal["local", "staging", "production"]
WarehouseName = Literal["duckdb", "bigquery"]
Objects = Literal["file", "gs", "s3"]
TrackerMode = Literal["offline", "online", "disabled"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table below; ``{project}`` and the like stand for what the row is looked up with."""

    warehouse: WarehouseName
    objects: tuple[Objects, ...]
    project: str
    artifacts: str
    landing: str
    logs: str
    namespace: str
    tracker: TrackerMode
    tracker_project: str
    is_replaying: bool


_LOCAL = Row(
    warehouse="duckdb",
    objects=("file",),
    project="",
    artifacts="{home}/artifacts",
    landing="{home}/landing",
    logs="{home}/dagster/storage",
    namespace="",
    tracker="offline",
    tracker_project="ml_assets",
    is_replaying=True,
)
_CLOUD = Row(
    warehouse="bigquery",
    objects=("gs", "s3"),
    project="{ML_ASSETS_PROJECT}-{environment}",
    artifacts="{objects}://{project}-artifacts",
    landing="{objects}://{project}-landing",
    logs="{objects}://{project}-logs",
    namespace="{project}",
    tracker="online",
    tracker_project="{project}",
    is_replaying=False,
)
# The table of environments. Staging and production differ in nothing but the name that every address is derived from.
TABLE: Mapping[EnvironmentName, Row] = {"local": _LOCAL, "staging": _CLOUD, "production": _CLOUD}

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
# With "-production" it is a Google project, which has 30 characters at most.
_PROJECT = re.compile(r"[a-z][a-z0-9-]{2,17}[a-z0-9]")
_EMAIL = re.compile(r"[^@\s<>\",;]+@[^@\s<>\",;]+")
_LOCATION = re.compile(r"[A-Za-z]+(-?[A-Za-z0-9]+)*")
_SOURCE = re.compile(r"(?:file|s3|gs|bigquery|bigtable|webhdfs)://\S+")
# Which schemes of URLs stand for a service that wants to know who asks.
_SERVICES = {"bigquery": "BigQuery", "gs": "GCS", "bigtable": "Bigtable", "s3": "S3"}
_NAMELESS_AT = {"gs": "STORAGE_EMULATOR_HOST", "bigtable": "BIGTABLE_EMULATOR_HOST"}
_PURPOSES = {
    "ML_ASSETS_PROJECT": "the name that every address is derived from, such as acme-ml",
    "GOOGLE_APPLICATION_CREDENTIALS": "the file of the Google credentials that open {google}; or say "
    "ML_ASSETS_CREDENTIALS=attached where the machine has an identity of its own",
    "AWS_ACCESS_KEY_ID": "the AWS key that opens S3; or AWS_PROFILE, or AWS_WEB_IDENTITY_TOKEN_FILE, or "
    "ML_ASSETS_CREDENTIALS=attached",
    "AWS_SECRET_ACCESS_KEY": "the secret that goes with AWS_ACCESS_KEY_ID",
    "WANDB_API_KEY": "the key of W&B, where experiments are tracked; or say ML_ASSETS_TRACKER=disabled",
}


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where a service is reached in place of its vendor's address, as its own client is told; None unless set."""

    bigquery: str | None = None
    gcs: str | None = None
    s3: str | None = None
    bigtable: str | None = None
    wandb: str | None = None


@dataclass(frozen=True, kw_only=True)
class Alerting:
    """Who is told that something needs a person, besides the log; the addresses are the secrets that open them."""

    slack_webhook: str | None = field(default=None, repr=False)
    smtp_url: str | None = field(default=None, repr=False)
    emails: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where this process keeps tables, artifacts and state, and what it is allowed to assume.

    Read from ``ML_ASSETS_ENV`` (``local`` unless set), whose row of ``TABLE`` decides what is not said here:
    ``ML_ASSETS_PROJECT`` (outside ``local``), ``ML_ASSETS_OBJECTS`` (``gs`` or ``s3``), ``ML_ASSETS_LOCATION`` (of
    BigQuery's datasets; ``US``), ``ML_ASSETS_HOME`` (the folder of all local state; ``data`` in the repository unless
    set), ``ML_ASSETS_REPLAY`` (yes or no), ``ML_ASSETS_TRACKER`` (unless set ``online`` where W&B's key is in
    ``WANDB_API_KEY``), ``ML_ASSETS_SOURCES`` (a URL for each raw table that is not the packaged one).
    ``ML_ASSETS_STUDIES`` is the URL of the storage that tuning workers share (outside ``local`` the database
    ``studies`` beside that of ``ML_ASSETS_POSTGRES_URL``, or else a folder in the home). URLs that may hold a password
    are not printed with the rest; no other secret is kept here. The processes that ``torchrun`` started are told their
    number and place by its variables. ``ML_ASSETS_SLACK_WEBHOOK``, and ``ML_ASSETS_SMTP_URL`` with
    ``ML_ASSETS_ALERT_EMAIL``, say who is told when something needs a person.
    """

    name: EnvironmentName
    home: Path
    project: str  # empty in local
    objects: Objects
    location: str
    is_replaying: bool
    tracker_mode: TrackerMode
    sources: Mapping[str, str]
    endpoints: Endpoints
    is_attached: bool  # the machine has an identity of its own
    dagster_home: Path
    postgres_url: str | None = field(repr=False)
    studies_url: str = field(repr=False)
    launch: Launch = ONE_PROCESS
    is_on_kubernetes: bool = False  # every pod is told, by KUBERNETES_SERVICE_HOST
    alerting: Alerting = field(default_factory=Alerting)

    @classmethod
    def current(cls) -> "Environment":
        """Return the environment of this process; raise BadInput where a variable is missing or has no meaning.

        Keras reads its backend from ``KERAS_BACKEND`` when it is imported and looks for tensorflow where that is not
        set: here it is set to torch, unless someone has chosen.
        """
        os.environ.setdefault("KERAS_BACKEND", "torch")
        return cls.of(os.environ)

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "Environment":
        """Return the environment that these variables describe.

        Raise BadInput where one has no meaning, or where some are missing: all of them, each with what it is for.
        """
        name = cast("EnvironmentName", _one_of("ML_ASSETS_ENV", variables, "local", get_args(EnvironmentName)))
        row, is_local = TABLE[name], name == "local"
        objects = cast(
            "Objects", _one_of("ML_ASSETS_OBJECTS", {} if is_local else variables, row.objects[0], row.objects)
        )
        default_mode = "online" if variables.get("WANDB_API_KEY") else row.tracker
        mode = cast("TrackerMode", _one_of("ML_ASSETS_TRACKER", variables, default_mode, get_args(TrackerMode)))
        is_attached = _one_of("ML_ASSETS_CREDENTIALS", variables, "", ("", "attached")) == "attached"
        sources = _sources(variables.get("ML_ASSETS_SOURCES") or "")
        used = _services(name, objects, sources, variables)
        _refuse_missing(name, variables, _needed(name, variables, used, mode, is_attached=is_attached))
        replay = _one_of("ML_ASSETS_REPLAY", variables, "yes" if row.is_replaying else "no", (*_YES, *_NO))
        home = Path(variables.get("ML_ASSETS_HOME") or _root() / "data").expanduser().absolute()
        dagster_home = "" if is_local else variables.get("DAGSTER_HOME")
        postgres_url = variables.get("ML_ASSETS_POSTGRES_URL") or None
        shared_studies = None if is_local or not postgres_url else _studies_beside(postgres_url)
        return cls(
            name=name,
            home=home,
            project="" if is_local else row.project.format(ML_ASSETS_PROJECT=_project(variables), environment=name),
            objects=objects,
            location=_location(variables),
            is_replaying=replay in _YES,
            tracker_mode=mode,
            sources=sources,
            endpoints=Endpoints(
                bigquery=variables.get("BIGQUERY_EMULATOR_HOST") or None,
                gcs=variables.get("STORAGE_EMULATOR_HOST") or None,
                s3=variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or None,
                bigtable=variables.get("BIGTABLE_EMULATOR_HOST") or None,
                wandb=variables.get("WANDB_BASE_URL") or None,
            ),
            is_attached=is_attached,
            dagster_home=Path(dagster_home).absolute() if dagster_home else home / "dagster",
            postgres_url=postgres_url,
            studies_url=variables.get("ML_ASSETS_STUDIES") or shared_studies or (home / "studies").as_uri(),
            launch=_launch(variables),
            is_on_kubernetes=bool(variables.get("KUBERNETES_SERVICE_HOST")) and not is_local,
            alerting=_alerting(variables),
        )

    @property
    def warehouse(self) -> WarehouseName:
        """What holds the tables."""
        return TABLE[self.name].warehouse

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB file, where the warehouse is one."""
        return self.home / "warehouse.duckdb"

    @property
    def artifacts_url(self) -> str:
        """The URL of the artifact store."""
        return self._address(TABLE[self.name].artifacts)

    @property
    def landing_url(self) -> str:
        """The URL below which others leave files for the raw tables."""
        return self._address(TABLE[self.name].landing)

    @property
    def logs_url(self) -> str:
        """The URL below which Dagster keeps what the steps of its runs print."""
        return self._address(TABLE[self.name].logs)

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace; empty in local."""
        return self._address(TABLE[self.name].namespace)

    @property
    def tracker_project(self) -> str:
        """The project of W&B that runs belong to."""
        return self._address(TABLE[self.name].tracker_project)

    @property
    def work_folder(self) -> Path:
        """The folder of unfinished work, on the same disk as its results so that a rename finishes it."""
        return self.home / "work"

    @property
    def trainings_folder(self) -> Path:
        """The folder of the checkpoints of unfinished trainings, by use case and version."""
        return self.work_folder / "candidates"

    @property
    def records_folder(self) -> Path:
        """The folder of coded training sets, on this machine's disk whatever the store: written again when removed."""
        return self.home / "records"

    @property
    def dbt_project_folder(self) -> Path:
        """The dbt project of this repository."""
        return _root() / "dbt_project"

    @property
    def dbt_folder(self) -> Path:
        """The folder of what dbt makes of its project for this warehouse: made again when removed."""
        return self.home / "dbt" / self.project if self.project else self.dbt_project_folder / "target"

    @property
    def wandb_folder(self) -> Path:
        """The folder of W&B's offline runs."""
        return self.home / "wandb"

    def _address(self, template: str) -> str:
        return template.format(home=self.home.as_uri(), project=self.project, objects=self.objects)


def wandb_key() -> str | None:
    """Return W&B's key, for whoever must show it to W&B; it is kept nowhere."""
    return os.environ.get("WANDB_API_KEY") or None


def _root() -> Path:
    """Return the repository this file lies in, or the current folder where it is installed without one."""
    root = Path(__file__).parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def _studies_beside(postgres_url: str) -> str:
    """Return the URL of the database ``studies`` on the same server.

    Not the same database: Dagster and Optuna both keep the version of their tables in ``alembic_version``, and each
    takes the other's for damage.
    """
    return urlsplit(postgres_url)._replace(path="/studies").geturl()


def _alerting(variables: Mapping[str, str]) -> Alerting:
    """Return who is told; no error of it shows an address, which is a secret."""
    webhook, smtp_url = variables.get("ML_ASSETS_SLACK_WEBHOOK") or None, variables.get("ML_ASSETS_SMTP_URL") or None
    emails = tuple((variables.get("ML_ASSETS_ALERT_EMAIL") or "").replace(",", " ").split())
    if webhook and not _is_webhook(webhook):
        raise BadInput(
            "ML_ASSETS_SLACK_WEBHOOK is no address that may be told: expected https://HOST/..., or http:// for "
            "127.0.0.1; what is posted to it is not encrypted otherwise"
        )
    if smtp_url and not _is_mail_server(smtp_url):
        raise BadInput("ML_ASSETS_SMTP_URL is no mail server; expected smtps://USER:PASSWORD@HOST or smtp://...")
    if bool(smtp_url) != bool(emails):
        raise BadInput(
            "ML_ASSETS_SMTP_URL says through whom and ML_ASSETS_ALERT_EMAIL to whom alerts are sent; set both or none"
        )
    strange = [address for address in emails if not _EMAIL.fullmatch(address)]
    if strange:
        raise BadInput(f"ML_ASSETS_ALERT_EMAIL has {strange}; expected addresses such as oncall@example.com")
    return Alerting(slack_webhook=webhook, smtp_url=smtp_url, emails=emails)


def _is_webhook(text: str) -> bool:
    try:
        url = urlsplit(text)
        is_here = url.hostname in ("127.0.0.1", "localhost")
    except ValueError:
        return False
    return bool(url.hostname) and (url.scheme == "https" or (url.scheme == "http" and is_here))


def _is_mail_server(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("smtp", "smtps") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _launch(variables: Mapping[str, str]) -> Launch:
    """Return the launch that torchrun describes; one process without torchrun, whatever a cluster sets for its own."""
    if "TORCHELASTIC_RUN_ID" not in variables:
        return ONE_PROCESS
    names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK")
    try:
        n_processes, n_per_node, rank = (int(variables[name]) for name in names)
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"torchrun set no usable {', '.join(names)}: {error}; start the command with torchrun"
        ) from error
    if n_per_node < 1 or n_processes % n_per_node:
        raise BadInput(
            f"torchrun started {n_processes} processes, {n_per_node} of them on this node; expected equally many on "
            "each: give every node the same --nproc_per_node"
        )
    return Launch(n_nodes=n_processes // n_per_node, n_per_node=n_per_node, rank=rank)


def _one_of(variable: str, variables: Mapping[str, str], default: str, known: tuple[str, ...]) -> str:
    value = variables.get(variable) or default
    if value.lower() not in known:
        expected = ", ".join(word for word in known if word)
        raise BadInput(f"{variable}={value!r} is unknown; expected one of {expected}")
    return value.lower()


def _project(variables: Mapping[str, str]) -> str:
    project = variables["ML_ASSETS_PROJECT"]
    if not _PROJECT.fullmatch(project):
        raise BadInput(
            f"ML_ASSETS_PROJECT={project!r} cannot begin the names of Google projects and buckets; expected 4 to 19 "
            "lower-case letters, digits and hyphens that begin with a letter, such as acme-ml"
        )
    return project


def _location(variables: Mapping[str, str]) -> str:
    location = variables.get("ML_ASSETS_LOCATION") or "US"
    if not _LOCATION.fullmatch(location):
        raise BadInput(f"ML_ASSETS_LOCATION={location!r} is no location; expected one such as US, EU or europe-west3")
    return location


def _services(
    name: EnvironmentName, objects: Objects, sources: Mapping[str, str], variables: Mapping[str, str]
) -> list[str]:
    """Return the services that ask for credentials: those of the environment, and those that raw tables come from.

    Google's clients of Bigtable and of GCS ask an emulator without any.
    """
    schemes = {url.partition("://")[0] for url in sources.values()}
    schemes -= {scheme for scheme, variable in _NAMELESS_AT.items() if variables.get(variable)}
    if name != "local":
        schemes |= {"bigquery", objects}
    return [service for scheme, service in _SERVICES.items() if scheme in schemes]


def _needed(
    name: EnvironmentName,
    variables: Mapping[str, str],
    services: Sequence[str],
    mode: TrackerMode,
    *,
    is_attached: bool,
) -> Mapping[str, str]:
    """Return what must be set so that these services can be used, each with what it is for."""
    needed = [] if name == "local" else ["ML_ASSETS_PROJECT"]
    of_google = [service for service in services if service != "S3"]
    if of_google and not is_attached:
        needed.append("GOOGLE_APPLICATION_CREDENTIALS")
    has_another = variables.get("AWS_PROFILE") or variables.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if "S3" in services and not is_attached and not has_another:
        needed += ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    if mode == "online" and name != "local":
        needed.append("WANDB_API_KEY")
    return {variable: _PURPOSES[variable].format(google=" and ".join(of_google)) for variable in needed}


def _refuse_missing(name: EnvironmentName, variables: Mapping[str, str], needed: Mapping[str, str]) -> None:
    """Raise BadInput that names every variable that is missing, or names a file that is."""
    faults = [f"{variable} is not set: {what}" for variable, what in needed.items() if not variables.get(variable)]
    file = variables.get("GOOGLE_APPLICATION_CREDENTIALS")
    if file and "GOOGLE_APPLICATION_CREDENTIALS" in needed and not Path(file).is_file():
        faults.append(f"GOOGLE_APPLICATION_CREDENTIALS={file}: there is no such file")
    if faults:
        raise BadInput(f"ML_ASSETS_ENV={name} cannot start. " + ". ".join(faults) + ". Set them and start again")


def _sources(text: str) -> Mapping[str, str]:
    """Return raw table -> URL of a text such as ``flights=gs://bucket/flights weather=bigquery://project/set/table``."""
    found: dict[str, str] = {}
    for entry in text.split():
        table, _, url = entry.partition("=")
        if ":" in url.partition("://")[2].partition("/")[0].rpartition("@")[0]:
            raise BadInput(
                f"ML_ASSETS_SOURCES: the URL of {table} holds a password; leave it to the client's own variables"
            )
        if not _SOURCE.fullmatch(url):
            raise BadInput(
                f"ML_ASSETS_SOURCES: {entry!r} says not where a table comes from; expected table=URL, the URL one of "
                "file://, s3://, gs://, bigquery://, bigtable://, webhdfs://"
            )
        if found.setdefault(identifier(table), url) != url:
            raise BadInput(f"ML_ASSETS_SOURCES names {table} twice: {found[table]} and {url}; keep one")
    return MappingProxyType(found)
