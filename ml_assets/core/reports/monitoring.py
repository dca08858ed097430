"""The daily monitoring report: is the model still good, and does the day look like training."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.drift import drift_verdict, percent
from ml_assets.core.errors import DataMissing
from ml_assets.core.evaluation import Metrics
from ml_assets.core.performance import N_DAYS_JUDGED, newest_days, performance_verdict
from ml_assets.core.reference import Reference
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.reports import charts
from ml_assets.core.reports.daily_quality import DailyQuality, Figure, quality_of
from ml_assets.core.reports.page import Chart, checked_links, count, draw, render
from ml_assets.core.tasks import AnyMetrics

Row = Mapping[str, object]

_N_DAYS_SHOWN = 60
_N_FEATURES_SHOWN = 12


def monitoring_report(
    *,
    use_case: str,
    day: date,
    drift: pa.Table,
    performance: pa.Table,
    champion: LedgerEntry,
    holdout: AnyMetrics,
    reference: Reference,
    predictions: npt.ArrayLike,
    links: Mapping[str, str],
    question: str = "",
    unit: str | None = None,
) -> str:
    """Write the report of one day as one self-contained HTML page; the same input gives the same bytes.

    Args:
        use_case: its name.
        day: the local day reported on.
        drift: rows of ``monitoring.drift`` of this use case: the day's, and those of the two days before, if any.
        performance: rows of ``monitoring.performance`` of this use case up to the day, any number of days or none.
        champion: the ledger entry that put the day's model in charge.
        holdout: what that model showed on its holdout.
        reference: the bins of that model's training set.
        predictions: shape (n,), the day's predictions.
        links: addresses by the text a person clicks on.
        question: what the model answers, as the title.
        unit: of the label of a regression.

    Raises DataMissing where the day's drift is not among the rows, BadInput for a link that is no address.
    """
    drift = drift.filter(pc.field("partition_on") <= day)
    performance = performance.filter(pc.field("partition_on") <= day).sort_by("partition_on")
    rows = [row for row in drift.to_pylist() if row["partition_on"] == day]
    if not rows:
        raise DataMissing(f"the drift of {use_case} on {day} is not measured yet; materialize {use_case}/drift first")
    verdicts = [drift_verdict(drift)]
    if performance.num_rows:
        verdicts.append(performance_verdict(performance, holdout, unit=unit))
    scores = np.asarray(predictions, np.float64)
    quality = quality_of(holdout, unit)
    shown, rest = _by_severity(rows)
    performance = performance.slice(max(0, performance.num_rows - _N_DAYS_SHOWN))
    labelled = performance.filter(pc.field("n_labelled") > 0)
    return render(
        "monitoring.html",
        use_case=use_case,
        question=question,
        day=day,
        is_alarming=any(verdict.is_alarming for verdict in verdicts),
        reasons=[reason for verdict in verdicts for reason in verdict.reasons],
        figures=[*_day_figures(rows, scores, reference, quality), *_quality_figures(performance, quality)],
        quality_charts=quality.charts(labelled) if labelled.num_rows else [],
        labelled_to=labelled.column("partition_on")[-1].as_py() if labelled.num_rows else None,
        prediction_charts=_prediction_charts(scores, reference, performance, holdout, unit),
        columns=quality.columns,
        drift_shown=shown,
        drift_rest=rest,
        no_label_reasons=_reasons_that_occur(_unlabelled(performance)[-N_DAYS_JUDGED:]),
        unlabelled=[
            {**row, "figures": [quality.cell(cast("float | None", row[name])) for name in quality.columns]}
            for row in reversed(_unlabelled(performance)[-N_DAYS_JUDGED:])
        ],
        champion_facts=_champion_facts(champion, quality, reference),
        links=checked_links(links),
    )


def _by_severity(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows worth a look and the rest: drifted first, then by index over limit, half a bar at the limit."""

    def severity(row: Row) -> float:
        return cast("float", row["psi"] or 0.0) / cast("float", row["psi_limit"])

    ordered = sorted(rows, key=lambda row: (not row["is_drifted"], -severity(row), cast("str", row["feature"])))
    drawn = [{**row, "bar": f"{min(120.0, 60 * severity(row)):.1f}"} for row in ordered]
    n_shown = max(_N_FEATURES_SHOWN, sum(bool(row["is_drifted"]) for row in rows))
    return drawn[:n_shown], drawn[n_shown:]


def _day_figures(
    rows: Sequence[Row], scores: npt.NDArray[np.float64], reference: Reference, quality: DailyQuality
) -> Sequence[Figure]:
    features = [row for row in rows if row["kind"] != "prediction"]
    n_drifted = sum(bool(row["is_drifted"]) for row in features)
    is_prediction_drifted = any(row["is_drifted"] for row in rows if row["kind"] == "prediction")
    predicted = float(np.nanmean(scores)) if len(scores) else None
    return [
        Figure(
            name="Decisions predicted",
            value=count(len(scores)),
            words=f"a usual training day had {reference.n_rows_per_day:.0f}",
        ),
        Figure(
            name="Mean prediction",
            value=quality.written(predicted),
            words="its distribution has drifted" if is_prediction_drifted else "within what days of training showed",
        ),
        Figure(
            name="Features drifted",
            value=f"{n_drifted} of {len(features)}",
            words="beyond what 99 of 100 training days showed",
        ),
    ]


def _quality_figures(performance: pa.Table, quality: DailyQuality) -> Sequence[Figure]:
    """Sum up the days the verdict is about; nothing where none of them has a label."""
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


def _prediction_charts(
    scores: npt.NDArray[np.float64], reference: Reference, performance: pa.Table, holdout: AnyMetrics, unit: str | None
) -> Sequence[Chart]:
    is_share = isinstance(holdout, Metrics)
    x_title = "Predicted probability" if is_share else f"Predicted {unit}" if unit else "Predicted"
    drawn: list[Chart] = []
    if len(scores):
        drawn.append(
            draw(
                "Distribution of the day",
                charts.prediction_shares(
                    reference.prediction, scores, x_title=f"{x_title} (bins of training)", is_share=is_share
                ),
                "Each bin holds a tenth of the training rows: bars beyond the grey ones mean more of such predictions.",
            )
        )
    rows = _unlabelled(performance)
    parts = _reasons_that_occur(rows)
    if parts:
        drawn.append(
            draw(
                "Decisions without an outcome",
                charts.stacked_by_day(
                    [cast("date", row["partition_on"]) for row in rows],
                    {name: [cast("int", row[column]) for row in rows] for name, column in parts.items()},
                    y_title="Decisions",
                ),
                "Predicted and counted, but there is nothing to compare the prediction with.",
            )
        )
    return drawn


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
