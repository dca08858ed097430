"""The report on a candidate: may it serve, how good is it beside the baselines and the champion, how was it trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ml_assets.core.drift import percent
from ml_assets.core.insights import Insights
from ml_assets.core.paired_bootstrap import Estimate
from ml_assets.core.promotion import Evidence, Verdict
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.reports import training_charts
from ml_assets.core.reports.curves import curve_charts
from ml_assets.core.reports.insights import insight_sections, season_note, slice_charts
from ml_assets.core.reports.page import Chart, checked_links, draw, render
from ml_assets.core.tasks import AnyCurve, AnyMetrics, Measure, TaskMeaning, meaning_of
from ml_assets.core.trainers.segments import SegmentOutcome
from ml_assets.core.trainers.starts import StartOutcome, WarmStartRecord


def candidate_report(
    *,
    use_case: str,
    version: str,
    as_of: date,
    evidence: Evidence,
    champion: str,
    confidence: float,
    verdict: Verdict,
    calibration: AnyCurve,
    epochs: Sequence[tuple[int, float, float]],
    facts: Mapping[str, str],
    links: Mapping[str, str],
    question: str = "",
    intervals: Mapping[str, tuple[float, float]] | None = None,
    warm_start: WarmStartRecord | None = None,
    segments: Sequence[SegmentOutcome] = (),
    segments_by: str = "",
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
        calibration: what was predicted and what happened on the holdout, in tenths; may be empty.
        epochs: number, loss on training and on validation rows, of each pass; empty for a library without any.
        facts: what is to be known of the training set and the training, by name.
        links: addresses by the text a person clicks on.
        question: what the model answers, as the title.
        intervals: low and high end of the 95 % interval of the candidate's metrics, by name; no row for none.
        warm_start: what the champion's weights were worth; None where there was no champion, and then it is left out.
        segments: which segments have a model of their own, and why the others have none; no table for none.
        segments_by: the input whose values they are.
        insights: what it leans on; no section for None.
        holdout_days: the local days of the holdout, to say which months it tells of.

    Raises BadInput for a link that is no address.
    """
    meaning, unit = meaning_of(evidence.output.task), evidence.output.unit
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
        unit=unit or "",
        is_regression=evidence.output.task == "regression",
        mean_label=_label_words(evidence.candidate, unit),
        measures=meaning.measures,
        compared=meaning.compared,
        sliced=meaning.sliced,
        loss=meaning.loss.name,
        rows=[
            (name, [_figure(value, measure) for measure, value in _measured(metrics, meaning)])
            for name, metrics in (
                ("this candidate", evidence.candidate),
                *((name, c.other) for name, c in compared.items()),
            )
        ],
        gains=[
            (name, [_interval(c.gains.get(measure.name), confidence, measure) for measure in meaning.compared])
            for name, c in compared.items()
        ],
        slices=[
            _SliceRow(
                name=f"{part.column.replace('_', ' ')} {part.value}",
                n_rows=part.n_rows,
                happened=_happened(part.mean_label, meaning),
                figures=tuple(
                    _interval(estimates[measure.name], confidence, measure)
                    for measure in meaning.sliced
                    for estimates in (part.figures, part.gains)
                ),
            )
            for part in evidence.slices
        ],
        slices_against=f"champion {champion}"
        if evidence.champion
        else meaning.baseline_words[meaning.simple_baseline].removeprefix("the "),
        interval=f"{2 * confidence - 1:.0%}".replace("%", " %"),
        holdout=evidence.candidate,
        charts=_charts(calibration, epochs, meaning, unit),
        facts=facts,
        links=checked_links(links),
        intervals=[
            _range(intervals[measure.name], measure) if measure.name in intervals else "\N{EM DASH}"
            for measure in meaning.measures
        ]
        if intervals
        else [],
        warm_start=warm_start,
        starts=_starts(warm_start) if warm_start else (),
        segments=sorted(segments, key=lambda segment: (-segment.n_train, segment.value)),
        n_own_models=sum(segment.has_own_model for segment in segments),
        segments_by=segments_by.replace("_", " "),
        insights=insight_sections(insights, confidence=confidence) if insights else None,
        slice_charts=slice_charts(
            evidence.slices,
            measure=meaning.sliced[-1],
            overall=meaning.figures(evidence.candidate)[meaning.sliced[-1].name],
            confidence=confidence,
            unit=unit,
        ),
        season_note=season_note(holdout_days) if holdout_days else "",
    )


def _starts(record: WarmStartRecord) -> Sequence[tuple[str, StartOutcome]]:
    """Return the starts that were trained, the chosen one first."""
    rows = {"cold": record.cold, **({"warm": record.warm} if record.warm else {})}
    return sorted(rows.items(), key=lambda row: row[0] != record.chosen)


@dataclass(frozen=True, kw_only=True)
class _SliceRow:
    """One slice as it is printed: each figure and what it gains."""

    name: str
    n_rows: int
    happened: str
    figures: tuple[str, ...]


def _measured(metrics: AnyMetrics, meaning: TaskMeaning) -> Sequence[tuple[Measure, float | None]]:
    found = meaning.figures(metrics)
    return [(measure, found[measure.name]) for measure in meaning.measures]


def _figure(value: float | None, measure: Measure) -> str:
    return "\N{EM DASH}" if value is None else measure.write(value)


def _range(ends: tuple[float, float], measure: Measure) -> str:
    return f"{measure.write(ends[0])}\N{EN DASH}{measure.write(ends[1])}"


def _happened(mean_label: float, meaning: TaskMeaning) -> str:
    return percent(mean_label) if meaning.task == "binary_classification" else f"{mean_label:.4g}"


def _label_words(metrics: AnyMetrics, unit: str | None) -> str:
    if isinstance(metrics, RegressionMetrics):
        in_unit = f" {unit}" if unit else ""
        return f"{metrics.mean_label:.4g}{in_unit}, with a standard deviation of {metrics.label_spread:.4g}"
    return percent(metrics.positive_share)


def _interval(estimate: Estimate | None, confidence: float, measure: Measure) -> str:
    """Write a figure with what it may be off to either side; a dash where it cannot be computed.

    >>> roc_auc = Measure(name="roc_auc", words="ROC AUC", is_loss=False)
    >>> _interval(Estimate(value=0.5, standard_error=0.01, n_days=21), 0.95, roc_auc)
    '0.5000 ± 0.0172'
    """
    if estimate is None:
        return "\N{EM DASH}"
    margin = estimate.margin(confidence)
    return measure.write(estimate.value) + ("" if margin is None else f" \N{PLUS-MINUS SIGN} {measure.write(margin)}")


def _charts(
    curve: AnyCurve, epochs: Sequence[tuple[int, float, float]], meaning: TaskMeaning, unit: str | None
) -> Sequence[Chart]:
    drawn: list[Chart] = list(curve_charts(curve, unit=unit, rows="The holdout"))
    if epochs:
        best = min(epochs, key=lambda epoch: epoch[2])
        caption = f"Lower is better. Validation was best in epoch {best[0]}, with {meaning.loss.write(best[2], unit)}."
        drawn.append(
            draw("Training", training_charts.training_curve(epochs, y_title=meaning.loss_title(unit)), caption)
        )
    return drawn
