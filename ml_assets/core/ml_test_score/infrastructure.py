"""The seven tests of the infrastructure that trains, releases and serves."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core import registry
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.encoding import Coded, Input, encode
from ml_assets.core.errors import AlreadyExists
from ml_assets.core.evaluation import Floats, evaluate
from ml_assets.core.ml_test_score.findings import Finding, RubricTest, automated, listed
from ml_assets.core.ml_test_score.subject import Subject
from ml_assets.core.monitored import DRIFT, PERFORMANCE
from ml_assets.core.package import load_package
from ml_assets.core.parity import LARGEST_PARITY_DIFFERENCE
from ml_assets.core.portable_parity import LARGEST_PORTABLE_DIFFERENCE
from ml_assets.core.ports import ArtifactStore, StoredFile
from ml_assets.core.promotion import GATES
from ml_assets.core.regression import evaluate_regression
from ml_assets.core.scoring import score, score_coded, score_portable
from ml_assets.core.trace import trace
from ml_assets.core.trainers import Labelled, trainer_named

_SERVING_GATES = ("model_size", "one_row_latency", "thousand_rows_latency", "parity")
# Judgement: enough for trees with leaves of hundreds of rows, few enough for seconds.
_PROBE_ROWS, _PROBE_HELD_OUT = 6000, 2000
_LEARNT_ROC_AUC, _LEARNT_R2 = 0.8, 0.3
_ROLLBACK_SECONDS = 60.0


def training_is_reproducible(subject: Subject) -> Finding:
    """Rebuild training set and model of the champion from the record, and compare to the bit."""
    version = subject.in_charge.version
    found = subject.bench.reproduce(version)
    differing = [finding for finding in found.findings if not finding.is_identical and not finding.is_cause]
    causes = [finding.what for finding in found.findings if not finding.is_identical and finding.is_cause]
    if differing:
        words = [f"{one.what}: {one.recorded} is rebuilt as {one.rebuilt}" for one in differing]
        why = f"; what has changed since: {', '.join(causes)}" if causes else ""
        return automated(False, f"{version} cannot be made again: {listed(words)}{why}")
    n_checked = sum(not finding.is_cause for finding in found.findings)
    return automated(
        True, f"{version} was rebuilt from its record: its training set and all its files agree in {n_checked} hashes"
    )


def spec_learns(subject: Subject) -> Finding:
    """Let the declared trainer learn a planted rule on a few rows, and compare its ONNX graph with itself."""
    use_case, package = subject.use_case, subject.champion
    trainer = trainer_named(use_case.trainer)
    column = _most_telling(subject.training_set.train.slice(0, _PROBE_ROWS), package.signature.numeric)
    parts = [
        _planted(
            encode(rows, package.signature, package.vocabulary), column, is_classification=_is_classification(subject)
        )
        for rows in (
            subject.training_set.train.slice(0, _PROBE_ROWS),
            subject.training_set.validation.slice(0, _PROBE_HELD_OUT),
        )
    ]
    with tempfile.TemporaryDirectory(dir=subject.bench.work_folder) as folder:
        fitted = trainer.fit(
            *parts,
            signature=package.signature,
            vocabulary=package.vocabulary,
            hyperparameters=trainer.resolve(use_case.hyperparameters),
            seed=use_case.seed,
            warm_start=None,
            on_epoch=lambda _number, _metrics: None,
            work_folder=Path(folder),
        )
        answers = fitted.predict(parts[1].inputs)
        apart = float(np.max(np.abs(score_coded(fitted.to_onnx(), parts[1].inputs) - answers)))
    learnt, least, words = _learnt(parts[1].labels, answers, is_classification=_is_classification(subject))
    return automated(
        learnt >= least and apart <= LARGEST_PARITY_DIFFERENCE,
        f"trained as declared on {len(parts[0].labels):,} rows whose label was replaced by a rule on "
        f"{package.signature.numeric[column].name}, the model reaches {words} {learnt:.3f} on other days (at least "
        f"{least:g}); its ONNX graph differs by {apart:.1g}",
    )


def pipeline_is_whole(subject: Subject) -> Finding:
    """Count through every stage of the days served: decisions, examples, predictions, and what watches them."""
    decisions, examples = (
        subject.n_rows_by_day(table) for table in (subject.use_case.decisions.table, subject.use_case.examples_table)
    )
    predicted = Counter[date]()
    for one in subject.predicted:
        predicted[one.day] += one.n_rows
    watched = {name: set(subject.monitored(name)["partition_on"].to_pylist()) for name in (DRIFT, PERFORMANCE)}
    broken: list[str] = []
    for day in DayRange(first=min(predicted), last=max(predicted)).dates:
        counts = decisions.get(day, 0), examples.get(day, 0), predicted[day]
        if len(set(counts)) > 1:
            broken.append(f"{day} has {counts[0]:,} decisions, {counts[1]:,} examples and {counts[2]:,} predictions")
        broken += [
            f"{day} has no row in {name}" for name, days in watched.items() if predicted[day] and day not in days
        ]
    if broken:
        return automated(False, listed(broken))
    return automated(
        True,
        f"on {len(predicted)} days to {subject.newest_day} every one of {predicted.total():,} decisions has its "
        "example and its prediction, and every day its drift and its quality",
    )


def quality_is_validated(subject: Subject) -> Finding:
    """Hold every version that predicted against the ledger: promoted before, with every gate, each passed."""
    promoted = {entry.version: entry for entry in subject.ledger if entry.action == "promote"}
    expected = GATES[subject.use_case.task]
    broken: list[str] = []
    first: dict[str, datetime] = {}
    for one in subject.predicted:
        first[one.version] = min(one.first_predicted_at, first.get(one.version, one.first_predicted_at))
    for version, predicted_at in first.items():
        entry = promoted.get(version)
        if entry is None:
            broken.append(f"{version} predicted and was never promoted")
            continue
        gates = {gate.name: gate.is_passed for gate in entry.gates}
        broken += [f"{version} was promoted without the gate {name}" for name in expected if name not in gates]
        broken += [
            f"{version} was promoted though it failed {name}" for name, is_passed in gates.items() if not is_passed
        ]
        if entry.recorded_at > predicted_at:
            broken.append(f"{version} predicted before it was promoted")
    refused = [entry for entry in subject.ledger if entry.action == "refuse" and entry.as_of <= subject.day]
    if broken:
        return automated(False, listed(broken))
    return automated(
        True,
        f"{', '.join(first)} predicted after passing all {len(expected)} gates of "
        f"{subject.use_case.task.replace('_', ' ')}; {len(refused)} candidates were refused so far",
    )


def model_is_debuggable(subject: Subject) -> Finding:
    """Trace one prediction of the newest day to its raw rows, step by step, and make it again to the bit."""
    decision = cast("str", subject.predictions["decision_id"][0].as_py())
    with subject.warehouse.session():
        found = trace(
            subject.warehouse,
            subject.store,
            subject.use_case,
            decision,
            views=subject.views,
            lineage=subject.bench.lineage,
        )
    n_raw = len({origin.table for view in found.views for source in view.sources for origin in source.origins})
    n_features = sum(len(view.features) for view in found.views)
    is_held = found.replay.is_identical and not found.training_set.has_decision and n_raw > 0
    verb = "is the same to the bit" if found.replay.is_identical else f"is {found.replay.replayed!r} when made again"
    return automated(
        is_held,
        f"{decision} was traced through {n_features} features of {len(found.views)} views to rows of {n_raw} raw "
        f"tables; its prediction {found.replay.prediction!r} {verb}"
        + ("; the decision is in the training set of its own model" if found.training_set.has_decision else ""),
    )


def canary_is_sound(subject: Subject) -> Finding:
    """Score the newest day again by both graphs of the package as serving loads it, beside what was served."""
    package, examples = subject.champion, subject.examples
    gates = {gate.name: gate for gate in subject.promotion.gates}
    broken = [f"{package.version} was promoted without the gate {name}" for name in _SERVING_GATES if name not in gates]
    broken += [gates[name].detail for name in _SERVING_GATES if name in gates and not gates[name].is_passed]
    served = subject.predictions.filter(pc.field("model_version") == package.version)
    again = _beside(examples, score(package, examples), served)
    portable = _beside(examples, score_portable(package.portable, examples, package.signature), served)
    stored = np.asarray(served["prediction"].to_numpy(), np.float64)
    scale = max(1.0, float(np.std(stored)) if len(stored) else 1.0)
    if not len(stored):
        broken.append(f"nothing of {subject.newest_day} was served by {package.version}")
    else:
        for name, answers in (("the coded graph", again), ("the portable graph", portable)):
            apart = float(np.max(np.abs(answers - stored))) / scale
            if not apart <= LARGEST_PORTABLE_DIFFERENCE:
                broken.append(
                    f"{name} of {package.version} differs by {apart:.2g} from what was served on {subject.newest_day}"
                )
    if broken:
        return automated(False, listed(broken))
    return automated(
        True,
        f"before it took over, {package.version} was run by ONNX Runtime on its holdout ({', '.join(_SERVING_GATES)} "
        f"passed); loaded anew, its coded and its portable graph give the {len(stored):,} answers served on "
        f"{subject.newest_day}",
    )


def rollback_works(subject: Subject) -> Finding:
    """Rehearse a rollback on a copy of the ledger, and let the version before score the newest day."""
    started = subject.bench.clock()
    rehearsed = _Rehearsal(subject.store)
    entry = registry.rollback(
        rehearsed,
        subject.use_case.name,
        effective_from=subject.day,
        reason="rehearsed by the ML Test Score",
        recorded_at=day_starts_at(subject.day),
        recorded_by="ml_test_score",
    )
    before = load_package(subject.store, subject.use_case.name, entry.version, expected_hash=entry.package_hash)
    answers = score(before, subject.examples)
    seconds = subject.bench.clock() - started
    return automated(
        seconds <= _ROLLBACK_SECONDS,
        f"rehearsed on a copy of the ledger: {entry.version} is in charge again, its package is whole, and it scores "
        f"the {len(answers):,} decisions of {subject.newest_day}, all within {_ROLLBACK_SECONDS:.0f} s",
    )


TESTS: tuple[RubricTest[Subject], ...] = (
    RubricTest(
        section="infrastructure",
        number=1,
        name="Training is reproducible",
        how="The champion's training set is frozen again from the tables and its model trained again: all "
        "hashes agree.",
        fault="a label of a day it was trained on is changed in the examples",
        check=training_is_reproducible,
    ),
    RubricTest(
        section="infrastructure",
        number=2,
        name="Model specs are unit tested",
        how=f"The declared trainer learns a planted rule from {_PROBE_ROWS:,} rows, and its ONNX graph says "
        f"what it says.",
        fault="a trainer that looks at nothing and answers the mean",
        check=spec_learns,
    ),
    RubricTest(
        section="infrastructure",
        number=3,
        name="The ML pipeline is integration tested",
        how="On every day served each decision has one example and one prediction, and each day its drift and quality.",
        fault="some predictions of a day are lost",
        hands="`make test` runs the whole graph on two weeks of flights, and after a kill at any point; it asks "
        "nobody.",
        check=pipeline_is_whole,
    ),
    RubricTest(
        section="infrastructure",
        number=4,
        name="Model quality is validated before serving",
        how="Every version that predicted in four weeks was promoted before, with every gate of its task, each "
        "of them passed.",
        fault="a version serves that no gate has seen",
        check=quality_is_validated,
    ),
    RubricTest(
        section="infrastructure",
        number=5,
        name="The model is debuggable",
        how="One prediction of the newest day is traced to its raw rows, and made again to the bit.",
        fault="a stored prediction is changed by a hair",
        check=model_is_debuggable,
    ),
    RubricTest(
        section="infrastructure",
        number=6,
        name="Models are canaried before serving",
        how="Before it took over the model was run by the runtime that serves it (size, times, parity), and "
        "loaded anew its two graphs give every answer that was served on the newest day.",
        fault="the portable graph in the package is that of another model",
        hands="No share of live traffic goes to a candidate first: whole days are scored at once, and again "
        "after a rollback.",
        check=canary_is_sound,
    ),
    RubricTest(
        section="infrastructure",
        number=7,
        name="Serving models can be rolled back",
        how="A rollback is rehearsed on a copy of the ledger; the version before loads and scores the newest "
        "day in a minute.",
        fault="the package of the version before is gone",
        check=rollback_works,
    ),
)


@dataclass(frozen=True)
class _Rehearsal(ArtifactStore):
    """A store of which nothing changes: what is written lies in memory, what is read comes from there first.

    ``describe`` and ``address`` are those of the real store, so that no package is to be recalled from here.
    """

    real: ArtifactStore
    written: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def n_reads_at_once(self) -> int:
        return self.real.n_reads_at_once

    def put(self, path: str, content: bytes) -> None:
        self.written[path] = content

    def create(self, path: str, content: bytes) -> None:
        if self.exists(path):
            raise AlreadyExists(f"{path} is there")
        self.written[path] = content

    def get(self, path: str) -> bytes:
        return self.written[path] if path in self.written else self.real.get(path)

    def size(self, path: str) -> int:
        return len(self.written[path]) if path in self.written else self.real.size(path)

    def exists(self, path: str) -> bool:
        return path in self.written or self.real.exists(path)

    def list(self, prefix: str) -> Sequence[str]:
        own = {path for path in self.written if path.startswith(f"{prefix}/")}
        return sorted(own.union(self.real.list(prefix)))

    def describe(self, prefix: str) -> Sequence[StoredFile]:
        return self.real.describe(prefix)

    def delete(self, path: str) -> None:
        raise NotImplementedError("a rehearsal removes nothing")

    def address(self, path: str) -> str:
        return self.real.address(path)


def _is_classification(subject: Subject) -> bool:
    return subject.use_case.task == "binary_classification"


def _most_telling(rows: pa.Table, numeric: Sequence[Input]) -> int:
    """Return the place of the number with the most different values among these rows, few of them null."""

    def n_values(name: str) -> int:
        return 0 if rows[name].null_count > rows.num_rows // 20 else len(rows[name].unique())

    return max(range(len(numeric)), key=lambda place: n_values(numeric[place].name))


def _planted(inputs: Coded, column: int, *, is_classification: bool) -> Labelled:
    """Return the rows with labels that one number alone decides."""
    values = np.nan_to_num(inputs.numeric[:, column])
    middle = float(np.median(values))
    labels = values > middle if is_classification else (values - middle) / (float(np.std(values)) or 1.0)
    return Labelled(inputs=inputs, labels=np.asarray(labels, np.float32))


def _learnt(labels: Floats, answers: Floats, *, is_classification: bool) -> tuple[float, float, str]:
    """Return how much of the planted rule was learnt, the least that is asked for, and the name of the measure."""
    if is_classification:
        return evaluate(labels, answers).roc_auc or 0.0, _LEARNT_ROC_AUC, "ROC AUC"
    return evaluate_regression(labels, answers).r2 or 0.0, _LEARNT_R2, "R2"


def _beside(examples: pa.Table, answers: Floats, served: pa.Table) -> Floats:
    """Return the answers to the decisions that were served, in their order; NaN for one without an example."""
    of = dict(zip(examples["decision_id"].to_pylist(), answers.tolist(), strict=True))
    return np.array([of.get(decision, np.nan) for decision in served["decision_id"].to_pylist()], np.float64)
