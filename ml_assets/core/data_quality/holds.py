"""What is not made of a held day, and what is: only what depends on the faulty table waits, and only for that day."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ml_assets.core.data_quality.verdicts import Fault
from ml_assets.core.days import DayRange
from ml_assets.core.errors import DayHeld


@dataclass(frozen=True, kw_only=True)
class Build:
    """Models that are to be built for the same days."""

    tables: tuple[str, ...]
    days: DayRange


def builds(raw_tables: Mapping[str, Iterable[str]], faults: Sequence[Fault], days: DayRange) -> list[Build]:
    """Return which models to build for which days so that none is built of a faulty day, each after what it reads.

    ``raw_tables`` are the raw tables that each model is made of, itself or through others: whatever a model reads is
    held on no more days than the model itself.
    """
    held = {table: held_days(tables, faults) for table, tables in raw_tables.items()}
    alike: dict[frozenset[date], list[str]] = {}
    for table, local_days in sorted(held.items()):
        alike.setdefault(local_days, []).append(table)
    return [
        Build(tables=tuple(tables), days=stretch)
        for local_days, tables in sorted(alike.items(), key=lambda group: len(group[0]))
        for stretch in days.without(local_days)
    ]


def held_days(raw_tables: Iterable[str], faults: Iterable[Fault]) -> frozenset[date]:
    """Return the days on which any of these raw tables has one of the faults."""
    wanted = set(raw_tables)
    return frozenset(fault.day for fault in faults if fault.table in wanted)


def refusal(what: str, faults: Sequence[Fault]) -> DayHeld:
    """Return the error that says what was not made, and of each fault how to release it."""
    days = sorted({fault.day for fault in faults})
    return DayHeld(f"{what} was not made for {', '.join(map(str, days))}. " + " ".join(str(fault) for fault in faults))
