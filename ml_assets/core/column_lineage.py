"""Which columns of its parents each column of a SELECT is made from."""

from collections.abc import Mapping
from typing import cast

ColumnLineage = dict[str, list[tuple[str, str]]]


def column_lineage(sql: str, *, schema: Mapping[str, Mapping[str, str]], dialect: str) -> ColumnLineage:
    """Return, for each column of a SELECT, the (schema.table, column) pairs it reads, sorted.

    ``schema`` gives table -> column -> SQL type and is asked only for the tables the statement reads. A column made
    from no table (a literal) has an empty list.

    >>> column_lineage("select a + b as c from raw.t", schema={"raw.t": {"a": "int", "b": "int"}}, dialect="duckdb")
    {'c': [('raw.t', 'a'), ('raw.t', 'b')]}
    """
    from sqlglot import exp, parse_one
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    statement = parse_one(sql, dialect=dialect)
    nested: dict[str, dict[str, dict[str, str]]] = {}
    for table in statement.find_all(exp.Table):
        if table.db:
            nested.setdefault(table.db, {})[table.name] = dict(schema[f"{table.db}.{table.name}"])
            table.set("catalog", None)
    qualified = qualify(
        statement,
        schema=cast("dict[str, object]", nested),
        dialect=dialect,
        quote_identifiers=False,
        validate_qualify_columns=False,
    )
    scope = build_scope(qualified)
    found: ColumnLineage = {}
    for column in cast("exp.Query", qualified).named_selects:
        nodes = lineage(column, qualified, schema=nested, scope=scope, dialect=dialect).walk()
        # A leaf without a table is a literal.
        leaves = [(node.expression.find(exp.Table), node.name) for node in nodes if not node.downstream]
        parents = {(f"{t.db}.{t.name}", exp.to_column(name).name) for t, name in leaves if t is not None and t.db}
        found[column] = sorted(parents)
    return found
