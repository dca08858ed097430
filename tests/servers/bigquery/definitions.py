"""What CREATE, ALTER and DROP do to datasets, tables and views."""

from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from tests.servers.bigquery import types
from tests.servers.bigquery.engine import Engine, Outcome, Run, TableId
from tests.servers.bigquery.types import ApiError, Field, invalid, quoted


def create(engine: Engine, run: Run, tree: exp.Create) -> Outcome:
    kind = tree.args["kind"].upper()
    if kind == "SCHEMA":
        return _create_dataset(engine, run, tree)
    if kind not in ("TABLE", "VIEW"):
        raise invalid(f"this test server creates no {kind}")
    schema = tree.this if isinstance(tree.this, exp.Schema) else None
    node = schema.this if schema else tree.this
    properties = tree.args["properties"].expressions if tree.args.get("properties") else []
    is_temporary = any(isinstance(part, exp.TemporaryProperty) for part in properties) or node.db == "_SESSION"
    declared = [_declared(part) for part in schema.expressions if isinstance(part, exp.ColumnDef)] if schema else []
    if run.session.in_transaction and not is_temporary:
        raise invalid("DDL statements on permanent entities are not supported inside a transaction")
    if is_temporary:
        return _create_temporary(engine, run, tree, node, declared)
    table = engine.resolve(run, node)
    engine.dataset(table[0], run.location)
    existed = table in engine.tables
    if existed and not tree.args.get("replace"):
        if tree.args.get("exists"):
            return Outcome(kind=f"CREATE_{kind}", target=table, operation="SKIP")
        raise ApiError(409, "duplicate", f"Already Exists: Table {engine.project}:{table[0]}.{table[1]}")
    spec = _spec(engine, run, properties)
    operation = "REPLACE" if existed else "CREATE"
    if existed and engine.tables[table]["type"] != kind:
        raise invalid(f"{'.'.join(table)} is not a {kind}; it cannot be replaced by one")
    if existed and kind == "TABLE":
        _refuse_other_partitions(engine, table, spec)
    query = tree.expression
    while isinstance(query, exp.Subquery | exp.Paren) and not query.args.get("alias"):
        query = query.this
    if kind == "VIEW":
        engine.translate(run, query.copy())
        if not run.is_dry:
            with engine.transaction(run.session.cursor):
                engine.create_view(run.session.cursor, table, query.sql("bigquery"), **spec)
        return Outcome(kind="CREATE_VIEW", target=table, operation=operation)
    like = next((part for part in properties if isinstance(part, exp.LikeProperty)), None)
    copied = tree.args.get("clone")
    if like or copied:
        other = (like or copied).this
        query = exp.select("*").from_(other.copy()).limit(0) if like else exp.select("*").from_(other.copy())
        original = engine.table(engine.resolve(run, other), run.location)
        declared, spec = (
            original["schema"]["fields"],
            {**{k: original.get(k) for k in spec}, **{k: v for k, v in spec.items() if v}},
        )
    if query is None:
        if not run.is_dry:
            with engine.transaction(run.session.cursor):
                engine.create_table(run.session.cursor, table, declared, **spec)
        return Outcome(kind="CREATE_TABLE", target=table, operation=operation)
    return _create_as(engine, run, table, query, declared, spec, operation)


def _refuse_other_partitions(engine: Engine, table: TableId, spec: Mapping[str, Any]) -> None:
    def essence(of: Mapping[str, Any]) -> tuple[Any, ...]:
        by = of.get("timePartitioning") or {}
        return by.get("field"), by.get("type"), (of.get("clustering") or {}).get("fields")

    if essence(engine.tables[table]) != essence(spec):
        raise invalid(
            f"Cannot replace a table with a different partitioning or clustering spec: {'.'.join(table)}. "
            "Instead, DROP the table, and then recreate it."
        )


