"""This machine: the Python packages, the time zones, and the folder that Dagster reads its settings from."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from ml_assets.backends.environments import Environment
from ml_assets.core.days import LOCAL_ZONE_NAME
from ml_assets.doctor.checkup import Skipped, Trouble

_MOST_NAMED = 4
# What only the cloud needs.
_OF_THE_CLOUD = ("dagster-postgres", "psycopg", "dagster-gcp", "dagster-aws", "dbt-bigquery")


def packages(constraints: Path, *, is_cloud: bool) -> str:
    """Compare what is installed with the versions that were tested together."""
    missing = [name for name in _OF_THE_CLOUD if is_cloud and _version(name) is None]
    if missing:
        raise Trouble(f"{', '.join(missing)} not installed", do="pip install -c constraints.txt 'ml-assets[postgres]'")
    if not constraints.is_file():
        raise Skipped(f"there is no {constraints} to compare with")
    pinned = dict(_pins(constraints.read_text()))
    installed = {name: version for name in pinned if (version := _version(name)) is not None}
    # The build of a version, as in 2.13.0+cpu, is the machine's choice.
    other = [
        f"{name} {version} (expected {pinned[name]})"
        for name, version in installed.items()
        if pinned[name] not in (version, version.partition("+")[0])
    ]
    if other:
        more = f" and {len(other) - _MOST_NAMED} more" if len(other) > _MOST_NAMED else ""
        raise Trouble(
            f"not the versions that were tested: {', '.join(other[:_MOST_NAMED])}{more}",
            do="pip install -c constraints.txt -e '.[dev]'",
            status="warn",
        )
    return f"{len(installed)} packages as in constraints.txt"


def time_zones() -> str:
    """Ask for New York's clock on both sides of a change: without the data every partition would be wrong."""
    try:
        zone = ZoneInfo(LOCAL_ZONE_NAME)
    except ZoneInfoNotFoundError as error:
        raise Trouble(f"this machine does not know {LOCAL_ZONE_NAME}", do="pip install tzdata") from error
    hours = [datetime(2013, 3, day, 12, tzinfo=UTC).astimezone(zone).utcoffset() for day in (9, 11)]
    if hours != [timedelta(hours=-5), timedelta(hours=-4)]:
        raise Trouble(f"the clock of {LOCAL_ZONE_NAME} does not change on 2013-03-10", do="pip install -U tzdata")
    return f"{LOCAL_ZONE_NAME}: UTC-5 on 2013-03-09, UTC-4 on 2013-03-11"


def dagster_settings(environment: Environment, template: Path) -> str:
    """Look for the dagster.yaml of this environment."""
    file = environment.dagster_home / "dagster.yaml"
    if environment.name == "local" and not file.exists():
        raise Skipped(f"{file} is written at the first run")
    if not file.is_file():
        raise Trouble(
            f"there is no {file}",
            do=f"mkdir -p {file.parent} && cp {template} {file}, and set DAGSTER_HOME={file.parent}",
        )
    settings = cast("dict[str, object] | None", yaml.safe_load(file.read_text())) or {}
    if environment.name != "local" and "postgres" not in cast("dict[str, object]", settings.get("storage") or {}):
        raise Trouble(
            f"{file} keeps runs in no PostgreSQL: it is a laptop's",
            do=f"set DAGSTER_HOME to a folder of its own and copy {template} into it",
        )
    return str(file)


def _pins(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        found = re.match(r"([\w.-]+)==([\w.+!-]+)", line)
        if found:
            yield found[1], found[2]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
