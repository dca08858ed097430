"""PostgreSQL with what Dagster and Optuna keep there, the daemon, W&B, and who is alerted."""

import base64
import json
import time
import uuid
from datetime import timedelta
from urllib import error, request
from urllib.parse import urlsplit

from ml_assets.backends.environments import Environment
from ml_assets.backends.slack_alerter import SlackAlerter
from ml_assets.backends.smtp_alerter import SmtpAlerter
from ml_assets.doctor.checkup import Skipped, Trouble

_SECONDS_TO_CONNECT = 5
# Dagster's own: half an hour without a heartbeat.
_MOST_SILENCE = timedelta(minutes=30)
_WANDB = "https://api.wandb.ai"


def dagster_storage(environment: Environment) -> str:
    """Connect to Dagster's database and compare the version of its tables with the installed Dagster's."""
    if environment.postgres_url is None:
        if environment.name == "local":
            raise Skipped("SQLite files in DAGSTER_HOME")
        raise Trouble(
            "ML_ASSETS_POSTGRES_URL is not set: without it no run is remembered",
            do="set it to postgresql://USER:PASSWORD@HOST:5432/dagster",
        )
    address, revision = _revision(environment.postgres_url, creates="dagster")
    if revision is None:
        return f"{address}: empty; Dagster makes its tables at the first start"
    head = _head_of_dagster()
    if revision.startswith("v"):
        raise Trouble(
            f"{address} holds the tables of Optuna; Dagster needs a database of its own",
            do="let ML_ASSETS_POSTGRES_URL end in /dagster and ML_ASSETS_STUDIES in /studies",
        )
    if revision != head:
        raise Trouble(
            f"{address} has tables of version {revision}; the installed Dagster expects {head}",
            do="stop webserver and daemon, then: dagster instance migrate",
        )
    return f"{address}: tables of version {head}"


def compute_logs(environment: Environment) -> str:
    """Keep two lines as a step's output is kept, read them back, and remove them."""
    from dagster._core.storage.compute_log_manager import ComputeIOType

    from ml_assets.cloud_instance import compute_logs_of

    key, words = ["doctor", uuid.uuid4().hex, "probe"], b"ml-assets doctor\n"
    manager = compute_logs_of(environment)
    try:
        with manager.open_log_stream(key, ComputeIOType.STDERR) as stream:
            stream.write(words.decode())
        found, _ = manager.get_log_data_for_type(key, ComputeIOType.STDERR, offset=0, max_bytes=None)
    finally:
        manager.delete_logs(log_key=key)
        manager.dispose()
    if found != words:
        raise Trouble(f"{environment.logs_url} does not give back what was written", do="look at the bucket's rules")
    return f"{environment.logs_url}: written, read, removed"


def studies(environment: Environment) -> str:
    """Connect to the database of the tuning studies."""
    if not environment.studies_url.startswith("postgresql"):
        raise Skipped(f"journal files in {urlsplit(environment.studies_url).path}, for one machine")
    address, revision = _revision(environment.studies_url, creates="studies")
    if revision is None:
        return f"{address}: empty; the first study makes its tables"
    if not revision.startswith("v"):
        raise Trouble(
            f"{address} holds the tables of Dagster; Optuna needs a database of its own",
            do="let ML_ASSETS_STUDIES end in /studies, and create that database",
        )
    return f"{address}: tables of version {revision}"


def daemon(environment: Environment) -> str:
    """Ask when the daemon, which starts schedules, sensors and queued runs, was last heard of."""
    import dagster as dg
    from dagster._core.errors import DagsterInvalidConfigError

    home = environment.dagster_home
    if not (home / "dagster.yaml").is_file():
        raise Skipped(f"{home} has no dagster.yaml yet")
    shared = environment.postgres_url if environment.name != "local" else None
    if shared and _revision(shared, creates="dagster")[1] is None:
        raise Skipped("Dagster has not been started yet")
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            heartbeats, required = instance.get_daemon_heartbeats(), set(instance.get_required_daemon_types())
    except DagsterInvalidConfigError as refused:
        raise Trouble(f"{home / 'dagster.yaml'} is not valid: {refused}", do="copy it anew from deploy/") from refused
    if not heartbeats:
        raise Trouble(
            "no daemon has run yet: schedules, sensors and queued runs wait", do="dagster-daemon run", status="warn"
        )
    now = time.time()
    ages = {kind: now - heartbeats[kind].timestamp for kind in required & heartbeats.keys()}
    silent = sorted(kind for kind, age in ages.items() if age > _MOST_SILENCE.total_seconds())
    if silent:
        raise Trouble(
            f"not heard of for {max(ages.values()) / 60:.0f} minutes: {', '.join(silent)}",
            do="look at the daemon's log and start it again: dagster-daemon run",
            status="warn" if environment.name == "local" else "fail",
        )
    return f"{len(ages)} of {len(required)} daemons heard of within {max(ages.values()):.0f} s"


