"""The rolling overview: weeks of drift, quality, models, alarms and decisions on one time axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from ml_assets.core.errors import DataMissing
from ml_assets.core.monitored import ALARMS, DATA_QUALITY
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.reports.daily_quality import Beside, quality_of
from ml_assets.core.reports.heat_map import HeatRow, by_view, heat_rows, legend_texts, strip
from ml_assets.core.reports.lanes import LINE_HEIGHT, Bar, bar_lane, mark_lane, reign_lane
from ml_assets.core.reports.monitored_rows import Alarm, Monitored
from ml_assets.core.reports.page import checked_links, render
from ml_assets.core.reports.svg import Strip, picture
from ml_assets.core.reports.time_axis import TimeAxis
from ml_assets.core.reports.verdict import day_verdict, kind_words
from ml_assets.core.tasks import AnyMetrics

# Half a year: the staleness of a model and the seasons show, and a cell of the heat map is still seen.
N_DAYS_OF_OVERVIEW = 182
_MOST_INCIDENTS = 100
# A picture in the Dagster UI holds so many rows; the page has all of them.
_MOST_ROWS_OF_PICTURE = 30


@dataclass(frozen=True, kw_only=True)
class Incident:
    """An alarm from its first day to its last; ``is_open`` if it stands on the newest day."""

    number: int
    kind: str
    subject: str
    severity: str
    first: date
    last: date
    explanation: str
    is_open: bool


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that an overview shows of a use case, laid out on its days.

    Attributes:
        use_case: its name.
        axis: the days.
        monitored: what monitoring wrote on them.
        entries: the ledger's entries that put a version in charge on them, in the order in which they took effect.
        holdout: what the newest day's model showed on its holdout.
        unit: of the label of a regression.
    """

    use_case: str
    axis: TimeAxis
    monitored: Monitored
    entries: Sequence[LedgerEntry]
    holdout: AnyMetrics
    unit: str | None = None

    @property
    def changes(self) -> Sequence[date]:
        """The days on which another model took over."""
        return [entry.effective_from for entry in self.entries]

    @property
    def alarms(self) -> Sequence[Alarm]:
        """The alarms of the days."""
        return [alarm for alarm in self.monitored.alarms if self.axis.first <= alarm.partition_on <= self.axis.last]

    @property
    def incidents(self) -> Sequence[Incident]:
        """The alarms from their first to their last day, the newest first; the explanation is the newest day's."""
        rows: dict[str, list[Alarm]] = {}
        for alarm in self.alarms:
            rows.setdefault(alarm.incident, []).append(alarm)
        ordered = sorted(rows.values(), key=lambda of: (min(a.since for a in of), of[0].kind, of[0].subject))
        found = [self._incident(number, of) for number, of in enumerate(ordered, start=1)]
        return sorted(found, key=lambda incident: (incident.first, incident.number), reverse=True)

    @property
    def heat(self) -> Sequence[HeatRow]:
        """The rows of the heat map."""
        days: dict[str, list[date]] = {}
        for alarm in self.alarms:
            if alarm.kind in ("drift", "broken_feed", "prediction_drift"):
                subject = "prediction" if alarm.kind == "prediction_drift" else alarm.subject
                days.setdefault(subject, []).append(alarm.partition_on)
        return heat_rows(self.monitored.drift, self.axis, days)

    def _incident(self, number: int, rows: Sequence[Alarm]) -> Incident:
        newest = max(rows, key=lambda alarm: alarm.partition_on)
        return Incident(
            number=number,
            kind=kind_words(newest.kind),
            subject=newest.subject,
            severity="severe" if any(alarm.severity == "severe" for alarm in rows) else newest.severity,
            first=min(alarm.since for alarm in rows),
            last=newest.partition_on,
            explanation=newest.explanation,
            is_open=newest.partition_on == self.axis.last,
        )


def overview_of(
    *,
    use_case: str,
    last: date,
    monitored: Monitored,
    ledger: Sequence[LedgerEntry],
    holdout: AnyMetrics,
    unit: str | None = None,
) -> Overview:
    """Lay the weeks to a day out: from the first day that was monitored, and at most half a year.

    Raises DataMissing where no drift was measured.
    """
    if not monitored.drift.num_rows:
        raise DataMissing(f"no drift of {use_case} has been measured yet; materialize {use_case}/drift first")
    oldest = cast("date", pc.min(monitored.drift["partition_on"]).as_py())
    axis = TimeAxis(first=max(oldest, last - timedelta(days=N_DAYS_OF_OVERVIEW - 1)), last=last)
    acting = sorted(ledger, key=lambda entry: (entry.effective_from, entry.sequence))
    before = [entry for entry in acting if entry.effective_from <= axis.first]
    since = [entry for entry in acting if axis.first < entry.effective_from <= last]
    return Overview(
        use_case=use_case,
        axis=axis,
        monitored=monitored.until(last),
        entries=[*before[-1:], *since],
        holdout=holdout,
        unit=unit,
    )


