"""The quality of a day before its labels are known, and how right such estimates have been lately."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import pyarrow as pa

from ml_assets.core.estimates import Expected, realised_quality
from ml_assets.core.expectations import MINIMUM_ROWS_OF_A_DAY, DayNoise, Expectations
from ml_assets.core.scored_rows import DayRows
from ml_assets.core.tasks import CLASSIFICATION, REGRESSION

ESTIMATED_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "model_version": pa.string(),
        "metric": pa.string(),
        "n_decisions": pa.int64(),
        "estimated": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "n_labelled": pa.int64(),
        "realised": pa.float64(),
        "error": pa.float64(),
        "n_days_checked": pa.int64(),
        "mean_absolute_error": pa.float64(),
        "mean_error": pa.float64(),
        "n_days_held": pa.int64(),
        "is_reliable": pa.bool_(),
        "explanation": pa.string(),
    }
)
# How many days back the estimates are held against what came true.
N_DAYS_CHECKED = 28
CONFIDENCE = 0.95
# Judgement: an estimate that holds on 95 of 100 days misses 4 of 14 by chance once in 240 such fortnights.
N_DAYS_JUDGED, _MOST_MISSED = 14, 3
# The lowest and the highest value that a metric can have.
_POSSIBLE = {
    **dict.fromkeys(("log_loss", "rmse", "mae"), (0.0, np.inf)),
    **dict.fromkeys(("brier", "roc_auc", "positive_share"), (0.0, 1.0)),
    "mean_label": (-np.inf, np.inf),
}
_WORDS = {
    **{measure.name: measure.words for meaning in (CLASSIFICATION, REGRESSION) for measure in meaning.measures},
    "positive_share": "positive share",
    "mean_label": "mean label",
}
BLIND_SPOT = "It cannot see a changed relation between features and outcome: only labels can."


@dataclass(frozen=True, kw_only=True)
class Check:
    """An estimate of an earlier day beside what came true."""

    expected: Expected
    realised: float

    @property
    def error(self) -> float:
        """What came true less what was estimated."""
        return self.realised - self.expected.value


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its interval of 95 %."""

    value: float
    low: float
    high: float


class EstimateChecks:
    """The estimates of days of one model beside what came true, each worked out once however often it is asked for."""

    def __init__(self, expectations: Expectations) -> None:
        self._expectations = expectations
        self._expected: dict[date, Mapping[str, Expected]] = {}
        self._realised: dict[tuple[date, int], Mapping[str, float]] = {}

    def expected(self, day: DayRows) -> Mapping[str, Expected]:
        """Estimate the metrics of a day from its predictions alone."""
        if day.day not in self._expected:
            self._expected[day.day] = self._expectations.expected(day.predictions)
        return self._expected[day.day]

    def realised(self, day: DayRows) -> Mapping[str, float]:
        """Return the metrics of a day by the labels known; of none with fewer than 30 of them."""
        # Labels only ever become known: as many known ones are the same ones.
        key = day.day, int(day.is_known.sum())
        if key not in self._realised:
            y, p = day.known
            is_enough = len(y) >= MINIMUM_ROWS_OF_A_DAY
            self._realised[key] = realised_quality(y, p, task=self._expectations.task) if is_enough else {}
        return self._realised[key]

    def of(self, days: Sequence[DayRows], metric: str) -> Sequence[Check]:
        """Return the checks of a metric on these days, oldest first; those without are left out."""
        return [
            Check(expected=self.expected(day)[metric], realised=self.realised(day)[metric])
            for day in days
            if metric in self.expected(day) and metric in self.realised(day)
        ]


def estimated_performance(
    today: DayRows,
    checked: Sequence[DayRows],
    *,
    checks: EstimateChecks,
    expectations: Expectations,
    use_case: str,
) -> pa.Table:
    """Estimate one day; one row for each metric (``ESTIMATED_SCHEMA``).

    Args:
        today: the day's rows, with the labels known by now: ``realised`` and ``error`` are null until there are 30.
        checked: earlier days of the same model, oldest first, with the labels known when the day was judged.
        checks: works out estimates and what came true.
        expectations: those of the model.
        use_case: whose predictions they are.

    The interval is of 95 % and holds two things: what chance does to a day of so many rows if the model is as right as
    its package says, and how far whole days stray beyond that (weather, queues), learnt from the held-out days of the
    package and from the days checked so far. ``mean_absolute_error`` and ``mean_error`` are of those days, which are
    ``n_days_checked``; ``n_days_held`` of them lay in the interval of 95 % that the usual noise gives, that of the
    held-out days and of those checked before the last 14. An estimate is not reliable where more than 3 of the last 14
    did not, or where its mean error over them is no chance.
    """
    rows: list[dict[str, object]] = []
    realised = checks.realised(today)
    for metric, expected in checks.expected(today).items():
        found = checks.of(checked, metric)
        noise = expectations.day_noise.get(metric)
        interval = _interval(metric, expected, _pooled(found, noise))
        errors = np.array([check.error for check in found])
        usual = _usual(found[:-N_DAYS_JUDGED], noise)
        held = np.array([_is_held(check, usual) for check in found], bool)
        reason = _wrong_lately(found[-N_DAYS_JUDGED:], held[-N_DAYS_JUDGED:], usual)
        came_true = realised.get(metric)
        rows.append(
            {
                "use_case": use_case,
                "partition_on": today.day,
                "model_version": today.version,
                "metric": metric,
                "n_decisions": len(today.predictions),
                "estimated": interval.value,
                "low": interval.low,
                "high": interval.high,
                "n_labelled": int(today.is_known.sum()),
                "realised": came_true,
                "error": came_true - interval.value if came_true is not None else None,
                "n_days_checked": len(found),
                "mean_absolute_error": float(np.abs(errors).mean()) if len(found) else None,
                "mean_error": float(errors.mean()) if len(found) else None,
                "n_days_held": int(held.sum()),
                "is_reliable": reason is None,
                "explanation": _explanation(metric, interval, errors, noise, reason),
            }
        )
    return pa.Table.from_pylist(rows, schema=ESTIMATED_SCHEMA)


