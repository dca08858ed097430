"""The staleness backtest: models of several ages on the same days, each trained on what was known at its time.

Fortnights, end to end, are scored by the model trained as of their first day and by those of 1, 2, 4, 8 and 16 weeks
before. All models have the use case's trainer and hyperparameters, the split of a real training, and the same number of
training rows, chosen by hash: what an older model lacks is what happened since, and not rows. They start cold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.baselines import labels_of
from ml_assets.core.costs_of_age import AGES_IN_WEEKS, costs_of_age, headline_of
from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.errors import ArtifactMissing, BadInput, TrainingDataMissing
from ml_assets.core.evaluation import Floats
from ml_assets.core.feature_views import Feature
from ml_assets.core.fingerprints import content_hash, json_hash
from ml_assets.core.labelled_examples import canonical, is_sampled, of_days, refuse_bad_examples
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.scoring import score_coded
from ml_assets.core.spec import UseCase
from ml_assets.core.splits import Split, split_days
from ml_assets.core.staleness_curves import StalenessCurve, predictions_path
from ml_assets.core.tasks import meaning_of
from ml_assets.core.trainers import Labelled, trainer_named
from ml_assets.core.trainers.refusals import refuse_unlearnable
from ml_assets.core.trainers.segmented import SegmentedTrainer

WINDOW = timedelta(days=14)
# A Monday, and the first day of a window: a later measurement has the same windows and trains only what is new.
_FIRST_WINDOW = date(2001, 1, 1)

OnStep = Callable[[str, int, int], None]
StartsAt = Callable[[date], datetime]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which windows (by their first day) are scored by models of which as-of dates."""

    windows: tuple[date, ...]
    models: Mapping[date, tuple[date, ...]]


def plan(*, first_as_of: date, as_of: date, gap_days: int) -> Plan:
    """Return the windows that are over and labelled before the as-of date, and the models that score them.

    No model is trained as of a date before ``first_as_of``. A window that has no model but its fresh one is left out.

    >>> found = plan(first_as_of=date(2013, 5, 20), as_of=date(2013, 7, 5), gap_days=1)
    >>> [str(window) for window in found.windows]
    ['2013-06-03', '2013-06-17']
    >>> {str(as_of): len(windows) for as_of, windows in found.models.items()}
    {'2013-05-20': 2, '2013-05-27': 1, '2013-06-03': 2, '2013-06-10': 1, '2013-06-17': 1}
    """
    n_over = (as_of - timedelta(days=gap_days) - _FIRST_WINDOW) // WINDOW
    models: dict[date, list[date]] = {}
    windows: list[date] = []
    for number in range(n_over):
        window = _FIRST_WINDOW + number * WINDOW
        dates = [window - timedelta(weeks=weeks) for weeks in (0, *AGES_IN_WEEKS)]
        possible = [trained for trained in dates if trained >= first_as_of]
        if window in possible and len(possible) > 1:
            windows.append(window)
            for trained in possible:
                models.setdefault(trained, []).append(window)
    return Plan(windows=tuple(windows), models={day: tuple(models[day]) for day in sorted(models)})


def measure_staleness(
    examples: pa.Table,
    *,
    use_case: UseCase,
    inputs: Sequence[Feature],
    as_of: date,
    starts_at: StartsAt,
    n_train_rows: int,
    code_version: str,
    store: ArtifactStore,
    on_step: OnStep,
    work_folder: Path,
) -> StalenessCurve:
    """Train the models of the plan, score their windows, and fit what each age costs.

    Args:
        examples: the labelled examples before the as-of date, as ``examples_sql`` gives them; all are in memory.
        use_case: whose models they are.
        inputs: the columns they read.
        as_of: nothing of this local day or later is used, as a label or else.
        starts_at: the UTC moment at which a local day begins.
        n_train_rows: training rows of each model, at most.
        code_version: of what shapes training sets and models.
        store: keeps the predictions of each model: called again after a kill, it goes on where it was.
        on_step: told of each model before it is trained or read: what it is, its number from 1, how many there are.
        work_folder: for the trainer's own files.

    Raises TrainingDataMissing where no window has a fresh model and an older one.
    """
    table = canonical(examples, inputs)
    refuse_bad_examples(table, as_of)
    present = cast("list[date]", table["partition_on"].unique().to_pylist())
    planned = plan(first_as_of=_first_as_of(present, use_case), as_of=as_of, gap_days=use_case.split.gap_days)
    if not planned.windows:
        raise TrainingDataMissing(
            f"{len(present)} days of {use_case.name} are labelled before {as_of}; a staleness curve takes "
            f"{use_case.split.days_for_whole_parts} for the first model and {WINDOW.days + 7} more at least; "
            "materialize the examples of more days, or measure as of a later date"
        )
    backtest = _Backtest(
        table=table,
        day_hashes={day: content_hash(of_days(table, (day,))) for day in present},
        use_case=use_case,
        inputs=inputs,
        starts_at=starts_at,
        n_train_rows=n_train_rows,
        code_version=code_version,
        store=store,
        work_folder=work_folder,
    )
    predictions: dict[tuple[date, date], Floats] = {}
    for number, (trained, windows) in enumerate(planned.models.items(), start=1):
        on_step(f"the model as of {trained}", number, len(planned.models))
        found, start = backtest.predictions(trained, windows), 0
        for window in windows:
            n_rows = backtest.window(window).num_rows
            predictions[trained, window] = found[start : start + n_rows]
            start += n_rows
    rows = {window: backtest.window(window) for window in planned.windows}
    fingerprint = json_hash([as_of, [backtest.fingerprint(t, w) for t, w in planned.models.items()]])
    return StalenessCurve(
        use_case=use_case.name,
        as_of=as_of,
        fingerprint=fingerprint,
        loss=meaning_of(use_case.task).loss.name,
        headline=headline_of(meaning_of(use_case.task)).name,
        n_models=len(planned.models),
        n_train_rows=n_train_rows,
        window_days=WINDOW.days,
        first_day=planned.windows[0],
        last_day=planned.windows[-1] + WINDOW - timedelta(days=1),
        ages=costs_of_age(rows, predictions, meaning=meaning_of(use_case.task), seed=use_case.seed),
    )


