"""The board of all experiments: figures over time, searches, what failed and why, and a table of everything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from ml_assets.core.comparison import MAIN_METRICS, main_metric
from ml_assets.core.experiment_rows import DAMAGED, UNFINISHED, Experiment
from ml_assets.core.reports.experiment_charts import metric_over_days
from ml_assets.core.reports.page import Chart, draw, render
from ml_assets.core.reports.training_charts import optimisation_history
from ml_assets.core.studies import TrialRecord, TrialState

_MODEL = ("complete", "reused")
_TROUBLE = ("failed", UNFINISHED, DAMAGED)


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """One large number of the head of the page."""

    name: str
    value: int
    words: str


@dataclass(frozen=True, kw_only=True)
class _UseCasePart:
    """What is shown of one use case."""

    name: str
    words: str
    charts: Sequence[Chart]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row of the table, as it is written; ``metrics`` in the order of the columns."""

    id: str
    begun: str
    kind: str
    use_case: str
    as_of: str
    status: str
    seconds: float | None
    trainer: str
    metrics: tuple[float | None, ...]
    summary: str
    facts: Mapping[str, str]
    reason: str


def experiment_board(rows: Sequence[Experiment], *, written_at: datetime) -> str:
    """Write all experiments, given newest first, as one self-contained HTML page; the same input gives the same bytes.

    The table can be sorted and searched by the page's one script, and read without it.
    """
    names = [name for name in MAIN_METRICS if any(name in row.metrics and row.kind != "promotion" for row in rows)]
    table = [_written(row, names) for row in rows]
    use_cases = sorted({row.use_case for row in rows if row.use_case})
    return render(
        "board.html",
        script_file="board.js",
        written_at=written_at,
        figures=_figures(rows),
        use_cases=[_part(name, [row for row in rows if row.use_case == name]) for name in use_cases],
        troubled=[row for row in table if row.status in _TROUBLE],
        rows=table,
        metric_names=[name.replace("_", " ") for name in names],
        links={},
    )


def _figures(rows: Sequence[Experiment]) -> Sequence[_Figure]:
    found = Counter((row.kind, row.status) for row in rows)

    def words(kind: str) -> str:
        parts = [f"{n} {status}" for (of, status), n in sorted(found.items()) if of == kind]
        return ", ".join(parts) or "none yet"

    return [
        _Figure(name=name, value=sum(n for (of, _), n in found.items() if of == kind), words=words(kind))
        for name, kind in (("Trainings", "training"), ("Trials", "trial"), ("Decisions", "promotion"))
    ]


def _part(name: str, rows: Sequence[Experiment]) -> _UseCasePart:
    models = {row.version: row for row in reversed(rows) if row.kind == "training" and row.status in _MODEL}
    promoted = {row.version for row in rows if row.kind == "promotion" and row.status == "promote"}
    charts = [chart for chart in (_over_days(name, list(models.values()), promoted), _search(name, rows)) if chart]
    n_trials = sum(row.kind == "trial" for row in rows)
    words = f"{len(models)} models, {len(promoted & set(models))} of them promoted; {n_trials} trials."
    return _UseCasePart(name=name, words=words, charts=charts)


def _over_days(use_case: str, models: Sequence[Experiment], promoted: set[str]) -> Chart | None:
    """Draw the main figure of the models over their as-of dates; None where no model has one."""
    metric = next((found for row in models if (found := main_metric(row))), None)
    shown = [row for row in models if metric in row.metrics and row.as_of]
    if metric is None or not shown:
        return None
    spec = metric_over_days(
        [row.as_of for row in shown if row.as_of],
        [row.metrics[metric] for row in shown],
        [row.intervals.get(metric) for row in shown],
        [row.version in promoted for row in shown],
        y_title=metric.replace("_", " "),
    )
    caption = "On each model\u2019s own holdout, the days before its as-of date, with its 95 % interval."
    return draw(f"{use_case} over as-of days", spec, caption)


def _search(use_case: str, rows: Sequence[Experiment]) -> Chart | None:
    """Draw the newest search of a use case; None where there was none that got anywhere."""
    trials = [row for row in rows if row.kind == "trial" and row.status != DAMAGED]
    if not trials:
        return None
    newest = max(trials, key=lambda row: row.as_of.isoformat() if row.as_of else "").recorded_by
    records = [
        TrialRecord(
            number=int(row.id.rpartition(".")[2]),
            state=cast("TrialState", row.status),
            parameters=row.parameters,
            loss=row.metrics.get("validation_loss"),
            n_epochs=int(row.metrics.get("n_epochs", 0)),
            reason=row.reason,
        )
        for row in trials
        if row.recorded_by == newest
    ]
    spec = optimisation_history(
        sorted(records, key=lambda trial: trial.number), default_loss=None, y_title="Validation loss"
    )
    return draw(f"{use_case} newest search", spec, f"{newest}. The line is the lowest loss so far.")


def _written(row: Experiment, names: Sequence[str]) -> _Row:
    facts: dict[str, object] = {
        "version": row.version,
        "parent": row.parent_version,
        **row.parameters,
        "seed": row.seed,
        "training set": row.training_set[:12],
        **{f"{part} rows": f"{n:,}" for part, n in row.n_rows.items()},
        "code version": row.code_version[:12],
        "environment": row.environment_hash[:12],
        **{
            name: f"{value:.4g}"
            + (f" ({row.intervals[name].low:.4g}\u2013{row.intervals[name].high:.4g})" if name in row.intervals else "")
            for name, value in row.metrics.items()
        },
        "by": row.recorded_by,
        "run": row.run_id,
        "reason": row.reason,
    }
    is_decision = row.kind == "promotion"
    return _Row(
        id=row.id,
        begun=f"{row.started_at:%Y-%m-%d %H:%M}" if row.started_at else "",
        kind=row.kind,
        use_case=row.use_case,
        as_of=row.as_of.isoformat() if row.as_of else "",
        status=row.status,
        seconds=row.seconds,
        trainer=row.trainer,
        metrics=tuple(None if is_decision else row.metrics.get(name) for name in names),
        summary=row.version or "details",
        facts={name.replace("_", " "): f"{value}" for name, value in facts.items() if value not in (None, "")},
        reason=row.reason,
    )
