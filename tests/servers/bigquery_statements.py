"""What each kind of SQL statement does, and scripts of them: variables, conditions, transactions, errors."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import duckdb
from sqlglot import exp

from tests.servers import bigquery_sql as sql
from tests.servers.bigquery_engine import Engine, Outcome, Run, TableId, known_errors
from tests.servers.bigquery_sql import ApiError, Field, invalid, literal, quoted


def run_script(engine: Engine, run: Run, script: str, *, keep_transaction: bool = False) -> Outcome:
    """Run one statement, or several one after the other; what a failing script had committed stays, as in BigQuery.

    A transaction the script leaves open is rolled back, unless a session keeps it for its next query.
    """
    texts = list(sql.statements(script))
    if not texts:
        raise invalid("Syntax error: Unexpected end of script")
    is_script = len(texts) > 1 or _CONTROL.match(texts[0]) is not None
    try:
        for text in texts:
            _statement(engine, run, text)
    except BaseException:
        _end_transaction(engine, run)
        raise
    if not keep_transaction:
        _end_transaction(engine, run)
    outcome = run.last or Outcome(kind="SCRIPT")
    if is_script:
        return Outcome(kind="SCRIPT", fields=outcome.fields, rows=outcome.rows)
    return outcome


def _end_transaction(engine: Engine, run: Run) -> None:
    if run.session.in_transaction:
        with suppress(duckdb.Error):
            run.session.cursor.rollback()
        run.session.in_transaction = False
        engine.forget_sizes()


_CONTROL = re.compile(
    r"\s*(?:(?P<begin>BEGIN(?:\s+TRANSACTION)?\s*$)|(?P<commit>COMMIT(?:\s+TRANSACTION)?\s*$)"
    r"|(?P<rollback>ROLLBACK(?:\s+TRANSACTION)?\s*$)|(?P<declare>DECLARE\s)|(?P<set>SET\s)|(?P<assert>ASSERT\s)"
    r"|(?P<raise>RAISE\b)|(?P<if>IF\s)|(?P<block>BEGIN\s)|(?P<execute>EXECUTE\s+IMMEDIATE\s))",
    re.IGNORECASE,
)


def _statement(engine: Engine, run: Run, text: str) -> None:
    text = _without_leading_comments(text)
    control = _CONTROL.match(text)
    if control:
        if not run.is_dry:
            _CONTROLS[control.lastgroup or ""](engine, run, text)
        return
    tree = sql.parsed(text)
    run.n_children += 1
    for kind, action in _ACTIONS.items():
        if isinstance(tree, kind):
            with known_errors():
                outcome = action(engine, run, tree)
            run.last = outcome
            return
    raise invalid(f"Syntax error: this test server runs no statement that begins with {text[:40]!r}")


def _without_leading_comments(text: str) -> str:
    return re.sub(r"\A(\s+|--[^\n]*(\n|\Z)|#[^\n]*(\n|\Z)|/\*.*?\*/)*", "", text, flags=re.DOTALL)


# --- scripts


def _begin(engine: Engine, run: Run, _: str) -> None:
    if run.session.in_transaction:
        raise invalid("Transaction already in progress")
    run.session.cursor.begin()
    run.session.in_transaction = True


def _commit(engine: Engine, run: Run, _: str) -> None:
    if not run.session.in_transaction:
        raise invalid("No transaction in progress; cannot commit")
    with known_errors():
        run.session.in_transaction = False
        run.session.cursor.commit()


def _rollback(engine: Engine, run: Run, _: str) -> None:
    if not run.session.in_transaction:
        raise invalid("No transaction in progress; cannot roll back")
    _end_transaction(engine, run)


def _declare(engine: Engine, run: Run, text: str) -> None:
    found = re.match(
        r"DECLARE\s+([\w\s,`]+?)\s+(\w+\s*(?:<.*>)?(?:\([\d\s,]+\))?)?\s*(?:DEFAULT\s+(.*))?$", text, _FLAGS
    )
    if not found or not (found[2] or found[3]):
        raise invalid(f"Syntax error in DECLARE: {text}")
    for name in (part.strip(" `\n").lower() for part in found[1].split(",")):
        if found[2]:
            cast = sql.parsed(f"SELECT CAST(NULL AS {found[2]})").expressions[0]
            kind = sql.duckdb_type(sql.field_of_sql(name, cast.find(exp.Cast).to))
        else:
            kind = None
        _assign(engine, run, [name], found[3] or "NULL", kinds=[kind])


def _set(engine: Engine, run: Run, text: str) -> None:
    found = re.match(r"SET\s+(\(?[\w\s,`]+\)?)\s*=\s*(.*)$", text, _FLAGS)
    if not found:
        raise invalid(f"Syntax error in SET: {text}")
    names = [name.strip(" `\n").lower() for name in found[1].strip("() ").split(",")]
    for name in names:
        if name not in run.session.variables:
            raise invalid(f"Undeclared variable: {name}")
    _assign(engine, run, names, found[2], kinds=[run.session.variables[name] for name in names], is_row="(" in found[1])


def _assign(
    engine: Engine, run: Run, names: list[str], value: str, *, kinds: list[str | None], is_row: bool = False
) -> None:
    inner = sql.parsed(f"SELECT {value}").expressions[0]
    while isinstance(inner, exp.Paren | exp.Subquery) and is_row:
        inner = inner.this
    if is_row and isinstance(inner, exp.Select):
        inner.set("kind", None)
        query = engine.translate(run, inner)
    elif is_row and isinstance(inner, exp.Tuple):
        query = engine.translate(run, exp.select(*(part.copy() for part in inner.expressions)))
    else:
        query = engine.translate(run, exp.select(inner.copy()))
    cursor = run.session.cursor
    with known_errors():
        found = cursor.sql(query)
        if len(found.columns) != len(names):
            raise invalid(f"SET assigns {len(found.columns)} values to {len(names)} variables")
        columns = [f"c{number}" for number in range(len(names))]
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE _assigned AS SELECT * FROM ({query}) AS _({', '.join(columns)})")
        for name, column, kind, own in zip(names, columns, kinds, found.types, strict=True):
            kind = kind or sql.duckdb_type(sql.field_of_duckdb(name, own))
            cursor.execute(f"SET VARIABLE {quoted(name)} = (SELECT CAST({column} AS {kind}) FROM _assigned)")
            run.session.variables[name] = kind
        cursor.execute("DROP TABLE _assigned")


def _value(engine: Engine, run: Run, expression: str) -> Any:
    query = engine.translate(run, sql.parsed(f"SELECT {expression}"))
    with known_errors():
        row = run.session.cursor.execute(query).fetchone()
    return row[0] if row else None


def _assert(engine: Engine, run: Run, text: str) -> None:
    found = re.match(r"ASSERT\s+(.*?)(?:\s+AS\s+('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"))?$", text, _FLAGS)
    if not found or _value(engine, run, found[1]) is not True:
        described = _value(engine, run, found[2]) if found and found[2] else "Assertion failed"
        raise invalid(str(described))


def _raise(engine: Engine, run: Run, text: str) -> None:
    found = re.match(r"RAISE(?:\s+USING\s+MESSAGE\s*=\s*(.*))?$", text, _FLAGS)
    raise invalid(str(_value(engine, run, found[1])) if found and found[1] else "RAISE")


def _if(engine: Engine, run: Run, text: str) -> None:
    """Run the first branch whose condition holds."""
    parts = _cut(text, ("IF", "THEN", "ELSEIF", "ELSE", "END"))
    branches, condition = list[tuple[str, str]](), ""
    for word, body in parts:
        if word in ("IF", "ELSEIF"):
            condition = body
        elif word == "THEN":
            branches.append((condition, body))
        elif word == "ELSE":
            branches.append(("TRUE", body))
    for condition, body in branches:
        if _value(engine, run, condition) is True:
            for statement in sql.statements(body):
                _statement(engine, run, statement)
            return


def _block(engine: Engine, run: Run, text: str) -> None:
    parts = dict(_cut(text, ("BEGIN", "EXCEPTION", "END")))
    try:
        for statement in sql.statements(parts["BEGIN"]):
            _statement(engine, run, statement)
    except ApiError as error:
        if "EXCEPTION" not in parts:
            raise
        body = re.sub(r"^\s*WHEN\s+ERROR\s+THEN", "", parts["EXCEPTION"], flags=re.IGNORECASE)
        for statement in sql.statements(body):
            if re.fullmatch(r"RAISE\s*", statement, re.IGNORECASE):
                raise
            _statement(engine, run, statement.replace("@@error.message", literal(error.message)))


def _execute_immediate(engine: Engine, run: Run, text: str) -> None:
    _statement(engine, run, str(_value(engine, run, re.sub(r"^EXECUTE\s+IMMEDIATE", "", text, flags=_FLAGS))))


def _cut(text: str, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return each of these words that stands in the outermost block with the text behind it."""
    depth, marks = 0, list[tuple[str, int, int]]()
    tokens = sql.tokens(text)
    for number, token in enumerate(tokens):
        word = token.text.upper()
        before = tokens[number - 1].text.upper() if number else ";"
        first = before in (";", "BEGIN", "THEN", "ELSE")
        if word in ("BEGIN", "IF") and first and number:
            depth += 1
        elif word == "END" and first and depth:
            depth -= 1
        elif depth == 0 and word in words and ((word == "THEN" and "IF" in words) or first):
            marks.append((word, token.start, token.end + 1))
    ends = [start for _, start, _ in marks[1:]] + [len(text)]
    return [(word, text[after:end]) for (word, _, after), end in zip(marks, ends, strict=True)]


