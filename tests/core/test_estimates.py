"""Quality estimated before labels: by every possible outcome, by days that came true, and what it cannot see."""

from datetime import date, timedelta
from itertools import product

import msgspec
import numpy as np
import pytest

from ml_assets.core.encoding import Task
from ml_assets.core.estimated_performance import EstimateChecks, estimated_performance
from ml_assets.core.estimates import (
    ErrorLevels,
    Recalibration,
    expected_of_probabilities,
    fit_recalibration,
    logit,
    realised_quality,
    sigmoid,
)
from ml_assets.core.evaluation import Floats, evaluate
from ml_assets.core.expectations import DayNoise, Expectations, HeldOut, learn_expectations
from ml_assets.core.scored_rows import DayRows

DAY = date(2013, 7, 1)


def day_of(y: Floats, p: Floats, place: int = 0) -> DayRows:
    return DayRows(
        day=DAY + timedelta(days=place), version="v1", predictions=p, labels=y, is_known=np.ones(len(y), bool)
    )


def held_out(y: Floats, p: Floats, n_days: int) -> HeldOut:
    days = np.repeat(np.arange(n_days), len(y) // n_days)
    return HeldOut(labels=y, predictions=p, days=(np.datetime64("2013-06-01") + days))


def estimate(today: DayRows, checked: list[DayRows], expectations: Expectations) -> dict[str, dict[str, object]]:
    checks = EstimateChecks(expectations)
    rows = estimated_performance(today, checked, checks=checks, expectations=expectations, use_case="delay")
    return {row["metric"]: row for row in rows.to_pylist()}


@pytest.mark.parametrize("p", [[0.1, 0.4, 0.8, 0.3], [0.5, 0.5, 0.9, 0.2]])
def test_the_estimate_is_the_mean_over_every_possible_outcome(p: list[float]):
    c = np.array([0.2, 0.5, 0.7, 0.3])
    outcomes = np.array(list(product([0.0, 1.0], repeat=4)))
    chance = np.prod(np.where(outcomes == 1, c, 1 - c), axis=1)
    lived = [realised_quality(y, np.array(p), task="binary_classification") for y in outcomes]
    found = expected_of_probabilities(np.array(p), c)
    for metric in ("log_loss", "brier", "positive_share"):
        values = np.array([of[metric] for of in lived])
        assert found[metric].value == pytest.approx(chance @ values)
        assert found[metric].standard_error == pytest.approx(np.sqrt(chance @ values**2 - (chance @ values) ** 2))
    # Of the ROC AUC: the expected number of pairs ranked rightly by that of pairs.
    pairs = [(y[:, None] * (1 - y)[None, :]) for y in outcomes]
    right = (np.array(p)[:, None] > np.array(p)[None, :]) + 0.5 * (np.array(p)[:, None] == np.array(p)[None, :])
    won = chance @ [(of * right).sum() for of in pairs]
    assert found["roc_auc"].value == pytest.approx(won / (chance @ [of.sum() for of in pairs]))


def test_what_came_true_is_measured_as_everywhere_else():
    generator = np.random.default_rng(2)
    p = generator.random(500).round(2)
    y = (generator.random(500) < p).astype(float)
    found, expected = realised_quality(y, p, task="binary_classification"), evaluate(y, p)
    for metric in ("log_loss", "brier", "roc_auc", "positive_share"):
        assert found[metric] == pytest.approx(getattr(expected, metric))


def test_the_standard_error_of_a_roc_auc_is_how_far_it_moves_from_sample_to_sample():
    generator = np.random.default_rng(3)
    p = generator.beta(1, 4, 400)
    drawn = [
        realised_quality((generator.random(400) < p).astype(float), p, task="binary_classification")["roc_auc"]
        for _ in range(1500)
    ]
    found = expected_of_probabilities(p, p)["roc_auc"]
    assert found.value == pytest.approx(np.mean(drawn), abs=3 * np.std(drawn) / np.sqrt(1500) + 1e-3)
    assert found.standard_error == pytest.approx(np.std(drawn), rel=0.08)


def calibrated_days(task: Task, n_days: int, spread: float, seed: int) -> tuple[list[DayRows], list[DayRows]]:
    """Return 35 held-out days and ``n_days`` later ones, each moved a little as a whole, as weather moves it."""
    generator = np.random.default_rng(seed)
    made: list[DayRows] = []
    for place in range(35 + n_days):
        shift = generator.normal(0, spread)
        if task == "regression":
            p = generator.uniform(50, 350, 250)
            y = p + shift * 10 + generator.normal(0, p / 10)
        else:
            p = generator.beta(1.2, 4, 250)
            y = (generator.random(250) < sigmoid(logit(p) + shift)).astype(float)
        made.append(day_of(y, p, place))
    return made[:35], made[35:]


def expectations_of(days: list[DayRows], task: Task) -> Expectations:
    y, p = (np.concatenate([getattr(day, of) for day in days]) for of in ("labels", "predictions"))
    n_rows = len(days[0].labels)
    validation, test = (slice(0, 14 * n_rows), slice(14 * n_rows, None))
    parts = [held_out(y[at], p[at], n) for at, n in ((validation, 14), (test, len(days) - 14))]
    return learn_expectations(parts[0], parts[1], task=task, baselines=(), seed=1)


@pytest.mark.parametrize("task", ["binary_classification", "regression"])
@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_what_comes_true_lies_in_the_interval_on_about_95_of_100_days(task: Task, spread: float):
    n_days = 250
    before, days = calibrated_days(task, n_days, spread, seed=6)
    expectations = expectations_of(before, task)
    checks = EstimateChecks(expectations)
    inside: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    n_unreliable = 0
    for place, today in enumerate(days):
        rows = estimated_performance(
            today, days[max(0, place - 28) : place], checks=checks, expectations=expectations, use_case="delay"
        )
        for row in rows.to_pylist():
            inside.setdefault(row["metric"], []).append(row["low"] <= row["realised"] <= row["high"])
            widths.setdefault(row["metric"], []).append(row["high"] - row["low"])
            n_unreliable += not row["is_reliable"]
    shares = {metric: np.mean(held) for metric, held in inside.items()}
    # Of 250 days the share strays by 1.4 percent. The noise of whole days is itself learnt, on 35 days and on 28 more:
    # it is known to a tenth, which is worth 3 percent of the days.
    assert all((0.92 if spread == 0 else 0.88) <= share <= 0.995 for share in shares.values()), shares
    # Honest and not merely wide: the log loss of such days is known to a tenth or so.
    widest = {"binary_classification": ("log_loss", 0.35), "regression": ("rmse", 9.0)}[task]
    assert np.median(widths[widest[0]]) < widest[1]
    assert n_unreliable <= 0.06 * sum(map(len, inside.values()))


def test_days_that_became_harder_are_seen_before_any_label():
    generator = np.random.default_rng(5)
    easy, hard = generator.beta(0.5, 6, 800), generator.beta(4, 4, 800)
    expectations = Expectations(task="binary_classification", day_noise={})
    before, after = (expectations.expected(p) for p in (easy, hard))
    y = [(generator.random(800) < p).astype(float) for p in (easy, hard)]
    lived = [realised_quality(of, p, task="binary_classification") for of, p in zip(y, (easy, hard), strict=True)]
    for metric in ("log_loss", "brier", "positive_share"):
        assert after[metric].value > 2 * before[metric].value
        assert lived[1][metric] == pytest.approx(after[metric].value, abs=4 * after[metric].standard_error)
    # Of a regression: where the predictions are that have always been missed by more.
    p = generator.uniform(0, 100, 5000)
    levels = ErrorLevels.of(p + generator.normal(0, p / 5), p)
    assert levels.expected(np.full(50, 95.0))["rmse"].value > 3 * levels.expected(np.full(50, 15.0))["rmse"].value


def test_a_changed_relation_is_not_seen_is_said_to_be_invisible_and_is_told_by_the_labels_of_the_days_after():
    before, days = calibrated_days("binary_classification", 21, 0.0, seed=7)
    expectations = expectations_of(before, "binary_classification")
    generator = np.random.default_rng(8)
    # The same features and predictions; what was likely has become as likely as anything.
    drifted = [
        day_of((generator.random(len(day.labels)) < 0.5).astype(float), day.predictions, place)
        for place, day in enumerate(days)
    ]
    as_ever, changed = (estimate(of[0], [], expectations)["log_loss"] for of in (days, drifted))
    assert changed["estimated"] == as_ever["estimated"]
    assert changed["realised"] > changed["high"]
    assert "cannot see a changed relation between features and outcome" in str(changed["explanation"])
    assert changed["is_reliable"]  # nothing has contradicted it yet
    later = estimate(drifted[14], drifted[:14], expectations)["log_loss"]
    assert not later["is_reliable"]
    assert (later["n_days_checked"], later["n_days_held"]) == (14, 0)
    assert "not to be relied on: 14 of the last 14 days" in str(later["explanation"])
    assert later["mean_absolute_error"] == pytest.approx(abs(later["mean_error"]))  # always to the same side
    # And what it has learnt from them it no longer hides: the interval has grown to hold what comes true.
    assert later["high"] > changed["high"]


def test_the_error_of_the_estimate_is_what_came_true_less_what_was_said():
    y, p = np.array([0.0, 1.0] * 50), np.array([0.2, 0.6] * 50)
    yesterday, today = day_of(y, p, 0), day_of(1 - y, p, 1)
    found = estimate(today, [yesterday], Expectations(task="binary_classification", day_noise={}))["brier"]
    expected = 0.5 * (0.2 * 0.8 + 0.6 * 0.4)
    assert found["estimated"] == pytest.approx(expected)
    assert found["realised"] == pytest.approx(0.5 * (0.8**2 + 0.6**2))
    assert found["error"] == pytest.approx(found["realised"] - expected)
    assert found["mean_error"] == pytest.approx(0.5 * (0.2**2 + 0.4**2) - expected)
    assert found["mean_absolute_error"] == pytest.approx(expected - 0.5 * (0.2**2 + 0.4**2))


def test_a_day_of_too_few_labels_has_an_estimate_and_nothing_that_came_true():
    y, p = np.zeros(100), np.full(100, 0.3)
    few = DayRows(day=DAY, version="v1", predictions=p, labels=y, is_known=np.arange(100) < 29)
    found = estimate(few, [], Expectations(task="binary_classification", day_noise={}))["log_loss"]
    assert (found["n_labelled"], found["realised"], found["error"]) == (29, None, None)
    assert found["estimated"] is not None


def test_probabilities_are_recalibrated_only_where_that_gains_on_other_days():
    generator = np.random.default_rng(4)
    truth = generator.beta(1.5, 3, 35 * 300)
    y = (generator.random(len(truth)) < truth).astype(float)
    too_sure = sigmoid(2 * logit(truth) + 0.5)

    def learnt(p: Floats) -> Recalibration:
        parts = [held_out(y[at], p[at], n) for at, n in ((slice(0, 4200), 14), (slice(4200, None), 21))]
        return learn_expectations(*parts, task="binary_classification", baselines=(), seed=1).recalibration

    assert learnt(truth) == Recalibration()
    found = learnt(too_sure)
    assert (found.slope, found.intercept) == (pytest.approx(0.5, abs=0.04), pytest.approx(-0.25, abs=0.08))
    # The estimate knows that the log loss of a model too sure of itself is higher than it believes.
    believed = expected_of_probabilities(too_sure, too_sure)["log_loss"].value
    assert expected_of_probabilities(too_sure, found.apply(too_sure))["log_loss"].value > 1.1 * believed


def test_a_recalibration_equals_an_unpenalised_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(6)
    p = generator.random(20_000)
    y = (generator.random(20_000) < sigmoid(0.7 * logit(p) - 0.4)).astype(float)
    peer = LogisticRegression(C=1e9, tol=1e-10, max_iter=500).fit(logit(p)[:, None], y)
    found = fit_recalibration(y, p)
    assert found.slope == pytest.approx(peer.coef_[0, 0], abs=2e-3)
    assert found.intercept == pytest.approx(peer.intercept_[0], abs=2e-3)


@pytest.mark.parametrize("y", [np.zeros(40), np.repeat([0.0, 1.0], 20)])
def test_outcomes_that_are_all_alike_or_separated_leave_a_recalibration_finite(y: Floats):
    found = fit_recalibration(y, np.concatenate([np.full(20, 0.0), np.full(20, 1.0)]))
    assert np.isfinite([found.intercept, found.slope]).all()


def test_equal_predictions_share_a_level_and_none_is_empty():
    levels = ErrorLevels.of(np.array([1.0, 3.0, 5.0]), np.array([2.0, 2.0, 2.0]))
    assert (levels.edges, levels.n_rows) == ((), (3,))
    assert levels.expected(np.array([7.0]))["rmse"].value == pytest.approx(np.sqrt((1 + 1 + 9) / 3))


def test_what_is_expected_survives_being_kept():
    before, _ = calibrated_days("regression", 1, 0.2, seed=3)
    found = expectations_of(before, "regression")
    assert isinstance(found.day_noise["rmse"], DayNoise)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Expectations) == found
