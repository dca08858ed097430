"""What the quality pages of every task are made of: figures, lines beside the realised ones, charts over days."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_assets.core.encoding import Task
from ml_assets.core.reports.curve_figures import curve_figure
from ml_assets.core.reports.lanes import Line, Style, line_lane
from ml_assets.core.reports.monitored_rows import Estimate
from ml_assets.core.reports.page import Chart
from ml_assets.core.reports.time_axis import TimeAxis
from ml_assets.core.tasks import AnyCurve, meaning_of

DASH = "\N{EM DASH}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number at the top of a page: what it is, the number, and what it means."""

    name: str
    value: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands beside the realised quality: estimates made before the outcomes, and what others would have done.

    ``shadows`` are rows of ``monitoring.shadow_performance``: whatever columns it has, ``other_<metric>`` among them.
    """

    estimates: Sequence[Estimate] = ()
    shadows: pa.Table = field(default_factory=lambda: pa.table({}))

    def estimated(self, metric: str) -> Line | None:
        """Return a metric as it was expected, with the range in which it was expected to lie."""
        rows = [row for row in self.estimates if row.metric == metric and row.estimated is not None]
        if not rows:
            return None
        band = {r.partition_on: (r.low, r.high) for r in rows if r.low is not None and r.high is not None}
        values = {row.partition_on: row.estimated for row in rows}
        return Line(name="estimated before outcomes", values=values, style="third", is_dashed=True, band=band)

    def others(self, metric: str, baseline: str) -> Sequence[Line]:
        """Return the metric of the champion before, and of the simple baseline, on the same decisions."""
        column = f"other_{metric}"
        if column not in self.shadows.column_names:
            return []
        rows = self.shadows.select(["partition_on", "role", column]).to_pylist()
        shown = {
            "previous_1": ("the champion before", "other"),
            f"baseline:{baseline}": (f"{baseline} baseline", "quiet"),
        }
        found = {role: {row["partition_on"]: row[column] for row in rows if row["role"] == role} for role in shown}
        return [
            Line(name=name, values=found[role], style=cast("Style", style))
            for role, (name, style) in shown.items()
            if found[role]
        ]


def lines_beside(beside: Beside, metric: str, task: Task) -> Sequence[Line]:
    """Return the lines of a metric that stand beside the realised one."""
    estimated = beside.estimated(metric)
    return [*([estimated] if estimated else []), *beside.others(metric, meaning_of(task).simple_baseline)]


def lane_chart(
    axis: TimeAxis,
    title: str,
    lines: Sequence[Line],
    caption: str,
    *,
    is_share: bool = False,
    level: tuple[str, float] | None = None,
    rules: Sequence[date] = (),
) -> Chart:
    """Draw lines over the days as a chart of the page."""
    svg = line_lane(axis, lines, title=title, is_share=is_share, level=level, rules=rules)
    return Chart(
        title=title,
        svg=svg,
        caption=caption,
        keys=[(f"{line.style} dashed" if line.is_dashed else line.style, line.name) for line in lines],
    )


def curve_chart(curve: AnyCurve, title: str, week: pa.Table, unit: str | None, words: str) -> Chart | None:
    """Draw a curve as a chart of the page; None where there is none."""
    svg = curve_figure(curve, unit=unit, title=title)
    caption = f"The last {week.num_rows} days with outcomes in tenths. {words}"
    return Chart(title=title, svg=svg, caption=caption) if svg else None


def days_of(labelled: pa.Table) -> list[date]:
    """Return the days of the rows."""
    return cast("list[date]", labelled.column("partition_on").to_pylist())


def values_of(labelled: pa.Table, name: str) -> Mapping[date, float | None]:
    """Return a column by day."""
    return dict(zip(days_of(labelled), cast("list[float | None]", labelled.column(name).to_pylist()), strict=True))


def column_of(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return a column as numbers, null as NaN."""
    return np.asarray(table.column(name).to_numpy(), np.float64)
