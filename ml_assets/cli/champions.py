"""The commands on the promotion ledger: history, rollback, champion, approve and reject."""

from datetime import UTC, datetime
from getpass import getuser
from typing import Annotated

import typer
from rich import box
from rich.table import Column, Table

from ml_assets.backends.environments import Environment
from ml_assets.calendar import refuse_unknown_partitions
from ml_assets.cli.terminal import (
    Screen,
    UseCaseName,
    console,
    failures_in_words,
    known,
    store_of_environment,
    warehouse_of_environment,
)
from ml_assets.core import approvals, registry
from ml_assets.core.errors import BadInput, MlAssetsError
from ml_assets.core.experiments import track_decision
from ml_assets.core.package import load_package
from ml_assets.core.ports import ArtifactStore, DayRange
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.scoring_days import stretches_in_charge
from ml_assets.core.spec import UseCase
from ml_assets.lifecycle import Lifecycle, instance_of, tell_dagster


def history(use_case: UseCaseName = "arrival_delay") -> None:
    """Print the promotion ledger: who was in charge from which day, who was refused, and why."""
    with failures_in_words():
        store = store_of_environment()
        whole = (Column(name, no_wrap=True) for name in ("no.", "action", "version", "in charge from"))
        table = Table(*whole, "why, and by whom", box=box.SIMPLE_HEAD)
        for entry in registry.entries(store, known(use_case).name):
            # What a person decides of one package shows which.
            package = f"\npackage {entry.package_hash[:12]}" if entry.action in ("wait", "approve", "reject") else ""
            table.add_row(
                *(str(entry.sequence), entry.action, entry.version + package, str(entry.effective_from)),
                (f"passed all {len(entry.gates)} gates" if entry.action == "promote" else entry.reason)
                + f"\n{entry.recorded_by}, {entry.recorded_at:%Y-%m-%d %H:%M} UTC",
            )
    console.print(table)


def rollback(
    effective_from: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day affected.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the ledger.")],
    use_case: UseCaseName = "arrival_delay",
    to_version: Annotated[str | None, typer.Option("--to", help="Which version; the one before unless given.")] = None,
    is_rescoring: Annotated[
        bool, typer.Option("--rescore/--no-rescore", help="Predict and monitor the days since again, here and now.")
    ] = True,
) -> None:
    """Put an earlier champion back in charge, with one more ledger entry, and predict the days since again by it.

    Dagster and the tracker are told of it as of a promotion. Given again the command changes nothing, and completes
    what a kill left undone.
    """
    with failures_in_words():
        refuse_unknown_partitions(DayRange(first=effective_from.date(), last=effective_from.date()))
        if not reason.strip():
            raise BadInput("a rollback is kept in the ledger for ever; say why with --reason")
        store, of = store_of_environment(), known(use_case)
        entry = registry.rollback(
            store,
            of.name,
            effective_from=effective_from.date(),
            to_version=to_version,
            reason=reason,
            recorded_at=datetime.now(UTC),
            recorded_by=getuser(),
        )
        tell_dagster(instance_of(Environment.current()), of, entry)
        _tell_tracker(entry, store)
        later = [
            e
            for e in registry.entries(store, of.name)
            if e.effective_from > entry.effective_from and e.action in registry.ACTING
        ]
    end = next((f" until {e.version} takes over on {e.effective_from}" for e in later), " on")
    console.print(f"{entry.version} is in charge from {entry.effective_from}{end} (ledger entry {entry.sequence}).")
    if is_rescoring:
        with failures_in_words():
            _rescore(of, entry, store)
    else:
        console.print(
            f"While `make ui` or a Dagster daemon runs, {use_case}_rescore predicts the days since again; "
            f"else materialize {use_case}/predictions and what follows it."
        )


