{#- No two rows share these columns, and none of them is null. -#}
{% test is_key(model, columns) %}
    select {{ columns | join(', ') }}, count(*) as n_rows
    from {{ model }}
    group by {{ columns | join(', ') }}
    having count(*) > 1 {% for column in columns %} or {{ column }} is null {% endfor %}
{% endtest %}


{#- `where: days_being_rebuilt` limits a test to the days of this run. A condition written out in the yml would be
    frozen at the days of the run that parsed the project. -#}
{% macro get_where_subquery(relation) -%}
    {%- if config.get('where') != 'days_being_rebuilt' -%}
        {% do return(default__get_where_subquery(relation)) %}
    {%- endif -%}
    {% do return('(select * from ' ~ relation ~ ' where ' ~ is_rebuilt() ~ ') as rebuilt') %}
{%- endmacro %}
