"""The features stage on two days of real source rows: dbt in this process, and the airport network beside it."""

import inspect
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.calendar import day_starts_at
from ml_assets.core.ports import DayRange

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

# The first two days of the source, with the flights it has on each: those of the package's own documentation.
N_FLIGHTS = {"2013-01-01": 842, "2013-01-02": 943}
DAYS = DayRange(first=date(2013, 1, 1), last=date(2013, 1, 2))
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NETWORK = dg.AssetKey(["features", "feat_airport_network"])


def materialize(definitions: dg.Definitions, selection: Sequence[dg.AssetKey], *, raise_on_error: bool = True):
    """Materialize these assets for both days in one run."""
    tags = {"dagster/asset_partition_range_start": str(DAYS.first), "dagster/asset_partition_range_end": str(DAYS.last)}
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=list(selection),
            tags=tags,
            run_config=SILENT,
            raise_on_error=raise_on_error,
        )


def of_group(definitions: dg.Definitions, group: str) -> list[dg.AssetKey]:
    graph = definitions.resolve_asset_graph()
    return sorted(key for key in graph.get_all_asset_keys() if graph.get(key).group_name == group)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def definitions(home: Path) -> Iterator[dg.Definitions]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_ASSETS_HOME", str(home))
        from ml_assets.definitions import defs

        yield defs()


@pytest.fixture(scope="module")
def warehouse(home: Path) -> DuckDBWarehouse:
    return DuckDBWarehouse(home / "warehouse.duckdb")


@pytest.fixture(scope="module")
def landed(definitions: dg.Definitions, warehouse: DuckDBWarehouse) -> DuckDBWarehouse:
    """The warehouse with the raw tables of both days."""
    assert materialize(definitions, of_group(definitions, "raw")).success
    return warehouse


@pytest.fixture(scope="module")
def built(definitions: dg.Definitions, landed: DuckDBWarehouse) -> dg.ExecuteInProcessResult:
    """The run that made every dbt model and the network from them."""
    return materialize(definitions, of_group(definitions, "features"))


def events_of(result: dg.ExecuteInProcessResult, key: str) -> dict[str | None, dg.AssetMaterialization]:
    """The materializations of an asset by partition."""
    found = result.asset_materializations_for_node("dbt_models")
    return {event.partition: event for event in found if event.asset_key.to_user_string() == key}


def test_a_run_over_two_days_reports_the_rows_of_each(built: dg.ExecuteInProcessResult, landed: DuckDBWarehouse):
    for key in ("features/feat_flight_schedule", "features/feat_planned_departures", "labels/label_arrival_delay"):
        events = events_of(built, key)
        found = {day: event.metadata["dagster/partition_row_count"].value for day, event in events.items()}
        assert found == N_FLIGHTS, key
        assert {event.metadata["n_rows"].value for event in events.values()} == {sum(N_FLIGHTS.values())}
    left = landed.query("select partition_on::varchar as day, count(dep_time) as n from raw.flights group by all")
    found = {
        day: event.metadata["dagster/partition_row_count"].value
        for day, event in events_of(built, "features/feat_departures").items()
    }
    assert found == {row["day"]: row["n"] for row in left.to_pylist()}


def test_every_model_of_the_project_is_materialized_for_both_days(
    built: dg.ExecuteInProcessResult, definitions: dg.Definitions
):
    made = {
        (event.asset_key, event.partition)
        for event in built.asset_materializations_for_node("dbt_models")
        if event.asset_key != NETWORK
    }
    assert made == {(key, day) for key in of_group(definitions, "features") if key != NETWORK for day in N_FLIGHTS}


def test_every_dbt_test_is_reported_as_a_passed_check(built: dg.ExecuteInProcessResult, definitions: dg.Definitions):
    evaluations = {e.asset_check_key: e.passed for e in built.get_asset_check_evaluations()}
    of_dbt = {
        key
        for key in definitions.resolve_asset_graph().asset_check_keys
        if key.asset_key in of_group(definitions, "features") and key.name != "newest_day"
    }
    assert {key for key, passed in evaluations.items() if passed} >= of_dbt
    assert len(of_dbt) > 10


