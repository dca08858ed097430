from dataclasses import replace
from datetime import date, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.errors import DataMissing
from ml_assets.core.evaluation import Metrics, evaluate
from ml_assets.core.intervals import Interval
from ml_assets.core.performance import (
    PERFORMANCE_SCHEMA,
    ScoreHistogram,
    measure_performance,
    performance_verdict,
    pool_histograms,
)
from ml_assets.core.quality_noise import HoldoutNoise

DAY = date(2013, 7, 1)
HOLDOUT = Metrics(
    roc_auc=0.75, pr_auc=0.5, log_loss=0.5, brier=0.16, calibration_error=0.02, n_rows=9000, positive_share=0.25
)


def decisions(labels: list[bool | None], predictions: list[float], reasons: list[str | None] | None = None) -> pa.Table:
    return pa.table(
        {
            "prediction": pa.array(predictions, pa.float64()),
            "label": pa.array(labels, pa.bool_()),
            "no_label_reason": pa.array(reasons or [None] * len(labels), pa.string()),
        }
    )


def measured(table: pa.Table, day: date = DAY, version: str = "v1") -> pa.Table:
    rows = measure_performance(table, use_case="arrival_delay", day=day, model_version=version)
    assert rows.schema == PERFORMANCE_SCHEMA
    return rows


def row_of(table: pa.Table) -> dict[str, object]:
    return measured(table).to_pylist()[0]


def test_the_metrics_are_those_of_the_labelled_decisions_alone():
    row = row_of(
        decisions(
            [False, True, None, False, True, None, None],
            [0.1, 0.9, 1.0, 0.4, 0.35, 0.0, 0.5],
            [None, None, "cancelled", None, None, "diverted", "cancelled"],
        )
    )
    expected = evaluate([0, 1, 0, 1], [0.1, 0.9, 0.4, 0.35])
    assert row["roc_auc"] == expected.roc_auc == 0.75
    assert (row["pr_auc"], row["log_loss"], row["brier"]) == (expected.pr_auc, expected.log_loss, expected.brier)
    assert row["mean_prediction"] == pytest.approx(1.75 / 4)
    assert row["base_rate_log_loss"] == pytest.approx(np.log(2))


def test_every_decision_without_a_label_is_counted_with_its_reason():
    reasons = [None, "cancelled", "cancelled", "diverted", "not landed", None]
    row = row_of(decisions([True, None, None, None, None, None], [0.5] * 6, reasons))
    assert (row["n_decisions"], row["n_labelled"], row["n_unlabelled"]) == (6, 1, 5)
    assert (row["n_cancelled"], row["n_diverted"], row["n_not_landed"]) == (2, 1, 1)