def _rescore(use_case: UseCase, entry: LedgerEntry, store: ArtifactStore) -> None:
    """Predict and monitor again the days that an entry took over, and say how many these were."""
    try:
        stretches = stretches_in_charge(warehouse_of_environment(), use_case, entry, store)
        if not stretches:
            console.print(
                f"No day since {entry.effective_from} has been predicted yet: there is none to predict again."
            )
            return
        with Screen() as screen:
            life = Lifecycle(Environment.current(), on_event=screen.on_event)
            for stretch in stretches:
                screen.begin(f"predict and monitor {stretch} again")
                life.rescore(use_case, stretch)
    except MlAssetsError:
        console.print("The rollback stands; its days are not all predicted again: give the same command once more.")
        raise
    n_days = sum(len(stretch.dates) for stretch in stretches)
    told = "1 day is" if n_days == 1 else f"{n_days} days are"
    console.print(f"{told} predicted and monitored again: {', '.join(map(str, stretches))}.")


def champion(
    on: Annotated[datetime, typer.Option("--on", formats=["%Y-%m-%d"], help="The local day.")],
    use_case: UseCaseName = "arrival_delay",
) -> None:
    """Print which model was in charge on a day, and by which entry of the ledger."""
    with failures_in_words():
        entry = registry.champion_required(store_of_environment(), known(use_case).name, on.date())
    console.print(
        f"{entry.version} was in charge of {use_case} on {on.date()}: {entry.action} of {entry.effective_from}, ledger "
        f"entry {entry.sequence} by {entry.recorded_by}. {entry.reason}",
        highlight=False,
    )


Version = Annotated[str, typer.Option("--version", help="The candidate's version, as `ml-assets history` prints it.")]
By = Annotated[str, typer.Option("--by", help="Who decides; it is kept in the ledger.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")]
PackageHash = Annotated[
    str | None, typer.Option("--package", help="First digits of the package's hash; that in the store unless given.")
]


def approve(
    version: Version,
    by: By,
    reason: Why,
    use_case: UseCaseName = "arrival_delay",
    package: PackageHash = None,
    from_day: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="First day in charge; that of its training unless given."),
    ] = None,
) -> None:
    """Let a candidate that waits pass. It binds to the package in the store, hash by hash, and to no other."""
    with failures_in_words():
        store = store_of_environment()
        entry = approvals.approve(
            store,
            known(use_case).name,
            version=version,
            package_hash=_package_hash(store, use_case, version, package),
            effective_from=from_day.date() if from_day else None,
            reason=reason,
            recorded_at=datetime.now(UTC),
            recorded_by=by,
        )
        _tell_tracker(entry, store)
    console.print(
        f"{entry.version} (package {entry.package_hash[:12]}) is approved by {entry.recorded_by} (ledger entry "
        f"{entry.sequence})."
    )
    console.print(f"Materialize {use_case}/champion for {entry.as_of} to put it in charge.")


def reject(
    version: Version,
    by: By,
    reason: Why,
    use_case: UseCaseName = "arrival_delay",
    package: PackageHash = None,
) -> None:
    """Keep a candidate that waits out for good."""
    with failures_in_words():
        store = store_of_environment()
        entry = approvals.reject(
            store,
            known(use_case).name,
            version=version,
            package_hash=_package_hash(store, use_case, version, package),
            reason=reason,
            recorded_at=datetime.now(UTC),
            recorded_by=by,
        )
        _tell_tracker(entry, store)
    console.print(f"{entry.version} is rejected by {entry.recorded_by} (ledger entry {entry.sequence}).")


def _tell_tracker(entry: LedgerEntry, store: ArtifactStore) -> None:
    """Tell the tracker what a person decided; whatever fails in it is a warning, and the decision stands."""
    from ml_assets.resources import tracker_of

    track_decision(tracker_of(Environment.current()), entry, store)


def _package_hash(store: ArtifactStore, use_case: str, version: str, given: str | None) -> str:
    """Return the hash of the verified package in the store; raise BadInput where it is not the one that was meant."""
    found = load_package(store, use_case, version).package_hash
    if given is not None and not (len(given) >= 8 and found.startswith(given)):
        raise BadInput(
            f"{use_case} {version} is the package {found[:12]} in the store, and {given!r} was meant; give at least 8 "
            "digits of the hash, and read the report of the package that is there before you decide"
        )
    return found