def test_column_lineage_leads_to_the_columns_of_the_parents(built: dg.ExecuteInProcessResult):
    def parents(key: str, column: str) -> set[str]:
        lineage = events_of(built, key)["2013-01-01"].metadata["dagster/column_lineage"].value
        assert isinstance(lineage, dg.TableColumnLineage)
        return {f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in lineage.deps_by_column[column]}

    assert parents("staging/stg_flights", "tail_number") == {"raw/flights.tailnum"}
    assert parents("features/feat_departures", "is_late_departure") == {
        "intermediate/int_flight_outcomes.departure_delay_minutes"
    }
    # The outcome's moment is that of the schedule plus the delay.
    assert parents("intermediate/int_flight_outcomes", "departed_at") == {
        "intermediate/int_scheduled_flights.scheduled_departure_at",
        "staging/stg_flights.departure_delay_minutes",
    }


def test_no_column_of_what_is_planned_comes_from_an_outcome(built: dg.ExecuteInProcessResult):
    """Followed column by column through the SQL that was run, from the features to raw."""
    for key in ("features/feat_flight_schedule", "features/feat_planned_departures"):
        waiting, reached = [key], set[str]()
        while waiting:
            for event in events_of(built, waiting.pop()).values():
                lineage = event.metadata["dagster/column_lineage"].value
                assert isinstance(lineage, dg.TableColumnLineage)
                found = {dep.asset_key.to_user_string() for deps in lineage.deps_by_column.values() for dep in deps}
                waiting += [table for table in found - reached if not table.startswith("raw/")]
                reached |= found
        assert {table for table in reached if table.startswith("raw/")} == {"raw/schedules", "raw/airports"}


