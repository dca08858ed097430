with scheduled_flights as (

    select * from {{ ref('int_scheduled_flights') }}
    where {{ is_rebuilt() }}

),

planned_departures as (

    select
        decision_id,
        partition_on,
        scheduled_departure_at as known_at,
        carrier,
        origin,
        dest
    from scheduled_flights

)

select * from planned_departures
