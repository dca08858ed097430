with scheduled_flights as (

    select * from {{ ref('int_scheduled_flights') }}

),

flights as (

    select * from {{ ref('stg_flights') }}

),

-- An outcome's own local times carry no date, so its moments are the scheduled ones plus the delay.
outcomes as (

    select
        scheduled_flights.decision_id,
        scheduled_flights.partition_on,
        scheduled_flights.carrier,
        scheduled_flights.flight,
        scheduled_flights.origin,
        scheduled_flights.dest,
        scheduled_flights.scheduled_departure_at,
        flights.departure_delay_minutes,
        flights.arrival_delay_minutes,
        flights.air_time_minutes,
        case
            when flights.departure_delay_minutes is null then 'cancelled'
            when flights.arrival_delay_minutes is null then 'diverted'
            else 'arrived'
        end as outcome,
        {{ minutes_after('scheduled_flights.scheduled_departure_at', 'flights.departure_delay_minutes') }} as departed_at,
        {{ minutes_after('scheduled_flights.scheduled_arrival_at', 'flights.arrival_delay_minutes') }} as arrived_at,
        -- The data does not say when a flight was cancelled. Two hours after it should have left is a judgement, on
        -- the safe side: by then it stands on the airport's boards.
        case
            when flights.departure_delay_minutes is null
                then {{ minutes_after('scheduled_flights.scheduled_departure_at', 120) }}
        end as cancellation_known_at
    from scheduled_flights
    inner join flights
        on flights.carrier = scheduled_flights.carrier
        and flights.flight = scheduled_flights.flight
        and flights.scheduled_hour_at = scheduled_flights.scheduled_hour_at
        and flights.partition_on = scheduled_flights.partition_on

)

select * from outcomes
