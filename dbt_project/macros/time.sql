{#- Arithmetic of moments and local time that DuckDB and BigQuery spell differently. `moment` is a TIMESTAMPTZ in
    DuckDB and a TIMESTAMP in BigQuery: both are points in time. `zone` is an IANA name (a column or a quoted text). -#}


{#- A moment that many minutes later. -#}
{% macro minutes_after(moment, minutes) -%}
    {{ return(adapter.dispatch('minutes_after')(moment, minutes)) }}
{%- endmacro %}

{% macro duckdb__minutes_after(moment, minutes) -%}
    ({{ moment }} + to_minutes({{ minutes }}))
{%- endmacro %}

{% macro bigquery__minutes_after(moment, minutes) -%}
    timestamp_add({{ moment }}, interval ({{ minutes }}) minute)
{%- endmacro %}


{#- Whole minutes from one moment to a later one, where both fall on whole minutes. -#}
{% macro minutes_between(earlier, later) -%}
    {{ return(adapter.dispatch('minutes_between')(earlier, later)) }}
{%- endmacro %}

{% macro duckdb__minutes_between(earlier, later) -%}
    date_diff('minute', {{ earlier }}, {{ later }})
{%- endmacro %}

{% macro bigquery__minutes_between(earlier, later) -%}
    timestamp_diff({{ later }}, {{ earlier }}, minute)
{%- endmacro %}


{#- The date on the wall calendar of a zone. -#}
{% macro local_date(moment, zone) -%}
    {{ return(adapter.dispatch('local_date')(moment, zone)) }}
{%- endmacro %}

{% macro duckdb__local_date(moment, zone) -%}
    cast(timezone({{ zone }}, {{ moment }}) as date)
{%- endmacro %}

{% macro bigquery__local_date(moment, zone) -%}
    date({{ moment }}, {{ zone }})
{%- endmacro %}


{#- The moment at which the wall clock of a zone shows HHMM on a date. HHMM is an integer from 0 to 2400; 2400 is the
    midnight at the end of that date. The clock, not 24 h arithmetic, decides on days when it is changed. -#}
{% macro local_hhmm_at(local_date, hhmm, zone, days_later=0) -%}
    {{ return(adapter.dispatch('local_hhmm_at')(local_date, hhmm, zone, days_later)) }}
{%- endmacro %}

{% macro duckdb__local_hhmm_at(local_date, hhmm, zone, days_later) -%}
    timezone(
        {{ zone }},
        cast({{ local_date }} + {{ days_later }} as timestamp) + to_minutes(({{ hhmm }} // 100) * 60 + {{ hhmm }} % 100)
    )
{%- endmacro %}

{% macro bigquery__local_hhmm_at(local_date, hhmm, zone, days_later) -%}
    timestamp(
        datetime_add(
            datetime(date_add({{ local_date }}, interval {{ days_later }} day)),
            interval (div({{ hhmm }}, 100) * 60 + mod({{ hhmm }}, 100)) minute
        ),
        {{ zone }}
    )
{%- endmacro %}


{#- The day of the week of a date, as a word. -#}
{% macro weekday(local_date) -%}
    {{ return(adapter.dispatch('weekday')(local_date)) }}
{%- endmacro %}

{% macro duckdb__weekday(local_date) -%}
    lower(dayname({{ local_date }}))
{%- endmacro %}

{% macro bigquery__weekday(local_date) -%}
    lower(format_date('%A', {{ local_date }}))
{%- endmacro %}


{#- The quotient of two integers, rounded towards zero. -#}
{% macro integer_division(dividend, divisor) -%}
    {{ return(adapter.dispatch('integer_division')(dividend, divisor)) }}
{%- endmacro %}

{% macro duckdb__integer_division(dividend, divisor) -%}
    ({{ dividend }} // {{ divisor }})
{%- endmacro %}

{% macro bigquery__integer_division(dividend, divisor) -%}
    div({{ dividend }}, {{ divisor }})
{%- endmacro %}


{#- What an integer division leaves. Both dialects know it by this name. -#}
{% macro remainder(dividend, divisor) -%}
    mod({{ dividend }}, {{ divisor }})
{%- endmacro %}
