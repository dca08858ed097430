"""The champion beside its predecessors and its baselines, on the same decisions, day by day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.days import DayRange
from ml_assets.core.encoding import Task
from ml_assets.core.estimates import realised_quality
from ml_assets.core.evaluation import Floats
from ml_assets.core.paired_bootstrap import DayResamples, Estimate
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Warehouse
from ml_assets.core.scored_rows import DayRows, ScoredRows
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import meaning_of

SHADOW_PERFORMANCE_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "model_version": pa.string(),
        "other_version": pa.string(),
        "role": pa.string(),
        "n_labelled": pa.int64(),
        "log_loss": pa.float64(),
        "other_log_loss": pa.float64(),
        "roc_auc": pa.float64(),
        "other_roc_auc": pa.float64(),
        "rmse": pa.float64(),
        "other_rmse": pa.float64(),
        "mae": pa.float64(),
        "other_mae": pa.float64(),
        "n_days_compared": pa.int64(),
        "n_compared": pa.int64(),
        "gain": pa.float64(),
        "gain_low": pa.float64(),
        "gain_high": pa.float64(),
        "verdict": pa.string(),
        "explanation": pa.string(),
    }
)
# Over how many days at most a champion is compared; a champion of yesterday has fewer.
N_DAYS_COMPARED = 28
MINIMUM_DAYS = 3
# Of each side: that a champion is worse than its predecessor is said where chance would say it once in forty times.
CONFIDENCE = 0.975
_MEASURES = ("log_loss", "roc_auc", "rmse", "mae")
_SEED = 13


@dataclass(frozen=True, kw_only=True)
class ShadowScores:
    """The scores of one shadow beside rows it scored: where each of these rows is, ascending, and its score."""

    place: npt.NDArray[np.int64]
    scores: Floats

    def at(self, rows: slice) -> Floats:
        """Return the scores of a stretch of rows, NaN where there are none."""
        first, last = np.searchsorted(self.place, [rows.start, rows.stop])
        found = np.full(rows.stop - rows.start, np.nan)
        found[self.place[first:last] - rows.start] = self.scores[first:last]
        return found


# By role and version.
Shadows = Mapping[tuple[str, str], ShadowScores]


def read_shadow_rows(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> pa.Table:
    """Return the shadow scores of these days, in no order: there are several for each prediction, many to sort."""
    of_days = Sql(dialect=warehouse.dialect).of_days()
    sql = f"select * from {use_case.shadow_table} where {of_days}"  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last})


def shadows_on(rows: ScoredRows, shadows: pa.Table) -> Shadows:
    """Find the row of each shadow score; one of a decision that was not predicted is left out."""
    lookup = pc.SetLookupOptions(value_set=rows.table["decision_id"].combine_chunks())
    found = pc.call_function("index_in", [shadows["decision_id"]], lookup).fill_null(-1).to_numpy()
    scores = np.asarray(shadows["prediction"].to_numpy(), np.float64)
    role, version = (shadows[name].combine_chunks().dictionary_encode() for name in ("role", "model_version"))
    n_versions = len(version.dictionary)
    pair = role.indices.to_numpy() * n_versions + version.indices.to_numpy()
    laid: dict[tuple[str, str], ShadowScores] = {}
    for code in np.unique(pair):
        mine = np.flatnonzero((pair == code) & (found >= 0))
        mine = mine[np.argsort(found[mine])]
        name = role.dictionary[int(code) // n_versions].as_py(), version.dictionary[int(code) % n_versions].as_py()
        laid[name] = ShadowScores(place=found[mine].astype(np.int64), scores=scores[mine])
    return dict(sorted(laid.items()))


def shadow_performance(
    today: DayRows,
    compared: Sequence[DayRows],
    *,
    rows: ScoredRows,
    shadows: Shadows,
    use_case: str,
    task: Task,
) -> pa.Table:
    """Compare the champion of one day with every shadow of that day; one row each (``SHADOW_PERFORMANCE_SCHEMA``).

    Args:
        today: the day's rows with the labels known by now.
        compared: the days over which the evidence is gathered, with the labels known when the day was judged; of the
            same champion.
        rows: where the rows of all these days are.
        shadows: the shadow scores on ``rows``.
        use_case: whose predictions they are.
        task: what is predicted.

    The metrics are of the day's labelled rows. ``gain`` is what the champion gains over the other model in the task's
    loss (nats of log loss, or RMSE) on the same decisions of ``n_days_compared`` days: above 0 it is better. Its
    interval of 95 % is a paired bootstrap over days. ``verdict`` is ``better`` or ``worse`` where the interval leaves
    0 out, else ``no difference shown``, and ``too few days`` with fewer than three.
    """
    parts: list[dict[str, object]] = []
    of_today = rows.place(today.day)
    for (role, version), scores in shadows.items():
        others = scores.at(of_today)
        if np.isnan(others).all():
            continue
        mine = today.is_known & ~np.isnan(others)
        row: dict[str, object] = {
            "use_case": use_case,
            "partition_on": today.day,
            "model_version": today.version,
            "other_version": version,
            "role": role,
            "n_labelled": int(mine.sum()),
        }
        if mine.any():
            ours = realised_quality(today.labels[mine], today.predictions[mine], task=task)
            theirs = realised_quality(today.labels[mine], others[mine], task=task)
            row |= {name: ours[name] for name in _MEASURES if name in ours}
            row |= {f"other_{name}": theirs[name] for name in _MEASURES if name in theirs}
        parts.append(row | _evidence(role, compared, rows, scores, task))
    return pa.Table.from_pylist(parts, schema=SHADOW_PERFORMANCE_SCHEMA)


def _evidence(
    role: str, compared: Sequence[DayRows], rows: ScoredRows, scores: ShadowScores, task: Task
) -> dict[str, object]:
    """Gather the days on which both models predicted, and say what the difference is worth."""
    labels, champion, other, names = ([np.empty(0)] for _ in range(4))
    for day in compared:
        others = scores.at(rows.place(day.day))
        both = day.is_known & ~np.isnan(others)
        labels.append(day.labels[both])
        champion.append(day.predictions[both])
        other.append(others[both])
        names.append(np.full(int(both.sum()), float(day.day.toordinal())))
    y, ours, theirs, days = (np.concatenate(parts) for parts in (labels, champion, other, names))
    n_days, n_compared = len(np.unique(days)), len(days)
    facts: dict[str, object] = {"n_days_compared": n_days, "n_compared": n_compared}
    loss = meaning_of(task).loss
    if n_days < MINIMUM_DAYS:
        few = f"only {n_days} days to compare with {words_of(role)}, too few to judge"
        return facts | {"verdict": "too few days", "explanation": few}
    resamples = DayResamples.of(days, seed=_SEED)
    gain = resamples.gain(loss, y, ours, theirs)
    margin = gain.margin(CONFIDENCE) if gain else None
    if gain is None or margin is None:
        return facts | {"verdict": "too few days", "explanation": f"the noise beside {words_of(role)} is unknown"}
    verdict = _verdict(gain, margin)
    side = "lower" if gain.value > 0 else "higher"
    told = f"{loss.words} {abs(gain.value):.3g} {side} than that of {words_of(role)}"
    return facts | {
        "gain": gain.value,
        "gain_low": gain.value - margin,
        "gain_high": gain.value + margin,
        "verdict": verdict,
        "explanation": f"{verdict}: over {n_days} days {told}, give or take {margin:.2g}",
    }


def words_of(role: str) -> str:
    """Return what people call the other model of a row.

    >>> words_of("previous_1"), words_of("previous_2"), words_of("baseline:logistic")
    ('the champion before', 'the champion two before', 'the logistic baseline')
    """
    if role.startswith("baseline:"):
        return f"the {role.removeprefix('baseline:').replace('_', ' ')} baseline"
    return "the champion before" if role == "previous_1" else "the champion two before"


def _verdict(gain: Estimate, margin: float) -> str:
    if abs(gain.value) <= margin:
        return "no difference shown"
    return "better" if gain.value > 0 else "worse"
