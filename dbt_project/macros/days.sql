{#- The local days this run rebuilds. Read when a model runs, not when it is parsed, so that one parsed manifest
    serves every day. Only a real ISO date passes: what goes into SQL is the parsed date, not the text. -#}

{% macro first_day() -%}
    {{ return(modules.datetime.date.fromisoformat(var('first_day'))) }}
{%- endmacro %}

{% macro last_day() -%}
    {{ return(modules.datetime.date.fromisoformat(var('last_day'))) }}
{%- endmacro %}

{#- The condition "this row is of a day being rebuilt". `days_before` widens it backwards, for a model that needs
    yesterday's rows to compute today's. -#}
{% macro is_rebuilt(column='partition_on', days_before=0) -%}
    {%- if execute -%}
        {%- set first = first_day() - modules.datetime.timedelta(days=days_before) -%}
        {{ column }} between date '{{ first }}' and date '{{ last_day() }}'
    {%- else -%}
        true
    {%- endif -%}
{%- endmacro %}
