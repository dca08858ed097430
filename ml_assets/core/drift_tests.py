"""Whether a day has drifted: tests that know the noise of rows and of days, the effect in words, its severity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ml_assets.core.day_variation import Distance, distance, variance_of_stretch
from ml_assets.core.reference import Bins, Floats, Reference

Severity = Literal["", "warning", "severe"]
Counts = npt.NDArray[np.int64]

# Judgement: fewer rows show only what anyone would notice; they are judged together with the days before them.
MINIMUM_ROWS = 200
# Of the features said to have drifted on a day, the share that may not have (Benjamini and Hochberg 1995).
FALSE_DISCOVERY_RATE = 0.01
# Judgement: what one row in twenty does differently changes what a model is worth; less is real and of no use to a
# person. Of what lasts for a week, less is worth knowing. One row in five is a different population.
WARNING_MOVED_SHARE, LARGE_MOVED_SHARE = 0.05, 0.2
LASTING_MOVED_SHARE = 0.03


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a day's counts of one feature come to.

    Attributes:
        p_value: how often a day of an unchanged population strays as far; null where nothing can be judged.
        moved_share: the share of the rows in other bins than in training, beyond one standard deviation of each bin.
        is_drifted: whether it is both beyond chance, among all features of the day, and large enough to matter.
        severity: of one that is drifted, else empty. Predictions of which a fifth moved are ``severe``: somebody acts
            on them. How far an input moved says nothing of what it costs: ``warning``.
    """

    p_value: float | None
    moved_share: float | None
    is_drifted: bool
    severity: Severity


_UNJUDGED = Judgement(p_value=None, moved_share=None, is_drifted=False, severity="")


def judge_day(reference: Reference, counts: Mapping[str, Counts]) -> Mapping[str, Judgement]:
    """Judge the counts of a day against training; by feature, the prediction included.

    Args:
        reference: the fixed bins, and how training days varied.
        counts: by feature, its rows in each bin.

    Not judged is a feature of fewer than 200 rows, and one whose reference does not say how days vary: of a training of
    one day, or of a release that did not keep it.
    """
    return _judge(reference, counts, dict.fromkeys(counts, 1.0), least=WARNING_MOVED_SHARE)


def judge_days(reference: Reference, days: Mapping[str, Sequence[Counts]]) -> Mapping[str, Judgement]:
    """Judge several days taken together, as ``judge_day`` does one: a smaller shift counts where it lasts.

    ``days`` holds for each feature the counts of those days that are to be taken together.
    """
    counts = {feature: np.stack(found).sum(axis=0) for feature, found in days.items()}
    return _judge(
        reference, counts, {name: n_days_alike(found) for name, found in days.items()}, least=LASTING_MOVED_SHARE
    )


def n_days_alike(days: Sequence[Counts]) -> float:
    """Return how many days of equally many rows would vary together as these do (Kish 1965).

    >>> n_days_alike([np.array([50, 50]), np.array([100, 0])]), n_days_alike([np.array([9900]), np.array([100])])
    (2.0, 1.02)
    """
    n_rows = np.array([found.sum() for found in days], np.float64)
    return round(float(n_rows.sum() ** 2 / np.sum(n_rows**2)), 2) if n_rows.any() else 1.0


def _judge(
    reference: Reference, counts: Mapping[str, Counts], n_days: Mapping[str, float], *, least: float
) -> Mapping[str, Judgement]:
    judged = [
        bins
        for bins in reference.all_bins
        if bins.feature in counts and bins.variation is not None and int(counts[bins.feature].sum()) >= MINIMUM_ROWS
    ]
    verdicts = dict.fromkeys(counts, _UNJUDGED)
    if not judged:
        return verdicts
    found = _compare(reference, judged, counts, np.array([n_days[bins.feature] for bins in judged]))
    is_drifted = false_discoveries_controlled(found.p_values) & (found.moved >= least)
    for bins, p_value, moved, drifted in zip(judged, found.p_values, found.moved, is_drifted, strict=True):
        is_severe = bins.kind == "prediction" and moved >= LARGE_MOVED_SHARE
        severity = ("severe" if is_severe else "warning") if drifted else ""
        verdicts[bins.feature] = Judgement(
            p_value=float(p_value), moved_share=float(moved), is_drifted=bool(drifted), severity=severity
        )
    return verdicts