_FLAGS = re.IGNORECASE | re.DOTALL
_CONTROLS: dict[str, Callable[[Engine, Run, str], None]] = {
    "begin": _begin,
    "commit": _commit,
    "rollback": _rollback,
    "declare": _declare,
    "set": _set,
    "assert": _assert,
    "raise": _raise,
    "if": _if,
    "block": _block,
    "execute": _execute_immediate,
}

# --- queries


def _select(engine: Engine, run: Run, tree: exp.Expression) -> Outcome:
    query = engine.translate(run, tree)
    fields, query = engine.typed(run.session.cursor, query)
    rows = None if run.is_dry else run.session.cursor.sql(query).to_arrow_table()
    return Outcome(kind="SELECT", fields=fields, rows=rows)


# --- changes of rows


def _insert(engine: Engine, run: Run, tree: exp.Insert) -> Outcome:
    return _change(engine, run, tree, "INSERT", "insertedRowCount")


def _update(engine: Engine, run: Run, tree: exp.Update) -> Outcome:
    return _change(engine, run, tree, "UPDATE", "updatedRowCount")


def _delete(engine: Engine, run: Run, tree: exp.Delete) -> Outcome:
    if not tree.this and tree.args.get("tables"):  # DELETE without FROM
        tree.set("this", tree.args["tables"][0])
        tree.set("tables", None)
    return _change(engine, run, tree, "DELETE", "deletedRowCount")


