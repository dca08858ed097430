"""What BigQuery keeps and does: datasets, tables and jobs, on a DuckDB in memory."""

import json
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from sqlglot import exp

from tests.servers import bigquery_sql as sql
from tests.servers.bigquery_information_schema import information_schema
from tests.servers.bigquery_sql import ApiError, Field, invalid, literal, quoted

TableId = tuple[str, str]
_MEGABYTE = 2**20
_TEN_MEGABYTES = 10 * _MEGABYTE
_PARTITION_ID = {"DAY": "%Y%m%d", "HOUR": "%Y%m%d%H", "MONTH": "%Y%m", "YEAR": "%Y"}
_FIXED_BYTES = {"INTEGER": 8, "FLOAT": 8, "BOOLEAN": 1, "DATE": 8, "TIME": 8, "DATETIME": 8, "TIMESTAMP": 8}


@dataclass(kw_only=True)
class Session:
    """One connection: the variables, temporary tables and the open transaction of a script or a session."""

    cursor: duckdb.DuckDBPyConnection
    variables: dict[str, str] = field(default_factory=dict)
    temporary: dict[str, list[Field]] = field(default_factory=dict)
    in_transaction: bool = False


@dataclass(kw_only=True)
class Run:
    """One job as it runs: where it may look, what it has read and what came out."""

    session: Session
    location: str | None
    default_dataset: str | None = None
    is_dry: bool = False
    maximum_bytes: int | None = None
    read: set[TableId] = field(default_factory=set)
    n_bytes: int = 0
    n_billed: int = 0
    n_children: int = 0
    last: "Outcome | None" = None


@dataclass(kw_only=True)
class Outcome:
    """What one statement did."""

    kind: str
    fields: list[Field] | None = None
    rows: pa.Table | None = None
    n_affected: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    target: TableId | None = None
    operation: str | None = None


