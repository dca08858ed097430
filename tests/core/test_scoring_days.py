"""Which days a champion predicts, and which nobody could."""

from datetime import UTC, date, datetime

import pyarrow as pa

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core import registry
from ml_assets.core.scoring_days import days_before_the_first_champion
from ml_assets.use_cases import arrival_delay, cancellation

JULY = [date(2013, 7, day) for day in (1, 2, 3)]


def examples(hour: int, days_before: int) -> pa.Table:
    """One decision for each day, taken at an hour (UTC) of so many days before."""
    moments = [datetime(2013, 7, 1, hour, tzinfo=UTC).replace(day=day.day) for day in JULY]
    decided = [moment.timestamp() - days_before * 86_400 for moment in moments]
    decided_at = pa.array([datetime.fromtimestamp(at, UTC) for at in decided], pa.timestamp("us", tz="UTC"))
    return pa.table({"partition_on": pa.array(JULY, pa.date32()), "decided_at": decided_at})


def in_charge_from(day: date, use_case: str) -> ObjectArtifactStore:
    store = ObjectArtifactStore("memory://")
    registry.promote(
        store,
        use_case=use_case,
        version="2013-07-01-a",
        package_hash="a" * 64,
        effective_from=day,
        as_of=day,
        reason="first",
        gates=(),
        recorded_at=datetime(2013, 7, 1, tzinfo=UTC),
        recorded_by="gates",
    )
    return store


def test_a_day_decided_on_the_evening_before_its_first_champion_is_nobodys():
    evening = examples(hour=22, days_before=1)  # 18:00 in New York
    store = in_charge_from(JULY[0], "cancellation")
    assert days_before_the_first_champion(evening, use_case=cancellation.USE_CASE, store=store) == [JULY[0]]
    later = in_charge_from(JULY[1], "cancellation")
    # Of the first of July nobody is in charge: that is an error of whoever asks for it, and is raised as one.
    assert days_before_the_first_champion(evening, use_case=cancellation.USE_CASE, store=later) == [JULY[1]]


def test_what_is_decided_on_its_own_day_has_its_champion():
    noon = examples(hour=16, days_before=0)
    store = in_charge_from(JULY[0], "arrival_delay")
    assert days_before_the_first_champion(noon, use_case=arrival_delay.USE_CASE, store=store) == []