def _pooled(found: Sequence[Check], noise: DayNoise | None) -> DayNoise:
    """Pool how far the held-out days and those checked since strayed beyond chance."""
    excess = [check.error**2 - check.expected.standard_error**2 for check in found]
    before = noise or DayNoise(variance=0.0, n_days=0)
    n_days = before.n_days + len(excess)
    if not n_days:
        return before
    return DayNoise(variance=(before.variance * before.n_days + sum(excess)) / n_days, n_days=n_days)


def _interval(metric: str, expected: Expected, noise: DayNoise) -> Interval:
    margin = _quantile(noise.n_days, CONFIDENCE) * _spread(expected, noise)
    lowest, highest = _POSSIBLE[metric]
    low, high = max(expected.value - margin, lowest), min(expected.value + margin, highest)
    return Interval(value=expected.value, low=low, high=high)


def _spread(expected: Expected, noise: DayNoise) -> float:
    """Return how far one day strays: by chance, as a whole, and around a centre learnt on so many days."""
    of_days = max(noise.variance, 0.0) * (1 + 1 / max(noise.n_days, 1))
    return float(np.sqrt(expected.standard_error**2 + of_days))


def _usual(earlier: Sequence[Check], noise: DayNoise | None) -> DayNoise:
    """Return how far days usually stray: by the held-out days and by those before the ones that are judged.

    Around the mean of the earlier days: that they all lay to one side makes them no noisier, and must not excuse it.
    """
    known = noise or DayNoise(variance=0.0, n_days=0)
    n_earlier = len(earlier)
    if n_earlier < 2:
        return known
    errors = np.array([check.error for check in earlier])
    chance = float(np.mean([check.expected.standard_error**2 for check in earlier]))
    total = known.variance * known.n_days + n_earlier * (float(np.var(errors, ddof=1)) - chance)
    return DayNoise(variance=total / (known.n_days + n_earlier), n_days=known.n_days + n_earlier)


def _is_held(check: Check, usual: DayNoise) -> bool:
    """Tell whether a day lay in the interval that the usual noise gives."""
    return abs(check.error) <= _quantile(usual.n_days, CONFIDENCE) * _spread(check.expected, usual)


def _wrong_lately(recent: Sequence[Check], held: np.ndarray, noise: DayNoise) -> str | None:
    """Return in what way the estimates of the last days were wrong, or None.

    Nothing is said of fewer than 3 days, nor where the usual noise is unknown.
    """
    n_days, n_missed = len(recent), int((~held).sum())
    if not noise.n_days or n_days < 3:
        return None
    if n_missed > _MOST_MISSED:
        return f"{n_missed} of the last {n_days} days lay outside of their intervals"
    mean = float(np.mean([check.error for check in recent]))
    chance = sum(check.expected.standard_error**2 for check in recent) / n_days**2
    # The days stray around a centre that was itself learnt on the held-out days.
    of_days = max(noise.variance, 0.0) * (1 / n_days + 1 / noise.n_days)
    if abs(mean) > _quantile(noise.n_days, 0.99) * float(np.sqrt(chance + of_days)):
        side = "above" if mean > 0 else "below"
        return (
            f"over the last {n_days} days what was realised lay {abs(mean):.3g} {side} the estimates, more than chance"
        )
    return None


def _explanation(
    metric: str, interval: Interval, errors: np.ndarray, noise: DayNoise | None, reason: str | None
) -> str:
    said = f"{_WORDS[metric]} estimated at {interval.value:.4g} ({interval.low:.4g} to {interval.high:.4g})"
    if len(errors):
        said += f", wrong by {np.abs(errors).mean():.3g} on average over {len(errors)} days"
    elif noise is None:
        said += ", with the noise of chance alone: the package knows no other"
    else:
        said += ", not yet held against a realised day"
    if reason:
        said += f"; not to be relied on: {reason}"
    return f"{said}. {BLIND_SPOT}"


@lru_cache(maxsize=1024)
def _quantile(n_days: int, confidence: float) -> float:
    """Return the two-sided quantile for a variance that was learnt on so many days; of the normal without any."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(n_days - 1, (1 + confidence) / 2) if n_days > 1 else ndtri((1 + confidence) / 2))
