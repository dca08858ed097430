with weather as (

    -- The first hours of a day are compared with the last ones of the day before.
    select * from {{ ref('stg_weather') }}
    where {{ is_rebuilt(days_before=1) }}

),

three_hours_before as (

    select
        origin,
        {{ minutes_after('observed_at', 180) }} as observed_at,
        pressure_mbar,
        visibility_miles
    from weather

),

with_changes as (

    select
        weather.partition_on,
        weather.origin,
        -- A row stamped 05:00 covers 05:00 to 06:00, so it is known only at 06:00.
        {{ minutes_after('weather.observed_at', 60) }} as known_at,
        weather.temperature_f,
        weather.dew_point_f,
        weather.relative_humidity_percent,
        case
            when weather.wind_speed_mph = 0 then 'calm'
            when weather.wind_direction_degrees is null and weather.wind_speed_mph > 0 then 'variable'
            when weather.wind_direction_degrees >= 337.5 or weather.wind_direction_degrees < 22.5 then 'north'
            when weather.wind_direction_degrees < 67.5 then 'northeast'
            when weather.wind_direction_degrees < 112.5 then 'east'
            when weather.wind_direction_degrees < 157.5 then 'southeast'
            when weather.wind_direction_degrees < 202.5 then 'south'
            when weather.wind_direction_degrees < 247.5 then 'southwest'
            when weather.wind_direction_degrees < 292.5 then 'west'
            when weather.wind_direction_degrees < 337.5 then 'northwest'
        end as wind_octant,
        weather.wind_speed_mph,
        weather.wind_gust_mph,
        weather.precipitation_inches,
        weather.pressure_mbar,
        weather.visibility_miles,
        weather.pressure_mbar - three_hours_before.pressure_mbar as pressure_change_3h_mbar,
        weather.visibility_miles - three_hours_before.visibility_miles as visibility_change_3h_miles
    from weather
    left join three_hours_before
        on three_hours_before.origin = weather.origin
        and three_hours_before.observed_at = weather.observed_at
    where {{ is_rebuilt('weather.partition_on') }}

)

select * from with_changes
