"""The environment's name decides every address; a variable that means nothing is refused."""

import os
import re
from pathlib import Path

import pytest

from ml_assets.backends.environments import Environment
from ml_assets.core.errors import BadInput

REPOSITORY = Path(__file__).parents[2]


def test_without_variables_it_is_local_replaying_and_offline():
    environment = Environment.of({})
    assert environment.name == "local"
    assert environment.home == REPOSITORY / "data"
    assert environment.is_replaying
    assert environment.tracker_mode == "offline"


def test_the_tracker_is_online_where_its_key_is_set_unless_someone_says_otherwise():
    assert Environment.of({"WANDB_API_KEY": "a" * 40}).tracker_mode == "online"
    assert Environment.of({"WANDB_API_KEY": "a" * 40, "ML_ASSETS_TRACKER": "disabled"}).tracker_mode == "disabled"
    assert Environment.of({"WANDB_API_KEY": ""}).tracker_mode == "offline"


def test_every_address_lies_in_the_home(tmp_path: Path):
    environment = Environment.of({"ML_ASSETS_HOME": str(tmp_path)})
    assert environment.warehouse_path == tmp_path / "warehouse.duckdb"
    assert environment.artifacts_url == f"file://{tmp_path}/artifacts"
    assert environment.dagster_home == tmp_path / "dagster"
    assert environment.wandb_folder == tmp_path / "wandb"
    assert environment.studies_url == f"file://{tmp_path}/studies"


def test_a_shared_storage_of_studies_is_used_and_its_password_not_shown():
    environment = Environment.of({"ML_ASSETS_STUDIES": "postgresql://tuner:hunter2@db/studies"})
    assert environment.studies_url == "postgresql://tuner:hunter2@db/studies"
    assert "hunter2" not in repr(environment)


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert Environment.of({"ML_ASSETS_HOME": "state"}).home == tmp_path / "state"


@pytest.mark.parametrize(("said", "meant"), [("1", True), ("yes", True), ("0", False), ("No", False), ("", True)])
def test_replay_is_switched_by_yes_or_no(said: str, meant: bool):
    assert Environment.of({"ML_ASSETS_REPLAY": said}).is_replaying is meant


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ML_ASSETS_ENV": "prod"}, "ML_ASSETS_ENV='prod' is unknown; expected one of local, staging, production"),
        ({"ML_ASSETS_REPLAY": "maybe"}, "ML_ASSETS_REPLAY='maybe' is unknown"),
        ({"ML_ASSETS_LOCATION": "US; drop"}, "ML_ASSETS_LOCATION='US; drop' is no location"),
        ({"ML_ASSETS_CREDENTIALS": "mine"}, "ML_ASSETS_CREDENTIALS='mine' is unknown; expected one of attached"),
        (
            {"ML_ASSETS_TRACKER": "loud"},
            "ML_ASSETS_TRACKER='loud' is unknown; expected one of offline, online, disabled",
        ),
    ],
)
def test_a_variable_without_meaning_is_refused(variables: dict[str, str], message: str):
    with pytest.raises(BadInput, match=message):
        Environment.of(variables)


ATTACHED = {"ML_ASSETS_PROJECT": "acme-ml", "ML_ASSETS_CREDENTIALS": "attached", "WANDB_API_KEY": "k" * 40}


@pytest.mark.parametrize("name", ["staging", "production"])
def test_every_address_in_the_cloud_is_derived_from_the_project_and_the_environment(name: str):
    environment = Environment.of({**ATTACHED, "ML_ASSETS_ENV": name})
    assert (environment.name, environment.warehouse) == (name, "bigquery")
    assert (environment.project, environment.location) == (f"acme-ml-{name}", "US")
    assert environment.artifacts_url == f"gs://acme-ml-{name}-artifacts"
    assert environment.landing_url == f"gs://acme-ml-{name}-landing"
    assert environment.logs_url == f"gs://acme-ml-{name}-logs"
    assert environment.namespace == environment.tracker_project == f"acme-ml-{name}"
    assert environment.tracker_mode == "online"
    assert not environment.is_replaying
    assert environment.is_attached


