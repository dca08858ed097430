"""The weighing of a day's evidence: pure, with every factor alone and in company."""

import json
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import pyarrow as pa
import pytest

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.retraining import (
    RETRAINING_SCHEMA,
    Estimated,
    Evidence,
    Realised,
    RetrainingDecision,
    StandingAlarm,
    decide,
    judge_declared_age,
    retraining_alarms,
)
from ml_assets.core.spec import RetrainingRule
from ml_assets.core.staleness_curves import CostOfAge, StalenessCurve

DAY = date(2013, 7, 10)
RULE = RetrainingRule()
HOLDS = Realised(measure="roc_auc", found=0.78, holdout=0.78, n_days=7)
CALM = Evidence(
    use_case="delay",
    day=DAY,
    model_version="v1",
    model_as_of=date(2013, 7, 1),
    realised=HOLDS,
    n_new_examples=8_000,
    n_fitted_examples=100_000,
    last_training_on=date(2013, 7, 1),
    n_trainings=1,
)


def alarm(kind: str, severity: str = "severe", words: str = "") -> StandingAlarm:
    return StandingAlarm(kind=kind, subject="x", severity=severity, explanation=words or f"{severity} {kind}")


def decided(*alarms: StandingAlarm, rule: RetrainingRule = RULE, **changed) -> RetrainingDecision:
    return decide(replace(CALM, alarms=alarms, **changed), rule)


def test_a_calm_day_waits_and_says_what_was_found():
    found = decided()
    assert (found.decision, found.as_of) == ("wait", date(2013, 7, 11))
    held = "quality holds (ROC AUC 0.78 over 7 days, holdout 0.78)"
    assert found.reason == f"nothing asks for a training: {held}; age 10 days, of at most 28"


@pytest.mark.parametrize(
    ("alarms", "changed", "decision"),
    [
        # A severe loss that came true asks alone, be it of the ranking or of the calibration; a slighter one does not.
        ((alarm("quality"),), {}, "retrain"),
        ((alarm("quality", "warning"),), {}, "wait"),
        ((alarm("calibration"),), {}, "retrain"),
        ((alarm("calibration", "warning"),), {}, "wait"),
        ((alarm("calibration", "warning"), alarm("quality", "warning")), {}, "retrain"),
        ((alarm("calibration", "warning"), alarm("drift")), {"realised": None}, "wait"),
        # Drift of features alone, however severe, asks for nothing while quality is known to hold.
        ((alarm("drift"), alarm("prediction_drift")), {}, "wait"),
        ((alarm("broken_feed"),), {"realised": None}, "wait"),
        # Nor where a slight loss is known: seasons move inputs always, and a week of bad luck comes to every model.
        ((alarm("drift"), alarm("quality", "warning")), {}, "wait"),
        ((alarm("prediction_drift", "warning"), alarm("quality", "warning")), {}, "retrain"),
        ((alarm("prediction_drift", "warning"), alarm("calibration", "warning")), {}, "retrain"),
        # Where nothing is known of quality, severe drift asks alone; drift to be warned of does not.
        ((alarm("drift"),), {"realised": None}, "retrain"),
        ((alarm("drift", "warning"),), {"realised": None}, "wait"),
        # An estimate speaks where nothing has come true yet, in company with drift, and is silenced by what came true.
        ((alarm("estimated_quality"),), {"realised": None}, "wait"),
        ((alarm("estimated_quality"), alarm("drift", "warning")), {"realised": None}, "retrain"),
        ((alarm("estimated_quality"), alarm("drift")), {}, "wait"),
        # Age asks alone, also where quality holds: the curve says that a fresh model would do better.
        ((), {"staleness_cost": 0.011, "staleness_measured_days": 112}, "retrain"),
        ((), {"staleness_cost": 0.010, "staleness_measured_days": 112}, "wait"),
        ((), {"staleness_cost": 0.001, "staleness_measured_days": 7}, "retrain"),
        ((), {"model_as_of": DAY - timedelta(days=27)}, "wait"),
        ((), {"model_as_of": DAY - timedelta(days=28)}, "retrain"),
        # So does a history that has grown by half; one that has not, does not.
        ((), {"n_new_examples": 50_000}, "retrain"),
        ((), {"n_new_examples": 49_999}, "wait"),
        # A measured curve takes the place of what is declared, either way.
        ((), {"model_as_of": date(2013, 5, 1), "staleness_cost": 0.005, "staleness_measured_days": 112}, "wait"),
    ],
)
def test_what_asks_for_a_training_and_what_does_not(alarms: tuple[StandingAlarm, ...], changed: dict, decision: str):
    assert decided(*alarms, **changed).decision == decision


