with flight_outcomes as (

    select * from {{ ref('int_flight_outcomes') }}
    where {{ is_rebuilt() }}

),

labels as (

    select
        decision_id,
        partition_on,
        arrival_delay_minutes >= 15 as label,
        arrived_at as label_known_at,
        case when outcome <> 'arrived' then outcome end as no_label_reason
    from flight_outcomes

)

select * from labels
