with flight_outcomes as (

    select * from {{ ref('int_flight_outcomes') }}
    where {{ is_rebuilt() }}

),

labels as (

    select
        decision_id,
        partition_on,
        case when outcome = 'arrived' then air_time_minutes end as label,
        case when outcome = 'arrived' then arrived_at end as label_known_at,
        case when outcome <> 'arrived' then outcome end as no_label_reason
    from flight_outcomes

)

select * from labels
