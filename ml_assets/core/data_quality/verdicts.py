"""The verdict on each landed day of the raw tables, kept in ``monitoring.data_quality`` and bound to the day's rows.

Whoever uses a day asks ``standing_faults``. A verdict counts for the rows it was made of: where a day has landed again
since, or a kill came between the rows and their verdict, the day is judged then and there. No verdict is never "fine".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import cast

import pyarrow as pa

from ml_assets.core.contracts import PARTITION, Contract
from ml_assets.core.data_quality.evidence import HISTORY, Evidence, Finding, SetAside
from ml_assets.core.data_quality.findings import findings
from ml_assets.core.data_quality.landings import NEVER_LANDED, read_landings
from ml_assets.core.data_quality.profiles import profile_days
from ml_assets.core.data_quality.releases import fingerprint, releases_of
from ml_assets.core.days import DayRange
from ml_assets.core.monitored import DATA_QUALITY
from ml_assets.core.point_in_time import parts
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse

DATA_QUALITY_SCHEMA = pa.schema(
    [
        (PARTITION, pa.date32()),
        ("table_name", pa.string()),
        ("check_name", pa.string()),
        ("column_name", pa.string()),
        ("value", pa.float64()),
        ("expected", pa.float64()),
        ("severity", pa.string()),
        ("is_blocking", pa.bool_()),
        ("released_by", pa.string()),
        ("explanation", pa.string()),
        ("fault", pa.string()),
        ("state", pa.string()),
    ]
)
# Judgement: the counts of this many days are in memory at once, whatever the length of the range.
_DAYS_AT_ONCE = 92


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A severe finding: of which table and day, by which check, and who released it if anybody did."""

    table: str
    day: date
    check_name: str
    column_name: str
    explanation: str
    fault: str
    released_by: str = ""

    def __str__(self) -> str:
        """Return what was found and expected, and the command that releases it."""
        return (
            f"raw.{self.table} of {self.day} has a severe fault ({self.check_name}): {self.explanation}. Correct the "
            f"source and land the day again, or release it: ml-assets release --table {self.table} --day {self.day} "
            f"--check {self.check_name} --by NAME --reason WHY"
        )


def judge_days(
    warehouse: Warehouse, store: ArtifactStore, contracts: Iterable[Contract], days: DayRange
) -> Sequence[Fault]:
    """Judge these days of every daily raw table, keep the verdicts, and return the severe faults, released ones too.

    A day is held against the 28 days before it, without those that have a severe fault themselves that nobody has
    released. Nothing is written where the same verdicts are there already.
    """
    daily = [contract for contract in contracts if contract.is_partitioned]
    kept = verdicts_of(warehouse, DayRange(first=days.first - HISTORY, last=days.last))
    rows: list[dict[str, object]] = []
    for contract in daily:
        unsound = {
            cast("date", row[PARTITION])
            for row in kept
            if row["table_name"] == contract.table and row["is_blocking"] and cast("date", row[PARTITION]) < days.first
        }
        for part in parts(days, at_most_days=_DAYS_AT_ONCE):
            judged = list(_judged(warehouse, store, contract, part, unsound))
            unsound |= {cast("date", row[PARTITION]) for row in judged if row["is_blocking"]}
            rows += judged
    order = {contract.table: place for place, contract in enumerate(daily)}
    rows.sort(key=lambda row: (row[PARTITION], order[cast("str", row["table_name"])]))
    of_days = [row for row in kept if days.first <= cast("date", row[PARTITION])]
    if _sorted(of_days) != _sorted(rows):
        warehouse.replace_days({DATA_QUALITY: pa.Table.from_pylist(rows, schema=DATA_QUALITY_SCHEMA)}, days)
    return _faults(rows)


def standing_faults(
    warehouse: Warehouse,
    store: ArtifactStore,
    contracts: Mapping[str, Contract],
    tables: Iterable[str],
    days: DayRange,
) -> Sequence[Fault]:
    """Return the severe faults of these raw tables and days that nobody has released: the days must not be used.

    ``contracts`` are those of all raw tables; a table without days has no faults here.
    """
    wanted = [name for name in sorted(tables) if name in contracts and contracts[name].is_partitioned]
    if not wanted:
        return []
    rows = verdicts_of(warehouse, days)
    judged = {(row["table_name"], row[PARTITION], row["state"]) for row in rows}
    landings = {name: read_landings(warehouse, name, days) for name in wanted}
    states = {(name, day, landings[name].get(day, NEVER_LANDED).state) for name in wanted for day in days.dates}
    faults = _faults(rows) if states <= judged else judge_days(warehouse, store, contracts.values(), days)
    standing = [fault for fault in faults if fault.table in wanted and not fault.released_by]
    # A release that was recorded a moment ago, before the verdict could say so, counts too.
    return [fault for fault in standing if fault.fault not in releases_of(store, fault.table, fault.day)]