def _create_as(
    engine: Engine,
    run: Run,
    table: TableId,
    query: exp.Expression,
    declared: list[Field],
    spec: Mapping[str, Any],
    operation: str,
) -> Outcome:
    cursor = run.session.cursor
    fields, source = engine.typed(cursor, engine.translate(run, query.copy()))
    if declared and len(declared) != len(fields):
        raise invalid(f"The query has {len(fields)} columns, the table {len(declared)}")
    for of, found in zip(declared, fields, strict=bool(declared)):
        if of["type"] != found["type"] and (of["type"], found["type"]) not in _COERCED:
            raise invalid(f"Column {of['name']} of type {of['type']} cannot take values of type {found['type']}")
    outcome = Outcome(kind="CREATE_TABLE_AS_SELECT", target=table, operation=operation)
    if run.is_dry:
        outcome.fields = declared or fields
        return outcome
    columns = declared or fields
    with engine.transaction(cursor):
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE _selected AS {source}")  # it may read the table it replaces
        engine.create_table(cursor, table, columns, **spec)
        engine.fill(cursor, table, "temp._selected")
        cursor.execute("DROP TABLE temp._selected")
    return outcome


# What BigQuery converts by itself, besides a bare NULL, which comes as an INTEGER.
_COERCED = {
    *(("FLOAT", "INTEGER"), ("FLOAT", "NUMERIC"), ("NUMERIC", "INTEGER"), ("BIGNUMERIC", "INTEGER")),
    *(("BIGNUMERIC", "NUMERIC"), ("FLOAT", "BIGNUMERIC")),
}


def _create_temporary(engine: Engine, run: Run, tree: exp.Create, node: exp.Table, declared: list[Field]) -> Outcome:
    cursor, name = run.session.cursor, node.name
    verb = "CREATE OR REPLACE TEMP TABLE" if tree.args.get("replace") else "CREATE TEMP TABLE"
    if tree.expression is not None:
        fields, query = engine.typed(cursor, engine.translate(run, tree.expression.copy()))
        if not run.is_dry:
            cursor.execute(f"{verb} {quoted(name)} AS {query}")
    else:
        fields = declared
        columns = ", ".join(f"{quoted(of['name'])} {types.duckdb_type(of)}" for of in declared)
        if not run.is_dry:
            cursor.execute(f"{verb} {quoted(name)} ({columns})")
    run.session.temporary[name.lower()] = fields
    return Outcome(kind="CREATE_TABLE_AS_SELECT" if tree.expression else "CREATE_TABLE", operation="CREATE")


def _value(engine: Engine, run: Run, expression: exp.Expression) -> Any:
    """Return what an expression of an option comes to."""
    query = engine.translate(run, exp.select(expression.copy()))
    (value,) = run.session.cursor.execute(query).fetchone() or (None,)
    return value


def _declared(column: exp.ColumnDef) -> Field:
    kinds = [constraint.kind for constraint in column.args.get("constraints") or ()]
    required = any(isinstance(kind, exp.NotNullColumnConstraint) and not kind.args.get("allow_null") for kind in kinds)
    made = types.field_of_sql(column.name, column.args["kind"], "REQUIRED" if required else "NULLABLE")
    for option in column.find_all(exp.Property):
        if option.name.lower() == "description":
            made["description"] = option.args["value"].name
    return made


def _spec(engine: Engine, run: Run, properties: list[Any]) -> dict[str, Any]:
    """Return the parts of a table's resource that PARTITION BY, CLUSTER BY and OPTIONS say."""
    spec: dict[str, Any] = {"timePartitioning": None, "clustering": None}
    for part in properties:
        if isinstance(part, exp.PartitionedByProperty):
            spec["timePartitioning"] = _partitioning(part.this)
        elif type(part).__name__ in ("ClusterProperty", "Cluster", "ClusteredByProperty"):
            spec["clustering"] = {"fields": [column.name for column in part.expressions]}
    for part in properties:
        if type(part) is exp.Property:
            name, value = part.name.lower(), part.args["value"]
            if name == "expiration_timestamp":
                moment = _value(engine, run, value)
                spec["expirationTime"] = str(int(moment.timestamp() * 1000)) if moment else None
            elif name == "labels":
                pairs = [[text.name for text in pair.find_all(exp.Literal)] for pair in value.expressions]
                spec["labels"] = dict(pairs)
            elif name in ("description", "friendly_name"):
                spec["description" if name == "description" else "friendlyName"] = _value(engine, run, value)
            elif name in ("partition_expiration_days", "require_partition_filter"):
                if not spec["timePartitioning"]:
                    raise invalid(f"{name} can only be set on partitioned tables")
                key = "expirationMs" if name == "partition_expiration_days" else "requirePartitionFilter"
                days = value.name
                spec["timePartitioning"][key] = (
                    str(int(float(days) * 86_400_000)) if key == "expirationMs" else value.this
                )
            else:
                raise invalid(f"Unknown option: {name}")
    return spec


