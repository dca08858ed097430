from datetime import date

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.reference import Bins, Reference, build_reference

WIND = Feature(name="wind_speed_mph", kind="numeric", view="feat_origin_weather")
CARRIER = Feature(name="carrier", kind="categorical", view="feat_schedule")


def bins_of(feature: Feature, values: list[object], days: list[date] | None = None) -> Bins:
    columns = {"partition_on": days or [date(2013, 1, 1)] * len(values), feature.name: pa.array(values)}
    return build_reference(pa.table(columns), [feature], np.full(len(values), 0.5)).features[0]


def test_a_number_is_binned_by_the_deciles_of_training_with_a_bin_on_either_side_of_its_range():
    bins = bins_of(WIND, [float(v) for v in range(1, 101)])
    assert bins.edges == (np.nextafter(1.0, 0), *(10.0 * k for k in range(1, 11)))
    assert bins.shares == (0.0, *[0.1] * 10, 0.0, 0.0)
    index = bins.index(pa.array([0.999, 1.0, 10.0, 10.001, 100.0, 100.001, None, float("nan"), float("inf")]))
    assert index.tolist() == [0, 1, 1, 2, 10, 11, 12, 12, 11]


def test_equal_quantiles_are_merged():
    bins = bins_of(WIND, [0.0] * 95 + [1.0, 2.0, 3.0, 4.0, 5.0])
    assert bins.edges == (np.nextafter(0.0, -1), 0.0, 5.0)
    assert bins.shares == (0.0, 0.95, 0.05, 0.0, 0.0)


def test_a_constant_has_one_bin_and_anything_else_is_outside_of_it():
    bins = bins_of(WIND, [7.0] * 10)
    assert bins.index(pa.array([6.9, 7.0, 7.1])).tolist() == [0, 1, 2]
    assert [bins.label(i) for i in range(4)] == ["below 7", "7", "above 7", "missing"]


def test_a_number_that_was_always_missing_knows_no_range():
    bins = bins_of(WIND, [None, None])
    assert (bins.edges, bins.shares) == ((), (0.0, 1.0))
    assert bins.index(pa.array([1.0, None])).tolist() == [0, 1]
    assert bins.unseen_share(np.array([0.5, 0.5])) == 0.5


def test_only_the_fifty_most_frequent_categories_have_bins_of_their_own():
    values = [f"c{i:02}" for i in range(60) for _ in range(60 - i)]
    bins = bins_of(CARRIER, values)
    assert bins.categories == tuple(f"c{i:02}" for i in range(50))
    assert bins.other_categories == tuple(f"c{i:02}" for i in range(50, 60))
    assert bins.index(pa.array(["c00", "c49", "c50", "ZZ", None])).tolist() == [0, 49, 50, 51, 52]
    assert bins.shares[0] == 60 / 1830
    assert bins.shares[50] == pytest.approx(55 / 1830)


def test_shares_add_up_to_one_with_missing_values_in_a_bin_of_their_own():
    bins = bins_of(CARRIER, ["AA", "AA", None, "UA"])
    assert (bins.shares, bins.missing_share) == ((0.5, 0.25, 0.0, 0.0, 0.25), 0.25)


def test_it_is_kept_on_how_many_days_of_training_a_feature_had_one_value_alone():
    days = [date(2013, 1, 1 + i // 2) for i in range(8)]
    assert bins_of(WIND, [1.0, 1.0, 1.0, None, 1.0, 2.0, None, None], days).constant_days_share == 0.5
    assert bins_of(CARRIER, ["AA", "AA", "UA", None, "AA", "UA", None, None], days).constant_days_share == 0.5


def test_a_package_of_a_release_that_knew_no_views_is_read():
    bins = bins_of(WIND, [1.0, 2.0])
    assert bins.view == "feat_origin_weather"
    old = msgspec.json.decode(msgspec.json.encode(bins))
    for name in ("view", "constant_days_share", "variation"):
        del old[name]
    found = msgspec.convert(old | {"psi_limit": 0.1}, Bins, strict=True)
    assert (found.view, found.constant_days_share, found.edges) == ("", None, bins.edges)


def test_a_reference_survives_json_bit_for_bit():
    table = pa.table(
        {
            "partition_on": [date(2013, 1, 1)] * 3,
            "wind_speed_mph": [0.0, 1 / 3, 4.2],
            "carrier": ["AA", None, "<b>"],
        }
    )
    reference = build_reference(table, [WIND, CARRIER], [0.1, 0.2, 0.7])
    assert msgspec.json.decode(msgspec.json.encode(reference), type=Reference, strict=True) == reference
    assert [bins.kind for bins in reference.all_bins] == ["prediction", "numeric", "categorical"]


def test_the_order_of_the_rows_does_not_matter():
    generator = np.random.default_rng(5)
    table = pa.table(
        {
            "partition_on": [date(2013, 1, 1 + i % 5) for i in range(200)],
            "wind_speed_mph": generator.normal(size=200),
            "carrier": [["AA", "UA", "B6"][i % 3] for i in range(200)],
        }
    )
    predictions = generator.random(200)
    order = generator.permutation(200)
    assert build_reference(table, [WIND, CARRIER], predictions) == build_reference(
        table.take(order), [WIND, CARRIER], predictions[order]
    )


def test_an_empty_training_set_is_refused():
    with pytest.raises(TrainingDataMissing, match="train on more days"):
        build_reference(pa.table({"partition_on": pa.array([], pa.date32())}), [], [])