def wandb(environment: Environment, key: str | None) -> str:
    """Ask W&B who the key belongs to."""
    if environment.tracker_mode != "online":
        raise Skipped(f"the tracker is {environment.tracker_mode}")
    url = (environment.endpoints.wandb or _WANDB).rstrip("/")
    if not key:
        raise Skipped("no WANDB_API_KEY; wandb takes the one of `wandb login`")
    ask = request.Request(  # noqa: S310 - the address is W&B's own, or that of WANDB_BASE_URL
        f"{url}/graphql",
        json.dumps({"query": "query Viewer { viewer { username entity } }"}).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}",
        },
    )
    try:
        with request.urlopen(ask, timeout=_SECONDS_TO_CONNECT) as answer:  # noqa: S310 - see above
            viewer = json.load(answer)["data"]["viewer"]
    except error.HTTPError as refused:
        if refused.code in (401, 403):
            viewer = None
        else:
            raise Trouble(
                f"{url} answers {refused.code} {refused.reason}", do="wait, or see https://status.wandb.com"
            ) from refused
    except (error.URLError, TimeoutError) as silent:
        raise Trouble(
            f"{url} cannot be reached: {getattr(silent, 'reason', silent)}",
            do="check WANDB_BASE_URL and the network; until then ML_ASSETS_TRACKER=offline keeps runs for `wandb sync`",
        ) from silent
    if viewer is None:
        raise Trouble(
            f"{url} does not know the key",
            do=f"set WANDB_API_KEY to the one that {url.replace('api.', '')}/authorize shows",
        )
    return f"{url}: {viewer.get('username') or viewer.get('entity')}, project {environment.tracker_project}"


def slack(environment: Environment) -> str:
    """Ask who answers at the webhook, without posting."""
    webhook = environment.alerting.slack_webhook
    if not webhook:
        raise Skipped("no ML_ASSETS_SLACK_WEBHOOK: nobody is told there")
    return SlackAlerter(webhook).reach()


def mail(environment: Environment) -> str:
    """Ask the mail server whether it would take an alert for each who is to get one, without sending any."""
    alerting = environment.alerting
    if not alerting.smtp_url:
        raise Skipped("no ML_ASSETS_SMTP_URL: nobody is written to")
    return SmtpAlerter(alerting.smtp_url, to=alerting.emails).reach()


def _revision(url: str, *, creates: str) -> tuple[str, str | None]:
    """Return the address without user and password, and the version of its tables; None where there are none."""
    import psycopg

    parts = urlsplit(url)
    address = f"{parts.hostname}:{parts.port or 5432}{parts.path}"
    database = parts.path.lstrip("/")
    try:
        with psycopg.connect(url, connect_timeout=_SECONDS_TO_CONNECT) as connection:
            if connection.execute("select to_regclass('alembic_version')").fetchone() == (None,):
                return address, None
            found = connection.execute("select version_num from alembic_version").fetchone()
            return address, str(found[0]) if found else None
    except psycopg.OperationalError as refused:
        said = " ".join(str(refused).split())
        if f'database "{database}" does not exist' in said:
            raise Trouble(
                f"{address}: there is no database {database}",
                do=f"createdb -h {parts.hostname} -U {parts.username} {database}, or: "
                f"gcloud sql databases create {database} --instance=INSTANCE",
            ) from refused
        if "authentication failed" in said or "no password supplied" in said:
            raise Trouble(
                f"{address} refuses the user {parts.username}",
                do=f"set the password of {parts.username} in {_variable(creates)}",
            ) from refused
        raise Trouble(
            f"{address} cannot be reached: {said}",
            do=f"check that PostgreSQL runs there and lets this machine in, and {_variable(creates)}",
        ) from refused


def _variable(creates: str) -> str:
    return "ML_ASSETS_POSTGRES_URL" if creates == "dagster" else "ML_ASSETS_STUDIES (or ML_ASSETS_POSTGRES_URL)"


def _head_of_dagster() -> str | None:
    from alembic.script import ScriptDirectory
    from dagster_postgres import run_storage
    from dagster_postgres.utils import pg_alembic_config

    return ScriptDirectory.from_config(pg_alembic_config(run_storage.__file__)).get_current_head()