def test_objects_location_replay_and_tracker_can_be_said_otherwise():
    said = {"ML_ASSETS_OBJECTS": "s3", "ML_ASSETS_LOCATION": "europe-west3", "ML_ASSETS_REPLAY": "yes"}
    environment = Environment.of(
        {**ATTACHED, "WANDB_API_KEY": "", "ML_ASSETS_TRACKER": "offline", "ML_ASSETS_ENV": "staging", **said}
    )
    assert environment.artifacts_url == "s3://acme-ml-staging-artifacts"
    assert environment.location == "europe-west3"
    assert environment.is_replaying
    assert environment.tracker_mode == "offline"


def test_the_local_environment_is_on_this_machine_whatever_the_cloud_is_told(tmp_path: Path):
    told = {"ML_ASSETS_PROJECT": "acme-ml", "ML_ASSETS_OBJECTS": "s3", "DAGSTER_HOME": "/elsewhere"}
    environment = Environment.of({"ML_ASSETS_HOME": str(tmp_path), **told})
    assert environment.artifacts_url == f"file://{tmp_path}/artifacts"
    assert environment.landing_url == f"file://{tmp_path}/landing"
    assert environment.logs_url == f"file://{tmp_path}/dagster/storage"
    assert (environment.project, environment.namespace) == ("", "")
    assert environment.dagster_home == tmp_path / "dagster"


def test_everything_that_is_missing_is_said_at_once_with_what_it_is_for():
    with pytest.raises(BadInput) as caught:
        Environment.of({"ML_ASSETS_ENV": "staging", "ML_ASSETS_OBJECTS": "s3"})
    assert str(caught.value) == (
        "ML_ASSETS_ENV=staging cannot start. "
        "ML_ASSETS_PROJECT is not set: the name that every address is derived from, such as acme-ml. "
        "GOOGLE_APPLICATION_CREDENTIALS is not set: the file of the Google credentials that open BigQuery; or say "
        "ML_ASSETS_CREDENTIALS=attached where the machine has an identity of its own. "
        "AWS_ACCESS_KEY_ID is not set: the AWS key that opens S3; or AWS_PROFILE, or AWS_WEB_IDENTITY_TOKEN_FILE, or "
        "ML_ASSETS_CREDENTIALS=attached. "
        "AWS_SECRET_ACCESS_KEY is not set: the secret that goes with AWS_ACCESS_KEY_ID. "
        "WANDB_API_KEY is not set: the key of W&B, where experiments are tracked; or say ML_ASSETS_TRACKER=disabled. "
        "Set them and start again"
    )


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        ({}, []),
        ({"WANDB_API_KEY": ""}, ["WANDB_API_KEY"]),
        ({"WANDB_API_KEY": "", "ML_ASSETS_TRACKER": "disabled"}, []),
        ({"ML_ASSETS_CREDENTIALS": ""}, ["GOOGLE_APPLICATION_CREDENTIALS"]),
        (
            {"ML_ASSETS_CREDENTIALS": "", "ML_ASSETS_OBJECTS": "s3", "AWS_PROFILE": "ml"},
            ["GOOGLE_APPLICATION_CREDENTIALS"],
        ),
        (
            {"ML_ASSETS_CREDENTIALS": "", "ML_ASSETS_OBJECTS": "s3", "AWS_ACCESS_KEY_ID": "AKIA"},
            ["GOOGLE_APPLICATION_CREDENTIALS", "AWS_SECRET_ACCESS_KEY"],
        ),
        ({"ML_ASSETS_PROJECT": ""}, ["ML_ASSETS_PROJECT"]),
    ],
)
def test_only_what_is_needed_must_be_set(without: dict[str, str], missing: list[str]):
    variables = {"ML_ASSETS_ENV": "production", **ATTACHED, **without}
    if not missing:
        assert Environment.of(variables).name == "production"
        return
    with pytest.raises(BadInput) as caught:
        Environment.of(variables)
    assert re.findall(r"(\w+) is not set", str(caught.value)) == missing