def test_ranking_is_null_on_a_day_of_one_class_and_losses_are_not():
    row = row_of(decisions([False, False], [0.2, 0.4]))
    assert (row["roc_auc"], row["pr_auc"], row["positive_share"]) == (None, None, 0.0)
    assert row["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)


@pytest.mark.parametrize("labels", [[], [None, None]])
def test_a_day_without_labels_has_counts_and_no_metrics(labels: list[bool | None]):
    row = row_of(decisions(labels, [0.5] * len(labels), ["cancelled"] * len(labels)))
    assert (row["n_decisions"], row["n_labelled"], row["n_cancelled"]) == (len(labels), 0, len(labels))
    nullable = PERFORMANCE_SCHEMA.names[PERFORMANCE_SCHEMA.names.index("positive_share") :]
    assert {row[name] for name in nullable} == {None}


def test_pooled_histograms_give_the_ranking_of_all_rows_together():
    generator = np.random.default_rng(2)
    days = []
    for level in (0.2, 0.6):
        p = np.clip(generator.normal(level, 0.1, 400), 0, 1)
        days.append((generator.random(400) < p, p))
    tables = [measured(decisions(y.tolist(), p.tolist()), DAY + timedelta(days=i)) for i, (y, p) in enumerate(days)]
    pooled = pool_histograms(pa.concat_tables(tables))
    together = evaluate(np.concatenate([y for y, _ in days]), np.concatenate([p for _, p in days]))
    assert pooled.roc_auc == pytest.approx(together.roc_auc, abs=0.002)
    assert sum(pooled.n_rows) == 800
    assert sum(pooled.prediction_sum) == pytest.approx(sum(p.sum() for _, p in days), abs=1e-3)


def test_predictions_of_exactly_zero_and_one_have_a_bin():
    text = measured(decisions([True, False], [1.0, 0.0])).column("score_histogram")[0].as_py()
    histogram = msgspec.json.decode(text, type=ScoreHistogram)
    assert (histogram.n_rows[0], histogram.n_rows[99], histogram.roc_auc) == (1, 1, 1.0)


def history(*days: list[float], version: str = "v1", first: date = DAY) -> pa.Table:
    """Each day has 100 decisions, of which the first 25 come true; its predictions are (of those, of the others)."""
    labels: list[bool | None] = [True] * 25 + [False] * 75
    tables = [
        measured(decisions(labels, [positive] * 25 + [negative] * 75), first + timedelta(days=i), version)
        for i, (positive, negative) in enumerate(days)
    ]
    return pa.concat_tables(tables)


def test_a_good_week_raises_no_alarm_and_says_how_good():
    verdict = performance_verdict(history(*[[0.6, 0.15]] * 7), HOLDOUT)
    # Loss 0.25 x 0.5108 + 0.75 x 0.1625 = 0.2496; base rate 0.25 x 1.3863 + 0.75 x 0.2877 = 0.5623.
    assert not verdict.is_alarming
    assert verdict.reasons == (
        "over 7 labelled days to 2013-07-07, the log loss is 56 % below the base rate's",
        "over 7 labelled days to 2013-07-07, ROC AUC 1.000 is within 0.05 of the holdout's 0.750",
    )


def test_a_week_no_better_than_the_base_rate_raises_an_alarm():
    verdict = performance_verdict(history(*[[0.96, 0.9]] * 7), HOLDOUT)
    assert verdict.is_alarming
    assert verdict.reasons[0].endswith("above the base rate's")


def test_a_week_that_ranks_far_worse_than_the_holdout_raises_an_alarm():
    verdict = performance_verdict(history(*[[0.2501, 0.2502]] * 7), replace(HOLDOUT, positive_share=0.5))
    assert verdict.is_alarming
    assert verdict.reasons == (
        "over 7 labelled days to 2013-07-07, ROC AUC 0.500 is not within 0.05 of the holdout's 0.750",
    )


def test_one_bad_day_in_a_good_week_raises_no_alarm():
    assert not performance_verdict(history(*[[0.6, 0.15]] * 6, [0.2, 0.6]), HOLDOUT).is_alarming


def test_fewer_than_three_labelled_days_are_not_judged():
    verdict = performance_verdict(history([0.1, 0.9], [0.1, 0.9]), HOLDOUT)
    assert not verdict.is_alarming
    assert verdict.reasons == ("only 2 of the last 7 days have labels, too few to judge quality",)


def test_days_before_the_last_seven_and_of_another_version_do_not_count():
    bad_before = history(*[[0.1, 0.9]] * 7, *[[0.6, 0.15]] * 7)
    assert not performance_verdict(bad_before, HOLDOUT).is_alarming
    other = history(*[[0.1, 0.9]] * 3, version="v0")
    mine = history(*[[0.6, 0.15]] * 3, version="v1", first=DAY + timedelta(days=3))
    assert not performance_verdict(pa.concat_tables([mine, other]), HOLDOUT).is_alarming


def test_a_verdict_on_nothing_is_refused():
    with pytest.raises(DataMissing, match="no performance has been measured"):
        performance_verdict(PERFORMANCE_SCHEMA.empty_table(), HOLDOUT)


def test_a_week_is_not_alarming_within_the_noise_of_the_holdout():
    bad = history(*[[0.2501, 0.2502]] * 7)
    known = HoldoutNoise(limits={"roc_auc": Interval(low=0.45, high=0.95)}, n_days=21)
    assert performance_verdict(bad, replace(HOLDOUT, positive_share=0.5)).is_alarming
    assert not performance_verdict(bad, replace(HOLDOUT, positive_share=0.5), noise=known).is_alarming


def test_a_large_loss_of_quality_is_severe_once_a_second_week_shows_it():
    # What a coin would rank lies 0.19 below: less than four times the 0.05 that is tolerated.
    holdout = replace(HOLDOUT, roc_auc=0.69, positive_share=0.5)
    for n_days, is_severe in ((7, False), (9, False), (10, True), (14, True)):
        verdict = performance_verdict(history(*[[0.2501, 0.2502]] * n_days), holdout)
        assert (verdict.is_alarming, verdict.is_severe) == (True, is_severe)


@pytest.mark.parametrize(
    ("roc_auc", "n_days", "half_width", "is_severe"),
    [
        (0.71, 7, 0.0, True),
        (0.69, 7, 0.0, False),
        # Four times what is tolerated, on too few days to be sure, or within twice what chance allows.
        (0.71, 6, 0.0, False),
        (0.71, 7, 0.02, True),
        (0.71, 7, 0.06, False),
    ],
)
def test_a_ranking_that_collapsed_is_severe_after_a_week(
    roc_auc: float, n_days: int, half_width: float, is_severe: bool
):
    holdout = replace(HOLDOUT, roc_auc=roc_auc, positive_share=0.5)
    noise = HoldoutNoise(limits={"roc_auc": Interval(low=roc_auc - half_width, high=roc_auc + half_width)}, n_days=7)
    verdict = performance_verdict(history(*[[0.2501, 0.2502]] * n_days), holdout, noise=noise)
    assert (verdict.is_alarming, verdict.is_severe) == (True, is_severe)


def test_a_whole_week_no_better_than_the_base_rate_is_severe_at_once():
    assert performance_verdict(history(*[[0.96, 0.9]] * 7), HOLDOUT).is_severe
    assert not performance_verdict(history(*[[0.96, 0.9]] * 6), HOLDOUT).is_severe
