"""A week's calibration: an alarm where it is wrong, none where it is chance."""

from datetime import date, timedelta

import numpy as np
import pytest

from ml_assets.core.calibration import WeekCalibration, week_calibration
from ml_assets.core.encoding import Task
from ml_assets.core.estimates import logit, sigmoid
from ml_assets.core.expectations import DayNoise
from ml_assets.core.scored_rows import DayRows


def week(
    generator: np.random.Generator,
    *,
    task: Task = "binary_classification",
    n_days: int = 7,
    moved: float = 0.0,
    slope: float = 1.0,
    spread: float = 0.0,
    noise: DayNoise | None = None,
) -> WeekCalibration:
    """Return the calibration of days whose truth is moved away from the prediction, some more than others."""
    days = list[DayRows]()
    for place in range(n_days):
        shift = moved + generator.normal(0, spread)
        if task == "regression":
            p = generator.uniform(50, 350, 400)
            y = 200 + slope * (p - 200) + 20 * shift + generator.normal(0, 15, 400)
        else:
            p = generator.beta(1.2, 4, 400)
            y = (generator.random(400) < sigmoid(slope * logit(p) + shift)).astype(float)
        days.append(
            DayRows(
                day=date(2013, 7, 1) + timedelta(days=place),
                version="v1",
                predictions=p,
                labels=y,
                is_known=np.ones(400, bool),
            )
        )
    found = week_calibration(days, task=task, noise=noise)
    assert found is not None
    return found


@pytest.mark.parametrize("task", ["binary_classification", "regression"])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_a_calibrated_model_is_accused_in_few_weeks_also_where_whole_days_stray(task: Task, spread: float):
    generator = np.random.default_rng(1)
    accused = sum(week(generator, task=task, spread=spread).is_miscalibrated for _ in range(200))
    assert accused <= 10  # two tests of one percent each


@pytest.mark.parametrize("task", ["binary_classification", "regression"])
@pytest.mark.parametrize("wrong", [{"moved": 0.6}, {"slope": 0.6}, {"slope": 1.5}])
def test_a_model_that_is_off_or_too_sure_of_itself_is_found(task: Task, wrong: dict[str, float]):
    generator = np.random.default_rng(2)
    found = [week(generator, task=task, **wrong) for _ in range(40)]
    assert sum(of.is_miscalibrated for of in found) >= 36
    assert found[0].explanation.startswith("miscalibrated: over 7 days") == found[0].is_miscalibrated
    if "slope" in wrong:
        assert np.mean([of.slope for of in found]) == pytest.approx(wrong["slope"], abs=0.08)


def test_days_that_varied_more_on_the_holdout_widen_the_band():
    narrow = week(np.random.default_rng(3), moved=0.6)
    assert narrow.is_miscalibrated
    stormy = week(np.random.default_rng(3), moved=0.6, noise=DayNoise(variance=0.15**2, n_days=35))
    assert not stormy.is_miscalibrated
    assert (stormy.gap, stormy.slope) == (narrow.gap, narrow.slope)
    assert stormy.gap_margin > narrow.gap_margin


def test_the_figures_of_two_rows_by_hand_and_no_judgement_of_two_days():
    days = [
        DayRows(
            day=date(2013, 7, day),
            version="v1",
            predictions=np.array([0.25, 0.9]),
            labels=np.array([label, np.nan]),
            is_known=np.array([True, False]),
        )
        for day, label in ((1, 0.0), (2, 1.0))
    ]
    found = week_calibration(days, task="binary_classification", noise=None)
    assert found is not None
    assert (found.n_days, found.n_labelled) == (2, 2)
    assert (found.mean_prediction, found.mean_label, found.gap) == (0.25, 0.5, 0.25)
    assert (found.error, found.error_by_chance) == (0.25, pytest.approx(np.sqrt(2 / np.pi * 2 * 0.1875) / 2))
    assert (found.gap_margin, found.slope, found.is_miscalibrated) == (None, None, False)
    assert "too few days" in found.explanation
    assert week_calibration([], task="binary_classification", noise=None) is None


def test_a_week_without_any_positive_has_no_slope_and_is_still_held_against_what_was_predicted():
    days = [
        DayRows(
            day=date(2013, 7, day),
            version="v1",
            predictions=np.linspace(0.3, 0.5, 200),
            labels=np.zeros(200),
            is_known=np.ones(200, bool),
        )
        for day in range(1, 8)
    ]
    found = week_calibration(days, task="binary_classification", noise=DayNoise(variance=0.0, n_days=35))
    assert found is not None
    assert found.slope is None
    assert found.gap == pytest.approx(-0.4)
    assert found.is_miscalibrated
