"""The daily monitoring report: is the model still good, and does the day look like training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.drift import drift_verdict, percent
from ml_assets.core.errors import DataMissing
from ml_assets.core.evaluation import Metrics, constant_log_loss
from ml_assets.core.performance import N_DAYS_JUDGED, newest_days, performance_verdict, pool_histograms
from ml_assets.core.reference import Reference
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.reports import charts
from ml_assets.core.reports.page import Chart, checked_links, count, draw, render

Row = Mapping[str, object]

_N_DAYS_SHOWN = 60
_N_FEATURES_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class _Figure:
    name: str
    value: str
    words: str


def monitoring_report(
    *,
    use_case: str,
    day: date,
    drift: pa.Table,
    performance: pa.Table,
    champion: LedgerEntry,
    holdout: Metrics,
    reference: Reference,
    predictions: npt.ArrayLike,
    links: Mapping[str, str],
    question: str = "",
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

    Raises DataMissing where the day's drift is not among the rows, BadInput for a link that is no address.
    """
    drift = drift.filter(pc.field("partition_on") <= day)
    performance = performance.filter(pc.field("partition_on") <= day).sort_by("partition_on")
    rows = [row for row in drift.to_pylist() if row["partition_on"] == day]
    if not rows:
        raise DataMissing(f"the drift of {use_case} on {day} is not measured yet; materialize {use_case}/drift first")
    verdicts = [drift_verdict(drift)]
    if performance.num_rows:
        verdicts.append(performance_verdict(performance, holdout))
    scores = np.asarray(predictions, np.float64)
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
        figures=[*_day_figures(rows, scores, reference), *_quality_figures(performance, holdout)],
        quality_charts=_quality_charts(labelled, holdout) if labelled.num_rows else [],
        labelled_to=labelled.column("partition_on")[-1].as_py() if labelled.num_rows else None,
        prediction_charts=_prediction_charts(scores, reference, performance),
        drift_shown=shown,
        drift_rest=rest,
        unlabelled=list(reversed(_unlabelled(performance)[-N_DAYS_JUDGED:])),
        champion_facts=_champion_facts(champion, holdout, reference),
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


def _day_figures(rows: Sequence[Row], scores: npt.NDArray[np.float64], reference: Reference) -> Sequence[_Figure]:
    features = [row for row in rows if row["kind"] != "prediction"]
    n_drifted = sum(bool(row["is_drifted"]) for row in features)
    is_prediction_drifted = any(row["is_drifted"] for row in rows if row["kind"] == "prediction")
    predicted = float(np.nanmean(scores)) if len(scores) else None
    return [
        _Figure(
            name="Decisions predicted",
            value=count(len(scores)),
            words=f"a usual training day had {reference.n_rows_per_day:.0f}",
        ),
        _Figure(
            name="Mean prediction",
            value=percent(predicted) if predicted is not None else "\N{EM DASH}",
            words="its distribution has drifted" if is_prediction_drifted else "within what days of training showed",
        ),
        _Figure(
            name="Features drifted",
            value=f"{n_drifted} of {len(features)}",
            words="beyond what 99 of 100 training days showed",
        ),
    ]


def _quality_figures(performance: pa.Table, holdout: Metrics) -> Sequence[_Figure]:
    """Sum up the days the verdict is about; nothing where none of them has a label."""
    if not performance.num_rows:
        return []
    labelled = newest_days(performance, N_DAYS_JUDGED).filter(pc.field("n_labelled") > 0)
    if not labelled.num_rows:
        return []
    days = f"the last {labelled.num_rows} days with outcomes" if labelled.num_rows > 1 else "the last day with outcomes"
    weights, share, loss = (_column(labelled, name) for name in ("n_labelled", "positive_share", "log_loss"))
    skill = 1 - float(weights @ loss) / float(weights @ constant_log_loss(share, holdout.positive_share))
    auc = pool_histograms(labelled).roc_auc
    pairs = (
        "cannot be said: all outcomes are alike" if auc is None else f"of 100 pairs, {100 * auc:.0f} are ranked rightly"
    )
    return [
        _Figure(
            name="ROC AUC",
            value="\N{EM DASH}" if auc is None else f"{auc:.3f}",
            words=f"{pairs} ({days}; holdout {_or_dash(holdout.roc_auc)})",
        ),
        _Figure(
            name="Log loss against the base rate",
            value=f"{percent(abs(skill))} {'lower' if skill > 0 else 'higher'}",
            words=f"than that of predicting {percent(holdout.positive_share)} for everyone; lower is better",
        ),
        _Figure(
            name="Without an outcome",
            value=percent(1 - float(weights.sum()) / float(_column(labelled, "n_decisions").sum())),
            words=f"of the decisions of {days}; they are predicted and counted",
        ),
    ]


