"""New York local days: where each begins, and the range of them in which dated tables are read and replaced."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ml_assets.core.errors import BadInput

# Whose local days are the partitions of every dated table.
LOCAL_ZONE_NAME = "America/New_York"
LOCAL_ZONE = ZoneInfo(LOCAL_ZONE_NAME)


def day_starts_at(day: date) -> datetime:
    """Return the UTC moment at which a New York local day begins.

    >>> day_starts_at(date(2013, 3, 10)).isoformat(), day_starts_at(date(2013, 3, 11)).isoformat()
    ('2013-03-10T05:00:00+00:00', '2013-03-11T04:00:00+00:00')
    """
    return datetime.combine(day, time.min, LOCAL_ZONE).astimezone(UTC)


def local_day(moment: datetime) -> date:
    """Return the New York local day of a moment.

    >>> local_day(datetime(2013, 7, 2, 3, 59, tzinfo=UTC))
    datetime.date(2013, 7, 1)
    """
    return moment.astimezone(LOCAL_ZONE).date()


@dataclass(frozen=True, kw_only=True)
class DayRange:
    """The local days first..last, both included. A run of one partition has first == last."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise BadInput(
                f"the range ends on {self.last}, before it begins on {self.first}; give the earlier day first"
            )

    def __str__(self) -> str:
        """Return the days as a person writes them.

        >>> str(DayRange(first=date(2013, 7, 1), last=date(2013, 7, 14)))
        '2013-07-01..2013-07-14'
        """
        return str(self.first) if self.first == self.last else f"{self.first}..{self.last}"

    @property
    def dates(self) -> tuple[date, ...]:
        """Every day of the range, in order.

        >>> len(DayRange(first=date(2013, 2, 1), last=date(2013, 2, 28)).dates)
        28
        """
        return tuple(self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1))
