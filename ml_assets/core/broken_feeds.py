"""Whether the feed of a feature is broken: values that stopped coming, or came to stand still.

Drift of an input may be the season; these two are nobody's weather. They are judged by themselves, since a feature
whose days vary much would have to stray far before any test of its distribution called it odd.
"""

import math

from ml_assets.core.column_statistics import ColumnStatistics
from ml_assets.core.drift_tests import MINIMUM_ROWS, percent
from ml_assets.core.reference import Bins

# Judgement: one row in five without its value is one of three airports that went silent, or worse.
LOST_SHARE = 0.2
# Judgement: this many standard deviations beyond training, so that what is often missing may be missing often.
_BEYOND = 4.0


def broken_feed(bins: Bins, found: ColumnStatistics) -> str | None:
    """Say in what way a day's feed of a feature is broken; None where it is not, or too few rows would show it.

    It is where a fifth more of its rows than in training have no value, and more than the days of training and the
    sampling of rows explain; or where all its values are one, and on no day of training they were. (A feature that
    training knows as constant on some days may be so again. Of a package that did not keep it nothing is said.)
    """
    if found.n_rows < MINIMUM_ROWS or bins.kind == "prediction":
        return None
    missing, usual = int(found.counts[-1]) / found.n_rows, bins.missing_share
    of_days = bins.variation.day_sd[-1] if bins.variation else 0.0
    noise = math.hypot(of_days, math.sqrt(max(usual * (1 - usual), 0.0) / found.n_rows))
    if missing - usual >= max(LOST_SHARE, _BEYOND * noise):
        return f"{percent(missing)} of the day's rows have no value, in training {percent(usual)}"
    n_present = found.n_rows - int(found.counts[-1])
    if bins.constant_days_share == 0.0 and n_present >= MINIMUM_ROWS and _is_constant(bins, found):
        return f"all {n_present:,} values of the day are {_value(bins, found)}; on no day of training were all the same"
    return None


def _is_constant(bins: Bins, found: ColumnStatistics) -> bool:
    if bins.kind == "categorical":
        # Of the last two, the other and the unseen categories, a count says nothing of how many they are.
        (places,) = found.counts[:-1].nonzero()
        is_one_unseen = len(places) == 1 and places[0] == len(bins.categories) + 1 and len(found.unseen) == 1
        return is_one_unseen or (len(places) == 1 and places[0] < len(bins.categories))
    return found.moments.minimum is not None and found.moments.minimum == found.moments.maximum


def _value(bins: Bins, found: ColumnStatistics) -> str:
    """Name the one value."""
    if bins.kind == "categorical":
        return bins.label(int(found.counts[:-1].argmax()))
    return f"{found.moments.minimum:.6g}"
