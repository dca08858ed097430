with source as (

    select * from {{ source('raw', 'planes') }}

),

renamed as (

    select
        tailnum as tail_number,
        year as built_in_year,
        manufacturer,
        model,
        engines as n_engines,
        seats as n_seats
    from source

)

select * from renamed
