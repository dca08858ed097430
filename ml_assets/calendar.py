"""The daily partitions of the whole graph, and the arithmetic of New York local days."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from ml_assets.core.days import LOCAL_ZONE_NAME
from ml_assets.core.errors import BadInput
from ml_assets.core.ports import DayRange

LOCAL_ZONE = ZoneInfo(LOCAL_ZONE_NAME)
FIRST_DAY = date(2013, 1, 1)

# end_offset=1: today's partition exists, because a training as of today uses everything known before today starts.
DAILY = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone=str(LOCAL_ZONE), end_offset=1)


def day_starts_at(day: date) -> datetime:
    """Return the UTC moment at which a New York local day begins.

    >>> day_starts_at(date(2013, 3, 10)).isoformat(), day_starts_at(date(2013, 3, 11)).isoformat()
    ('2013-03-10T05:00:00+00:00', '2013-03-11T04:00:00+00:00')
    """
    return datetime.combine(day, time.min, LOCAL_ZONE).astimezone(UTC)


def now() -> datetime:
    """Return this moment, UTC: the one clock of the assets, schedules and sensors."""
    return datetime.now(UTC)


def today(moment: datetime) -> date:
    """Return the New York local day of a moment."""
    return moment.astimezone(LOCAL_ZONE).date()


def refuse_unknown_partitions(days: DayRange) -> None:
    """Raise BadInput where a day has no partition: before the first day, or after today."""
    last = date.fromisoformat(DAILY.get_last_partition_key() or FIRST_DAY.isoformat())
    if days.first < FIRST_DAY or days.last > last:
        raise BadInput(f"{days} is not in the partitions, which are {FIRST_DAY}..{last} (today); choose days in them")


def days_of(context: dg.AssetExecutionContext) -> DayRange:
    """Return the local days that this run of a daily asset is for: one, or a range."""
    keys = context.partition_key_range
    return DayRange(first=date.fromisoformat(keys.start), last=date.fromisoformat(keys.end))


def as_of_day(context: dg.AssetExecutionContext) -> date:
    """Return the as-of date that this run of a training asset is for."""
    return date.fromisoformat(context.partition_key)


ONE_RUN = dg.BackfillPolicy.single_run()

# The daily run starts at 06:30; a day's grace less than a missed run warns, half a day later it fails.
DAILY_FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=36))
WEEKLY_FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=8), fail_window=timedelta(days=15))
