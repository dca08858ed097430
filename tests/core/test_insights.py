"""What a trained package leans on: the rule its labels were made by."""

import numpy as np
import pytest

from ml_assets.core.insights import insights_on


def test_a_trained_model_leans_on_the_rule_and_its_curve_shows_it(trained):
    training_set, candidate, *_ = trained
    found = insights_on(candidate.package, training_set, seed=1)
    # It storms where the wind is above 20 mph at EWR; holidays say nothing.
    assert {one.name for one in found.importances.features[:2]} == {"wind_speed_mph", "origin"}
    wind, holiday = (
        next(one for one in found.importances.features if one.name == name) for name in ("wind_speed_mph", "is_holiday")
    )
    assert wind.loss_increase.value > 10 * abs(holiday.loss_increase.value)
    assert wind.metric_drop.value > 0.05
    assert found.importances.n_rows == training_set.test.num_rows
    curves = {curve.feature.name: curve for curve in found.curves}
    origins = {point.value: point.mean for point in curves["origin"].points}
    assert origins["EWR"] > 0.3 > max(origins["JFK"], origins["LGA"])
    known = [point for point in curves["wind_speed_mph"].points if point.value is not None]
    assert known[-1].mean > known[0].mean + 0.1
    # Only at EWR does the wind count: the curves of the rows differ as much as that.
    assert known[-1].high - known[-1].low > 0.1
    null = curves["wind_speed_mph"].points[-1]
    assert null.value is None
    assert null.share == pytest.approx(0.05, abs=0.02)


def test_a_large_holdout_is_sampled_and_that_is_said(trained):
    training_set, candidate, *_ = trained
    # Three columns and two views, three times each, and the rows as they are.
    found = insights_on(candidate.package, training_set, seed=1, most_scored=16 * 100).importances
    assert found.n_rows == pytest.approx(100, rel=0.25)
    assert found == insights_on(candidate.package, training_set, seed=1, most_scored=16 * 100).importances
    assert np.isfinite([one.loss_increase.standard_error for one in found.features]).all()
