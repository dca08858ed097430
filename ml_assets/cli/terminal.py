"""What the commands share: the console, the progress display, and failures in words."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import dagster as dg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from ml_assets.backends.environments import Environment
from ml_assets.core.errors import BadInput, MlAssetsError
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.use_cases import load_use_cases

console = Console()

Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"])]
UseCaseName = Annotated[str, typer.Option("--use-case", help="The use case's name.")]


class Screen:
    """A progress display fed by the events of the runs: one line per stage, the step that is running, its last word."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[now]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console_of_its_own(),
            expand=True,
        )
        self._task: int | None = None
        self._counts_steps = True

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_where: object) -> None:
        if error is None:
            self._finish()
        self._progress.stop()

    def begin(self, what: str, *, total: int | None = None) -> None:
        """Finish the line before and start another; without a total it counts the steps of the runs that follow."""
        self._finish()
        self._counts_steps = total is None
        self._task = self._progress.add_task(what, total=total, now="")

    def advance(self, now: str) -> None:
        """Move the line one on."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, now=now)

    def _finish(self) -> None:
        if self._task is not None:
            done = self._progress.tasks[self._task].completed
            self._progress.update(self._task, now="", total=done, completed=done)

    def on_event(self, entry: dg.EventLogEntry) -> None:
        """Show the step that started or finished, or what a step says."""
        if self._task is None:
            return
        event = entry.dagster_event
        if event is None:
            self._progress.update(self._task, now=entry.user_message[:80])
        elif event.is_step_start:
            self._progress.update(self._task, now=event.step_key or "")
        elif event.is_step_success and self._counts_steps:
            self.advance("")
        elif event.event_type_value == "PIPELINE_START" and self._counts_steps:
            self._progress.update(self._task, total=None)


def console_of_its_own() -> Console:
    """Return a console on the terminal itself: Dagster turns standard output into a file while a step runs."""
    return Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w")) if sys.stdout.isatty() else console


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Show an error of this project as a sentence; any other error keeps its traceback."""
    try:
        yield
    except MlAssetsError as error:
        console.print(f"[red bold]{type(error).__name__}[/] {error}", highlight=False)
        raise typer.Exit(1) from error


def known(name: str) -> UseCase:
    """Return the use case of this name; raise BadInput where there is none."""
    found = {use_case.name: use_case for use_case in load_use_cases()}
    if name not in found:
        raise BadInput(f"there is no use case {name!r}; there is {', '.join(found)}")
    return found[name]


def store_of_environment() -> ArtifactStore:
    """Return the artifact store of this environment."""
    from ml_assets.resources import store_of

    return store_of(Environment.current())


def warehouse_of_environment() -> Warehouse:
    """Return the warehouse of this environment."""
    from ml_assets.resources import warehouse_of

    return warehouse_of(Environment.current())


def number(value: float | None, n_digits: int = 3) -> str:
    """Return a figure as text; a dash for one that cannot be computed."""
    return "-" if value is None else f"{value:.{n_digits}f}"
