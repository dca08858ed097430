with flight_outcomes as (

    select * from {{ ref('int_flight_outcomes') }}
    where {{ is_rebuilt() }}

),

outcomes as (

    select
        decision_id,
        partition_on,
        coalesce(departed_at, cancellation_known_at) as known_at,
        carrier,
        origin,
        dest,
        outcome = 'cancelled' as is_cancelled
    from flight_outcomes

)

select * from outcomes
