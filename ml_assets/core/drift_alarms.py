"""Drift that is worth telling: what two of three days show by themselves, and what a week shows taken together.

One odd day is no alarm. A feature alarms when it drifted on two of three days, or when the days of a week that showed
nothing by themselves have drifted taken together, seen from two of three days: a small shift that lasts, and days of
few rows.

How far an input moved says nothing of what it costs: seasons move the weather of every model, and a model that has seen
summers does as well in one (drift without a loss is the "virtual" drift of Gama et al. 2014). So an input is a warning;
severe is a feed that is broken, predictions of which a fifth moved, and an input of which a fifth moved while
predictions or quality moved too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.core.day_variation import DAYS_OF_A_WEEK
from ml_assets.core.drift_tests import LARGE_MOVED_SHARE, Counts, explain, judge_days
from ml_assets.core.incidents import Alarm
from ml_assets.core.reference import Reference

# Judgement: an odd day is weather; the second within three days is a reason to look.
N_DAYS, N_DAYS_DRIFTED = 3, 2

_Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class _Drifted:
    """One feature that was drifted on a day, or over the days to it.

    ``is_large`` where a fifth of the rows moved, ``is_broken`` where its feed is.
    """

    day: date
    explanation: str
    is_large: bool
    is_broken: bool = False


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

    def alarms(self, day: date, version: str, *, beside: str = "") -> Iterator[Alarm]:
        """Yield what stands on a day; what its days show by themselves goes before what the week shows.

        ``beside`` says what else is lost, such as quality, that makes a moved input costly; empty where nothing is.
        """
        stretch = [day - timedelta(days=back) for back in reversed(range(N_DAYS))]
        alone, lasting = ([of(each, version) for each in stretch] for of in (self._alone, self._over_a_week))
        standing: dict[str, list[_Drifted]] = {}
        for feature, found in product(self._of(day, version), (alone, lasting)):
            hits = [drifted[feature] for drifted in found if feature in drifted]
            if len(hits) >= N_DAYS_DRIFTED:
                standing.setdefault(feature, hits)
        has_cost = bool(beside) or "prediction" in standing
        beside = beside or "while the predictions moved too"
        for feature, hits in standing.items():
            is_broken, is_large = (
                sum(of_hit) >= N_DAYS_DRIFTED
                for of_hit in ([hit.is_broken for hit in hits], [hit.is_large for hit in hits])
            )
            is_input, said = feature != "prediction", f"{feature}: {hits[-1].explanation}"
            is_costly = is_input and is_large and has_cost and not is_broken
            kind = "broken_feed" if is_broken else "drift" if is_input else "prediction_drift"
            yield Alarm(
                kind=kind,
                subject=feature,
                severity="severe" if is_broken or is_costly or (is_large and not is_input) else "warning",
                explanation=f"{said}, {beside}" if is_costly else said,
                since=hits[0].day,
            )

    def _of(self, day: date, version: str) -> Mapping[str, _Row]:
        return {name: row for name, row in self._days.get(day, {}).items() if row["model_version"] == version}

    def _alone(self, day: date, version: str) -> Mapping[str, _Drifted]:
        return {
            name: _Drifted(
                day=day,
                explanation=f"{row['explanation']}, on {day}",
                is_large=(cast("float | None", row["moved_share"]) or 0.0) >= LARGE_MOVED_SHARE,
                is_broken=row["severity"] == "severe" and row["kind"] != "prediction",
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
                    explanation=f"{words}, taken together to {day}",
                    is_large=(judgement.moved_share or 0.0) >= LARGE_MOVED_SHARE,
                )
        return drifted
