"""Writes the pages of a range of days: one for each day, the overview of the weeks, the index of all use cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import cast

from ml_assets.core import registry
from ml_assets.core.days import DayRange
from ml_assets.core.monitored import ALARMS, DRIFT, report_path
from ml_assets.core.package import ModelPackage
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.recalled import recall_package
from ml_assets.core.reports.index import index_page, newest_pages, newest_scores
from ml_assets.core.reports.monitored_rows import Monitored, read_monitored
from ml_assets.core.reports.monitoring import N_DAYS_SHOWN, monitoring_report
from ml_assets.core.reports.overview import N_DAYS_OF_OVERVIEW, Overview, overview_of, overview_page
from ml_assets.core.spec import UseCase

INDEX_PATH = "reports/index.html"


@dataclass(frozen=True, kw_only=True)
class Written:
    """Where the pages are: of each day that was monitored, and of the overview, which is None where no day was."""

    days: Mapping[date, str]
    overview_path: str
    overview: Overview | None


def overview_path(use_case: UseCase) -> str:
    """Return the artifact path of the overview: always the same, it ends on the newest day that is monitored."""
    return f"reports/{use_case.name}/overview.html"


def write_report(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> Written:
    """Write the page of each of these days that was monitored, then the overview and the index.

    A day's page says what was known on that day. The overview ends on the newest day in the tables, whichever days are
    written: a re-run of an old day corrects what it shows of it, and never turns it back.
    """
    with warehouse.session():
        return _write(warehouse, store, use_case, days)


def write_index(warehouse: Warehouse, store: ArtifactStore) -> None:
    """Write the page of all use cases, with links to the newest pages of each."""
    paths = store.list("reports")
    newest = newest_pages(paths)
    page = index_page(newest, _severities(warehouse, newest), newest_scores(paths))
    store.put(INDEX_PATH, page.encode())


def _write(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> Written:
    newest = _newest_day(warehouse, use_case)
    if newest is None:
        return Written(days={}, overview_path=overview_path(use_case), overview=None)
    history = DayRange(
        first=min(days.first - timedelta(days=N_DAYS_SHOWN), newest - timedelta(days=N_DAYS_OF_OVERVIEW - 1)),
        last=max(newest, days.last),
    )
    monitored = read_monitored(warehouse, use_case.name, days=days, history=history)
    ledger = [entry for entry in registry.entries(store, use_case.name) if entry.action in registry.ACTING]
    packages: dict[str, ModelPackage] = {}

    def package_of(version: str) -> ModelPackage:
        if version not in packages:
            packages[version] = recall_package(store, use_case.name, version)
        return packages[version]

    versions = _versions(monitored)
    written: dict[date, str] = {}
    for day in (day for day in days.dates if day in versions):
        package = package_of(versions[day])
        page = monitoring_report(
            use_case=use_case.name,
            day=day,
            monitored=monitored,
            champion=registry.put_in_charge(ledger, package.version, day),
            changes=ledger,
            holdout=package.metrics.holdout,
            reference=package.reference,
            links=_links(day, versions),
            question=use_case.question,
            unit=use_case.label.unit,
        )
        written[day] = report_path(use_case, day)
        store.put(written[day], page.encode())
    overview = overview_of(
        use_case=use_case.name,
        last=newest,
        monitored=monitored,
        ledger=ledger,
        holdout=package_of(versions[newest]).metrics.holdout,
        unit=use_case.label.unit,
    )
    links = {"The newest day": f"./{newest}.html", "All use cases": "../index.html"}
    page = overview_page(overview, links=links, question=use_case.question)
    store.put(overview_path(use_case), page.encode())
    write_index(warehouse, store)
    return Written(days=written, overview_path=overview_path(use_case), overview=overview)


def _newest_day(warehouse: Warehouse, use_case: UseCase) -> date | None:
    if warehouse.columns(DRIFT) is None:
        return None
    mark = Sql(dialect=warehouse.dialect).parameter("use_case")
    sql = f"select max(partition_on) as newest from {DRIFT} where use_case = {mark}"  # noqa: S608 - constants
    return cast("date | None", warehouse.query(sql, {"use_case": use_case.name})["newest"][0].as_py())


def _versions(monitored: Monitored) -> Mapping[date, str]:
    """Return which version was in charge of each monitored day, oldest first."""
    days, versions = (monitored.drift[name].to_pylist() for name in ("partition_on", "model_version"))
    return dict(zip(days, versions, strict=True))


def _links(day: date, versions: Mapping[date, str]) -> Mapping[str, str]:
    before = day - timedelta(days=1)
    links = {"Overview of the weeks": "./overview.html", "All use cases": "../index.html"}
    return {"The day before": f"./{before}.html", **links} if before in versions else links


def _severities(warehouse: Warehouse, newest: Mapping[str, date]) -> Mapping[str, Sequence[str]] | None:
    """Return the severity of each alarm that stands on the newest day of each use case; None where none are judged."""
    if warehouse.columns(ALARMS) is None or not newest:
        return None
    marked = Sql(dialect=warehouse.dialect)
    sql = f"select use_case, partition_on, severity from {ALARMS} where {marked.of_days()}"  # noqa: S608 - constants
    bounds = {"first_day": min(newest.values()), "last_day": max(newest.values())}
    found: dict[str, list[str]] = {}
    for row in warehouse.query(sql, bounds).to_pylist():
        if newest.get(row["use_case"]) == row["partition_on"]:
            found.setdefault(row["use_case"], []).append(row["severity"])
    return found
