"""The command that looks at everything this environment relies on."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Column, Table

from ml_assets.cli.terminal import console
from ml_assets.doctor import checks_of_this_process
from ml_assets.doctor.checkup import Result, Status, examine

_COLOURS: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "red bold", "skipped": "dim"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For machines: a list of checks.")] = False,
) -> None:
    """Look at everything this environment relies on, and say what to do; exit code 1 where something fails.

    It reads the same variables as everything else, leaves nothing behind, and tells no secret.
    """
    with console.status("") as status:
        checks = list(checks_of_this_process())
        names = iter([check.name for check in checks[1:]])

        def show_next(_: Result) -> None:
            status.update(next(names, ""))

        status.update(checks[0].name)
        results = examine(checks, on_result=show_next)
    if as_json:
        typer.echo(json.dumps([{**asdict(r), "seconds": round(r.seconds, 3)} for r in results], indent=2))
    else:
        console.print(_table(results))
        for result in results:
            if result.do:
                # In one line, however long: a command must be whole when it is copied.
                console.print(f"[bold]{result.name}[/]: {escape(result.do)}", soft_wrap=True)
        n_failed = sum(result.status == "fail" for result in results)
        console.print(f"{n_failed} of {len(results)} checks failed." if n_failed else "Nothing failed.")
    if any(result.status == "fail" for result in results):
        raise typer.Exit(1)


def _table(results: list[Result]) -> Table:
    found = Column("found", overflow="fold")
    table = Table(
        Column("check", no_wrap=True), Column("", no_wrap=True), Column("s", justify="right"), found, box=SIMPLE_HEAD
    )
    for result in results:
        colour = _COLOURS[result.status]
        told = f"[{colour}]{result.status}[/]"
        table.add_row(result.name, told, f"{result.seconds:.1f}", escape(result.found))
    return table
