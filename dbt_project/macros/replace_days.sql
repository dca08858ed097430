{#- DuckDB: delete the days being rebuilt, then insert the new rows. dbt runs both statements between one BEGIN and
    one COMMIT, so a killed run leaves the old rows; and a day that is now empty ends up empty. -#}
{% macro get_incremental_replace_days_sql(arg_dict) %}
    {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
    delete from {{ arg_dict['target_relation'] }} where {{ is_rebuilt() }};
    insert into {{ arg_dict['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict['temp_relation'] }}
{% endmacro %}


{#- BigQuery: the list of partitions that `insert_overwrite` replaces in its one MERGE. A list in a model's config is
    frozen when the manifest is parsed, and a list taken from the new rows would keep a day that is now empty;
    so this stands in for dbt-bigquery's macro of the same name and passes on the days of this run. -#}
{% macro bq_generate_incremental_insert_overwrite_build_sql(
    tmp_relation, target_relation, sql, unique_key, partition_by, partitions, dest_columns, tmp_relation_exists,
    copy_partitions
) %}
    {% set build_sql = bq_insert_overwrite_sql(
        tmp_relation, target_relation, sql, unique_key, partition_by, rebuilt_day_literals(), dest_columns,
        tmp_relation_exists, copy_partitions
    ) %}
    {{ return(build_sql) }}
{% endmacro %}


{% macro rebuilt_day_literals() -%}
    {%- set first, last, literals = first_day(), last_day(), [] -%}
    {%- for offset in range((last - first).days + 1) -%}
        {%- do literals.append("date '" ~ (first + modules.datetime.timedelta(days=offset)) ~ "'") -%}
    {%- endfor -%}
    {{ return(literals) }}
{%- endmacro %}
