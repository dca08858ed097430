"""BigQuery's types in terms of DuckDB's: fields of schemas, bound parameters, values as the API sends them."""

import re
from collections.abc import Mapping
from typing import Any

from sqlglot import exp

Field = dict[str, Any]

# The names the API gives to types in schemas, for those SQL gives.
_API_NAME = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD", "DECIMAL": "NUMERIC"}
_SQL_NAME = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
_TO_DUCKDB = {
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "DATE": "DATE",
    "TIME": "TIME",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
    "NUMERIC": "DECIMAL(38,9)",
    "BIGNUMERIC": "DECIMAL(38,18)",  # the widest DuckDB has: values beyond 20 digits before the point are refused
    "JSON": "JSON",
}
_FROM_DUCKDB = {
    **dict.fromkeys(("tinyint", "smallint", "integer", "bigint", "hugeint", "null"), "INTEGER"),
    **dict.fromkeys(("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"), "INTEGER"),
    **dict.fromkeys(("float", "double"), "FLOAT"),
    **dict.fromkeys(("varchar", "enum", "uuid"), "STRING"),
    **dict.fromkeys(("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"), "DATETIME"),
    **dict.fromkeys(("time", "time with time zone"), "TIME"),
    **{"boolean": "BOOLEAN", "blob": "BYTES", "date": "DATE", "timestamp with time zone": "TIMESTAMP"},
}


class ApiError(Exception):
    """What the server answers in place of a result: HTTP status, Google's reason, a message for people."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def entry(self) -> dict[str, str]:
        """Return the error as the API lists it."""
        return {"reason": self.reason, "message": self.message, "domain": "global"}


def invalid(message: str) -> ApiError:
    return ApiError(400, "invalidQuery", message)


def field(name: str, kind: str, mode: str = "NULLABLE", **more: Any) -> Field:
    return {"name": name, "type": _API_NAME.get(kind.upper(), kind.upper()), "mode": mode, **more}


def normalized(given: Mapping[str, Any]) -> Field:
    """Return a field of a request's schema with the API's names for types and a mode."""
    made = {**given, **field(given["name"], given["type"], (given.get("mode") or "NULLABLE").upper())}
    if made["type"] == "RECORD":
        made["fields"] = [normalized(inner) for inner in given.get("fields", ())]
    return made


def duckdb_type(of: Field) -> str:
    """Return the type of a column in DuckDB."""
    if of["type"] == "RECORD":
        inner = (f"{quoted(part['name'])} {duckdb_type(part)}" for part in of["fields"])
        kind = f"STRUCT({', '.join(inner)})"
    elif "precision" in of:
        kind = f"DECIMAL({of['precision']},{of.get('scale', 0)})"
    elif of["type"] in _TO_DUCKDB:
        kind = _TO_DUCKDB[of["type"]]
    else:
        raise invalid(f"Type not found: {of['type']}")
    return f"{kind}[]" if of["mode"] == "REPEATED" else kind


def sql_type(of: Field) -> str:
    """Return a column's type as INFORMATION_SCHEMA writes it."""
    kind = _SQL_NAME.get(of["type"], of["type"])
    if kind == "STRUCT":
        kind = f"STRUCT<{', '.join(inner['name'] + ' ' + sql_type(inner) for inner in of['fields'])}>"
    if "precision" in of:
        kind += f"({of['precision']}{', ' + of['scale'] if of.get('scale') else ''})"
    return f"ARRAY<{kind}>" if of["mode"] == "REPEATED" else kind


def field_of_duckdb(name: str, kind: Any) -> Field:
    """Return the field that a column of a DuckDB result is; a bare NULL is an INT64, as in BigQuery."""
    if str(kind) == "JSON":
        return field(name, "JSON")
    if kind.id in ("list", "array"):
        inner = field_of_duckdb(name, kind.children[0][1])
        if inner["mode"] == "REPEATED":
            raise invalid(f"Cannot construct array with element type ARRAY: column {name}")
        return {**inner, "mode": "REPEATED"}
    if kind.id == "struct":
        return field(name, "RECORD", fields=[field_of_duckdb(*child) for child in kind.children])
    if kind.id == "decimal":
        return field(name, "BIGNUMERIC" if dict(kind.children)["scale"] == 18 else "NUMERIC")
    if kind.id not in _FROM_DUCKDB:
        raise invalid(f"this test server knows no BigQuery type for DuckDB's {kind} (column {name})")
    return field(name, _FROM_DUCKDB[kind.id])


