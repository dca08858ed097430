"""What a run came to, as a table of words a person understands."""

import math

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from ml_assets.cli.terminal import console
from ml_assets.core import registry
from ml_assets.core.monitored import ALARMS, PERFORMANCE
from ml_assets.core.package import load_package
from ml_assets.core.performance import pool_histograms
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import DayRange, Warehouse
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import meaning_of
from ml_assets.lifecycle import Lifecycle, TrainingOutcome

# Judgement: more lines than this are read by nobody.
_MOST_TOLD = 3


def summarise(
    life: Lifecycle, use_case: UseCase, landed: DayRange, served: DayRange, *, outcome: TrainingOutcome
) -> None:
    """Print what the run came to, in words a person understands."""
    rows = _landed(life.warehouse, landed)
    performance = _monitored(life.warehouse, PERFORMANCE, use_case, served)
    meaning, unit = meaning_of(use_case.task), use_case.label.unit
    proved = _pooled_rmse(performance) if meaning.daily.name == "rmse" else pool_histograms(performance).roc_auc
    entry = registry.champion_required(life.store, use_case.name, served.last)
    metrics = load_package(life.store, use_case.name, entry.version).metrics
    table = Table(show_header=False, title=f"{use_case.name}: {use_case.question}", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "landed",
        f"{rows['n_flights']:,} flights and {rows['n_weather']:,} weather hours of {landed}; "
        f"{rows['n_quarantined']} row{'' if rows['n_quarantined'] == 1 else 's'} quarantined",
    )
    words = {
        "promoted": "promoted" if entry.as_of == served.first else "of a later training than this one",
        "refused": "kept; the new candidate was refused",
        "waits": "kept; the new candidate waits for ml-assets approve",
    }
    table.add_row("champion", f"{entry.version} ({words[outcome]})")
    table.add_row(
        "quality on the holdout",
        "\n".join(
            [
                meaning.sentence(metrics.holdout, unit),
                *(
                    f"{words.removeprefix('the ')}: {meaning.sentence(metrics.baselines[name], unit)}"
                    for name, words in reversed(meaning.baseline_words.items())
                ),
            ]
        ),
    )
    n_days, n_decisions = performance.num_rows, pc.sum(performance["n_decisions"]).as_py() or 0
    table.add_row(
        "predicted",
        f"{n_decisions:,} flights on {n_days} days ({served}); "
        f"{meaning.daily.words} {'-' if proved is None else meaning.daily.write(proved, unit)}; "
        f"{pc.sum(performance['n_unlabelled']).as_py() or 0:,} never get a label",
    )
    table.add_row("alarms", alarms_in_words(_monitored(life.warehouse, ALARMS, use_case, served), n_days))
    report = f"reports/{use_case.name}/{served.last}.html"
    table.add_row("report", life.store.address(report))
    table.add_row("next", "make ui, then http://127.0.0.1:3000")
    console.print(table)


def _landed(warehouse: Warehouse, days: DayRange) -> dict[str, int]:
    """Return how many flights and weather hours landed on these days, and how many rows are in quarantine."""
    tables = ("flights", "weather", "flights_quarantine", "schedules_quarantine", "weather_quarantine")
    of_days = Sql(dialect=warehouse.dialect).of_days()
    counts = ", ".join(f"(select count(*) from raw.{table} where {of_days}) as {table}" for table in tables)  # noqa: S608 - constants
    found = warehouse.query(f"select {counts}", {"first_day": days.first, "last_day": days.last}).to_pylist()[0]
    return {
        "n_flights": found["flights"],
        "n_weather": found["weather"],
        "n_quarantined": sum(found[table] for table in tables if table.endswith("_quarantine")),
    }


def _monitored(warehouse: Warehouse, table: str, use_case: UseCase, days: DayRange) -> pa.Table:
    """Return the rows of a monitoring table of one use case on these days, by day."""
    marked = Sql(dialect=warehouse.dialect)
    sql = f"""
        select * from {table} where use_case = {marked.parameter("use_case")} and {marked.of_days()}
        order by partition_on
    """  # noqa: S608 - constants
    return warehouse.query(sql, {"use_case": use_case.name, "first_day": days.first, "last_day": days.last})


def _pooled_rmse(performance: pa.Table) -> float | None:
    """Return the RMSE of all days together, or None where no day has one."""
    days = performance.select(["n_labelled", "rmse"]).filter(pc.field("rmse").is_valid()).to_pylist()
    n_labelled = sum(day["n_labelled"] for day in days)
    return math.sqrt(sum(day["n_labelled"] * day["rmse"] ** 2 for day in days) / n_labelled) if n_labelled else None


def alarms_in_words(alarms: pa.Table, n_days: int) -> str:
    """Say on how many days alarms stood, and of each incident what it was: the worst and the longest first, three."""
    if not alarms.num_rows:
        return f"none on {n_days} days"
    incidents: dict[str, list[dict[str, object]]] = {}
    for row in alarms.to_pylist():
        incidents.setdefault(row["incident"], []).append(row)
    severe = {name for name, rows in incidents.items() if any(row["severity"] == "severe" for row in rows)}
    # Of equals the first by name: the rows of a day come in no order.
    told = sorted(incidents, key=lambda name: (name not in severe, -len(incidents[name]), name))
    lines = [
        f"{len(told)} incident{'s' if len(told) > 1 else ''} ({len(severe) or 'none'} severe), "
        f"on {len(set(alarms['partition_on'].to_pylist()))} of {n_days} days"
    ]
    for name in told[:_MOST_TOLD]:
        rows = incidents[name]
        days = f"{len(rows)} day{'s' if len(rows) > 1 else ''}"
        lines.append(f"{'severe' if name in severe else 'warning'}, {days}: {rows[-1]['explanation']}")
    more = len(told) - _MOST_TOLD
    return "\n".join([*lines, f"and {more} more: see the report"] if more > 0 else lines)
