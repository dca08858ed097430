"""The command that traces one prediction: ml-assets trace."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

import dagster as dg
import msgspec
import typer
from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ml_assets.backends.environments import Environment
from ml_assets.cli.terminal import (
    UseCaseName,
    console,
    failures_in_words,
    known,
    store_of_environment,
    warehouse_of_environment,
)
from ml_assets.core.provenance import Cell, Lineage, Origin
from ml_assets.core.served import Value
from ml_assets.core.trace import predicted_day
from ml_assets.core.trace import trace as traced
from ml_assets.core.traced import Trace, TracedView
from ml_assets.core.traced_views import NEWEST_EVENTS
from ml_assets.resources import dbt_of, feature_views_of, source_of


def trace(
    decision_id: Annotated[str, typer.Argument(help="Of the prediction, such as UA-1545-20130705T10.")],
    use_case: UseCaseName = "arrival_delay",
    as_json: Annotated[bool, typer.Option("--json", help="For machines: everything, with each row in full.")] = False,
) -> None:
    """Trace one prediction to its model, training set, features and raw rows, and score it again to the bit.

    Ends with 1 where the prediction cannot be made again: another number, or a package that is not the ledger's.
    """
    with failures_in_words():
        environment, warehouse, of = Environment.current(), warehouse_of_environment(), known(use_case)
        with warehouse.session():
            predicted_day(warehouse, of, decision_id)  # a mistyped id is said before the graph is loaded
            found = traced(
                warehouse,
                store_of_environment(),
                of,
                decision_id,
                views=of.views(feature_views_of(environment)),
                lineage=lineage_of(environment),
            )
    if as_json:
        sys.stdout.write(json.dumps(document_of(found), indent=2) + "\n")
    else:
        for part in _pages(found):
            console.print(part)
    if not found.replay.is_identical:
        raise typer.Exit(1)


def lineage_of(environment: Environment) -> Lineage:
    """Return what tables are made of: of which tables by the asset graph, of which columns by the SQL of dbt."""
    from ml_assets.definitions import defs

    graph = defs().resolve_asset_graph()
    parents = {
        _table(key): [_table(parent) for parent in graph.get(key).parent_keys] for key in graph.get_all_asset_keys()
    }
    contracts = source_of(environment).contracts.values()
    return Lineage(
        parents={table: sorted(of) for table, of in parents.items()},
        columns=dbt_of(environment).kept_column_lineage,
        keys={f"raw.{contract.table}": contract.key for contract in contracts if contract.is_partitioned},
    )


def document_of(found: Trace) -> Mapping[str, object]:
    """Return a trace as JSON has it, with what is derived from it: whether replay and features are identical."""
    document: dict[str, object] = msgspec.to_builtins(found)
    document["replay"] = {**msgspec.to_builtins(found.replay), "is_identical": found.replay.is_identical}
    document["changed_views"] = list(found.changed_views)
    return document


def _table(key: dg.AssetKey) -> str:
    return ".".join(key.path)


def _pages(found: Trace) -> Sequence[object]:
    return [
        _of_prediction(found),
        _of_model(found),
        *(_of_view(view) for view in found.views),
        _of_replay(found),
    ]


def _facts(rows: Sequence[tuple[str, object]], *, title: str, style: str = "none") -> Panel:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(str(value)))
    return Panel(table, title=Text(title), title_align="left", border_style=style)


def _of_prediction(found: Trace) -> Panel:
    predicted, outcome = found.prediction, found.outcome
    label = f"{_written(outcome.label)}, known {_moment(outcome.known_at)}" if outcome.known_at else "none"
    if outcome.label is None:
        label = f"none: {outcome.no_label_reason or 'not known yet'}"
    rows = [
        ("predicted", f"{predicted.prediction!r}"),
        ("decided", f"{_moment(predicted.decided_at)} for {predicted.partition_on}"),
        ("scored", f"{_moment(predicted.predicted_at)} by run {predicted.run_id}"),
        ("came true", label),
    ]
    return _facts(rows, title=f"{predicted.decision_id}: {found.question}")


def _of_model(found: Trace) -> Panel:
    model, entry, trained = found.model, found.in_charge, found.training_set
    n_rows = trained.n_train + trained.n_validation + trained.n_test
    why = f"passed all {entry.n_gates} gates" if entry.action == "promote" and entry.n_gates else entry.reason
    rows = [
        ("model", f"{model.version}, {model.n_features} features by {model.trainer}, seed {model.seed}"),
        ("package", f"{model.package_hash} (verified, as the ledger has it)"),
        ("in charge", f"from {entry.effective_from} by {entry.action}, ledger entry {entry.sequence}: {why}"),
        ("decided by", f"{entry.recorded_by}, {_moment(entry.recorded_at)}"),
        ("parent", model.parent_version or "none: trained from nothing"),
        ("training set", f"{trained.fingerprint} (verified)"),
        ("trained on", f"{n_rows:,} examples of {trained.first_day} to {trained.last_day}, as of {model.as_of}"),
        ("this decision", "IS AMONG THEM: a leak" if trained.has_decision else "is not among them"),
        ("code, libraries", f"{model.code_version[:12]}, {model.environment_hash[:12]}"),
    ]
    return _facts(rows, title="Model", style="red" if trained.has_decision else "none")


def _of_view(view: TracedView) -> Panel:
    features = Table("feature", "as read", "recomputed", box=box.SIMPLE_HEAD, pad_edge=False)
    for one in view.features:
        now = Text("the same", style="green") if one.is_identical else Text(_written(one.recomputed), style="red bold")
        features.add_row(one.name, Text(_written(one.value)), now)
    parts: list[object] = [features]
    if view.windows:
        counted = (f"{window.hours:g} h from {_moment(window.after)}: {window.n_events:,}" for window in view.windows)
        parts.append(Text(f"events up to {_moment(view.windows[0].until)}, in\n  " + "\n  ".join(counted)))
        parts.append(Text(f"the newest {min(NEWEST_EVENTS, len(view.sources))} of them:" if view.sources else "none"))
    elif not view.sources:
        parts.append(Text(f"no row known then, of the last {view.max_age_hours:g} h"))
    for source in view.sources:
        words = f"known {_moment(source.known_at)}, {source.age_hours:.2f} h before the decision"
        parts.append(Text(f"- {view.table}: {_words(_keys(view, source.values))}; {words}"))
        parts += [Text(f"    {_origin(origin)}", style="dim") for origin in source.origins]
        if not source.origins:
            parts.append(
                Text(f"    made in Python or before lineage was kept, from {', '.join(view.made_from)}", "dim")
            )
    entity = _words(view.entity)
    title = f"{view.name} ({view.kind}, {entity})"
    return Panel(
        Group(*parts), title=Text(title), title_align="left", border_style="none" if view.is_identical else "red"
    )


def _keys(view: TracedView, values: Mapping[str, Cell]) -> Mapping[str, Cell]:
    """Return what names a row of a feature table for people: its day, entity and decision."""
    names = dict.fromkeys(("decision_id", "partition_on", *view.entity))
    return {name: values[name] for name in names if name in values}


def _origin(origin: Origin) -> str:
    if not origin.n_rows:
        return f"{origin.table}: no row agrees with it by now (compared by {', '.join(origin.by)})"
    if origin.n_rows > len(origin.rows):
        return f"{origin.table}: {origin.n_rows:,} rows agree in {', '.join(origin.by)}"
    return "\n    ".join(f"{row.table}: {_words(row.key)}" for row in origin.rows)


def _of_replay(found: Trace) -> Panel:
    replay, changed = found.replay, found.changed_views
    alone = "alone" if replay.among == 1 else f"among the {replay.among:,} examples of its day"
    again = (
        f"identical to the last bit, scored {alone}"
        if replay.is_identical
        else f"{replay.replayed!r}, another by {abs(replay.replayed - replay.prediction):.3g}: it cannot be made again"
    )
    features = (
        f"{', '.join(changed)} gives something else by now than the model read"
        if changed
        else "recomputed from the feature tables, identical to the last bit"
    )
    rows = [("prediction", again), ("features", features), ("read from", found.read_from)]
    return _facts(rows, title="Replay", style="green" if replay.is_identical and not changed else "red")


def _words(values: Mapping[str, Cell]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _written(value: Value) -> str:
    return "null" if value is None else repr(value) if isinstance(value, float) else str(value)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