CLOUD = {
    "ML_ASSETS_ENV": "staging",
    **ATTACHED,
    "ML_ASSETS_CREDENTIALS": "",
    "GOOGLE_APPLICATION_CREDENTIALS": __file__,
}
KEY_PAIR = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize(
    ("variables", "sources", "missing"),
    [
        ({**CLOUD, "ML_ASSETS_OBJECTS": "gs"}, "flights=s3://acme/flights", KEY_PAIR),
        ({**CLOUD, "AWS_PROFILE": "ml"}, "flights=s3://acme/flights", []),
        (CLOUD, "flights=bigtable://acme/i/t?family=f", []),
        ({}, "flights=s3://acme/flights", KEY_PAIR),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, "flights=s3://acme/flights", []),
        ({"ML_ASSETS_CREDENTIALS": "attached"}, "flights=s3://acme/flights weather=gs://acme/weather", []),
        ({}, "flights=gs://acme/flights", ["GOOGLE_APPLICATION_CREDENTIALS"]),
        ({}, "flights=bigquery://acme/lake/flights", ["GOOGLE_APPLICATION_CREDENTIALS"]),
        ({}, "flights=bigtable://acme/i/t?family=f", ["GOOGLE_APPLICATION_CREDENTIALS"]),
        ({"BIGTABLE_EMULATOR_HOST": "127.0.0.1:1"}, "flights=bigtable://acme/i/t?family=f", []),
        ({"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"}, "flights=gs://acme/flights", []),
        ({}, "flights=s3://a/b weather=gs://a/b", ["GOOGLE_APPLICATION_CREDENTIALS", *KEY_PAIR]),
        ({}, "flights=file:///data/flights weather=webhdfs://host:9870/weather", []),
        ({"WANDB_API_KEY": "", "ML_ASSETS_TRACKER": "online"}, "", []),
    ],
)
def test_what_opens_the_sources_must_be_set_wherever_the_graph_runs(
    variables: dict[str, str], sources: str, missing: list[str]
):
    variables = {**variables, "ML_ASSETS_SOURCES": sources}
    if not missing:
        assert len(Environment.of(variables).sources) == len(sources.split())
        return
    with pytest.raises(BadInput) as caught:
        Environment.of(variables)
    assert re.findall(r"(\w+) is not set", str(caught.value)) == missing


def test_what_the_google_credentials_are_for_is_said_by_name():
    with pytest.raises(BadInput, match="the Google credentials that open GCS and Bigtable; or say"):
        Environment.of({"ML_ASSETS_SOURCES": "flights=bigtable://a/i/t?family=f weather=gs://a/b planes=gs://a/c"})


