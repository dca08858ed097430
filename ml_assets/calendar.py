"""The daily partitions of the whole graph, and the arithmetic of New York local days."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

LOCAL_ZONE = ZoneInfo("America/New_York")
FIRST_DAY = date(2013, 1, 1)

# end_offset=1: today's partition exists, because a training as of today uses everything known before today starts.
DAILY = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone=str(LOCAL_ZONE), end_offset=1)


def day_starts_at(day: date) -> datetime:
    """Return the UTC moment at which a New York local day begins.

    >>> day_starts_at(date(2013, 3, 10)).isoformat(), day_starts_at(date(2013, 3, 11)).isoformat()
    ('2013-03-10T05:00:00+00:00', '2013-03-11T04:00:00+00:00')
    """
    return datetime.combine(day, time.min, LOCAL_ZONE).astimezone(UTC)


def day_ends_at(day: date) -> datetime:
    """Return the UTC moment at which a local day is over: 23, 24 or 25 hours after it began."""
    return day_starts_at(day + timedelta(days=1))