def overview_page(overview: Overview, *, links: Mapping[str, str], question: str = "") -> str:
    """Write the overview as one self-contained HTML page; the same input gives the same bytes."""
    axis, monitored = overview.axis, overview.monitored
    quality = quality_of(overview.holdout, overview.unit)
    labelled = _labelled(overview)
    beside = Beside(estimates=monitored.estimates, shadows=monitored.shadows)
    incidents = overview.incidents
    heat = overview.heat
    faults = [fault for fault in monitored.faults if fault.severity and fault.partition_on >= axis.first]
    decided = next((row for row in monitored.decisions if row.partition_on == axis.last), None)
    asked = [row for row in monitored.decisions if row.decision != "wait" and row.partition_on >= axis.first]
    verdict = day_verdict(
        None if ALARMS in monitored.absent else monitored.alarms_on(axis.last),
        monitored.faults_on(axis.last),
        decided,
    )
    return render(
        "overview.html",
        is_wide=True,
        use_case=overview.use_case,
        question=question,
        axis=axis,
        verdict=verdict,
        reigns=_reign_lane(overview),
        alarm_lane=_alarm_lane(overview)[0],
        decision_lane=_decision_lane(overview),
        fault_lane=mark_lane(
            axis,
            {f.partition_on: (f"dot-{f.severity}", f"{f.table_name}: {f.explanation}") for f in faults},
            title="Data faults",
            rules=overview.changes,
        ),
        quality_charts=quality.charts(labelled, axis, beside, overview.changes) if labelled.num_rows else [],
        heat_legend=legend_texts(),
        is_moved_known="moved_share" in monitored.drift.column_names,
        heat=[(view, [(row, strip(row, axis, overview.changes)) for row in rows]) for view, rows in by_view(heat)],
        incidents=incidents[:_MOST_INCIDENTS],
        n_more_incidents=max(0, len(incidents) - _MOST_INCIDENTS),
        has_alarms=ALARMS not in monitored.absent,
        entries=list(reversed(overview.entries)),
        decisions=list(reversed(asked)),
        n_decisions=len(monitored.decisions),
        faults=list(reversed(faults))[:_MOST_INCIDENTS],
        has_faults=DATA_QUALITY not in monitored.absent,
        links=checked_links(links),
    )


def overview_pictures(overview: Overview) -> Mapping[str, str]:
    """Return the main charts as Markdown pictures for the Dagster UI: drift, quality and alarms over the weeks."""
    axis = overview.axis
    dates = Strip(name="", drawing=axis.labels(), high=20)
    found = dict[str, str]()
    rows = [row for row in overview.heat if row.is_alarming.any()] or list(overview.heat)
    ranked = sorted(rows, key=lambda row: (-int(row.is_alarming.sum()), -_largest(row)))[:_MOST_ROWS_OF_PICTURE]
    strips = [Strip(name=row.feature, drawing=strip(row, axis, overview.changes), high=12) for row in ranked]
    title = f"{overview.use_case}: share of each day's rows that moved, {len(strips)} of {len(overview.heat)} features"
    found["drift"] = picture(title, [dates, *strips])
    labelled = _labelled(overview)
    if labelled.num_rows:
        quality = quality_of(overview.holdout, overview.unit)
        beside = Beside(estimates=overview.monitored.estimates, shadows=overview.monitored.shadows)
        charts = quality.charts(labelled, axis, beside, overview.changes)
        lanes = [Strip(name=chart.title, drawing=chart.svg, high=LINE_HEIGHT, keys=chart.keys) for chart in charts]
        in_charge = Strip(name="in charge", drawing=_reign_lane(overview), high=22)
        found["quality"] = picture(f"{overview.use_case}: quality over the weeks", [dates, in_charge, *lanes])
    if overview.incidents:
        lane, high = _alarm_lane(overview)
        asked = Strip(name="trainings asked for", drawing=_decision_lane(overview), high=16)
        found["alarms"] = picture(
            f"{overview.use_case}: alarms over the weeks", [dates, Strip(name="alarms", drawing=lane, high=high), asked]
        )
    return found


def _labelled(overview: Overview) -> pa.Table:
    rows = overview.monitored.performance
    of_axis = pc.field("partition_on") >= pa.scalar(overview.axis.first)
    return rows.filter(of_axis & (pc.field("n_labelled") > 0))


def _reign_lane(overview: Overview) -> Markup:
    reigns = [(e.effective_from, f"{e.as_of:%-d %b}", f"{e.version} ({e.action})") for e in overview.entries]
    return reign_lane(overview.axis, reigns)


def _alarm_lane(overview: Overview) -> tuple[Markup, int]:
    bars = [
        Bar(
            first=max(incident.first, overview.axis.first),
            last=incident.last,
            label=f"{incident.number}",
            words=f"{incident.subject}: {incident.explanation}",
            kind=f"bar-{incident.severity or 'warning'}",
        )
        for incident in reversed(overview.incidents)
    ]
    return bar_lane(overview.axis, bars, title="Alarms", rules=overview.changes)


def _decision_lane(overview: Overview) -> Markup:
    asked = {row.partition_on: row for row in overview.monitored.decisions if row.decision != "wait"}
    marks = {
        day: ("dot-retrain" if row.decision == "retrain" else "dot-severe", f"{row.decision}: {row.reason}")
        for day, row in asked.items()
    }
    return mark_lane(overview.axis, marks, title="Trainings asked for", rules=overview.changes)


def _largest(row: HeatRow) -> float:
    known = row.moved[row.moved == row.moved]
    return float(known.max()) if len(known) else 0.0
