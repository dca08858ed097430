with source as (

    select * from {{ source('raw', 'airports') }}

),

renamed as (

    select
        faa as airport,
        name,
        lat as latitude_degrees,
        lon as longitude_degrees,
        alt as altitude_feet,
        tzone as time_zone
    from source

),

-- The source leaves out four destinations in Puerto Rico and the Virgin Islands. Without their clock no arrival
-- there has a time. All four keep Atlantic time, the whole year.
left_out as (

    select airport, 'America/Puerto_Rico' as time_zone
    from (
        select 'BQN' as airport
        union all select 'PSE'
        union all select 'SJU'
        union all select 'STT'
    ) as names

),

completed as (

    select airport, name, latitude_degrees, longitude_degrees, altitude_feet, time_zone
    from renamed

    union all

    select left_out.airport, null, null, null, null, left_out.time_zone
    from left_out
    left join renamed on renamed.airport = left_out.airport
    where renamed.airport is null

)

select * from completed