def false_discoveries_controlled(p_values: Floats, rate: float = FALSE_DISCOVERY_RATE) -> npt.NDArray[np.bool_]:
    """Return which hypotheses are rejected so that at most this share of the rejected are true.

    Benjamini and Hochberg (1995): all up to the largest p-value that is at most ``rate`` times its rank over their
    number. It holds for features that are independent, or rise and fall together (Benjamini and Yekutieli 2001).

    >>> false_discoveries_controlled(np.array([0.001, 0.04, 0.02, 0.5]), rate=0.05).tolist()
    [True, False, True, False]
    """
    order = np.argsort(p_values)
    is_small = p_values[order] <= rate * np.arange(1, len(p_values) + 1) / len(p_values)
    n_rejected = int(np.max(np.nonzero(is_small)[0], initial=-1)) + 1
    rejected = np.zeros(len(p_values), np.bool_)
    rejected[order[:n_rejected]] = True
    return rejected


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    p_values: Floats
    moved: Floats


def _compare(reference: Reference, judged: Sequence[Bins], counts: Mapping[str, Counts], n_days: Floats) -> _Comparison:
    """Lay all features side by side, padded to the widest, and compare them at once."""
    width = max(len(bins.shares) for bins in judged)
    training, expected, rows, day_sd, week_sd, season_sd = (np.zeros((len(judged), width)) for _ in range(6))
    dof, days = np.ones(len(judged)), np.ones(len(judged))
    for i, bins in enumerate(judged):
        n_bins, variation = len(bins.shares), bins.variation
        assert variation is not None  # noqa: S101 - chosen by the caller
        training[i, :n_bins], rows[i, :n_bins] = bins.shares, counts[bins.feature]
        expected[i, :n_bins] = np.maximum(training[i, :n_bins], 1 / reference.n_rows)
        day_sd[i, :n_bins], week_sd[i, :n_bins] = variation.day_sd, variation.week_sd
        season_sd[i, :n_bins] = variation.season_sd or 0.0
        dof[i], days[i] = variation.dof, variation.n_days
    n_rows = rows.sum(axis=1, keepdims=True)
    sampling = 1 / n_rows + 1 / reference.n_rows
    shares = rows / n_rows
    # Training is a mean of days as well, and strays as one.
    variance = variance_of_stretch(day_sd, week_sd, n_days[:, np.newaxis]) + day_sd**2 / days[:, np.newaxis]
    variance += season_sd**2
    found = distance(
        shares,
        training,
        expected=expected,
        sampling=sampling,
        day_variance=variance,
        dof=dof,
        n_days=np.maximum(2.0, days / n_days),
    )
    noise = np.sqrt(training * (1 - training) * sampling + variance)
    moved = np.sum(np.maximum(0.0, shares - training - noise), axis=1)
    return _Comparison(p_values=_tail(found), moved=moved)


def _tail(found: Distance) -> Floats:
    """Return the probability of a larger distance where nothing has changed."""
    from scipy.special import chdtrc, fdtrc

    ratio = found.statistic / np.maximum(found.mean, 1e-12)
    is_known = found.dof_of_scale > 1e6  # the scale is as good as known, and F is chi-square
    of_f = fdtrc(found.dof, np.where(is_known, 1e6, found.dof_of_scale), ratio)
    return np.where(is_known, chdtrc(found.dof, found.dof * ratio), of_f)


