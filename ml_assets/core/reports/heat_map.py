"""The drift heat map: one strip per feature, one cell per day, as dark as the share of the rows that moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby, pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from markupsafe import Markup

from ml_assets.core.drift import percent
from ml_assets.core.reports.svg import element, stretched
from ml_assets.core.reports.time_axis import TimeAxis

# Judgement: the sampling noise of 1,000 rows moves 3 to 5 % between ten bins, an ordinary weekday twice that.
STEPS = (0.05, 0.1, 0.2, 0.3, 0.5)
STRIP_HEIGHT = 12
PREDICTION_VIEW = "the prediction"


@dataclass(frozen=True, kw_only=True)
class HeatRow:
    """One feature over the days of an axis.

    Attributes:
        feature: its name.
        view: whose feature it is.
        moved: shape (n_days,), the share of the rows that moved, NaN where it is not known.
        is_alarming: shape (n_days,), the days on which an alarm stands.
    """

    feature: str
    view: str
    moved: npt.NDArray[np.float64]
    is_alarming: npt.NDArray[np.bool_]

    @property
    def newest(self) -> str:
        """What moved on the last day that is known, for a table."""
        known = self.moved[~np.isnan(self.moved)]
        return percent(float(known[-1])) if len(known) else "\N{EM DASH}"

    @property
    def largest(self) -> str:
        """The most that moved on any day."""
        return "\N{EM DASH}" if np.isnan(self.moved).all() else percent(float(np.nanmax(self.moved)))


def heat_rows(drift: pa.Table, axis: TimeAxis, alarms: Mapping[str, Sequence[date]]) -> Sequence[HeatRow]:
    """Lay the rows of ``monitoring.drift`` out by feature and day: the prediction first, then by view and name.

    ``alarms`` are the days on which an alarm on a feature stands. A feature that the newest model no longer reads keeps
    its row.
    """
    names = ("feature", "partition_on", "moved_share", "view", "kind")
    columns = {
        name: drift[name].to_pylist() if name in drift.column_names else [None] * drift.num_rows for name in names
    }
    rows: dict[str, npt.NDArray[np.float64]] = {}
    views: dict[str, str] = {}
    for feature, day, moved, view, kind in zip(*columns.values(), strict=True):
        place = axis.place(cast("date", day))
        if not 0 <= place < axis.n_days:
            continue
        cells = rows.setdefault(feature, np.full(axis.n_days, np.nan))
        if moved is not None:
            cells[place] = moved
        views[feature] = PREDICTION_VIEW if kind == "prediction" else view or views.get(feature, "")
    found = [
        HeatRow(feature=feature, view=views[feature], moved=cells, is_alarming=_on(axis, alarms.get(feature, ())))
        for feature, cells in rows.items()
    ]
    return sorted(found, key=lambda row: (row.view != PREDICTION_VIEW, row.view, row.feature))


def by_view(rows: Sequence[HeatRow]) -> Sequence[tuple[str, Sequence[HeatRow]]]:
    """Group rows by their view, in their order."""
    return [(view, list(of_view)) for view, of_view in groupby(rows, key=lambda row: row.view)]


def strip(row: HeatRow, axis: TimeAxis, rules: Sequence[date] = ()) -> Markup:
    """Draw a feature's row: cells of one colour are one path, and runs of alarming days are outlined."""
    levels = np.where(np.isnan(row.moved), -1, np.digitize(row.moved, STEPS))
    paths = list[Markup]()
    for level in sorted({int(found) for found in levels} - {-1}):
        d = "".join(f"M{first} 0h{end - first}v{STRIP_HEIGHT}h{first - end}z" for first, end in _runs(levels == level))
        paths.append(element("path", d=d, class_=f"heat-{level}"))
    days = [axis.place(day) for day in rules if axis.first < day <= axis.last]
    if days:
        d = "".join(f"M{day} 0v{STRIP_HEIGHT}" for day in days)
        paths.append(element("path", d=d, class_="rule", vector_effect="non-scaling-stroke"))
    outlines = "".join(
        f"M{first} 1h{end - first}v{STRIP_HEIGHT - 2}h{first - end}z" for first, end in _runs(row.is_alarming)
    )
    if outlines:
        paths.append(element("path", d=outlines, class_="alarmed", vector_effect="non-scaling-stroke"))
    inner = stretched(*paths, wide=axis.n_days, high=STRIP_HEIGHT)
    n_alarming = int(row.is_alarming.sum())
    words = f"{row.feature}: at most {row.largest} of the rows moved, newest day {row.newest}"
    words += f", {n_alarming} days with an alarm" if n_alarming else ""
    # Crisp: half-lit edges would show as seams between cells of one colour.
    drawn = {"class_": "lane", "width": "100%", "height": STRIP_HEIGHT, "shape_rendering": "crispEdges", "role": "img"}
    return element("svg", element("title", words), inner, **drawn)


def legend_texts() -> Sequence[tuple[str, str]]:
    """Return the class of each colour and what it stands for."""
    ends = ["0 %", *(f"{step:.0%}".replace("%", " %") for step in STEPS)]
    ranges = [f"{low} to {high}" for low, high in pairwise(ends)] + [f"over {ends[-1]}"]
    return [(f"heat-{level}", words) for level, words in enumerate(ranges)]


def _on(axis: TimeAxis, days: Sequence[date]) -> npt.NDArray[np.bool_]:
    marked = np.zeros(axis.n_days, np.bool_)
    places = [axis.place(day) for day in days]
    marked[[place for place in places if 0 <= place < axis.n_days]] = True
    return marked


def _runs(marked: npt.NDArray[np.bool_]) -> Sequence[tuple[int, int]]:
    """Return the first and the end of each unbroken run of marked places.

    >>> _runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
