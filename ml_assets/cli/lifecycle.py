"""The commands that run the graph: run and tune."""

from collections import Counter
from datetime import datetime
from typing import Annotated, get_args

import typer
from rich.table import Table

from ml_assets.backends.environments import Environment
from ml_assets.cli.summary import summarise
from ml_assets.cli.terminal import (
    Screen,
    UseCaseName,
    console,
    failures_in_words,
    known,
    number,
)
from ml_assets.core import registry
from ml_assets.core.errors import BadInput
from ml_assets.core.ports import DayRange
from ml_assets.core.studies import SamplerName
from ml_assets.lifecycle import LANDING, SERVING, Lifecycle, RunFailed, TrainingOutcome
from ml_assets.use_cases import load_use_cases


def run(
    from_day: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"])] = datetime(2013, 1, 1),  # noqa: DTZ001
    to_day: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"])] = datetime(2013, 7, 14),  # noqa: DTZ001
    as_of: Annotated[datetime, typer.Option("--as-of", formats=["%Y-%m-%d"])] = datetime(2013, 7, 1),  # noqa: DTZ001
) -> None:
    """Land the days, train as of one of them, promote, then predict and monitor from that day on."""
    with failures_in_words(), Screen() as screen:
        landed = DayRange(first=from_day.date(), last=to_day.date())
        served = DayRange(first=as_of.date(), last=to_day.date())
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        screen.begin(f"land {landed}")
        held = _land(life, landed)
        outcomes: dict[str, TrainingOutcome] = {}
        for use_case in load_use_cases():
            screen.begin(f"train {use_case.name} as of {served.first}")
            outcomes[use_case.name] = life.outcome_of_training(use_case, served.first)
        screen.begin(f"predict {served}")
        waiting = _serve(life, served)
    for use_case in load_use_cases():
        if use_case.name in waiting:
            last = registry.entries(life.store, use_case.name)[-1]
            console.print(f"{use_case.name}: nobody is in charge, so nothing is predicted. {last.reason}")
        else:
            summarise(life, use_case, landed, served, outcome=outcomes[use_case.name])
    if held:
        with failures_in_words():
            raise held


def _land(life: Lifecycle, landed: DayRange) -> RunFailed | None:
    """Land the days; return what is said of days of spoilt data, which nothing is made of, where all else went well."""
    try:
        life.run_groups(LANDING, landed)
    except RunFailed as failure:
        if not failure.is_held:
            raise
        return failure
    return None


def _serve(life: Lifecycle, served: DayRange) -> list[str]:
    """Predict and monitor the days, and return the names of the use cases of which nobody is in charge on any of them.

    A use case whose decisions are taken the day before begins a day later than the others: what was decided before
    its first champion was in charge, that champion must not predict.
    """
    firsts = {use_case.name: life.first_day_in_charge(use_case, served) for use_case in load_use_cases()}
    for first in sorted({day for day in firsts.values() if day is not None}):
        others = [name for name, day in firsts.items() if day != first]
        life.run_groups(SERVING, DayRange(first=first, last=served.last), without=others)
    return [name for name, day in firsts.items() if day is None]


def tune(
    as_of: Annotated[datetime, typer.Option("--as-of", formats=["%Y-%m-%d"], help="Known before this day starts.")],
    n_trials: Annotated[int, typer.Option("--trials", min=1, help="Of the whole study, earlier runs included.")] = 20,
    minutes: Annotated[float, typer.Option("--minutes", help="No trial starts after this time.")] = 30.0,
    use_case: UseCaseName = "arrival_delay",
    sampler: Annotated[str, typer.Option(help="tpe, gp or random.")] = "tpe",
    is_pruning: Annotated[bool, typer.Option("--prune/--no-prune", help="Stop trials that are clearly behind.")] = True,
    seed: Annotated[int, typer.Option(help="Of the sampler.")] = 0,
) -> None:
    """Search better hyperparameters as of a day; what is found serves the trainings from then on.

    Run it again to go on after a kill or with more trials; run it several times at once to share the work.
    """
    config = {"n_trials": n_trials, "minutes": minutes, "sampler": sampler, "is_pruning": is_pruning, "seed": seed}
    with failures_in_words(), Screen() as screen:
        if sampler not in get_args(SamplerName):
            raise BadInput(f"there is no sampler {sampler!r}; there are {', '.join(get_args(SamplerName))}")
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        screen.begin(f"tune {known(use_case).name} as of {as_of.date()}")
        tuned = life.tune(known(use_case), as_of.date(), config)
    table = Table("hyperparameter", "default", "tuned", title=f"{use_case} as of {tuned.as_of}", title_justify="left")
    for name, value in tuned.parameters.items():
        if value != tuned.defaults[name]:
            table.add_row(name, f"{tuned.defaults[name]}", f"{value:.4g}" if isinstance(value, float) else f"{value}")
    if table.row_count:
        console.print(table)
    states = Counter(trial.state for trial in tuned.trials)
    console.print(
        f"validation loss {tuned.loss:.4f} with the tuned, {number(tuned.default_loss, 4)} with the default ones; "
        f"{states['complete']} trials complete, {states['pruned']} pruned, {states['failed']} failed."
    )
    verdict = "use them" if tuned.beats_defaults else "keep the defaults: nothing better was found"
    console.print(f"Trainings of {use_case} as of {tuned.as_of} and later {verdict}.")
