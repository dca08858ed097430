"""The commands on faulty days of raw tables: which are held, and letting one pass."""

from datetime import UTC, date, datetime
from typing import Annotated

import typer
from rich import box
from rich.table import Column, Table

from ml_assets.backends.environments import Environment
from ml_assets.calendar import FIRST_DAY
from ml_assets.cli.terminal import console, failures_in_words, store_of_environment, warehouse_of_environment
from ml_assets.core.data_quality import releases
from ml_assets.core.data_quality.evidence import CHECKS
from ml_assets.core.data_quality.verdicts import Fault, faults_between, judge_days
from ml_assets.core.errors import BadInput
from ml_assets.core.ports import DayRange


def faults(
    from_day: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"])] = None,
    to_day: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"])] = None,
    everything: Annotated[bool, typer.Option("--all", help="Released ones too.")] = False,
) -> None:
    """List the severe faults of landed days: nothing is made of these days until they land sound or are released."""
    with failures_in_words():
        first = from_day.date() if from_day else FIRST_DAY
        last = to_day.date() if to_day else date.max
        found = faults_between(warehouse_of_environment(), DayRange(first=first, last=last))
    shown = [fault for fault in found if everything or not fault.released_by]
    if shown:
        _show(shown)
    n_held = len({(fault.table, fault.day) for fault in found if not fault.released_by})
    console.print(
        f"{n_held} days are held. ml-assets release --table TABLE --day DAY --by NAME --reason WHY lets one pass."
        if n_held
        else "No day is held."
    )


def release(
    table: Annotated[str, typer.Option(help="The raw table, such as weather.")],
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The local day.")],
    by: Annotated[str, typer.Option("--by", help="Who decides; it is kept.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")],
    check: Annotated[str | None, typer.Option("--check", help="Which fault; all of the day unless given.")] = None,
) -> None:
    """Let a faulty day pass as it is. It binds to what was found: another fault of the same day is held again."""
    from ml_assets.resources import source_of

    with failures_in_words():
        contracts = source_of(Environment.current()).contracts
        daily = [name for name, contract in contracts.items() if contract.is_partitioned]
        if table not in daily:
            raise BadInput(f"there is no daily raw table {table!r}; there are {', '.join(daily)}")
        if check is not None and check not in CHECKS:
            raise BadInput(f"there is no check {check!r}; there are {', '.join(CHECKS)}")
        store, warehouse = store_of_environment(), warehouse_of_environment()
        of_day = DayRange(first=day.date(), last=day.date())
        # As the day is now: a verdict that is older than its rows is made again first.
        found = judge_days(warehouse, store, contracts.values(), of_day)
        standing = [
            fault
            for fault in found
            if fault.table == table and check in (None, fault.check_name) and not fault.released_by
        ]
        if not standing:
            raise BadInput(
                f"raw.{table} of {of_day} has no fault to release"
                + (f" by the check {check}" if check else "")
                + "; `ml-assets faults` lists them"
            )
        for fault in standing:
            releases.record(
                store,
                releases.Release(
                    table=fault.table,
                    day=fault.day,
                    fault=fault.fault,
                    check_name=fault.check_name,
                    explanation=fault.explanation,
                    reason=reason,
                    released_at=datetime.now(UTC),
                    released_by=by,
                ),
            )
        left = [fault for fault in judge_days(warehouse, store, contracts.values(), of_day) if not fault.released_by]
    _show(standing)
    console.print(f"released by {by}: {reason}", highlight=False)
    if left:
        _show(left)
        console.print(f"{of_day} is still held.", highlight=False)
    else:
        console.print(f"Make {of_day} now: materialize features and what follows them for this day.", highlight=False)


def _show(found: list[Fault]) -> None:
    whole = (Column(name, no_wrap=True) for name in ("day", "raw table", "check"))
    table = Table(*whole, "found", "released by", box=box.SIMPLE_HEAD)
    for fault in found:
        table.add_row(str(fault.day), fault.table, fault.check_name, fault.explanation, fault.released_by)
    console.print(table)
