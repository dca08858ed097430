"""What a person on call reads first: what is wrong, since when, and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Literal

from ml_assets.core.reports.monitored_rows import Alarm, Decided, Fault

Level = Literal["good", "warning", "bad", "unknown"]

_HEADLINES: Mapping[Level, str] = {
    "good": "All is well",
    "warning": "Needs a look",
    "bad": "Needs attention now",
    "unknown": "Not judged yet",
}

# Judgement: so many letters are read at a glance, three lines of a phone.
_GLANCE = 120

# What each kind of alarm is called, and what a person does about it first.
_KINDS: Mapping[str, tuple[str, str]] = {
    "skew": (
        "Features served differ from those recomputed",
        "Compare the two values of the example below and find out which is right before trusting a prediction.",
    ),
    "broken_feed": (
        "Values of a feature stopped coming, or stand still",
        "Ask the source of the feature and mend it there: the model goes on without them, and no training helps.",
    ),
    "drift": (
        "Features moved away from training",
        "Look whether the source changed or the world did: a source is mended; a season costs nothing on its own.",
    ),
    "prediction_drift": (
        "Predictions moved away from training",
        "Read the alarms on features first: one of them usually says why. Without one, compare with the last champion.",
    ),
    "quality": (
        "Predictions are worse than they should be",
        "Compare with the champion before: where that one does better on the same days, roll back to it.",
    ),
    "estimated_quality": (
        "Predictions are expected to be worse, before outcomes are known",
        "Wait for the outcomes unless drift or skew says the same; they come with the next days.",
    ),
    "calibration": (
        "Predictions no longer mean what they say",
        "Where a threshold acts on them, check it; retraining sets them right.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong: in words, since when, and how many alarms say so."""

    title: str
    words: str
    since: date
    severity: str
    n_alarms: int


@dataclass(frozen=True, kw_only=True)
class DayVerdict:
    """The answer of a page in one glance.

    Attributes:
        level: how bad it is; ``unknown`` where nothing has judged the day yet.
        headline: the same in three words.
        findings: what is wrong, the worst first.
        actions: what to do about it, the most urgent first; empty where nothing is wrong.
        note: what holds where nothing is wrong.
    """

    level: Level
    headline: str
    findings: Sequence[Finding]
    actions: Sequence[str]
    note: str = ""


def day_verdict(alarms: Sequence[Alarm] | None, faults: Sequence[Fault], decided: Decided | None) -> DayVerdict:
    """Sum up the alarms that stand on a day, its data faults, and what was decided about a training.

    ``alarms`` is None where none have been judged; an empty sequence says that all is well.
    """
    blocking = [fault for fault in faults if fault.blocks]
    findings = [_of_faults(blocking)] if blocking else []
    by_kind = sorted(alarms or (), key=lambda alarm: alarm.kind)
    findings += sorted(
        (_of_kind(kind, list(of_kind)) for kind, of_kind in groupby(by_kind, key=lambda alarm: alarm.kind)),
        key=lambda finding: (finding.severity != "severe", finding.since),
    )
    actions = [fault.explanation for fault in blocking if fault.explanation]
    kinds = dict.fromkeys(alarm.kind for alarm in sorted(alarms or (), key=lambda alarm: alarm.severity != "severe"))
    actions += [_KINDS[kind][1] for kind in _KINDS if kind in kinds]
    if findings and decided:
        asked = decided.decision == "retrain"
        actions.append(
            f"A training as of {decided.as_of} was asked for: look at its candidate when it is there."
            if asked
            else f"No training was asked for: {brief(decided.reason)}"
        )
    if any(finding.severity == "severe" for finding in findings):
        level: Level = "bad"
    elif findings:
        level = "warning"
    else:
        level = "unknown" if alarms is None else "good"
    note = {"good": "No alarm stands on this day.", "unknown": "No alarms have been computed for this day."}.get(
        level, ""
    )
    return DayVerdict(
        level=level, headline=_HEADLINES[level], findings=findings, actions=actions if findings else (), note=note
    )


def kind_words(kind: str) -> str:
    """Return what people call a kind of alarm."""
    return _KINDS[kind][0] if kind in _KINDS else kind.replace("_", " ").capitalize()


def _of_kind(kind: str, alarms: Sequence[Alarm]) -> Finding:
    worst = sorted(alarms, key=lambda a: (a.severity != "severe", a.since, a.subject))
    more = f" And {len(alarms) - 1} more." if len(alarms) > 1 else ""
    return Finding(
        title=kind_words(kind),
        words=f"{_sentence(brief(worst[0].explanation))}{more}",
        since=min(alarm.since for alarm in alarms),
        severity=worst[0].severity,
        n_alarms=len(alarms),
    )


def _of_faults(faults: Sequence[Fault]) -> Finding:
    tables = ", ".join(sorted({fault.table_name for fault in faults}))
    return Finding(
        title=f"Data of {tables} is blocked",
        words=_sentence(faults[0].explanation or faults[0].check_name),
        since=min(fault.partition_on for fault in faults),
        severity="severe",
        n_alarms=len(faults),
    )


def _sentence(text: str) -> str:
    """Begin with a capital, unless with the name of a column, and end with a full stop.

    >>> _sentence("wind rose"), _sentence("dew_point_f: up")
    ('Wind rose.', 'dew_point_f: up.')
    """
    begun = text if "_" in text.partition(" ")[0] else f"{text[:1].upper()}{text[1:]}"
    return begun if begun.endswith((".", "!", "?", "\N{HORIZONTAL ELLIPSIS}")) else f"{begun}."


def brief(text: str) -> str:
    """Return as much of a sentence as is read at a glance, cut between words; the whole stands further down.

    >>> brief("word " * 50)[-12:]
    'd word word\u2026'
    """
    if len(text) <= _GLANCE:
        return text
    return f"{text[:_GLANCE].rpartition(' ')[0].rstrip(' ,;:(')}\N{HORIZONTAL ELLIPSIS}"
