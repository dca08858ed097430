with source as (

    select * from {{ source('raw', 'airlines') }}

),

renamed as (

    select
        carrier,
        name
    from source

)

select * from renamed
