import pytest

from ml_assets.core.column_lineage import ColumnLineage, column_lineage

# dagster-dbt installs sqlglot with a parser that calls itself outdated when it is first imported.
pytestmark = pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")

SCHEMA = {
    "raw.flights": {"id": "int", "origin": "varchar", "delay": "int"},
    "raw.airports": {"code": "varchar", "zone": "varchar"},
}


def lineage(sql: str) -> ColumnLineage:
    return column_lineage(sql, schema=SCHEMA, dialect="duckdb")


@pytest.mark.parametrize(
    ("expression", "parents"),
    [
        ("delay", ["raw.flights.delay"]),
        ("f.delay", ["raw.flights.delay"]),
        ("delay + id", ["raw.flights.delay", "raw.flights.id"]),
        ("delay + delay", ["raw.flights.delay"]),
        ("case when delay > 15 then origin end", ["raw.flights.delay", "raw.flights.origin"]),
        ("cast(delay as double)", ["raw.flights.delay"]),
        ("42", []),
        ("null", []),
        ("current_date", []),
        ("count(*) over (partition by origin)", ["raw.flights.origin"]),
        ("lag(delay) over (partition by origin order by id)", [f"raw.flights.{c}" for c in ("delay", "id", "origin")]),
    ],
)
def test_a_column_comes_from_the_columns_its_expression_reads(expression: str, parents: list[str]):
    found = lineage(f"select {expression} as it from raw.flights f")
    assert [f"{table}.{column}" for table, column in found["it"]] == parents


def test_columns_are_followed_through_steps_to_the_tables_that_are_stored():
    found = lineage("""
        with flights as (select id, origin as airport, delay * 60 as seconds from raw.flights),
        late as (select * from flights where seconds > 900),
        joined as (select late.id, airports.zone, late.seconds from late join raw.airports on code = airport)
        select id, zone as time_zone, seconds / 60 as minutes from joined
    """)
    assert found == {
        "id": [("raw.flights", "id")],
        "time_zone": [("raw.airports", "zone")],
        "minutes": [("raw.flights", "delay")],
    }


def test_a_star_is_every_column_of_its_table():
    assert lineage("select * from raw.airports") == {
        "code": [("raw.airports", "code")],
        "zone": [("raw.airports", "zone")],
    }


def test_a_union_takes_from_both_sides():
    found = lineage("select origin as place from raw.flights union all select code from raw.airports")
    assert found == {"place": [("raw.airports", "code"), ("raw.flights", "origin")]}


def test_the_database_in_front_of_a_name_is_left_out():
    found = lineage('select delay from "warehouse"."raw"."flights"')
    assert found == {"delay": [("raw.flights", "delay")]}


def test_only_the_tables_the_statement_reads_are_asked_for():
    class Asked(dict[str, dict[str, str]]):
        def __missing__(self, table: str) -> dict[str, str]:
            self[table] = {"delay": "int"}
            return self[table]

    asked = Asked()
    column_lineage("with f as (select delay from raw.flights) select * from f", schema=asked, dialect="duckdb")
    assert set(asked) == {"raw.flights"}


def test_the_other_dialect_is_understood_too():
    sql = "select timestamp_add(seen_at, interval 1 hour) as known_at from `project`.`raw`.`weather`"
    schema = {"raw.weather": {"seen_at": "timestamp"}}
    assert column_lineage(sql, schema=schema, dialect="bigquery") == {"known_at": [("raw.weather", "seen_at")]}
