"""The daily partitions of the whole graph, and the arithmetic of New York local days."""

from datetime import date, datetime, timedelta

import dagster as dg

from ml_assets.core.days import LOCAL_ZONE, DayRange, day_starts_at, local_day
from ml_assets.core.errors import BadInput

__all__ = [
    "DAILY",
    "DAILY_FRESHNESS",
    "FIRST_DAY",
    "LOCAL_ZONE",
    "ONE_RUN",
    "WEEKLY_FRESHNESS",
    "as_of_day",
    "day_starts_at",
    "days_of",
    "refuse_unknown_partitions",
    "today",
]

FIRST_DAY = date(2013, 1, 1)

# end_offset=1: today's partition exists, because a training as of today uses everything known before today starts.
DAILY = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), timezone=str(LOCAL_ZONE), end_offset=1)


def today(now: datetime) -> date:
    """Return the New York local day of a moment."""
    return local_day(now)


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
