"""What monitoring has written and reads again: its tables, and the rows of a use case in them."""

from collections.abc import Iterator
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.errors import DataMissing
from ml_assets.core.package import ModelPackage
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.recalled import recall_package
from ml_assets.core.spec import UseCase

DRIFT, PERFORMANCE, RETRAINING = "monitoring.drift", "monitoring.performance", "monitoring.retraining_decisions"
# Beside the performance of a day, and written with it: by slice, as estimated, and of shadows.
SLICES, ESTIMATED = "monitoring.slice_performance", "monitoring.estimated_performance"
SHADOWS = "monitoring.shadow_performance"
SKEW, ALARMS, DATA_QUALITY = "monitoring.skew", "monitoring.alarms", "monitoring.data_quality"
HISTORY = timedelta(days=27)


def by_day(rows: pa.Table, days: DayRange) -> Iterator[tuple[date, pa.Table]]:
    """Yield each of the days that has rows, with them."""
    for day in days.dates:
        of_day = rows.filter(pc.field("partition_on") == pa.scalar(day))
        if of_day.num_rows:
            yield day, of_day


def recent_rows(
    warehouse: Warehouse, table: str, use_case: UseCase, last: date, *, since: date | None = None
) -> pa.Table:
    """Return a use case's rows of a monitoring table up to a day, oldest first: of four weeks unless ``since`` says."""
    marked = Sql(dialect=warehouse.dialect)
    sql = f"""
        select * from {table}
        where use_case = {marked.parameter("use_case")} and {marked.of_days()} order by partition_on
    """  # noqa: S608 - constant
    bounds = {"use_case": use_case.name, "first_day": since or last - HISTORY, "last_day": last}
    return warehouse.query(sql, bounds)


def until(rows: pa.Table, day: date) -> pa.Table:
    """Return the rows of a day and the days before it."""
    return rows.filter(pc.field("partition_on") <= pa.scalar(day))


def newest_model(performance: pa.Table, use_case: UseCase, store: ArtifactStore) -> ModelPackage:
    """Return the model that made the newest of these days' predictions, whoever the ledger names by now."""
    if not performance.num_rows:
        raise DataMissing(f"no day of {use_case.name} has been predicted yet; materialize its predictions first")
    return recall_package(store, use_case.name, performance["model_version"][-1].as_py())


def report_path(use_case: UseCase, day: date) -> str:
    """Return the artifact path of a day's report."""
    return f"reports/{use_case.name}/{day.isoformat()}.html"
