"""The split of labelled days into train, validation and test: by time, with gaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.spec import SplitRule


@dataclass(frozen=True, kw_only=True)
class Split:
    """The local days of each part, ascending. Days between two parts belong to none."""

    train: tuple[date, ...]
    validation: tuple[date, ...]
    test: tuple[date, ...]


def split_days(days: Sequence[date], rule: SplitRule) -> Split:
    """Divide the days that have labelled examples: the last ones are test, before them validation, before that train.

    Counts days that are present, so a day without data lengthens a gap and never shortens it. Where few days are there,
    validation and test shrink in proportion until together they are no larger than train.
    Raises TrainingDataMissing where train would have fewer than ``minimum_train_days``.

    >>> from datetime import timedelta
    >>> split = split_days([date(2013, 1, 1) + timedelta(days=n) for n in range(31)], SplitRule())
    >>> len(split.train), len(split.validation), len(split.test)
    (15, 6, 8)
    """
    present = sorted(set(days))
    usable = len(present) - 2 * rule.gap_days
    wanted = rule.validation_days + rule.test_days
    n_held_out = min(wanted, usable // 2, usable - rule.minimum_train_days)
    if n_held_out < 2:
        span = f"{present[0]} to {present[-1]}" if present else "none at all"
        raise TrainingDataMissing(
            f"{len(present)} days have labelled examples ({span}); expected at least "
            f"{max(rule.minimum_train_days, 2) + 2 + 2 * rule.gap_days}: {rule.minimum_train_days} to train on, "
            f"one each for validation and test, {rule.gap_days} in each gap; "
            f"materialize examples for earlier days or move the as-of date on"
        )
    n_validation = min(max(1, round(n_held_out * rule.validation_days / wanted)), n_held_out - 1)
    test_from = len(present) - (n_held_out - n_validation)
    validation_to = test_from - rule.gap_days
    validation_from = validation_to - n_validation
    train_to = validation_from - rule.gap_days
    return Split(
        train=tuple(present[max(0, train_to - rule.train_days) : train_to]),
        validation=tuple(present[validation_from:validation_to]),
        test=tuple(present[test_from:]),
    )
