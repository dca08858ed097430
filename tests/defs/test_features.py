"""The features stage on two days of real source rows: dbt in this process, and the airport network beside it."""

import inspect
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.calendar import day_starts_at
from ml_assets.core.ports import DayRange

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    # dagster-dbt installs sqlglot with a parser that calls itself outdated when it is first imported.
    pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning"),
    # dagster-dbt 0.29 asks the context for its op in the way that Dagster 1.13 deprecates.
    pytest.mark.filterwarnings("ignore:AssetExecutionContext.op is deprecated:DeprecationWarning"),
]

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
        for event in events.values():
            whole_run = event.metadata["Execution Duration"].value
            assert event.metadata["seconds_per_day"].value == pytest.approx(whole_run / 2, abs=1e-3)
    left = landed.query("select partition_on::varchar as day, count(dep_time) as n from raw.flights group by all")
    found = {
        day: event.metadata["dagster/partition_row_count"].value
        for day, event in events_of(built, "features/feat_departures").items()
    }
    assert found == {row["day"]: row["n"] for row in left.to_pylist()}


def test_every_model_of_the_project_is_materialized_and_every_table_for_both_days(
    built: dg.ExecuteInProcessResult, definitions: dg.Definitions
):
    of_dbt = [key for key in of_group(definitions, "features") if key != NETWORK]
    assert made_by(built) == set(of_dbt)
    for key in of_dbt:
        if key.path[0] in {"features", "labels"}:
            assert set(events_of(built, key.to_user_string())) == set(N_FLIGHTS)


def test_every_dbt_test_is_reported_as_a_passed_check(built: dg.ExecuteInProcessResult, definitions: dg.Definitions):
    evaluations = {e.asset_check_key: e.passed for e in built.get_asset_check_evaluations()}
    of_dbt = {
        key
        for key in definitions.resolve_asset_graph().asset_check_keys
        if key.asset_key in of_group(definitions, "features") and key.name != "newest_day"
    }
    assert {key for key, passed in evaluations.items() if passed} >= of_dbt
    assert len(of_dbt) > 10


def lineage_of(built: dg.ExecuteInProcessResult, key: str) -> dict[str, set[str]]:
    """Column -> the columns of its parents, as the newest materialization tells it."""
    events = events_of(built, key)
    newest = events.get(str(DAYS.last)) or events[None]
    lineage = newest.metadata["dagster/column_lineage"].value
    assert isinstance(lineage, dg.TableColumnLineage)
    return {
        column: {f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps}
        for column, deps in lineage.deps_by_column.items()
    }


def test_column_lineage_leads_to_the_columns_of_the_parents(built: dg.ExecuteInProcessResult):
    assert lineage_of(built, "staging/stg_flights")["tail_number"] == {"raw/flights.tailnum"}
    assert lineage_of(built, "features/feat_departures")["is_late_departure"] == {
        "intermediate/int_flight_outcomes.departure_delay_minutes"
    }
    # The moment of an outcome is that of the schedule plus the delay.
    assert lineage_of(built, "intermediate/int_flight_outcomes")["departed_at"] == {
        "intermediate/int_scheduled_flights.scheduled_departure_at",
        "staging/stg_flights.departure_delay_minutes",
    }


@pytest.mark.parametrize("table", ["features/feat_flight_schedule", "features/feat_planned_departures"])
def test_no_column_of_what_is_planned_comes_from_an_outcome(built: dg.ExecuteInProcessResult, table: str):
    """Followed column by column through the SQL that was run, from the features to raw."""
    waiting, roots = [table], set[str]()
    while waiting:
        parents = {parent for parents in lineage_of(built, waiting.pop()).values() for parent in parents}
        roots |= {parent for parent in parents if parent.startswith("raw/")}
        waiting += {parent.rpartition(".")[0] for parent in parents - roots}
    assert {root.rpartition(".")[0] for root in roots} <= {"raw/schedules", "raw/airports"}
    assert len(roots) >= 5


