"""The staleness curve: what the age of a model costs, as it is kept by as-of date, fitted and read again.

A cost is a share of the loss: 0.02 at 8 weeks says that on the same days a model of that age had 2 % more loss than one
trained as of their eve. The fit is isotonic, since no model gets better by waiting: where a measured cost falls with
the age, that is noise, and neighbours are pooled until it does not (Ayer et al. 1955).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import msgspec
import numpy as np

from ml_assets.core.errors import AlreadyExists, ArtifactMissing, BadInput, DataMissing
from ml_assets.core.evaluation import Floats
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.ports import ArtifactStore

_FOLDER = "staleness"


@dataclass(frozen=True, kw_only=True)
class CostOfAge:
    """What models of one age lost against fresh ones on the same days, over all windows that have both.

    ``cost`` is what was measured, ``fitted`` the same with the other ages at hand. ``low`` and ``high`` hold each 95
    times in 100, were other stretches and other days drawn. ``headline_loss`` is what the headline measure lost: of a
    loss as a share, of any other as a difference; above 0 the older model is the worse.
    """

    weeks: int
    n_windows: int
    n_days: int
    n_rows: int
    fresh_loss: float
    aged_loss: float
    cost: float
    cost_low: float
    cost_high: float
    fitted: float
    fitted_low: float
    fitted_high: float
    headline_loss: float
    headline_low: float
    headline_high: float


@dataclass(frozen=True, kw_only=True)
class StalenessCurve:
    """The cost of each age for one use case, youngest first, as it was known before the as-of date.

    ``n_train_rows`` of each model were chosen by hash, so that an older model is not worse for having had fewer.
    """

    use_case: str
    as_of: date
    fingerprint: str
    loss: str
    headline: str
    n_models: int
    n_train_rows: int
    window_days: int
    first_day: date
    last_day: date
    ages: tuple[CostOfAge, ...]

    @property
    def longest_age_days(self) -> int:
        """The oldest age that was measured; of what is older nothing is known."""
        return 7 * self.ages[-1].weeks

    def cost(self, age_days: float) -> float:
        """Return the fitted cost of an age, on straight lines between those measured and none at age 0.

        Beyond the oldest it stays what it was there, which is the least that it can be.
        """
        return float(np.interp(age_days, *self._corners([age.fitted for age in self.ages])))

    def useful_days(self, tolerance: float) -> int:
        """Return the longest age in whole days whose cost is at most the tolerance; at most the oldest measured."""
        return self._reaches(tolerance, [age.fitted for age in self.ages])

    def useful_days_between(self, tolerance: float) -> tuple[int, int]:
        """Return the same by the upper and by the lower limit of the cost: the truth lies between the two."""
        return tuple(
            self._reaches(tolerance, [getattr(a, n) for a in self.ages]) for n in ("fitted_high", "fitted_low")
        )  # type: ignore[return-value]

    def _corners(self, costs: Sequence[float]) -> tuple[list[float], list[float]]:
        return [0.0, *(7.0 * age.weeks for age in self.ages)], [0.0, *costs]

    def _reaches(self, tolerance: float, costs: Sequence[float]) -> int:
        days, heights = self._corners(costs)
        within = [n for n in range(self.longest_age_days + 1) if np.interp(n, days, heights) <= tolerance + 1e-12]
        # Costs never fall with the age, so that all up to the last are within.
        return within[-1]


def isotonic(values: Floats, weights: Floats) -> Floats:
    """Return the non-decreasing and non-negative numbers nearest to these, in weighted squares; both of shape (n,).

    Pooling adjacent violators: Ayer, Brunk, Ewing, Reid and Silverman (1955). That none is below 0 is had by cutting
    off: Barlow et al. (1972), section 1.3.

    >>> isotonic(np.array([1.0, 3.0, 2.0, -9.0]), np.array([1.0, 1.0, 1.0, 0.1])).round(2).tolist()
    [1.0, 1.95, 1.95, 1.95]
    """
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (one, of_one, n_one), (other, of_other, n_other) = pools[-2:]
            total = of_one + of_other
            pools[-2:] = [((one * of_one + other * of_other) / total, total, n_one + n_other)]
    return np.maximum(0.0, np.repeat([value for value, _, _ in pools], [n for _, _, n in pools]))


def save_curve(store: ArtifactStore, curve: StalenessCurve) -> str:
    """Write the curve as of its date, once, and return the path.

    Decisions rest on it: the same curve again changes nothing, and another one is refused with BadInput.
    """
    path = curve_path(curve.use_case, curve.as_of)
    try:
        store.create(path, msgspec.json.format(msgspec.json.encode(curve)))
    except AlreadyExists as error:
        found = _read(store, path)
        if found.fingerprint != curve.fingerprint:
            raise BadInput(
                f"{curve.use_case} has a staleness curve as of {curve.as_of} already, of other settings, examples or "
                f"code, and decisions rest on it; measure as of another day, or remove {path} to decide anew"
            ) from error
    return path


def load_curve(store: ArtifactStore, use_case_name: str, as_of: date) -> StalenessCurve:
    """Read the curve as of a date; raise DataMissing where there is none, BadInput for a file that is none."""
    try:
        return _read(store, curve_path(use_case_name, as_of))
    except ArtifactMissing as error:
        raise DataMissing(
            f"{use_case_name} has no staleness curve as of {as_of}; run `ml-assets staleness --use-case "
            f"{use_case_name} --as-of {as_of}`"
        ) from error


def curve_dates(store: ArtifactStore, use_case_name: str) -> Sequence[date]:
    """Return the as-of dates that have a curve, oldest first."""
    paths = store.list(f"{_FOLDER}/{identifier(use_case_name)}/curves")
    return [date.fromisoformat(path.rpartition("/")[2].removesuffix(".json")) for path in paths]


def newest_curve(store: ArtifactStore, use_case_name: str, by: date | None = None) -> StalenessCurve | None:
    """Return the curve with the newest as-of date, up to a date where one is given; None without any."""
    known = [as_of for as_of in curve_dates(store, use_case_name) if by is None or as_of <= by]
    return load_curve(store, use_case_name, known[-1]) if known else None


def curve_path(use_case_name: str, as_of: date) -> str:
    """Return where the curve as of a date is kept."""
    return artifact_path(f"{_FOLDER}/{identifier(use_case_name)}/curves/{as_of.isoformat()}.json")


def predictions_path(use_case_name: str, fingerprint: str) -> str:
    """Return where the predictions of one backtested model are kept, so that it is trained once."""
    return artifact_path(f"{_FOLDER}/{identifier(use_case_name)}/predictions/{fingerprint}.arrow")


def _read(store: ArtifactStore, path: str) -> StalenessCurve:
    try:
        return msgspec.json.decode(store.get(path), type=StalenessCurve)
    except msgspec.DecodeError as error:
        raise BadInput(f"{path} holds no staleness curve ({error}); remove it and measure again") from error
