"""All that is measured of the quality of a day, by labels and before them: read once, computed, written together."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from ml_assets.core.calibration import N_DAYS_POOLED, week_calibration
from ml_assets.core.days import DayRange
from ml_assets.core.estimated_performance import (
    ESTIMATED_SCHEMA,
    N_DAYS_CHECKED,
    EstimateChecks,
    estimated_performance,
)
from ml_assets.core.monitored import ESTIMATED, PERFORMANCE, SHADOWS, SLICES
from ml_assets.core.package import ModelPackage
from ml_assets.core.performance import PERFORMANCE_SCHEMA, measure_performance
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.recalled import recall_package
from ml_assets.core.scored_rows import (
    JudgedPeriod,
    ScoredRows,
    judged_rows,
    read_scored_rows,
    sliced_columns,
)
from ml_assets.core.shadow_performance import (
    N_DAYS_COMPARED,
    SHADOW_PERFORMANCE_SCHEMA,
    Shadows,
    read_shadow_rows,
    shadow_performance,
    shadows_on,
)
from ml_assets.core.shadows import SHADOW_SCHEMA
from ml_assets.core.slice_performance import SLICE_SCHEMA, slice_performance
from ml_assets.core.spec import UseCase

_MOST_DAYS = max(N_DAYS_POOLED, N_DAYS_CHECKED, N_DAYS_COMPARED)
# No label is known later: all that have landed count.
_WHENEVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class WrittenQuality:
    """The rows that were written: of ``monitoring.performance`` and of the three tables beside it.

    ``models`` are the packages of these days, by version, so that nobody has to load them again.
    """

    performance: pa.Table
    slices: pa.Table
    estimates: pa.Table
    shadows: pa.Table
    models: Mapping[str, ModelPackage]


def write_performance(
    warehouse: Warehouse,
    store: ArtifactStore,
    use_case: UseCase,
    days: DayRange,
    *,
    known_before: datetime | None = None,
) -> WrittenQuality:
    """Measure the quality of each of these days and replace them in the four tables of quality.

    What came true (the metrics, slices, ``realised``, the metrics beside shadows) rests on all labels that have landed,
    or with ``known_before`` (UTC) on those that were known before that moment: whoever replays a past morning gives the
    moment of that morning. Every figure that judges a day (the week's calibration, the interval and the record of the
    estimate, what the champion gains over others) uses only labels known before the day after it began, whenever it
    is computed, and only days that were complete by then: see ``JudgedPeriod``. So a day made again when late labels
    have landed changes in what came true and not in what was judged, and a range of days is the same as day after day.
    """
    with warehouse.session():
        declared = use_case.slices
        columns = sliced_columns(use_case, {} if declared else warehouse.columns(use_case.examples_table) or {})
        before = timedelta(days=_MOST_DAYS + use_case.split.gap_days)
        read = DayRange(first=days.first - before, last=days.last)
        rows = read_scored_rows(warehouse, use_case, read, columns=columns)
        others = SHADOW_SCHEMA.empty_table()
        if warehouse.columns(use_case.shadow_table) is not None:
            others = read_shadow_rows(warehouse, use_case, read)
        measured = _Measured(
            rows=rows,
            shadows=shadows_on(rows, others),
            columns=columns,
            use_case=use_case,
            known_before=known_before,
            store=store,
        )
        parts = [of_day for day in days.dates if (of_day := measured.of_day(day)) is not None]
        written = WrittenQuality(
            performance=pa.concat_tables([PERFORMANCE_SCHEMA.empty_table(), *(part.performance for part in parts)]),
            slices=pa.concat_tables([SLICE_SCHEMA.empty_table(), *(part.slices for part in parts)]),
            estimates=pa.concat_tables([ESTIMATED_SCHEMA.empty_table(), *(part.estimates for part in parts)]),
            shadows=pa.concat_tables([SHADOW_PERFORMANCE_SCHEMA.empty_table(), *(part.shadows for part in parts)]),
            models=measured.models,
        )
        tables = {
            PERFORMANCE: written.performance,
            SLICES: written.slices,
            ESTIMATED: written.estimates,
            SHADOWS: written.shadows,
        }
        warehouse.replace_days(tables, days, use_case=use_case.name)
    return written


@dataclass(frozen=True, kw_only=True)
class _DayQuality:
    performance: pa.Table
    slices: pa.Table
    estimates: pa.Table
    shadows: pa.Table


class _Measured:
    """The rows of all days that are looked at, and what has been worked out of them and of the models."""

    def __init__(
        self,
        *,
        rows: ScoredRows,
        shadows: Shadows,
        columns: tuple[str, ...],
        use_case: UseCase,
        known_before: datetime | None,
        store: ArtifactStore,
    ) -> None:
        self._rows, self._shadows, self._columns = rows, shadows, columns
        self._use_case, self._known_before, self._store = use_case, known_before, store
        self.models: dict[str, ModelPackage] = {}
        self._checks: dict[str, EstimateChecks] = {}

    def of_day(self, day: date) -> _DayQuality | None:
        """Measure one day; None where nothing was predicted."""
        use_case, task = self._use_case, self._use_case.task
        whenever = self._known_before or _WHENEVER
        labelled = self._rows.of_day(day, known_before=whenever)
        if labelled is None:
            return None
        package, checks = self._of_version(labelled.version)
        period = JudgedPeriod.of(day, use_case)
        judged = list(judged_rows(self._rows, period, labelled.version, _MOST_DAYS))
        since = set(period.days(N_DAYS_POOLED))
        week = week_calibration(
            [rows for rows in judged if rows.day in since],
            task=task,
            noise=package.expectations.day_noise.get("mean_label" if task == "regression" else "positive_share"),
        )
        table = self._rows.table_of_day(day, known_before=self._known_before)
        return _DayQuality(
            performance=measure_performance(
                table,
                use_case=use_case.name,
                day=day,
                model_version=labelled.version,
                task=task,
                edges=package.reference.prediction.edges,
                week=week,
            ),
            slices=slice_performance(
                table,
                self._columns,
                use_case=use_case.name,
                day=day,
                model_version=labelled.version,
                task=task,
            ),
            estimates=estimated_performance(
                labelled,
                judged,
                checks=checks,
                expectations=package.expectations,
                use_case=use_case.name,
            ),
            shadows=shadow_performance(
                labelled, judged, rows=self._rows, shadows=self._shadows, use_case=use_case.name, task=task
            ),
        )

    def _of_version(self, version: str) -> tuple[ModelPackage, EstimateChecks]:
        if version not in self.models:
            self.models[version] = recall_package(self._store, self._use_case.name, version)
            self._checks[version] = EstimateChecks(self.models[version].expectations)
        return self.models[version], self._checks[version]
