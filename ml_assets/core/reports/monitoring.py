"""The page of one day: is anything wrong, since when and what to do; below it, everything that says so."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.drift import percent
from ml_assets.core.errors import DataMissing
from ml_assets.core.monitored import ALARMS, DATA_QUALITY, SKEW, SLICES
from ml_assets.core.performance import N_DAYS_JUDGED, newest_days
from ml_assets.core.reference import Reference
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.reports.daily_quality import Beside, DailyQuality, Figure, quality_of
from ml_assets.core.reports.day_sections import drift_cards, evidence_of, said_of_quality, slices_worth_a_look
from ml_assets.core.reports.monitored_rows import DriftRow, Monitored
from ml_assets.core.reports.page import checked_links, count, render
from ml_assets.core.reports.time_axis import TimeAxis
from ml_assets.core.reports.verdict import day_verdict, kind_words
from ml_assets.core.tasks import AnyMetrics

Row = Mapping[str, object]

N_DAYS_SHOWN = 60


def monitoring_report(
    *,
    use_case: str,
    day: date,
    monitored: Monitored,
    champion: LedgerEntry,
    changes: Sequence[LedgerEntry],
    holdout: AnyMetrics,
    reference: Reference,
    links: Mapping[str, str],
    question: str = "",
    unit: str | None = None,
) -> str:
    """Write the report of one day as one self-contained HTML page; the same input gives the same bytes.

    Args:
        use_case: its name.
        day: the local day reported on.
        monitored: what monitoring wrote of it; rows of later days are left out.
        champion: the ledger entry that put the day's model in charge.
        changes: the entries that put any version in charge.
        holdout: what the day's model showed on its holdout.
        reference: the bins of that model's training set.
        links: addresses by the text a person clicks on.
        question: what the model answers, as the title.
        unit: of the label of a regression.

    Raises DataMissing where the day's drift is not among the rows, BadInput for a link that is no address.
    """
    monitored = monitored.until(day)
    drift = monitored.drift_on(day)
    if not drift:
        raise DataMissing(f"the drift of {use_case} on {day} is not measured yet; materialize {use_case}/drift first")
    quality = quality_of(holdout, unit)
    first = day - timedelta(days=N_DAYS_SHOWN - 1)
    recent = monitored.performance.filter(pc.field("partition_on") >= pa.scalar(first))
    labelled = recent.filter(pc.field("n_labelled") > 0)
    alarms = monitored.alarms_on(day)
    faults = monitored.faults_on(day)
    decided = next((row for row in monitored.decisions if row.partition_on == day), None)
    verdict = day_verdict(None if ALARMS in monitored.absent else alarms, faults, decided)
    cards, rest = drift_cards(drift, reference)
    axis = TimeAxis(first=max(first, min([day, *_days(recent)])), last=day)
    beside = Beside(
        estimates=[e for e in monitored.estimates if e.partition_on >= axis.first], shadows=monitored.shadows
    )
    newest_version = labelled.num_rows and labelled["model_version"][-1].as_py() == champion.version
    return render(
        "monitoring.html",
        use_case=use_case,
        question=question,
        day=day,
        verdict=verdict,
        alarms=[
            {"kind": kind_words(alarm.kind), "row": alarm, "n_days": (day - alarm.since).days + 1} for alarm in alarms
        ],
        figures=[*_day_figures(drift, reference, quality), *_quality_figures(recent, quality)],
        axis=axis,
        quality_charts=quality.charts(labelled, axis, beside, [e.effective_from for e in changes])
        if labelled.num_rows
        else [],
        has_changes=any(axis.first < entry.effective_from <= day for entry in changes),
        labelled_to=labelled["partition_on"][-1].as_py() if labelled.num_rows else None,
        said=said_of_quality(monitored, day),
        has_estimates=bool(beside.estimates),
        curve=quality.curve(labelled) if newest_version else None,
        slices=slices_worth_a_look(monitored.slices, holdout, quality),
        n_slices=len({(row.slice, row.value) for row in monitored.slices}),
        has_slices=SLICES not in monitored.absent,
        cards=cards,
        rest=rest,
        skew=[row for row in monitored.skew if row.partition_on == day],
        has_skew=SKEW not in monitored.absent,
        faults=faults,
        has_faults=DATA_QUALITY not in monitored.absent,
        decided=decided,
        evidence=evidence_of(decided),
        columns=quality.columns,
        no_label_reasons=_reasons_that_occur(_unlabelled(recent)[-N_DAYS_JUDGED:]),
        unlabelled=[
            {**row, "figures": [quality.cell(cast("float | None", row[name])) for name in quality.columns]}
            for row in reversed(_unlabelled(recent)[-N_DAYS_JUDGED:])
        ],
        champion_facts=_champion_facts(champion, quality, reference),
        links=checked_links(links),
    )


def _days(rows: pa.Table) -> list[date]:
    return cast("list[date]", rows["partition_on"].to_pylist())


def _day_figures(rows: Sequence[DriftRow], reference: Reference, quality: DailyQuality) -> Sequence[Figure]:
    features = [row for row in rows if row.kind != "prediction"]
    prediction = next((row for row in rows if row.kind == "prediction"), None)
    n_drifted = sum(bool(row.is_drifted) for row in features)
    return [
        Figure(
            name="Decisions predicted",
            value=count(prediction.n_rows if prediction else 0),
            words=f"a usual training day had {reference.n_rows_per_day:.0f}",
        ),
        Figure(
            name="Mean prediction",
            value=quality.written(prediction.mean if prediction else None),
            words="its distribution has drifted"
            if prediction and prediction.is_drifted
            else "distributed as in training",
        ),
        Figure(
            name="Features drifted",
            value=f"{n_drifted} of {len(features)}",
            words="on this day, beyond what days of training vary",
        ),
    ]


def _quality_figures(performance: pa.Table, quality: DailyQuality) -> Sequence[Figure]:
    """Sum up the last week; nothing where none of its days has a label."""
    if not performance.num_rows:
        return []
    labelled = newest_days(performance, N_DAYS_JUDGED).filter(pc.field("n_labelled") > 0)
    if not labelled.num_rows:
        return []
    days = f"the last {labelled.num_rows} days with outcomes" if labelled.num_rows > 1 else "the last day with outcomes"
    n_labelled, n_decisions = (float(pc.sum(labelled.column(n)).as_py()) for n in ("n_labelled", "n_decisions"))
    return [
        *quality.figures(labelled, days),
        Figure(
            name="Without an outcome",
            value=percent(1 - n_labelled / n_decisions),
            words=f"of the decisions of {days}; they are predicted and counted",
        ),
    ]


def _unlabelled(performance: pa.Table) -> Sequence[Row]:
    """Return the days as rows, oldest first, with ``n_other``: the decisions without a label for any other reason."""
    rows = cast("list[dict[str, int]]", performance.to_pylist())
    counted = ("n_cancelled", "n_diverted")
    return [{**row, "n_other": row["n_unlabelled"] - sum(row[name] for name in counted)} for row in rows]


def _reasons_that_occur(rows: Sequence[Row]) -> Mapping[str, str]:
    """Return the columns of the reasons for which any decision has no label, by what people call them.

    Whether a flight was cancelled is the label itself of one use case, and no reason there.
    """
    known = {"cancelled": "n_cancelled", "diverted": "n_diverted", "not landed or other": "n_other"}
    return {words: column for words, column in known.items() if any(row[column] for row in rows)}


def _champion_facts(champion: LedgerEntry, quality: DailyQuality, reference: Reference) -> Mapping[str, str]:
    verb = "rolled back to" if champion.action == "rollback" else "promoted"
    return {
        "Version": champion.version,
        "In charge since": f"{champion.effective_from}, {verb} by {champion.recorded_by} (entry {champion.sequence})",
        "Reason": champion.reason,
        "Trained as of": f"{champion.as_of}; the reference holds {count(reference.n_rows)} rows",
        "Holdout": quality.holdout_words,
        "Package": f"sha256 {champion.package_hash}",
    }
