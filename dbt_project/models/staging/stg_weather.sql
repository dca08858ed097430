with source as (

    select * from {{ source('raw', 'weather') }}

),

renamed as (

    select
        partition_on,
        origin,
        time_hour as observed_at,
        temp as temperature_f,
        dewp as dew_point_f,
        humid as relative_humidity_percent,
        wind_dir as wind_direction_degrees,
        wind_speed as wind_speed_mph,
        wind_gust as wind_gust_mph,
        precip as precipitation_inches,
        pressure as pressure_mbar,
        visib as visibility_miles
    from source

)

select * from renamed