def _first_as_of(present: Sequence[date], use_case: UseCase) -> date:
    """Return the earliest as-of date of which validation and test have their full length."""
    n_needed, days = use_case.split.days_for_whole_parts, sorted(present)
    newest = days[n_needed - 1] if len(days) >= n_needed else date.max - timedelta(days=365)
    return newest + timedelta(days=1 + use_case.split.gap_days)


@dataclass(frozen=True, kw_only=True)
class _Backtest:
    """The examples and settings that all models share; ``day_hashes`` are of the examples of each day."""

    table: pa.Table
    day_hashes: Mapping[date, str]
    use_case: UseCase
    inputs: Sequence[Feature]
    starts_at: StartsAt
    n_train_rows: int
    code_version: str
    store: ArtifactStore
    work_folder: Path

    def window(self, first: date) -> pa.Table:
        """Return the examples of a window."""
        return of_days(self.table, tuple(first + timedelta(days=n) for n in range(WINDOW.days)))

    def split(self, as_of: date) -> Split:
        """Return the days that a training as of a date has."""
        rule = self.use_case.split
        first, until = as_of - timedelta(days=rule.days_back), as_of - timedelta(days=rule.gap_days)
        return split_days([day for day in self.day_hashes if first <= day < until], rule)

    def fingerprint(self, as_of: date, windows: Sequence[date]) -> str:
        """Return the hash of everything that decides what a model predicts for these windows."""
        days = self.split(as_of)
        scored = [window + timedelta(days=n) for window in windows for n in range(WINDOW.days)]
        used = [*days.train, *days.validation, *(day for day in scored if day in self.day_hashes)]
        return json_hash(
            {
                "use_case": self.use_case.name,
                "as_of": as_of,
                "split": days,
                "content": [self.day_hashes[day] for day in used],
                "windows": windows,
                "inputs": self.inputs,
                "hyperparameters": self._hyperparameters,
                "n_train_rows": self.n_train_rows,
                "code_version": self.code_version,
            }
        )

    @property
    def _hyperparameters(self) -> Mapping[str, float | int | str]:
        return trainer_named(self.use_case.trainer).resolve(self.use_case.hyperparameters)

    def predictions(self, as_of: date, windows: Sequence[date]) -> Floats:
        """Return what the model as of a date predicts for its windows, one after the other, trained at most once."""
        path = predictions_path(self.use_case.name, self.fingerprint(as_of, windows))
        n_rows = sum(self.window(window).num_rows for window in windows)
        try:
            kept = pa.ipc.open_file(pa.BufferReader(self.store.get(path))).read_all()
        except (ArtifactMissing, pa.ArrowInvalid):
            kept = None  # not there yet, or damaged: it is written anew
        if kept is not None and kept.num_rows == n_rows:
            return kept["prediction"].to_numpy()
        found = self._train_and_score(as_of, windows)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, pa.schema({"prediction": pa.float64()})) as writer:
            writer.write_table(pa.table({"prediction": found}))
        self.store.put(path, cast("bytes", sink.getvalue().to_pybytes()))
        return found

    def _train_and_score(self, as_of: date, windows: Sequence[date]) -> Floats:
        days = self.split(as_of)
        is_known = pc.field("label_known_at") < pa.scalar(self.starts_at(as_of), pa.timestamp("us", tz="UTC"))
        train, validation = (of_days(self.table, part).filter(is_known) for part in (days.train, days.validation))
        train = train.filter(is_sampled(train["decision_id"], min(1.0, self.n_train_rows / train.num_rows)))
        signature = Signature.of(self.inputs, self.use_case.output)
        vocabulary = Vocabulary.of(train, signature)
        labelled = [
            Labelled(inputs=encode(part, signature, vocabulary), labels=labels_of(part).astype(np.float32))
            for part in (train, validation)
        ]
        refuse_unlearnable(*labelled, task=self.use_case.task)
        trainer = trainer_named(self.use_case.trainer)
        if self.use_case.segments:
            trainer = SegmentedTrainer(trainer, self.use_case.segments)
        fitted = trainer.fit(
            *labelled,
            signature=signature,
            vocabulary=vocabulary,
            hyperparameters=self._hyperparameters,
            seed=self.use_case.seed,
            warm_start=None,
            on_epoch=lambda _number, _metrics: None,
            work_folder=self.work_folder / str(as_of),
        )
        model = fitted.to_onnx()
        scores = [score_coded(model, encode(self.window(window), signature, vocabulary)) for window in windows]
        found = np.concatenate(scores)
        if not np.isfinite(found).all():
            raise BadInput(f"the model of {self.use_case.name} as of {as_of} answers no number on its windows")
        return found
