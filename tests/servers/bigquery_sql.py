"""BigQuery's SQL and types in terms of DuckDB's: scripts cut, statements translated, values in their wire format."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import duckdb

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of sqlglotrs, which dagster-dbt's sqlglot installs
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import TokenType

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
# BigQuery's functions that sqlglot has no class for; any other unknown function is refused.
_OTHER_FUNCTIONS = {"error", "ieee_divide", "bit_and", "bit_or", "bit_xor", "session_user", "array_is_distinct"}
_MACROS = """
CREATE MACRO bq_div(a, b) AS CASE WHEN b = 0 THEN error('division by zero: ' || a || ' / ' || b) ELSE a / b END;
CREATE MACRO bq_idiv(a, b) AS CASE WHEN b = 0 THEN error('division by zero: DIV(' || a || ', 0)') ELSE a // b END;
CREATE MACRO bq_mod(a, b) AS CASE WHEN b = 0 THEN error('division by zero: MOD(' || a || ', 0)') ELSE a % b END;
CREATE MACRO bq_json(x) AS coalesce(CAST(to_json(x) AS VARCHAR), 'null');
CREATE MACRO ieee_divide(a, b) AS CAST(a AS DOUBLE) / CAST(b AS DOUBLE);
"""


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


def new_database() -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(":memory:")
    database.execute("SET GLOBAL TimeZone='UTC'; SET python_enable_replacements=false")
    database.execute(_MACROS)
    return database


# --- types


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


# --- SQL


def statements(script: str) -> Iterator[str]:
    """Cut a script at its semicolons; a block (BEGIN .. END, IF .. END IF, LOOP) stays in one piece."""
    found = tokens(script)
    depth, start = 0, 0
    for number, token in enumerate(found):
        word, after = token.text.upper(), found[number + 1].text.upper() if number + 1 < len(found) else ""
        first = number == 0 or found[number - 1].text in (";",) or found[number - 1].text.upper() in _OPENERS
        if (word == "BEGIN" and first and after not in ("TRANSACTION", ";")) or (word == "IF" and first):
            depth += 1
        elif word == "END" and first:
            depth -= 1
        elif token.token_type == TokenType.SEMICOLON and depth == 0:
            if text := script[start : token.start].strip():
                yield text
            start = token.end + 1
    if (text := script[start:].strip()) and tokens(text):
        yield text


_OPENERS = {"BEGIN", "THEN", "ELSE"}


def tokens(sql: str) -> list[Any]:
    try:
        return sqlglot.tokenize(sql, read="bigquery")
    except SqlglotError as error:
        raise invalid(f"Syntax error: {error}") from error


@cache
def _parsed(sql: str) -> exp.Expression:
    for token in tokens(sql):
        if token.token_type in (TokenType.DCOLON, TokenType.DOLLAR):
            raise invalid(f'Syntax error: Unexpected "{token.text}" at [{token.line}:{token.col}]')
    if re.search(r"\$[A-Za-z_]", re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|--[^\n]*", "", sql)):
        raise invalid('Syntax error: Illegal input character "$"')
    try:
        tree = sqlglot.parse_one(sql, read="bigquery")
    except SqlglotError as error:
        raise invalid(f"Syntax error: {re.sub(chr(27) + r'.[0-9]*m', '', str(error))}") from error
    for node in tree.walk():
        if isinstance(node, exp.Anonymous) and node.name.lower() not in _OTHER_FUNCTIONS:
            raise invalid(f"Function not found: {node.name}")
        if isinstance(node, exp.Filter):
            raise invalid("Syntax error: Expected end of input but got keyword FILTER")
    return tree


def parsed(sql: str) -> exp.Expression:
    """Return the syntax tree of one statement; raise invalidQuery where BigQuery would not read it."""
    return _parsed(sql).copy()


def to_duckdb(tree: exp.Expression, table: Callable[[exp.Table], str], variables: Mapping[str, str]) -> str:
    """Return a statement in DuckDB's SQL.

    ``table`` gives the DuckDB name of a table reference; ``variables`` the DuckDB type of each script variable and,
    under ``@name``, of each query parameter. Their values are DuckDB variables of the same names.
    """
    places = [id(node) for node in tree.find_all(exp.Placeholder, bfs=False)]
    shared = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}

    def rewrite(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Table):
            return _table(node, shared, table)
        if isinstance(node, exp.Parameter | exp.Placeholder):
            name = f"@{node.name.lower()}" if isinstance(node, exp.Parameter) else f"?{places.index(id(node))}"
            if name not in variables:
                raise invalid(f"Query parameter '{node.name}' not found")
            return _variable(name, variables[name])
        if isinstance(node, exp.Column) and not node.table and node.name.lower() in variables:
            return _variable(node.name.lower(), variables[node.name.lower()])
        made = _REWRITES.get(type(node))
        return made(node) if made else node

    _name_columns(tree)
    for node in reversed(list(tree.walk(bfs=False))):  # children first: a rewrite may print what is inside
        made = rewrite(node)
        if made is not node:
            node.replace(made)
            tree = made if node is tree else tree
    return tree.sql(dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.IGNORE)


def _name_columns(tree: exp.Expression) -> None:
    """Call the columns without a name f0_, f1_, ..., as BigQuery does."""
    select = tree
    while isinstance(select, exp.SetOperation | exp.Subquery):
        select = select.this
    if isinstance(select, exp.Select):
        unnamed = [e for e in select.expressions if not isinstance(e, exp.Alias | exp.Column | exp.Dot | exp.Star)]
        for number, column in enumerate(unnamed):
            column.replace(exp.alias_(column.copy(), f"f{number}_"))


def _raw(text: str) -> exp.Expression:
    return exp.Var(this=text)


def _variable(name: str, kind: str) -> exp.Expression:
    return _raw(f"CAST(getvariable({literal(name)}) AS {kind})")


def _table(node: exp.Table, shared: set[str], table: Callable[[exp.Table], str]) -> exp.Expression:
    if not isinstance(node.this, exp.Identifier) or (not node.args.get("db") and node.name.lower() in shared):
        return node
    alias = node.args.get("alias") or exp.TableAlias(this=exp.to_identifier(node.name.rpartition(".")[2], quoted=True))
    made = exp.Table(this=_raw(table(node)), alias=alias)
    for key in ("joins", "pivots", "laterals"):
        if node.args.get(key):
            made.set(key, node.args[key])
    if isinstance(node.parent, exp.Insert | exp.TruncateTable) and node.arg_key in ("this", "expressions"):
        made.set("alias", None)
    return made


def _call(name: str, *arguments: exp.Expression | str) -> exp.Expression:
    return exp.Anonymous(this=name, expressions=[_raw(a) if isinstance(a, str) else a for a in arguments])


def _cast(of: exp.Expression, kind: str) -> exp.Expression:
    return exp.Cast(this=of, to=exp.DataType.build(kind, dialect="duckdb"))


def _interval(node: exp.Expression, sign: str) -> exp.Expression:
    unit, amount = node.args["unit"].name.lower(), node.expression
    number = _raw(amount.name) if isinstance(amount, exp.Literal) else amount
    whole = _cast(exp.Paren(this=number), "BIGINT")
    moved = {
        "quarter": lambda: _call("to_months", exp.Mul(this=whole, expression=_raw("3"))),
        "week": lambda: _call("to_days", exp.Mul(this=_cast(whole, "INTEGER"), expression=_raw("7"))),
        **{
            unit: (lambda unit=unit: _call(f"to_{unit}s", _cast(whole, "INTEGER"))) for unit in ("day", "month", "year")
        },
    }.get(unit, lambda: _call(f"to_{unit}s", whole))()
    operator = exp.Add if sign == "+" else exp.Sub
    return exp.Paren(this=operator(this=exp.Paren(this=node.this), expression=moved))


def _format(node: exp.TimeToStr) -> exp.Expression:
    value, zone = node.this, node.args.get("zone")
    inner = value.this if isinstance(value, exp.TsOrDsToTimestamp | exp.TsOrDsToDate) else value
    if isinstance(value, exp.TsOrDsToTimestamp):
        moment = _call("timezone", zone or _raw("'UTC'"), _cast(inner, "TIMESTAMPTZ"))
    else:
        moment = _cast(inner, "TIMESTAMP")
    return _call("strftime", moment, node.args["format"])


def _aggregate(node: exp.IgnoreNulls) -> exp.Expression:
    if not isinstance(node.this, exp.ArrayAgg):
        return node
    return _array_agg(node.this, where="IS NOT NULL")


def _array_agg(node: exp.ArrayAgg, where: str = "") -> exp.Expression:
    if isinstance(node.parent, exp.IgnoreNulls) and not where:
        return node
    inner, limit, order = node.this, None, ""
    if isinstance(inner, exp.Limit):
        inner, limit = inner.this, inner.expression.sql("duckdb")
    if isinstance(inner, exp.Order):
        order = " " + exp.Order(expressions=inner.expressions).sql("duckdb").strip()
        inner = inner.this
    distinct = isinstance(inner, exp.Distinct)
    value = (inner.expressions[0] if distinct else inner).sql("duckdb")
    made = f"array_agg({'DISTINCT ' if distinct else ''}{value}{order})" + (
        f" FILTER (WHERE ({value}) {where})" if where else ""
    )
    return _raw(f"list_slice({made}, 1, {limit})" if limit else made)


def _unnest(node: exp.Unnest) -> exp.Expression:
    """Give UNNEST its columns: a struct's fields become columns, an offset begins at zero."""
    (array,), alias, offset = node.expressions, node.args.get("alias"), node.args.get("offset")
    names = [name.name for name in (alias.columns if alias else ())] or ([alias.name] if alias and alias.name else [])
    name, text = (names or ["_unnested"])[0], array.sql("duckdb")
    is_struct = array.find(exp.Struct) is not None and isinstance(array, exp.Array | exp.Cast)
    columns = f"unnest({text}, max_depth := 2)" if is_struct else f"unnest({text}) AS {quoted(name)}"
    if offset:
        called = offset.name if isinstance(offset, exp.Identifier) else "offset"
        columns += f", generate_subscripts({text}, 1) - 1 AS {quoted(called)}"
    return exp.Table(
        this=_raw(f"(SELECT {columns})"),
        alias=exp.TableAlias(this=exp.to_identifier(name if is_struct else f"_of_{name}", quoted=True)),
    )


