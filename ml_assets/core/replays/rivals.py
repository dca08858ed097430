"""Those that are not in charge, compared with who is: a model trained once, the same after a quarter, a simple one.

What the comparison is for: whether all the trainings were worth anything. Each rival predicts every day that is
predicted, from the first day on which it could have been in charge; none sees anything that was not known by then.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core import registry
from ml_assets.core.baselines import labels_of
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.evaluation import Floats
from ml_assets.core.package import load_package
from ml_assets.core.paired_bootstrap import DayResamples
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import ArtifactStore, Warehouse
from ml_assets.core.replays.record import RIVALS, WEEKS
from ml_assets.core.scoring import score
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import Measure, meaning_of

ONCE, LATER, BASELINE = "trained_once", "trained_once_later", "baseline"
# What each is called on the page and in the docs.
RIVAL_WORDS: Mapping[str, str] = {
    ONCE: "trained once, as soon as it was possible",
    LATER: "trained once, on a quarter",
    BASELINE: "the simple baseline, fitted anew with each champion",
}
# Judgement: who trains once will at least wait for a season's worth of days.
_LATER = timedelta(days=91)
# Two-sided 95 %.
_CONFIDENCE = 0.975

RIVALS_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "decision_id": pa.string(),
        ONCE: pa.float64(),
        LATER: pa.float64(),
        BASELINE: pa.float64(),
    }
)
COMPARISON_SCHEMA = pa.schema(
    {
        "use_case": pa.string(),
        "partition_on": pa.date32(),
        "first_day": pa.date32(),
        "rival": pa.string(),
        "measure": pa.string(),
        "n_labelled": pa.int64(),
        "n_days": pa.int64(),
        "production": pa.float64(),
        "other": pa.float64(),
        "gain": pa.float64(),
        "margin": pa.float64(),
    }
)


def score_rivals(warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, days: DayRange) -> pa.Table:
    """Predict the predicted decisions of these days by each rival, write ``replay.rivals`` and return the rows.

    ``trained_once`` is the first champion; ``trained_once_later`` the one in charge 13 weeks after it, from that day on
    (null before). ``baseline`` is the simple baseline of the task, fitted on the rows that the champion of the day was
    fitted on: what the same days without the model would have had.
    """
    scored = _scored(warehouse, use_case, days)
    parts: list[pa.Table] = []
    for version, rows in _by_version(scored):
        columns = {
            "use_case": pa.repeat(use_case.name, rows.num_rows),
            "partition_on": rows["partition_on"],
            "decision_id": rows["decision_id"],
            BASELINE: pa.array(_baseline(store, use_case, version, rows)),
        }
        for name, (frozen, since) in _frozen(store, use_case, days.last).items():
            answers = score(load_package(store, use_case.name, frozen), rows)
            is_before = rows["partition_on"].to_numpy() < np.datetime64(since)
            columns[name] = pa.array(answers, mask=is_before)
        empty = pa.nulls(rows.num_rows, pa.float64())
        parts.append(pa.table({name: columns.get(name, empty) for name in RIVALS_SCHEMA.names}).cast(RIVALS_SCHEMA))
    found = pa.concat_tables([*parts, RIVALS_SCHEMA.empty_table()])
    warehouse.replace_days({RIVALS: found}, days, use_case=use_case.name)
    return found


def evaluate_week(warehouse: Warehouse, use_case: UseCase, week: DayRange) -> pa.Table:
    """Compare the rivals with production on the labels known on the morning after a week; write ``replay.weeks``."""
    rows = compared_rows(warehouse, use_case, week, known_before=day_starts_at(week.last + timedelta(days=1)))
    found = compare(rows, use_case, week)
    warehouse.replace_days({WEEKS: found}, DayRange(first=week.last, last=week.last), use_case=use_case.name)
    return found


def compared_rows(warehouse: Warehouse, use_case: UseCase, days: DayRange, *, known_before: datetime) -> pa.Table:
    """Return label, prediction and what each rival predicted of the decisions whose label was known by a moment."""
    sql = Sql(dialect=warehouse.dialect)
    query = f"""
        select e.decision_id, e.partition_on, e.label, p.prediction, r.{ONCE}, r.{LATER}, r.{BASELINE}
        from {use_case.examples_table} e
        join {use_case.predictions_table} p on e.decision_id = p.decision_id
        join {RIVALS} r on e.decision_id = r.decision_id
        where {sql.of_days(of="e")} and {sql.of_days(of="p")} and {sql.of_days(of="r")}
          and r.use_case = {sql.parameter("use_case")}
          and e.label is not null and e.label_known_at < {sql.parameter("known_before")}
        order by e.partition_on, e.decision_id
    """  # noqa: S608 - validated names and constants
    bounds = {
        "first_day": days.first,
        "last_day": days.last,
        "use_case": use_case.name,
        "known_before": known_before,
    }
    if warehouse.columns(RIVALS) is None or warehouse.columns(use_case.predictions_table) is None:
        return pa.table(
            {"label": pa.array([], pa.bool_()), **{name: pa.array([], pa.float64()) for name in RIVAL_WORDS}}
        )
    return warehouse.query(query, bounds)


def compare(rows: pa.Table, use_case: UseCase, days: DayRange) -> pa.Table:
    """Compare production with each rival on these labelled rows, in the loss and in the measure shown every day.

    One row per rival and measure, but for a rival that predicted none of the rows, or a measure they do not determine.
    ``gain`` is above 0 where production is better; the truth lies within ``margin`` of it 95 times in 100, by a paired
    bootstrap over days, null where there is one day only. ``partition_on`` is the last of the days.
    """
    meaning = meaning_of(use_case.task)
    measures = list(dict.fromkeys((meaning.loss, meaning.daily)))
    key = {"use_case": use_case.name, "partition_on": days.last, "first_day": days.first}
    found: list[dict[str, object]] = []
    for rival in RIVAL_WORDS:
        of_both = rows.filter(pc.field(rival).is_valid())
        if of_both.num_rows:
            found += [{**key, "rival": rival, **one} for one in _compared(of_both, rival, measures, use_case)]
    return pa.Table.from_pylist(found, schema=COMPARISON_SCHEMA)


def _compared(
    rows: pa.Table, rival: str, measures: Sequence[Measure], use_case: UseCase
) -> Iterator[Mapping[str, object]]:
    y = labels_of(rows)
    ours, theirs = (np.asarray(rows[name].to_numpy(), np.float64) for name in ("prediction", rival))
    resamples = DayResamples.of(rows["partition_on"].to_numpy(), seed=use_case.seed)
    evaluate = meaning_of(use_case.task).evaluate
    production, other = evaluate(y, ours), evaluate(y, theirs)
    for measure in measures:
        gain = resamples.gain(measure, y, ours, theirs)
        if gain is not None:
            yield {
                "measure": measure.name,
                "n_labelled": len(y),
                "n_days": gain.n_days,
                "production": getattr(production, measure.name),
                "other": getattr(other, measure.name),
                "gain": gain.value,
                "margin": gain.margin(_CONFIDENCE),
            }


def _by_version(scored: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each stretch of days with the same champion; the rows are sorted by day."""
    versions, start = scored["model_version"].to_pylist(), 0
    for version, stretch in groupby(versions):
        n_rows = len(list(stretch))
        yield version, scored.slice(start, n_rows)
        start += n_rows