def _truncate(engine: Engine, run: Run, tree: exp.TruncateTable) -> Outcome:
    return _change(engine, run, exp.delete(tree.expressions[0].copy()), "TRUNCATE_TABLE", "deletedRowCount")


def _change(engine: Engine, run: Run, tree: Any, kind: str, counted: str) -> Outcome:
    if kind in ("UPDATE", "DELETE") and not tree.args.get("where"):
        raise invalid(f"{kind} must have a WHERE clause")
    target = _target(engine, run, tree)
    statement = engine.translate(run, tree)
    if run.is_dry:
        run.session.cursor.execute(f"EXPLAIN {statement}")
        return Outcome(kind=kind, target=target)
    (n_rows,) = run.session.cursor.execute(statement).fetchone() or (0,)
    engine.changed(target)
    return Outcome(kind=kind, n_affected=n_rows, counts={counted: n_rows}, target=target)


def _target(engine: Engine, run: Run, tree: Any) -> TableId | None:
    node = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    if node.db in ("", "_SESSION") and node.name.lower() in run.session.temporary:
        return None
    table = engine.resolve(run, node)
    if engine.table(table, run.location)["type"] != "TABLE":
        raise invalid(f"Cannot change rows of a view: {'.'.join(table)}")
    return table


def _merge(engine: Engine, run: Run, tree: exp.Merge) -> Outcome:
    target = _target(engine, run, tree)
    whens = tree.args["whens"].expressions
    cursor, session = run.session.cursor, run.session
    names = {"insert": "insertedRowCount", "update": "updatedRowCount", "delete": "deletedRowCount"}
    on = tree.args["on"]
    if isinstance(on, exp.Boolean) and not on.this:
        statements = _merge_of_strangers(engine, run, tree, whens)
    else:
        translated = engine.translate(run, tree)
        statements = [("", f"{translated} RETURNING merge_action")]
    if run.is_dry:
        return Outcome(kind="MERGE", target=target)
    counts = dict.fromkeys(names.values(), 0)
    with engine.transaction(cursor):
        for action, statement in statements:
            if action == "prepare":
                cursor.execute(statement)
            elif action:
                counts[names[action]] += (cursor.execute(statement).fetchone() or (0,))[0]
            else:
                for (done,) in cursor.execute(statement).fetchall():
                    counts[names[done.lower()]] += 1
        engine.changed(target)
    session.temporary.pop("_merged", None)
    return Outcome(kind="MERGE", n_affected=sum(counts.values()), counts=counts, target=target)


