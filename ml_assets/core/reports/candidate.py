"""The report on a candidate: may it serve, how good is it beside the baselines and the champion, how was it trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ml_assets.core.evaluation import CalibrationBin
from ml_assets.core.insights import Insights
from ml_assets.core.paired_bootstrap import Comparison, Estimate
from ml_assets.core.promotion import Evidence, Verdict
from ml_assets.core.reports import charts
from ml_assets.core.reports.insights import insight_sections, season_note, slice_charts
from ml_assets.core.reports.page import Chart, checked_links, draw, render


def candidate_report(
    *,
    use_case: str,
    version: str,
    as_of: date,
    evidence: Evidence,
    champion: str,
    confidence: float,
    verdict: Verdict,
    calibration: Sequence[CalibrationBin],
    epochs: Sequence[tuple[int, float, float]],
    facts: Mapping[str, str],
    links: Mapping[str, str],
    question: str = "",
    intervals: Mapping[str, tuple[float, float]] | None = None,
    insights: Insights | None = None,
    holdout_days: Sequence[date] = (),
) -> str:
    """Write the report on one candidate as one self-contained HTML page; the same input gives the same bytes.

    Args:
        use_case: its name.
        version: the candidate's version.
        as_of: the as-of date of its training.
        evidence: what it, the baselines and the champion showed on the pinned holdout, as a whole and by slice.
        champion: the version in charge; empty where nobody is.
        confidence: one-sided, of the intervals.
        verdict: the gates it was held against.
        calibration: its calibration curve on the holdout; may be empty.
        epochs: number, log loss on training and on validation rows, of each pass; empty for a library without any.
        facts: what is to be known of the training set and the training, by name.
        links: addresses by the text a person clicks on.
        question: what the model answers, as the title.
        intervals: low and high end of the 95 % interval of the candidate's metrics, by name; no row for none.
        insights: what it leans on; no section for None.
        holdout_days: the local days of the holdout, to say which months it tells of.

    Raises BadInput for a link that is no address.
    """
    compared = {name.replace("_", " "): comparison for name, comparison in evidence.baselines.items()}
    if evidence.champion:
        compared = {f"champion {champion}": evidence.champion, **compared}
    return render(
        "candidate.html",
        use_case=use_case,
        question=question,
        version=version,
        as_of=as_of,
        is_promotable=verdict.is_promotable,
        reasons=() if verdict.is_promotable else verdict.reasons,
        gates=verdict.gates,
        rows=[("this candidate", evidence.candidate), *((name, c.other) for name, c in compared.items())],
        gains=[_gains(name, comparison, confidence) for name, comparison in compared.items()],
        slices=[
            _SliceRow(
                name=f"{part.column.replace('_', ' ')} {part.value}",
                n_rows=part.n_rows,
                positive_share=part.n_positive / part.n_rows,
                figures=tuple(
                    _interval(estimate, confidence)
                    for estimate in (part.log_loss, part.log_loss_gain, part.roc_auc, part.roc_auc_gain)
                ),
            )
            for part in evidence.slices
        ],
        slices_against=f"champion {champion}" if evidence.champion else "logistic baseline",
        interval=f"{2 * confidence - 1:.0%}".replace("%", " %"),
        holdout=evidence.candidate,
        charts=_charts(calibration, epochs),
        facts=facts,
        links=checked_links(links),
        intervals=intervals or {},
        insights=insight_sections(insights, confidence=confidence) if insights else None,
        slice_charts=slice_charts(evidence.slices, overall=evidence.candidate.roc_auc, confidence=confidence),
        season_note=season_note(holdout_days) if holdout_days else "",
    )


@dataclass(frozen=True, kw_only=True)
class _SliceRow:
    """One slice as it is printed: log loss, what it gains, ROC AUC, what that gains."""

    name: str
    n_rows: int
    positive_share: float
    figures: tuple[str, ...]


def _gains(name: str, comparison: Comparison, confidence: float) -> tuple[str, tuple[str, ...]]:
    gains = comparison.log_loss_gain, comparison.roc_auc_gain, comparison.pr_auc_gain
    return name, tuple(_interval(gain, confidence) for gain in gains)


def _interval(estimate: Estimate | None, confidence: float) -> str:
    """Write a figure with what it may be off to either side; a dash where it cannot be computed.

    >>> _interval(Estimate(value=0.5, standard_error=0.01, n_days=21), 0.95)
    '0.5000 ± 0.0172'
    """
    if estimate is None:
        return "\N{EM DASH}"
    margin = estimate.margin(confidence)
    return f"{estimate.value:.4f}" + ("" if margin is None else f" \N{PLUS-MINUS SIGN} {margin:.4f}")


def _charts(calibration: Sequence[CalibrationBin], epochs: Sequence[tuple[int, float, float]]) -> Sequence[Chart]:
    drawn: list[Chart] = []
    if calibration:
        caption = "The holdout in tenths. On the dashed line, what is predicted at 30 % comes true 30 times in 100."
        drawn.append(draw("Calibration", charts.calibration(calibration), caption))
    if epochs:
        best = min(epochs, key=lambda epoch: epoch[2])
        caption = f"Lower is better. Validation was best in epoch {best[0]}, with {best[2]:.4f}."
        drawn.append(draw("Training", charts.training_curve(epochs), caption))
    return drawn
