"""The ML Test Score as the UI and the CLI see it, on two weeks of real flights."""

from datetime import UTC, date, datetime

import dagster as dg
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.core.ml_test_score.reviews import reviews_of
from ml_assets.core.ml_test_score.score import SCORE_SCHEMA, TABLE
from ml_assets.core.ports import DayRange
from ml_assets.defs.ml_test_score import examples_of_python_features, installed_version, python_features
from ml_assets.use_cases import code_version_of

DAY = date(2013, 1, 14)


@pytest.mark.slow
def test_the_command_carries_out_all_tests_and_the_page_says_what_each_found(life, monkeypatch):
    monkeypatch.setattr(cli.ml_test_score, "Lifecycle", lambda environment, on_event: life.lifecycle)
    monkeypatch.setattr(cli.terminal, "load_use_cases", lambda: (life.use_case,))
    looked_at = ["review", "--test", "data_5", "--by", "Ada", "--finding", "three people may read [the bucket]"]
    assert CliRunner().invoke(cli.app, looked_at).exit_code == 0
    done = CliRunner().invoke(cli.app, ["score", "--on", str(DAY)])
    assert done.exit_code == 0, done.output

    rows = life.query("select * from monitoring.ml_test_score order by section, number").to_pylist()
    assert len(rows) == 28
    sums = {name: sum(r["points"] for r in rows if r["section"] == name) for name in {r["section"] for r in rows}}
    facts = life.facts("arrival_delay/ml_test_score")
    assert {name: facts[f"points_{name}"] for name in sums} == sums
    assert facts["score"] == min(sums.values())
    assert facts["n_automated"] + facts["n_manual"] / 2 == sum(sums.values())
    assert f"ML Test Score {facts['score']:g} of 7" in " ".join(done.output.split())
    (privacy,) = (row["evidence"] for row in rows if (row["section"], row["number"]) == ("data", 5))
    assert privacy.endswith("three people may read [the bucket]")
    # What looks like markup of the terminal is shown, not obeyed.
    assert {"[the", "bucket]"} <= set(done.output.split())
    # What these two weeks cannot show is said, and earns nothing: a champion of one day, no study, no curve.
    lacking = {f"{row['section']}_{row['number']}" for row in rows if row["outcome"] == "none"}
    assert lacking >= {"model_1", "model_2", "model_3", "model_4", "monitoring_7"}
    assert lacking & {"data_5", "infrastructure_1", "infrastructure_5", "monitoring_3"} == set()

    check = life.check("arrival_delay/ml_test_score", "no_point_lost")
    assert (check.passed, check.severity) == (True, dg.AssetCheckSeverity.WARN)
    page = life.lifecycle.store.get(f"reports/arrival_delay/ml-test-score-{DAY}.html").decode()
    assert page.count("How it is checked") == 28
    assert f'href="./{DAY}.html"' in page


def test_a_review_takes_a_name_a_finding_and_a_test_that_people_review(life, monkeypatch):
    monkeypatch.setattr(cli.terminal, "load_use_cases", lambda: (life.use_case,))

    def say(test: str, by: str) -> str:
        return CliRunner().invoke(cli.app, ["review", "--test", test, "--by", by, "--finding", "read"]).output

    assert "BadInput" in say("data_1", "Ada")
    assert "BadInput" in say("model_1", " ")
    assert code_version_of(life.use_case)[:12] in say("model_1", "Ada")
    [review] = reviews_of(life.lifecycle.store, "arrival_delay", "model_1")
    assert (review.reviewed_by, review.finding, review.code_version) == ("Ada", "read", code_version_of(life.use_case))


@pytest.mark.parametrize("first", [DAY, date(2013, 1, 12)])
def test_a_run_that_does_not_ask_for_it_carries_out_nothing(life, first: date):
    life.lifecycle._run([dg.AssetKey(["arrival_delay", "ml_test_score"])], DayRange(first=first, last=DAY))
    assert not [event for event in life.events if event.is_step_materialization]


def test_a_point_that_was_lost_stays_lost_on_the_days_on_which_nobody_asks(life):
    def scored(points: float, evidence: str, on: date) -> None:
        row = {"use_case": "arrival_delay", "partition_on": on, "section": "model", "number": 1, "test": "Reviewed"}
        rows = pa.Table.from_pylist([{**row, "points": points, "evidence": evidence}], schema=SCORE_SCHEMA)
        life.lifecycle.warehouse.replace_days({TABLE: rows}, DayRange(first=on, last=on), use_case="arrival_delay")

    def look(day: date) -> dg.AssetCheckEvaluation:
        life.lifecycle._run([dg.AssetKey(["arrival_delay", "ml_test_score"])], DayRange(first=day, last=day))
        return life.check("arrival_delay/ml_test_score", "no_point_lost")

    scored(0.5, "read by Ada", on=date(2013, 1, 10))
    scored(0.0, "the code has changed", on=date(2013, 1, 12))
    assert look(date(2013, 1, 11)).passed
    worse = look(date(2013, 1, 14))
    assert not worse.passed
    assert "Reviewed: the code has changed" in str(worse.description)


def test_the_form_of_the_job_is_filled_in_and_every_monday_asks_for_the_day_before(life):
    definitions = life.lifecycle._definitions
    for name in ("arrival_delay_ml_test_score", "ml_test_scores"):
        job = definitions.resolve_job_def(name)
        filled_in = job.get_run_config_for_partition_key(str(DAY))
        assert filled_in["ops"]["arrival_delay__ml_test_score"]["config"] == {"is_asked": True}
        dg.validate_run_config(job, filled_in)
    repository = definitions.get_repository_def()
    schedule = repository.get_schedule_def("every_week")

    def asked_at(moment: datetime) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(scheduled_execution_time=moment, repository_def=repository)
        return list(schedule.evaluate_tick(context).run_requests or [])

    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 8 * * 1", "America/New_York")
    at = datetime(2013, 7, 22, 12, 30, tzinfo=UTC)  # a Monday
    [request] = asked_at(at)
    assert (request.run_key, request.partition_key) == ("ml_test_scores:2013-07-21", "2013-07-21")
    first = datetime(2013, 1, 1, 13, 30, tzinfo=UTC)
    assert not asked_at(first)


def test_the_code_of_a_python_feature_is_tested_by_the_examples_of_what_it_calls():
    found = examples_of_python_features()
    assert set(found) == {"features.feat_airport_network"}
    assert found["features.feat_airport_network"] == {"ml_assets.core.networks.centralities": "pass"}


def test_the_yml_of_a_python_feature_names_the_tables_that_its_asset_reads(life):
    graph = life.lifecycle._definitions.resolve_asset_graph()
    features = python_features()
    assert [feature.table for feature in features] == ["features.feat_airport_network"]
    for feature in features:
        parents = graph.get(dg.AssetKey(feature.table.split("."))).parent_keys
        assert sorted(".".join(key.path) for key in parents) == feature.made_from


def test_a_library_that_is_gone_has_no_version():
    assert installed_version("pyarrow")
    assert installed_version("no-such-distribution") is None
