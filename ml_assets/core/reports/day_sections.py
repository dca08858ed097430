"""The parts of a day's page below the verdict: slices, drift by feature, estimates, and what a decision rests on."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.drift import percent
from ml_assets.core.evaluation import Metrics
from ml_assets.core.reference import Bins, Reference
from ml_assets.core.reports.daily_quality import DailyQuality
from ml_assets.core.reports.histograms import Histogram, draw_histogram, histogram_bars
from ml_assets.core.reports.monitored_rows import Decided, DriftRow, Monitored, SliceRow
from ml_assets.core.tasks import AnyMetrics

# Judgement: of so few outcomes any share can come by chance.
_LEAST_OUTCOMES = 100
_MOST_SLICES = 8
_MOST_CARDS = 12
# What lies beyond two standard errors is worth a look, not an alarm.
_N_ERRORS = 2.0
_WORSE = 1.25


@dataclass(frozen=True, kw_only=True)
class DriftCard:
    """One feature of the day: what moved, in words and as a histogram."""

    feature: str
    view: str
    is_drifted: bool
    severity: str
    moved: str
    chance: str
    missing: str
    explanation: str
    histogram: Histogram | None


@dataclass(frozen=True, kw_only=True)
class SliceFinding:
    """A value of a column on which predictions were off, over the last weeks."""

    name: str
    n_outcomes: int
    predicted: str
    happened: str
    loss: str
    words: str


def drift_cards(rows: Sequence[DriftRow], reference: Reference) -> tuple[Sequence[DriftCard], Sequence[DriftCard]]:
    """Return what is worth a look and the rest: the prediction, drifted features, then by how much moved."""

    def rank(row: DriftRow) -> tuple[bool, bool, bool, float, str]:
        moved = row.psi or 0.0 if row.moved_share is None else row.moved_share
        return row.kind != "prediction", not row.is_drifted, row.severity != "severe", -moved, row.feature

    bins = {b.feature: b for b in reference.all_bins}
    ordered = sorted(rows, key=rank)
    n_shown = max(_MOST_CARDS, sum(bool(row.is_drifted) for row in rows))
    cards = [_card(row, bins.get(row.feature)) for row in ordered]
    return cards[:n_shown], cards[n_shown:]


def slices_worth_a_look(rows: Sequence[SliceRow], holdout: AnyMetrics, quality: DailyQuality) -> Sequence[SliceFinding]:
    """Return the slices of some weeks that were predicted worst.

    Of probabilities those whose share that came true lies beyond two standard errors of the mean prediction; of numbers
    those whose RMSE is a quarter above the holdout's.
    """
    parts: dict[tuple[str, str], list[SliceRow]] = {}
    for row in rows:
        if row.n_labelled and row.mean_prediction is not None:
            parts.setdefault((row.slice, row.value), []).append(row)
    found = list[tuple[float, SliceFinding]]()
    for (name, value), of_slice in parts.items():
        n = sum(row.n_labelled for row in of_slice)
        if n < _LEAST_OUTCOMES:
            continue
        predicted, happened = (_mean(of_slice, column) for column in ("mean_prediction", "happened"))
        is_share = isinstance(holdout, Metrics)
        loss = _mean(of_slice, "log_loss") if is_share else math.sqrt(_mean(of_slice, "rmse", power=2))
        if is_share:
            error = math.sqrt(max(predicted * (1 - predicted), 1e-9) / n)
            weight, words = abs(happened - predicted) / (_N_ERRORS * error), _off(happened, predicted)
        else:
            weight = loss / (_WORSE * holdout.rmse) if not isinstance(holdout, Metrics) and holdout.rmse else 0.0
            words = f"its RMSE is {weight * _WORSE:.1f} times the holdout's"
        if weight > 1:
            finding = SliceFinding(
                name=f"{name} {value}",
                n_outcomes=n,
                predicted=quality.written(predicted),
                happened=quality.written(happened),
                loss=quality.cell(loss),
                words=words,
            )
            found.append((weight, finding))
    return [finding for _, finding in sorted(found, key=lambda pair: (-pair[0], pair[1].name))][:_MOST_SLICES]


def said_of_quality(monitored: Monitored, day: date) -> Sequence[str]:
    """Return what monitoring says in words of a day: its calibration, the champions beside it, what is estimated.

    What several end with, as a reservation that holds for each, is said once at the end.
    """
    of_day = pc.field("partition_on") == pa.scalar(day)
    found = list[str | None]()
    for rows, column in ((monitored.performance, "week_explanation"), (monitored.shadows, "explanation")):
        if column in rows.column_names:
            found += cast("list[str | None]", rows.filter(of_day)[column].to_pylist())
    found += [row.explanation for row in monitored.estimates if row.partition_on == day]
    sentences = [words.rstrip(".") for words in found if words]
    endings = Counter(words.rpartition(". ")[2] for words in sentences if ". " in words)
    shared = [ending for ending, n in endings.items() if n > 1]
    kept = [
        next((words.removesuffix(f". {end}") for end in shared if words.endswith(end)), words) for words in sentences
    ]
    return [f"{words[:1].upper()}{words[1:]}." for words in [*kept, *shared]]


def evidence_of(decided: Decided | None) -> Mapping[str, str]:
    """Return what a decision rests on, by name; whatever is no plain value as JSON.

    >>> from datetime import date
    >>> day = date(2013, 7, 1)
    >>> decided = Decided(partition_on=day, decision="wait", reason="", as_of=day, evidence='{"model_age_days": 7}')
    >>> evidence_of(decided)
    {'Model age days': '7'}
    """
    if not decided or not decided.evidence:
        return {}
    found: object = json.loads(decided.evidence)
    if not isinstance(found, dict):
        return {"Evidence": json.dumps(found, ensure_ascii=False)}
    return {
        f"{name[:1].upper()}{name[1:].replace('_', ' ')}": _plain(value)
        for name, value in cast("dict[str, object]", found).items()
    }


def _plain(value: object) -> str:
    if value is None:
        return "\N{EM DASH}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)


def _card(row: DriftRow, bins: Bins | None) -> DriftCard:
    bars = histogram_bars(bins, row.counts) if bins else []
    was = "" if row.reference_missing_share is None else f", in training {percent(row.reference_missing_share)}"
    return DriftCard(
        feature=row.feature,
        view="" if row.kind == "prediction" else row.view or "",
        is_drifted=bool(row.is_drifted),
        severity=row.severity or "",
        moved=f"{percent(row.moved_share)} moved" if row.moved_share is not None else _index(row.psi),
        chance="" if row.p_value is None else _chance(row.p_value),
        missing="" if not row.missing_share else f"missing {percent(row.missing_share)}{was}",
        explanation=row.explanation or "",
        histogram=draw_histogram(bars, title=f"{row.feature}: this day against training"),
    )


def _index(psi: float | None) -> str:
    return "" if psi is None else f"PSI {psi:.2f}"


def _chance(p_value: float) -> str:
    """Write how often an unchanged population strays as far.

    >>> _chance(0.034), _chance(1e-9)
    ('p 0.034', 'p < 0.0001')
    """
    return "p < 0.0001" if p_value < 1e-4 else f"p {p_value:.2g}"


def _mean(rows: Sequence[SliceRow], name: str, *, power: int = 1) -> float:
    """Return the mean over decisions of a figure that each row has as a mean over its own."""
    known = [(row.n_labelled, getattr(row, name)) for row in rows if getattr(row, name) is not None]
    total = sum(n for n, _ in known)
    return sum(n * value**power for n, value in known) / total if total else math.nan


def _off(happened: float, predicted: float) -> str:
    return f"came true {'more' if happened > predicted else 'less'} often than predicted"