@pytest.mark.parametrize(
    ("noise", "n_worse", "alone", "with_drift"),
    [
        (None, None, "retrain", "retrain"),
        # 0.05 lost: three standard errors of 0.016, one and a half of 0.033, and of 0.034 less than that.
        (0.016, 7, "retrain", "retrain"),
        (0.017, 7, "wait", "retrain"),
        (0.033, 7, "wait", "retrain"),
        (0.034, 7, "wait", "wait"),
        # A storm on three of seven days is no change of the world; one on four may be.
        (0.016, 3, "wait", "wait"),
        (0.016, 4, "retrain", "retrain"),
    ],
)
def test_a_loss_that_the_luck_of_the_days_explains_asks_for_nothing(
    noise: float | None, n_worse: int | None, alone: str, with_drift: str
):
    realised = replace(HOLDS, found=0.73, noise=noise, n_days_worse=n_worse)
    found = decided(alarm("quality"), realised=realised)
    assert found.decision == alone
    assert decided(alarm("quality"), alarm("prediction_drift", "warning"), realised=realised).decision == with_drift
    assert ("the luck of the days explains" in found.reason) == (with_drift == "wait")
    # An error that fell is no loss, however far.
    better = Realised(measure="rmse", found=5.0, holdout=8.0, n_days=7, noise=0.1)
    assert not better.is_beyond(1.5)
    assert replace(better, found=8.4).is_beyond(3.0)


def test_the_luck_of_the_days_of_the_ranking_never_silences_a_miscalibration():
    lucky = replace(HOLDS, found=0.77, noise=0.05, n_days_worse=5)
    assert decided(alarm("quality"), realised=lucky).decision == "wait"
    found = decided(alarm("calibration", words="25 % predicted, 60 % realised"), realised=lucky)
    assert (found.decision, found.reason) == (
        "retrain",
        "25 % predicted, 60 % realised, though no alarm says that the ranking is lost "
        "(ROC AUC 0.77 over 7 days, holdout 0.78)",
    )
    both = decided(alarm("quality"), alarm("calibration"), realised=lucky)
    assert (both.decision, both.reason) == ("retrain", "severe calibration")


@pytest.mark.parametrize(
    ("measure", "lost"), [("roc_auc", "the ranking is lost (ROC AUC"), ("rmse", "the error has grown (RMSE")]
)
def test_quality_is_not_said_to_hold_while_predictions_do_not_come_true(measure: str, lost: str):
    realised = replace(HOLDS, measure=measure)
    found = decided(alarm("calibration", "warning"), realised=realised)
    assert found.votes == 1
    words = f"warning calibration, though no alarm says that {lost} 0.78 over 7 days, holdout 0.78)"
    assert found.reason.startswith(f"not enough asks for a training: {words}")
    assert "quality holds" not in found.reason
    # What speaks for a loss beside it is not voted down.
    estimated = Estimated(measure=measure, estimated=0.7, holdout=0.78, recent_error=None)
    both = decided(alarm("calibration", "warning"), alarm("estimated_quality"), estimated=estimated)
    assert (both.votes, "though no alarm" in both.reason) == (2, False)
    assert decided(alarm("estimated_quality"), estimated=estimated).votes == 0


@pytest.mark.parametrize(("error", "decision"), [(None, "retrain"), (0.01, "retrain"), (0.06, "wait"), (0.08, "wait")])
def test_an_estimate_that_is_no_further_from_the_holdout_than_estimates_were_off_says_nothing(
    error: float | None, decision: str
):
    estimate = Estimated(measure="roc_auc", estimated=0.73, holdout=0.78, recent_error=error)
    found = decided(alarm("estimated_quality"), alarm("drift", "warning"), realised=None, estimated=estimate)
    assert found.decision == decision


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"last_training_on": date(2013, 7, 5)}, "cooling down until 2013-07-12"),
        ({"n_trainings": 4}, "the budget is spent, 4 trainings in 28 days"),
        ({"n_new_examples": 999}, "only 999 new labelled examples of 1,000 needed"),
        # A share of what the model was fitted on, where that is more.
        ({"n_new_examples": 1_999, "n_fitted_examples": 200_000}, "only 1,999 new labelled examples of 2,000 needed"),
    ],
)
def test_what_forbids_a_training_says_so_and_what_asked_for_it(changed: dict, words: str):
    found = decided(alarm("quality", words="ROC AUC fell to 0.61"), **changed)
    assert (found.decision, found.reason) == ("wait", f"{words}, though ROC AUC fell to 0.61")


