"""The same project for BigQuery: its SQL, made without a connection by an adapter that only listens."""

import json
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

PROJECT = Path(__file__).parents[2] / "dbt_project"

DAYS_OF_THE_PARSE = {"first_day": "2013-01-09", "last_day": "2013-01-09"}
DAYS_OF_THE_RUN = {"first_day": "2013-02-28", "last_day": "2013-03-01"}


@pytest.fixture(scope="module")
def statements():
    """Every SQL statement that dbt sent."""
    return []


@pytest.fixture(scope="module")
def bigquery(statements, tmp_path_factory):
    """Invoke dbt against a BigQuery in which the table feat_cancellations exists."""
    from dbt.adapters.bigquery import BigQueryAdapter, BigQueryConnectionManager
    from dbt.adapters.bigquery.connections import BigQueryAdapterResponse
    from dbt.adapters.bigquery.relation import BigQueryRelation
    from dbt.adapters.contracts.connection import ConnectionState
    from dbt.adapters.factory import reset_adapters
    from dbt.cli.main import dbtRunner
    from dbt_common.clients.agate_helper import empty_table

    folder = tmp_path_factory.mktemp("target")
    names = ("decision_id", "partition_on", "known_at", "carrier", "origin", "dest")

    def columns(self, *_):
        return [self.Column(name, "STRING") for name in names]

    def opened(connection):
        connection.handle, connection.state = MagicMock(), ConnectionState.OPEN
        return connection

    def listen(_, sql, **__):
        statements.append(sql)
        return BigQueryAdapterResponse(_message="OK"), empty_table()

    def existing(_, schema):
        return [BigQueryRelation.create(schema.database, schema.schema, "feat_cancellations", type="table")]

    def invoke(manifest, days, *arguments):
        folders = ["--project-dir", PROJECT, "--profiles-dir", PROJECT, "--target-path", folder]
        quiet = ["--log-level=none", "--log-level-file=none", "--no-version-check", "--target=bigquery"]
        try:
            result = dbtRunner(manifest=manifest).invoke(
                [*quiet, *arguments, *map(str, folders), "--vars", json.dumps(days)]
            )
        finally:
            reset_adapters()
        assert result.success, result.exception or [node.message for node in result.result.results]
        return result.result

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_ASSETS_BIGQUERY_PROJECT", "a-project")
        patch.setattr(BigQueryConnectionManager, "open", staticmethod(opened))
        patch.setattr(BigQueryConnectionManager, "execute", listen)
        patch.setattr(BigQueryAdapter, "check_schema_exists", lambda *_: True)
        patch.setattr(BigQueryAdapter, "list_schemas", lambda *_: ["features"])
        patch.setattr(BigQueryAdapter, "list_relations_without_caching", existing)
        patch.setattr(BigQueryAdapter, "get_columns_in_relation", columns)
        patch.setattr(BigQueryAdapter, "get_column_schema_from_query", columns)
        manifest = invoke(None, DAYS_OF_THE_PARSE, "parse", "--no-partial-parse")
        yield lambda *arguments: invoke(manifest, DAYS_OF_THE_RUN, *arguments)


# dagster-dbt installs sqlglot with a part that sqlglot itself calls outdated.
@pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")
def test_every_model_and_test_is_sql_that_bigquery_can_read(bigquery):
    import sqlglot

    nodes = bigquery("compile", "--no-populate-cache", "--no-introspect").results
    compiled = {node.node.name: node.node.compiled_code for node in nodes}
    assert len(compiled) == 37
    for name, sql in compiled.items():
        assert sqlglot.parse_one(sql, read="bigquery"), name
        assert not [
            word for word in ("to_minutes", "timestamptz", "strftime", "timezone(", "//", "||") if word in sql
        ], name


def test_the_days_replaced_are_those_of_the_run_not_those_of_the_parse(bigquery, statements):
    statements.clear()
    bigquery("run", "--select", "feat_cancellations")
    merge = " ".join(next(sql for sql in statements if "merge into" in sql).split())
    assert "in ( date '2013-02-28', date '2013-03-01' ) then delete" in merge
    assert not any("2013-01-09" in sql for sql in statements)


def test_a_table_is_partitioned_by_its_local_day_and_clustered_with_the_types_of_its_contract(bigquery, statements):
    statements.clear()
    bigquery("run", "--select", "feat_cancellations")
    create = " ".join(next(sql for sql in statements if "create or replace table" in sql).split())
    assert "decision_id string not null, partition_on date not null, known_at timestamp not null" in create
    assert "partition by partition_on cluster by origin" in create
    assert "labels=[('app', 'ml_assets'), ('made_by', 'dbt')]" in create


def test_a_table_is_clustered_by_what_its_views_look_rows_up_with():
    declared = [yaml.safe_load(path.read_text())["models"][0] for path in (PROJECT / "models").rglob("*.yml")
                if path.name != "sources.yml"]  # fmt: skip
    tables = {model["name"]: model["config"] for model in declared if model.get("config", {}).get("contract")}
    assert len(tables) == 10
    for name, config in tables.items():
        views = config.get("meta", {}).get("feature_views", [])
        looked_up = {column for view in views for column in view["entity"]} or {"decision_id"}
        assert set(config["cluster_by"]) == looked_up, name
        assert len(config["cluster_by"]) <= 4, "BigQuery admits no more"
