"""Which days are said to have drifted: beyond chance, among all features, and by enough; and in which words."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.drift_tests import (
    MINIMUM_ROWS,
    Counts,
    explain,
    false_discoveries_controlled,
    judge_day,
    judge_days,
)
from ml_assets.core.feature_views import Feature
from ml_assets.core.reference import Bins, Reference, build_reference

WIND = Feature(name="wind_speed_mph", kind="numeric", view="feat_origin_weather")
CARRIER = Feature(name="carrier", kind="categorical", view="feat_schedule")
N_DAYS, N_ROWS = 60, 400


def trained(wind_of_day: float = 0.0, n_days: int = N_DAYS) -> Reference:
    """Sixty days of 400 rows; ``wind_of_day`` is by how many mph the wind of a whole day differs from another's."""
    generator = np.random.default_rng(2)
    day = np.repeat(np.arange(n_days), N_ROWS)
    wind = 20 + 4 * generator.standard_normal(len(day)) + wind_of_day * generator.standard_normal(n_days)[day]
    table = pa.table(
        {
            "partition_on": [date(2013, 1, 1) + timedelta(days=int(d)) for d in day],
            "wind_speed_mph": np.clip(wind, 0, 45),
            "carrier": generator.choice(["AA", "UA", "B6"], len(day), p=[0.5, 0.3, 0.2]),
        }
    )
    return build_reference(table, [WIND, CARRIER], generator.random(len(day)))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return trained()


def counted(bins: Bins, values: list[object]) -> Counts:
    kind = pa.string() if bins.kind == "categorical" else pa.float64()
    return np.bincount(bins.index(pa.array(values, kind)), minlength=len(bins.shares))


def wind(reference: Reference, shift: float, n_rows: int = 1000, *, seed: int = 9) -> Counts:
    values = 20 + shift + 4 * np.random.default_rng(seed).standard_normal(n_rows)
    return counted(reference.features[0], values.tolist())


def test_a_shift_of_half_a_standard_deviation_is_drift_and_none_is_not(reference: Reference):
    same, moved = (judge_day(reference, {"wind_speed_mph": wind(reference, by)})["wind_speed_mph"] for by in (0, 2))
    assert not same.is_drifted
    assert same.p_value is not None
    assert same.p_value > 0.01
    assert (moved.is_drifted, moved.severity) == (True, "warning")
    # Half a standard deviation moves 2 Phi(0.25) - 1 = 19.7 % of the mass; a standard deviation of each bin is off.
    assert moved.moved_share == pytest.approx(0.197, abs=0.06)


def test_the_same_shift_is_no_drift_where_days_of_training_lay_that_far_apart(reference: Reference):
    windy = trained(wind_of_day=2.0)
    assert judge_day(reference, {"wind_speed_mph": wind(reference, 2)})["wind_speed_mph"].is_drifted
    assert not judge_day(windy, {"wind_speed_mph": wind(windy, 2)})["wind_speed_mph"].is_drifted
    assert judge_day(windy, {"wind_speed_mph": wind(windy, 14)})["wind_speed_mph"].is_drifted


def test_too_few_rows_are_not_judged_and_together_they_are(reference: Reference):
    few = [wind(reference, 4, MINIMUM_ROWS // 2, seed=seed) for seed in range(4)]
    alone = judge_day(reference, {"wind_speed_mph": few[0]})["wind_speed_mph"]
    assert (alone.p_value, alone.moved_share, alone.is_drifted, alone.severity) == (None, None, False, "")
    assert judge_days(reference, {"wind_speed_mph": few})["wind_speed_mph"].is_drifted
    assert explain(reference.features[0], few[0]).startswith("only 100 rows, too few to judge (at least 200); ")


def test_what_is_certain_and_small_is_no_drift_of_a_day_but_of_a_week(reference: Reference):
    bins = reference.features[1]
    day = counted(bins, ["AA"] * 23_000 + ["UA"] * 17_000 + ["B6"] * 10_000)
    found = judge_day(reference, {"carrier": day})["carrier"]
    assert found.p_value is not None
    assert (found.p_value < 1e-6, found.is_drifted) == (True, False)
    assert judge_days(reference, {"carrier": [day] * 7})["carrier"].is_drifted


def test_a_package_of_a_release_that_knew_no_days_is_not_judged_and_says_so(reference: Reference):
    one_day = trained(n_days=1)
    assert one_day.features[0].variation is None
    day = wind(one_day, 30)
    assert judge_day(one_day, {"wind_speed_mph": day})["wind_speed_mph"].p_value is None
    assert "does not say how days vary, train it again" in explain(one_day.features[0], day)


def test_a_new_category_is_found_where_training_had_one_value_alone():
    table = pa.table({"partition_on": [date(2013, 1, 1 + i // 500) for i in range(5000)], "carrier": ["AA"] * 5000})
    reference = build_reference(table, [CARRIER], np.full(5000, 0.5))
    found = {
        n: judge_day(reference, {"carrier": counted(reference.features[0], ["AA"] * (1000 - n) + ["ZZ"] * n)})[
            "carrier"
        ]
        for n in (0, 1, 100)
    }
    assert found[0].p_value == 1.0
    assert found[1].p_value is not None
    assert found[1].p_value > 1e-4  # 5,000 rows without one do not say that one in a thousand is impossible
    assert found[100].is_drifted


def test_the_false_discoveries_are_those_that_scipy_controls():
    from scipy.stats import false_discovery_control

    p_values = np.random.default_rng(4).random(50) ** 4
    expected = false_discovery_control(p_values) <= 0.05
    assert false_discoveries_controlled(p_values, 0.05).tolist() == expected.tolist()
    assert 0 < expected.sum() < 50
    assert false_discoveries_controlled(np.array([0.5, 0.9])).tolist() == [False, False]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (50.0, "31 % of the day's mass moved above the training range, above 3"),
        (None, "31 % of the day's mass moved to missing values (31 %, in training 0 %)"),
        (-3.0, "31 % of the day's mass moved below the training range, below "),
    ],
)
def test_mass_outside_of_training_is_told_in_the_words_of_a_number(
    reference: Reference, value: float | None, words: str
):
    day = wind(reference, 0, 690) + counted(reference.features[0], [value] * 310)
    assert explain(reference.features[0], day).startswith(words)


def test_the_explanation_names_both_ends_of_the_move(reference: Reference):
    day = counted(reference.features[1], ["AA"] * 300 + ["UA"] * 600 + ["B6"] * 100)
    said = explain(reference.features[1], day)
    assert said.startswith("30 % of the day's mass moved to UA (60 %, in training 30 %), most of it from AA (30 %, in")


def test_an_empty_day_is_explained_as_one(reference: Reference):
    nothing = np.zeros(len(reference.features[0].shares), np.int64)
    assert explain(reference.features[0], nothing) == "no rows on this day"
    assert not judge_day(reference, {"wind_speed_mph": nothing})["wind_speed_mph"].is_drifted
