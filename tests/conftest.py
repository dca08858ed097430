"""A small life of the real use case on two weeks of real flights, built once and given to each test as a fresh copy."""

import atexit
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from ml_assets import use_cases
from ml_assets.backends.environments import Environment
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.ports import DayRange
from ml_assets.core.spec import PromotionRule, SplitRule, UseCase
from ml_assets.lifecycle import LANDING, SERVING, Lifecycle
from ml_assets.use_cases import arrival_delay
from tests import sqlite_that_waits_for_no_disk  # noqa: F401 - as soon as it is imported
from tests.servers.postgres import PostgresMissing, PostgresServer, postgres_server
from tests.servers.s3 import KEYS

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler.loadfile import LoadFileScheduling

    from tests.cloud import Cloud
    from tests.servers.gcs import GcsServer

_SHARE_THE_CLOUD = {f"tests/test_{name}.py" for name in ("bigquery_sql", "same_graph", "secrets")}
# Files that take minutes each, the longest first: one that is begun last is waited for by an idle worker.
_BEGIN_FIRST = (
    *("unattended/test_unattended", "test_readme", "test_bigquery_sql", "test_same_graph", "test_secrets"),
    *(
        "scenarios/test_scenarios",
        "test_end_to_end",
        "test_bad_input",
        "test_kills",
        "defs/test_landing",
        "test_doctor",
    ),
    *("deploy/test_runs_on_kubernetes", "backends/test_wandb_tracker", "dbt/test_days", "servers/test_bigquery"),
    "test_replaying",
)
_DATA = ("warehouse.duckdb", "artifacts", "work", "studies")


@dataclass(frozen=True, kw_only=True)
class Home:
    """A folder with all state of one environment: what is in its tables, what is in its files."""

    path: Path

    def tables(self) -> dict[str, pa.Table]:
        """Return the rows of every table that is stored, sorted by all columns; views only repeat these."""
        with duckdb.connect(str(self.path / "warehouse.duckdb")) as connection:
            connection.execute("set TimeZone = 'UTC'")
            found = "select schema_name || '.' || table_name from duckdb_tables() order by all"
            names = [name for (name,) in connection.execute(found).fetchall()]
            return {name: connection.sql(f"select * from {name} order by all").to_arrow_table() for name in names}

    def files(self) -> dict[str, bytes]:
        """Return the content of every artifact, by path, but for the log of trainings, which grows with each."""
        folder = self.path / "artifacts"
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return {path: content for path, content in found.items() if not path.startswith("experiments/")}

    def copy_to(self, path: Path) -> "Home":
        """Replace the tables and artifacts of another home by these; what Dagster remembers there stays."""
        path.mkdir(exist_ok=True)
        for name in _DATA:
            target = path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            source = self.path / name
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():
                shutil.copy(source, target)
        return Home(path=path)


@dataclass(frozen=True, kw_only=True)
class Life:
    """The asset graph over a home: days landed, models trained, days served, as the command line does it."""

    lifecycle: Lifecycle
    use_case: UseCase
    home: Home
    events: list[dg.DagsterEvent] = field(default_factory=list)

    def query(self, sql: str, **parameters: date | str) -> pa.Table:
        """Return the rows of a SELECT."""
        return self.lifecycle.warehouse.query(sql, parameters)

    def land(self, first: date, last: date | None = None) -> None:
        """Run raw, features and examples."""
        self.lifecycle.run_groups(LANDING, DayRange(first=first, last=last or first))

    def train(self, as_of: date) -> bool:
        """Run training set, candidate and champion; tell whether it was promoted."""
        return self.lifecycle.train(self.use_case, as_of)

    def serve(self, first: date, last: date | None = None) -> None:
        """Run predictions and monitoring."""
        self.lifecycle.run_groups(SERVING, DayRange(first=first, last=last or first))

    def facts(self, asset: str) -> Mapping[str, object]:
        """Return the metadata of an asset's newest materialization since this test began."""
        found = [e for e in self.events if e.is_step_materialization and e.asset_key == dg.AssetKey(asset.split("/"))]
        return {name: value.value for name, value in found[-1].materialization.metadata.items()}

    def check(self, asset: str, name: str) -> dg.AssetCheckEvaluation:
        """Return the newest evaluation of a check since this test began."""
        found = [e.asset_check_evaluation_data for e in self.events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
        key = dg.AssetCheckKey(dg.AssetKey(asset.split("/")), name)
        return next(evaluation for evaluation in reversed(found) if evaluation.asset_check_key == key)


def small_use_case() -> UseCase:
    """Return the real use case with a network that trains in a second, judged by rules that two weeks can satisfy."""
    return replace(
        arrival_delay.USE_CASE,
        hyperparameters={"layer_sizes": "16", "n_epochs": 2, "learning_rate": 0.01},
        baseline_features=("n_planned_departures_origin",),
        split=SplitRule(train_days=7, validation_days=2, test_days=3, minimum_train_days=3),
        # Three days of holdout tell no noise, and a machine that runs tests may be slow.
        promotion=PromotionRule(
            minimum_roc_auc=0.5,
            maximum_calibration_error=0.3,
            confidence=0.5,
            against_champion="not_worse",
            may_lose_to_champion_by=1.0,
            slice_may_lose_log_loss=1.0,
            slice_may_lose_roc_auc=1.0,
            maximum_one_row_ms=10_000,
            maximum_thousand_rows_ms=10_000,
        ),
    )


def live(life: Life) -> None:
    """Land two weeks, train twice, serve three days."""
    life.land(date(2013, 1, 1), date(2013, 1, 14))
    assert life.train(date(2013, 1, 12))
    assert life.train(date(2013, 1, 14))
    life.serve(date(2013, 1, 12), date(2013, 1, 14))


@contextmanager
def environment_of(home: Path) -> Iterator[None]:
    """Let this process live in a home, without an experiment tracker."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # dagster-dbt installs what sqlglot has deprecated, and calls what dagster has deprecated.
        warnings.filterwarnings("ignore", "sqlglotrs is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "AssetExecutionContext.op is deprecated", DeprecationWarning)
        # ml_assets.definitions ignores them too, but as it is imported: for the test that happens to import it first.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        patch.setenv("ML_ASSETS_HOME", str(home))
        patch.setenv("ML_ASSETS_TRACKER", "disabled")
        yield


@contextmanager
def only_use_case(use_case: UseCase) -> Iterator[None]:
    """Let the graph that is loaded meanwhile have this use case, in place of ``arrival_delay``, and no other."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(arrival_delay, "USE_CASE", use_case)
        (Path(folder) / "arrival_delay.py").touch()
        patch.setattr(use_cases, "__path__", [folder])
        yield


def small_life(on_event: Callable[[dg.DagsterEvent], None]) -> tuple[Lifecycle, UseCase]:
    """Return the asset graph of the small use case alone; to be called, and used, inside ``environment_of``."""
    use_case = small_use_case()

    def pass_on(entry: dg.EventLogEntry) -> None:
        if entry.dagster_event is not None:
            on_event(entry.dagster_event)

    with only_use_case(use_case):
        return Lifecycle(Environment.current(), on_event=pass_on), use_case


@pytest.fixture(scope="session")
def _shared_life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Life, Home]:
    """The graph over one folder, and the state each test finds in it.

    2013-01-01 to 2013-01-14 are landed; one model is in charge from 2013-01-12 on, another from 2013-01-14; both days
    and the one between are predicted and monitored.
    """
    folder = tmp_path_factory.mktemp("life")
    home, events = Home(path=folder / "home"), []
    with environment_of(home.path):
        lifecycle, use_case = small_life(events.append)
        life = Life(lifecycle=lifecycle, use_case=use_case, home=home, events=events)
        live(life)
    return life, home.copy_to(folder / "as_built")


