"""dbt in this process, on a DuckDB file of its own for every test that writes."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import duckdb
import pytest

from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.ports import DayRange

PROJECT = Path(__file__).parents[2] / "dbt_project"
# Both nights on which the clocks change, each with the days beside it, and a day of storms with the day after.
LANDED = (
    DayRange(first=date(2013, 2, 8), last=date(2013, 2, 9)),
    DayRange(first=date(2013, 3, 9), last=date(2013, 3, 11)),
    DayRange(first=date(2013, 11, 2), last=date(2013, 11, 4)),
)


class Dbt:
    """One parsed manifest, used for every invocation: what production does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifest = self._invoke(None, "parse", "--no-partial-parse").result

    def __call__(self, warehouse: Path, command: str, first: str, last: str, *more: str):
        os.environ["ML_ASSETS_WAREHOUSE_PATH"] = str(warehouse)
        days = json.dumps({"first_day": first, "last_day": last})
        return self._invoke(self._manifest, command, "--no-write-json", "--vars", days, *more)

    def _invoke(self, manifest, *arguments: str):
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager
        from dbt.adapters.factory import reset_adapters
        from dbt.cli.main import dbtRunner

        folders = ["--project-dir", PROJECT, "--profiles-dir", PROJECT, "--target-path", self._folder]
        quiet = ["--log-level=none", "--log-level-file=none", "--no-version-check", "--target=local"]
        try:
            return dbtRunner(manifest=manifest).invoke([*quiet, *arguments, *map(str, folders)])
        finally:
            reset_adapters()
            DuckDBConnectionManager.close_all_connections()


@contextmanager
def utc_connection(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(path)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        yield connection


@pytest.fixture(scope="session")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dbt]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_ASSETS_WAREHOUSE_PATH", str(tmp_path_factory.mktemp("parse") / "warehouse.duckdb"))
        yield Dbt(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="session")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with raw tables and nothing else; to be copied, not written."""
    path = tmp_path_factory.mktemp("landed") / "warehouse.duckdb"
    source = NycFlights13Source(is_replaying=False)
    with utc_connection(path) as connection:
        connection.execute("create schema raw")
        for table in ("airports", "planes", "airlines"):
            connection.register("rows", source.read(table))
            connection.execute(f"create table raw.{table} as select * from rows")
        for table in ("schedules", "flights", "weather"):
            for n, days in enumerate(LANDED):
                connection.register("rows", source.read(table, days))
                verb = f"insert into raw.{table}" if n else f"create table raw.{table} as"
                connection.execute(f"{verb} select * from rows")
    return path


@pytest.fixture(scope="session")
def built(dbt: Dbt, landed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with the whole project built for all landed days; to be copied, not written."""
    path = tmp_path_factory.mktemp("built") / "warehouse.duckdb"
    shutil.copy(landed, path)
    result = dbt(path, "build", "2013-01-01", "2013-12-31", "--exclude-resource-type", "unit_test")
    assert result.success, [(node.node.name, node.message) for node in result.result.results]
    return path


@pytest.fixture
def warehouse(built: Path, tmp_path: Path) -> Path:
    """A copy of the built warehouse for one test."""
    return Path(shutil.copy(built, tmp_path / "warehouse.duckdb"))


@pytest.fixture
def query(built: Path) -> Iterator[Callable[[str], list[tuple]]]:
    """Ask the built warehouse."""
    with utc_connection(built) as connection:
        yield lambda sql: connection.execute(sql).fetchall()


@pytest.fixture(scope="session")
def open_warehouse() -> Callable:
    """Open a warehouse's file, with every moment in UTC."""
    return utc_connection
