"""The command that lives a window of days as production would have, and what it shows meanwhile."""

import multiprocessing
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from time import monotonic
from typing import Annotated, Protocol

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from ml_assets.backends.environments import Environment
from ml_assets.cli.terminal import Screen, console, console_of_its_own, failures_in_words
from ml_assets.core.days import DayRange
from ml_assets.core.replays.record import LivedDay
from ml_assets.core.replays.rivals import BASELINE, LATER, ONCE
from ml_assets.core.replays.story import Story
from ml_assets.core.reports.replay import worth_words
from ml_assets.replaying import PAGE, RECORD, Life, Replay

# Without a terminal a line is printed for what happens, and for every so many days on which nothing does.
_DAYS_BETWEEN_LINES = 28


def replay(
    from_day: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day that is lived.")],
    to_day: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The last one.")],
    n_at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="Days lived at once, by default one for each core.")
    ] = None,
    is_anew: Annotated[
        bool, typer.Option("--anew", help="Forget what was lived of these days, and begin again.")
    ] = False,
) -> None:
    """Live days one by one as production would have: train when asked for, predict, watch, decide; then compare.

    Each use case lives in a process of its own (up to 3 GB); with --at-once 1 they live one after the other, in one.

    It has tables, models and ledger of its own, below ``data/replays``: nothing else is touched. After a kill the same
    command goes on where it was; once finished it says again what came of it.
    """
    started = monotonic()
    with failures_in_words():
        days = DayRange(first=from_day.date(), last=to_day.date())
        found = Replay(Environment.current(), days, is_anew=is_anew)
        if not found.manifest.is_finished:
            with Screen() as screen:
                screen.begin(f"land {days}" if not found.manifest.is_landed else "landed before")
                found.land(screen.on_event)
            lives = found.lives
            with display_of(lives) as shown:
                found.live(shown.on_day, n_at_once=n_at_once or min(len(lives), multiprocessing.cpu_count()))
            stories = found.conclude()
            found.took(monotonic() - started)
        else:
            stories = [life.tell() for life in found.lives]
            if not found.is_of_this_code:
                console.print("It was lived by other code than this; with --anew this code lives it again.")
    if found.manifest.held:
        console.print(f"[yellow]Not predicted:[/yellow] {found.manifest.held}")
    _summarise(found, stories)


class Display(AbstractContextManager["Display"], Protocol):
    """What is shown while several use cases live."""

    def on_day(self, lived: LivedDay) -> None:
        """Show that a day is complete."""
        ...


def display_of(lives: Sequence[Life]) -> Display:
    """Return a line for each use case that moves on a terminal, or lines now and then where there is none."""
    return Bars(lives) if console.is_terminal else Lines()


class _Tally:
    """What has happened to one use case so far."""

    def __init__(self) -> None:
        self.n_trainings = self.n_promoted = self.n_with_alarm = 0
        self.champion = ""

    def add(self, lived: LivedDay) -> None:
        self.n_trainings += bool(lived.outcome)
        self.n_promoted += lived.outcome == "promoted"
        self.n_with_alarm += bool(lived.n_alarms)
        self.champion = lived.model_version or self.champion

    def __str__(self) -> str:
        champion = self.champion or "nobody in charge"
        return f"{champion}, {self.n_promoted} of {self.n_trainings} promoted, {self.n_with_alarm} days with an alarm"


class Bars(Display):
    """A line for each use case: how far it is, who is in charge, how many trainings and alarms there were, and when."""

    def __init__(self, lives: Sequence[Life]) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console_of_its_own(),
            expand=True,
        )
        self._tallies = {life.use_case.name: _Tally() for life in lives}
        self._tasks = {}
        for life in lives:
            lived, name = life.lived(), life.use_case.name
            for day in lived:
                self._tallies[name].add(day)
            self._tasks[name] = self._progress.add_task(
                name, total=len(life.days.dates), completed=len(lived), now=str(self._tallies[name])
            )

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def on_day(self, lived: LivedDay) -> None:
        """Move the line of the use case one on."""
        tally = self._tallies[lived.use_case]
        tally.add(lived)
        self._progress.update(self._tasks[lived.use_case], advance=1, now=f"{lived.partition_on:%-d %b}: {tally}")


class Lines(Display):
    """A line for each training, and one every four weeks."""

    def __init__(self) -> None:
        self._said_on: dict[str, date] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def on_day(self, lived: LivedDay) -> None:
        """Say what happened, or that nothing did for a while."""
        said_on = self._said_on.setdefault(lived.use_case, lived.partition_on)
        is_silent = lived.partition_on - said_on < timedelta(days=_DAYS_BETWEEN_LINES)
        if is_silent and not lived.outcome:
            return
        self._said_on[lived.use_case] = lived.partition_on
        what = f"{lived.candidate} {lived.outcome}" if lived.outcome else lived.model_version or "nobody in charge yet"
        console.print(f"{lived.partition_on} {lived.use_case}: {what}", highlight=False)


def _summarise(found: Replay, stories: Sequence[Story]) -> None:
    """Print what the days came to, by use case, and where the page is."""
    table = Table("use case", "first predicted", "trainings", "over trained once", "over the baseline", "CPU min")
    for story in stories:
        outcomes = [lived.outcome for lived in story.days if lived.outcome]
        first = next((str(lived.partition_on) for lived in story.days if lived.model_version), "never")
        table.add_row(
            story.use_case.name,
            first,
            f"{len(outcomes)}, {outcomes.count('promoted')} promoted",
            "\n".join(worth_words(story, rival) for rival in (ONCE, LATER)),
            worth_words(story, BASELINE),
            f"{sum(story.cpu_seconds.values()) / 60:.1f}",
        )
    console.print(table)
    parts: dict[str, float] = {}
    for story in stories:
        for part, seconds in story.cpu_seconds.items():
            parts[part] = parts.get(part, 0.0) + seconds
    spent = ", ".join(f"{part} {seconds:.0f}" for part, seconds in sorted(parts.items(), key=lambda pair: -pair[1]))
    console.print(
        f"CPU s of the lives: {spent}. Wall: {sum(found.manifest.wall_seconds):.0f} s in all.", highlight=False
    )
    console.print(f"{found.folder / PAGE}\n{found.folder / RECORD}", soft_wrap=True, highlight=False)
