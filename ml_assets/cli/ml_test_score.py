"""The commands on readiness: score carries out the ML Test Score, review records what a person has looked at."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from ml_assets.backends.environments import Environment
from ml_assets.cli.terminal import Day, Screen, UseCaseName, console, failures_in_words, known, store_of_environment
from ml_assets.core.errors import BadInput
from ml_assets.core.ml_test_score.findings import SECTIONS, readiness
from ml_assets.core.ml_test_score.reviews import Review, record_review
from ml_assets.core.ml_test_score.score import RUBRIC
from ml_assets.lifecycle import Lifecycle
from ml_assets.use_cases import code_version_of

_STYLES = {"automated": "green", "manual": "yellow", "none": "red"}


def score(
    on: Day,
    use_case: UseCaseName = "arrival_delay",
) -> None:
    """Carry out the 28 tests of the ML Test Score (Breck et al. 2017) and say what each found.

    It trains the champion once more, to see that it can.
    """
    with failures_in_words(), Screen() as screen:
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        screen.begin(f"ML Test Score of {known(use_case).name} on {on.date()}")
        rows = life.score(known(use_case), on.date())
    table = Table(Column("", justify="right", no_wrap=True), title=f"{use_case} on {on.date()}", title_justify="left")
    table.add_column("test", ratio=2)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("evidence", ratio=5)
    sums = {section: sum(float(str(r["points"])) for r in rows if r["section"] == section) for section in SECTIONS}
    for section in SECTIONS:
        table.add_section()
        table.add_row("", f"[bold]{section}", f"[bold]{sums[section]:g}", "")
        for row in (row for row in rows if row["section"] == section):
            style = _STYLES[str(row["outcome"])]
            shown = f"[{style}]{float(str(row['points'])):g}"
            table.add_row(str(row["number"]), escape(str(row["test"])), shown, escape(str(row["evidence"])))
    console.print(table)
    least = min(sums.values())
    console.print(f"ML Test Score {least:g} of 7, the smallest of the four sums: {readiness(least)}.", highlight=False)
    report = life.store.address(f"reports/{use_case}/ml-test-score-{on.date()}.html")
    console.print(f"Report: {report}", soft_wrap=True, highlight=False)


def review(
    test: Annotated[str, typer.Option("--test", help="What was reviewed: model_1 (the code), data_5 (privacy).")],
    by: Annotated[str, typer.Option("--by", help="Who reviewed it.")],
    finding: Annotated[str, typer.Option("--finding", help="What was found, in a sentence.")],
    use_case: UseCaseName = "arrival_delay",
) -> None:
    """Record that a person has reviewed what no check can: it counts for a year, for the code as it is now."""
    with failures_in_words():
        of = known(use_case)
        by_hand = [one.key for one in RUBRIC if one.is_reviewed]
        if test not in by_hand:
            raise BadInput(f"{test!r} is reviewed by nobody; choose one of {', '.join(by_hand)}")
        recorded = record_review(
            store_of_environment(),
            Review(
                use_case=of.name,
                test=test,
                code_version=code_version_of(of),
                finding=finding,
                reviewed_at=datetime.now(UTC),
                reviewed_by=by,
            ),
        )
    console.print(
        f"{recorded.test} of {of.name} is reviewed for the code {recorded.code_version[:12]}.", highlight=False
    )
