"""Drift that is worth telling: what two of three days show by themselves, and what a week shows taken together.

One odd day is no alarm. A feature alarms when it drifted on two of three days, or when the days of a week that showed
nothing by themselves have drifted taken together, seen from two of three days: a small shift that lasts, and days of
few rows.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.core.day_variation import DAYS_OF_A_WEEK
from ml_assets.core.drift_tests import Counts, explain, judge_days
from ml_assets.core.incidents import Alarm
from ml_assets.core.reference import Reference

# Judgement: an odd day is weather; the second within three days is a reason to look.
N_DAYS, N_DAYS_DRIFTED = 3, 2

_Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class _Drifted:
    """One feature that was drifted on a day, or over the days to it."""

    day: date
    is_severe: bool
    explanation: str


class DriftHistory:
    """The rows of ``monitoring.drift`` of some days, and which alarms they come to on each.

    ``reference_of`` returns what the training of a model version looked like. Only days of the version that is in
    charge of a day say anything about it: a new model starts with a clean slate.
    """

    def __init__(self, drift: pa.Table, reference_of: Callable[[str], Reference]) -> None:
        self._days: dict[date, dict[str, _Row]] = {}
        self._reference_of = reference_of
        self._weeks: dict[tuple[date, str], Mapping[str, _Drifted]] = {}
        for row in drift.to_pylist():
            self._days.setdefault(row["partition_on"], {})[row["feature"]] = row

    def alarms(self, day: date, version: str) -> Iterator[Alarm]:
        """Yield what stands on a day; what its days show by themselves goes before what the week shows."""
        stretch = [day - timedelta(days=back) for back in reversed(range(N_DAYS))]
        alone, lasting = ([of(each, version) for each in stretch] for of in (self._alone, self._over_a_week))
        for feature in self._of(day, version):
            for found in (alone, lasting):
                hits = [drifted[feature] for drifted in found if feature in drifted]
                if len(hits) >= N_DAYS_DRIFTED:
                    yield Alarm(
                        kind="prediction_drift" if feature == "prediction" else "drift",
                        subject=feature,
                        severity="severe" if sum(hit.is_severe for hit in hits) >= N_DAYS_DRIFTED else "warning",
                        explanation=f"{feature}: {hits[-1].explanation}",
                        since=hits[0].day,
                    )
                    break

    def _of(self, day: date, version: str) -> Mapping[str, _Row]:
        return {name: row for name, row in self._days.get(day, {}).items() if row["model_version"] == version}

    def _alone(self, day: date, version: str) -> Mapping[str, _Drifted]:
        return {
            name: _Drifted(
                day=day, is_severe=row["severity"] == "severe", explanation=f"{row['explanation']}, on {day}"
            )
            for name, row in self._of(day, version).items()
            if row["is_drifted"]
        }

    def _over_a_week(self, day: date, version: str) -> Mapping[str, _Drifted]:
        if (day, version) not in self._weeks:
            self._weeks[day, version] = self._taken_together(day, version)
        return self._weeks[day, version]

    def _taken_together(self, day: date, version: str) -> Mapping[str, _Drifted]:
        """Judge the days to this one together, without those that are drifted by themselves: one odd day is no week."""
        if not self._of(day, version):
            return {}
        counts: dict[str, list[Counts]] = {}
        for back in range(DAYS_OF_A_WEEK):
            for name, row in self._of(day - timedelta(days=back), version).items():
                if row["n_rows"] and not row["is_drifted"] and row["bin_counts"]:
                    found = msgspec.json.decode(str(row["bin_counts"]), type=list[int])
                    counts.setdefault(name, []).append(np.asarray(found, np.int64))
        several = {name: found for name, found in counts.items() if len(found) > 1}
        if not several:
            return {}
        reference = self._reference_of(version)
        bins = {b.feature: b for b in reference.all_bins}
        drifted: dict[str, _Drifted] = {}
        for name, judgement in judge_days(reference, several).items():
            if judgement.is_drifted:
                n_days = len(several[name])
                words = explain(bins[name], np.stack(several[name]).sum(axis=0), n_days=n_days)
                drifted[name] = _Drifted(
                    day=day,
                    is_severe=judgement.severity == "severe",
                    explanation=f"{words}, taken together to {day}",
                )
        return drifted
