"""A feed that broke is told from weather and from what is often missing."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.broken_feeds import broken_feed
from ml_assets.core.column_statistics import statistics_of
from ml_assets.core.feature_views import Feature
from ml_assets.core.reference import Bins, build_reference

WIND = Feature(name="wind_speed_mph", kind="numeric", view="origin_weather")
GUST = Feature(name="wind_gust_mph", kind="numeric", view="origin_weather")
CARRIER = Feature(name="carrier", kind="categorical", view="flight_schedule")
N_DAYS, N_ROWS = 30, 300


@pytest.fixture(scope="module")
def bins() -> dict[str, Bins]:
    """Thirty days of 300 rows: wind always there, gusts on two days of three, two carriers."""
    day, place = np.divmod(np.arange(N_DAYS * N_ROWS), N_ROWS)
    table = pa.table(
        {
            "partition_on": [date(2013, 1, 1) + timedelta(days=int(d)) for d in day],
            "wind_speed_mph": place % 20 + 1.0,
            "wind_gust_mph": pa.array(place % 9 + 20.0, mask=day % 3 == 0),
            "carrier": np.where(place % 3 > 0, "AA", "UA"),
        }
    )
    reference = build_reference(table, [WIND, GUST, CARRIER], place / N_ROWS)
    return {b.feature: b for b in reference.all_bins}


def said(bins: Bins, values: list[object]) -> str | None:
    kind = pa.string() if bins.kind == "categorical" else pa.float64()
    return broken_feed(bins, statistics_of(bins, pa.array(values, kind)))


def some(n_missing: int, n_rows: int = N_ROWS) -> list[object]:
    return [None if i < n_missing else i % 20 + 1.0 for i in range(n_rows)]


def test_a_fifth_of_the_values_that_stopped_coming_is_a_broken_feed(bins: dict[str, Bins]):
    wind = bins["wind_speed_mph"]
    assert said(wind, some(0)) is None
    assert said(wind, some(59)) is None
    assert said(wind, some(60)) == "20 % of the day's rows have no value, in training 0 %"


def test_what_is_missing_on_whole_days_of_training_may_be_so_again(bins: dict[str, Bins]):
    assert bins["wind_gust_mph"].missing_share == pytest.approx(1 / 3)
    assert said(bins["wind_gust_mph"], [None] * N_ROWS) is None


def test_values_that_stand_still_are_a_broken_feed_though_each_of_them_is_usual(bins: dict[str, Bins]):
    words = "all 300 values of the day are {}; on no day of training were all the same"
    assert said(bins["wind_speed_mph"], [7.5] * N_ROWS) == words.format("7.5")
    assert said(bins["wind_speed_mph"], [7.5] * (N_ROWS - 1) + [7.6]) is None
    assert said(bins["carrier"], ["UA"] * N_ROWS) == words.format("UA")
    assert "all 300 values" in (said(bins["carrier"], ["ZZ"] * N_ROWS) or "")
    assert said(bins["carrier"], [f"Z{place % 40}" for place in range(N_ROWS)]) is None, (
        "forty new codes are no one value"
    )


def test_a_day_of_few_rows_says_nothing_nor_a_package_that_did_not_keep_how_training_was(bins: dict[str, Bins]):
    assert said(bins["wind_speed_mph"], some(199, 199)) is None
    assert said(bins["wind_speed_mph"], [7.5] * 199) is None
    old = replace(bins["wind_speed_mph"], constant_days_share=None, variation=None)
    assert said(old, [7.5] * N_ROWS) is None
    assert said(old, some(60)) is not None


def test_a_feature_that_was_constant_on_a_day_of_training_may_be_so_again(bins: dict[str, Bins]):
    dry = replace(bins["wind_speed_mph"], constant_days_share=0.1)
    assert said(dry, [0.0] * N_ROWS) is None


def test_predictions_are_no_feed(bins: dict[str, Bins]):
    assert said(bins["prediction"], [None] * N_ROWS) is None
