with scheduled_flights as (

    select * from {{ ref('int_scheduled_flights') }}
    where {{ is_rebuilt() }}

),

with_congestion as (

    select
        decision_id,
        partition_on,
        -- Schedules are published months ahead. The start of the day before is on the safe side of that.
        {{ local_hhmm_at('partition_on', 0, "'America/New_York'", days_later=-1) }} as known_at,
        carrier,
        origin,
        dest,
        scheduled_departure_local_hour,
        scheduled_departure_minute_of_day,
        scheduled_arrival_local_hour,
        scheduled_weekday,
        planned_minutes,
        distance_miles,
        count(*) over (partition by origin, scheduled_hour_at) as n_planned_departures_origin,
        count(*) over (partition by origin, carrier, scheduled_hour_at) as n_planned_departures_origin_carrier,
        count(*) over (partition by scheduled_hour_at) as n_planned_departures_all_origins,
        count(*) over (partition by dest, scheduled_hour_at) as n_planned_departures_to_dest
    from scheduled_flights

)

select * from with_congestion