def _number(node: exp.Literal) -> exp.Expression:
    if node.is_string:
        return node
    if not node.this.isdigit():
        return _raw(f"CAST('{node.this}' AS DOUBLE)")
    # A column or product of short literals would be an INT32 in DuckDB; a place in ORDER BY must stay a literal.
    parents = exp.Alias | exp.Select | exp.Tuple | exp.Add | exp.Sub | exp.Mul | exp.PropertyEQ | exp.Array
    return _raw(f"CAST({node.this} AS BIGINT)") if isinstance(node.parent, parents) else node


def _decimal(node: exp.DataType) -> exp.Expression:
    if node.is_type("bigdecimal"):
        return exp.DataType.build("DECIMAL(38,18)", dialect="duckdb")
    if node.is_type("decimal") and not node.expressions:
        return exp.DataType.build("DECIMAL(38,9)", dialect="duckdb")
    return node


def _datetime(node: exp.Datetime) -> exp.Expression:
    second = node.expression
    if second is None:
        return _cast(node.this, "TIMESTAMP")
    is_time = isinstance(second, exp.Time | exp.TsOrDsToTime) or (
        isinstance(second, exp.Cast) and second.is_type("time")
    )
    if is_time or not (second.is_string or isinstance(second, exp.Column)):
        return exp.Paren(this=exp.Add(this=_cast(node.this, "DATE"), expression=_cast(second, "TIME")))
    return _call("timezone", second, _cast(node.this, "TIMESTAMPTZ"))


