"""What the age of a model costs: the loss of older models beside fresh ones on the same fortnights, with its limits.

How sure a cost is, is told by drawing fortnights, and days within each: a fortnight has one fresh model and one of each
age, so that the luck of a training is shared by its days.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from ml_assets.core.baselines import labels_of
from ml_assets.core.evaluation import Floats
from ml_assets.core.paired_bootstrap import N_RESAMPLES, DayResamples
from ml_assets.core.staleness_curves import CostOfAge, isotonic
from ml_assets.core.tasks import Measure, TaskMeaning

AGES_IN_WEEKS = (1, 2, 4, 8, 16)
_QUANTILES = (0.025, 0.975)


def headline_of(meaning: TaskMeaning) -> Measure:
    """Return what is shown beside the loss: the measure of single days, or where that is the loss the next one."""
    return next(measure for measure in (meaning.daily, *meaning.compared) if measure != meaning.loss)


def costs_of_age(
    windows: Mapping[date, pa.Table],
    predictions: Mapping[tuple[date, date], Floats],
    *,
    meaning: TaskMeaning,
    seed: int,
) -> tuple[CostOfAge, ...]:
    """Return what each age costs, youngest first; an age that no window has is left out.

    ``windows`` are labelled rows by first day, ``predictions`` those of a model (by its as-of date) for a window.
    """
    firsts = sorted(windows)
    labels = {first: labels_of(windows[first]) for first in firsts}
    days = {first: windows[first]["partition_on"].to_numpy() for first in firsts}
    draws = _resamples([days[first] for first in firsts], seed=seed)
    starts = np.cumsum([0, *(len(labels[first]) for first in firsts)])
    place = {first: slice(starts[i], starts[i + 1]) for i, first in enumerate(firsts)}
    found: list[tuple[int, list[date], Floats, Floats, Floats]] = []
    for weeks in AGES_IN_WEEKS:
        having = [first for first in firsts if (first - timedelta(weeks=weeks), first) in predictions]
        if not having:
            continue
        chosen = np.zeros(starts[-1], np.bool_)
        for first in having:
            chosen[place[first]] = True
        part, y = draws.only(chosen), np.concatenate([labels[first] for first in having])
        fresh = np.concatenate([predictions[first, first] for first in having])
        aged = np.concatenate([predictions[first - timedelta(weeks=weeks), first] for first in having])
        loss, aged_loss = (part.figure(meaning.loss.name, y, p) for p in (fresh, aged))
        found.append((weeks, having, loss, aged_loss, _headline(part, headline_of(meaning), y, fresh, aged)))
    n_days = np.array([sum(len(np.unique(days[first])) for first in having) for _, having, *_ in found], np.float64)
    costs = np.array([aged / fresh - 1 for _, _, fresh, aged, _ in found])
    fitted = np.array([isotonic(column, n_days) for column in costs.T if np.isfinite(column).all()]).T
    return tuple(
        CostOfAge(
            weeks=weeks,
            n_windows=len(having),
            n_days=int(n_days[i]),
            n_rows=sum(len(labels[first]) for first in having),
            fresh_loss=float(fresh[0]),
            aged_loss=float(aged[0]),
            **_with_limits("cost", costs[i]),
            **_with_limits("fitted", fitted[i]),
            **_with_limits("headline", headline, of_value="headline_loss"),
        )
        for i, (weeks, having, fresh, aged, headline) in enumerate(found)
    )


def _with_limits(name: str, values: Floats, *, of_value: str = "") -> dict[str, float]:
    """Return the first of the values, and the limits of all others."""
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, _QUANTILES)
    return {of_value or name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _headline(part: DayResamples, measure: Measure, y: Floats, fresh: Floats, aged: Floats) -> Floats:
    ours, theirs = (part.figure(measure.name, y, p) for p in (fresh, aged))
    return theirs / ours - 1 if measure.is_loss else ours - theirs


def _resamples(days: Sequence[np.ndarray], *, seed: int) -> DayResamples:
    """Draw windows with replacement, and the days of each drawn window with replacement; the rows are in their order.

    The two-stage cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
    """
    generator = np.random.default_rng(seed)
    n_drawn = generator.multinomial(len(days), np.full(len(days), 1 / len(days)), size=N_RESAMPLES)
    parts: list[Floats] = []
    index: list[np.ndarray] = []
    n_before = 0
    for position, of_window in enumerate(days):
        names, day = np.unique(of_window, return_inverse=True)
        n_days = len(names)
        shares = np.full(n_days, 1 / n_days)
        parts.append(generator.multinomial(n_drawn[:, position] * n_days, shares).astype(np.float64))
        index.append(day + n_before)
        n_before += n_days
    weights = np.vstack([np.ones(n_before), np.hstack(parts)])
    return DayResamples(day=np.concatenate(index).astype(np.int64), weights=weights)
