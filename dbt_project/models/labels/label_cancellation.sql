with flight_outcomes as (

    select * from {{ ref('int_flight_outcomes') }}
    where {{ is_rebuilt() }}

),

labels as (

    select
        decision_id,
        partition_on,
        outcome = 'cancelled' as label,
        coalesce(departed_at, cancellation_known_at) as label_known_at,
        cast(null as {{ dbt.type_string() }}) as no_label_reason
    from flight_outcomes

)

select * from labels
