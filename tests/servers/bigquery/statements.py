"""Scripts, their variables and transactions; what queries and changes of rows do."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import duckdb
from sqlglot import exp

from tests.servers.bigquery import definitions, sql, types
from tests.servers.bigquery.engine import Engine, Outcome, Run, TableId, known_errors
from tests.servers.bigquery.types import invalid, quoted


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
    r"(?P<begin>BEGIN(\s+TRANSACTION)?\s*$)|(?P<commit>COMMIT(\s+TRANSACTION)?\s*$)"
    r"|(?P<rollback>ROLLBACK(\s+TRANSACTION)?\s*$)|(?P<declare>DECLARE\s)|(?P<set>SET\s)",
    re.IGNORECASE,
)


def _statement(engine: Engine, run: Run, text: str) -> None:
    control = _CONTROL.match(text)
    if control:
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
            kind = types.duckdb_type(types.field_of_sql(name, cast.find(exp.Cast).to))
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
            kind = kind or types.duckdb_type(types.field_of_duckdb(name, own))
            cursor.execute(f"SET VARIABLE {quoted(name)} = (SELECT CAST({column} AS {kind}) FROM _assigned)")
            run.session.variables[name] = kind
        cursor.execute("DROP TABLE _assigned")


_FLAGS = re.IGNORECASE | re.DOTALL
_CONTROLS: dict[str, Callable[[Engine, Run, str], None]] = {
    "begin": _begin,
    "commit": _commit,
    "rollback": _rollback,
    "declare": _declare,
    "set": _set,
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


_ACTIONS: dict[type, Callable[[Engine, Run, Any], Outcome]] = {
    exp.Query: _select,
    exp.Insert: _insert,
    exp.Update: _update,
    exp.Delete: _delete,
    exp.TruncateTable: _truncate,
    exp.Merge: _merge,
    exp.Create: definitions.create,
    exp.Drop: definitions.drop,
    exp.Alter: definitions.alter,
}
