"""The command that lets retraining go on after refused candidates have stopped it: resume."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ml_assets.calendar import LOCAL_ZONE, today
from ml_assets.cli.terminal import UseCaseName, console, failures_in_words, known, store_of_environment
from ml_assets.core import resumes


def resume(
    by: Annotated[str, typer.Option("--by", help="Who decides; it is kept.")],
    reason: Annotated[str, typer.Option("--reason", help="Why another candidate would pass; it is kept.")],
    use_case: UseCaseName = "arrival_delay",
    from_day: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="The day whose decision is the first to be free; today."),
    ] = None,
) -> None:
    """Let the decisions ask for trainings again, after refused candidates have stopped them."""
    with failures_in_words():
        entry = resumes.resume(
            store_of_environment(),
            known(use_case).name,
            day=from_day.date() if from_day else today(datetime.now(LOCAL_ZONE)),
            reason=reason,
            recorded_at=datetime.now(UTC),
            recorded_by=by,
        )
    console.print(
        f"From the decision of {entry.day} on, candidates of {use_case} that were refused until then count no more "
        f"({entry.recorded_by}: {entry.reason}).",
        highlight=False,
    )
