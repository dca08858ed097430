from dataclasses import replace

import pytest

from ml_assets.core.evaluation import Metrics
from ml_assets.core.promotion import Verdict, judge
from ml_assets.core.spec import PromotionRule

GOOD = Metrics(
    roc_auc=0.72, pr_auc=0.48, log_loss=0.45, brier=0.15, calibration_error=0.02, n_rows=1000, positive_share=0.25
)
LOGISTIC = replace(GOOD, roc_auc=0.70, pr_auc=0.43, log_loss=0.48)
BASE_RATE = replace(GOOD, roc_auc=0.5, pr_auc=0.25, log_loss=0.56)
RULE = PromotionRule(minimum_roc_auc=0.6, maximum_calibration_error=0.05, may_lose_to_champion_by=0.0)


def judged(candidate: Metrics, champion: Metrics | None = None, rule: PromotionRule = RULE) -> Verdict:
    return judge(candidate, baselines={"base_rate": BASE_RATE, "logistic": LOGISTIC}, champion=champion, rule=rule)


def failed(verdict: Verdict) -> list[str]:
    return [gate.name for gate in verdict.gates if not gate.is_passed]


def test_a_candidate_better_than_the_baselines_is_promotable_where_nobody_is_in_charge():
    verdict = judged(GOOD)
    assert verdict.is_promotable
    assert verdict.gates[-1].detail == "no champion is in charge yet"
    assert verdict.gates[-1].expected is None


@pytest.mark.parametrize(
    ("change", "gates"),
    [
        ({"roc_auc": 0.59}, ["roc_auc_floor", "beats_logistic_roc_auc"]),
        ({"calibration_error": 0.051}, ["calibrated"]),
        ({"pr_auc": 0.25}, ["beats_base_rate_pr_auc"]),
        ({"log_loss": 0.56}, ["beats_base_rate_log_loss", "beats_logistic_log_loss"]),
        ({"roc_auc": 0.70}, ["beats_logistic_roc_auc"]),
        ({"log_loss": 0.48}, ["beats_logistic_log_loss"]),
    ],
)
def test_each_gate_fails_alone_where_its_metric_is_no_better(change: dict[str, float], gates: list[str]):
    verdict = judged(replace(GOOD, **change))
    assert failed(verdict) == gates
    assert not verdict.is_promotable
    assert len(verdict.reasons) == len(gates)


def test_a_floor_and_a_ceiling_may_be_met_exactly():
    assert judged(
        replace(GOOD, roc_auc=0.71, calibration_error=0.05), rule=replace(RULE, minimum_roc_auc=0.71)
    ).is_promotable


def test_a_candidate_trained_on_a_sample_may_not_serve():
    baselines = {"base_rate": BASE_RATE, "logistic": LOGISTIC}
    verdict = judge(GOOD, baselines=baselines, champion=None, rule=RULE, sample_fraction=0.1)
    assert failed(verdict) == ["all_examples"]
    assert verdict.reasons == ("trained on a sample of 0.1 of the examples",)


def test_a_candidate_worse_than_the_champion_says_by_what():
    verdict = judged(GOOD, champion=replace(GOOD, log_loss=0.44))
    assert failed(verdict) == ["not_worse_than_champion"]
    assert verdict.reasons == ("log loss 0.4500 should be at most the champion's 0.4400",)


def test_an_equal_candidate_and_one_within_the_tolerance_are_not_worse():
    assert judged(GOOD, champion=GOOD).is_promotable
    assert judged(
        GOOD, champion=replace(GOOD, log_loss=0.44), rule=replace(RULE, may_lose_to_champion_by=0.011)
    ).is_promotable


def test_a_metric_that_cannot_be_computed_passes_no_gate():
    verdict = judged(replace(GOOD, roc_auc=None, pr_auc=None))
    assert failed(verdict) == ["roc_auc_floor", "beats_base_rate_pr_auc", "beats_logistic_roc_auc"]
    assert verdict.reasons[0] == "ROC AUC cannot be computed: the holdout holds one class only"


def test_metrics_of_different_rows_are_not_compared():
    with pytest.raises(ValueError, match="champion was measured on 999 rows, the candidate on 1000"):
        judged(GOOD, champion=replace(GOOD, n_rows=999))
