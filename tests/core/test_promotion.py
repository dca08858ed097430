from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from ml_assets.core.errors import BadInput, InvalidDeclaration
from ml_assets.core.evaluation import Metrics
from ml_assets.core.holdout import evidence_on
from ml_assets.core.leaks import LeakCheck
from ml_assets.core.paired_bootstrap import Comparison, Estimate
from ml_assets.core.promotion import Evidence, Gate, ServingCost, Verdict, judge
from ml_assets.core.slices import SliceQuality
from ml_assets.core.spec import PromotionRule, UseCase

GOOD = Metrics(
    roc_auc=0.72, pr_auc=0.48, log_loss=0.45, brier=0.15, calibration_error=0.02, n_rows=1000, positive_share=0.25
)
LOGISTIC = replace(GOOD, roc_auc=0.70, pr_auc=0.43, log_loss=0.48)
BASE_RATE = replace(GOOD, roc_auc=0.5, pr_auc=0.25, log_loss=0.56)
RULE = PromotionRule(minimum_roc_auc=0.6, maximum_calibration_error=0.05, against_champion="not_worse")
COST = ServingCost(model_bytes=300_000, one_row_ms=0.05, thousand_rows_ms=1.2)
AS_OF_AT = datetime(2013, 7, 1, 4, tzinfo=UTC)
LEAKS = LeakCheck(
    n_labels_too_late=0,
    newest_label_known_at=datetime(2013, 7, 1, 3, 59, tzinfo=UTC),
    as_of_at=AS_OF_AT,
    last_day_seen=date(2013, 6, 8),
    first_holdout_day=date(2013, 6, 10),
)
# The 95 % quantile of Student's t with 20 degrees of freedom, from a table: 1.725. A margin of 0.01 takes this error.
ERROR = 0.01 / 1.7247


def estimate(value: float, error: float = ERROR) -> Estimate:
    return Estimate(value=value, standard_error=error, n_days=21)


def over(other: Metrics, candidate: Metrics = GOOD, *, error: float = ERROR) -> Comparison:
    """Compare as the bootstrap would, with the same noise in each figure."""

    differences = {"log_loss": other.log_loss - candidate.log_loss}
    for name in ("roc_auc", "pr_auc"):
        ours, theirs = getattr(candidate, name), getattr(other, name)
        if ours is not None and theirs is not None:
            differences[name] = ours - theirs
    return Comparison(other=other, gains={name: estimate(value, error) for name, value in differences.items()})


def evidence(candidate: Metrics = GOOD, champion: Comparison | None = None, **changes: object) -> Evidence:
    found = Evidence(
        candidate=candidate,
        baselines={"base_rate": over(BASE_RATE, candidate), "logistic": over(LOGISTIC, candidate)},
        champion=champion,
        slices=(),
        largest_parity_difference=1e-7,
        leaks=LEAKS,
        sample_fraction=1.0,
    )
    return replace(found, **changes)


def judged(found: Evidence, *, rule: PromotionRule = RULE, cost: ServingCost = COST) -> Verdict:
    return judge(found, rule=rule, cost=cost)


def failed(verdict: Verdict) -> list[str]:
    return [gate.name for gate in verdict.gates if not gate.is_passed]


def gate(verdict: Verdict, name: str) -> Gate:
    return next(gate for gate in verdict.gates if gate.name == name)


def test_a_candidate_better_than_the_baselines_is_promotable_where_nobody_is_in_charge():
    verdict = judged(evidence())
    assert verdict.is_promotable
    champion = gate(verdict, "against_champion")
    assert (champion.detail, champion.expected) == ("no champion is in charge yet", None)
    assert verdict.summary == (
        "passed all 16 gates; ROC AUC 0.7200 is at least the floor 0.6000; no champion is in charge yet"
    )


# The noise is 0.01: of a gain of 0.009 nothing is left, of one of 0.011 something is.
@pytest.mark.parametrize(
    ("change", "gates"),
    [
        ({"roc_auc": 0.59}, ["roc_auc_floor", "beats_logistic_roc_auc"]),
        ({"calibration_error": 0.051}, ["calibrated"]),
        ({"pr_auc": 0.259}, ["beats_base_rate_pr_auc"]),
        ({"pr_auc": 0.261}, []),
        ({"log_loss": 0.551}, ["beats_base_rate_log_loss", "beats_logistic_log_loss"]),
        ({"roc_auc": 0.709}, ["beats_logistic_roc_auc"]),
        ({"roc_auc": 0.711}, []),
        ({"log_loss": 0.471}, ["beats_logistic_log_loss"]),
        ({"log_loss": 0.469}, []),
    ],
)
def test_each_gate_fails_alone_where_its_metric_is_no_better_beyond_the_noise(
    change: dict[str, float], gates: list[str]
):
    verdict = judged(evidence(replace(GOOD, **change)))
    assert failed(verdict) == gates
    assert verdict.is_promotable is (not gates)


