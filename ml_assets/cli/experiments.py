"""The commands on what was tried: experiments, compare and board."""

import csv
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Column, Table

from ml_assets.cli.terminal import console, failures_in_words, number, store_of_environment
from ml_assets.core.comparison import Comparison, compare_experiments, main_metric
from ml_assets.core.errors import BadInput
from ml_assets.core.experiment_filters import Condition, found, ordered, select, values_of
from ml_assets.core.experiment_rows import DAMAGED, UNFINISHED, Experiment, ExperimentKind
from ml_assets.core.experiment_rows import experiments as all_experiments

_STYLES = {"failed": "red", DAMAGED: "red", UNFINISHED: "yellow", "refuse": "yellow", "reject": "yellow"}
_MOST_REASON = 160

AnyUseCase = Annotated[str | None, typer.Option("--use-case", help="Of this use case only.")]


def experiments(
    use_case: AnyUseCase = None,
    kind: Annotated[str | None, typer.Option(help="training, search, trial or promotion.")] = None,
    status: Annotated[str | None, typer.Option(help="complete, failed, unfinished, pruned, promote ...")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Begun on this UTC day on.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Begun up to this UTC day.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help='A condition such as "roc_auc>0.73" or "layer_sizes=64,32"; repeatable.')
    ] = None,
    sort: Annotated[str | None, typer.Option(help="By this value, largest first; newest first unless given.")] = None,
    is_ascending: Annotated[bool, typer.Option("--ascending", help="Smallest first.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many rows; 0 for all.")] = 30,
    is_json: Annotated[bool, typer.Option("--json", help="As JSON: every field of every row.")] = False,
    is_csv: Annotated[bool, typer.Option("--csv", help="As CSV: a column for each value.")] = False,
) -> None:
    """Print what was tried: every training, search, trial and promotion decision, newest first."""
    with failures_in_words():
        if kind is not None and kind not in get_args(ExperimentKind):
            raise BadInput(f"there is no kind {kind!r}; there are {', '.join(get_args(ExperimentKind))}")
        if is_json and is_csv:
            raise BadInput("--json and --csv exclude each other; choose one")
        rows = select(
            all_experiments(store_of_environment()),
            use_case=use_case,
            kind=kind,
            status=status,
            since=since.date() if since else None,
            until=until.date() if until else None,
            conditions=[Condition.parse(text) for text in where or ()],
        )
        if sort:
            rows = ordered(rows, sort, is_ascending=is_ascending)
        elif is_ascending:
            rows = rows[::-1]
    shown = rows[:limit] if limit else rows
    if is_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())
    elif is_csv:
        _write_csv(shown)
    else:
        console.print(_table(shown, sort))
        more = f"; {len(rows) - len(shown)} more: --limit 0 shows all" if len(shown) < len(rows) else ""
        console.print(f"{len(shown)} of {len(rows)} experiments{more}.", highlight=False)


def compare(
    one: Annotated[str, typer.Argument(help="An id of `ml-assets experiments`, its beginning, or a model version.")],
    other: Annotated[str, typer.Argument(help="The one it is compared with.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with charts to this file.")] = None,
) -> None:
    """Lay two experiments side by side: parameters, data, figures with what is noise in their difference, costs."""
    with failures_in_words():
        store = store_of_environment()
        rows = all_experiments(store)
        comparison = compare_experiments(store, found(rows, one), found(rows, other))
        if html:
            from ml_assets.core.reports.comparison import comparison_page

            html.write_text(comparison_page(comparison), encoding="utf-8")
    _print(comparison)
    if html:
        console.print(f"The page with charts is {html}.", highlight=False)


def board() -> None:
    """Write the board of all experiments as one HTML page into the artifact store, and print where it is."""
    with failures_in_words():
        from ml_assets.core.reports.board import experiment_board

        store = store_of_environment()
        path = "reports/experiments.html"
        page = experiment_board(all_experiments(store), written_at=datetime.now(UTC))
        store.put(path, page.encode())
        address = store.address(path)
    console.print(f"The board is {address}", highlight=False, soft_wrap=True)


def _table(rows: Sequence[Experiment], sort: str | None) -> Table:
    """Lay rows out within 100 columns."""
    table = Table(
        Column("id", no_wrap=True),
        Column("begun (UTC)", no_wrap=True),
        Column("what", no_wrap=True),
        Column("of", max_width=18, overflow="fold"),
        Column("s", justify="right", no_wrap=True),
        Column("what came of it", overflow="fold"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for row in rows:
        table.add_row(
            row.id,
            f"{row.started_at:%Y-%m-%d %H:%M}" if row.started_at else "-",
            f"{row.kind}\n[{_STYLES.get(row.status, 'default')}]{escape(row.status)}[/]",
            escape(row.use_case) + (f"\n{row.as_of}" if row.as_of else ""),
            number(row.seconds, 1),
            escape(_result(row, sort)),
        )
    return table


def _result(row: Experiment, sort: str | None) -> str:
    """Say in a line or two what came of it: the figure asked for, its main one, or why there is none."""
    parts = [row.version] if row.kind == "promotion" and row.version else []
    asked = values_of(row).get(sort) if sort else None
    if sort and asked is not None:
        parts.append(f"{sort} {asked:.4f}" if isinstance(asked, float) else f"{sort} {asked}")
    elif row.kind != "promotion" and (name := main_metric(row)):
        interval = row.intervals.get(name)
        spread = f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""
        parts.append(f"{name} {row.metrics[name]:.4f}{spread}")
    if row.kind in ("training", "search") and row.trainer:
        parts.append(row.trainer)
    reason = " ".join(row.reason.split())
    if reason:
        parts.append(reason if len(reason) <= _MOST_REASON else f"{reason[:_MOST_REASON]}…")
    return ", ".join(parts)


def _write_csv(rows: Sequence[Experiment]) -> None:
    """Write a table for machines: empty where a row has no such value."""
    described = [{**values_of(row), "reason": row.reason} for row in rows]
    names = list(dict.fromkeys(name for row in described for name in row))
    writer = csv.DictWriter(sys.stdout, fieldnames=names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(described)


def _print(comparison: Comparison) -> None:
    """Print the sections of a comparison as one table, differences marked."""
    table = Table(
        Column("", overflow="fold", ratio=29),
        Column(comparison.one.id, overflow="fold", ratio=24),
        Column(comparison.other.id, overflow="fold", ratio=24),
        Column("difference", overflow="fold", ratio=19),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=min(100, console.width),
    )
    for title, lines in comparison.sections.items():
        table.add_row(f"[bold]{title}[/]")
        for line in lines:
            style = "yellow" if line.is_different else "default"
            values = (f"[{style}]{escape(value)}[/]" for value in (line.one, line.other))
            difference = line.difference or ("differs" if line.is_different else "")
            table.add_row(f"  {escape(line.name)}", *values, escape(difference))
    console.print(table)
    console.print(comparison.note, highlight=False)
