"""One training as of a day, from the examples known then to the ledger: what the assets of training do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pyarrow as pa

from ml_assets.core import promotion, registry, training_sets
from ml_assets.core.candidates import TrainedCandidate, train_candidate
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.days import day_starts_at
from ml_assets.core.encoding import Coded, encode
from ml_assets.core.experiments import ExperimentLog, track_decision
from ml_assets.core.feature_views import Feature
from ml_assets.core.holdout import evidence_on
from ml_assets.core.package import ModelPackage
from ml_assets.core.ports import ArtifactStore, Tracker, Warehouse
from ml_assets.core.promotion import Evidence, ServingCost, Verdict
from ml_assets.core.registry import Decision, LedgerEntry
from ml_assets.core.scoring import score_coded
from ml_assets.core.spec import UseCase
from ml_assets.core.trainers import OnEpoch
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.trainings import champion_before

# Judgement: enough calls that one interrupted by another process does not move the median.
_N_ONE_ROW_CALLS, _N_THOUSAND_ROW_CALLS = 21, 5


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What trainings need beside examples and store, the same for all of a use case.

    Attributes:
        inputs: the columns its model reads, as ``use_case.inputs`` gives them.
        tracker: which experiment tracker is told.
        code_version: of the source that shapes training sets and models.
        work_folder: where a trainer that keeps checkpoints keeps them.
        records: where coded training sets are kept on this machine.
        now: the clock by which the ledger says when something was decided; UTC.
        experiments: where attempts are recorded, if anywhere.
        on_epoch: is told of the progress of a fit.
    """

    inputs: Sequence[Feature]
    tracker: Tracker
    code_version: str
    work_folder: Path
    records: RecordsFolder | None
    now: Callable[[], datetime]
    experiments: ExperimentLog | None = None
    on_epoch: OnEpoch = lambda _number, _metrics: None


@dataclass(frozen=True, kw_only=True)
class JudgedCandidate:
    """A candidate held against all gates, and against what; ``champion`` is None where nobody was in charge."""

    training_set: TrainingSet
    trained: TrainedCandidate
    champion: ModelPackage | None
    evidence: Evidence
    verdict: Verdict


def train_and_promote(
    warehouse: Warehouse, store: ArtifactStore, use_case: UseCase, as_of: date, *, workshop: Workshop
) -> LedgerEntry:
    """Freeze, fit, judge and record as of a day; return the ledger entry, whose action says what came of it.

    Called again it finds training set, package and decision there and changes nothing. Raises TrainingDataMissing where
    too little is known by then.
    """
    training_set = freeze_known(
        warehouse, store, use_case, as_of, inputs=workshop.inputs, code_version=workshop.code_version
    )
    judged = fit_and_judge(store, use_case, training_set, workshop=workshop)
    known = registry.decision_on(registry.entries(store, use_case.name), judged.trained.package.version, as_of)
    return known or record_verdict(
        store, use_case, judged.trained.package, judged.verdict, tracker=workshop.tracker, recorded_at=workshop.now()
    )


def freeze_known(
    warehouse: Warehouse,
    store: ArtifactStore,
    use_case: UseCase,
    as_of: date,
    *,
    inputs: Sequence[Feature],
    code_version: str,
    sample_fraction: float = 1.0,
) -> TrainingSet:
    """Freeze the examples whose label was known before the as-of date began; see ``training_sets.freeze``."""
    examples = warehouse.query(
        training_sets.examples_sql(use_case, inputs, warehouse.dialect),
        training_sets.examples_parameters(use_case, as_of, day_starts_at(as_of)),
    )
    return training_sets.freeze(
        examples,
        use_case=use_case,
        inputs=inputs,
        as_of=as_of,
        sample_fraction=sample_fraction,
        code_version=code_version,
        store=store,
    )


