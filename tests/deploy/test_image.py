"""The image and the compose file: parsed by Docker's parser and the compose specification's, and asked what they do.

No Docker is here: tests/deploy/test_compose_processes.py starts the commands of the services as processes.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import dockerfile
import pytest
import sqlglot
import yaml
from compose_spec import PyCompose
from sqlglot import exp

from ml_assets.backends.environments import Environment
from tests.deploy import compose

ROOT = Path(__file__).parents[2]
DOCKER = compose.DOCKER
SET = {
    "ML_ASSETS_IMAGE": "registry/ml-assets:1a2b3c4",
    "ML_ASSETS_ENV": "staging",
    "ML_ASSETS_PROJECT": "acme-ml",
    "POSTGRES_PASSWORD": "canaryofpostgres",
    "WANDB_API_KEY": "canary-of-the-tracker",
    "GOOGLE_CREDENTIALS_FILE": "/etc/ml-assets/google.json",
    "DAGSTER_CREDENTIALS_FILE": "/etc/ml-assets/dagster.json",
    "HTPASSWD_FILE": "/etc/ml-assets/htpasswd",
}
SERVICES = compose.services(SET)
COMMANDS = dockerfile.parse_file(str(DOCKER / "Dockerfile"))
FINAL = COMMANDS[max(n for n, command in enumerate(COMMANDS) if command.cmd.upper() == "FROM") :]


def of_final(instruction: str) -> list[tuple[str, ...]]:
    return [command.value for command in FINAL if command.cmd.upper() == instruction]


def test_the_base_is_named_to_the_patch_and_the_build_stages_stay_behind():
    (base,) = [
        command.value[0] for command in COMMANDS if command.cmd.upper() == "ARG" and command.value[0].startswith("BASE")
    ]
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.11\.\d+-slim-bookworm", base)
    stages = [command.value for command in COMMANDS if command.cmd.upper() == "FROM"]
    assert stages == [("${BASE}", "AS", "packages"), ("packages", "AS", "code"), ("${BASE}",)]
    # What pip needs to build stays in its stage: the final one copies, and installs nothing.
    assert not any("pip" in text or "apt-get" in text for (text,) in of_final("RUN"))


def test_it_runs_as_a_number_that_is_not_root():
    assert of_final("USER") == [("10001:10001",)]
    assert FINAL.index(next(c for c in FINAL if c.cmd.upper() == "USER")) < FINAL.index(
        next(c for c in FINAL if c.cmd.upper() == "CMD")
    )


def test_it_says_how_to_tell_that_it_is_well():
    (check,) = of_final("HEALTHCHECK")
    assert check[0] == "CMD"
    assert check[-1] == "4000"


def test_all_that_it_copies_is_there_and_passes_the_dockerignore():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [c for c in COMMANDS if c.cmd.upper() == "COPY" and not any(flag.startswith("--from") for flag in c.flags)]
    sources = [source for command in copied for source in command.value[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed
    # And nothing else comes along: not data, not keys, not .env, not the history.
    assert sorted(allowed) == sorted(set(sources))
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_no_layer_holds_a_secret():
    text = (DOCKER / "Dockerfile").read_text()
    assert not re.search(r"(?im)^\s*(ENV|ARG)\s.*(KEY|PASSWORD|TOKEN|SECRET|CREDENTIALS)", text)


def test_a_package_that_the_lock_does_not_name_ends_the_build(tmp_path: Path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import packages; print(packages.not_locked(%s, %r, torch=%r))"
    lock = "numpy==2.4.6\nzope.interface==8.0  # a name is one name however it is written\ntorch==2.13.0\n"
    found = [("NumPy", "2.4.6"), ("zope-interface", "8.0"), ("torch", "2.13.0+cpu"), ("pip", "24"), ("triton", "3.7.1")]
    for torch, expected in (("cpu", ["triton==3.7.1"]), ("cu130", [])):
        command = [sys.executable, "-c", code % (found, lock, torch), str(DOCKER)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == str(expected)
    command = [sys.executable, "-c", code % ([("numpy", "2.4.5")], lock, "cpu"), str(DOCKER)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "['numpy==2.4.5']"


def test_what_it_installs_is_what_the_project_says():
    extras = re.findall(r"packages.py requirements ([\w ]+) >", (DOCKER / "Dockerfile").read_text())[0].split()
    done = subprocess.run(
        [sys.executable, DOCKER / "packages.py", "requirements", *extras], capture_output=True, text=True, cwd=ROOT
    )
    assert any(line.startswith("dagster-k8s") for line in done.stdout.splitlines()), done.stderr
    assert any(line.startswith("dagster>=") for line in done.stdout.splitlines())
    assert any(line.startswith("psycopg") for line in done.stdout.splitlines())
    unknown = [sys.executable, DOCKER / "packages.py", "requirements", "no_such_extra"]
    assert "KeyError" in subprocess.run(unknown, capture_output=True, text=True, cwd=ROOT).stderr


def test_compose_is_what_the_specification_allows():
    document = yaml.safe_load(compose.interpolated(SET))
    parsed = PyCompose.from_yaml(yaml.safe_dump(document))
    parsed.validate()
    assert set(parsed.service_names()) == {"postgres", "code", "daemon", "webserver", "proxy"}
    document["services"]["code"]["restrat"] = "always"
    with pytest.raises(ValueError, match="restrat"):
        PyCompose.from_yaml(yaml.safe_dump(document))


def test_the_database_of_studies_that_the_environment_derives_is_made_beside_that_of_dagster():
    postgres, code = SERVICES["postgres"], SERVICES["code"]
    of_code = {**code["environment"], "ML_ASSETS_CREDENTIALS": "attached", "GOOGLE_APPLICATION_CREDENTIALS": ""}
    environment = Environment.of(of_code)
    made = [volume.split(":") for volume in postgres["volumes"] if "/docker-entrypoint-initdb.d/" in volume]
    assert [(where, how) for _, where, how in made] == [("/docker-entrypoint-initdb.d/studies.sql", "ro")]
    [statement] = sqlglot.parse((DOCKER / made[0][0]).read_text(), dialect="postgres")
    assert isinstance(statement, exp.Create)
    assert statement.kind == "DATABASE"
    assert urlsplit(environment.studies_url).path == f"/{statement.this.name}"
    assert urlsplit(environment.postgres_url or "").path == f"/{postgres['environment']['POSTGRES_DB']}"


@pytest.mark.parametrize("name", SET)
def test_compose_stops_at_a_variable_without_a_value(name: str):
    with pytest.raises(compose.NotSet, match=name):
        compose.interpolated({**SET, name: ""})


def test_the_example_of_the_environment_names_every_variable_and_gives_no_secret_a_value():
    lines = [line for line in (DOCKER / "env.example").read_text().splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    assert set(example) == set(SET)
    assert {name for name, value in example.items() if value} == {"ML_ASSETS_ENV"}


def test_the_proxy_alone_is_published_and_on_this_machine_only():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert SERVICES["proxy"]["ports"] == ["127.0.0.1:8080:8080"]
    assert "webserver" not in [n for n, s in SERVICES.items() if "published" in s["networks"]]
    assert SERVICES["postgres"]["networks"] == ["storage"]
    networks = yaml.safe_load(compose.interpolated(SET))["networks"]
    assert networks["storage"] == networks["web"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_watched_and_unprivileged(name: str):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    # The image brings its own for the code server.
    assert name == "code" or service["healthcheck"]["test"]
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", service["image"])
    assert not service["image"].endswith(":latest")


def test_the_key_of_the_tracker_goes_to_the_code_alone():
    assert [name for name, service in SERVICES.items() if "WANDB_API_KEY" in service.get("environment", {})] == ["code"]


def test_with_s3_every_service_of_dagster_has_its_keys():
    services = compose.services(
        {**SET, "ML_ASSETS_OBJECTS": "s3", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    )
    for name in ("code", "daemon", "webserver"):
        given = {key: str(value or "") for key, value in services[name]["environment"].items()}
        found = Environment.of({**given, "GOOGLE_APPLICATION_CREDENTIALS": __file__})
        assert found.artifacts_url == "s3://acme-ml-staging-artifacts", name
    assert set(services["proxy"].get("environment", {})) == set()


def test_what_the_image_parsed_replaces_what_another_image_left_in_the_volume(tmp_path: Path):
    image, home = tmp_path / "parsed", tmp_path / "home"
    script = tmp_path / "entrypoint.sh"
    script.write_text((DOCKER / "entrypoint.sh").read_text().replace("/opt/parsed", str(image)))
    command = ["sh", str(script), "cat", str(home / "dbt" / "acme-ml-staging" / "manifest.json")]

    def started(environment: dict[str, str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **environment})
        return done.stdout or done.stderr

    (image / "dbt" / "acme-ml-staging").mkdir(parents=True)
    home.mkdir()
    for content in ("of the first image", "of the second", "of the second", "of the first image"):
        (image / "dbt" / "acme-ml-staging" / "manifest.json").write_text(content)
        assert started({"ML_ASSETS_HOME": str(home)}) == content
        (home / "dbt" / "acme-ml-staging" / "column_lineage.json").touch()
    # Nothing that a container makes for itself goes, and no half of a copy stays.
    assert sorted(path.name for path in home.rglob("*.*")) == ["column_lineage.json", "manifest.json"]

    (image / "dbt" / "acme-ml-staging" / "manifest.json").unlink()  # built without ML_ASSETS_PROJECT
    assert started({"ML_ASSETS_HOME": str(home)}) == "of the first image"
    # A volume that cannot be written to stops the container, with a reason.
    (image / "dbt" / "acme-ml-staging" / "manifest.json").write_text("of a third")
    (tmp_path / "file").touch()
    assert "Not a directory" in started({"ML_ASSETS_HOME": str(tmp_path / "file")})