@pytest.fixture(scope="session")
def as_built(_shared_life: tuple[Life, Home]) -> Home:
    """The state that ``life`` begins with; to be copied or read, not written."""
    return _shared_life[1]


@pytest.fixture
def life(_shared_life: tuple[Life, Home]) -> Iterator[Life]:
    """Two weeks of real flights with their champions: a fresh state for every test."""
    life, as_built = _shared_life
    as_built.copy_to(life.home.path)
    life.events.clear()
    with environment_of(life.home.path):
        yield life


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, one for all tests: each takes a database of its own."""
    try:
        with postgres_server() as server:
            yield server
    except PostgresMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Cloud"]:
    """The same life in the staging environment, on servers of its own; to be read, not written."""
    from tests.cloud import staging

    with staging(tmp_path_factory.mktemp("cloud")) as found:
        yield found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the long files come first; all others keep their order, and so do the tests of a file."""
    places = {config.rootpath / "tests" / f"{name}.py": place for place, name in enumerate(_BEGIN_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer | None") -> "LoadFileScheduling | None":
    """Let the files that share ``cloud`` be one to ``--dist loadfile``: in two workers each would live its own life.

    And let files be begun in the order of ``pytest_collection_modifyitems``, not by how many tests they have.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    from xdist.scheduler.loadfile import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "cloud" if file in _SHARE_THE_CLOUD else file

    return Together(config, log)


def pytest_unconfigure() -> None:
    """Keep quiet after the summary: with torch loaded, DuckDB's binding prints a page about leaks that are none.

    Only as the process ends: until then pytest puts the stream back that it captured.
    """
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a server that speaks S3's protocol, with an empty bucket called ``bucket``."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto, a stand-in for S3, is absent")
    from tests.servers.s3 import s3_server

    with s3_server("bucket") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def gcs() -> Iterator["GcsServer"]:
    """A server that speaks the protocol of Cloud Storage, with an empty bucket called ``bucket``."""
    if importlib.util.find_spec("gcp_storage_emulator") is None:
        pytest.skip("gcp-storage-emulator is absent")
    from tests.servers.gcs import gcs_server

    with gcs_server("bucket") as server:
        yield server


@pytest.fixture(params=["local", "memory", "s3", "gcs"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectArtifactStore:
    """One empty artifact store of each kind; in the buckets each test has a folder of its own."""
    if request.param == "local":
        return ObjectArtifactStore((tmp_path / "artifacts").as_uri())
    if request.param == "memory":
        return ObjectArtifactStore("memory://")
    folder, patience = tmp_path.name.lower().replace("_", "-"), timedelta(seconds=10)
    if request.param == "gcs":
        gcs = request.getfixturevalue("gcs")
        return ObjectArtifactStore(f"gs://bucket/{folder}", endpoint=gcs.url, patience=patience)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return ObjectArtifactStore(f"s3://bucket/{folder}", endpoint=request.getfixturevalue("s3"), patience=patience)