def _merge_of_strangers(engine: Engine, run: Run, tree: exp.Merge, whens: list[Any]) -> list[tuple[str, str]]:
    """Return what MERGE .. ON FALSE does, as statements: DuckDB would compare every row with every other one.

    No row matches any: rows of the target are deleted or updated by their condition, all rows of the source inserted.
    """
    alias = tree.args["using"].alias_or_name
    source = tree.args["using"]
    inner = source.this if isinstance(source, exp.Subquery) else exp.select("*").from_(source.copy())
    query = engine.translate(run, inner.copy())
    made = [("prepare", f"CREATE OR REPLACE TEMP TABLE _merged AS {query}")]
    run.session.temporary["_merged"] = []
    target = tree.this
    for when in whens:
        condition, then = when.args.get("condition"), when.args["then"]
        by_source = bool(when.args.get("source"))
        where = condition.copy() if condition else exp.true()
        if when.args.get("matched"):
            continue
        if by_source and isinstance(then, exp.Update):
            sets = [part.copy() for part in then.expressions]
            made.append(
                (
                    "update",
                    engine.translate(
                        run, exp.Update(this=target.copy(), expressions=sets, where=exp.Where(this=where))
                    ),
                )
            )
        elif by_source:
            made.append(("delete", engine.translate(run, exp.Delete(this=target.copy(), where=exp.Where(this=where)))))
        else:
            columns = then.this.expressions if isinstance(then.this, exp.Tuple) else []
            if isinstance(then.expression, exp.Tuple):
                values = [value.copy() for value in then.expression.expressions]
            else:  # INSERT ROW
                values = [exp.Star()]
            rows = exp.select(*values).from_(exp.to_table("_merged").as_(alias)).where(where)
            named = target.copy()
            named.set("alias", None)
            schema = exp.Schema(this=named, expressions=[exp.to_identifier(c.name, quoted=True) for c in columns])
            insert = exp.Insert(this=schema if columns else named, expression=rows)
            made.append(("insert", engine.translate(run, insert)))
    return made


# --- definitions


def _create(engine: Engine, run: Run, tree: exp.Create) -> Outcome:
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
        columns = ", ".join(f"{quoted(of['name'])} {sql.duckdb_type(of)}" for of in declared)
        if not run.is_dry:
            cursor.execute(f"{verb} {quoted(name)} ({columns})")
    run.session.temporary[name.lower()] = fields
    return Outcome(kind="CREATE_TABLE_AS_SELECT" if tree.expression else "CREATE_TABLE", operation="CREATE")


def _declared(column: exp.ColumnDef) -> Field:
    kinds = [constraint.kind for constraint in column.args.get("constraints") or ()]
    required = any(isinstance(kind, exp.NotNullColumnConstraint) and not kind.args.get("allow_null") for kind in kinds)
    made = sql.field_of_sql(column.name, column.args["kind"], "REQUIRED" if required else "NULLABLE")
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
                moment = _value(engine, run, value.sql("bigquery"))
                spec["expirationTime"] = str(int(moment.timestamp() * 1000)) if moment else None
            elif name == "labels":
                pairs = [[text.name for text in pair.find_all(exp.Literal)] for pair in value.expressions]
                spec["labels"] = dict(pairs)
            elif name in ("description", "friendly_name"):
                spec["description" if name == "description" else "friendlyName"] = _value(
                    engine, run, value.sql("bigquery")
                )
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


def _drop(engine: Engine, run: Run, tree: exp.Drop) -> Outcome:
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


def _alter(engine: Engine, run: Run, tree: exp.Alter) -> Outcome:
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


_ACTIONS: dict[type, Callable[[Engine, Run, Any], Outcome]] = {
    exp.Query: _select,
    exp.Insert: _insert,
    exp.Update: _update,
    exp.Delete: _delete,
    exp.TruncateTable: _truncate,
    exp.Merge: _merge,
    exp.Create: _create,
    exp.Drop: _drop,
    exp.Alter: _alter,
}