def test_another_process_can_open_the_warehouse_after_the_run(built: dg.ExecuteInProcessResult, home: Path):
    assert built.success
    command = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('select 42').fetchall())"
    path = home / "warehouse.duckdb"
    done = subprocess.run([sys.executable, "-c", command, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[(42,)]\n"


WEATHER = [dg.AssetKey(["staging", "stg_weather"]), dg.AssetKey(["features", "feat_origin_weather"])]
BESIDE = dg.AssetKey(["staging", "stg_planes"])


@contextmanager
def weather_replaced_by(sql: str, warehouse: DuckDBWarehouse) -> Iterator[None]:
    """Land other weather for a while."""
    landed = warehouse.query("select * from raw.weather")
    warehouse.replace_table({"raw.weather": warehouse.query(sql)})
    yield
    warehouse.replace_table({"raw.weather": landed})


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    return error.message


def made_by(result: dg.ExecuteInProcessResult) -> set[dg.AssetKey | None]:
    return {event.asset_key for event in result.asset_materializations_for_node("dbt_models")}


@pytest.mark.usefixtures("built")
def test_a_failed_model_is_named_and_the_models_beside_it_are_built(
    landed: DuckDBWarehouse, definitions: dg.Definitions
):
    with weather_replaced_by("select * rename (wind_speed as wind_speed_kmh) from raw.weather", landed):
        result = materialize(definitions, [*WEATHER, BESIDE], raise_on_error=False)
    message = failure_of(result)
    assert message.startswith("dagster._core.definitions.events.Failure: dbt: ")
    assert "model.ml_assets.stg_weather" in message
    assert 'column "wind_speed"' in message
    assert made_by(result) == {BESIDE}


@pytest.mark.usefixtures("built")
def test_a_row_that_is_there_twice_fails_its_check_and_reaches_no_feature(
    landed: DuckDBWarehouse, definitions: dg.Definitions
):
    before = landed.query("select * from features.feat_origin_weather order by all")
    twice = "select * from raw.weather union all (select * from raw.weather order by all limit 1)"
    with weather_replaced_by(twice, landed):
        result = materialize(definitions, [*WEATHER, BESIDE], raise_on_error=False)
    assert "is_key_stg_weather" in failure_of(result)
    failed = [e.asset_check_key for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed == [dg.AssetCheckKey(WEATHER[0], "is_key_stg_weather_origin__observed_at")]
    assert made_by(result) == {WEATHER[0], BESIDE}
    assert landed.query("select * from features.feat_origin_weather order by all").equals(before)


@pytest.mark.usefixtures("built")
def test_the_same_days_built_again_are_the_same_rows(landed: DuckDBWarehouse, definitions: dg.Definitions):
    stored = [key for key in of_group(definitions, "features") if key.path[0] in {"features", "labels"}]
    tables = [".".join(key.path) for key in stored]
    before = {table: landed.query(f"select * from {table} order by all") for table in tables}
    assert materialize(definitions, stored).success
    assert [
        table for table in tables if not landed.query(f"select * from {table} order by all").equals(before[table])
    ] == []


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
    """Arrivals of origin at dest, known at."""
    return pa.table(
        {
            "origin": pa.array([origin for origin, _, _ in flights], pa.string()),
            "dest": pa.array([dest for _, dest, _ in flights], pa.string()),
            "known_at": pa.array([at for _, _, at in flights], pa.timestamp("us", tz="UTC")),
        }
    )


def network(*flights: tuple[str, str, datetime]) -> dict[str, dict[str, object]]:
    from ml_assets.defs.features.airport_network import network_of

    return {row["dest"]: row for row in network_of(arrivals(*flights), DAY).to_pylist()}


def test_the_network_of_a_day_is_that_of_the_flights_that_had_arrived_when_it_started():
    starts_at = day_starts_at(DAY)
    yesterday = starts_at - timedelta(hours=5)
    chain = [("EWR", "IAH", yesterday), ("IAH", "SFO", yesterday), ("SFO", "HNL", yesterday)]
    found = network(*chain)
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


def test_a_flight_that_arrives_once_the_day_has_started_is_not_in_its_network():
    starts_at, moment = day_starts_at(DAY), timedelta(microseconds=1)
    found = network(
        ("EWR", "IAH", starts_at - moment),
        ("EWR", "SFO", starts_at),
        ("EWR", "HNL", starts_at + timedelta(hours=1)),
    )
    assert set(found) == {"EWR", "IAH"}


def test_a_flight_counts_in_the_network_for_28_days():
    window_starts_at, moment = day_starts_at(DAY - timedelta(days=28)), timedelta(microseconds=1)
    found = network(("EWR", "IAH", window_starts_at), ("EWR", "SFO", window_starts_at - moment))
    assert set(found) == {"EWR", "IAH"}


def test_a_day_without_any_flight_before_it_has_no_network():
    assert network(("EWR", "IAH", day_starts_at(DAY) + timedelta(hours=1))) == {}


def test_the_stored_network_holds_the_airports_of_the_flights_that_had_arrived(
    built: dg.ExecuteInProcessResult, landed: DuckDBWarehouse
):
    of_network = built.asset_materializations_for_node("features__feat_airport_network")
    stored = landed.query("select partition_on, dest from features.feat_airport_network order by all").to_pylist()
    assert {e.partition: e.metadata["dagster/partition_row_count"].value for e in of_network} == {
        "2013-01-01": 0,
        "2013-01-02": len(stored),
    }
    # New Year's Day has no day before it; the second day's network is what landed before its midnight.
    flown = landed.query("""
        with flown as (
            select origin, dest from features.feat_arrivals where known_at < timestamptz '2013-01-02 05:00:00+00'
        )
        select origin as dest from flown union select dest from flown order by all
    """)
    assert stored == [{"partition_on": DAYS.last, "dest": dest} for dest in flown["dest"].to_pylist()]
    assert len(stored) > 50
