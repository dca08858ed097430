with schedules as (

    select * from {{ ref('stg_schedules') }}

),

airports as (

    select * from {{ ref('stg_airports') }}

),

-- Departure and arrival are looked at on the destination's clock: a schedule names no date of arrival.
at_destination as (

    select
        schedules.*,
        airports.time_zone as dest_time_zone,
        {{ local_date('schedules.scheduled_departure_at', 'airports.time_zone') }} as departure_on_at_dest
    from schedules
    left join airports on airports.airport = schedules.dest

),

arrivals as (

    select
        *,
        {{ local_hhmm_at('departure_on_at_dest', 'scheduled_arrival_local_hhmm', 'dest_time_zone') }} as same_day_at,
        {{ local_hhmm_at('departure_on_at_dest', 'scheduled_arrival_local_hhmm', 'dest_time_zone', days_later=1) }}
            as next_day_at
    from at_destination

),

scheduled_flights as (

    select
        decision_id,
        partition_on,
        carrier,
        flight,
        origin,
        dest,
        scheduled_hour_at,
        scheduled_departure_at,
        -- The first time after departure that the destination's clock shows the planned arrival.
        case when same_day_at > scheduled_departure_at then same_day_at else next_day_at end as scheduled_arrival_at,
        distance_miles,
        {{ integer_division('scheduled_departure_local_hhmm', 100) }} as scheduled_departure_local_hour,
        {{ integer_division('scheduled_departure_local_hhmm', 100) }} * 60
            + {{ remainder('scheduled_departure_local_hhmm', 100) }} as scheduled_departure_minute_of_day,
        {{ integer_division(remainder('scheduled_arrival_local_hhmm', 2400), 100) }} as scheduled_arrival_local_hour,
        {{ weekday('partition_on') }} as scheduled_weekday
    from arrivals

),

with_duration as (

    select
        *,
        {{ minutes_between('scheduled_departure_at', 'scheduled_arrival_at') }} as planned_minutes
    from scheduled_flights

)

select * from with_duration