def test_a_gate_says_what_was_found_what_was_expected_and_how_large_the_noise_is():
    verdict = judged(evidence(replace(GOOD, log_loss=0.475)))
    words = "log loss 0.4750 should be below the logistic baseline's 0.4800 by more than the noise of 0.0100"
    assert (verdict.reasons, verdict.summary) == ((words,), words)


def test_a_confidence_of_one_half_takes_differences_as_they_are():
    barely = evidence(replace(GOOD, log_loss=0.4799, roc_auc=0.7001))
    assert failed(judged(barely)) == ["beats_logistic_roc_auc", "beats_logistic_log_loss"]
    assert judged(barely, rule=replace(RULE, confidence=0.5)).is_promotable
    for confidence in (0.49, 1.0):
        with pytest.raises(InvalidDeclaration, match=r"choose at least 0\.5 and less than 1"):
            replace(RULE, confidence=confidence)


def test_a_holdout_of_one_day_tells_no_noise_and_lets_nobody_pass():
    gains = {**over(LOGISTIC).gains, "log_loss": Estimate(value=0.03, standard_error=None, n_days=1)}
    one_day = replace(over(LOGISTIC), gains=gains)
    verdict = judged(evidence(baselines={"base_rate": over(BASE_RATE), "logistic": one_day}))
    assert failed(verdict) == ["beats_logistic_log_loss"]
    assert "which 1 day of holdout cannot tell" in verdict.reasons[0]


def test_a_floor_and_a_ceiling_may_be_met_exactly():
    exact = evidence(replace(GOOD, roc_auc=0.715, calibration_error=0.05))
    assert judged(exact, rule=replace(RULE, minimum_roc_auc=0.715)).is_promotable


def test_a_candidate_trained_on_a_sample_may_not_serve():
    verdict = judged(evidence(sample_fraction=0.1))
    assert failed(verdict) == ["all_examples"]
    assert verdict.reasons == ("trained on a sample of 0.1 of the examples",)


@pytest.mark.parametrize(
    ("log_loss", "rule", "is_passed"),
    [
        (0.450, RULE, True),
        (0.459, RULE, True),
        (0.461, RULE, False),
        (0.461, replace(RULE, may_lose_to_champion_by=0.002), True),
        (0.456, replace(RULE, most_champion_noise=0.005), False),
        (0.454, replace(RULE, most_champion_noise=0.005), True),
        (0.451, replace(RULE, confidence=0.5), False),
        (0.441, replace(RULE, against_champion="better"), False),
        (0.439, replace(RULE, against_champion="better"), True),
    ],
)
def test_against_the_champion_the_rule_of_the_use_case_decides(log_loss: float, rule: PromotionRule, is_passed: bool):
    candidate = replace(GOOD, log_loss=log_loss)
    verdict = judged(evidence(candidate, over(GOOD, candidate)), rule=rule)
    assert gate(verdict, "against_champion").is_passed is is_passed
    assert failed(verdict) == ([] if is_passed else ["against_champion"])


def test_a_candidate_worse_than_the_champion_says_by_what():
    verdict = judged(evidence(champion=over(replace(GOOD, log_loss=0.43))))
    assert verdict.reasons == ("log loss 0.4500 should be at most the champion's 0.4300 plus the noise of 0.0100",)
    assert gate(verdict, "against_champion").expected == pytest.approx(0.44, abs=1e-6)


def test_the_same_model_again_is_not_worse_but_not_better_either():
    same = over(GOOD, error=0.0)
    assert judged(evidence(champion=same)).is_promotable
    assert failed(judged(evidence(champion=same), rule=replace(RULE, against_champion="better"))) == [
        "against_champion"
    ]


def part(name: str, *, loses_log_loss: float = 0.0, loses_roc_auc: float = 0.0, error: float = 0.001) -> SliceQuality:
    column, _, value = name.partition("=")
    return SliceQuality(
        column=column,
        value=value,
        n_rows=400,
        mean_label=0.25,
        figures={"log_loss": estimate(0.5), "roc_auc": estimate(0.7)},
        gains={"log_loss": estimate(-loses_log_loss, error), "roc_auc": estimate(-loses_roc_auc, error)},
    )


def test_a_slice_below_its_floor_refuses_the_candidate_and_the_worst_is_named():
    slices = (part("origin=EWR"), part("carrier=HA", loses_log_loss=0.05), part("carrier=UA", loses_log_loss=0.04))
    verdict = judged(evidence(slices=slices))
    assert failed(verdict) == ["no_slice_loses_log_loss"]
    # Three slices share the 5 %: t(20 degrees, 98.333 %) is 2.2855 by scipy.stats, so the noise is 0.0023.
    assert verdict.reasons == (
        "2 of 3 slices have a log loss worse than the logistic baseline's by more than 0.02 beyond the noise; worst is "
        "carrier=HA (400 rows): 0.0500 worse, noise 0.0023",
    )
    assert gate(verdict, "no_slice_loses_log_loss").found == pytest.approx(0.05 - 0.0022855, abs=1e-6)


