"""The decisions of some days beside what was predicted and what came true, as arrays that can be cut by day."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.baselines import labels_of
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.evaluation import Floats
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Warehouse
from ml_assets.core.spec import MONTH, UseCase

# No row of the examples that has no label is known at any moment.
_NEVER = np.iinfo(np.int64).max
_EPOCH = date(1970, 1, 1)
_NO_FEATURES = {"decision_id", "no_label_reason"}


@dataclass(frozen=True, kw_only=True)
class DayRows:
    """The rows of one day, all of shape (n,); what each label is, and whether it was known in time."""

    day: date
    version: str
    predictions: Floats
    labels: Floats
    is_known: npt.NDArray[np.bool_]

    @property
    def known(self) -> tuple[Floats, Floats]:
        """The labels and predictions of the rows whose label was known."""
        return self.labels[self.is_known], self.predictions[self.is_known]


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """Rows sorted by local day. ``known_at`` is in microseconds since 1970, the largest number without a label."""

    table: pa.Table
    days: npt.NDArray[np.int64]
    predictions: Floats
    labels: Floats
    known_at: npt.NDArray[np.int64]

    @classmethod
    def of(cls, table: pa.Table) -> "ScoredRows":
        """Take the arrays from rows with ``partition_on``, ``prediction``, ``label`` and ``label_known_at``."""
        known_at = table["label_known_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        has_label = table["label"].is_valid().to_numpy()
        return cls(
            table=table,
            days=table["partition_on"].cast(pa.int32()).to_numpy().astype(np.int64),
            predictions=np.asarray(table["prediction"].to_numpy(), np.float64),
            labels=labels_of(table),
            known_at=np.where(has_label, known_at.fill_null(_NEVER).to_numpy(), _NEVER),
        )

    def place(self, day: date) -> slice:
        """Return where the rows of a day are."""
        number = (day - _EPOCH).days
        return slice(*np.searchsorted(self.days, [number, number + 1]))

    def of_day(self, day: date, *, known_before: datetime) -> DayRows | None:
        """Return the rows of a day, with the labels that were known before a moment; None where there are no rows."""
        place = self.place(day)
        if place.start == place.stop:
            return None
        return DayRows(
            day=day,
            version=self.table["model_version"][place.start].as_py(),
            predictions=self.predictions[place],
            labels=self.labels[place],
            is_known=self.known_at[place] < microseconds_of(known_before),
        )

    def table_of_day(self, day: date, *, known_before: datetime | None) -> pa.Table:
        """Return a day's rows as they stood: a label that was not known yet is null."""
        place = self.place(day)
        rows = self.table.slice(place.start, place.stop - place.start)
        if known_before is None or not rows.num_rows:
            return rows
        is_known = pa.array(self.known_at[place] < microseconds_of(known_before))
        seen = pc.if_else(is_known, rows["label"], pa.scalar(None, rows["label"].type))
        return rows.set_column(rows.column_names.index("label"), "label", seen)


@dataclass(frozen=True, kw_only=True)
class JudgedPeriod:
    """What may be looked at when a day is judged: on the morning after it.

    ``known_before`` is the start of the day after: a label known later does not count. The last days before it, as many
    as the split of a training leaves out for the same reason, are not looked at: of a flight of the last evening only
    the landing before midnight is known, so that the late ones would be missing.
    """

    last: date
    known_before: datetime

    @classmethod
    def of(cls, day: date, use_case: UseCase) -> "JudgedPeriod":
        """Return what may be looked at when this day is judged."""
        as_of = day + timedelta(days=1)
        return cls(last=as_of - timedelta(days=use_case.split.gap_days + 1), known_before=day_starts_at(as_of))

    def days(self, n_days: int) -> Sequence[date]:
        """Return the newest calendar days that are looked at, oldest first."""
        return [self.last - timedelta(days=back) for back in range(n_days - 1, -1, -1)]


def judged_rows(rows: ScoredRows, period: JudgedPeriod, version: str, n_days: int) -> Iterator[DayRows]:
    """Yield the newest days of a period that this version predicted and that have known labels, oldest first."""
    for day in period.days(n_days):
        found = rows.of_day(day, known_before=period.known_before)
        if found is not None and found.version == version and found.is_known.any():
            yield found


def sliced_columns(use_case: UseCase, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns of the examples (name -> SQL type) that quality is sliced by.

    Those that the use case declares, or else all text features. ``month`` is left out: it is the same for all of a day.
    """
    text = tuple(name for name, kind in columns.items() if kind in ("VARCHAR", "STRING") and name not in _NO_FEATURES)
    return tuple(name for name in use_case.slices or text if name != MONTH)


def read_scored_rows(warehouse: Warehouse, use_case: UseCase, days: DayRange, *, columns: Sequence[str]) -> ScoredRows:
    """Return the predictions of these days with their labels and some columns of their examples."""
    marked = Sql(dialect=warehouse.dialect)
    wanted = ("decision_id", "partition_on", "label", "label_known_at", "no_label_reason", *columns)
    sql = f"""
        select {marked.names(wanted, of="e")}, p.prediction, p.model_version
        from {use_case.examples_table} e join {use_case.predictions_table} p using (decision_id)
        where {marked.of_days(of="e")} and {marked.of_days(of="p")}
        order by e.partition_on, e.decision_id
    """  # noqa: S608 - validated names
    return ScoredRows.of(warehouse.query(sql, {"first_day": days.first, "last_day": days.last}))


def microseconds_of(moment: datetime) -> int:
    """Return a moment in whole microseconds since 1970 (UTC).

    >>> from datetime import UTC
    >>> microseconds_of(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
