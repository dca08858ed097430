with flight_outcomes as (

    select * from {{ ref('int_flight_outcomes') }}
    where {{ is_rebuilt() }}

),

departures as (

    select
        decision_id,
        partition_on,
        departed_at as known_at,
        carrier,
        origin,
        dest,
        departure_delay_minutes,
        departure_delay_minutes >= 15 as is_late_departure
    from flight_outcomes
    where departed_at is not null

)

select * from departures