def verdicts_of(warehouse: Warehouse, days: DayRange) -> list[dict[str, object]]:
    """Return the verdicts on these days, a row per finding, oldest first."""
    if not _has(warehouse, DATA_QUALITY):
        return []
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = f"select * from {DATA_QUALITY} where {of_days} order by partition_on"  # noqa: S608 - constant
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist()


def faults_between(warehouse: Warehouse, days: DayRange) -> Sequence[Fault]:
    """Return the severe faults that the verdicts of these days name, released ones too, oldest first."""
    return _faults(verdicts_of(warehouse, days))


def _judged(
    warehouse: Warehouse, store: ArtifactStore, contract: Contract, days: DayRange, unsound: set[date]
) -> Iterator[dict[str, object]]:
    """Yield the rows of the verdicts on these days of one table, day by day."""
    known = DayRange(first=days.first - HISTORY, last=days.last)
    landings = read_landings(warehouse, contract.table, days)
    # Where one landing is on record, all tables of it are there.
    is_there = bool(landings) or _has(warehouse, f"raw.{contract.table}")
    profiles = profile_days(warehouse, contract, known) if is_there else {}
    set_aside = _set_aside(warehouse, contract, days) if landings else {}
    left_out = set(unsound)
    for day in days.dates:
        evidence = Evidence(
            day=day,
            profile=profiles.get(day),
            recent=[p for d, p in profiles.items() if day - HISTORY <= d < day and d not in left_out],
            landing=landings.get(day, NEVER_LANDED),
            set_aside=set_aside.get(day, SetAside()),
        )
        rows = [_row(contract.table, evidence, finding) for finding in findings(contract, evidence)]
        if any(row["is_blocking"] for row in rows):
            released = releases_of(store, contract.table, day)
            for row in rows:
                release = released.get(cast("str", row["fault"])) if row["is_blocking"] else None
                if release:
                    row |= {"is_blocking": False, "released_by": release.released_by}
        if any(row["is_blocking"] for row in rows):
            left_out.add(day)
        yield from rows


def _row(table: str, evidence: Evidence, finding: Finding) -> dict[str, object]:
    is_severe = finding.severity == "severe"
    return {
        PARTITION: evidence.day,
        "table_name": table,
        "check_name": finding.check_name,
        "column_name": finding.column_name,
        "value": finding.value,
        "expected": finding.expected,
        "severity": finding.severity,
        "is_blocking": is_severe,
        "released_by": "",
        "explanation": finding.explanation if finding.severity else "",
        "fault": fingerprint(table, evidence.day, finding) if is_severe else "",
        "state": evidence.landing.state,
    }


def _set_aside(warehouse: Warehouse, contract: Contract, days: DayRange) -> Mapping[date, SetAside]:
    place = f"raw.{contract.table}_quarantine"
    sql = f"""
        select partition_on,
            count(case when reason like '%a copy of another row with the same%' then 1 end) as n_copies,
            count(case when reason like '%corrected by a later row with the same%' then 1 end) as n_corrected,
            count(case when reason like '%partition_on is outside%' then 1 end) as n_strays
        from {place} where {Sql(dialect=warehouse.dialect).of_days()} group by partition_on
    """  # noqa: S608 - validated names
    rows = warehouse.query(sql, {"first_day": days.first, "last_day": days.last}).to_pylist()
    return {row.pop(PARTITION): SetAside(**row) for row in rows}


def _has(warehouse: Warehouse, table: str) -> bool:
    return warehouse.columns(table) is not None


def _sorted(rows: Sequence[Mapping[str, object]]) -> list[list[tuple[str, object]]]:
    return sorted(([*sorted(row.items())] for row in rows), key=repr)


def _faults(rows: Iterable[Mapping[str, object]]) -> list[Fault]:
    return [
        Fault(
            table=cast("str", row["table_name"]),
            day=cast("date", row[PARTITION]),
            **{name: cast("str", row[name]) for name in ("check_name", "column_name", "explanation", "fault")},
            released_by=cast("str", row["released_by"]),
        )
        for row in rows
        if row["severity"] == "severe"
    ]
