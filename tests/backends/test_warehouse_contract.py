"""What every warehouse must do, whatever its technology: each fixture of ``make_warehouse`` passes the same tests."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from ml_assets.backends.bigquery_warehouse import BigQueryWarehouse
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.errors import DataMissing, InvalidName, SchemaChanged
from ml_assets.core.ports import DayRange, Parameter, Warehouse

MONDAY, TUESDAY, WEDNESDAY = date(2013, 7, 1), date(2013, 7, 2), date(2013, 7, 3)
SCHEMA = pa.schema(
    [("partition_on", pa.date32()), ("origin", pa.string()), ("seen_at", pa.timestamp("us", "UTC")), ("n", pa.int64())]
)


@pytest.fixture(params=["duckdb", "in memory", "bigquery"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """One warehouse of each technology, empty."""
    if request.param == "bigquery":
        from dagster_gcp import BigQueryResource

        server = request.getfixturevalue("bigquery")
        return BigQueryWarehouse(BigQueryResource(project=server.project, location="US").get_client, location="US")
    return DuckDBWarehouse(tmp_path / "home" / "warehouse.duckdb" if request.param == "duckdb" else None)


def one(day: date) -> DayRange:
    return DayRange(first=day, last=day)


def rows(*values: tuple[date, str, int]) -> pa.Table:
    moment = datetime(2013, 7, 1, 4, 30, tzinfo=UTC)
    listed = [{"partition_on": day, "origin": origin, "seen_at": moment, "n": n} for day, origin, n in values]
    return pa.Table.from_pylist(listed, schema=SCHEMA)


def parameter(warehouse: Warehouse, name: str) -> str:
    return {"duckdb": f"${name}", "bigquery": f"@{name}"}[warehouse.dialect]


def stored(warehouse: Warehouse, table: str = "raw.seen") -> pa.Table:
    return warehouse.query(f"SELECT partition_on, origin, seen_at, n FROM {table} ORDER BY partition_on, origin")


def test_rows_come_back_as_they_were_written(warehouse: Warehouse):
    written = rows((MONDAY, "EWR", 1), (TUESDAY, "JFK", 2))
    warehouse.replace_days({"raw.seen": written}, DayRange(first=MONDAY, last=TUESDAY))
    assert stored(warehouse).equals(written)
    assert stored(warehouse).schema.field("seen_at").type == pa.timestamp("us", "UTC")


def test_running_a_day_again_changes_nothing(warehouse: Warehouse):
    for _ in range(3):
        warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1), (MONDAY, "JFK", 2))}, one(MONDAY))
    assert stored(warehouse).equals(rows((MONDAY, "EWR", 1), (MONDAY, "JFK", 2)))


def test_a_day_that_shrinks_leaves_no_stale_row(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1), (MONDAY, "JFK", 2))}, one(MONDAY))
    warehouse.replace_days({"raw.seen": rows((MONDAY, "JFK", 3))}, one(MONDAY))
    assert stored(warehouse).equals(rows((MONDAY, "JFK", 3)))


def test_a_day_that_empties_leaves_no_stale_row(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1))}, one(MONDAY))
    warehouse.replace_days({"raw.seen": rows((TUESDAY, "EWR", 2))}, one(TUESDAY))
    warehouse.replace_days({"raw.seen": rows()}, one(MONDAY))
    assert stored(warehouse).equals(rows((TUESDAY, "EWR", 2)))


def test_the_days_around_the_replaced_ones_stay(warehouse: Warehouse):
    week = DayRange(first=MONDAY, last=WEDNESDAY)
    warehouse.replace_days({"raw.seen": rows((MONDAY, "A", 1), (TUESDAY, "A", 2), (WEDNESDAY, "A", 3))}, week)
    warehouse.replace_days({"raw.seen": rows((TUESDAY, "B", 9))}, one(TUESDAY))
    assert stored(warehouse).equals(rows((MONDAY, "A", 1), (TUESDAY, "B", 9), (WEDNESDAY, "A", 3)))


def test_an_empty_first_day_creates_the_table_with_its_types(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows()}, one(MONDAY))
    assert list(warehouse.columns("raw.seen") or ()) == SCHEMA.names
    assert stored(warehouse).schema.types == SCHEMA.types


def test_columns_are_matched_by_name_and_not_by_place(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1))}, one(MONDAY))
    shuffled = rows((TUESDAY, "JFK", 2)).select(["n", "seen_at", "origin", "partition_on"])
    warehouse.replace_days({"raw.seen": shuffled}, one(TUESDAY))
    assert stored(warehouse).equals(rows((MONDAY, "EWR", 1), (TUESDAY, "JFK", 2)))


def test_a_column_without_any_value_fits_every_type(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1))}, one(MONDAY))
    without = rows((TUESDAY, "JFK", 2)).set_column(3, "n", pa.nulls(1))
    warehouse.replace_days({"raw.seen": without}, one(TUESDAY))
    assert stored(warehouse)["n"].to_pylist() == [1, None]


def test_a_table_is_not_created_with_a_column_of_no_type(warehouse: Warehouse):
    with pytest.raises(SchemaChanged, match=r"\['n'\] have no type"):
        warehouse.replace_days({"raw.seen": rows((MONDAY, "A", 1)).set_column(3, "n", pa.nulls(1))}, one(MONDAY))
    assert warehouse.columns("raw.seen") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns("n"), "n is not in the rows"),
        (lambda table: table.append_column("gate", pa.array(["A7"])), "gate .* is not in the table"),
        (lambda table: table.set_column(3, "n", pa.array(["1"])), "n is .* in the rows, .* in the table"),
    ],
    ids=["lost", "added", "retyped"],
)
def test_rows_with_other_columns_are_refused_and_nothing_is_changed(warehouse: Warehouse, change, message: str):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1))}, one(MONDAY))
    with pytest.raises(SchemaChanged, match=message):
        warehouse.replace_days({"raw.seen": change(rows((MONDAY, "JFK", 2)))}, one(MONDAY))
    assert stored(warehouse).equals(rows((MONDAY, "EWR", 1)))


def test_rows_of_other_days_are_refused(warehouse: Warehouse):
    with pytest.raises(ValueError, match=r"raw.seen: rows of 2013-07-01..2013-07-02"):
        warehouse.replace_days({"raw.seen": rows((MONDAY, "A", 1), (TUESDAY, "A", 2))}, one(MONDAY))
    no_day = rows((MONDAY, "A", 1)).set_column(0, "partition_on", pa.nulls(1, pa.date32()))
    with pytest.raises(ValueError, match="1 without a day"):
        warehouse.replace_days({"raw.seen": no_day}, one(MONDAY))
    with pytest.raises(ValueError, match="no DATE column 'partition_on'"):
        warehouse.replace_days({"raw.seen": rows((MONDAY, "A", 1)).drop_columns("partition_on")}, one(MONDAY))
    assert warehouse.columns("raw.seen") is None


def test_a_table_that_use_cases_share_grows_by_a_column_which_is_null_in_earlier_rows(warehouse: Warehouse):
    of_delay = rows((MONDAY, "EWR", 1)).append_column("use_case", pa.array(["delay"]))
    of_minutes = rows((MONDAY, "JFK", 2)).append_column("use_case", pa.array(["minutes"]))
    grown = of_minutes.append_column("rmse", pa.array([12.5]))
    warehouse.replace_days({"raw.seen": of_delay}, one(MONDAY), use_case="delay")
    warehouse.replace_days({"raw.seen": grown}, one(MONDAY), use_case="minutes")
    found = warehouse.query("SELECT use_case, n, rmse FROM raw.seen ORDER BY use_case").to_pylist()
    assert found == [{"use_case": "delay", "n": 1, "rmse": None}, {"use_case": "minutes", "n": 2, "rmse": 12.5}]
    with pytest.raises(SchemaChanged, match="rmse is not in the rows"):
        warehouse.replace_days({"raw.seen": of_delay}, one(MONDAY), use_case="delay")
    retyped = of_minutes.append_column("rmse", pa.array(["12.5"])).append_column("mae", pa.array([9.0]))
    with pytest.raises(SchemaChanged, match=r"rmse is .* in the rows, .* in the table"):
        warehouse.replace_days({"raw.seen": retyped}, one(MONDAY), use_case="minutes")
    assert "mae" not in (warehouse.columns("raw.seen") or {})


def test_several_tables_are_written_together_or_not_at_all(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "A", 1)), "raw.bad": rows((MONDAY, "B", 2))}, one(MONDAY))
    broken = rows((MONDAY, "D", 4)).drop_columns("n")
    with pytest.raises(SchemaChanged):
        warehouse.replace_days({"raw.seen": rows((MONDAY, "C", 3)), "raw.bad": broken}, one(MONDAY))
    assert stored(warehouse, "raw.seen").equals(rows((MONDAY, "A", 1)))
    assert stored(warehouse, "raw.bad").equals(rows((MONDAY, "B", 2)))


def test_a_query_replaces_days_inside_the_warehouse(warehouse: Warehouse):
    days = DayRange(first=MONDAY, last=TUESDAY)
    warehouse.replace_days({"raw.seen": rows((MONDAY, "A", 1), (TUESDAY, "A", 2), (TUESDAY, "B", 3))}, days)
    sql = f"SELECT n * 10 AS n, partition_on, origin, seen_at FROM raw.seen WHERE n >= {parameter(warehouse, 'least')}"
    assert warehouse.replace_days_with_query("examples.seen", sql, days, {"least": 1}) == 3
    assert warehouse.replace_days_with_query("examples.seen", sql, days, {"least": 3}) == 1
    assert stored(warehouse, "examples.seen").equals(rows((TUESDAY, "B", 30)))


@pytest.mark.parametrize("day", ["DATE '2013-07-09'", "CAST(NULL AS DATE)"])
def test_a_query_with_rows_of_other_days_is_refused_and_nothing_is_changed(warehouse: Warehouse, day: str):
    good: Mapping[str, Parameter] = {"n": 1}
    n = parameter(warehouse, "n")
    sql = f"SELECT DATE '2013-07-01' AS partition_on, {n} AS n"
    warehouse.replace_days_with_query("examples.seen", sql, one(MONDAY), good)
    with pytest.raises(ValueError, match="null or outside 2013-07-01"):
        warehouse.replace_days_with_query("examples.seen", f"{sql} UNION ALL SELECT {day}, {n}", one(MONDAY), {"n": 2})
    assert warehouse.query("SELECT n FROM examples.seen")["n"].to_pylist() == [1]


def test_a_query_with_other_columns_is_refused(warehouse: Warehouse):
    warehouse.replace_days_with_query("examples.seen", "SELECT DATE '2013-07-01' AS partition_on, 1 AS n", one(MONDAY))
    with pytest.raises(SchemaChanged, match="n is not in the rows; m"):
        warehouse.replace_days_with_query(
            "examples.seen", "SELECT DATE '2013-07-01' AS partition_on, 1 AS m", one(MONDAY)
        )


def test_a_query_that_ends_in_a_comment_is_a_query(warehouse: Warehouse):
    sql = "SELECT DATE '2013-07-01' AS partition_on, 1 AS n -- one row"
    assert warehouse.replace_days_with_query("examples.seen", sql, one(MONDAY)) == 1


def test_whole_tables_are_replaced_with_their_columns(warehouse: Warehouse):
    warehouse.replace_table(
        {"raw.planes": pa.table({"tailnum": ["N1", "N2"]}), "raw.airlines": pa.table({"c": ["UA"]})}
    )
    warehouse.replace_table({"raw.planes": pa.table({"tailnum": ["N3"], "seats": [2]})})
    assert warehouse.query("SELECT * FROM raw.planes").to_pylist() == [{"tailnum": "N3", "seats": 2}]
    assert warehouse.query("SELECT * FROM raw.airlines").to_pylist() == [{"c": "UA"}]


def test_parameters_are_values_and_never_sql(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1))}, one(MONDAY))
    sql = f"SELECT n FROM raw.seen WHERE origin = {parameter(warehouse, 'origin')}"
    assert warehouse.query(sql, {"origin": "EWR"}).num_rows == 1
    assert warehouse.query(sql, {"origin": "x' OR 'a' = 'a"}).num_rows == 0


def test_a_moment_means_the_same_in_every_zone(warehouse: Warehouse):
    warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1))}, one(MONDAY))
    sql = f"SELECT n FROM raw.seen WHERE seen_at = {parameter(warehouse, 'at')}"
    in_new_york = datetime(2013, 7, 1, 0, 30, tzinfo=timezone(timedelta(hours=-4)))
    assert warehouse.query(sql, {"at": in_new_york}).num_rows == 1


EVERY_TYPE = pa.table(
    {
        "partition_on": pa.array([MONDAY, MONDAY], pa.date32()),
        "text": pa.array(["ünï'`\"\\ \n", None], pa.string()),
        "whole": pa.array([-(2**53) - 1, None], pa.int64()),
        "measured": pa.array([0.1 + 0.2, None], pa.float64()),
        "is_so": pa.array([False, None], pa.bool_()),
        "seen_at": pa.array([datetime(2013, 3, 10, 6, 59, 59, 999_999, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        "seen_on": pa.array([date(1970, 1, 1), None], pa.date32()),
    }
)


def test_every_type_comes_back_as_it_was_and_so_do_nulls_and_no_rows_at_all(warehouse: Warehouse):
    for number, rows in enumerate((EVERY_TYPE, EVERY_TYPE.slice(1), EVERY_TYPE.slice(0, 0))):
        warehouse.replace_days({f"raw.every{number}": rows}, one(MONDAY))
        names = ", ".join(rows.column_names)
        found = warehouse.query(f"SELECT {names} FROM raw.every{number} ORDER BY whole DESC")
        assert found.schema.equals(EVERY_TYPE.schema)
        assert found.sort_by([("whole", "ascending")]).equals(rows.sort_by([("whole", "ascending")]))


@pytest.mark.parametrize("column", EVERY_TYPE.column_names)
def test_a_value_of_every_type_can_be_bound(warehouse: Warehouse, column: str):
    warehouse.replace_days({"raw.every": EVERY_TYPE}, one(MONDAY))
    value = EVERY_TYPE[column][0].as_py()
    count = f"SELECT COUNT(*) AS n FROM raw.every WHERE {column} = {parameter(warehouse, 'value')}"
    assert warehouse.query(count, {"value": value})["n"].to_pylist() == [2 if column == "partition_on" else 1]


def test_a_null_can_be_bound(warehouse: Warehouse):
    sql = f"SELECT {parameter(warehouse, 'value')} IS NULL AS is_null"
    assert warehouse.query(sql, {"value": None})["is_null"].to_pylist() == [True]


def test_operations_of_a_session_see_what_the_ones_before_wrote(warehouse: Warehouse):
    with warehouse.session():
        warehouse.replace_days({"raw.seen": rows((MONDAY, "EWR", 1))}, one(MONDAY))
        with warehouse.session():
            assert stored(warehouse).equals(rows((MONDAY, "EWR", 1)))
        with pytest.raises(SchemaChanged):
            warehouse.replace_days({"raw.seen": rows((MONDAY, "A", 2)).drop_columns("n")}, one(MONDAY))
        assert stored(warehouse).equals(rows((MONDAY, "EWR", 1)))
    assert stored(warehouse).equals(rows((MONDAY, "EWR", 1)))


def test_rows_of_another_use_case_stay_when_one_has_none_left(warehouse: Warehouse):
    of = {name: rows((MONDAY, name, 1)).append_column("use_case", pa.array([name])) for name in ("delay", "minutes")}
    for name, table in of.items():
        warehouse.replace_days({"raw.seen": table}, one(MONDAY), use_case=name)
    warehouse.replace_days({"raw.seen": of["delay"].slice(0, 0)}, one(MONDAY), use_case="delay")
    assert stored(warehouse)["origin"].to_pylist() == ["minutes"]


def test_an_absent_table_has_no_columns_and_no_rows_to_query(warehouse: Warehouse):
    assert warehouse.columns("raw.seen") is None
    with pytest.raises(DataMissing, match="materialize the asset that writes it first"):
        warehouse.query("SELECT * FROM raw.seen")
    warehouse.replace_days({"raw.other": rows()}, one(MONDAY))
    with pytest.raises(DataMissing):
        warehouse.query("SELECT * FROM raw.seen")


@pytest.mark.parametrize("name", ["seen", "raw.seen; DROP TABLE x", 'raw."seen"', "Raw.Seen", "raw.seen.n", ""])
def test_names_that_are_no_names_reach_no_sql(warehouse: Warehouse, name: str):
    with pytest.raises(InvalidName):
        warehouse.replace_days({name: rows()}, one(MONDAY))
    with pytest.raises(InvalidName):
        warehouse.replace_table({name: rows()})
    with pytest.raises(InvalidName):
        warehouse.replace_days_with_query(name, "SELECT 1", one(MONDAY))
    with pytest.raises(InvalidName):
        warehouse.columns(name)