def _partitioning(by: exp.Expression) -> dict[str, Any]:
    column = by if isinstance(by, exp.Identifier) else by.find(exp.Column)
    unit = by.args.get("unit")
    if column is None:
        raise invalid("PARTITION BY expression must be a column, DATE(column) or a truncation of one")
    return {"type": unit.name.upper() if unit else "DAY", "field": column.name}


def _create_dataset(engine: Engine, run: Run, tree: exp.Create) -> Outcome:
    name = tree.this.db or tree.this.name
    if name in engine.datasets:
        if tree.args.get("exists"):
            return Outcome(kind="CREATE_SCHEMA", operation="SKIP")
        raise ApiError(409, "duplicate", f"Already Exists: Dataset {engine.project}:{name}")
    location = next((p.args["value"].name for p in tree.find_all(exp.Property) if p.name.lower() == "location"), None)
    if not run.is_dry:
        engine.create_dataset(name, location or run.location)
    return Outcome(kind="CREATE_SCHEMA", operation="CREATE")


def drop(engine: Engine, run: Run, tree: exp.Drop) -> Outcome:
    kind, is_lenient = tree.args["kind"].upper(), bool(tree.args.get("exists"))
    (node,) = tree.args["tables"]
    if kind == "SCHEMA":
        name = node.db or node.name
        if name in engine.datasets or not is_lenient:
            engine.drop_dataset(name, with_contents=bool(tree.args.get("cascade")))
        return Outcome(kind="DROP_SCHEMA", operation="DROP")
    if kind not in ("TABLE", "VIEW"):
        raise invalid(f"this test server drops no {kind}")
    if node.db in ("", "_SESSION") and node.name.lower() in run.session.temporary:
        run.session.cursor.execute(f"DROP TABLE temp.{quoted(node.name)}")
        del run.session.temporary[node.name.lower()]
        return Outcome(kind="DROP_TABLE", operation="DROP")
    if run.session.in_transaction:
        raise invalid("DDL statements on permanent entities are not supported inside a transaction")
    table = engine.resolve(run, node)
    engine.dataset(table[0], run.location)
    if table not in engine.tables and is_lenient:
        return Outcome(kind=f"DROP_{kind}", target=table, operation="SKIP")
    if engine.table(table, run.location)["type"] != kind:
        raise invalid(f"{'.'.join(table)} is not a {kind}")
    if not run.is_dry:
        engine.drop_table(run.session.cursor, table)
    return Outcome(kind=f"DROP_{kind}", target=table, operation="DROP")


def alter(engine: Engine, run: Run, tree: exp.Alter) -> Outcome:
    if run.session.in_transaction:
        raise invalid("DDL statements on permanent entities are not supported inside a transaction")
    table = engine.resolve(run, tree.this)
    found = engine.table(table, run.location)
    fields = list(found["schema"]["fields"])
    for action in tree.args["actions"]:
        if isinstance(action, exp.ColumnDef):
            of = _declared(action)
            if of["name"] in {known["name"] for known in fields}:
                if action.args.get("exists"):
                    continue
                raise invalid(f"Column already exists: {of['name']}")
            fields.append(of)
        elif isinstance(action, exp.AlterSet):
            spec = _spec(engine, run, list(action.find_all(exp.Property)))
            engine.change_table(table, {key: value for key, value in spec.items() if value is not None})
        elif isinstance(action, exp.AlterRename):
            engine.rename(run.session.cursor, table, action.this.name)
            return Outcome(kind="ALTER_TABLE", target=(table[0], action.this.name), operation="ALTER")
        elif isinstance(action, exp.Drop):
            (column,) = action.args["tables"]
            engine.drop_column(run.session.cursor, table, column.name)
            fields = [of for of in fields if of["name"] != column.name]
        elif isinstance(action, exp.AlterColumn) and action.args.get("allow_null"):
            fields = [{**of, "mode": "NULLABLE"} if of["name"] == action.name else of for of in fields]
        else:
            raise invalid(f"this test server alters no table by {action.sql('bigquery')}")
    if fields != engine.tables[table]["schema"]["fields"]:
        with engine.transaction(run.session.cursor):
            engine.change_columns(run.session.cursor, table, fields)
    return Outcome(kind="ALTER_TABLE", target=table, operation="ALTER")
