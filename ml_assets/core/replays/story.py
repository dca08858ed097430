"""Everything that is known of a replayed use case once its days are lived, and its record: one line for each event."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from operator import itemgetter

import msgspec
import pyarrow as pa

from ml_assets.core import registry
from ml_assets.core.data_quality.verdicts import Fault
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.monitored import ALARMS, PERFORMANCE, RETRAINING
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.replays.record import WEEKS, LivedDay, lived_days, rows_of
from ml_assets.core.replays.worth import spent, worth
from ml_assets.core.resumes import Resume, resumes
from ml_assets.core.spec import UseCase

# Judgement: whatever becomes known later than a week after a flight is a mistake of the source.
_HINDSIGHT = timedelta(days=8)
# A gate's figure that is measured with a clock, and comes out otherwise every time.
_MEASURED_BY_CLOCK = ("one_row_latency", "thousand_rows_latency")


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a use case lived through.

    Attributes:
        use_case: whose story it is.
        days: the lived days, oldest first.
        decisions: its rows of ``monitoring.retraining_decisions``.
        performance: of ``monitoring.performance``.
        alarms: of ``monitoring.alarms``.
        weeks: of ``replay.weeks``.
        worth: what the trainings were worth by quarter, with all labels that became known; see ``worth``.
        ledger: every entry.
        resumed: when somebody said go on after retraining had stopped; see ``watching.answer_for_people``.
        cpu_seconds: what each part took. It is no part of the record.
    """

    use_case: UseCase
    days: Sequence[LivedDay]
    decisions: pa.Table
    performance: pa.Table
    alarms: pa.Table
    weeks: pa.Table
    worth: pa.Table
    ledger: Sequence[LedgerEntry]
    resumed: Sequence[Resume]
    cpu_seconds: Mapping[str, float]


def tell(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> Story:
    """Read what was written of these days, and add up what the trainings were worth."""

    def read(table: str) -> pa.Table:
        return rows_of(warehouse, table, use_case, days)

    return Story(
        use_case=use_case,
        days=lived_days(warehouse, use_case, days),
        decisions=read(RETRAINING),
        performance=read(PERFORMANCE),
        alarms=read(ALARMS),
        weeks=read(WEEKS),
        worth=worth(warehouse, use_case, days, known_before=day_starts_at(days.last + _HINDSIGHT)),
        ledger=registry.entries(store, use_case.name),
        resumed=resumes(store, use_case.name),
        cpu_seconds=spent(warehouse, use_case, days),
    )


def record_of(stories: Sequence[Story], *, held: Sequence[Fault] = ()) -> bytes:
    """Return the record of a replay: one JSON object a line, by use case, day and kind; the same days, the same bytes.

    Kinds are ``day`` (quality included), ``decision``, ``ledger``, ``alarm``, ``resume``, ``week`` and ``worth``. First
    come, of no use case, the lines of kind ``held``: the faults of raw data that kept what depends on it from being
    made.
    """
    lines = [
        msgspec.json.encode(
            {
                **{"use_case": "", "day": fault.day, "kind": "held", "table": fault.table},
                **{"check": fault.check_name, "column": fault.column_name, "explanation": fault.explanation},
            }
        )
        for fault in held
    ]
    for story in sorted(stories, key=lambda story: story.use_case.name):
        events = sorted(_events(story), key=itemgetter("day", "kind"))
        lines += [msgspec.json.encode({"use_case": story.use_case.name, **event}) for event in events]
    return b"\n".join([*lines, b""])


def _events(story: Story) -> Iterator[dict[str, object]]:
    quality = {row["partition_on"]: row for row in story.performance.to_pylist()}
    for lived in story.days:
        facts = {name: value for name, value in lived.__dict__.items() if name not in ("use_case", "partition_on")}
        measured = quality.get(lived.partition_on, {})
        kept = {name: value for name, value in measured.items() if isinstance(value, float)}
        yield {"day": lived.partition_on, "kind": "day", **facts, **kept}
    for kind, rows in (("decision", story.decisions), ("alarm", story.alarms), ("week", story.weeks)):
        yield from (_event(kind, row) for row in rows.to_pylist())
    yield from (_event("worth", row) for row in story.worth.to_pylist())
    for said in story.resumed:
        yield {"day": said.day, "kind": "resume", "reason": said.reason}
    for entry in story.ledger:
        gates = tuple(replace(g, found=None) if g.name in _MEASURED_BY_CLOCK else g for g in entry.gates)
        facts: dict[str, object] = msgspec.to_builtins(replace(entry, gates=gates))
        yield {**facts, "day": entry.effective_from, "kind": "ledger"}


def _event(kind: str, row: Mapping[str, object]) -> dict[str, object]:
    day = row["partition_on"]
    assert isinstance(day, date)  # noqa: S101 - a column of dates
    rest = {name: value for name, value in row.items() if name not in ("use_case", "partition_on")}
    return {"day": day, "kind": kind, **rest}