def explain(bins: Bins, counts: Counts, *, n_days: int = 1, unseen: Sequence[str] = ()) -> str:
    """Say from where to where the mass of a feature moved, with numbers.

    ``unseen`` are categories of the day that training never showed, where anyone has kept their names.
    """
    n_rows = int(counts.sum())
    if not n_rows:
        return "no rows on this day" if n_days == 1 else "no rows on these days"
    few = f"only {n_rows} rows, too few to judge (at least {MINIMUM_ROWS}); " if n_rows < MINIMUM_ROWS else ""
    if not few and bins.variation is None:
        few = "not judged: this model's package does not say how days vary, train it again; "
    shares, training = counts / n_rows, np.asarray(bins.shares)
    change = shares - training
    # Stretches of bins of a number that gain or lose together; a category, and missing, stand by themselves.
    gained = max(_stretches(bins, change), key=lambda stretch: change[stretch].sum(), default=None)
    lost = min(_stretches(bins, -change), key=lambda stretch: change[stretch].sum(), default=None)
    if gained is None or lost is None:
        return few + "as in training"
    whose = "the day's" if n_days == 1 else f"{n_days} days'"
    to = _place(bins, gained)
    if bins.kind == "categorical" and gained.start == len(shares) - 2 and unseen:
        more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
        to += f" ({', '.join(sorted(unseen)[:3])}{more})"
    return (
        f"{few}{percent(change[gained].sum())} of {whose} mass moved {to} "
        f"({percent(shares[gained].sum())}, in training {percent(training[gained].sum())}), "
        f"most of it from {_name(bins, lost)} "
        f"({percent(shares[lost].sum())}, in training {percent(training[lost].sum())})"
    )


def percent(share: float) -> str:
    """Write a share for people.

    >>> percent(0.314), percent(0.004), percent(0.00004), percent(0.0)
    ('31 %', '0.4 %', 'under 0.1 %', '0 %')
    """
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{share:.0%}".replace("%", " %") if share >= 0.0995 or not share else f"{share:.1%}".replace("%", " %")


def _stretches(bins: Bins, change: Floats) -> Sequence[slice]:
    """Return the bins that gained, those of a number that lie side by side within its range as one."""
    last_inner = len(change) - 3
    is_joined = bins.kind != "categorical"
    found: list[slice] = []
    for place in np.nonzero(change > 0)[0].tolist():
        before = found[-1] if found else None
        if is_joined and before and before.stop == place and before.start >= 1 and place <= last_inner:
            found[-1] = slice(before.start, place + 1)
        else:
            found.append(slice(place, place + 1))
    return found


def _place(bins: Bins, stretch: slice) -> str:
    """Say where mass moved to, as it follows "moved"."""
    n_bins = len(bins.shares)
    if stretch.start == n_bins - 1:
        return "to missing values"
    if bins.kind != "categorical" and bins.edges and stretch.start in (0, n_bins - 2):
        side, _, limit = bins.label(stretch.start).partition(" ")
        return f"{side} the training range, {side} {limit}"
    return f"to {_name(bins, stretch)}"


def _name(bins: Bins, stretch: slice) -> str:
    """Name a stretch of bins.

    >>> import pyarrow as pa
    >>> from ml_assets.core.feature_views import Feature
    >>> from ml_assets.core.reference import build_reference
    >>> table = pa.table({"partition_on": [1] * 4, "wind_speed_mph": [0.0, 8.0, 12.0, 40.0]})
    >>> wind = Feature(name="wind_speed_mph", kind="numeric", view="feat_origin_weather")
    >>> bins = build_reference(table, [wind], [0.1, 0.2, 0.2, 0.3]).features[0]
    >>> _name(bins, slice(1, 2)), _name(bins, slice(2, 4)), _name(bins, slice(6, 7))
    ('0', '0 to 12', 'missing values')
    """
    if stretch.start == len(bins.shares) - 1:
        return "missing values"
    if stretch.stop - stretch.start == 1:
        return bins.label(stretch.start)
    low, high = bins.label(stretch.start), bins.label(stretch.stop - 1)
    return f"{low.partition(' to ')[0]} to {high.rpartition(' to ')[2]}"