def test_skew_forbids_a_training_until_it_is_mended_and_a_slight_one_does_not():
    found = decided(alarm("quality"), alarm("skew", words="origin_weather differs"))
    assert found.decision == "wait"
    assert found.reason.startswith("features served differ from those recomputed, which no training mends (origin_w")
    assert decided(alarm("quality"), alarm("skew", "warning")).decision == "retrain"


@pytest.mark.parametrize(
    ("last", "has_failed", "decision"),
    [
        # A decision of 10 July trains as of the 11th: seven days after a training as of the 4th, six after the 5th.
        (date(2013, 7, 4), False, "retrain"),
        (date(2013, 7, 5), False, "wait"),
        # One that failed has taught nothing: again on the next day, not on the same.
        (date(2013, 7, 10), True, "retrain"),
        (date(2013, 7, 10), False, "wait"),
        (date(2013, 7, 11), True, "wait"),
        (None, False, "retrain"),
    ],
)
def test_two_trainings_are_at_least_the_cool_down_apart(last: date | None, has_failed: bool, decision: str):
    found = decided(alarm("quality"), last_training_on=last, has_last_training_failed=has_failed)
    assert found.decision == decision


def test_after_three_refused_candidates_it_stops_whatever_asks_or_does_not():
    for alarms in ((), (alarm("quality"),)):
        assert decided(*alarms, n_refusals=2).decision != "stopped"
        found = decided(*alarms, n_refusals=3)
        assert found.decision == "stopped"
        assert "ml-assets resume --use-case delay" in found.reason


@pytest.mark.parametrize(("n_days", "decision"), [(71, "wait"), (72, "retrain")])
def test_the_first_training_waits_for_enough_labelled_days_and_for_nothing_else(n_days: int, decision: str):
    evidence = Evidence(use_case="delay", day=DAY, n_labelled_days=n_days, n_days_for_first=72)
    found = decide(evidence, RULE)
    assert found.decision == decision
    assert f"{n_days} days are labelled" in found.reason
    # One that was refused is not asked for on every day.
    refused = replace(evidence, n_labelled_days=80, last_training_on=DAY, n_refusals=1)
    assert decide(refused, RULE).decision == "wait"


def test_alarms_of_every_day_train_once_a_cool_down_until_the_budget_is_spent():
    """Live two months of alarms, every candidate promoted and none of any use."""
    trained = [date(2013, 7, 1)]
    for n in range(1, 60):
        day = DAY + timedelta(days=n)
        recent = [one for one in trained if one > day + timedelta(days=1 - 28)]
        found = decided(
            alarm("quality"),
            day=day,
            model_as_of=trained[-1],
            last_training_on=trained[-1],
            n_trainings=len(recent),
            rule=RetrainingRule(budget_trainings=3),
        )
        if found.decision == "retrain":
            trained.append(found.as_of)
    gaps = [(later - earlier).days for earlier, later in pairwise(trained)]
    assert min(gaps) == 7
    # Never more than three in any four weeks.
    assert all(sum(one - timedelta(days=28) < other <= one for other in trained) <= 3 for one in trained)


def test_the_same_evidence_has_one_fingerprint_and_any_other_another():
    assert CALM.fingerprint == replace(CALM).fingerprint
    assert len({CALM.fingerprint, replace(CALM, n_new_examples=1).fingerprint}) == 2


def test_a_decision_is_a_row_of_its_table_with_all_that_was_weighed():
    found = decided(alarm("quality"), n_trainings=4)
    first = decide(Evidence(use_case="delay", day=DAY), RULE)
    table = pa.Table.from_pylist([found.as_row(), first.as_row()], schema=RETRAINING_SCHEMA)
    assert list(found.as_row()) == RETRAINING_SCHEMA.names
    assert table["model_version"].to_pylist() == ["v1", None]
    factors = {factor["name"]: factor for factor in json.loads(table["factors"][0].as_py())}
    assert (factors["realised_quality"]["votes"], factors["budget"]["forbids"]) == (2, True)
    assert (factors["budget"]["found"], factors["budget"]["threshold"]) == ("4 trainings in 28 days", "4")
    assert sum(factor["votes"] for factor in factors.values()) == table["votes"][0].as_py() == 2
    assert json.loads(table["evidence"][0].as_py())["n_trainings"] == 4


