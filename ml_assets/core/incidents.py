"""An alarm, and the incident that it is part of: all that a person should be told of once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

import pyarrow as pa

AlarmKind = Literal[
    "drift", "prediction_drift", "broken_feed", "quality", "calibration", "estimated_quality", "skew", "retraining"
]

# Judgement: a season crosses a limit back and forth for weeks; after a week's quiet it is a new one.
QUIET_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """What is wrong on a day: about what (``subject``), how badly, in one sentence, and since which day."""

    kind: AlarmKind
    subject: str
    severity: Literal["warning", "severe"]
    explanation: str
    since: date

    @property
    def incident(self) -> str:
        """The name of all that is one event: the same for as long as it lasts."""
        return f"{self.kind}:{self.subject}:{self.since}"

    def as_fact(self) -> dict[str, str]:
        """Return what an alert says of it, as a materialization shows it."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "severity": self.severity,
            "explanation": self.explanation,
            "since": self.since.isoformat(),
            "incident": self.incident,
        }


class Incidents:
    """Which alarms go on from the days before: those of the same model, quiet for a week at most.

    ``before`` are rows of ``monitoring.alarms`` of the days before the first that is asked for. What a new model raises
    is a new incident: it is another model's mistake to make, and who trained it wants to hear of it.
    """

    def __init__(self, before: pa.Table) -> None:
        self._open: dict[tuple[str, str, str], tuple[date, date]] = {}
        for row in before.sort_by("partition_on").to_pylist():
            self._open[row["kind"], row["subject"], row["model_version"]] = row["since"], row["partition_on"]

    def continued(self, alarms: Sequence[Alarm], day: date, version: str) -> Iterator[Alarm]:
        """Yield the alarms of a day, each since the first day of its incident; to be asked in the order of days."""
        for alarm in alarms:
            name = (alarm.kind, alarm.subject, version)
            since, last = self._open.get(name, (alarm.since, day))
            if day - last > timedelta(days=QUIET_DAYS):
                since = alarm.since
            self._open[name] = since, day
            yield replace(alarm, since=since)
