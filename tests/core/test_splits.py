from datetime import date, timedelta

import pytest

from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.spec import SplitRule
from ml_assets.core.splits import split_days


def _january(first: int, last: int) -> tuple[date, ...]:
    return tuple(date(2013, 1, day) for day in range(first, last + 1))


def test_the_last_days_are_test_then_a_gap_then_validation_then_a_gap_then_train():
    rule = SplitRule(train_days=365, validation_days=3, test_days=5, gap_days=2, minimum_train_days=7)
    split = split_days(_january(1, 31), rule)
    assert split.test == _january(27, 31)
    assert split.validation == _january(22, 24)
    assert split.train == _january(1, 19)


def test_train_is_at_most_as_long_as_the_rule_says_and_keeps_the_newest_days():
    rule = SplitRule(train_days=10, validation_days=3, test_days=5, gap_days=1)
    assert split_days(_january(1, 31), rule).train == _january(12, 21)


def test_thirty_one_days_are_enough_for_the_default_rule():
    split = split_days(_january(1, 31), SplitRule())
    # 29 days without the gaps: 14 are held out, 6 : 8 is the nearest to the rule's 14 : 21.
    assert (split.train, split.validation, split.test) == (_january(1, 15), _january(17, 22), _january(24, 31))


@pytest.mark.parametrize("n_days", [*range(11, 40), 60, 90, 365])
@pytest.mark.parametrize("gap_days", [0, 1, 3])
def test_parts_never_overlap_stay_in_order_and_keep_their_gap(n_days: int, gap_days: int):
    days = [date(2013, 1, 1) + timedelta(days=n) for n in range(n_days + 2 * gap_days)]
    split = split_days(days, SplitRule(gap_days=gap_days))
    assert len(split.train) >= 7
    assert split.validation[0] - split.train[-1] == timedelta(days=gap_days + 1)
    assert split.test[0] - split.validation[-1] == timedelta(days=gap_days + 1)
    assert split.test[-1] == days[-1]


def test_a_day_that_is_missing_lengthens_the_gap_and_never_shortens_it():
    rule = SplitRule(validation_days=2, test_days=2, gap_days=1)
    days = [day for day in _january(1, 20) if day.day != 18]
    split = split_days(days, rule)
    assert split.test == _january(19, 20)
    assert split.validation == _january(15, 16)


def test_the_order_of_the_days_given_makes_no_difference():
    days = _january(1, 31)
    assert split_days(days[::-1] + days, SplitRule()) == split_days(days, SplitRule())


def test_too_few_days_are_refused_with_what_to_do():
    assert len(split_days(_january(1, 11), SplitRule()).train) == 7
    with pytest.raises(
        TrainingDataMissing, match=r"10 days have labelled examples .* at least 11.*materialize examples"
    ):
        split_days(_january(1, 10), SplitRule())
    with pytest.raises(TrainingDataMissing, match="0 days"):
        split_days([], SplitRule())
