"""BigQuery's SQL in terms of DuckDB's: scripts cut into statements, statements read, refused and rewritten."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import duckdb

from tests.servers.bigquery.types import invalid, literal, quoted

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of sqlglotrs, which dagster-dbt's sqlglot installs
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import TokenType

# BigQuery's functions that sqlglot has no class for; any other unknown function is refused.
_OTHER_FUNCTIONS = {"error", "ieee_divide", "bit_and", "bit_or", "bit_xor", "session_user", "array_is_distinct"}
_MACROS = """
CREATE MACRO bq_div(a, b) AS CASE WHEN b = 0 THEN error('division by zero: ' || a || ' / ' || b) ELSE a / b END;
CREATE MACRO bq_idiv(a, b) AS
  CASE WHEN b = 0 THEN error('division by zero: DIV(' || a || ', 0)') ELSE (a - a % b) // b END;
CREATE MACRO bq_mod(a, b) AS CASE WHEN b = 0 THEN error('division by zero: MOD(' || a || ', 0)') ELSE a % b END;
CREATE MACRO bq_json(x) AS coalesce(CAST(to_json(x) AS VARCHAR), 'null');
CREATE MACRO range_bucket(x, bounds) AS CASE
  WHEN bounds <> list_sort(bounds) THEN error('RANGE_BUCKET: the array is not sorted in ascending order')
  WHEN NOT isnan(x) THEN len(list_filter(bounds, lambda bound: bound <= x)) END;
CREATE MACRO ieee_divide(a, b) AS CAST(a AS DOUBLE) / CAST(b AS DOUBLE);
"""


def new_database() -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(":memory:")
    database.execute("SET GLOBAL TimeZone='UTC'; SET python_enable_replacements=false")
    database.execute(_MACROS)
    return database


def statements(script: str) -> Iterator[str]:
    """Cut a script at its semicolons. Blocks (IF, LOOP, BEGIN .. EXCEPTION .. END) are not read."""
    start = 0
    for token in tokens(script):
        if token.token_type == TokenType.SEMICOLON:
            yield from _unless_empty(script[start : token.start])
            start = token.end + 1
    yield from _unless_empty(script[start:])


def _unless_empty(text: str) -> Iterator[str]:
    """Give a statement from its first word on: comments before it would hide what it is."""
    if found := tokens(text):
        yield text[found[0].start :].strip()


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


def _extract(node: exp.Extract) -> exp.Expression:
    match node.name.upper():
        case "DATE":
            return _cast(node.expression, "DATE")
        case "DAYOFWEEK":  # from Sunday, 1, where DuckDB counts from 0
            return exp.Paren(this=exp.Add(this=node.copy(), expression=_raw("1")))
        case "WEEK" | "MILLISECOND" | "MICROSECOND":
            raise invalid(f"this test server extracts no {node.name}: DuckDB means something else by it")
    return node


def _without_weeks(node: Any) -> exp.Expression:
    if "WEEK" in node.args["unit"].sql().upper().replace("ISOWEEK", ""):
        raise invalid("this test server counts no WEEK: BigQuery's begin on Sunday, DuckDB's on Monday")
    return node


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
    exp.Extract: _extract,
    exp.DateTrunc: _without_weeks,
    exp.TimestampTrunc: _without_weeks,
    exp.DateDiff: _without_weeks,
    exp.DatetimeDiff: _without_weeks,
    exp.SafeFunc: lambda n: _call("try", n.this),
}