def test_a_file_of_credentials_that_is_not_there_is_missing_too(tmp_path: Path):
    variables = {"ML_ASSETS_ENV": "staging", **ATTACHED, "ML_ASSETS_CREDENTIALS": ""}
    file = tmp_path / "key.json"
    with pytest.raises(BadInput, match=f"GOOGLE_APPLICATION_CREDENTIALS={file}: there is no such file"):
        Environment.of({**variables, "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    file.write_text("{}")
    environment = Environment.of({**variables, "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    assert not environment.is_attached


@pytest.mark.parametrize("project", ["Acme", "a", "acme ml", "1acme", "acme-", "a" * 20])
def test_a_project_that_no_google_project_can_be_named_after_is_refused(project: str):
    with pytest.raises(BadInput, match="cannot begin the names of Google projects"):
        Environment.of({**ATTACHED, "ML_ASSETS_ENV": "staging", "ML_ASSETS_PROJECT": project})


def test_a_raw_table_comes_from_where_its_url_says():
    said = (
        "flights=gs://acme-landing/flights  weather=bigquery://acme/observed/weather\nplanes=webhdfs://name:9870/planes"
    )
    assert Environment.of({"ML_ASSETS_SOURCES": said, "ML_ASSETS_CREDENTIALS": "attached"}).sources == {
        "flights": "gs://acme-landing/flights",
        "weather": "bigquery://acme/observed/weather",
        "planes": "webhdfs://name:9870/planes",
    }
    assert Environment.of({}).sources == {}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("flights", "'flights' says not where a table comes from"),
        ("flights=ftp://host/flights", "expected table=URL, the URL one of file://, s3://"),
        ("flights=s3://a/b flights=s3://a/c", "names flights twice: s3://a/b and s3://a/c"),
        ("Flights=s3://a/b", "'Flights' is no identifier"),
    ],
)
def test_a_source_without_meaning_is_refused(said: str, message: str):
    with pytest.raises(BadInput, match=message):
        Environment.of({"ML_ASSETS_SOURCES": said})


def test_a_password_in_a_source_is_refused_and_not_repeated():
    with pytest.raises(BadInput) as caught:
        Environment.of({"ML_ASSETS_SOURCES": "flights=webhdfs://olga:hunter2@name:9870/flights"})
    assert "holds a password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_emulators_are_found_where_their_clients_find_them():
    endpoints = Environment.of(
        {
            "BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1",
            "STORAGE_EMULATOR_HOST": "http://127.0.0.1:2",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:3",
            "BIGTABLE_EMULATOR_HOST": "127.0.0.1:4",
            "WANDB_BASE_URL": "http://127.0.0.1:5",
        }
    ).endpoints
    assert [endpoints.bigquery, endpoints.gcs, endpoints.s3, endpoints.bigtable, endpoints.wandb] == [
        *("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", "127.0.0.1:4", "http://127.0.0.1:5")
    ]


def test_runs_and_studies_are_kept_on_one_server_in_the_cloud_and_its_password_is_not_shown(tmp_path: Path):
    url = "postgresql://dagster:hunter2@db:5432/dagster?sslmode=require"
    studies = "postgresql://dagster:hunter2@db:5432/studies?sslmode=require"
    cloud = {**ATTACHED, "ML_ASSETS_ENV": "staging", "ML_ASSETS_POSTGRES_URL": url, "DAGSTER_HOME": str(tmp_path)}
    environment = Environment.of(cloud)
    assert (environment.postgres_url, environment.studies_url) == (url, studies)
    assert environment.dagster_home == tmp_path
    assert "hunter2" not in repr(environment)
    assert "k" * 40 not in repr(environment)


def test_the_current_environment_is_read_from_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("ML_ASSETS_ENV", raising=False)
    assert Environment.current().home == tmp_path


def test_keras_is_put_on_torch_unless_someone_has_chosen(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    Environment.current()
    assert os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.delenv("KERAS_BACKEND")
    Environment.current()
    assert os.environ["KERAS_BACKEND"] == "torch"


WEBHOOK, MAIL = "https://hooks.slack.com/services/T0/B0/canary", "smtps://me:canary@mail.example.com"


def test_who_is_told_is_kept_and_no_text_of_the_environment_shows_how():
    said = {"ML_ASSETS_SLACK_WEBHOOK": WEBHOOK, "ML_ASSETS_SMTP_URL": MAIL, "ML_ASSETS_ALERT_EMAIL": "a@b.org, c@d.org"}
    environment = Environment.of(said)
    assert (environment.alerting.slack_webhook, environment.alerting.smtp_url) == (WEBHOOK, MAIL)
    assert environment.alerting.emails == ("a@b.org", "c@d.org")
    assert "canary" not in repr(environment)
    assert Environment.of({}).alerting.emails == ()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ML_ASSETS_SLACK_WEBHOOK": "http://hooks.slack.com/services/canary"}, "https://HOST"),
        ({"ML_ASSETS_SLACK_WEBHOOK": "canary"}, "https://HOST"),
        ({"ML_ASSETS_SMTP_URL": "https://me:canary@mail", "ML_ASSETS_ALERT_EMAIL": "a@b.org"}, "smtps://USER"),
        ({"ML_ASSETS_SMTP_URL": "smtp://me:canary@mail:port", "ML_ASSETS_ALERT_EMAIL": "a@b.org"}, "smtps://USER"),
        ({"ML_ASSETS_SMTP_URL": MAIL}, "set both or none"),
        ({"ML_ASSETS_ALERT_EMAIL": "a@b.org"}, "set both or none"),
        ({"ML_ASSETS_SMTP_URL": MAIL, "ML_ASSETS_ALERT_EMAIL": "a@b.org\nBcc:e"}, "expected addresses such as"),
    ],
)
def test_an_address_of_alerts_that_cannot_be_used_is_refused_without_being_shown(variables: dict[str, str], words: str):
    with pytest.raises(BadInput, match=words) as refused:
        Environment.of(variables)
    assert "canary" not in str(refused.value)
