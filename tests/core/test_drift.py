from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from ml_assets.core.drift import DRIFT_SCHEMA, Reference, build_reference, measure_drift
from ml_assets.core.errors import DataMissing
from ml_assets.core.feature_views import Feature

DAY = date(2013, 7, 1)
WIND = Feature(name="wind_speed_mph", kind="numeric", view="feat_origin_weather")
CARRIER = Feature(name="carrier", kind="categorical", view="feat_schedule")


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Ten like days of 400 rows: wind 1..20 mph, each equally often; AA 60 %, UA 40 %; predictions 0.01 to 0.8."""
    rows = np.arange(4000)
    table = pa.table(
        {
            "partition_on": [date(2013, 6, 1 + i // 400) for i in rows],
            "wind_speed_mph": (rows % 20 + 1).astype(float),
            "carrier": ["AA" if i % 5 < 3 else "UA" for i in rows],
        }
    )
    return build_reference(table, [WIND, CARRIER], (rows % 80 + 1) / 100)


def day_like_training(n: int = 400) -> tuple[list[float | None], list[str | None], list[float]]:
    return (
        [float(i % 20 + 1) for i in range(n)],
        ["AA" if i % 5 < 3 else "UA" for i in range(n)],
        [(i % 80 + 1) / 100 for i in range(n)],
    )


def measured(
    reference: Reference, wind: list[float | None], carrier: list[str | None], predictions: list[float]
) -> dict[str, dict[str, object]]:
    examples = pa.table({"wind_speed_mph": pa.array(wind, pa.float64()), "carrier": pa.array(carrier, pa.string())})
    rows = measure_drift(reference, examples, predictions, use_case="arrival_delay", model_version="v1", day=DAY)
    assert rows.schema == DRIFT_SCHEMA
    return {row["feature"]: row for row in rows.to_pylist()}


def test_a_day_like_training_shows_no_drift_at_all(reference: Reference):
    rows = measured(reference, *day_like_training())
    assert list(rows) == ["prediction", "wind_speed_mph", "carrier"]
    for row in rows.values():
        assert (row["psi"], row["js"], row["is_drifted"]) == (0.0, 0.0, False)
        assert row["explanation"] == "as in training"
        assert (row["use_case"], row["partition_on"], row["model_version"]) == ("arrival_delay", DAY, "v1")


def test_the_statistics_of_a_shifted_category_are_those_computed_by_hand(reference: Reference):
    wind, _, predictions = day_like_training()
    row = measured(reference, wind, ["AA"] * 80 + ["UA"] * 320, predictions)["carrier"]
    assert row["psi"] == pytest.approx((0.2 - 0.6) * np.log(0.2 / 0.6) + (0.8 - 0.4) * np.log(0.8 / 0.4))
    assert row["js"] == pytest.approx(jensenshannon([0.2, 0.8], [0.6, 0.4], base=2))
    assert row["ks"] is None
    assert row["is_drifted"]
    assert row["explanation"] == (
        "40 % of the day's mass moved to UA (80 %, in training 40 %), most of it from AA (20 %, in training 60 %)"
    )


def test_the_statistics_of_a_number_agree_with_scipy_on_the_binned_values(reference: Reference):
    generator = np.random.default_rng(11)
    _, carrier, predictions = day_like_training()
    wind = generator.normal(13, 4, 400)
    row = measured(reference, wind.tolist(), carrier, predictions)["wind_speed_mph"]
    bins = reference.features[0]
    day, training = bins.index(pa.array(wind)), bins.index(pa.array(np.arange(4000) % 20 + 1.0))
    shares = [np.bincount(index, minlength=len(bins.shares)) / len(index) for index in (day, training)]
    assert row["ks"] == pytest.approx(ks_2samp(day, training, method="asymp").statistic)
    assert row["js"] == pytest.approx(jensenshannon(*shares, base=2))
    p, q = (np.maximum(share, 1e-4) for share in shares)
    assert row["psi"] == pytest.approx(np.sum((p - q) * np.log(p / q)))


def test_the_bins_do_not_move_with_the_day(reference: Reference):
    # Two values alone: quantiles of the day would tell them apart, the fixed bins hold both in one.
    _, carrier, predictions = day_like_training()
    row = measured(reference, [2.5, 3.5] * 200, carrier, predictions)["wind_speed_mph"]
    assert row["explanation"] == (
        "90 % of the day's mass moved to 2 to 4 (100 %, in training 10 %), "
        "most of it from 4 to 20 (0 %, in training 80 %)"
    )
    assert row["ks"] == pytest.approx(0.8)


def test_values_beyond_the_training_range_are_unseen_and_explained(reference: Reference):
    wind, carrier, predictions = day_like_training()
    gusty = [40.0 if i < 124 else w for i, w in enumerate(wind)]
    row = measured(reference, gusty, carrier, predictions)["wind_speed_mph"]
    assert row["unseen_share"] == pytest.approx(0.31)
    assert str(row["explanation"]).startswith("31 % of the day's mass moved above the training range, above 20 (31 %,")
    calm = measured(reference, [0.4, 0.6] * 200, carrier, predictions)["wind_speed_mph"]
    assert str(calm["explanation"]).startswith(
        "100 % of the day's mass moved below the training range, below 1 (100 %,"
    )


def test_unseen_categories_are_counted_and_named(reference: Reference):
    wind, carrier, predictions = day_like_training()
    new = [f"Z{i % 5}" if i < 100 else c for i, c in enumerate(carrier)]
    row = measured(reference, wind, new, predictions)["carrier"]
    assert row["unseen_share"] == 0.25
    assert row["is_drifted"]
    assert str(row["explanation"]).startswith(
        "25 % of the day's mass moved to categories never seen in training (Z0, Z1, Z2 and 2 more) (25 %,"
    )


def test_a_day_without_any_weather_is_a_broken_feed(reference: Reference):
    _, carrier, predictions = day_like_training()
    row = measured(reference, [None] * 400, carrier, predictions)["wind_speed_mph"]
    assert (row["missing_share"], row["reference_missing_share"], row["unseen_share"]) == (1.0, 0.0, 0.0)
    assert row["ks"] is None
    assert row["js"] == pytest.approx(1.0)
    assert (row["is_drifted"], row["severity"]) == (True, "severe")
    assert row["explanation"] == "100 % of the day's rows have no value, in training 0 %"


def test_a_large_move_of_an_input_is_a_warning_and_of_the_predictions_severe(reference: Reference):
    _, carrier, _ = day_like_training()
    rows = measured(reference, [15.0 + i % 5 for i in range(400)], carrier, [0.75] * 400)
    assert [rows[name]["severity"] for name in ("wind_speed_mph", "prediction", "carrier")] == ["warning", "severe", ""]


def test_a_row_names_the_view_of_its_feature(reference: Reference):
    rows = measured(reference, *day_like_training())
    assert {name: row["view"] for name, row in rows.items()} == {
        "prediction": "",
        "wind_speed_mph": "feat_origin_weather",
        "carrier": "feat_schedule",
    }


def test_drift_of_the_predictions_has_a_row_of_its_own_kind(reference: Reference):
    wind, carrier, _ = day_like_training()
    rows = measured(reference, wind, carrier, [0.95] * 400)
    assert rows["prediction"]["kind"] == "prediction"
    assert rows["prediction"]["is_drifted"]
    assert not rows["wind_speed_mph"]["is_drifted"]


def test_a_small_day_is_measured_but_not_judged(reference: Reference):
    rows = measured(reference, [40.0] * 199, ["AA"] * 199, [0.5] * 199)
    row = rows["wind_speed_mph"]
    assert row["psi"] > 5
    assert not row["is_drifted"]
    assert str(row["explanation"]).startswith("only 199 rows, too few to judge (at least 200); 100 % of the day's mass")


def test_an_empty_day_has_rows_without_statistics(reference: Reference):
    rows = measured(reference, [], [], [])
    assert len(rows) == 3
    for row in rows.values():
        assert (row["n_rows"], row["psi"], row["js"], row["ks"], row["missing_share"]) == (0, None, None, None, None)
        assert (row["is_drifted"], row["explanation"]) == (False, "no rows on this day")


def test_examples_without_a_feature_and_predictions_of_other_rows_are_refused(reference: Reference):
    with pytest.raises(DataMissing, match=r"lack the features \['carrier'\]"):
        measure_drift(reference, pa.table({"wind_speed_mph": [1.0]}), [0.5], use_case="a", model_version="v1", day=DAY)
    with pytest.raises(ValueError, match="expected one for each"):
        measured(reference, [1.0], ["AA"], [0.5, 0.6])