def test_a_slice_may_lose_what_its_floor_allows_and_what_noise_explains():
    at_the_floor = part("carrier=HA", loses_log_loss=0.0217, loses_roc_auc=0.0317)  # one slice: the noise is 0.0017
    assert judged(evidence(slices=(at_the_floor,))).is_promotable
    noisy = part("carrier=HA", loses_log_loss=0.2, loses_roc_auc=0.2, error=0.12)
    assert judged(evidence(slices=(noisy,))).is_promotable
    below = part("carrier=HA", loses_roc_auc=0.033)
    verdict = judged(evidence(slices=(below,), champion=over(GOOD)))
    assert failed(verdict) == ["no_slice_loses_roc_auc"]
    assert "ROC AUC worse than the champion's" in verdict.reasons[0]


def test_without_a_slice_to_judge_the_gate_says_so():
    assert gate(judged(evidence()), "no_slice_loses_roc_auc").detail == "no slice has the rows to be judged"


@pytest.mark.parametrize(
    ("change", "name", "found", "words"),
    [
        ({"model_bytes": 64_000_001}, "model_size", 64.000001, "should be at most 64.0000"),
        ({"one_row_ms": 50.1}, "one_row_latency", 50.1, "1 row took 50.1 ms and should take at most 50"),
        ({"thousand_rows_ms": 500.1}, "thousand_rows_latency", 500.1, "1,000 rows took 500.1 ms and should take at"),
    ],
)
def test_a_model_too_large_or_too_slow_may_not_serve(change: dict[str, float], name: str, found: float, words: str):
    verdict = judged(evidence(), cost=replace(COST, **change))
    assert failed(verdict) == [name]
    assert gate(verdict, name).found == pytest.approx(found)
    assert words in verdict.reasons[0]
    assert "models" not in verdict.reasons[0]
    of_many = judged(evidence(), cost=replace(COST, n_models=101, **change))
    assert of_many.reasons == (
        f"{verdict.reasons[0]}; it holds 101 models, so raise minimum_rows of Segments, or make the model smaller",
    )


def test_a_difference_between_onnx_and_the_library_refuses():
    assert failed(judged(evidence(largest_parity_difference=1.1e-5))) == ["parity"]
    assert failed(judged(evidence(largest_parity_difference=float("nan")))) == ["parity"]
    assert judged(evidence(largest_parity_difference=1e-5)).is_promotable


def test_a_leak_refuses():
    late = replace(LEAKS, n_labels_too_late=3, newest_label_known_at=datetime(2013, 7, 1, 9, tzinfo=UTC))
    verdict = judged(evidence(leaks=late))
    assert failed(verdict) == ["labels_known_in_time"]
    assert verdict.reasons == (
        "3 labels became known after the as-of date began at 2013-07-01 04:00 UTC; the newest at 2013-07-01 09:00",
    )
    seen = judged(evidence(leaks=replace(LEAKS, last_day_seen=date(2013, 6, 10))))
    assert failed(seen) == ["holdout_unseen"]
    assert "the last day seen in training is 2013-06-10, the first of the holdout 2013-06-10" in seen.reasons[0]


def test_a_metric_that_cannot_be_computed_passes_no_gate():
    verdict = judged(evidence(replace(GOOD, roc_auc=None, pr_auc=None)))
    assert failed(verdict) == ["roc_auc_floor", "beats_base_rate_pr_auc", "beats_logistic_roc_auc"]
    assert verdict.reasons[0] == "ROC AUC cannot be computed: the holdout holds one class only"


def test_metrics_of_different_rows_are_not_compared():
    with pytest.raises(ValueError, match="champion was measured on 999 rows, the candidate on 1000"):
        judged(evidence(champion=over(replace(GOOD, n_rows=999))))


def test_the_evidence_on_a_real_training_is_what_its_package_says(trained, use_case: UseCase):
    training_set, candidate, _, _ = trained
    found = evidence_on(candidate.package, candidate.package, training_set, use_case, as_of_at=AS_OF_AT)

    metrics = candidate.package.metrics
    assert found.candidate == metrics.holdout
    assert {name: comparison.other for name, comparison in found.baselines.items()} == metrics.baselines
    assert found.champion is not None
    assert found.champion.gains["log_loss"] == Estimate(value=0, standard_error=0, n_days=6)
    assert {part.name for part in found.slices} == {"origin=EWR"}  # the others have fewer than 30 storms
    assert found.leaks.n_labels_too_late == 0
    # Six days of storms are few to be calibrated on.
    assert failed(judged(found, rule=PromotionRule(maximum_calibration_error=0.15, against_champion="not_worse"))) == []


def test_a_candidate_is_not_judged_on_days_of_another_training_set(trained, use_case: UseCase):
    training_set, candidate, _, _ = trained
    other = replace(training_set, manifest=replace(training_set.manifest, fingerprint="f" * 64))
    with pytest.raises(BadInput, match=r"was trained on the training set .*materialize storm_delay/candidate"):
        evidence_on(candidate.package, None, other, use_case, as_of_at=AS_OF_AT)
