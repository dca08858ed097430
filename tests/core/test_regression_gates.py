"""The gates of a regression: each fails alone, and says in the unit of the label what was found and expected."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from ml_assets.core.encoding import Output
from ml_assets.core.leaks import LeakCheck
from ml_assets.core.paired_bootstrap import Comparison, Estimate
from ml_assets.core.promotion import GATES, Evidence, Gate, ServingCost, Verdict, judge
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.slices import SliceQuality
from ml_assets.core.spec import PromotionRule

GOOD = RegressionMetrics(
    rmse=12.0,
    mae=9.0,
    median_absolute_error=7.0,
    r2=0.98,
    bias=1.0,
    calibration_error=1.5,
    n_rows=1000,
    mean_label=150.0,
    label_spread=90.0,
)
LINEAR = replace(GOOD, rmse=14.0, mae=11.0, r2=0.97)
MEAN = replace(GOOD, rmse=90.0, mae=75.0, r2=0.0, bias=0.0)
COST = ServingCost(model_bytes=300_000, one_row_ms=0.05, thousand_rows_ms=1.2)
LEAKS = LeakCheck(
    n_labels_too_late=0,
    newest_label_known_at=datetime(2013, 7, 1, 3, 59, tzinfo=UTC),
    as_of_at=datetime(2013, 7, 1, 4, tzinfo=UTC),
    last_day_seen=date(2013, 6, 8),
    first_holdout_day=date(2013, 6, 10),
)
# t(20 degrees, 95 %) is 1.725: a margin of 0.1 minutes takes this error.
ERROR = 0.1 / 1.7247
NOT_WORSE = PromotionRule(against_champion="not_worse")


def estimate(value: float, error: float = ERROR) -> Estimate:
    return Estimate(value=value, standard_error=error, n_days=21)


def over(other: RegressionMetrics, candidate: RegressionMetrics) -> Comparison:
    gains = {"rmse": other.rmse - candidate.rmse, "mae": other.mae - candidate.mae}
    return Comparison(other=other, gains={name: estimate(value) for name, value in gains.items()})


def judged(
    candidate: RegressionMetrics = GOOD,
    champion: RegressionMetrics | None = None,
    *,
    rule: PromotionRule = NOT_WORSE,
    **changes: object,
) -> Verdict:
    evidence = Evidence(
        candidate=candidate,
        baselines={"mean": over(MEAN, candidate), "linear": over(LINEAR, candidate)},
        champion=over(champion, candidate) if champion else None,
        slices=(),
        largest_parity_difference=1e-7,
        leaks=LEAKS,
        sample_fraction=1.0,
        output=Output(task="regression", unit="minutes"),
    )
    return judge(replace(evidence, **changes), cost=COST, rule=rule)


def failed(verdict: Verdict) -> list[str]:
    return [gate.name for gate in verdict.gates if not gate.is_passed]


def gate(verdict: Verdict, name: str) -> Gate:
    return next(gate for gate in verdict.gates if gate.name == name)


def test_a_good_candidate_passes_every_gate_of_its_task():
    verdict = judged()
    assert verdict.is_promotable
    assert [gate.name for gate in verdict.gates if gate.name not in GATES["regression"]] == []
    assert len(verdict.gates) == len(GATES["regression"]) == 15
    assert verdict.summary == (
        "passed all 15 gates; R2 0.9800 is at least the floor 0.0000; no champion is in charge yet"
    )


# The noise is 0.1 minutes: of a gain of 0.09 nothing is left, of one of 0.11 something is.
@pytest.mark.parametrize(
    ("change", "rule", "gates"),
    [
        ({"r2": 0.89}, {"minimum_r2": 0.9}, ["r2_floor"]),
        ({"r2": None}, {}, ["r2_floor"]),
        ({"bias": 9.1}, {}, ["unbiased"]),
        ({"bias": -9.1}, {}, ["unbiased"]),
        ({"bias": -8.9}, {}, []),
        ({"rmse": 13.91}, {}, ["beats_linear_rmse"]),
        ({"rmse": 13.89}, {}, []),
        ({"mae": 10.91}, {}, ["beats_linear_mae"]),
        ({"rmse": 91.0}, {}, ["beats_mean_rmse", "beats_linear_rmse"]),
        ({"mae": 74.95}, {}, ["beats_mean_mae", "beats_linear_mae"]),
    ],
)
def test_each_gate_fails_alone(change: dict[str, float], rule: dict[str, float], gates: list[str]):
    assert failed(judged(replace(GOOD, **change), rule=PromotionRule(**rule))) == gates


def test_a_gate_says_what_was_found_and_expected_in_the_unit_of_the_label():
    verdict = judged(replace(GOOD, rmse=13.95, bias=10.0))
    assert verdict.reasons == (
        "the mean prediction is 10 minutes above the mean label 150 minutes and should be within 9 minutes, 0.1 of the "
        "labels' spread",
        "RMSE 13.95 minutes should be below the linear baseline's 14 minutes by more than the noise of 0.1 minutes",
    )
    biased = gate(verdict, "unbiased")
    assert (biased.found, biased.expected) == (10.0, pytest.approx(9.0))
    assert gate(judged(replace(GOOD, r2=None)), "r2_floor").detail == (
        "R2 cannot be computed: all labels of the holdout are equal"
    )


# One hundredth of the champion's 12 is the most of the noise that counts: 0.12, more than the noise of 0.1.
@pytest.mark.parametrize(
    ("rmse", "rule", "is_passed"),
    [
        (12.09, NOT_WORSE, True),
        (12.11, NOT_WORSE, False),
        (12.35, replace(NOT_WORSE, may_lose_to_champion_by=0.02), False),
        (12.33, replace(NOT_WORSE, may_lose_to_champion_by=0.02), True),
        (12.07, replace(NOT_WORSE, most_champion_noise=0.005), False),
        (11.91, PromotionRule(against_champion="better"), False),
        (11.89, PromotionRule(against_champion="better"), True),
    ],
)
def test_what_a_candidate_may_lose_to_the_champion_is_a_share_of_its_rmse(
    rmse: float, rule: PromotionRule, is_passed: bool
):
    verdict = judged(replace(GOOD, rmse=rmse), champion=GOOD, rule=rule)
    assert gate(verdict, "against_champion").is_passed is is_passed


def test_a_candidate_worse_than_the_champion_says_by_what():
    verdict = judged(champion=replace(GOOD, rmse=11.0), rule=replace(NOT_WORSE, may_lose_to_champion_by=0.05))
    assert verdict.reasons == (
        "RMSE 12 minutes should be at most the champion's 11 minutes plus 0.55 plus the noise of 0.1 minutes",
    )
    assert gate(verdict, "against_champion").expected == pytest.approx(11.65, abs=1e-4)


def test_a_slice_may_lose_a_share_of_the_other_models_rmse_beside_the_noise():
    def part(value: str, rmse: float, gain: float) -> SliceQuality:
        return SliceQuality(
            column="origin",
            value=value,
            n_rows=400,
            mean_label=150.0,
            figures={"rmse": estimate(rmse)},
            gains={"rmse": estimate(gain)},
        )

    # The other model has 20: at 1.05 x 20 plus the noise of 0.1 the floor is reached.
    assert judged(slices=(part("EWR", 21.09, -1.09),)).is_promotable
    verdict = judged(slices=(part("EWR", 21.11, -1.11),))
    assert failed(verdict) == ["no_slice_loses_rmse"]
    assert verdict.reasons == (
        "1 of 1 slices have an RMSE worse than the linear baseline's by more than 5 % of it beyond the noise; worst is "
        "origin=EWR (400 rows): 1.11 minutes worse, noise 0.1 minutes",
    )
    assert gate(verdict, "no_slice_loses_rmse").found == pytest.approx(1.01 / 20, abs=1e-5)


def test_the_gates_of_every_task_hold_for_a_regression_too():
    late = replace(LEAKS, n_labels_too_late=3)
    assert failed(judged(leaks=late)) == ["labels_known_in_time"]
    assert failed(judged(leaks=replace(LEAKS, last_day_seen=date(2013, 6, 10)))) == ["holdout_unseen"]
    assert failed(judged(sample_fraction=0.1)) == ["all_examples"]
    assert failed(judged(largest_parity_difference=1.1e-5)) == ["parity"]
