"""The report on a candidate: may it serve, how good is it beside the baselines and the champion, how was it trained."""

from collections.abc import Mapping, Sequence
from datetime import date

from ml_assets.core.evaluation import CalibrationBin, Metrics
from ml_assets.core.promotion import Verdict
from ml_assets.core.reports import charts
from ml_assets.core.reports.page import Chart, checked_links, draw, render


def candidate_report(
    *,
    use_case: str,
    version: str,
    as_of: date,
    candidate: Metrics,
    baselines: Mapping[str, Metrics],
    champion: tuple[str, Metrics] | None,
    verdict: Verdict,
    calibration: Sequence[CalibrationBin],
    epochs: Sequence[tuple[int, float, float]],
    facts: Mapping[str, str],
    links: Mapping[str, str],
    question: str = "",
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Write the report on one candidate as one self-contained HTML page; the same input gives the same bytes.

    Args:
        use_case: its name.
        version: the candidate's version.
        as_of: the as-of date of its training.
        candidate: what it showed on the pinned holdout.
        baselines: what each baseline showed on the same rows, by name.
        champion: the version in charge and what it showed on the same rows; None where nobody is.
        verdict: the gates it was held against.
        calibration: its calibration curve on the holdout; may be empty.
        epochs: number, log loss on training and on validation rows, of each pass; empty for a library without any.
        facts: what is to be known of the training set and the training, by name.
        links: addresses by the text a person clicks on.
        question: what the model answers, as the title.
        intervals: low and high end of the 95 % interval of the candidate's metrics, by name; no row for none.

    Raises BadInput for a link that is no address.
    """
    rows = [("this candidate", candidate)]
    if champion:
        rows.append((f"champion {champion[0]}", champion[1]))
    rows.extend((name.replace("_", " "), metrics) for name, metrics in baselines.items())
    return render(
        "candidate.html",
        use_case=use_case,
        question=question,
        version=version,
        as_of=as_of,
        is_promotable=verdict.is_promotable,
        reasons=() if verdict.is_promotable else verdict.reasons,
        gates=verdict.gates,
        rows=rows,
        holdout=candidate,
        charts=_charts(calibration, epochs),
        facts=facts,
        links=checked_links(links),
        intervals=intervals or {},
    )


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
