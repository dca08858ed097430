"""deploy/docker/compose.yaml with its variables in their places, as ``docker compose`` fills them in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "deploy" / "docker"
COMPOSE = DOCKER / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


class NotSet(Exception):
    """A variable has no value, and compose stops."""


def interpolated(variables: Mapping[str, str]) -> str:
    """Return the text of the file; raise NotSet for ``${NAME:?what it is}`` without a value."""

    def fill(found: "re.Match[str]") -> str:
        name, how, text = found.groups()
        if value := variables.get(name):
            return value
        if how != "-":
            raise NotSet(f"{name}: {text}")
        return str(text)

    lines = COMPOSE.read_text().splitlines()
    return "\n".join(line if line.lstrip().startswith("#") else _VARIABLE.sub(fill, line) for line in lines)


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the services, with what their anchors stand for."""
    return dict(yaml.safe_load(interpolated(variables))["services"])
