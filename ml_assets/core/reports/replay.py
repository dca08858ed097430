"""The page of a replay: what production lived through, and what retraining was worth against training once."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.data_quality.verdicts import Fault
from ml_assets.core.days import DayRange
from ml_assets.core.replays.record import LivedDay
from ml_assets.core.replays.rivals import BASELINE, LATER, ONCE, RIVAL_WORDS
from ml_assets.core.replays.story import Story
from ml_assets.core.reports import charts
from ml_assets.core.reports.daily_quality import Figure
from ml_assets.core.reports.page import Chart, count, draw, render
from ml_assets.core.reports.replay_charts import Event, gains_by_week, quality_by_week
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import Measure, meaning_of

_DASH = "\N{EM DASH}"
_SERIES = {ONCE: "trained once", LATER: "trained once, on a quarter", BASELINE: "simple baseline"}
_ALL_DAYS = "all days"


@dataclass(frozen=True, kw_only=True)
class Happening:
    """A line of the table of all that happened: first to last day, what, and a sentence."""

    first: date
    last: date
    what: str
    mark: str
    words: str


def replay_report(stories: Sequence[Story], *, days: DayRange, held: Sequence[Fault] = ()) -> str:
    """Write the page of a replay as one self-contained HTML page; the same stories give the same bytes.

    ``held`` are the faults of raw data that kept what depends on it from being made.
    """
    names = dict.fromkeys(name for story in stories for name in story.cpu_seconds)
    return render(
        "replay.html",
        days=days,
        links={},
        held=held,
        cost_names=list(names),
        parts=[_part(story, days) for story in stories],
        minutes=sum(sum(story.cpu_seconds.values()) for story in stories) / 60,
    )


def charts_of(story: Story, days: DayRange) -> Mapping[str, charts.Spec]:
    """Return the charts of a story by title: quality by week with what happened, and gains over being trained once."""
    unit, meaning = story.use_case.label.unit, meaning_of(story.use_case.task)
    weeks = story.weeks.filter(pc.field("measure") == meaning.daily.name) if story.weeks.num_rows else story.weeks
    if not weeks.num_rows:
        return {}
    ends = sorted(set(cast("list[date]", weeks["partition_on"].to_pylist())))
    rows = {(row["partition_on"], row["rival"]): row for row in weeks.to_pylist()}
    production = {row["partition_on"]: row["production"] for row in weeks.to_pylist() if row["rival"] == ONCE}
    series = {"production": [production.get(end) for end in ends]}
    series |= {
        words: [rows[end, rival]["other"] if (end, rival) in rows else None for end in ends]
        for rival, words in _SERIES.items()
    }
    losses = story.weeks.filter((pc.field("measure") == meaning.loss.name) & (pc.field("rival") == ONCE)).to_pylist()
    gains = [(row["partition_on"], row["gain"], row["margin"]) for row in losses]
    return {
        f"{meaning.daily.title(unit)} by week": quality_by_week(
            ends, series, list(_events(story)), y_title=meaning.daily.title(unit), first=days.first, last=days.last
        ),
        "What retraining gains over training once": gains_by_week(
            gains, y_title=f"Gain in {meaning.loss.title(unit)}", first=days.first, last=days.last
        ),
    }


def happenings(story: Story) -> list[Happening]:
    """Return every decision that was not to wait, every ledger entry and every alarm, oldest first."""
    found = [*_decisions(story.days), *_incidents(story.alarms)]
    for lived in (lived for lived in story.days if lived.outcome == "impossible"):
        found.append(_on(lived.partition_on, "could not be trained", lived.outcome_reason, mark="fail"))
    found += [_on(said.day, "resumed", said.reason) for said in story.resumed]
    words = {"promote": ("promoted", "pass"), "refuse": ("refused", "fail"), "wait": ("waits for a person", "")}
    for entry in story.ledger:
        what, mark = words.get(entry.action, (entry.action, ""))
        found.append(_on(entry.effective_from, what, f"{entry.version}: {entry.reason}", mark=mark))
    return sorted(found, key=lambda one: (one.first, one.what, one.words))


def _on(day: date, what: str, words: str, *, mark: str = "") -> Happening:
    return Happening(first=day, last=day, what=what, mark=mark, words=words)


def _decisions(days: Sequence[LivedDay]) -> Iterator[Happening]:
    """Yield each day that asked for a training, and each stretch of days on which retraining had stopped."""
    for decision, stretch in groupby(days, key=lambda lived: lived.decision):
        same = list(stretch)
        if decision == "stopped":
            first, last = same[0], same[-1].partition_on
            yield Happening(first=first.partition_on, last=last, what="stopped", mark="fail", words=first.reason)
        elif decision == "retrain":
            yield from (_on(lived.partition_on, "asked to retrain", lived.reason) for lived in same)


def _incidents(alarms: pa.Table) -> Iterator[Happening]:
    """Yield each incident once, from its first day to its last, in the words of its worst day."""
    by_incident: dict[str, list[dict[str, object]]] = {}
    for row in alarms.to_pylist():
        by_incident.setdefault(str(row["incident"]), []).append(row)
    for rows in by_incident.values():
        days = sorted(cast("date", row["partition_on"]) for row in rows)
        worst = next((row for row in rows if row["severity"] == "severe"), rows[0])
        severity = "severe alarm" if worst["severity"] == "severe" else "alarm"
        kind = str(worst["kind"]).replace("_", " ")
        yield Happening(
            first=days[0],
            last=days[-1],
            what=f"{severity}, {kind}",
            mark="fail" if severity == "severe alarm" else "",
            words=str(worst["explanation"]),
        )


def _events(story: Story) -> Iterator[Event]:
    for entry in story.ledger:
        if entry.action in ("promote", "refuse"):
            kind = "promoted" if entry.action == "promote" else "refused"
            yield Event(day=entry.effective_from, kind=kind)
    for lived in story.days:
        if lived.decision == "retrain":
            yield Event(day=lived.partition_on, kind="asked to retrain")
        if lived.n_alarms:
            yield Event(day=lived.partition_on, kind="severe alarm" if lived.n_severe else "alarm")


def _part(story: Story, days: DayRange) -> Mapping[str, object]:
    use_case, what = story.use_case, happenings(story)
    predicted = [lived for lived in story.days if lived.model_version]
    return {
        "name": use_case.name,
        "question": use_case.question,
        "lead": _lead(story),
        "figures": _figures(story),
        "charts": [_drawn(use_case, title, spec) for title, spec in charts_of(story, days).items()],
        "worth": [_worth_row(row, use_case) for row in story.worth.to_pylist()],
        "rival_words": RIVAL_WORDS,
        "happenings": what,
        "n_days": len(predicted),
        "costs": defaultdict(float, story.cpu_seconds),
    }


def _drawn(use_case: UseCase, title: str, spec: charts.Spec) -> Chart:
    caption = (
        "On the labels that were known on the morning after each week. Upright lines are promotions."
        if title.endswith("by week")
        else "Above 0 the model in charge did better than the first champion would have. Each line spans where the "
        "truth lies 95 times in 100, by the noise of the week's days."
    )
    # The drawing is named after its title, and two use cases have charts of one title.
    drawn = draw(f"{use_case.name} {title}", spec, caption)
    return replace(drawn, title=title)


def _lead(story: Story) -> str:
    first = next((lived.partition_on for lived in story.days if lived.model_version), None)
    if first is None:
        return "Nobody was ever in charge: no candidate passed the gates, so nothing was predicted."
    n_champions = sum(entry.action == "promote" for entry in story.ledger)
    n_tried = sum(bool(lived.outcome) for lived in story.days if lived.partition_on <= first)
    tried = f"after {n_tried} trainings" if n_tried > 1 else "by the first training"
    return (
        f"The first champion came {tried} and predicted from {first:%-d %B %Y} on; "
        f"{n_champions} version{'s were' if n_champions != 1 else ' was'} in charge in all."
    )


def _figures(story: Story) -> list[Figure]:
    outcomes = [lived.outcome for lived in story.days if lived.outcome]
    meaning, unit = meaning_of(story.use_case.task), story.use_case.label.unit
    words = ", ".join(f"{outcomes.count(name)} {name}" for name in ("promoted", "refused", "waits") if name in outcomes)
    found = [Figure(name="Trainings", value=count(len(outcomes)), words=words or "none")]
    for rival in (ONCE, LATER, BASELINE):
        row = worth_of(story, rival, meaning.loss)
        if row is not None:
            found.append(
                Figure(
                    name=f"Gain over {'the ' if rival == BASELINE else 'being '}{_SERIES[rival]}",
                    value=_signed(cast("float", row["gain"]), meaning.loss),
                    words=f"{meaning.loss.title(unit)}, all days; {_verdict(row)[0]}",
                )
            )
    minutes = sum(story.cpu_seconds.values()) / 60
    trained = story.cpu_seconds.get("training", 0.0) / 60
    found.append(
        Figure(name="CPU minutes", value=f"{minutes:.1f}", words=f"{trained:.1f} of them training and judging")
    )
    n_alarms = sum(bool(lived.n_alarms) for lived in story.days)
    found.append(Figure(name="Days with an alarm", value=count(n_alarms), words=f"of {len(story.days)} days"))
    return found


def worth_of(story: Story, rival: str, measure: Measure, period: str = _ALL_DAYS) -> Mapping[str, object] | None:
    """Return the row of ``worth`` of a rival in a measure and period, or None where there is none."""
    rows = (
        row
        for row in story.worth.to_pylist()
        if (row["rival"], row["measure"], row["period"]) == (rival, measure.name, period)
    )
    return next(rows, None)


def worth_words(story: Story, rival: str, *, period: str = _ALL_DAYS) -> str:
    """Say what production gained over a rival in a period, in the loss of the task; a dash where there was none.

    Such as ``+0.0123 ± 0.0045 log loss, better``.
    """
    meaning = meaning_of(story.use_case.task)
    row = worth_of(story, rival, meaning.loss, period)
    if row is None:
        return _DASH
    return f"{_with_margin(row, meaning.loss)} {meaning.loss.title(story.use_case.label.unit)}, {_verdict(row)[0]}"


def _worth_row(row: Mapping[str, object], use_case: UseCase) -> Mapping[str, object]:
    meaning = meaning_of(use_case.task)
    measure = next(m for m in meaning.measures if m.name == row["measure"])
    words, mark = _verdict(row)
    return {
        "period": row["period"],
        "rival": _SERIES[cast("str", row["rival"])],
        "measure": measure.title(use_case.label.unit),
        "n_labelled": row["n_labelled"],
        "production": measure.write(cast("float", row["production"])),
        "other": measure.write(cast("float", row["other"])),
        "gain": _with_margin(row, measure),
        "words": words,
        "mark": mark,
    }


def _verdict(row: Mapping[str, object]) -> tuple[str, str]:
    """Return what a comparison says beyond its noise, and how it is marked."""
    gain, margin = cast("float", row["gain"]), cast("float | None", row["margin"])
    if gain == 0.0 and margin == 0.0:
        return "the same model", ""
    if margin is None or abs(gain) <= margin:
        return "within the noise", ""
    return ("better", "pass") if gain > 0 else ("worse", "fail")


def _with_margin(row: Mapping[str, object], measure: Measure) -> str:
    margin = cast("float | None", row["margin"])
    written = _signed(cast("float", row["gain"]), measure)
    return written if margin is None else f"{written} \N{PLUS-MINUS SIGN} {measure.write(margin)}"


def _signed(value: float, measure: Measure) -> str:
    """Write a difference with its sign.

    >>> from ml_assets.core.tasks import REGRESSION
    >>> _signed(0.51, REGRESSION.loss), _signed(-0.51, REGRESSION.loss)
    ('+0.51', '\N{MINUS SIGN}0.51')
    """
    return f"{'+' if value >= 0 else chr(0x2212)}{measure.write(abs(value))}"
