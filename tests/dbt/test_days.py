"""A run replaces exactly its days, in one transaction."""

import pytest

from ml_assets.core.names import table_name

TABLES = [
    "features.feat_flight_schedule",
    "features.feat_origin_weather",
    "features.feat_departures",
    "features.feat_arrivals",
    "features.feat_cancellations",
    "features.feat_planned_departures",
    "labels.label_arrival_delay",
    "labels.label_air_time",
    "labels.label_cancellation",
    "features.feat_outcomes",
]
NO_UNIT_TESTS = ("--exclude-resource-type", "unit_test")


@pytest.fixture
def rows(open_warehouse, warehouse):
    """The rows of a table, sorted; of one day if it is named."""

    def _rows(table, day=None):
        where = f"where partition_on = date '{day}'" if day else ""
        with open_warehouse(warehouse) as connection:
            return connection.execute(f"select * from {table_name(table)} {where} order by all").fetchall()

    return _rows


@pytest.fixture
def change(open_warehouse, warehouse):
    """Change the warehouse with SQL."""

    def _change(sql):
        with open_warehouse(warehouse) as connection:
            connection.execute(sql)

    return _change


def test_building_a_day_again_changes_no_row(dbt, warehouse, rows):
    before = {table: rows(table) for table in TABLES}
    assert dbt(warehouse, "build", "2013-03-10", "2013-03-10", *NO_UNIT_TESTS).success
    assert {table: rows(table) for table in TABLES} == before
    assert all(before.values())


def test_a_range_gives_the_same_rows_as_its_days_one_by_one(dbt, warehouse, rows):
    before = {table: rows(table) for table in TABLES}
    for day in ("2013-11-02", "2013-11-03", "2013-11-04"):
        assert dbt(warehouse, "run", day, day).success
    assert {table: rows(table) for table in TABLES} == before


def test_a_day_that_shrinks_or_empties_leaves_no_stale_row(dbt, warehouse, rows, change):
    the_day_before = {table: rows(table, "2013-03-09") for table in TABLES}
    change("delete from raw.flights where partition_on = date '2013-03-10' and carrier <> 'UA'")
    change("delete from raw.weather where partition_on = date '2013-03-10'")
    assert dbt(warehouse, "build", "2013-03-10", "2013-03-10", *NO_UNIT_TESTS).success
    assert {row[3] for row in rows("features.feat_departures", "2013-03-10")} == {"UA"}
    assert rows("features.feat_origin_weather", "2013-03-10") == []
    assert {table: rows(table, "2013-03-09") for table in TABLES} == the_day_before


def test_a_run_that_fails_between_delete_and_insert_keeps_the_old_rows(dbt, warehouse, rows, change):
    before = rows("features.feat_planned_departures")
    # The column is declared not null, so the insert breaks, after the delete has run.
    change("update raw.schedules set time_hour = null where partition_on = date '2013-03-10' and carrier = 'UA'")
    result = dbt(warehouse, "run", "2013-03-10", "2013-03-10", "--select", "feat_planned_departures")
    assert "NOT NULL constraint failed" in result.result.results[0].message
    assert rows("features.feat_planned_departures") == before


def test_a_changed_contract_does_not_write_into_the_old_table(dbt, warehouse, rows, change):
    change("alter table features.feat_cancellations rename column dest to destination")
    before = rows("features.feat_cancellations")
    result = dbt(warehouse, "run", "2013-02-08", "2013-02-08", "--select", "feat_cancellations")
    assert not result.success
    assert rows("features.feat_cancellations") == before


def test_a_full_refresh_does_not_throw_the_other_days_away(dbt, warehouse, rows):
    before = rows("labels.label_arrival_delay")
    assert dbt(warehouse, "run", "2013-02-08", "2013-02-08", "--full-refresh").success
    assert rows("labels.label_arrival_delay") == before


def test_tests_look_at_the_days_of_the_run_not_at_those_of_the_parse(dbt, warehouse, change):
    change("insert into raw.weather from raw.weather where partition_on = date '2013-02-08' and origin = 'JFK' limit 1")
    select = ("--select", "is_key_stg_weather_origin__observed_at")
    assert dbt(warehouse, "test", "2013-03-09", "2013-03-10", *select).success
    failed = dbt(warehouse, "test", "2013-02-08", "2013-02-08", *select)
    assert [str(node.status) for node in failed.result.results] == ["fail"]


def test_a_destination_without_a_time_zone_stops_the_models_below(dbt, warehouse, rows, change):
    before = rows("features.feat_arrivals")
    change("update raw.schedules set dest = 'XXX' where partition_on = date '2013-03-10' and carrier = 'UA'")
    result = dbt(warehouse, "build", "2013-03-10", "2013-03-10", *NO_UNIT_TESTS)
    states = {node.node.name: str(node.status) for node in result.result.results}
    assert states["not_null_int_scheduled_flights_scheduled_arrival_at"] == "fail"
    assert states["feat_arrivals"] == "skipped"
    assert rows("features.feat_arrivals") == before


@pytest.mark.parametrize("day", ["2013-02-30", "yesterday", "2013-02-08' or '1' = '1"])
def test_what_is_no_date_never_reaches_sql(dbt, warehouse, rows, day):
    before = rows("features.feat_cancellations")
    assert not dbt(warehouse, "run", day, "2013-02-09", "--select", "feat_cancellations").success
    assert rows("features.feat_cancellations") == before
