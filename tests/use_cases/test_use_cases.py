import ast
import importlib
from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path

import pytest
import yaml

from ml_assets import use_cases
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.feature_views import load_feature_views
from ml_assets.core.spec import MONTH, SplitRule
from ml_assets.use_cases import air_time, cancellation
from ml_assets.use_cases.arrival_delay import USE_CASE

ROOT = Path(use_cases.__file__).parents[2]


@pytest.fixture(scope="module")
def declared():
    return load_feature_views(ROOT / "dbt_project/models/features", ROOT / "ml_assets/defs/features")


def test_every_file_of_the_folder_is_a_use_case():
    files = sorted(path.stem for path in Path(use_cases.__file__).parent.glob("*.py") if path.stem != "__init__")
    assert [use_case.name for use_case in use_cases.load_use_cases()] == files
    assert USE_CASE in use_cases.load_use_cases()


@pytest.mark.parametrize("source", ["", "USE_CASE = 'arrival_delay'\n"])
def test_a_file_that_declares_no_use_case_is_refused(tmp_path, monkeypatch, source):
    (tmp_path / "half_written_case.py").write_text(source)
    monkeypatch.setattr(use_cases, "__path__", [str(tmp_path)])
    with pytest.raises(InvalidDeclaration, match=r"use_cases/half_written_case\.py"):
        use_cases.load_use_cases()


def test_a_hyperparameter_out_of_range_is_refused_as_the_file_is_read(monkeypatch):
    wrong = replace(air_time.USE_CASE, hyperparameters={"estimator": "lightgbm", "learning_rate": -3.0})
    monkeypatch.setattr(air_time, "USE_CASE", wrong)
    with pytest.raises(InvalidDeclaration, match=r"use_cases/air_time\.py: .*learning_rate"):
        use_cases.load_use_cases()


def test_an_arrival_delay_is_predicted_two_hours_ahead_from_views_that_are_all_declared(declared):
    assert USE_CASE.decisions.lead_time == timedelta(hours=2)
    names = {feature.name for feature in USE_CASE.inputs(declared)}
    assert set(USE_CASE.baseline_features) <= names


def test_a_cancellation_is_predicted_at_six_on_the_evening_before_and_an_air_time_two_hours_ahead():
    assert cancellation.USE_CASE.decisions.local == (time(18), 1)
    assert cancellation.USE_CASE.split.gap_days == 2
    assert air_time.USE_CASE.decisions.lead_time == timedelta(hours=2)
    assert (air_time.USE_CASE.output.task, air_time.USE_CASE.output.unit) == ("regression", "minutes")


@pytest.mark.parametrize("use_case", use_cases.load_use_cases(), ids=lambda use_case: use_case.name)
def test_no_outcome_is_a_feature_and_every_baseline_and_slice_is_one(use_case, declared):
    outcomes = {
        *("tail_number", "departure_delay_minutes", "arrival_delay_minutes", "air_time_minutes", "outcome"),
        *("is_cancelled", "label"),
    }
    names = {feature.name for feature in use_case.inputs(declared)}
    assert not outcomes & names
    assert set(use_case.baseline_features) <= names
    assert set(use_case.slices) <= names | {MONTH}


@pytest.mark.parametrize("use_case", use_cases.load_use_cases(), ids=lambda use_case: use_case.name)
def test_the_decisions_table_has_the_event_and_every_entity_column(use_case, declared):
    document = yaml.safe_load((ROOT / "dbt_project/models/intermediate/int_scheduled_flights.yml").read_text())
    columns = {column["name"] for column in document["models"][0]["columns"]}
    entities = {column for view in use_case.views(declared) for column in view.entity}
    assert entities | {"decision_id", "partition_on", use_case.decisions.event_at} <= columns


def test_a_lead_time_of_a_day_needs_another_day_between_the_parts_of_the_split():
    day_ahead = replace(USE_CASE.decisions, lead_time=timedelta(hours=24))
    with pytest.raises(InvalidDeclaration, match="set gap_days to at least 2"):
        replace(USE_CASE, decisions=day_ahead)
    assert replace(USE_CASE, decisions=day_ahead, split=SplitRule(gap_days=2)).split.days_back == 365 + 14 + 21 + 6


def test_a_decision_on_the_evening_before_needs_another_day_too():
    with pytest.raises(InvalidDeclaration, match=r"up to 1 day, 7:00:00 ahead .*set gap_days to at least 2"):
        replace(USE_CASE, decisions=cancellation.USE_CASE.decisions)


def test_no_code_names_a_use_case_but_its_own_file_and_the_commands():
    """A stage that named one would need an edit for the next.

    The commands have one as the default of an option; a column of the source is called air_time, as one use case is.
    """
    names = {use_case.name for use_case in use_cases.load_use_cases()}
    package = Path(use_cases.__file__).parents[1]
    naming = {
        f"{path.relative_to(package)}: {node.value}"
        for path in package.rglob("*.py")
        if not {"use_cases", "cli", "backends"} & set(path.parts)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.partition("/")[0] in names
    }
    assert naming == set()
    makefile = (package.parent / "Makefile").read_text()
    assert [name for name in names if name in makefile] == []


def test_a_change_to_a_trainer_of_ones_own_is_another_code_version(tmp_path, monkeypatch):
    path = tmp_path / "share_trainer.py"
    path.write_text("class ShareTrainer: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    trainer = importlib.import_module("share_trainer").ShareTrainer
    by_class, by_object = replace(USE_CASE, trainer=trainer), replace(USE_CASE, trainer=trainer())
    before = use_cases.code_version_of(by_class)
    assert use_cases.code_version_of(by_object) == before != use_cases.code_version_of(USE_CASE)
    path.write_text("class ShareTrainer:\n    smoothing = 50\n")
    assert use_cases.code_version_of(by_class) != before