def field_of_sql(name: str, kind: exp.DataType, mode: str = "NULLABLE") -> Field:
    """Return the field of a column declared in SQL."""
    if kind.is_type("array"):
        return field_of_sql(name, kind.expressions[0], "REPEATED")
    if kind.is_type("struct"):
        inner = [field_of_sql(part.name, part.args["kind"]) for part in kind.expressions]
        return field(name, "RECORD", mode, fields=inner)
    written = kind.sql("bigquery").upper()
    base, *numbers = re.findall(r"\w+", written)
    if base not in {*_TO_DUCKDB, *_API_NAME} - {"INTEGER", "FLOAT", "RECORD", "STRUCT"}:
        raise invalid(f"Type not found: {written}")
    sized = dict(zip(("precision", "scale"), numbers, strict=False)) if "NUMERIC" in base or base == "DECIMAL" else {}
    return field(name, base, mode, **sized)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def parameter_sql(kind: Mapping[str, Any], value: Mapping[str, Any]) -> tuple[str, str]:
    """Return a bound query parameter as a DuckDB expression, and its DuckDB type."""
    if kind["type"] == "ARRAY":
        inner = [parameter_sql(kind["arrayType"], element) for element in value.get("arrayValues", ())]
        of = _parameter_type(kind["arrayType"])
        return f"CAST([{', '.join(sql for sql, _ in inner)}] AS {of}[])", f"{of}[]"
    if kind["type"] in ("STRUCT", "RECORD"):
        parts = {
            part["name"]: parameter_sql(part["type"], value["structValues"][part["name"]])[0]
            for part in kind["structTypes"]
        }
        made = ", ".join(f"{literal(name)}: {sql}" for name, sql in parts.items())
        return f"CAST({{{made}}} AS {_parameter_type(kind)})", _parameter_type(kind)
    of, text = _parameter_type(kind), value.get("value")
    if text is None:
        return f"CAST(NULL AS {of})", of
    return (f"from_base64({literal(text)})" if of == "BLOB" else f"CAST({literal(str(text))} AS {of})"), of


def _parameter_type(kind: Mapping[str, Any]) -> str:
    if kind["type"] == "ARRAY":
        return _parameter_type(kind["arrayType"]) + "[]"
    if kind["type"] in ("STRUCT", "RECORD"):
        parts = (f"{quoted(part['name'])} {_parameter_type(part['type'])}" for part in kind["structTypes"])
        return f"STRUCT({', '.join(parts)})"
    return duckdb_type(field("_", kind["type"]))


def wire_value(column: str, of: Field, *, micros: bool) -> str:
    """Return the DuckDB expression (text, or JSON for nested values) of a value as the API sends it.

    TIMESTAMP goes as microseconds since 1970 if the client asked for that, as seconds otherwise.
    """
    if of["mode"] == "REPEATED":
        one = wire_value("_e", {**of, "mode": "NULLABLE"}, micros=micros)
        return f"to_json(list_transform(coalesce({column}, []), lambda _e: json_object('v', {one})))"
    match of["type"]:
        case "RECORD":
            parts = [
                f"json_object('v', {wire_value(column + '.' + quoted(inner['name']), inner, micros=micros)})"
                for inner in of["fields"]
            ]
            return f"CASE WHEN {column} IS NOT NULL THEN json_object('f', json_array({', '.join(parts)})) END"
        case "FLOAT":
            return f"replace(replace(CAST({column} AS VARCHAR), 'nan', 'NaN'), 'inf', 'Infinity')"
        case "TIMESTAMP":
            return f"CAST(epoch_us({column}) {'' if micros else '/ 1000000.0 '}AS VARCHAR)"
        case "DATETIME":
            return f"replace(CAST({column} AS VARCHAR), ' ', 'T')"
        case "BYTES":
            return f"base64({column})"
        case "NUMERIC" | "BIGNUMERIC":
            return f"regexp_replace(CAST({column} AS VARCHAR), '\\.?0+$', '')" if int(of.get("scale", 9)) else column
    return f"CAST({column} AS VARCHAR)"