def _frozen(store: ArtifactStore, use_case: UseCase, last: date) -> Mapping[str, tuple[str, date]]:
    """Return the version and first day of each model that is trained once and left alone, if it is there by a day."""
    ledger = registry.entries(store, use_case.name)
    first = min((entry for entry in ledger if entry.action == "promote"), key=lambda entry: entry.effective_from)
    later_on = first.effective_from + _LATER
    found = {ONCE: (first.version, first.effective_from)}
    if later_on <= last:
        found[LATER] = (registry.required(ledger, use_case.name, later_on).version, later_on)
    return found


def _baseline(store: ArtifactStore, use_case: UseCase, version: str, rows: pa.Table) -> Floats:
    """Return what the simple baseline predicts that the package of a version keeps."""
    name = meaning_of(use_case.task).simple_baseline
    baselines = load_package(store, use_case.name, version).expectations.baselines
    return next(baseline for baseline in baselines if baseline.name == name).predict(rows)


def _scored(warehouse: Warehouse, use_case: UseCase, days: DayRange) -> pa.Table:
    """Return the examples of these days beside their predictions."""
    marked = Sql(dialect=warehouse.dialect)
    sql = f"""
        select e.*, p.prediction, p.model_version
        from {use_case.examples_table} e join {use_case.predictions_table} p using (decision_id)
        where {marked.of_days(of="e")} and {marked.of_days(of="p")}
        order by e.partition_on, e.decision_id
    """  # noqa: S608 - validated names
    return warehouse.query(sql, {"first_day": days.first, "last_day": days.last})
