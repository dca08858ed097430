"""When a use case decides: hours before each event, or at one local time for all events of a day."""

from dataclasses import dataclass
from datetime import time, timedelta

from ml_assets.core.errors import InvalidDeclaration


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """The table of moments at which a prediction is wanted: one row per decision.

    The table has ``decision_id``, ``partition_on``, the event's time, and the entity columns of the views used.

    When a decision is taken is said in one of two ways: ``lead_time`` before its event, or for all events of a local
    day at once when the clock shows ``decided_at_local``, ``days_before`` local days before that day (18:00 on the day
    before: ``decided_at_local=time(18), days_before=1``).
    """

    table: str
    event_at: str
    lead_time: timedelta | None = None
    decided_at_local: time | None = None
    days_before: int | None = None

    def __post_init__(self) -> None:
        if self.lead_time is not None:
            if self.lead_time < timedelta(0):
                raise InvalidDeclaration(f"a lead_time of {self.lead_time} decides after the event; choose 0 or more")
            if self.decided_at_local is not None or self.days_before is not None:
                raise InvalidDeclaration("decisions have a lead_time and a local time besides; give one of both")
            return
        if self.decided_at_local is None or self.days_before is None:
            raise InvalidDeclaration("decisions need a lead_time, or decided_at_local together with days_before")
        if self.days_before < 1:
            raise InvalidDeclaration(
                f"days_before is {self.days_before}: events of that day may be over by {self.decided_at_local}; "
                "choose 1 or more, or a lead_time"
            )
        if self.decided_at_local.tzinfo is not None:
            raise InvalidDeclaration(f"decided_at_local {self.decided_at_local} has a zone; give the time alone")
        if time(1) <= self.decided_at_local < time(3):
            raise InvalidDeclaration(
                f"the clock does not show {self.decided_at_local} exactly once on the nights it is changed; "
                "choose a time before 01:00, or 03:00 and later"
            )

    @property
    def longest_lead(self) -> timedelta:
        """The most that a decision can lie before its event.

        >>> str(Decisions(table="a.b", event_at="c", decided_at_local=time(18), days_before=1).longest_lead)
        '1 day, 7:00:00'
        """
        if self.lead_time is not None:
            return self.lead_time
        at, days_before = self.local
        since_midnight = timedelta(hours=at.hour, minutes=at.minute, seconds=at.second, microseconds=at.microsecond)
        # To the end of the events' day, and one hour more where the clocks go back on the way.
        return timedelta(days=days_before + 1, hours=1) - since_midnight

    @property
    def days_ahead(self) -> int:
        """How many local days before its event's a decision is surely taken; with a lead of hours, 0."""
        return self.local[1] if self.lead_time is None else self.lead_time // timedelta(days=1)

    @property
    def local(self) -> tuple[time, int]:
        """The local time and how many days before; raise InvalidDeclaration where there is a lead time instead."""
        if self.decided_at_local is None or self.days_before is None:
            raise InvalidDeclaration(f"decisions of {self.table} are taken {self.lead_time} ahead, at no local time")
        return self.decided_at_local, self.days_before
