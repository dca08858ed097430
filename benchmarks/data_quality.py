"""Data quality on the real flights of 2013: false alarms, changes of unit found, and what judging a day costs.

    python -m benchmarks.data_quality

Every day of 2013 is held against the 28 days before it, as it is and with each column in each other unit there is.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.contracts import Contract
from ml_assets.core.data_quality.evidence import HISTORY, Evidence
from ml_assets.core.data_quality.findings import findings
from ml_assets.core.data_quality.profiles import DayProfile, profile_days, quantities
from ml_assets.core.data_quality.units import CONVERSIONS, Values, other_unit
from ml_assets.core.data_quality.verdicts import judge_days
from ml_assets.core.days import DayRange

YEAR = DayRange(first=date(2013, 1, 1), last=date(2013, 12, 31))
# A unit shows in values that are not zero: this many of them on a day, on so many of the days before.
FEWEST_ROWS, FEWEST_DAYS = 8, 7

console = Console()


def main() -> None:
    """Print the three tables."""
    source = NycFlights13Source(is_replaying=False)
    daily = [contract for contract in source.contracts.values() if contract.is_partitioned]
    with tempfile.TemporaryDirectory() as folder:
        warehouse = DuckDBWarehouse(Path(folder) / "warehouse.duckdb")
        with warehouse.session():
            for contract in daily:
                warehouse.replace_days({f"raw.{contract.table}": source.read(contract.table, YEAR)}, YEAR)
            profiles = {contract.table: profile_days(warehouse, contract, YEAR) for contract in daily}
            alarms(daily, profiles)
            units(daily, profiles)
            cost(warehouse, daily, Path(folder))


def recent(profiles: Mapping[date, DayProfile], day: date) -> Sequence[DayProfile]:
    """Return the days that a day is held against."""
    return [profile for other, profile in profiles.items() if day - HISTORY <= other < day]


def alarms(daily: Sequence[Contract], profiles: Mapping[str, Mapping[date, DayProfile]]) -> None:
    """Print what the checks say of the days as they were."""
    table = Table("day", "table", "check", "severity", "found", title="What is found on the real days of 2013")
    told: Counter[str] = Counter()
    for contract in daily:
        of_table = profiles[contract.table]
        for day in YEAR.dates:
            evidence = Evidence(day=day, profile=of_table.get(day), recent=recent(of_table, day))
            for finding in findings(contract, evidence):
                if finding.severity:
                    told[finding.severity] += 1
                    words = (finding.check_name, finding.severity, finding.explanation)
                    table.add_row(str(day), contract.table, *words)
    console.print(table)
    n_days = len(daily) * len(YEAR.dates)
    console.print(f"{told['warning']} warnings and {told['severe']} severe faults on {n_days:,} days of tables\n")


def units(daily: Sequence[Contract], profiles: Mapping[str, Mapping[date, DayProfile]]) -> None:
    """Print on how many days each other unit of each column is found and named."""
    table = Table(
        "table", "column", "other unit", "days", "found", "taken for another", "share", title="Changes of unit"
    )
    n_false = 0
    for contract in daily:
        of_unit = {column.name: column.unit for column in contract.columns}
        for column in quantities(contract):
            days = list(_telling(profiles[contract.table], column))
            n_false += sum(other_unit(of_unit[column], values, before) is not None for values, before in days)
            for conversion in CONVERSIONS[of_unit[column]]:
                found = [
                    other_unit(
                        of_unit[column], Values(values=conversion.apply(values.values), counts=values.counts), before
                    )
                    for values, before in days
                ]
                right = sum(each is conversion for each in found)
                wrong = sum(each is not None and each is not conversion for each in found)
                row = (contract.table, column, conversion.words, len(days), right, wrong, f"{right / len(days):.1%}")
                table.add_row(*map(str, row))
    console.print(table)
    console.print(f"a change of unit is seen on {n_false} days on which there is none\n")


def _telling(profiles: Mapping[date, DayProfile], column: str) -> Sequence[tuple[Values, Sequence[Values]]]:
    found: list[tuple[Values, Sequence[Values]]] = []
    for day, profile in profiles.items():
        before = [p.values[column] for p in recent(profiles, day) if column in p.values]
        n_days = sum(len(values.nonzero().values) > 0 for values in before)
        values = profile.values.get(column)
        if values and n_days >= FEWEST_DAYS and values.nonzero().counts.sum() >= FEWEST_ROWS:
            found.append((values, before))
    return found


def cost(warehouse: DuckDBWarehouse, daily: Sequence[Contract], folder: Path) -> None:
    """Print the CPU seconds of judging one day of all tables, and the whole year at once."""
    store = ObjectArtifactStore((folder / "artifacts").as_uri())
    seconds: list[float] = []
    for day in YEAR.dates[180:187]:
        started = time.process_time()
        judge_days(warehouse, store, daily, DayRange(first=day, last=day))
        seconds.append(time.process_time() - started)
    started = time.process_time()
    judge_days(warehouse, store, daily, YEAR)
    whole = time.process_time() - started
    console.print(
        f"{sorted(seconds)[3]:.2f} CPU s to judge a day of all raw tables (median of 7), {whole:.1f} for a year"
    )


if __name__ == "__main__":
    main()
