"""The command that measures what the age of a model costs: staleness."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from ml_assets.backends.environments import Environment
from ml_assets.cli.terminal import Screen, UseCaseName, console, failures_in_words, known
from ml_assets.core.retraining import judge_declared_age
from ml_assets.lifecycle import Lifecycle


def staleness(
    as_of: Annotated[datetime, typer.Option("--as-of", formats=["%Y-%m-%d"], help="Known before this day starts.")],
    use_case: UseCaseName = "arrival_delay",
    n_train_rows: Annotated[int, typer.Option("--rows", min=1, help="Training rows of each model, at most.")] = 30_000,
) -> None:
    """Backtest models of 1, 2, 4, 8 and 16 weeks of age on the days before a day: how old may a champion grow?

    Run it again after a kill: models that are done are not trained again.
    """
    with failures_in_words(), Screen() as screen:
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        screen.begin(f"staleness of {known(use_case).name} as of {as_of.date()}")
        curve = life.measure_staleness(known(use_case), as_of.date(), {"n_train_rows": n_train_rows})
    loss, headline = curve.loss.replace("_", " "), curve.headline.replace("_", " ")
    table = Table(title=f"{use_case} as of {curve.as_of}", title_justify="left")
    for name in ("age", "fortnights", loss, "cost", "95 of 100", "fitted", f"{headline} lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for age in curve.ages:
        table.add_row(
            f"{age.weeks} w",
            str(age.n_windows),
            f"{age.fresh_loss:.4f}",
            f"{age.cost:+.2%}",
            f"{age.cost_low:+.1%}..{age.cost_high:+.1%}",
            f"{age.fitted:+.2%}",
            f"{age.headline_loss:+.4f}",
        )
    console.print(table)
    verdict = judge_declared_age(curve, known(use_case).retraining)
    console.print(f"{'; '.join(verdict.reasons)}.", highlight=False)
    console.print(
        f"{curve.n_models} models, each on at most {curve.n_train_rows:,} rows, scored {curve.first_day} to "
        f"{curve.last_day}. Report: {life.store.address(f'reports/{use_case}/staleness-{curve.as_of}.html')}",
        soft_wrap=True,
        highlight=False,
    )
