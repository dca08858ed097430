import threading

import pytest

from ml_assets.core.side_by_side import side_by_side


def test_one_at_a_time_is_the_thread_that_asks():
    assert set(side_by_side(lambda _: threading.get_ident(), range(3), n_at_once=1)) == {threading.get_ident()}


def test_thirty_two_reads_are_under_way_at_once_and_come_back_in_order():
    all_are_here = threading.Barrier(32)

    def read(number: int) -> int:
        all_are_here.wait(timeout=30)
        return number * number

    assert side_by_side(read, range(64), n_at_once=32) == [number * number for number in range(64)]


def test_the_first_error_in_the_order_of_the_items_is_raised():
    def read(number: int) -> int:
        if number >= 3:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match=r"^3$"):
        side_by_side(read, range(100), n_at_once=32)
    assert side_by_side(read, [], n_at_once=32) == []
