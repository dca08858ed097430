"""The ``ml-assets`` command: the main job, the replay, and the promotion ledger."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from getpass import getuser
from typing import Annotated, get_args

import dagster as dg
import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from ml_assets.backends.environments import Environment
from ml_assets.calendar import refuse_unknown_partitions
from ml_assets.core import approvals, registry
from ml_assets.core.errors import BadInput, MlAssetsError
from ml_assets.core.package import load_package
from ml_assets.core.performance import pool_histograms
from ml_assets.core.ports import ArtifactStore, DayRange
from ml_assets.core.spec import UseCase
from ml_assets.core.studies import SamplerName
from ml_assets.lifecycle import LANDING, SERVING, Lifecycle, TrainingOutcome, instance_of, tell_dagster
from ml_assets.use_cases import load_use_cases

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The life of a model after the notebook.",
)
console = Console()

Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"])]
UseCaseName = Annotated[str, typer.Option("--use-case", help="The use case's name.")]


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


@app.command()
def run(
    from_day: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"])] = datetime(2013, 1, 1),  # noqa: DTZ001
    to_day: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"])] = datetime(2013, 7, 14),  # noqa: DTZ001
    as_of: Annotated[datetime, typer.Option("--as-of", formats=["%Y-%m-%d"])] = datetime(2013, 7, 1),  # noqa: DTZ001
) -> None:
    """Land the days, train as of one of them, promote, then predict and monitor from that day on."""
    with _failures_in_words(), _Screen() as screen:
        landed = DayRange(first=from_day.date(), last=to_day.date())
        served = DayRange(first=as_of.date(), last=to_day.date())
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        screen.begin(f"land {landed}")
        life.run_groups(LANDING, landed)
        outcomes: dict[str, TrainingOutcome] = {}
        for use_case in load_use_cases():
            screen.begin(f"train {use_case.name} as of {served.first}")
            outcomes[use_case.name] = life.outcome_of_training(use_case, served.first)
        screen.begin(f"predict {served}")
        waiting = [name for name in outcomes if registry.champion_on(life.store, name, served.first) is None]
        life.run_groups(SERVING, served, without=waiting)
    for use_case in load_use_cases():
        if use_case.name in waiting:
            last = registry.entries(life.store, use_case.name)[-1]
            console.print(f"{use_case.name}: nobody is in charge, so nothing is predicted. {last.reason}")
        else:
            _summary(life, use_case, landed, served, outcome=outcomes[use_case.name])


@app.command()
def replay(
    from_day: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"])],
    to_day: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"])],
) -> None:
    """Live days one by one as production does: land, predict, monitor, decide; train on Mondays and when decided."""
    table = Table("day", "use case", "predictions", "ROC AUC", "training", "decision for tomorrow")
    with _failures_in_words(), _Screen() as screen:
        days = DayRange(first=from_day.date(), last=to_day.date())
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        use_cases = load_use_cases()
        for use_case in use_cases:
            life.require_champion(use_case, days.first)
        screen.begin("replay", total=len(days.dates) * len(use_cases))
        for found in life.replay(days, use_cases):
            screen.advance(str(found.day))
            roc_auc = f"{found.roc_auc:.3f}" if found.roc_auc is not None else "-"
            table.add_row(
                str(found.day),
                found.use_case,
                f"{found.n_predictions:,}",
                roc_auc,
                found.trained or "-",
                found.decision,
            )
    console.print(table)


@app.command()
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
    with _failures_in_words(), _Screen() as screen:
        if sampler not in get_args(SamplerName):
            raise BadInput(f"there is no sampler {sampler!r}; there are {', '.join(get_args(SamplerName))}")
        life = Lifecycle(Environment.current(), on_event=screen.on_event)
        screen.begin(f"tune {_known(use_case).name} as of {as_of.date()}")
        tuned = life.tune(_known(use_case), as_of.date(), config)
    table = Table("hyperparameter", "default", "tuned", title=f"{use_case} as of {tuned.as_of}", title_justify="left")
    for name, value in tuned.parameters.items():
        if value != tuned.defaults[name]:
            table.add_row(name, f"{tuned.defaults[name]}", f"{value:.4g}" if isinstance(value, float) else f"{value}")
    if table.row_count:
        console.print(table)
    states = Counter(trial.state for trial in tuned.trials)
    console.print(
        f"validation loss {tuned.loss:.4f} with the tuned, {_number(tuned.default_loss, 4)} with the default ones; "
        f"{states['complete']} trials complete, {states['pruned']} pruned, {states['failed']} failed."
    )
    verdict = "use them" if tuned.beats_defaults else "keep the defaults: nothing better was found"
    console.print(f"Trainings of {use_case} as of {tuned.as_of} and later {verdict}.")


@app.command()
def history(use_case: UseCaseName = "arrival_delay") -> None:
    """Print the promotion ledger: who was in charge from which day, who was refused, and why."""
    with _failures_in_words():
        store = _store()
        table = Table("no.", "action", Column("version", no_wrap=True), Column("from", no_wrap=True))
        for name in ("recorded", "by", "reason"):
            table.add_column(name)
        for entry in registry.entries(store, _known(use_case).name):
            # What a person decides of one package shows which.
            package = f"\npackage {entry.package_hash[:12]}" if entry.action in ("wait", "approve", "reject") else ""
            table.add_row(
                *(str(entry.sequence), entry.action, entry.version + package, str(entry.effective_from)),
                *(f"{entry.recorded_at:%Y-%m-%d %H:%M}", entry.recorded_by),
                f"passed all {len(entry.gates)} gates" if entry.action == "promote" else entry.reason,
            )
    console.print(table)


@app.command()
def rollback(
    effective_from: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day affected.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the ledger.")],
    use_case: UseCaseName = "arrival_delay",
    to_version: Annotated[str | None, typer.Option("--to", help="Which version; the one before unless given.")] = None,
) -> None:
    """Put an earlier champion back in charge, with one more ledger entry.

    Dagster is told of it as of a promotion: where it runs, a sensor predicts the days since again.
    """
    with _failures_in_words():
        refuse_unknown_partitions(DayRange(first=effective_from.date(), last=effective_from.date()))
        if not reason.strip():
            raise BadInput("a rollback is kept in the ledger for ever; say why with --reason")
        entry = registry.rollback(
            _store(),
            _known(use_case).name,
            effective_from=effective_from.date(),
            to_version=to_version,
            reason=reason,
            recorded_at=datetime.now(UTC),
            recorded_by=getuser(),
        )
        tell_dagster(instance_of(Environment.current()), _known(use_case), entry)
        later = [e for e in registry.entries(_store(), use_case) if e.effective_from > entry.effective_from]
    end = next((f" until {e.version} takes over on {e.effective_from}" for e in later if e.action != "refuse"), " on")
    console.print(f"{entry.version} is in charge from {entry.effective_from}{end} (ledger entry {entry.sequence}).")
    console.print(
        f"While `make ui` or a Dagster daemon runs, {use_case}_rescore predicts the days since again; "
        f"else materialize {use_case}/predictions and what follows it."
    )


@app.command()
def champion(
    on: Annotated[datetime, typer.Option("--on", formats=["%Y-%m-%d"], help="The local day.")],
    use_case: UseCaseName = "arrival_delay",
) -> None:
    """Print which model was in charge on a day, and by which entry of the ledger."""
    with _failures_in_words():
        entry = registry.champion_required(_store(), _known(use_case).name, on.date())
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


@app.command()
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
    with _failures_in_words():
        store = _store()
        entry = approvals.approve(
            store,
            _known(use_case).name,
            version=version,
            package_hash=_package_hash(store, use_case, version, package),
            effective_from=from_day.date() if from_day else None,
            reason=reason,
            recorded_at=datetime.now(UTC),
            recorded_by=by,
        )
    console.print(
        f"{entry.version} (package {entry.package_hash[:12]}) is approved by {entry.recorded_by} (ledger entry "
        f"{entry.sequence})."
    )
    console.print(f"Materialize {use_case}/champion for {entry.as_of} to put it in charge.")


@app.command()
def reject(
    version: Version,
    by: By,
    reason: Why,
    use_case: UseCaseName = "arrival_delay",
    package: PackageHash = None,
) -> None:
    """Keep a candidate that waits out for good."""
    with _failures_in_words():
        store = _store()
        entry = approvals.reject(
            store,
            _known(use_case).name,
            version=version,
            package_hash=_package_hash(store, use_case, version, package),
            reason=reason,
            recorded_at=datetime.now(UTC),
            recorded_by=by,
        )
    console.print(f"{entry.version} is rejected by {entry.recorded_by} (ledger entry {entry.sequence}).")


def _package_hash(store: ArtifactStore, use_case: str, version: str, given: str | None) -> str:
    """Return the hash of the verified package in the store; raise BadInput where it is not the one that was meant."""
    found = load_package(store, use_case, version).package_hash
    if given is not None and not (len(given) >= 8 and found.startswith(given)):
        raise BadInput(
            f"{use_case} {version} is the package {found[:12]} in the store, and {given!r} was meant; give at least 8 "
            "digits of the hash, and read the report of the package that is there before you decide"
        )
    return found


class _Screen:
    """A progress display fed by the events of the runs: one line per stage, the step that is running, its last word."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[now]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=_console_of_its_own(),
            expand=True,
        )
        self._task: int | None = None
        self._counts_steps = True

    def __enter__(self) -> "_Screen":
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


