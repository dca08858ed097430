"""The command that tells what each feature view adds: ablation."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Column, Table

from ml_assets.backends.environments import Environment
from ml_assets.cli.terminal import Screen, UseCaseName, console, failures_in_words, known
from ml_assets.lifecycle import Lifecycle


def ablation(
    as_of: Annotated[datetime, typer.Option("--as-of", formats=["%Y-%m-%d"], help="Known before this day starts.")],
    use_case: UseCaseName = "arrival_delay",
    n_train_rows: Annotated[int, typer.Option("--rows", min=1, help="Training rows of each model, at most.")] = 30_000,
    n_seeds: Annotated[int, typer.Option("--seeds", min=2, help="Trainings of each variant.")] = 3,
) -> None:
    """Train without each feature view as of a day; tell what each adds, beside the noise, and write the report."""
    with failures_in_words(), Screen() as screen:
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        screen.begin(f"ablation of {known(use_case).name} as of {as_of.date()}")
        config = {"n_train_rows": n_train_rows, "n_seeds": n_seeds}
        found = life.ablate(known(use_case), as_of.date(), config)
    loss = "log loss" if known(use_case).task == "binary_classification" else "mean squared error"
    table = Table(Column("feature view", no_wrap=True), title=f"{use_case} as of {found.as_of}", title_justify="left")
    for name in ("adds", "importance"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("finding")
    for gain in found.views:
        adds = f"{gain.gain:+.4f} \N{PLUS-MINUS SIGN} {gain.margin:.4f}"
        table.add_row(gain.view, adds, f"{gain.importance.value:+.4f}", gain.verdict.removeprefix("within the "))
    console.print(table)
    console.print(
        f"Adds: the validation loss ({loss}) without the view less that with all, {found.full_loss:.4f}, over "
        f"{found.n_validation:,} decisions; each a mean of {found.n_seeds} trainings on {found.n_train:,} rows."
    )
    report = life.store.address(f"reports/{use_case}/ablation-{found.as_of}.html")
    console.print(f"With cost and freshness: {report}", soft_wrap=True, highlight=False)
