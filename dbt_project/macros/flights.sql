{#- The id of a flight's decision: carrier, flight number and scheduled hour in UTC, UA-1545-20130101T10. -#}
{% macro flight_decision_id(carrier, flight, scheduled_hour_at) -%}
    {{ return(adapter.dispatch('flight_decision_id')(carrier, flight, scheduled_hour_at)) }}
{%- endmacro %}

{% macro duckdb__flight_decision_id(carrier, flight, scheduled_hour_at) -%}
    {{ carrier }} || '-' || {{ flight }} || '-' || strftime(timezone('UTC', {{ scheduled_hour_at }}), '%Y%m%dT%H')
{%- endmacro %}

{% macro bigquery__flight_decision_id(carrier, flight, scheduled_hour_at) -%}
    concat({{ carrier }}, '-', {{ flight }}, '-', format_timestamp('%Y%m%dT%H', {{ scheduled_hour_at }}, 'UTC'))
{%- endmacro %}
