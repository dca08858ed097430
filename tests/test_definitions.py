"""The asset graph as Dagster sees it: complete, described, in one calendar, each stage fed by the one before."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from ml_assets import use_cases
from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY
from ml_assets.core.point_in_time import Pruning
from ml_assets.defs import raw
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import load_use_cases
from ml_assets.use_cases.arrival_delay import USE_CASE

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    # dagster-dbt installs sqlglot with a parser that calls itself outdated when it is first imported.
    pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning"),
]

ROOT = Path(__file__).parents[1]
GROUPS = {"raw", "features", "examples", "training_sets", "models", "predictions", "monitoring", "readiness"}
STAGES = {
    *("examples", "training_set", "candidate", "champion", "predictions", "tuning", "ablation", "staleness"),
    *("drift", "performance", "skew", "alarms", "report", "retraining", "ml_test_score"),
}
VIEWS = {"staging", "intermediate"}
ON_TRAINING = {"training_set", "candidate", "champion"}


def load() -> dg.Definitions:
    from ml_assets.definitions import defs

    return defs()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """State of its own, so that no test reads or writes that of the repository."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("ML_ASSETS_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def definitions(home: Path) -> dg.Definitions:
    return load()


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> AssetGraph:
    return definitions.resolve_asset_graph()


def named(*keys: dg.AssetKey) -> set[str]:
    return {key.to_user_string() for key in keys}


def with_cadence(graph: AssetGraph, cadence: str) -> set[dg.AssetKey]:
    return {key for key in graph.get_all_asset_keys() if graph.get(key).tags.get("cadence") == cadence}


def fed_by(graph: AssetGraph, start: str) -> set[str]:
    """Everything downstream of an asset."""
    seen, waiting = set[dg.AssetKey](), [dg.AssetKey.from_user_string(start)]
    while waiting:
        children = graph.get(waiting.pop()).child_keys - seen
        seen |= children
        waiting += children
    return named(*seen)


def test_the_definitions_load_and_every_job_schedule_and_sensor_resolves(definitions: dg.Definitions):
    dg.Definitions.validate_loadable(definitions)


def test_every_asset_that_is_read_is_also_made_here(graph: AssetGraph):
    assert named(*(key for key in graph.get_all_asset_keys() if not graph.get(key).is_materializable)) == set()


def test_every_asset_has_owners_kinds_cadence_and_a_sentence_for_a_person(graph: AssetGraph):
    incomplete = [
        key
        for key in graph.get_all_asset_keys()
        for node in [graph.get(key)]
        if not (node.owners and node.kinds and node.tags.get("cadence") and len((node.description or "").split()) > 2)
    ]
    assert named(*incomplete) == set()


def test_a_raw_table_says_which_warehouse_it_lands_in(graph: AssetGraph, monkeypatch: pytest.MonkeyPatch):
    tables = [key for key in graph.get_all_asset_keys() if key.path[0] == "raw"]
    assert [graph.get(key).kinds for key in tables] == [{"duckdb", "arrow"}] * 6
    cloud = {"ENV": "staging", "PROJECT": "acme-ml", "CREDENTIALS": "attached", "TRACKER": "disabled"}
    for name, value in cloud.items():
        monkeypatch.setenv(f"ML_ASSETS_{name}", value)
    in_the_cloud = [asset for asset in raw.defs().assets or [] if isinstance(asset, dg.AssetsDefinition)]
    assert [spec.kinds for asset in in_the_cloud for spec in asset.specs] == [{"bigquery", "arrow"}] * 6


def test_every_asset_is_in_the_group_of_its_stage(graph: AssetGraph):
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == GROUPS


def test_every_table_says_which_it_is(graph: AssetGraph):
    of_models = {"candidate", "champion", "training_set", "tuning", "ablation", "staleness", "report"}
    tables = {key for key in graph.get_all_asset_keys() if key.path[-1] not in of_models}
    assert named(*(key for key in tables if "dagster/table_name" not in graph.get(key).metadata)) == set()


def test_every_dated_asset_shares_the_one_calendar(graph: AssetGraph):
    assert {graph.get(key).partitions_def for key in graph.get_all_asset_keys()} == {DAILY, None}
    undated = {key for key in graph.get_all_asset_keys() if graph.get(key).partitions_def is None}
    # A view of dbt holds no days of its own.
    assert named(*(key for key in undated if key.path[0] not in VIEWS)) == {
        "raw/airlines",
        "raw/airports",
        "raw/planes",
    }


