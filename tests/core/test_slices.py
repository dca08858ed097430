from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.evaluation import log_loss
from ml_assets.core.feature_views import Feature
from ml_assets.core.paired_bootstrap import DayResamples
from ml_assets.core.slices import SliceQuality, slice_columns, slice_qualities
from ml_assets.core.spec import PromotionRule, UseCase

RULE = PromotionRule(slice_minimum_rows=8, slice_minimum_positives=2)
N_DAYS = 4


# One day: six flights of UA, two late; three of AA, one late; two without a carrier, one late; one of HA, late.
DAY = [("UA", 1), ("UA", 1), *[("UA", 0)] * 4, ("AA", 1), ("AA", 0), ("AA", 0), (None, 1), (None, 0), ("HA", 1)]


def holdout() -> pa.Table:
    """Four such days, 30 January to 2 February."""
    days = [date(2013, 1, 30) + timedelta(days=day) for day in range(N_DAYS) for _ in DAY]
    return pa.table(
        {
            "partition_on": pa.array(days, pa.date32()),
            "carrier": [carrier for carrier, _ in DAY] * N_DAYS,
            "label": [bool(label) for _, label in DAY] * N_DAYS,
        }
    )


def sliced(*columns: str, rule: PromotionRule = RULE) -> tuple[SliceQuality, ...]:
    rows = holdout()
    y = np.asarray(rows["label"].to_numpy(), np.float64)
    is_united = np.array([carrier == "UA" for carrier in rows["carrier"].to_pylist()])
    # The candidate knows the outcome of UA better than the other model, and of all others worse.
    other, candidate = np.where(y == 1, 0.6, 0.4), np.where(is_united, np.where(y == 1, 0.8, 0.2), 0.5)
    resamples = DayResamples.of(rows["partition_on"].to_numpy(), seed=1)
    return slice_qualities(rows, columns, y=y, candidate=candidate, other=other, resamples=resamples, rule=rule)


def test_a_slice_has_the_rows_of_its_value_largest_first_and_a_missing_one_is_a_slice():
    found = [(part.name, part.n_rows, part.mean_label) for part in sliced("carrier")]
    # HA has positives only.
    assert found == [("carrier=UA", 24, 8 / 24), ("carrier=AA", 12, 4 / 12), ("carrier=missing", 8, 4 / 8)]


def test_a_slice_says_how_good_the_candidate_is_in_it_and_what_it_gains():
    united, american, _ = sliced("carrier")
    assert united.figures["log_loss"].value == pytest.approx(-np.log(0.8))
    assert united.gains["log_loss"].value == pytest.approx(np.log(0.8 / 0.6))
    assert (united.figures["roc_auc"].value, united.gains["roc_auc"].value) == (1, 0)
    assert american.figures["log_loss"].value == pytest.approx(log_loss([1, 0, 0], [0.5] * 3))
    assert american.gains["log_loss"].value == pytest.approx(np.log(0.5 / 0.6))
    assert (american.figures["roc_auc"].value, american.gains["roc_auc"].value) == (0.5, -0.5)
    # All four days are alike.
    assert american.gains["log_loss"].standard_error == pytest.approx(0)
    assert american.gains["log_loss"].n_days == 4


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"slice_minimum_rows": 12}, ["UA", "AA"]),
        ({"slice_minimum_rows": 13}, ["UA"]),
        ({"slice_minimum_positives": 5}, ["UA"]),
        ({"slice_minimum_positives": 9}, []),
    ],
)
def test_a_slice_with_too_few_rows_or_too_few_of_either_class_is_not_judged(change: dict[str, int], names: list[str]):
    assert [part.value for part in sliced("carrier", rule=replace(RULE, **change))] == names


def test_months_are_those_of_the_local_day():
    assert [(part.name, part.n_rows, part.figures["log_loss"].n_days) for part in sliced("month")] == [
        ("month=2013-01", 24, 2),
        ("month=2013-02", 24, 2),
    ]


def test_a_slice_of_one_day_is_not_judged():
    rows = holdout().slice(0, len(DAY))
    y = np.asarray(rows["label"].to_numpy(), np.float64)
    p = np.full(len(y), 0.5)
    resamples = DayResamples.of(rows["partition_on"].to_numpy(), seed=1)
    rule = replace(RULE, slice_minimum_rows=3, slice_minimum_positives=1)
    assert slice_qualities(rows, ["carrier"], y=y, candidate=p, other=p, resamples=resamples, rule=rule) == ()


def test_the_columns_are_those_declared_or_else_the_categorical_features(
    use_case: UseCase, inputs: tuple[Feature, ...]
):
    assert slice_columns(use_case, inputs) == ("origin",)
    assert slice_columns(replace(use_case, slices=("is_holiday", "month")), inputs) == ("is_holiday", "month")
    with pytest.raises(InvalidDeclaration, match=r"slices by \['gate'\], which are none of its features"):
        slice_columns(replace(use_case, slices=("origin", "gate")), inputs)