def test_what_is_stopped_and_what_has_failed_raise_alarms_and_nothing_else_does():
    stopped, failed = decided(n_refusals=3), decided(has_last_training_failed=True)
    rows = [one.as_row() for one in (decided(), stopped, failed, decided(alarm("quality")))]
    # A row of before there was evidence has none.
    rows.append({**decided().as_row(), "evidence": None})
    rows = [{**row, "partition_on": DAY + timedelta(days=i)} for i, row in enumerate(rows)]
    found = retraining_alarms(pa.Table.from_pylist(rows, schema=RETRAINING_SCHEMA))
    raised = [(alarm.subject, alarm.severity, alarm.since) for of_day in found.values() for alarm in of_day]
    assert raised == [("stopped", "severe", DAY + timedelta(days=1)), ("failed", "severe", DAY + timedelta(days=2))]
    assert "3 candidates in a row were refused" in found[DAY + timedelta(days=1)][0].explanation
    assert "as of 2013-07-01 failed" in found[DAY + timedelta(days=2)][0].explanation


def test_a_stop_is_one_incident_for_as_long_as_it_lasts():
    rows = [{**decided(n_refusals=3).as_row(), "partition_on": DAY + timedelta(days=i)} for i in (0, 1, 2, 10)]
    found = retraining_alarms(pa.Table.from_pylist(rows, schema=RETRAINING_SCHEMA))
    assert [(day - DAY).days for day in found] == [0, 1, 2, 10]
    assert [(alarm.since - DAY).days for of_day in found.values() for alarm in of_day] == [0, 0, 0, 10]


@pytest.mark.parametrize(
    "settings",
    [
        {"budget_trainings": 0},
        {"most_refusals": 0},
        {"cool_down_days": -1},
        # Who rests for 30 days cannot be fresh within 28.
        {"cool_down_days": 30},
        {"growth_share": 0.001},
        {"staleness_tolerance": 0.0},
        {"staleness_tolerance": 1.0},
    ],
)
def test_a_rule_that_nothing_could_keep_to_is_refused(settings: dict):
    with pytest.raises(InvalidDeclaration):
        RetrainingRule(**settings)


def curve(**costs: float) -> StalenessCurve:
    """A curve with these fitted costs by weeks (``w1=0.01``), each sure to 0.005 to either side."""
    nothing = dict.fromkeys(("n_windows", "n_days", "n_rows"), 1)
    figures = dict.fromkeys(("fresh_loss", "aged_loss", "headline_loss", "headline_low", "headline_high"), 0.0)
    ages = [
        CostOfAge(
            weeks=int(weeks[1:]),
            cost=cost,
            cost_low=cost,
            cost_high=cost,
            fitted=cost,
            fitted_low=max(0.0, cost - 0.005),
            fitted_high=cost + 0.005,
            **nothing,
            **figures,
        )
        for weeks, cost in costs.items()
    ]
    return StalenessCurve(
        use_case="delay",
        as_of=date(2014, 1, 1),
        fingerprint="f",
        loss="log_loss",
        headline="roc_auc",
        n_models=2,
        n_train_rows=100,
        window_days=14,
        first_day=DAY,
        last_day=DAY,
        ages=tuple(ages),
    )


def test_a_declared_age_that_the_curve_does_not_support_is_told_what_to_declare():
    measured = curve(w1=0.002, w2=0.006, w4=0.014)
    # 0.006 at 14 days and 0.014 at 28: 0.010 at 21.
    assert measured.useful_days(0.01) == 21
    held = judge_declared_age(measured, RetrainingRule(maximum_age_days=21))
    broken = judge_declared_age(measured, RetrainingRule(maximum_age_days=22))
    assert (held.is_alarming, broken.is_alarming) == (False, True)
    assert broken.reasons[0].endswith("declare 21 or less")
    # By the upper limit 0.011 at 14 days, 0.007 at 7; by the lower 0.009 at 28.
    assert measured.useful_days_between(0.01) == (12, 28)
    assert not judge_declared_age(None, RULE).is_alarming


def test_what_was_never_measured_supports_no_age():
    flat = curve(w1=0.0, w2=0.001)
    assert (flat.useful_days(0.01), flat.cost(300)) == (14, 0.001)
    assert judge_declared_age(flat, RetrainingRule(maximum_age_days=15)).is_alarming
    # Who may not train within a week cannot be told to.
    steep = curve(w1=0.05)
    assert not judge_declared_age(steep, RetrainingRule(maximum_age_days=7)).is_alarming
