"""The ``ml-assets`` command."""

import os
import sys

import typer

from ml_assets.cli import (
    ablation,
    artifacts,
    champions,
    doctor,
    experiments,
    faults,
    lifecycle,
    ml_test_score,
    replay,
    retraining,
    staleness,
    trace,
    training,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The life of a model after the notebook.",
)
for command in (
    *(lifecycle.run, replay.replay, lifecycle.tune, training.train, ablation.ablation),
    *(staleness.staleness, retraining.resume),
    *(champions.history, champions.champion, champions.rollback, champions.approve, champions.reject),
    *(artifacts.reproduce, artifacts.unreferenced, artifacts.prune),
    *(experiments.experiments, experiments.compare, experiments.board),
    *(faults.faults, faults.release),
    *(ml_test_score.score, ml_test_score.review),
    trace.trace,
    doctor.doctor,
):
    app.command()(command)


def main() -> None:
    """Run the command, then keep quiet.

    With torch loaded, DuckDB's binding takes its own modules for leaks when the interpreter is dismantled, and prints a
    page about it after the last word of the command.
    """
    try:
        app()
    except SystemExit:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise
