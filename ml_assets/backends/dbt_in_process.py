"""dbt inside this process: one parse, then one invocation per run; no child process that could outlive a kill."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from ml_assets.core.column_lineage import ColumnLineage, column_lineage
from ml_assets.core.errors import WarehouseError
from ml_assets.core.ports import DayRange

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest
    from dbt_common.events.base_types import EventMsg

_RESULT_EVENTS = {"LogModelResult", "LogTestResult", "LogSeedResult"}
_FAILED = {"error", "fail", "runtime error"}
_QUIET = [
    "--quiet",
    "--log-level=none",
    "--no-use-colors",
    "--log-level-file=none",
    "--no-send-anonymous-usage-stats",
    "--no-version-check",
]


@dataclass(frozen=True, kw_only=True)
class DbtBuild:
    """What one invocation did: dbt's own result events, a line for each node that failed; SQL and seconds by table.

    ``costs`` is table -> ``bytes_billed`` and ``slot_seconds``, as far as the warehouse says it; DuckDB does not.
    """

    events: tuple[Mapping[str, object], ...]
    failures: tuple[str, ...]
    compiled: Mapping[str, str]
    seconds: Mapping[str, float]
    costs: Mapping[str, Mapping[str, float]]


def together(builds: Sequence[DbtBuild]) -> DbtBuild:
    """Return several builds as one: seconds and costs add up where a model was built for several stretches of days."""
    seconds: dict[str, float] = {}
    costs: dict[str, dict[str, float]] = {}
    for build in builds:
        for table, n in build.seconds.items():
            seconds[table] = seconds.get(table, 0.0) + n
        for table, cost in build.costs.items():
            so_far = costs.setdefault(table, {})
            so_far |= {name: so_far.get(name, 0.0) + value for name, value in cost.items()}
    return DbtBuild(
        events=tuple(event for build in builds for event in build.events),
        failures=tuple(failure for build in builds for failure in build.failures),
        compiled={table: sql for build in builds for table, sql in build.compiled.items()},
        seconds=seconds,
        costs=costs,
    )


# What dbt reads of a project; the two configuration files are among them.
_READ = (".sql", ".yml", ".yaml", ".csv", ".md", ".py")


class DbtInProcess:
    """A dbt project against one warehouse. The manifest is parsed when it is missing or was made of other files.

    Every file it keeps begins with the digest of the project that it was made of: no kill and no second process can
    part the two. Times are not compared: those of an image's files may all be 1970, and code that is rolled back is
    older than what was made of its successor.

    ``target`` is one of the profile's; ``variables`` are those it needs. ``target_folder`` is where dbt writes its
    manifest and compiled SQL, which hold the names of one warehouse: ``target`` in the project unless given.
    """

    def __init__(
        self,
        project_folder: Path,
        *,
        target: str,
        variables: Mapping[str, str],
        target_folder: Path | None = None,
    ) -> None:
        self.project_folder = project_folder
        self.target_folder = target_folder or project_folder / "target"
        self._target = target
        self._variables = dict(variables)

    def prepare(self) -> Path:
        """Return the path of an up-to-date manifest.json, parsing the project first if it must be."""
        manifest = self.target_folder / "manifest.json"
        if not self._is_current(manifest):
            self._parse()
        return manifest

    def _is_current(self, path: Path) -> bool:
        mark = self._mark()
        try:
            with path.open("rb") as file:
                return file.read(len(mark)) == mark
        except FileNotFoundError:
            return False

    def build(self, selection: Sequence[str], *, days: DayRange) -> DbtBuild:
        """Run and test the selected models for these days, in one dbt invocation.

        A failed model or test is reported in ``failures``, after everything that does not depend on it was built.
        """
        from dbt.adapters.factory import reset_adapters
        from google.protobuf.json_format import MessageToDict

        events: list[Mapping[str, object]] = []

        def keep(event: "EventMsg") -> None:
            if event.info.name in _RESULT_EVENTS:
                events.append(MessageToDict(event, preserving_proto_field_name=True))  # type: ignore[arg-type]

        variables = {**self._variables, "first_day": days.first.isoformat(), "last_day": days.last.isoformat()}
        try:
            result = _runner()(manifest=self._manifest[1], callbacks=[keep]).invoke(
                [
                    *(*_QUIET, "--no-write-json", "build", *selection),
                    *("--exclude-resource-type", "unit_test", *self._arguments(variables)),
                ]
            )
        finally:
            # dbt keeps its connection open otherwise, and with it the lock on the DuckDB file.
            reset_adapters()
            if self._dialect == "duckdb":
                _close_duckdb()
        if result.exception is not None:
            raise WarehouseError(f"dbt could not run: {result.exception}") from result.exception
        nodes = getattr(result.result, "results", [])
        models = {f"{n.node.schema}.{n.node.name}": n for n in nodes if n.node.resource_type == "model"}
        return DbtBuild(
            events=tuple(events),
            failures=tuple(f"{n.node.unique_id}: {n.message}" for n in nodes if str(n.status) in _FAILED),
            compiled={table: n.node.compiled_code for table, n in models.items() if n.node.compiled_code},
            seconds={table: float(n.execution_time) for table, n in models.items()},
            costs={table: _cost(n.adapter_response) for table, n in models.items()},
        )

    def run_examples(self) -> Mapping[str, Mapping[str, str]]:
        """Run the examples that the models are tested by (dbt's unit tests); nothing is built and no table changed.

        Returns table -> example -> ``pass``, or what went wrong. A table without an example is not in it. The tables
        that a model reads must be there: dbt asks them for their columns.
        """
        from dbt.adapters.factory import reset_adapters

        variables = {**self._variables, "first_day": "2013-01-01", "last_day": "2013-01-01"}  # each names its own days
        try:
            result = _runner()(manifest=self._manifest[1]).invoke(
                [
                    *(*_QUIET, "--no-write-json", "test", "--select", "test_type:unit"),
                    *self._arguments(variables),
                ]
            )
        finally:
            reset_adapters()
            if self._dialect == "duckdb":
                _close_duckdb()
        if result.exception is not None:
            raise WarehouseError(f"dbt could not run: {result.exception}") from result.exception
        tables = {str(node["name"]): f"{node['schema']}.{node['alias']}" for node in self._models}
        examples = self.manifest_document["unit_tests"]
        found: dict[str, dict[str, str]] = {}
        for one in getattr(result.result, "results", []):
            status = "pass" if str(one.status) == "pass" else " ".join(str(one.message or one.status).split())
            found.setdefault(tables[str(examples[one.node.unique_id]["model"])], {})[one.node.name] = status
        return found

    def debug(self) -> str:
        """Return what ``dbt debug`` finds wrong with profile and connection, nothing where all is well."""
        from dbt.adapters.factory import reset_adapters
        from google.protobuf.json_format import MessageToDict

        told: list[str] = []

        def keep(event: "EventMsg") -> None:
            if event.info.name == "DebugCmdResult":
                told.append(str(MessageToDict(event.info).get("msg", "")))  # type: ignore[arg-type]

        with tempfile.TemporaryDirectory() as logs:
            try:
                result = _runner()(callbacks=[keep]).invoke(
                    [*_QUIET, "--log-path", logs, "debug", "--connection", *self._project(self._variables)]
                )
            finally:
                reset_adapters()
                if self._target == "local":
                    _close_duckdb()
        if result.success:
            return ""
        return " ".join(" ".join(told).split()) or str(result.exception)

    @cached_property
    def manifest_document(self) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
        """The manifest as the JSON document that dagster-dbt reads."""
        return msgspec.json.decode(self.prepare().read_bytes())

    def table_of(self, unique_id: str) -> str:
        """Return the schema.table that a model is built as."""
        node = self.manifest_document["nodes"][unique_id]
        return f"{node['schema']}.{node['alias']}"

    @cached_property
    def partitioned_tables(self) -> frozenset[str]:
        """The tables that hold one partition per day; the other models are views."""
        nodes = self.manifest_document["nodes"].items()
        return frozenset(
            self.table_of(i)
            for i, n in nodes
            if cast("dict[str, str]", n["config"]).get("materialized") == "incremental"
        )

    @cached_property
    def tables_with_rows_every_day(self) -> frozenset[str]:
        """The partitioned tables of which no day is empty: those without ``days_may_be_empty`` in their meta."""
        nodes = self.manifest_document["nodes"].items()
        quiet = {
            self.table_of(i)
            for i, n in nodes
            if cast("dict[str, dict[str, object]]", n["config"]).get("meta", {}).get("days_may_be_empty")
        }
        return self.partitioned_tables - quiet

    @property
    def _models(self) -> Sequence[Mapping[str, object]]:
        return [node for node in self.manifest_document["nodes"].values() if node["resource_type"] == "model"]

    def selecting(self, tables: Iterable[str]) -> list[str]:
        """Return the arguments that select the models that these tables are built by."""
        names = {f"{node['schema']}.{node['alias']}": str(node["name"]) for node in self._models}
        return ["--select", *(names[table] for table in tables)]

    @cached_property
    def parents(self) -> Mapping[str, Sequence[str]]:
        """The tables that each model reads: schema.table -> schema.table, sorted."""
        document = self.manifest_document
        parents = cast("Mapping[str, Sequence[str]]", document["parent_map"])
        sources = {i: f"{source['schema']}.{source['name']}" for i, source in document["sources"].items()}
        return {
            self.table_of(one): sorted(sources.get(parent) or self.table_of(parent) for parent in parents[one])
            for one in document["nodes"]
            if one.startswith("model.")
        }

    @cached_property
    def raw_tables(self) -> Mapping[str, frozenset[str]]:
        """The raw tables that each model is made of, itself or through others: schema.table -> names without schema."""
        document = self.manifest_document
        parents = cast("Mapping[str, Sequence[str]]", document["parent_map"])
        found: dict[str, frozenset[str]] = {}

        def of(unique_id: str) -> frozenset[str]:
            if unique_id not in found:
                source = document["sources"].get(unique_id)
                own = {str(source["name"])} if source and source["schema"] == "raw" else set[str]()
                found[unique_id] = frozenset(own).union(*(of(parent) for parent in parents.get(unique_id, ())))
            return found[unique_id]

        return {
            self.table_of(unique_id): of(unique_id) for unique_id in document["nodes"] if unique_id.startswith("model.")
        }

    def column_lineage(self, build: DbtBuild, schema: Mapping[str, Mapping[str, str]]) -> dict[str, ColumnLineage]:
        """Return, for each table of a build, the parents' columns that each of its columns is made from.

        ``schema`` is table -> column -> SQL type. Kept in a file beside the manifest: it changes only with the SQL.
        """
        mark, _ = self._manifest  # that the build was made with, whatever the files say by now
        known = self._kept_lineage(mark)
        missing = {table: sql for table, sql in build.compiled.items() if table not in known}
        if missing:
            known |= {
                table: column_lineage(sql, schema=schema, dialect=self._dialect) for table, sql in missing.items()
            }
            kept = self._lineage_path
            aside = kept.with_suffix(f".{os.getpid()}.tmp")
            aside.write_bytes(_marked(mark, msgspec.json.encode(_KeptLineage(tables=known))))
            aside.replace(kept)
        return known

    @property
    def kept_column_lineage(self) -> dict[str, ColumnLineage]:
        """The lineage of the tables that were built of the project as it is now; nothing where none was."""
        return self._kept_lineage(self._mark())

    def _kept_lineage(self, mark: bytes) -> dict[str, ColumnLineage]:
        kept = self._lineage_path
        content = kept.read_bytes() if kept.exists() else b""
        return msgspec.json.decode(content, type=_KeptLineage).tables if content.startswith(mark) else {}

    @property
    def _lineage_path(self) -> Path:
        return self.target_folder / "column_lineage.json"

    @cached_property
    def _manifest(self) -> "tuple[bytes, Manifest]":
        """The mark and the manifest as dbt's own objects: as the last process kept it, if nothing has changed since."""
        _runner()  # before dbt's parser is imported, and with it what that would leave behind
        from dbt.contracts.graph.manifest import Manifest
        from dbt.parser.manifest import extended_mashumuro_decoder

        if not self._is_current(self._kept):
            return self._parse()
        content, n = self._kept.read_bytes(), len(self._mark())
        manifest = Manifest.from_msgpack(content[n:], decoder=extended_mashumuro_decoder)  # type: ignore[reportArgumentType]
        manifest.build_flat_graph()
        return content[:n], manifest

    @property
    def _kept(self) -> Path:
        return self.target_folder / f"manifest-{installed_version('dbt-core')}-{self._target}.msgpack"

    def _parse(self) -> "tuple[bytes, Manifest]":
        runner = _runner()
        from dbt.adapters.factory import reset_adapters
        from dbt.parser.manifest import extended_mashumaro_encoder

        # Before dbt reads them: a file that changes meanwhile is then parsed again, not missed.
        mark = self._mark()
        self.target_folder.mkdir(parents=True, exist_ok=True)
        # Two processes may parse at once (webserver and daemon of a fresh clone): each writes aside, then renames.
        scratch = Path(tempfile.mkdtemp(dir=self.target_folder))
        try:
            result = runner().invoke(
                [
                    *_QUIET,
                    "parse",
                    "--no-partial-parse",
                    *self._arguments(self._variables, target_folder=scratch),
                ]
            )
            if not result.success:
                raise WarehouseError(
                    f"dbt cannot parse {self.project_folder}: {result.exception}"
                ) from result.exception
            manifest = cast("Manifest", result.result)
            aside = scratch / self._kept.name
            aside.write_bytes(mark + manifest.to_msgpack(extended_mashumaro_encoder))  # type: ignore[reportArgumentType]
            aside.replace(self._kept)
            document = scratch / "manifest.json"
            document.write_bytes(_marked(mark, document.read_bytes()))
            document.replace(self.target_folder / "manifest.json")
        finally:
            reset_adapters()
            shutil.rmtree(scratch, ignore_errors=True)
        return mark, manifest

    @property
    def _dialect(self) -> str:
        return cast("str", self.manifest_document["metadata"]["adapter_type"])

    def _arguments(self, variables: Mapping[str, str], *, target_folder: Path | None = None) -> list[str]:
        return [*self._project(variables), "--target-path", str(target_folder or self.target_folder)]

    def _project(self, variables: Mapping[str, str]) -> list[str]:
        folder = str(self.project_folder)
        return [
            *("--project-dir", folder, "--profiles-dir", folder, "--target", self._target),
            *("--vars", msgspec.json.encode(variables).decode()),
        ]

    def _mark(self) -> bytes:
        """Return how every file that is made of this project begins: the digest of its files' paths and contents."""
        digest = hashlib.sha256()
        for folder, folders, files in os.walk(self.project_folder):
            folders[:] = sorted(name for name in folders if name not in {"target", "logs"})
            for name in sorted(name for name in files if name.endswith(_READ)):
                path = Path(folder, name)
                content = path.read_bytes()
                digest.update(f"{path.relative_to(self.project_folder).as_posix()}\0{len(content)}\0".encode())
                digest.update(content)
        return b'{"project_digest":"%s",' % digest.hexdigest().encode()


class _KeptLineage(msgspec.Struct):
    """The content of column_lineage.json, after its mark."""

    tables: dict[str, ColumnLineage]


def _marked(mark: bytes, document: bytes) -> bytes:
    """Return a JSON object with the mark as its first member."""
    return mark + document.lstrip().removeprefix(b"{")


def _cost(answer: Mapping[str, object]) -> dict[str, float]:
    """Return what a model cost, as far as its adapter was told."""
    billed, slot_ms = answer.get("bytes_billed"), answer.get("slot_ms")
    found = {"bytes_billed": float(billed)} if isinstance(billed, int) else {}
    return found | ({"slot_seconds": slot_ms / 1000} if isinstance(slot_ms, int) else {})


def _runner() -> "type[dbtRunner]":
    """Return dbt's runner, without the handler that its import gives the root logger (through snowplow-tracker).

    With that, every line of Dagster's would be printed a second time, in the middle of a progress bar.
    """
    root = logging.getLogger()
    handlers = list(root.handlers)
    from dbt.cli.main import dbtRunner

    root.handlers[:] = handlers
    return dbtRunner


def _close_duckdb() -> None:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    DuckDBConnectionManager.close_all_connections()
