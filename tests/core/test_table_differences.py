from datetime import date

import pyarrow as pa

from ml_assets.core.table_differences import DayDifference, differences_by_day

FIRST, SECOND = date(2013, 1, 1), date(2013, 1, 2)


def table(*rows: tuple[date, str, float | None, str | None]) -> pa.Table:
    days, ids, winds, origins = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "partition_on": pa.array(days, pa.date32()),
            "decision_id": pa.array(ids, pa.string()),
            "wind": pa.array(winds, pa.float64()),
            "origin": pa.array(origins, pa.string()),
        }
    )


NAN = float("nan")
BEFORE = table(
    (FIRST, "a", 1.0, "EWR"), (FIRST, "b", None, "JFK"), (FIRST, "c", NAN, None), (SECOND, "d", 2.0, "LGA")
)  # fmt: skip


def test_equal_tables_do_not_differ_in_whatever_order_and_chunks_nulls_and_nan_included():
    assert differences_by_day(BEFORE, BEFORE) == ()
    turned = pa.concat_tables([BEFORE.slice(2), BEFORE.slice(0, 2)])
    assert differences_by_day(BEFORE, turned) == ()
    assert differences_by_day(table(), table()) == ()


def test_rows_added_removed_and_changed_are_counted_by_day_and_column():
    after = table(
        (FIRST, "a", 1.5, "JFK"), (FIRST, "b", 0.0, "JFK"), (FIRST, "c", NAN, None), (SECOND, "e", 2.0, "LGA")
    )  # fmt: skip
    assert differences_by_day(BEFORE, after) == (
        DayDifference(day=FIRST, n_added=0, n_removed=0, n_changed=2, columns={"wind": 2, "origin": 1}),
        DayDifference(day=SECOND, n_added=1, n_removed=1, n_changed=0, columns={}),
    )


def test_a_row_that_moved_to_another_day_is_missed_there_and_new_here():
    after = table(
        (SECOND, "a", 1.0, "EWR"), (FIRST, "b", None, "JFK"), (FIRST, "c", NAN, None), (SECOND, "d", 2.0, "LGA")
    )
    assert [(d.day, d.n_added, d.n_removed, d.n_changed) for d in differences_by_day(BEFORE, after)] == [
        (FIRST, 0, 1, 0),
        (SECOND, 1, 0, 0),
    ]


def test_a_null_that_became_a_number_nan_that_became_null_and_a_column_of_another_type_are_changes():
    after = table(
        (FIRST, "a", 1.0, "EWR"), (FIRST, "b", 0.0, "JFK"), (FIRST, "c", None, None), (SECOND, "d", 2.0, "LGA")
    )
    (found,) = differences_by_day(BEFORE, after)
    assert (found.n_changed, found.columns) == (2, {"wind": 2})
    retyped = BEFORE.set_column(2, "wind", BEFORE["wind"].cast(pa.float32()))
    assert [day.columns for day in differences_by_day(BEFORE, retyped)] == [{"wind": 3}, {"wind": 1}]
    assert [day.columns for day in differences_by_day(BEFORE, BEFORE.drop_columns("origin"))] == [
        {"origin": 3},
        {"origin": 1},
    ]
