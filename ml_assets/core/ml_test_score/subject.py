"""The use case that is judged, and what its life has left: read from tables and artifacts as the checks ask for it."""

# Every name in this SQL went through Sql, which validates and quotes it.
# ruff: noqa: S608

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core import registry
from ml_assets.core.contracts import Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import ChampionMissing, DataMissing
from ml_assets.core.feature_views import Feature, FeatureView
from ml_assets.core.monitored import recent_rows
from ml_assets.core.package import ModelPackage, load_package
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.provenance import Lineage
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.reproduction import Reproduction
from ml_assets.core.spec import UseCase
from ml_assets.core.training_sets import TrainingSet, load_training_set

# How far back a check looks: what has not happened for four weeks does not happen again and again.
WINDOW = timedelta(days=27)
# Judgement: of fewer days nothing is said; one odd day is weather.
FEWEST_LABELLED_DAYS = 3
_LARGEST_NUMBER = 1e300


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a check may carry out anew, and what only the layers above core know.

    Attributes:
        reproduce: rebuild a version from its record; see ``core.reproduction``.
        test_features: run the examples that feature code is tested by: table -> example -> ``pass`` or what went wrong.
        seconds_per_day: that making a day of a feature table took when it was last made, by table.
        libraries: the installed version of each library that a package names; None for one that is gone.
        lineage: what tables are made of, to their columns.
        work_folder: for scratch files.
        clock: by which calls are timed, in seconds.
    """

    reproduce: Callable[[str], Reproduction]
    test_features: Callable[[], Mapping[str, Mapping[str, str]]]
    seconds_per_day: Mapping[str, float]
    libraries: Callable[[str], str | None]
    lineage: Lineage
    work_folder: Path
    clock: Callable[[], float] = perf_counter


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The predictions of one version for one local day; ``n_sound`` of them are numbers in the range of an answer."""

    day: date
    version: str
    n_rows: int
    n_sound: int
    n_distinct: int
    first_predicted_at: datetime


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One use case at the end of a local day. Nothing is changed.

    Nothing of a later day is looked at but reviews, which are of code.

    Raises ChampionMissing where nobody is in charge, DataMissing where nothing was predicted in the four weeks to the
    day, and what opening a damaged artifact raises, as soon as a check asks for it.
    """

    warehouse: Warehouse
    store: ArtifactStore
    use_case: UseCase
    day: date
    views: Sequence[FeatureView]
    contracts: Mapping[str, Contract]
    bench: Bench

    @property
    def days(self) -> DayRange:
        """The four weeks to the day."""
        return DayRange(first=self.day - WINDOW, last=self.day)

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """The columns its model reads as they are declared now."""
        return self.use_case.inputs({view.name: view for view in self.views})

    @cached_property
    def ledger(self) -> Sequence[LedgerEntry]:
        """The entries of its ledger."""
        return registry.entries(self.store, self.use_case.name)

    @cached_property
    def in_charge(self) -> LedgerEntry:
        """The entry that put the champion of the day in charge."""
        entry = registry.in_charge(self.ledger, self.day)
        if entry is None:
            raise ChampionMissing(f"nobody is in charge of {self.use_case.name} on {self.day}")
        return entry

    @cached_property
    def promotion(self) -> LedgerEntry:
        """The entry by which the champion of the day was promoted; after a rollback that is an earlier one."""
        version = self.in_charge.version
        return next(entry for entry in self.ledger if (entry.action, entry.version) == ("promote", version))

    @cached_property
    def champion(self) -> ModelPackage:
        """Its package, whole and the one that the ledger names."""
        entry = self.in_charge
        return load_package(self.store, self.use_case.name, entry.version, expected_hash=entry.package_hash)

    @cached_property
    def training_set(self) -> TrainingSet:
        """What the champion was trained on."""
        return load_training_set(self.store, self.use_case.name, self.champion.manifest.recipe.training_set)

    @cached_property
    def predicted(self) -> Sequence[Predicted]:
        """What was predicted in the four weeks, oldest first."""
        table, sql = self.use_case.predictions_table, Sql(dialect=self.warehouse.dialect)
        largest = 1.0 if self.use_case.task == "binary_classification" else _LARGEST_NUMBER
        rows: list[dict[str, Any]] = []
        if self.warehouse.columns(table) is not None:
            rows = self.warehouse.query(
                "SELECT partition_on, model_version, COUNT(*) AS n_rows, MIN(predicted_at) AS first_predicted_at, "
                f"COUNT(CASE WHEN prediction BETWEEN {sql.parameter('least')} AND {sql.parameter('most')} THEN 1 END) "
                f"AS n_sound, COUNT(DISTINCT prediction) AS n_distinct FROM {sql.table(table)} WHERE {sql.of_days()} "
                "GROUP BY partition_on, model_version ORDER BY partition_on, model_version",
                {**self._bounds, "least": 0.0 if largest == 1.0 else -largest, "most": largest},
            ).to_pylist()
        if not rows:
            raise DataMissing(f"{self.use_case.name} has predicted nothing in {self.days}")
        return [Predicted(day=row.pop("partition_on"), version=row.pop("model_version"), **row) for row in rows]

    @cached_property
    def newest_day(self) -> date:
        """The newest day that was predicted."""
        return self.predicted[-1].day

    @cached_property
    def examples(self) -> pa.Table:
        """The examples of the newest day that was predicted, as they are stored now."""
        sql = Sql(dialect=self.warehouse.dialect)
        query = f"SELECT * FROM {sql.table(self.use_case.examples_table)} WHERE {sql.of_days()} ORDER BY decision_id"
        rows = self.warehouse.query(query, {"first_day": self.newest_day, "last_day": self.newest_day})
        if not rows.num_rows:
            raise DataMissing(f"{self.use_case.examples_table} has no examples of {self.newest_day} any more")
        return rows

    @cached_property
    def predictions(self) -> pa.Table:
        """The predictions of the newest day that was predicted."""
        sql = Sql(dialect=self.warehouse.dialect)
        query = (
            f"SELECT decision_id, prediction, model_version FROM {sql.table(self.use_case.predictions_table)} WHERE "
            f"{sql.of_days()} ORDER BY decision_id"
        )
        return self.warehouse.query(query, {"first_day": self.newest_day, "last_day": self.newest_day})

    def n_rows_by_day(self, table: str) -> Mapping[date, int]:
        """Return how many rows a table has on each of the days of the four weeks that has any."""
        if self.warehouse.columns(table) is None:
            return {}
        sql = Sql(dialect=self.warehouse.dialect)
        query = (
            f"SELECT partition_on, COUNT(*) AS n_rows FROM {sql.table(table)} WHERE {sql.of_days()} GROUP BY "
            "partition_on ORDER BY partition_on"
        )
        found = self.warehouse.query(query, self._bounds)
        return dict(zip(found["partition_on"].to_pylist(), found["n_rows"].to_pylist(), strict=True))

    def monitored(self, table: str) -> pa.Table:
        """Return its rows of a monitoring table in the four weeks, oldest first; none where there is no such table."""
        if self.warehouse.columns(table) is None:
            return pa.table({"partition_on": pa.array([], pa.date32())})
        return recent_rows(self.warehouse, table, self.use_case, self.day)

    def of_champion(self, table: str) -> pa.Table:
        """Return its rows of a monitoring table in the four weeks that are of the champion of the day."""
        rows = self.monitored(table)
        return rows.filter(pc.field("model_version") == self.in_charge.version) if rows.num_rows else rows

    @property
    def _bounds(self) -> Mapping[str, date]:
        return {"first_day": self.days.first, "last_day": self.days.last}
