import importlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from ml_assets import use_cases
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.feature_views import load_feature_views
from ml_assets.core.spec import SplitRule
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


def test_an_arrival_delay_is_predicted_two_hours_ahead_from_views_that_are_all_declared(declared):
    assert USE_CASE.decisions.lead_time == timedelta(hours=2)
    names = {feature.name for feature in USE_CASE.inputs(declared)}
    assert set(USE_CASE.baseline_features) <= names


def test_no_outcome_is_a_feature(declared):
    outcomes = {"tail_number", "departure_delay_minutes", "arrival_delay_minutes", "air_time_minutes", "outcome"}
    assert not outcomes & {feature.name for feature in USE_CASE.inputs(declared)}


def test_the_decisions_table_has_the_event_and_every_entity_column(declared):
    document = yaml.safe_load((ROOT / "dbt_project/models/intermediate/int_scheduled_flights.yml").read_text())
    columns = {column["name"] for column in document["models"][0]["columns"]}
    entities = {column for view in USE_CASE.views(declared) for column in view.entity}
    assert entities | {"decision_id", "partition_on", USE_CASE.decisions.event_at} <= columns


def test_a_lead_time_of_a_day_needs_another_day_between_the_parts_of_the_split():
    day_ahead = replace(USE_CASE.decisions, lead_time=timedelta(hours=24))
    with pytest.raises(InvalidDeclaration, match="set gap_days to at least 2"):
        replace(USE_CASE, decisions=day_ahead)
    assert replace(USE_CASE, decisions=day_ahead, split=SplitRule(gap_days=2)).split.days_back == 365 + 14 + 21 + 6


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
