with source as (

    select * from {{ source('raw', 'schedules') }}

),

renamed as (

    select
        {{ flight_decision_id('carrier', 'flight', 'time_hour') }} as decision_id,
        partition_on,
        carrier,
        flight,
        origin,
        dest,
        time_hour as scheduled_hour_at,
        {{ minutes_after('time_hour', 'minute') }} as scheduled_departure_at,
        sched_dep_time as scheduled_departure_local_hhmm,
        sched_arr_time as scheduled_arrival_local_hhmm,
        distance as distance_miles
    from source

)

select * from renamed
