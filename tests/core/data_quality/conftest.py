"""Five weeks of real raw tables landed as the graph lands them, and the profiles of the whole of 2013."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.contracts import Contract
from ml_assets.core.data_quality.landings import landed, landings_table, read_landings
from ml_assets.core.data_quality.profiles import DayProfile, profile_days
from ml_assets.core.data_quality.verdicts import Fault, judge_days, standing_faults, verdicts_of
from ml_assets.core.days import DayRange
from ml_assets.core.landing import landing
from ml_assets.core.ports import Source
from tests.core.conftest import MemoryStore

PACKAGED = NycFlights13Source(is_replaying=False)
DAILY = [contract for contract in PACKAGED.contracts.values() if contract.is_partitioned]
LANDED = DayRange(first=date(2013, 5, 27), last=date(2013, 7, 1))
YEAR = DayRange(first=date(2013, 1, 1), last=date(2013, 12, 31))

Wrap = Callable[[Source], Source]


@dataclass(frozen=True, kw_only=True)
class Landed:
    """A warehouse with raw tables, and the store that releases are in."""

    warehouse: DuckDBWarehouse
    store: MemoryStore

    def land(self, day: date, wrap: Wrap = lambda source: source, *, tables: Sequence[str] = ()) -> None:
        """Land a day of these tables, of all unless some are named; nobody judges it."""
        days = DayRange(first=day, last=day)
        for contract in DAILY:
            if not tables or contract.table in tables:
                land(self.warehouse, wrap(PACKAGED), contract, days)

    def judge(self, day: date) -> list[Fault]:
        """Judge a day and return its faults."""
        return list(judge_days(self.warehouse, self.store, DAILY, DayRange(first=day, last=day)))

    def standing(self, day: date, *tables: str) -> list[Fault]:
        """Return the faults that whoever uses the day is told of."""
        wanted = tables or tuple(contract.table for contract in DAILY)
        of_day = DayRange(first=day, last=day)
        return list(standing_faults(self.warehouse, self.store, PACKAGED.contracts, wanted, of_day))

    def told(self, day: date) -> set[tuple[str, str, str]]:
        """Return table, check and severity of what the verdict finds wrong with a day."""
        rows = verdicts_of(self.warehouse, DayRange(first=day, last=day))
        return {(r["table_name"], r["check_name"], r["severity"]) for r in rows if r["severity"]}


def land(warehouse: DuckDBWarehouse, source: Source, contract: Contract, days: DayRange) -> None:
    """Land days of a table: its rows, what was set aside, and the record of the landing in one transaction."""
    before = read_landings(warehouse, contract.table, days)
    with landing(source, contract, days, work_folder=Path("unused")) as checked:
        writes = {
            f"raw.{contract.table}": checked.accepted,
            f"raw.{contract.table}_quarantine": checked.quarantined,
            landings_table(contract.table): landed(checked.n_by_day, checked.state_by_day, before),
        }
        warehouse.replace_days(writes, days)


@pytest.fixture(scope="session")
def _landed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("landed") / "warehouse.duckdb"
    for contract in DAILY:
        land(DuckDBWarehouse(path), PACKAGED, contract, LANDED)
    return path


@pytest.fixture
def days(_landed_file: Path, tmp_path: Path) -> Iterator[Landed]:
    """Five weeks up to 2013-07-01, landed and not judged: a fresh copy for every test."""
    shutil.copy(_landed_file, tmp_path / "warehouse.duckdb")
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    with warehouse.session():
        yield Landed(warehouse=warehouse, store=MemoryStore())


@pytest.fixture(scope="session")
def year() -> Mapping[str, Mapping[date, DayProfile]]:
    """The profile of every day of 2013, by table."""
    warehouse = DuckDBWarehouse(None)
    for contract in DAILY:
        warehouse.replace_days({f"raw.{contract.table}": PACKAGED.read(contract.table, YEAR)}, YEAR)
    return {contract.table: profile_days(warehouse, contract, YEAR) for contract in DAILY}