def test_a_stretch_of_days_of_any_daily_asset_is_one_run(graph: AssetGraph):
    daily = with_cadence(graph, "daily")
    assert {graph.get(key).backfill_policy for key in daily} == {dg.BackfillPolicy.single_run()}


def test_training_assets_are_made_one_as_of_date_at_a_time(graph: AssetGraph):
    on_training = with_cadence(graph, "on_training")
    assert {key.path[-1] for key in on_training} == ON_TRAINING
    assert {graph.get(key).backfill_policy for key in on_training} == {None}


def test_what_must_be_fresh_says_until_when(graph: AssetGraph):
    must_be_fresh = with_cadence(graph, "daily") | {dg.AssetKey(["arrival_delay", "champion"])}
    stale = {key for key in must_be_fresh if graph.get(key).freshness_policy is None}
    assert named(*stale) == set()


def test_what_opens_the_warehouse_waits_its_turn_in_the_pool(definitions: dg.Definitions):
    ops = [assets.op for assets in definitions.assets or [] if isinstance(assets, dg.AssetsDefinition)]
    ops += [checks.op for checks in definitions.asset_checks or [] if isinstance(checks, dg.AssetChecksDefinition)]
    assert len(ops) > 10
    opening = {op.name for op in ops if "warehouse" in op.required_resource_keys}
    waiting = {op.name for op in ops if op.pool == "warehouse"}
    assert opening == waiting


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("raw/schedules", "intermediate/int_scheduled_flights"),
        ("raw/flights", "features/feat_departures"),
        ("raw/flights", "labels/label_arrival_delay"),
        ("raw/weather", "features/feat_origin_weather"),
        ("raw/airports", "intermediate/int_scheduled_flights"),
        ("features/feat_arrivals", "features/feat_airport_network"),
        ("features/feat_airport_network", "arrival_delay/examples"),
        ("intermediate/int_scheduled_flights", "arrival_delay/examples"),
        ("labels/label_arrival_delay", "arrival_delay/examples"),
        ("arrival_delay/examples", "arrival_delay/training_set"),
        ("arrival_delay/training_set", "arrival_delay/tuning"),
        ("arrival_delay/training_set", "arrival_delay/ablation"),
        ("arrival_delay/examples", "arrival_delay/staleness"),
        ("arrival_delay/training_set", "arrival_delay/candidate"),
        ("arrival_delay/candidate", "arrival_delay/champion"),
        ("arrival_delay/champion", "arrival_delay/predictions"),
        ("arrival_delay/examples", "arrival_delay/predictions"),
        ("arrival_delay/predictions", "arrival_delay/drift"),
        ("arrival_delay/predictions", "arrival_delay/performance"),
        ("arrival_delay/predictions", "arrival_delay/skew"),
        ("arrival_delay/drift", "arrival_delay/alarms"),
        ("arrival_delay/performance", "arrival_delay/alarms"),
        ("arrival_delay/skew", "arrival_delay/alarms"),
        ("arrival_delay/drift", "arrival_delay/report"),
        ("arrival_delay/performance", "arrival_delay/report"),
        ("arrival_delay/drift", "arrival_delay/retraining"),
        ("arrival_delay/alarms", "arrival_delay/retraining"),
        ("arrival_delay/retraining", "arrival_delay/report"),
        ("arrival_delay/performance", "arrival_delay/retraining"),
        ("arrival_delay/champion", "arrival_delay/ml_test_score"),
        ("arrival_delay/retraining", "arrival_delay/ml_test_score"),
    ],
)
def test_each_stage_feeds_the_next(graph: AssetGraph, before: str, after: str):
    assert after in fed_by(graph, before)


def test_nothing_feeds_itself_and_raw_is_where_everything_begins(graph: AssetGraph):
    roots = {key for key in graph.get_all_asset_keys() if not graph.get(key).parent_keys}
    assert {key.path[0] for key in roots} == {"raw"}
    assert all(key not in fed_by(graph, key) for key in named(*graph.get_all_asset_keys()))


def test_no_outcome_feeds_what_is_planned(graph: AssetGraph):
    outcomes = fed_by(graph, "raw/flights")
    planned = {
        *("staging/stg_schedules", "intermediate/int_scheduled_flights"),
        *("features/feat_flight_schedule", "features/feat_planned_departures"),
    }
    assert planned <= named(*graph.get_all_asset_keys())
    assert outcomes & planned == set()