def _quality_charts(labelled: pa.Table, holdout: Metrics) -> Sequence[Chart]:
    days = cast("list[date]", labelled.column("partition_on").to_pylist())

    def column(name: str) -> list[float | None]:
        return cast("list[float | None]", labelled.column(name).to_pylist())

    base = constant_log_loss(_column(labelled, "positive_share"), holdout.positive_share).tolist()
    week = newest_days(labelled, N_DAYS_JUDGED)
    level = (f"holdout {holdout.roc_auc:.3f}", holdout.roc_auc) if holdout.roc_auc is not None else None
    return [
        draw(
            "Ranking",
            charts.lines_by_day(days, {"ROC AUC": column("roc_auc")}, y_title="ROC AUC", level=level),
            "How often, within one day, a decision that came true was ranked above one that did not; 0.5 is chance. "
            "The holdout's value spans many days, which is the easier test.",
        ),
        draw(
            "Log loss",
            charts.lines_by_day(days, {"model": column("log_loss"), "base rate": base}, y_title="Log loss (nats)"),
            f"Lower is better. The base rate predicts {percent(holdout.positive_share)} for everyone, the holdout"
            "'s share.",
        ),
        draw(
            "Predicted and happened",
            charts.lines_by_day(
                days,
                {"predicted": column("mean_prediction"), "happened": column("positive_share")},
                y_title="Share of decisions",
                is_share=True,
            ),
            "The mean prediction and the share that came true, of the decisions with an outcome.",
        ),
        draw(
            "Calibration",
            charts.calibration(charts.calibration_of_histogram(pool_histograms(week))),
            f"The last {week.num_rows} days with outcomes, in tenths of the decisions. On the dashed line, "
            "what is predicted at 30 % comes true 30 times in 100.",
        ),
    ]


def _prediction_charts(scores: npt.NDArray[np.float64], reference: Reference, performance: pa.Table) -> Sequence[Chart]:
    drawn: list[Chart] = []
    if len(scores):
        drawn.append(
            draw(
                "Distribution of the day",
                charts.prediction_shares(reference.prediction, scores),
                "Each bin holds a tenth of the training rows: bars beyond the grey ones mean more of such predictions.",
            )
        )
    if performance.num_rows:
        parts = {"cancelled": "n_cancelled", "diverted": "n_diverted", "not landed or other": "n_other"}
        rows = _unlabelled(performance)
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


def _champion_facts(champion: LedgerEntry, holdout: Metrics, reference: Reference) -> Mapping[str, str]:
    verb = "rolled back to" if champion.action == "rollback" else "promoted"
    ranking = f"ROC AUC {_or_dash(holdout.roc_auc)}, PR AUC {_or_dash(holdout.pr_auc)}"
    losses = f"log loss {holdout.log_loss:.3f}, Brier score {holdout.brier:.3f}"
    return {
        "Version": champion.version,
        "In charge since": f"{champion.effective_from}, {verb} by {champion.recorded_by} (entry {champion.sequence})",
        "Reason": champion.reason,
        "Trained as of": f"{champion.as_of}; the reference holds {count(reference.n_rows)} rows",
        "Holdout": f"{ranking}, {losses}, calibration error {holdout.calibration_error:.3f}",
        "Package": f"sha256 {champion.package_hash}",
    }


def _column(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(), np.float64)


def _or_dash(value: float | None) -> str:
    return "\N{EM DASH}" if value is None else f"{value:.3f}"
