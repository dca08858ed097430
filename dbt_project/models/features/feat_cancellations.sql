with flight_outcomes as (

    select * from {{ ref('int_flight_outcomes') }}
    where {{ is_rebuilt() }}

),

cancellations as (

    select
        decision_id,
        partition_on,
        cancellation_known_at as known_at,
        carrier,
        origin,
        dest
    from flight_outcomes
    where outcome = 'cancelled'

)

select * from cancellations
