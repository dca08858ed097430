"""A test server for BigQuery's REST API: real HTTP on 127.0.0.1, DuckDB in memory behind it.

It carries google-cloud-bigquery, dagster-gcp's BigQueryResource and dbt-bigquery. The clients find it by
``BIGQUERY_EMULATOR_HOST``; in a dbt profile: ``method: oauth-secrets``, ``token: fake``, ``api_endpoint``, and
``job_retries: 0``.

Not here: the Storage API, blocks in scripts (IF, LOOP, EXCEPTION), UDFs, ML, IAM, external tables, copies of single
partitions, ingestion-time partitions, legacy SQL. Bytes read count whole columns: no partition is left out.
"""

from tests.servers.bigquery.server import BigQueryServer, Request

__all__ = ["BigQueryServer", "Request"]
