"""The validated names of tables, models and artifacts; anything that fails here reaches neither SQL nor a path."""

import re

from ml_assets.core.errors import InvalidName

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SEGMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


def identifier(name: str) -> str:
    """Return a column, schema or use-case name unchanged if it is safe inside SQL.

    >>> identifier("wind_speed_mph")
    'wind_speed_mph'
    """
    if not _IDENTIFIER.fullmatch(name):
        raise InvalidName(f"{name!r} is no identifier; expected lower-case letters, digits and '_', at most 63 of them")
    return name


def table_name(name: str) -> str:
    """Return a ``schema.table`` name unchanged if both halves are identifiers.

    >>> table_name("features.feat_origin_weather")
    'features.feat_origin_weather'
    """
    schema, dot, table = name.partition(".")
    if not dot:
        raise InvalidName(f"{name!r} is no table name; expected schema.table")
    return f"{identifier(schema)}.{identifier(table)}"


def artifact_path(path: str) -> str:
    """Return an artifact's path unchanged if no segment can leave the store's root.

    >>> artifact_path("models/arrival_delay/2013-07-01-3fa2c1d0/manifest.json")
    'models/arrival_delay/2013-07-01-3fa2c1d0/manifest.json'
    """
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or ".." in segment:
            raise InvalidName(
                f"{path!r} is no artifact path; expected segments of a-z, 0-9, '.', '_', '-', none starting with '.'"
            )
    return path