def fit_and_judge(
    store: ArtifactStore,
    use_case: UseCase,
    training_set: TrainingSet,
    *,
    workshop: Workshop,
    is_warm_started: bool = True,
) -> JudgedCandidate:
    """Fit a candidate on a training set, hold it against every gate, and record it where it may not serve."""
    champion = champion_before(store, use_case.name, training_set.as_of)
    trained = train_candidate(
        training_set,
        use_case=use_case,
        inputs=workshop.inputs,
        store=store,
        tracker=workshop.tracker,
        code_version=workshop.code_version,
        parent=champion if is_warm_started else None,
        on_epoch=workshop.on_epoch,
        work_folder=workshop.work_folder,
        records=workshop.records,
        experiments=workshop.experiments,
    )
    evidence = evidence_of(trained.package, champion, training_set, use_case)
    verdict = verdict_on(trained.package, evidence, training_set, use_case)
    if not verdict.is_promotable:
        entry = registry.refuse(store, **_decision(trained.package, verdict, use_case, workshop.now()))
        if not trained.is_reused:
            track_decision(workshop.tracker, entry, store)
    return JudgedCandidate(
        training_set=training_set, trained=trained, champion=champion, evidence=evidence, verdict=verdict
    )


def evidence_of(
    package: ModelPackage, champion: ModelPackage | None, training_set: TrainingSet, use_case: UseCase
) -> Evidence:
    """Measure a candidate on the holdout of its training set beside the champion and the baselines."""
    return evidence_on(package, champion, training_set, use_case, as_of_at=day_starts_at(training_set.as_of))


def verdict_on(package: ModelPackage, evidence: Evidence, training_set: TrainingSet, use_case: UseCase) -> Verdict:
    """Hold a candidate against all gates, with what its calls take on this machine."""
    return promotion.judge(evidence, cost=_serving_cost(package, training_set.test), rule=use_case.promotion)


def record_verdict(
    store: ArtifactStore,
    use_case: UseCase,
    package: ModelPackage,
    verdict: Verdict,
    *,
    tracker: Tracker,
    recorded_at: datetime,
) -> LedgerEntry:
    """Write what the gates decided into the ledger (promoted, waits for a person, refused), and tell the tracker."""
    decision = _decision(package, verdict, use_case, recorded_at)
    if verdict.is_promotable:
        entry = registry.promote(store, **decision, needs_approval=use_case.promotion.needs_approval)
    else:
        entry = registry.refuse(store, **decision)
    track_decision(tracker, entry, store)
    return entry


def _decision(package: ModelPackage, verdict: Verdict, use_case: UseCase, recorded_at: datetime) -> Decision:
    return {
        "use_case": use_case.name,
        "version": package.version,
        "package_hash": package.package_hash,
        "effective_from": package.as_of,
        "as_of": package.as_of,
        "reason": verdict.summary,
        "gates": verdict.gates,
        "recorded_at": recorded_at,
        "recorded_by": "gates",
    }


def _serving_cost(package: ModelPackage, holdout: pa.Table) -> ServingCost:
    """Measure the ONNX calls that serving makes; a holdout of fewer than 1,000 rows is repeated."""
    rows = encode(holdout.take(np.arange(1000) % holdout.num_rows), package.signature, package.vocabulary)
    one_row = Coded(numeric=rows.numeric[:1], categorical=rows.categorical[:1])
    score_coded(package.model, one_row)  # opens the session
    return ServingCost(
        model_bytes=len(package.model),
        one_row_ms=_median_ms(package.model, one_row, _N_ONE_ROW_CALLS),
        thousand_rows_ms=_median_ms(package.model, rows, _N_THOUSAND_ROW_CALLS),
        n_models=1 + sum(segment.has_own_model for segment in package.metrics.segments),
    )


def _median_ms(model: bytes, rows: Coded, n_calls: int) -> float:
    seconds: list[float] = []
    for _ in range(n_calls):
        started = perf_counter()
        score_coded(model, rows)
        seconds.append(perf_counter() - started)
    return median(seconds) * 1000
