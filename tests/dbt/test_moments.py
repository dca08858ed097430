"""When a flight left and arrived, against the local times of the source itself, which no model reads."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

# It landed after the clocks went forward, at 03:03; the source writes 203, an hour that night did not have.
_WRITTEN_IN_WINTER_TIME = {"B6-35-20130310T02"}


def hhmm_in(zone: str, moment: datetime) -> int:
    local = moment.astimezone(ZoneInfo(zone))
    return local.hour * 100 + local.minute


@pytest.fixture
def flights(query):
    return query(
        """
        select decision_id, outcomes.dest, coalesce(tzone, 'America/Puerto_Rico'), departed_at, arrived_at,
            dep_time, arr_time
        from intermediate.int_flight_outcomes as outcomes
        join raw.flights as written using (partition_on, carrier, flight)
        left join raw.airports on faa = outcomes.dest
        where written.time_hour = date_trunc('hour', scheduled_departure_at)
        """
    )


def test_every_departure_and_arrival_shows_on_the_local_clocks_as_the_source_wrote_it(flights):
    wrong = {
        decision_id
        for decision_id, _, zone, departed_at, arrived_at, dep_time, arr_time in flights
        if (departed_at is not None and hhmm_in("America/New_York", departed_at) != dep_time % 2400)
        or (arrived_at is not None and hhmm_in(zone, arrived_at) != arr_time % 2400)
    }
    assert len(flights) > 6000
    assert wrong == _WRITTEN_IN_WINTER_TIME


def test_honolulu_and_san_juan_are_among_them(flights):
    assert {"HNL", "SJU", "STT", "BQN", "PSE"} <= {flight[1] for flight in flights}


def test_no_flight_arrives_before_it_leaves_or_takes_longer_than_half_a_day(flights):
    durations = [flight[4] - flight[3] for flight in flights if flight[4] is not None]
    assert timedelta(minutes=15) < min(durations)
    assert max(durations) < timedelta(hours=13)


def test_an_event_stays_with_the_day_of_its_schedule_when_it_happens_on_the_next(query):
    rows = query(
        """
        select count(*) from features.feat_departures
        where (known_at at time zone 'America/New_York')::date = partition_on + 1
        """
    )
    assert rows[0][0] > 0


def test_a_schedule_is_known_at_the_start_of_the_local_day_before(query):
    rows = query("select distinct partition_on, known_at from features.feat_flight_schedule")
    known = {str(day): known_at.astimezone(UTC) for day, known_at in rows}
    assert known["2013-03-10"] == datetime(2013, 3, 9, 5, tzinfo=UTC)
    assert known["2013-03-11"] == datetime(2013, 3, 10, 5, tzinfo=UTC)
    assert known["2013-11-04"] == datetime(2013, 11, 3, 4, tzinfo=UTC)


def test_every_flight_is_one_departure_or_one_cancellation_and_has_one_label_row(query):
    counts = query(
        """
        select
            (select count(*) from raw.flights),
            (select count(*) from labels.label_arrival_delay),
            (select count(*) from features.feat_departures) + (select count(*) from features.feat_cancellations),
            (select count(*) from features.feat_arrivals),
            (select count(*) from labels.label_arrival_delay where label is not null and no_label_reason is null),
            (select count(*) from labels.label_arrival_delay where label is not null and label_known_at is not null)
        """
    )[0]
    n_flights, n_labels, n_left_or_cancelled, n_arrived, n_labelled, n_with_time = counts
    assert n_flights == n_labels == n_left_or_cancelled
    assert n_arrived == n_labelled == n_with_time


def test_the_labels_of_cancellation_and_air_time_agree_with_the_source(query):
    """By the source's own columns: a cancelled flight has no departure, one that arrived has minutes in the air."""
    counts = query(
        """
        select
            count(*),
            count(*) filter ((dep_time is null) <> cancelled.label or cancelled.no_label_reason is not null),
            count(*) filter (air_time.label is distinct from written.air_time),
            count(*) filter ((written.air_time is null) <> (air_time.no_label_reason is not null)),
            count(*) filter ((written.air_time is null) <> (air_time.label_known_at is null)),
            count(*) filter (cancelled.label),
            count(*) filter (air_time.no_label_reason = 'diverted' and not cancelled.label),
            count(*) filter (cancelled.label_known_at < outcomes.scheduled_departure_at - interval 1 hour)
        from intermediate.int_flight_outcomes as outcomes
        join raw.flights as written using (partition_on, carrier, flight)
        join labels.label_cancellation as cancelled using (decision_id)
        join labels.label_air_time as air_time using (decision_id)
        where written.time_hour = date_trunc('hour', scheduled_departure_at)
        """
    )[0]
    n_flights, *disagreements = counts[:5]
    n_cancelled, n_diverted, n_too_early = counts[5:]
    assert n_flights > 6000
    assert disagreements == [0, 0, 0, 0]
    assert n_cancelled > 100
    assert n_diverted > 0
    assert n_too_early == 0
