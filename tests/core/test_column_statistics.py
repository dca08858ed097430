"""What the warehouse counts of each day and column, against numpy on the same rows."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core import column_statistics as module
from ml_assets.core.column_statistics import ColumnStatistics, column_statistics, statistics_of
from ml_assets.core.errors import DataMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.moments import Moments
from ml_assets.core.ports import DayRange
from ml_assets.core.reference import Bins, build_reference

SEED = 20130701
MONDAY = date(2013, 7, 1)
DAYS = DayRange(first=MONDAY, last=MONDAY + timedelta(days=2))
WIND = Feature(name="wind_speed_mph", kind="numeric", view="feat_origin_weather")
CARRIER = Feature(name="carrier", kind="categorical", view="feat_schedule")


def bins_of(feature: Feature, values: Sequence[object]) -> Bins:
    kind = pa.string() if feature.kind == "categorical" else pa.float64()
    columns = {"partition_on": [MONDAY] * len(values), feature.name: pa.array(values, kind)}
    return build_reference(pa.table(columns), [feature], np.zeros(len(values))).features[0]


def rows(**columns: Sequence[object] | pa.Array) -> pa.Table:
    """Rows of the days named in ``day``, counted from Monday."""
    days = [MONDAY + timedelta(days=int(str(n))) for n in columns.pop("day")]
    return pa.table({"partition_on": pa.array(days, pa.date32()), **columns})


def counted(
    table: pa.Table, columns: Sequence[Bins], days: DayRange = DAYS
) -> Mapping[date, Mapping[str, ColumnStatistics]]:
    warehouse = DuckDBWarehouse(None)
    stored = DayRange(first=MONDAY - timedelta(days=9), last=MONDAY + timedelta(days=9))
    warehouse.replace_days({"examples.delay": table}, stored)
    return column_statistics(warehouse, "examples.delay", columns, days)


def same(found: ColumnStatistics, expected: ColumnStatistics) -> bool:
    return found.counts.tolist() == expected.counts.tolist() and (found.moments, found.unseen) == (
        expected.moments,
        expected.unseen,
    )


TRAINING = st.lists(st.one_of(st.none(), st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)), min_size=1, max_size=30)
NUMBERS = st.one_of(
    st.none(),
    st.integers(-4, 4).map(float),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e100, -1e308]),
)
NAMES = st.one_of(st.none(), st.sampled_from(["AA", "UA", "", "nan", "O'Hare", "é", "é", "null", "-- x", "\\", "\n"]))


@seed(SEED)
@settings(max_examples=40, deadline=None, database=None)
@given(data=st.data())
def test_the_warehouse_counts_exactly_as_numpy_does(data: st.DataObject):
    trained, names = data.draw(TRAINING), data.draw(st.lists(NAMES, min_size=1, max_size=12))
    # So few categories of their own that others occur.
    number, category = bins_of(WIND, trained), bins_of(CARRIER, names)
    of_training = [value for value in trained if value is not None]
    edge = st.sampled_from(number.edges or (0.0,))
    near = st.one_of(edge, edge.map(lambda e: float(np.nextafter(e, math.inf))), *map(st.just, of_training))
    n = data.draw(st.integers(1, 25))
    days = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    wind = pa.array(data.draw(st.lists(st.one_of(NUMBERS, near), min_size=n, max_size=n)), pa.float64())
    carrier = pa.array(data.draw(st.lists(NAMES, min_size=n, max_size=n)), pa.string())
    table = rows(day=days, wind_speed_mph=wind, carrier=carrier)
    found = counted(table, [number, category])
    assert sorted(found) == sorted(set(table["partition_on"].to_pylist()))
    for day, of_day in found.items():
        there = table.filter(pa.compute.equal(table["partition_on"], pa.scalar(day)))
        expected = number.index(there["wind_speed_mph"])
        assert of_day["wind_speed_mph"].counts.tolist() == np.bincount(expected, minlength=len(number.shares)).tolist()
        for bins in (number, category):
            by_numpy = statistics_of(bins, there[bins.feature])
            assert of_day[bins.feature].n_rows == there.num_rows
            assert of_day[bins.feature].counts.tolist() == by_numpy.counts.tolist()
            assert of_day[bins.feature].unseen == by_numpy.unseen


@seed(SEED)
@settings(max_examples=15, deadline=None, database=None)
@given(
    values=st.lists(st.one_of(st.none(), st.just(math.nan), st.floats(-1e4, 1e4)), min_size=1, max_size=40),
    training=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_the_moments_are_those_of_numpy_and_the_same_to_the_bit_in_any_order(values, training, order):
    bins = bins_of(WIND, training)
    shuffled = order.sample(values, len(values))
    one, other = (
        counted(rows(day=[0] * len(v), wind_speed_mph=pa.array(v, pa.float64())), [bins])[MONDAY]["wind_speed_mph"]
        for v in (values, shuffled)
    )
    assert one.moments == other.moments
    numbers = np.array([v for v in values if v is not None and not math.isnan(v)])
    if not len(numbers):
        assert one.moments == Moments()
        return
    assert (one.moments.minimum, one.moments.maximum) == (numbers.min(), numbers.max())
    # Eight decimal digits of the distance from the training mean, which is what rounding leaves.
    away = float(np.sqrt(np.mean((numbers - (bins.mean or 0.0)) ** 2))) + 1e-300
    assert one.moments.mean == pytest.approx(numbers.mean(), abs=1e-7 * away, rel=1e-12)
    assert (one.moments.sd or 0.0) ** 2 == pytest.approx(numbers.var(), abs=1e-7 * away**2)


def test_nan_is_missing_and_infinity_lies_beyond_the_range():
    bins = bins_of(WIND, [1.0, 2.0, 3.0])
    values = pa.array([math.nan, None, math.inf, -math.inf, 2.0, 1e200], pa.float64())
    found = counted(rows(day=[0] * 6, wind_speed_mph=values), [bins])[MONDAY]["wind_speed_mph"]
    assert found.counts.tolist() == [1, 0, 1, 0, 2, 2]
    assert found.moments == Moments(mean=2.0, sd=0.0, minimum=2.0, maximum=2.0)


def test_a_nan_on_one_day_leaves_the_other_days_as_they_are():
    bins = bins_of(WIND, [1.0, 2.0, 3.0])
    table = rows(day=[0, 0, 1], wind_speed_mph=pa.array([1.0, 3.0, math.nan], pa.float64()))
    found = counted(table, [bins])
    assert found[MONDAY]["wind_speed_mph"].moments == Moments(mean=2.0, sd=1.0, minimum=1.0, maximum=3.0)
    assert found[MONDAY + timedelta(days=1)]["wind_speed_mph"].counts.tolist() == [0, 0, 0, 0, 0, 1]


def test_a_day_holds_its_own_rows_and_no_others():
    bins = bins_of(WIND, [1.0, 2.0, 3.0])
    table = rows(day=[-1, 0, 0, 1, 2], wind_speed_mph=[9.0, 1.0, 2.0, 3.0, 9.0])
    of_two = counted(table, [bins], DayRange(first=MONDAY, last=MONDAY + timedelta(days=1)))
    assert {(day - MONDAY).days: of["wind_speed_mph"].counts.tolist() for day, of in of_two.items()} == {
        0: [0, 1, 1, 0, 0, 0],
        1: [0, 0, 0, 1, 0, 0],
    }


def test_a_day_asked_for_alone_counts_as_among_others():
    bins = [bins_of(CARRIER, ["AA", "UA"]), bins_of(WIND, [1.0, 2.0, 3.0])]
    carrier = pa.array(["AA", "AA", None, "ZZ", None, None], pa.string())
    table = rows(day=[0, 0, 0, 1, 2, 2], carrier=carrier, wind_speed_mph=[1.0, None, 9.0, 2.0, None, None])
    among_others = counted(table, bins)
    for day, of_day in among_others.items():
        alone = counted(table, bins, DayRange(first=day, last=day))
        assert list(alone) == [day]
        assert all(same(alone[day][b.feature], of_day[b.feature]) for b in bins)
    assert among_others[MONDAY]["carrier"].counts.tolist() == [2, 0, 0, 0, 1]
    empty = MONDAY + timedelta(days=5)
    assert counted(table, bins, DayRange(first=empty, last=empty)) == {}


def test_a_category_never_seen_is_not_one_of_the_others():
    names = [f"c{i:02}" for i in range(60) for _ in range(60 - i)]  # c50 to c59 are other categories
    bins = bins_of(CARRIER, names)
    day = ["c00", "c49", "c50", "c59", "ZZ", "ZZ", "Z1", None]
    found = counted(rows(day=[0] * 8, carrier=day), [bins])[MONDAY]["carrier"]
    assert (found.counts[0], found.counts[49], found.counts[50:].tolist()) == (1, 1, [2, 3, 1])
    assert found.unseen == ("ZZ", "Z1")
    assert found.moments == Moments()


def test_a_day_on_which_every_category_is_missing_still_counts_its_rows():
    bins = [bins_of(CARRIER, ["AA"]), bins_of(Feature(name="origin", kind="categorical", view="v"), ["EWR"])]
    nothing = pa.array([None, None], pa.string())
    found = counted(rows(day=[0, 0], carrier=nothing, origin=["EWR", None]), bins)[MONDAY]
    assert found["carrier"].counts.tolist() == [0, 0, 0, 2]
    assert found["origin"].counts.tolist() == [1, 0, 0, 1]


def test_truth_values_and_whole_numbers_are_numbers_and_categories_are_compared_as_text():
    table = rows(day=[0, 0, 0], is_holiday=[True, False, None], wind_speed_mph=[1, 2, 7], carrier=[7, 8, None])
    holiday = bins_of(Feature(name="is_holiday", kind="numeric", view="v"), [0.0, 1.0, 1.0])
    found = counted(table, [holiday, bins_of(WIND, [1.0, 2.0]), bins_of(CARRIER, ["7"])])[MONDAY]
    assert found["is_holiday"].counts.tolist() == [0, 1, 1, 0, 1]
    assert found["wind_speed_mph"].counts.tolist() == [0, 1, 1, 1, 0]
    assert found["carrier"].counts.tolist() == [1, 0, 1, 1]


def test_columns_in_parts_come_out_as_in_one_statement(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(3)
    names = [f"x{i}" for i in range(7)]
    bins = [bins_of(Feature(name=n, kind="numeric", view="v"), generator.normal(size=50).tolist()) for n in names]
    table = rows(day=[0, 1] * 50, **{name: pa.array(generator.normal(size=100)) for name in names})
    whole = counted(table, bins)
    monkeypatch.setattr(module, "_COLUMNS_AT_ONCE", 3)
    in_parts = counted(table, bins)
    assert [list(of) for of in in_parts.values()] == [names, names]
    assert all(same(in_parts[day][name], whole[day][name]) for day in whole for name in names)


def test_a_table_that_lacks_a_column_or_is_not_there_is_refused():
    with pytest.raises(DataMissing, match=r"lacks the columns \['carrier'\]"):
        counted(rows(day=[0], wind_speed_mph=[1.0]), [bins_of(WIND, [1.0]), bins_of(CARRIER, ["AA"])])
    with pytest.raises(DataMissing, match=r"no table examples\.none"):
        column_statistics(DuckDBWarehouse(None), "examples.none", [bins_of(WIND, [1.0])], DAYS)


def test_a_package_that_did_not_keep_the_training_mean_is_still_counted():
    new = bins_of(WIND, [1.0, 2.0, 6.0])
    old = Bins(**{**vars(new), "mean": None, "sd": None, "minimum": None, "maximum": None})
    table = rows(day=[0, 0], wind_speed_mph=[2.0, 6.0])
    ours, theirs = (counted(table, [bins])[MONDAY]["wind_speed_mph"] for bins in (new, old))
    assert ours.counts.tolist() == theirs.counts.tolist()
    assert theirs.moments == Moments(mean=4.0, sd=2.0, minimum=2.0, maximum=6.0)