def _console_of_its_own() -> Console:
    """Return a console on the terminal itself: Dagster turns standard output into a file while a step runs."""
    return Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w")) if sys.stdout.isatty() else console


@contextmanager
def _failures_in_words() -> Iterator[None]:
    """Show an error of this project as a sentence; any other error keeps its traceback."""
    try:
        yield
    except MlAssetsError as error:
        console.print(f"[red bold]{type(error).__name__}[/] {error}", highlight=False)
        raise typer.Exit(1) from error


def _known(name: str) -> UseCase:
    found = {use_case.name: use_case for use_case in load_use_cases()}
    if name not in found:
        raise BadInput(f"there is no use case {name!r}; there is {', '.join(found)}")
    return found[name]


def _store() -> ArtifactStore:
    from ml_assets.resources import resources_of

    return resources_of(Environment.current())["store"]


def _summary(
    life: Lifecycle, use_case: UseCase, landed: DayRange, served: DayRange, *, outcome: TrainingOutcome
) -> None:
    """Print what the run came to, in words a person understands."""
    bounds = {"first": landed.first, "last": landed.last}
    rows = life.warehouse.query(
        """
        with quarantined as (
            from raw.flights_quarantine union all from raw.schedules_quarantine union all from raw.weather_quarantine
        )
        select (select count(*) from raw.flights where partition_on between $first and $last) as n_flights,
               (select count(*) from raw.weather where partition_on between $first and $last) as n_weather,
               (select count(*) from quarantined where partition_on between $first and $last) as n_quarantined
        """,
        bounds,
    ).to_pylist()[0]
    served_bounds = {"first": served.first, "last": served.last, "use_case": use_case.name}
    quality = life.warehouse.query(
        """
        select count(*) as n_days, sum(n_decisions) as n_decisions, sum(n_unlabelled) as n_unlabelled,
               list(score_histogram) filter (score_histogram is not null) as histograms
        from monitoring.performance
        where use_case = $use_case and partition_on between $first and $last
        """,
        served_bounds,
    ).to_pylist()[0]
    roc_auc = pool_histograms(pa.table({"score_histogram": pa.array(quality["histograms"] or [], pa.string())})).roc_auc
    drift = life.warehouse.query(
        """
        select count(*) filter (is_drifted and kind <> 'prediction') as n_drifted,
               count(*) filter (kind <> 'prediction') as n_measured,
               count(*) filter (is_drifted and kind = 'prediction') as n_prediction_days,
               count(distinct feature) filter (is_drifted and kind <> 'prediction') as n_features,
               mode(feature) filter (is_drifted and kind <> 'prediction') as most_often
        from monitoring.drift
        where use_case = $use_case and partition_on between $first and $last
        """,
        served_bounds,
    ).to_pylist()[0]
    entry = registry.champion_required(life.store, use_case.name, served.last)
    metrics = load_package(life.store, use_case.name, entry.version).metrics
    holdout, logistic, base = metrics.holdout, metrics.baselines["logistic"], metrics.baselines["base_rate"]
    table = Table(show_header=False, title=f"{use_case.name}: {use_case.question}", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "landed",
        f"{rows['n_flights']:,} flights and {rows['n_weather']:,} weather hours of {landed}; "
        f"{rows['n_quarantined']} rows quarantined",
    )
    words = {
        "promoted": "promoted" if entry.as_of == served.first else "of a later training than this one",
        "refused": "kept; the new candidate was refused",
        "waits": "kept; the new candidate waits for ml-assets approve",
    }
    table.add_row("champion", f"{entry.version} ({words[outcome]})")
    table.add_row(
        "quality on the holdout",
        f"ROC AUC {_number(holdout.roc_auc)}, PR AUC {_number(holdout.pr_auc)}, log loss {_number(holdout.log_loss)}\n"
        f"logistic baseline {_number(logistic.roc_auc)}, {_number(logistic.pr_auc)}, {_number(logistic.log_loss)}\n"
        f"base rate {_number(base.roc_auc)}, {_number(base.pr_auc)}, {_number(base.log_loss)}",
    )
    table.add_row(
        "predicted",
        f"{quality['n_decisions']:,} flights on {quality['n_days']} days ({served}); "
        f"ROC AUC {_number(roc_auc)}; "
        f"{quality['n_unlabelled']:,} cancelled or diverted, so never labelled",
    )
    often = f", most often {drift['most_often']}" if drift["most_often"] else ""
    table.add_row(
        "drift",
        f"{drift['n_drifted']} of {drift['n_measured']:,} feature-days beyond their limits "
        f"({drift['n_features']} features{often}),\n"
        f"the prediction on {drift['n_prediction_days']} of {quality['n_days']} days",
    )
    report = f"reports/{use_case.name}/{served.last}.html"
    table.add_row("report", life.store.address(report))
    table.add_row("next", "make ui, then http://127.0.0.1:3000")
    console.print(table)


def _number(value: float | None, n_digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{n_digits}f}"