def test_another_process_can_open_the_warehouse_after_the_run(built: dg.ExecuteInProcessResult, home: Path):
    assert built.success
    command = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('select 42').fetchall())"
    path = home / "warehouse.duckdb"
    done = subprocess.run([sys.executable, "-c", command, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[(42,)]\n"


def test_the_same_days_built_again_are_the_same_rows(
    built: dg.ExecuteInProcessResult, landed: DuckDBWarehouse, definitions: dg.Definitions
):
    tables = [f"{key.path[0]}.{key.path[1]}" for key in of_group(definitions, "features")]
    before = {table: landed.query(f"select * from {table} order by all") for table in tables}
    assert materialize(definitions, of_group(definitions, "features")).success
    assert all(landed.query(f"select * from {table} order by all").equals(before[table]) for table in tables)


def test_a_failed_model_is_named_and_the_models_beside_it_are_built(
    built: dg.ExecuteInProcessResult, landed: DuckDBWarehouse, definitions: dg.Definitions, home: Path
):
    import duckdb

    weather = landed.query("select * from raw.weather")
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("alter table raw.weather rename wind_speed to wind_speed_kmh")
    try:
        result = materialize(
            definitions, [k for k in of_group(definitions, "features") if k != NETWORK], raise_on_error=False
        )
    finally:
        landed.replace_table({"raw.weather": weather})
    [failure] = [event for event in result.all_events if event.is_step_failure]
    message = str(failure.step_failure_data.error)
    assert "dagster.Failure" in message or "dagster._core.definitions.events.Failure" in message
    assert "model.ml_assets.stg_weather" in message
    assert "wind_speed" in message
    made = {event.asset_key.path[-1] for event in result.asset_materializations_for_node("dbt_models")}
    assert {"feat_departures", "label_arrival_delay"} <= made
    assert not made & {"stg_weather", "feat_origin_weather"}
    # The lock is gone after a failure too.
    assert landed.query("select count(*) as n from raw.weather")["n"].to_pylist() == [weather.num_rows]


def test_what_is_used_of_dagster_dbt_without_being_promised_is_still_there():
    from dagster_dbt import DagsterDbtTranslator
    from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
    from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

    parameters = inspect.signature(get_updated_cli_invocation_params_for_context).parameters
    assert list(parameters)[:3] == ["context", "manifest", "dagster_dbt_translator"]
    returned = get_updated_cli_invocation_params_for_context(None, {}, DagsterDbtTranslator())
    assert list(returned.selection_args) == []
    assert list(inspect.signature(DbtCoreCliEventMessage).parameters) == ["raw_event", "event_history_metadata"]
    events = inspect.signature(DbtCoreCliEventMessage.to_default_asset_events).parameters
    assert list(events)[:4] == ["self", "manifest", "dagster_dbt_translator", "context"]
    spec = inspect.signature(DagsterDbtTranslator.get_asset_spec).parameters
    assert list(spec) == ["self", "manifest", "unique_id", "project"]


DAY = date(2013, 2, 1)


def arrivals(*flights: tuple[str, str, datetime]) -> pa.Table:
    """Arrivals of ORIGIN at DEST, known at; planned for the local day they arrived on or the one before."""
    return pa.table(
        {
            "partition_on": pa.array([min(at.date(), DAY - timedelta(days=1)) for _, _, at in flights], pa.date32()),
            "origin": pa.array([origin for origin, _, _ in flights], pa.string()),
            "dest": pa.array([dest for _, dest, _ in flights], pa.string()),
            "known_at": pa.array([at for _, _, at in flights], pa.timestamp("us", tz="UTC")),
        }
    )


def network(tmp_path: Path, *flights: tuple[str, str, datetime]) -> dict[str, dict[str, object]]:
    from ml_assets.defs.features.airport_network import network_of

    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_table({"features.feat_arrivals": arrivals(*flights)})
    return {row["dest"]: row for row in network_of(warehouse, DAY).to_pylist()}


def test_the_network_of_a_day_is_that_of_the_flights_that_had_arrived_when_it_started(tmp_path: Path):
    starts_at = day_starts_at(DAY)
    yesterday = starts_at - timedelta(hours=5)
    chain = [("EWR", "IAH", yesterday), ("IAH", "SFO", yesterday), ("SFO", "HNL", yesterday)]
    found = network(tmp_path, *chain)
    # EWR -> IAH -> SFO -> HNL. Of the (4-1)(4-2) = 6 pairs of others, IAH is between EWR-SFO and EWR-HNL, SFO
    # between EWR-HNL and IAH-HNL.
    assert {airport: row["network_betweenness"] for airport, row in found.items()} == {
        "EWR": 0,
        "IAH": round(2 / 6, 12),
        "SFO": round(2 / 6, 12),
        "HNL": 0,
    }
    assert {airport: row["network_degree"] for airport, row in found.items()} == {
        "EWR": 1,
        "IAH": 2,
        "SFO": 2,
        "HNL": 1,
    }
    assert {(row["partition_on"], row["known_at"]) for row in found.values()} == {(DAY, starts_at)}


def test_a_flight_that_arrives_once_the_day_has_started_is_not_in_its_network(tmp_path: Path):
    starts_at, moment = day_starts_at(DAY), timedelta(microseconds=1)
    found = network(
        tmp_path,
        ("EWR", "IAH", starts_at - moment),
        ("EWR", "SFO", starts_at),
        ("EWR", "HNL", starts_at + timedelta(hours=1)),
    )
    assert set(found) == {"EWR", "IAH"}


def test_a_flight_counts_in_the_network_for_28_days(tmp_path: Path):
    window_starts_at, moment = day_starts_at(DAY - timedelta(days=28)), timedelta(microseconds=1)
    found = network(tmp_path, ("EWR", "IAH", window_starts_at), ("EWR", "SFO", window_starts_at - moment))
    assert set(found) == {"EWR", "IAH"}


def test_a_day_without_any_flight_before_it_has_no_network(tmp_path: Path):
    assert network(tmp_path, ("EWR", "IAH", day_starts_at(DAY) + timedelta(hours=1))) == {}