def milliseconds() -> str:
    return str(time.time_ns() // 1_000_000)


class Engine:
    """The state of one project. Statements run one at a time; a session may hold a transaction open in between."""

    def __init__(self, project: str, location: str) -> None:
        self.project, self.location = project, location
        self.database = sql.new_database()
        self.lock = threading.RLock()
        self.datasets: dict[str, dict[str, Any]] = {}
        self.tables: dict[TableId, dict[str, Any]] = {}
        self._bytes: dict[TableId, dict[str, int]] = {}

    def close(self) -> None:
        self.database.close()

    def new_session(self) -> Session:
        return Session(cursor=self.database.cursor())

    # --- datasets and tables

    def create_dataset(self, name: str, location: str | None, **more: Any) -> dict[str, Any]:
        """Create an empty dataset; raise duplicate where there is one."""
        if name in self.datasets:
            raise ApiError(409, "duplicate", f"Already Exists: Dataset {self.project}:{name}")
        if not re.fullmatch(r"\w{1,1024}", name):
            raise ApiError(400, "invalid", f'Invalid dataset ID "{name}". Dataset IDs must be alphanumeric or _')
        self.database.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}")
        self.datasets[name] = {
            **more,
            "kind": "bigquery#dataset",
            "id": f"{self.project}:{name}",
            "datasetReference": {"projectId": self.project, "datasetId": name},
            "location": location or self.location,
            "etag": uuid.uuid4().hex,
            "creationTime": milliseconds(),
            "lastModifiedTime": milliseconds(),
        }
        return self.datasets[name]

    def dataset(self, name: str, location: str | None = None) -> dict[str, Any]:
        """Return a dataset; raise notFound where there is none, or none in this location."""
        found = self.datasets.get(name)
        if found is None or (location and found["location"].upper() != location.upper()):
            where = f" was not found in location {location}" if location else ""
            raise ApiError(404, "notFound", f"Not found: Dataset {self.project}:{name}{where}")
        return found

    def drop_dataset(self, name: str, *, with_contents: bool) -> None:
        self.dataset(name)
        inside = [table for table in self.tables if table[0] == name]
        if inside and not with_contents:
            raise ApiError(400, "resourceInUse", f"Dataset {self.project}:{name} is still in use")
        for table in inside:
            self.drop_table(self.database, table)
        self.database.execute(f"DROP SCHEMA {quoted(name)} CASCADE")
        del self.datasets[name]

    def table(self, table: TableId, location: str | None = None) -> dict[str, Any]:
        """Return a table's resource; raise notFound."""
        self.dataset(table[0], location)
        if table not in self.tables:
            where = f" was not found in location {location}" if location else ""
            raise ApiError(404, "notFound", f"Not found: Table {self.project}:{table[0]}.{table[1]}{where}")
        return self.tables[table]

    def create_table(
        self, cursor: duckdb.DuckDBPyConnection, table: TableId, fields: Sequence[Field], **more: Any
    ) -> None:
        """Create or replace a table without rows."""
        self.dataset(table[0])
        _check_spec(fields, more)
        self._drop_relation(cursor, table)
        columns = ", ".join(_column_definition(of) for of in fields)
        cursor.execute(f"CREATE TABLE {_name(table)} ({columns})")
        self._remember(table, fields, "TABLE", more)

    def create_view(self, cursor: duckdb.DuckDBPyConnection, table: TableId, query: str, **more: Any) -> None:
        """Create or replace a view of a query in BigQuery's SQL."""
        location = self.dataset(table[0])["location"]
        run = Run(session=Session(cursor=cursor), location=location)
        translated = self.translate(run, sql.parsed(query))
        fields = self._fields(cursor, translated)
        self._drop_relation(cursor, table)
        cursor.execute(f"CREATE VIEW {_name(table)} AS {translated}")
        self._remember(table, fields, "VIEW", {**more, "view": {"query": query, "useLegacySql": False}})

    def drop_table(self, cursor: duckdb.DuckDBPyConnection, table: TableId) -> None:
        self.table(table)
        self._drop_relation(cursor, table)
        del self.tables[table]

    def change_table(self, table: TableId, change: Mapping[str, Any]) -> dict[str, Any]:
        """Patch a table's resource; a schema may gain columns and lose REQUIRED, nothing else."""
        found = self.table(table)
        if "schema" in change and found["type"] == "TABLE":
            new = [sql.normalized(of) for of in change["schema"]["fields"]]
            self.change_columns(self.database, table, new)
        for key, value in change.items():
            if key == "view":
                self.create_view(self.database, table, value["query"], **_kept(found))
            elif key == "labels" and value is not None:
                merged = {**found.get("labels", {}), **value}
                found["labels"] = {name: text for name, text in merged.items() if text is not None}
            elif key not in ("schema", "tableReference", "etag", "numRows", "type", "id", "kind"):
                found[key] = value
        self._touch(table)
        return self.tables[table]

    def described(self, table: TableId) -> dict[str, Any]:
        """Return a table's resource with the size it has now."""
        found = self.table(table)
        if found["type"] != "TABLE":
            return found
        (n_rows,) = self._one(self.database, f"SELECT count(*) FROM {_name(table)}")
        return {**found, "numRows": str(n_rows), "numBytes": str(sum(self._column_bytes(table).values()))}

    def partition_condition(self, table: TableId, partition: str) -> str:
        """Return the condition that a row is in ``table$partition``."""
        spec = self.table(table).get("timePartitioning")
        if not spec or "field" not in spec:
            raise ApiError(400, "invalid", f"Table {table[0]}.{table[1]} is not partitioned by a column")
        if len(partition) != len(time.strftime(_PARTITION_ID[spec["type"]], time.gmtime(0))):
            raise ApiError(400, "invalid", f"Invalid partition id {partition} for {spec['type']} partitioning")
        return f"coalesce({self._partition_id(table)} = {literal(partition)}, false)"

    def _partition_id(self, table: TableId) -> str:
        spec = self.tables[table]["timePartitioning"]
        kind = next(of["type"] for of in self.tables[table]["schema"]["fields"] if of["name"] == spec["field"])
        moment = f"timezone('UTC', {quoted(spec['field'])})" if kind == "TIMESTAMP" else quoted(spec["field"])
        return f"strftime({moment}, '{_PARTITION_ID[spec['type']]}')"

    def _remember(self, table: TableId, fields: Sequence[Field], kind: str, more: Mapping[str, Any]) -> None:
        self.tables[table] = {
            **{key: value for key, value in more.items() if value is not None},
            "kind": "bigquery#table",
            "id": f"{self.project}:{table[0]}.{table[1]}",
            "tableReference": {"projectId": self.project, "datasetId": table[0], "tableId": table[1]},
            "type": kind,
            "schema": {"fields": list(fields)},
            "location": self.datasets[table[0]]["location"],
            "creationTime": self.tables.get(table, {}).get("creationTime", milliseconds()),
        }
        self._touch(table)

    def _touch(self, table: TableId) -> None:
        self.tables[table] |= {"lastModifiedTime": milliseconds(), "etag": uuid.uuid4().hex}
        self._bytes.pop(table, None)

    def _drop_relation(self, cursor: duckdb.DuckDBPyConnection, table: TableId) -> None:
        kind = self.tables.get(table, {}).get("type")
        if kind:
            cursor.execute(f"DROP {kind} IF EXISTS {_name(table)}")

    def changed(self, table: TableId | None) -> None:
        """Note that a statement changed the rows of a table."""
        if table is not None:
            self._touch(table)

    def forget_sizes(self) -> None:
        """Forget the sizes of tables, as after a transaction that was rolled back."""
        self._bytes.clear()

    def fill(self, cursor: duckdb.DuckDBPyConnection, table: TableId, source: str) -> None:
        """Insert all rows of a relation, column by column in order."""
        cursor.execute(f"INSERT INTO {_name(table)} SELECT * FROM {source}")
        self._touch(table)

    def partition_counts(self, table: TableId) -> list[tuple[str | None, int]]:
        """Return how many rows each partition holds; a table without partitions is one, without an id."""
        if "timePartitioning" not in self.table(table):
            return [(None, self._one(self.database, f"SELECT count(*) FROM {_name(table)}")[0])]
        part = f"coalesce({self._partition_id(table)}, '__NULL__')"
        return self.database.execute(f"SELECT {part}, count(*) FROM {_name(table)} GROUP BY 1 ORDER BY 1").fetchall()

    def rename(self, cursor: duckdb.DuckDBPyConnection, table: TableId, new: str) -> None:
        if (table[0], new) in self.tables:
            raise ApiError(409, "duplicate", f"Already Exists: Table {self.project}:{table[0]}.{new}")
        cursor.execute(f"ALTER TABLE {_name(table)} RENAME TO {quoted(new)}")
        found = self.tables.pop(table)
        self._bytes.pop(table, None)
        self._remember((table[0], new), found["schema"]["fields"], found["type"], _kept(found))

    def drop_column(self, cursor: duckdb.DuckDBPyConnection, table: TableId, column: str) -> None:
        fields = self.table(table)["schema"]["fields"]
        cursor.execute(f"ALTER TABLE {_name(table)} DROP COLUMN {quoted(column)}")
        self.tables[table]["schema"] = {"fields": [of for of in fields if of["name"] != column]}
        self._touch(table)

    def change_columns(self, cursor: duckdb.DuckDBPyConnection, table: TableId, new: list[Field]) -> None:
        found = self.tables[table]
        old = {of["name"]: of for of in found["schema"]["fields"]}
        described = f"Provided Schema does not match Table {self.project}:{table[0]}.{table[1]}."
        for name in old:
            if name not in {of["name"] for of in new}:
                raise ApiError(400, "invalid", f"{described} Field {name} is missing in new schema")
        for of in new:
            was = old.get(of["name"])
            if was is None:
                if of["mode"] == "REQUIRED":
                    raise ApiError(400, "invalid", f"{described} Cannot add required fields: {of['name']}")
                cursor.execute(f"ALTER TABLE {_name(table)} ADD COLUMN {_column_definition(of)}")
            elif sql.duckdb_type(was) != sql.duckdb_type(of):
                text = f"{described} Field {of['name']} has changed type from {was['type']} to {of['type']}"
                raise ApiError(400, "invalid", text)
            elif was["mode"] == "REQUIRED" and of["mode"] == "NULLABLE":
                cursor.execute(f"ALTER TABLE {_name(table)} ALTER COLUMN {quoted(of['name'])} DROP NOT NULL")
            elif was["mode"] != of["mode"]:
                text = f"{described} Field {of['name']} has changed mode from {was['mode']} to {of['mode']}"
                raise ApiError(400, "invalid", text)
        found["schema"] = {"fields": new}
        self._touch(table)

    # --- writing rows

    def write(
        self, cursor: duckdb.DuckDBPyConnection, table: TableId, source: str, fields: Sequence[Field], **how: Any
    ) -> int:
        """Write the rows of a DuckDB SELECT as a load or a query with a destination does; return how many.

        ``how`` is that part of the job's configuration: writeDisposition, createDisposition, schemaUpdateOptions,
        timePartitioning, clustering. A name ``table$partition`` writes that partition only.
        """
        name, _, partition = table[1].partition("$")
        table, disposition = (table[0], name), how.get("writeDisposition")
        spec = {key: how.get(key) for key in ("timePartitioning", "clustering", "description", "labels")}
        self.dataset(table[0])
        with self.transaction(cursor):
            if table not in self.tables:
                if how.get("createDisposition") == "CREATE_NEVER":
                    self.table(table)
                self.create_table(cursor, table, fields, **spec)
            elif disposition == "WRITE_TRUNCATE" and not partition:
                kept = _kept(self.tables[table])
                self.create_table(cursor, table, fields, **{**kept, **{k: v for k, v in spec.items() if v}})
            else:
                self._check_fit(cursor, table, fields, how)
                if disposition == "WRITE_EMPTY" and self._one(cursor, f"SELECT count(*) FROM {_name(table)}") != (0,):
                    text = f"Already Exists: Table {self.project}:{table[0]}.{table[1]}"
                    raise ApiError(409, "duplicate", text)
            if partition:
                inside = self.partition_condition(table, partition)
                if self._one(cursor, f"SELECT count(*) FROM ({source}) WHERE NOT {inside}") != (0,):
                    text = "Some rows belong to different partitions rather than destination partition "
                    raise ApiError(400, "invalid", f"{text}{'.'.join(table)}${partition}")
                if disposition == "WRITE_TRUNCATE":
                    cursor.execute(f"DELETE FROM {_name(table)} WHERE {inside}")
            columns = ", ".join(quoted(of["name"]) for of in fields)
            (n_rows,) = self._one(cursor, f"INSERT INTO {_name(table)} ({columns}) SELECT {columns} FROM ({source})")
            self._touch(table)
        return n_rows

    def copy(self, how: Mapping[str, Any]) -> None:
        """Copy whole tables into one."""
        sources = how.get("sourceTables") or [how["sourceTable"]]
        tables = [(source["datasetId"], source["tableId"]) for source in sources]
        if any("$" in name for _, name in tables) or "$" in how["destinationTable"]["tableId"]:
            raise ApiError(400, "invalid", "this test server copies no single partitions")
        target = (how["destinationTable"]["datasetId"], how["destinationTable"]["tableId"])
        session = self.new_session()
        found = self.table(tables[0])
        source = " UNION ALL ".join(f"SELECT * FROM {_name(table)}" for table in tables if self.table(table))
        kept = {"writeDisposition": "WRITE_EMPTY", **_kept(found), **how}
        with known_errors():
            self.write(session.cursor, target, source, found["schema"]["fields"], **kept)
        session.cursor.close()

    def delete_partition(self, table: TableId, partition: str) -> None:
        self.table(table)
        self.database.execute(f"DELETE FROM {_name(table)} WHERE {self.partition_condition(table, partition)}")
        self._touch(table)

    def _check_fit(
        self, cursor: duckdb.DuckDBPyConnection, table: TableId, fields: Sequence[Field], how: Mapping[str, Any]
    ) -> None:
        old = {of["name"]: of for of in self.tables[table]["schema"]["fields"]}
        allowed = how.get("schemaUpdateOptions") or ()
        given = {of["name"] for of in fields}
        added = [of for of in fields if of["name"] not in old]
        described = f"Provided Schema does not match Table {self.project}:{table[0]}.{table[1]}."
        if added and "ALLOW_FIELD_ADDITION" not in allowed:
            raise ApiError(400, "invalid", f"{described} Cannot add fields (field: {added[0]['name']})")
        if missing := [of for of in old.values() if of["name"] not in given and of["mode"] == "REQUIRED"]:
            raise ApiError(400, "invalid", f"{described} Missing required field {missing[0]['name']}")
        new = []
        for was in old.values():
            of = next((of for of in fields if of["name"] == was["name"]), was)
            relaxed = was["mode"] == "REQUIRED" and of["mode"] == "NULLABLE"
            if relaxed and "ALLOW_FIELD_RELAXATION" not in allowed:
                text = f"{described} Field {of['name']} has changed mode from REQUIRED to NULLABLE"
                raise ApiError(400, "invalid", text)
            new.append({**was, "type": of["type"], "mode": of["mode"] if relaxed else was["mode"]})
            if sql.duckdb_type(of).removesuffix("[]") != sql.duckdb_type(was).removesuffix("[]"):
                text = f"{described} Field {of['name']} has changed type from {was['type']} to {of['type']}"
                raise ApiError(400, "invalid", text)
        if new + added != list(old.values()):
            self.change_columns(cursor, table, new + added)

    @contextmanager
    def transaction(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Do all or nothing, to the tables and to what is known about them; inside another one, be part of it."""
        try:
            cursor.begin()
        except duckdb.TransactionException:
            yield
            return
        known, sizes = {name: dict(of) for name, of in self.tables.items()}, dict(self._bytes)
        try:
            yield
            cursor.commit()
        except BaseException:
            cursor.rollback()
            self.tables, self._bytes = known, sizes
            raise

    def load(self, content: bytes, job: Mapping[str, Any]) -> int:
        """Write a file into a table; return the rows written."""
        how = job["configuration"]["load"]
        target = how["destinationTable"]
        table = (target["datasetId"], target["tableId"])
        self.dataset(table[0], job["jobReference"].get("location"))
        declared = [sql.normalized(of) for of in (how.get("schema") or {}).get("fields", ())]
        if not declared and how["sourceFormat"] != "PARQUET" and not how.get("autodetect"):
            known = self.tables.get((table[0], table[1].partition("$")[0]))
            if known is None:
                raise ApiError(400, "invalid", "No schema specified on job or table.")
            declared = known["schema"]["fields"]
        session = self.new_session()
        try:
            with known_errors():
                incoming = _file_rows(session.cursor, content, how, declared)
                session.cursor.register("incoming", incoming)
                fields = self._fields(session.cursor, "SELECT * FROM incoming")
                if how["sourceFormat"] == "PARQUET":
                    fields = [
                        {**of, "mode": "REQUIRED"} if not column.nullable and of["mode"] == "NULLABLE" else of
                        for of, column in zip(fields, incoming.schema, strict=True)
                    ]
                if declared:
                    fields = _matched(fields, declared)
                columns = (
                    f"CAST({quoted(of['name'])} AS {sql.duckdb_type(of)}) AS {quoted(of['name'])}" for of in fields
                )
                how = {"writeDisposition": "WRITE_APPEND", **how}
                return self.write(session.cursor, table, f"SELECT {', '.join(columns)} FROM incoming", fields, **how)
        finally:
            session.cursor.close()

    def insert_all(self, table: TableId, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append JSON rows that fit the table."""
        fields = self.table(table)["schema"]["fields"]
        lines = "\n".join(_json(row) for row in rows).encode()
        session = self.new_session()
        try:
            with known_errors():
                how = {"sourceFormat": "NEWLINE_DELIMITED_JSON"}
                session.cursor.register("incoming", _file_rows(session.cursor, lines, how, fields))
                columns = ", ".join(f"CAST({quoted(of['name'])} AS {sql.duckdb_type(of)})" for of in fields)
                session.cursor.execute(f"INSERT INTO {_name(table)} SELECT {columns} FROM incoming")
                self._touch(table)
        finally:
            session.cursor.close()

    # --- reading rows

    def table_rows(self, table: TableId) -> tuple[list[Field], pa.Table]:
        """Return all rows of a table, or of ``table$partition``."""
        name, _, partition = table[1].partition("$")
        table = (table[0], name)
        found = self.table(table)
        where = f" WHERE {self.partition_condition(table, partition)}" if partition else ""
        with self.database.cursor() as cursor:
            return found["schema"]["fields"], cursor.sql(f"SELECT * FROM {_name(table)}{where}").to_arrow_table()

    def wire_rows(self, fields: Sequence[Field], rows: pa.Table, *, micros: bool) -> list[str]:
        """Return rows as the JSON texts the API sends."""
        if not rows.num_rows:
            return []
        names = [f"c{number}" for number in range(len(fields))]
        values = [
            f"json_object('v', {sql.wire_value(n, of, micros=micros)})" for n, of in zip(names, fields, strict=True)
        ]
        with self.database.cursor() as cursor:
            cursor.register("rows_to_send", rows.rename_columns(names))
            query = f"SELECT CAST(json_object('f', json_array({', '.join(values)})) AS VARCHAR) FROM rows_to_send"
            return cursor.sql(query).to_arrow_table().column(0).to_pylist()

    def _one(self, cursor: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
        return cursor.execute(query).fetchone() or ()

    def _fields(self, cursor: duckdb.DuckDBPyConnection, query: str) -> list[Field]:
        relation = cursor.sql(query)
        names = [name.lower() for name in relation.columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            text = f"Duplicate column names in the result are not supported. Found duplicate(s): {', '.join(twice)}"
            raise invalid(text)
        return [sql.field_of_duckdb(*column) for column in zip(relation.columns, relation.types, strict=True)]

    def typed(self, cursor: duckdb.DuckDBPyConnection, query: str) -> tuple[list[Field], str]:
        """Return the fields of a SELECT, and the SELECT with its columns in exactly the types of BigQuery."""
        fields = self._fields(cursor, query)
        types = cursor.sql(query).types
        if all(str(kind) == sql.duckdb_type(of) for kind, of in zip(types, fields, strict=True)):
            return fields, query
        columns = (f"CAST({quoted(of['name'])} AS {sql.duckdb_type(of)}) AS {quoted(of['name'])}" for of in fields)
        return fields, f"SELECT {', '.join(columns)} FROM ({query})"

    def _column_bytes(self, table: TableId) -> dict[str, int]:
        """Return the logical size of every column, by BigQuery's table of sizes."""
        if table not in self._bytes:
            fields = self.tables[table]["schema"]["fields"]
            sums = [
                f"count({quoted(of['name'])}) * {_FIXED_BYTES[of['type']]}"
                if of["type"] in _FIXED_BYTES and of["mode"] != "REPEATED"
                else f"coalesce(sum(2 + strlen(CAST({quoted(of['name'])} AS VARCHAR))), 0)"
                for of in fields
            ]
            found = self._one(self.database, f"SELECT {', '.join(sums)} FROM {_name(table)}")
            self._bytes[table] = dict(zip((of["name"].lower() for of in fields), map(int, found), strict=True))
        return self._bytes[table]

    # --- statements

    def translate(self, run: Run, tree: exp.Expression) -> str:
        """Return a statement in DuckDB's SQL, and note the tables and bytes it reads."""
        columns = _columns_read(tree)
        read: set[TableId] = set()

        def named(node: exp.Table) -> str:
            if view := re.search(r"^(?:INFORMATION_SCHEMA\.|__)(\w+)$", node.name, re.IGNORECASE):
                return self._information_schema(run, node.db, view[1].upper())
            if node.db in ("", "_SESSION") and node.name.lower() in run.session.temporary:
                return f"temp.{quoted(node.name)}"
            table = self.resolve(run, node)
            run.location = run.location or self.dataset(table[0])["location"]
            self.table(table, run.location)
            read.add(table)
            return _name(table)

        translated = sql.to_duckdb(tree, named, run.session.variables)
        run.read |= read
        sizes = [self._bytes_read(table, columns) for table in read]
        run.n_bytes += sum(sizes)
        run.n_billed += sum(max(_TEN_MEGABYTES, -(-size // _MEGABYTE) * _MEGABYTE) for size in sizes)
        if run.maximum_bytes is not None and run.n_billed > run.maximum_bytes:
            text = f"Query exceeded limit for bytes billed: {run.maximum_bytes}. {run.n_billed} or higher required."
            raise ApiError(400, "bytesBilledLimitExceeded", text)
        return translated

    def resolve(self, run: Run, node: exp.Table) -> TableId:
        """Return the dataset and table a name in SQL stands for."""
        if node.catalog and node.catalog != self.project:
            text = f"Access Denied: Table {node.catalog}:{node.db}.{node.name}: User does not have permission"
            raise ApiError(403, "accessDenied", text)
        dataset = node.db or run.default_dataset
        if not dataset:
            raise invalid(f'Table "{node.name}" must be qualified with a dataset (e.g. dataset.table).')
        return dataset, node.name

    def _bytes_read(self, table: TableId, columns: set[str] | None) -> int:
        found = self.tables[table]
        if found["type"] == "VIEW":
            tree = sql.parsed(found["view"]["query"])
            shared = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
            inner = {(n.db, n.name) for n in tree.find_all(exp.Table) if n.db or n.name.lower() not in shared}
            return sum(self._bytes_read(name, _columns_read(tree)) for name in inner if name in self.tables)
        sizes = self._column_bytes(table)
        return sum(size for name, size in sizes.items() if columns is None or name in columns)

    def _information_schema(self, run: Run, dataset: str, view: str) -> str:
        if dataset and not dataset.lower().startswith("region-"):
            self.dataset(dataset, run.location)
        rows = information_schema(self, dataset, view)
        name = f"information_schema_{dataset or 'region'}_{view}".lower().replace("-", "_")
        run.session.cursor.register(name, rows)
        return quoted(name)


def _name(table: TableId) -> str:
    return f"{quoted(table[0])}.{quoted(table[1])}"


def _column_definition(of: Field) -> str:
    return f"{quoted(of['name'])} {sql.duckdb_type(of)}{' NOT NULL' if of['mode'] == 'REQUIRED' else ''}"


def _kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a table's resource survives the replacement of its rows."""
    names = ("timePartitioning", "clustering", "description", "labels", "friendlyName", "expirationTime")
    return {name: found[name] for name in names if name in found}


def _check_spec(fields: Sequence[Field], more: Mapping[str, Any]) -> None:
    kinds = {of["name"].lower(): of["type"] for of in fields}
    for name in (more.get("clustering") or {}).get("fields", ()):
        if name.lower() not in kinds:
            raise ApiError(400, "invalid", f"The field specified for clustering cannot be found in the schema: {name}")
    partitioned = (more.get("timePartitioning") or {}).get("field")
    if partitioned and kinds.get(partitioned.lower()) not in ("DATE", "TIMESTAMP", "DATETIME"):
        text = f"The field specified for partitioning can only be of type TIMESTAMP, DATE or DATETIME: {partitioned}"
        raise ApiError(400, "invalid", text)


def _columns_read(tree: exp.Expression) -> set[str] | None:
    """Return the names of columns in a statement, or None where a star reads them all."""
    if any(not isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star)):
        return None
    return {name.name.lower() for name in tree.find_all(exp.Identifier)}


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row["json"])


@contextmanager
def known_errors() -> Iterator[None]:
    """Say in BigQuery's words what DuckDB refuses."""
    try:
        yield
    except duckdb.TransactionException as error:
        text = f"Transaction is aborted due to concurrent update against a table: {error}"
        raise invalid(text) from error
    except duckdb.ConstraintException as error:
        column = re.search(r"NOT NULL constraint failed: .*\.(\w+)", str(error))
        text = f"Required field {column[1]} cannot be null" if column else str(error)
        raise invalid(text) from error
    except duckdb.InvalidInputException as error:  # also what ERROR() raises
        raise invalid(str(error).removeprefix("Invalid Input Error: ")) from error
    except duckdb.Error as error:
        raise invalid(str(error).split("\n\nLINE")[0]) from error


def _file_rows(
    cursor: duckdb.DuckDBPyConnection, content: bytes, how: Mapping[str, Any], declared: Sequence[Field]
) -> pa.Table:
    """Return the rows of a file that is loaded, by the types of its own or, in text, by those declared."""
    if how["sourceFormat"] == "PARQUET":
        try:
            rows = pq.read_table(BytesIO(content))
        except pa.ArrowInvalid as error:
            raise ApiError(400, "invalid", f"Error while reading data, error message: {error}") from error
        has_lists = any(pa.types.is_list(column.type) for column in rows.schema)
        if has_lists and not (how.get("parquetOptions") or {}).get("enableListInference"):
            text = "a list without parquetOptions.enableListInference becomes a RECORD in BigQuery; set it"
            raise ApiError(400, "invalid", text)
        return rows
    columns = ", ".join(f"{literal(of['name'])}: {literal(sql.duckdb_type(of))}" for of in declared)
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        if how["sourceFormat"] == "NEWLINE_DELIMITED_JSON":
            types = f", columns = {{{columns}}}" if declared else ""
            reader = f"read_json({literal(file.name)}, format = 'newline_delimited'{types})"
        elif how["sourceFormat"] == "CSV":
            skip, delimiter = int(how.get("skipLeadingRows", 0)), how.get("fieldDelimiter", ",")
            types = f", columns = {{{columns}}}, header = false, skip = {skip}, auto_detect = false" if declared else ""
            reader = f"read_csv({literal(file.name)}, delim = {literal(delimiter)}{types})"
        else:
            raise ApiError(400, "invalid", f"this test server reads no {how['sourceFormat']}")
        return cursor.sql(f"SELECT * FROM {reader}").to_arrow_table()


def _matched(found: Sequence[Field], declared: Sequence[Field]) -> list[Field]:
    """Return the declared fields in place of those of a file, which must be castable to them."""
    by_name = {of["name"].lower(): of for of in declared}
    extra = [of["name"] for of in found if of["name"].lower() not in by_name]
    if extra:
        raise ApiError(400, "invalid", f"Provided schema does not match the file: no such field: {extra[0]}")
    return [by_name[of["name"].lower()] for of in found]
