with flight_outcomes as (

    select * from {{ ref('int_flight_outcomes') }}
    where {{ is_rebuilt() }}

),

arrivals as (

    select
        decision_id,
        partition_on,
        arrived_at as known_at,
        carrier,
        flight,
        origin,
        dest,
        arrival_delay_minutes,
        arrival_delay_minutes >= 15 as is_late_arrival,
        air_time_minutes
    from flight_outcomes
    where outcome = 'arrived'

)

select * from arrivals
