with source as (

    select * from {{ source('raw', 'flights') }}

),

renamed as (

    select
        {{ flight_decision_id('carrier', 'flight', 'time_hour') }} as decision_id,
        partition_on,
        carrier,
        flight,
        time_hour as scheduled_hour_at,
        tailnum as tail_number,
        dep_time as departure_local_hhmm,
        dep_delay as departure_delay_minutes,
        arr_time as arrival_local_hhmm,
        arr_delay as arrival_delay_minutes,
        air_time as air_time_minutes
    from source

)

select * from renamed