def test_examples_depend_on_as_many_days_of_a_view_as_the_join_reads(graph: AssetGraph):
    mappings = graph.get(dg.AssetKey(USE_CASE.key("examples"))).partition_mappings
    pruning = Pruning(lead_time=USE_CASE.decisions.lead_time)
    too_few = {
        view.name: f"{mapping.start_offset} instead of {pruning.first_offset(view.max_age)} days"
        for view in USE_CASE.views(feature_views_of(Environment.current()))
        for mapping in [mappings[dg.AssetKey(view.table.split("."))]]
        if not isinstance(mapping, dg.TimeWindowPartitionMapping)
        or mapping.start_offset > pruning.first_offset(view.max_age)
    }
    assert too_few == {}


def test_every_table_with_rows_every_day_is_checked_to_have_reached_its_newest_day(graph: AssetGraph):
    daily = with_cadence(graph, "daily")
    tables = {key for key in daily if key.path[0] not in VIEWS and key.path[-1] != "report"}
    checked = {check.asset_key for check in graph.asset_check_keys if check.name == "newest_day"}
    # No flight was cancelled on 2013-05-26 and six more days: a check would call such a quiet day late. A day without
    # alarms is a good one.
    quiet = {"features/feat_cancellations", *(f"{use_case.name}/alarms" for use_case in load_use_cases())}
    assert named(*(tables - checked)) == quiet


def test_every_dbt_test_is_a_check(graph: AssetGraph):
    keyed = {check.asset_key for check in graph.asset_check_keys if check.name.startswith("is_key_")}
    of_dbt = {key for key in graph.get_all_asset_keys() if "dbt" in graph.get(key).kinds}
    assert of_dbt == keyed


def test_the_gates_before_a_champion_stop_it(definitions: dg.Definitions, graph: AssetGraph):
    blocking = {key.to_user_string() for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    gates = {check.to_user_string() for check in graph.asset_check_keys if check.asset_key.path[-1] == "candidate"}
    assert gates <= blocking
    assert {
        "arrival_delay/examples:one_row_per_decision",
        "arrival_delay/predictions:every_decision_scored",
    } <= blocking


SECOND_CASE = """
from dataclasses import replace
from ml_assets.use_cases.arrival_delay import USE_CASE as ARRIVAL_DELAY
USE_CASE = replace(ARRIVAL_DELAY, name="late_evening", question="Will this flight land after midnight?")
"""


def test_one_more_file_in_use_cases_is_one_more_life_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, definitions: dg.Definitions, graph: AssetGraph
):
    (tmp_path / "late_evening.py").write_text(SECOND_CASE)
    monkeypatch.setattr(use_cases, "__path__", [*use_cases.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "ml_assets.use_cases.late_evening", None)
    del sys.modules["ml_assets.use_cases.late_evening"]

    extended = load()
    dg.Definitions.validate_loadable(extended)

    added = extended.resolve_asset_graph().get_all_asset_keys() - graph.get_all_asset_keys()
    assert named(*added) == {f"late_evening/{stage}" for stage in STAGES}
    of_new = {check for check in extended.resolve_asset_graph().asset_check_keys if check.asset_key in added}
    of_old = {check for check in graph.asset_check_keys if check.asset_key.path[0] == "arrival_delay"}
    assert {(c.asset_key.path[1], c.name) for c in of_new} == {(c.asset_key.path[1], c.name) for c in of_old}
    assert names(extended) - names(definitions) == {
        name.replace("arrival_delay", "late_evening") for name in names(definitions) if "arrival_delay" in name
    }


def names(definitions: dg.Definitions) -> set[str]:
    """Every job, schedule and sensor."""
    found = [*(definitions.jobs or []), *(definitions.schedules or []), *(definitions.sensors or [])]
    return {one.name for one in found}


def test_dagster_plus_accepts_its_file_and_finds_the_same_module():
    from dagster_cloud_cli.config.models import ProcessedDagsterCloudConfig

    document = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())
    config = ProcessedDagsterCloudConfig.model_validate(document)
    assert [location.location_name for location in config.locations] == ["ml_assets"]
    assert [location.code_source.module_name for location in config.locations] == ["ml_assets.definitions"]


def test_the_workspace_names_the_location_that_dg_and_dagster_plus_name(monkeypatch: pytest.MonkeyPatch):
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    monkeypatch.chdir(ROOT)
    [origin] = WorkspaceFileTarget(paths=["workspace.yaml"]).create_origins()
    assert origin.location_name == "ml_assets"
    assert origin.loadable_target_origin.module_name == "ml_assets.definitions"
    project = (ROOT / "pyproject.toml").read_text()
    assert 'code_location_name = "ml_assets"' in project
    assert 'code_location_target_module = "ml_assets.definitions"' in project
