"""Writing the pages of a life: a day, a range of days, a day again; and the warehouse that has nothing yet."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.days import DayRange
from ml_assets.core.monitored import DRIFT
from ml_assets.core.reports import write_report
from ml_assets.use_cases import load_use_cases
from tests.conftest import Life
from tests.core.reports.world import Page


def pages(life: Life) -> dict[str, bytes]:
    return {path: content for path, content in life.home.files().items() if path.startswith("reports/")}


def monitored_days(life: Life) -> list[date]:
    sql = f"select distinct partition_on from {DRIFT} where use_case = 'arrival_delay' order by 1"
    return life.query(sql)["partition_on"].to_pylist()


@pytest.mark.slow
def test_a_day_again_or_in_a_range_gives_the_same_pages_and_never_turns_the_overview_back(life: Life):
    days, built = monitored_days(life), pages(life)
    assert len(days) > 2
    store, warehouse = life.lifecycle.store, life.lifecycle.warehouse
    whole = write_report(warehouse, store, life.use_case, DayRange(first=days[0], last=days[-1]))
    assert list(whole.days) == days
    in_range = pages(life)
    again = write_report(warehouse, store, life.use_case, DayRange(first=days[0], last=days[0]))
    assert list(again.days) == [days[0]]
    assert pages(life) == in_range
    assert again.overview is not None
    assert again.overview.axis.last == days[-1]
    assert {path: built[path] for path in in_range if path in built} == in_range


@pytest.mark.slow
def test_the_links_of_the_pages_lead_to_pages(life: Life):
    days = monitored_days(life)
    write_report(life.lifecycle.warehouse, life.lifecycle.store, life.use_case, DayRange(first=days[0], last=days[-1]))
    found = pages(life)
    for path, content in found.items():
        if path == "reports/index.html" or path.startswith("reports/arrival_delay/2"):
            folder = (life.home.path / "artifacts" / path).parent
            targets = [folder / address for address in Page(content.decode()).of("href")]
            assert targets
            assert [target for target in targets if not target.resolve().is_file()] == []


@pytest.mark.slow
def test_the_charts_are_in_the_metadata_of_the_newest_materialization(life: Life):
    day = monitored_days(life)[-1]
    life.serve(day)
    facts = life.facts("arrival_delay/report")
    assert str(facts["overview"]).endswith("reports/arrival_delay/overview.html")
    for name in ("drift", "quality"):
        assert str(facts[name]).startswith("![arrival_delay: ")
        assert len(str(facts[name])) < 300_000


def test_nothing_is_written_where_nothing_is_monitored(tmp_path: Path):
    use_case, day = load_use_cases()[0], date(2013, 7, 1)
    store = ObjectArtifactStore(tmp_path.as_uri())
    written = write_report(
        DuckDBWarehouse(tmp_path / "empty.duckdb"), store, use_case, DayRange(first=day, last=day + timedelta(days=1))
    )
    assert (written.days, written.overview) == ({}, None)
    assert store.list("reports") == []