def _date(node: exp.Date) -> exp.Expression:
    if zone := node.args.get("zone"):
        return _cast(_call("timezone", zone, _cast(node.this, "TIMESTAMPTZ")), "DATE")
    if node.expressions:
        return _call("make_date", node.this, *node.expressions)
    return _cast(node.this, "DATE")


def _timestamp(node: exp.Timestamp) -> exp.Expression:
    if zone := node.args.get("zone"):
        return _call("timezone", zone, _cast(node.this, "TIMESTAMP"))
    return _cast(node.this, "TIMESTAMPTZ")


def _as(kind: str, made: exp.Expression) -> exp.Expression:
    return _cast(made, kind)


_REWRITES: dict[type, Callable[[Any], exp.Expression]] = {
    exp.Literal: _number,
    exp.DataType: _decimal,
    exp.Div: lambda n: _call("bq_div", n.this, n.expression),
    exp.IntDiv: lambda n: _call("bq_idiv", n.this, n.expression),
    exp.Mod: lambda n: _call("bq_mod", n.this, n.expression),
    exp.JSONFormat: lambda n: _call("bq_json", n.this),
    exp.IgnoreNulls: _aggregate,
    exp.ArrayAgg: _array_agg,
    exp.Unnest: lambda n: n if isinstance(n.parent, exp.In) else _unnest(n),
    exp.TimeToStr: _format,
    exp.Timestamp: _timestamp,
    exp.Datetime: _datetime,
    exp.Date: _date,
    exp.TimestampDiff: lambda n: _call("date_sub", f"'{n.unit.name.lower()}'", n.expression, n.this),
    exp.TimestampAdd: lambda n: _as("TIMESTAMPTZ", _interval(n, "+")),
    exp.TimestampSub: lambda n: _as("TIMESTAMPTZ", _interval(n, "-")),
    exp.DateAdd: lambda n: _as("DATE", _interval(n, "+")),
    exp.DateSub: lambda n: _as("DATE", _interval(n, "-")),
    exp.DatetimeAdd: lambda n: _as("TIMESTAMP", _interval(n, "+")),
    exp.DatetimeSub: lambda n: _as("TIMESTAMP", _interval(n, "-")),
    exp.Extract: lambda n: _cast(n.expression, "DATE") if n.name.upper() == "DATE" else n,
}
