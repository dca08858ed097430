"""The views of INFORMATION_SCHEMA, made from what the engine knows when a query asks for one."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from tests.servers.bigquery_sql import Field, invalid, sql_type

_TEXT, _NUMBER, _MOMENT, _FLAG = pa.string(), pa.int64(), pa.timestamp("us", "UTC"), pa.bool_()
_OF_TABLE = {"table_catalog": _TEXT, "table_schema": _TEXT, "table_name": _TEXT}
_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "SCHEMATA": {"catalog_name": _TEXT, "schema_name": _TEXT, "location": _TEXT},
    "TABLES": {**_OF_TABLE, "table_type": _TEXT, "is_insertable_into": _TEXT, "creation_time": _MOMENT, "ddl": _TEXT},
    "VIEWS": {**_OF_TABLE, "view_definition": _TEXT, "use_standard_sql": _TEXT},
    "MATERIALIZED_VIEWS": _OF_TABLE,
    "COLUMNS": {
        **_OF_TABLE,
        "column_name": _TEXT,
        "ordinal_position": _NUMBER,
        "is_nullable": _TEXT,
        "data_type": _TEXT,
        "is_hidden": _TEXT,
        "is_partitioning_column": _TEXT,
        "clustering_ordinal_position": _NUMBER,
    },
    "COLUMN_FIELD_PATHS": {
        **_OF_TABLE,
        "column_name": _TEXT,
        "field_path": _TEXT,
        "data_type": _TEXT,
        "description": _TEXT,
    },
    "TABLE_OPTIONS": {**_OF_TABLE, "option_name": _TEXT, "option_type": _TEXT, "option_value": _TEXT},
    "PARTITIONS": {
        **_OF_TABLE,
        "partition_id": _TEXT,
        "total_rows": _NUMBER,
        "total_logical_bytes": _NUMBER,
        "last_modified_time": _MOMENT,
        "storage_tier": _TEXT,
    },
    "TABLES__": {
        "project_id": _TEXT,
        "dataset_id": _TEXT,
        "table_id": _TEXT,
        "creation_time": _NUMBER,
        "last_modified_time": _NUMBER,
        "row_count": _NUMBER,
        "size_bytes": _NUMBER,
        "type": _NUMBER,
    },
}


def information_schema(engine: Any, dataset: str, view: str) -> pa.Table:
    """Return the rows of one view for a dataset, or for the whole region where the name of none is given."""
    if view not in _COLUMNS:
        raise invalid(f"this test server has no INFORMATION_SCHEMA.{view}")
    schema = pa.schema(list(_COLUMNS[view].items()))
    if view == "SCHEMATA":
        rows = [
            {"catalog_name": engine.project, "schema_name": name, "location": of["location"]}
            for name, of in engine.datasets.items()
        ]
        return pa.Table.from_pylist(rows, schema=schema)
    is_region = not dataset or dataset.lower().startswith("region-")
    tables = [name for name in engine.tables if is_region or name[0] == dataset]
    rows = [
        {"table_catalog": engine.project, "table_schema": name[0], "table_name": name[1], **row}
        for name in sorted(tables)
        for row in _ROWS[view](engine, name)
    ]
    return pa.Table.from_pylist([{key: row.get(key) for key in schema.names} for row in rows], schema=schema)


def _tables(engine: Any, name: tuple[str, str]) -> Iterator[dict[str, Any]]:
    found = engine.table(name)
    kind = "BASE TABLE" if found["type"] == "TABLE" else "VIEW"
    yield {"table_type": kind, "is_insertable_into": "YES", "creation_time": _moment(found["creationTime"])}


def _views(engine: Any, name: tuple[str, str]) -> Iterator[dict[str, Any]]:
    if "view" in (found := engine.table(name)):
        yield {"view_definition": found["view"]["query"], "use_standard_sql": "YES"}


def _columns(engine: Any, name: tuple[str, str]) -> Iterator[dict[str, Any]]:
    found = engine.table(name)
    partitioned = (found.get("timePartitioning") or {}).get("field")
    clustered = (found.get("clustering") or {}).get("fields", [])
    for position, of in enumerate(found["schema"]["fields"], 1):
        yield {
            "column_name": of["name"],
            "ordinal_position": position,
            "is_nullable": "NO" if of["mode"] == "REQUIRED" else "YES",
            "data_type": sql_type(of),
            "is_hidden": "NO",
            "is_partitioning_column": "YES" if of["name"] == partitioned else "NO",
            "clustering_ordinal_position": clustered.index(of["name"]) + 1 if of["name"] in clustered else None,
        }


def _paths(engine: Any, name: tuple[str, str]) -> Iterator[dict[str, Any]]:
    def below(column: str, path: str, of: Field) -> Iterator[dict[str, Any]]:
        described = {"data_type": sql_type(of), "description": of.get("description")}
        yield {"column_name": column, "field_path": path, **described}
        for inner in of.get("fields", ()):
            yield from below(column, f"{path}.{inner['name']}", inner)

    for of in engine.table(name)["schema"]["fields"]:
        yield from below(of["name"], of["name"], of)


def _options(engine: Any, name: tuple[str, str]) -> Iterator[dict[str, Any]]:
    found = engine.table(name)
    if found.get("description"):
        text = json.dumps(found["description"])
        yield {"option_name": "description", "option_type": "STRING", "option_value": text}
    if found.get("labels"):
        pairs = ", ".join(f"STRUCT({json.dumps(k)}, {json.dumps(v)})" for k, v in found["labels"].items())
        kind = "ARRAY<STRUCT<STRING, STRING>>"
        yield {"option_name": "labels", "option_type": kind, "option_value": f"[{pairs}]"}


def _partitions(engine: Any, name: tuple[str, str]) -> Iterator[dict[str, Any]]:
    found = engine.described(name)
    if found["type"] != "TABLE":
        return
    n_rows, n_bytes = int(found["numRows"]), int(found["numBytes"])
    for partition, total in engine.partition_counts(name):
        yield {
            "partition_id": partition,
            "total_rows": total,
            "total_logical_bytes": n_bytes * total // n_rows if n_rows else 0,
            "last_modified_time": _moment(found["lastModifiedTime"]),
            "storage_tier": "ACTIVE",
        }


def _sizes(engine: Any, name: tuple[str, str]) -> Iterator[dict[str, Any]]:
    found = engine.described(name)
    yield {
        "project_id": engine.project,
        "dataset_id": name[0],
        "table_id": name[1],
        "creation_time": int(found["creationTime"]),
        "last_modified_time": int(found["lastModifiedTime"]),
        "row_count": int(found.get("numRows", 0)),
        "size_bytes": int(found.get("numBytes", 0)),
        "type": 1 if found["type"] == "TABLE" else 2,
    }


def _moment(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, tz=UTC)


_ROWS = {
    "TABLES": _tables,
    "VIEWS": _views,
    "MATERIALIZED_VIEWS": lambda *_: iter(()),
    "COLUMNS": _columns,
    "COLUMN_FIELD_PATHS": _paths,
    "TABLE_OPTIONS": _options,
    "PARTITIONS": _partitions,
    "TABLES__": _sizes,
}
