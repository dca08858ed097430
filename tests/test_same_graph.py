"""The same graph in BigQuery and S3 as in a DuckDB file and a folder: raw to monitoring, row by row, byte by byte."""

import json
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.types as pat
import pytest

from ml_assets.core import registry
from tests.cloud import Cloud
from tests.conftest import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test lives two lives

SCHEMAS = {"raw", "staging", "intermediate", "features", "labels", "examples", "predictions", "monitoring"}
# Which run it was, and when, is another each time.
OF_THE_RUN = {f"predictions.arrival_delay{of}": ["run_id", "predicted_at"] for of in ("", "_served")}


@pytest.fixture(scope="module")
def in_duckdb(as_built: Home) -> dict[str, pa.Table]:
    """Every table and view of the life on a laptop."""
    with duckdb.connect(str(as_built.path / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        names = connection.execute(
            """
            select schema_name || '.' || table_name from duckdb_tables() union all
            select schema_name || '.' || view_name from duckdb_views() where not internal
            """
        ).fetchall()
        return {name: connection.sql(f"select * from {name}").to_arrow_table() for (name,) in names}


@pytest.fixture(scope="module")
def in_bigquery(cloud: Cloud) -> dict[str, pa.Table]:
    return cloud.tables()


def comparable(rows: pa.Table, *, without: list[str]) -> pa.Table:
    """Return the rows in an order that both engines agree on, whole numbers and fractions each of one width."""

    def widened(kind: pa.DataType) -> pa.DataType:
        if pat.is_integer(kind):
            return pa.int64()
        if pat.is_floating(kind):
            return pa.float64()
        return pa.timestamp("us", tz="UTC") if pat.is_timestamp(kind) else kind

    names = sorted(set(rows.column_names) - set(without))
    kept = rows.select(names)
    kept = kept.cast(pa.schema([pa.field(f.name, widened(f.type)) for f in kept.schema])).combine_chunks()
    return kept.sort_by([(name, "ascending") for name in names])


def differences(one: pa.Table, other: pa.Table) -> Iterator[str]:
    """Say how two tables differ: columns, types, how many rows, and of each column the first value that does."""
    if one.schema != other.schema:
        yield f"the columns are {one.schema} and {other.schema}"
    elif one.num_rows != other.num_rows:
        yield f"{one.num_rows} rows, {other.num_rows} rows"
    else:
        for name in one.column_names:
            a, b = one[name].to_pylist(), other[name].to_pylist()
            if a != b:
                first = next(i for i in range(len(a)) if a[i] != b[i])
                n = sum(x != y for x, y in zip(a, b, strict=True))
                yield f"{name}: {n} of {len(a)}, such as {a[first]!r} and {b[first]!r}"


def test_every_table_of_every_schema_is_there_in_both(in_duckdb, in_bigquery):
    assert {name.partition(".")[0] for name in in_duckdb} == SCHEMAS
    assert set(in_bigquery) == set(in_duckdb)
    assert all(rows.num_rows for name, rows in in_duckdb.items() if not name.endswith("_quarantine"))


def test_every_table_has_the_same_rows_exactly(in_duckdb, in_bigquery):
    found = {
        name: list(
            differences(
                *(comparable(rows, without=OF_THE_RUN.get(name, [])) for rows in (in_duckdb[name], in_bigquery[name]))
            )
        )
        for name in in_duckdb
    }
    assert {name: what for name, what in found.items() if what} == {}


def test_the_comparison_finds_one_changed_value_one_row_more_and_another_type(in_duckdb):
    rows = comparable(in_duckdb["labels.label_arrival_delay"], without=[])
    changed = rows.set_column(0, rows.column_names[0], pa.array(["x", *rows[0].to_pylist()[1:]]))
    assert [words.partition(":")[0] for words in differences(rows, changed)] == [rows.column_names[0]]
    assert list(differences(rows, rows.slice(1))) == [f"{rows.num_rows} rows, {rows.num_rows - 1} rows"]
    dates = rows.column_names.index("partition_on")
    assert (
        len(list(differences(rows, rows.set_column(dates, "partition_on", rows["partition_on"].cast(pa.string())))))
        == 1
    )
    assert list(differences(rows, rows)) == []


def test_the_models_are_the_same_to_the_byte_and_in_charge_on_the_same_days(cloud: Cloud, as_built: Home):
    here, there = as_built.files(), cloud.files()
    whole = ("models/", "training_sets/")
    packages = {path for path in here if path.startswith(whole)}
    assert packages
    assert {path for path in there if path.startswith(whole)} == packages
    assert [path for path in sorted(packages) if here[path] != there[path]] == []
    of_cloud = [
        (e.action, e.version, e.package_hash, e.effective_from)
        for e in registry.entries(cloud.life.lifecycle.store, "arrival_delay")
    ]
    entries = [json.loads(here[path]) for path in sorted(here) if path.startswith("ledger/arrival_delay/")]
    assert of_cloud
    assert [(a, v, h) for a, v, h, _ in of_cloud] == [(e["action"], e["version"], e["package_hash"]) for e in entries]


def test_what_people_read_is_the_same_page(cloud: Cloud, as_built: Home):
    here, there = as_built.files(), cloud.files()
    pages = {path for path in here if path.endswith(".html")}
    assert pages
    assert [path for path in sorted(pages) if here[path] != there[path]] == []
