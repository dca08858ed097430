"""How many models a minute a use case with one model per segment trains, and what they gain and cost.

    python -m benchmarks.segments [--home FOLDER] [--trainers logistic lightgbm lightning] [--by origin carrier dest]

On the flights of ``model_quality`` (trained January to September 2013, tested October to December; ``--home`` shares
its landed year) each trainer is fitted as one model, and with one model per origin, carrier and destination. Beside it
a plain loop over the same segments with the library alone, on the same arrays: what is left to gain. Models a minute
are those fitted, kept or not, on one thread; quality is on the test part. Size and calls (medians) are those of a
graph in which every segment has a model of its own, each as large as the parent: the most that it can come to.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.model_quality import AS_OF, USE_CASE, Clock, Cost, freeze, land_year
from ml_assets.backends.environments import Environment
from ml_assets.core.coded_sets import CodedSet, code_training_set
from ml_assets.core.encoding import Coded, Signature, Vocabulary
from ml_assets.core.evaluation import evaluate
from ml_assets.core.scoring import score_coded
from ml_assets.core.trainers import Hyperparameters, Labelled, trainer_named
from ml_assets.core.trainers.boosting import joined
from ml_assets.core.trainers.lightgbm_trees import LightgbmSettings
from ml_assets.core.trainers.routed_graph import routed
from ml_assets.core.trainers.segmented import SegmentedTrainer
from ml_assets.core.trainers.segments import Segments
from ml_assets.lifecycle import Lifecycle
from ml_assets.resources import feature_views_of

TRAINERS: dict[str, tuple[str, Hyperparameters]] = {
    "logistic": ("sklearn", {"estimator": "logistic_regression"}),
    "lightgbm": ("sklearn", {"estimator": "lightgbm"}),
    "lightning": ("lightning", {}),
}
BY = ("origin", "carrier", "dest")
NO_SEGMENTS = 10**9  # more rows than there are: the parent alone
N_CALLS = 31


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One fit: what it took and gave. ``plain`` is what the library alone took for the same models, if measured.

    ``megabytes`` and the times are those of the graph with a model for every segment.
    """

    fit: Cost
    plain: Cost | None
    n_fitted: int
    n_own: int
    n_segments: int
    roc_auc: float
    log_loss: float
    megabytes: float
    one_row_ms: float
    thousand_rows_ms: float


def measure(name: str, by: str, coded: CodedSet, work: Path, *, is_segmented: bool) -> Measured:
    """Fit, export and score one trainer with segments of one input, or without any."""
    trainer, given = TRAINERS[name]
    segments = Segments(by=by) if is_segmented else Segments(by=by, minimum_rows=NO_SEGMENTS)
    wrapped = SegmentedTrainer(trainer_named(trainer), segments)
    clock = Clock()
    fitted = wrapped.fit(
        coded.train,
        coded.validation,
        signature=coded.signature,
        vocabulary=coded.vocabulary,
        hyperparameters=wrapped.resolve(given),
        seed=USE_CASE.seed,
        warm_start=None,
        on_epoch=lambda _epoch, _metrics: None,
        work_folder=work,
    )
    cost = clock.stop()
    tried = [outcome.value for outcome in fitted.outcomes if outcome.own_loss is not None]
    codes = [coded.vocabulary.codes(by)[value] for value in tried]
    quality = evaluate(coded.test.labels, score_coded(fitted.to_onnx(), coded.test.inputs))
    parent = fitted.parent.to_onnx()
    of_each = dict.fromkeys(coded.vocabulary.codes(by).values(), parent)
    model = routed(parent, of_each, column=fitted.column, cardinality=fitted.cardinality) if is_segmented else parent
    one_row, thousand_rows = (_first(coded.test.inputs, n) for n in (1, 1000))
    return Measured(
        fit=cost,
        plain=plain_loop(name, coded, fitted.column, codes),
        n_fitted=1 + len(tried),
        n_own=len(fitted.own),
        n_segments=len(fitted.outcomes),
        roc_auc=quality.roc_auc or 0.0,
        log_loss=quality.log_loss,
        megabytes=len(model) / 1e6,
        one_row_ms=_median_ms(model, one_row),
        thousand_rows_ms=_median_ms(model, thousand_rows),
    )


def plain_loop(name: str, coded: CodedSet, column: int, codes: Sequence[int]) -> Cost | None:
    """Fit the same models on the same rows with the library and nothing else; None for Lightning, which has no peer."""
    fits: dict[str, Callable[[Labelled, Labelled], None]] = {"logistic": _plain_logistic, "lightgbm": _plain_lightgbm}
    if name not in fits:
        return None
    clock = Clock()
    fits[name](coded.train, coded.validation)
    for code in codes:
        fits[name](*(_of_code(part, column, code) for part in (coded.train, coded.validation)))
    return clock.stop()


def _plain_logistic(train: Labelled, _validation: Labelled) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from threadpoolctl import threadpool_limits

    n_numeric = train.inputs.numeric.shape[1]
    rows = np.hstack([train.inputs.numeric.astype(np.float64), train.inputs.categorical.astype(np.float64)])
    fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    columns = make_column_transformer(
        (make_pipeline(fill, StandardScaler()), list(range(n_numeric))),
        (OneHotEncoder(handle_unknown="ignore"), list(range(n_numeric, rows.shape[1]))),
    )
    with threadpool_limits(1):
        make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(rows, train.labels)


def _plain_lightgbm(train: Labelled, validation: Labelled) -> None:
    import lightgbm

    settings = LightgbmSettings()
    rows = joined(train.inputs)
    classifier = lightgbm.LGBMClassifier(
        n_estimators=settings.n_estimators,
        learning_rate=settings.learning_rate,
        num_leaves=settings.num_leaves,
        min_child_samples=settings.min_child_samples,
        subsample=settings.subsample,
        subsample_freq=1,
        colsample_bytree=settings.colsample_bytree,
        reg_lambda=settings.reg_lambda,
        cat_smooth=settings.cat_smooth,
        random_state=USE_CASE.seed,
        n_jobs=1,
        verbosity=-1,
        deterministic=True,
        force_row_wise=True,
    )
    classifier.fit(
        rows,
        train.labels,
        eval_X=(joined(validation.inputs),),
        eval_y=(validation.labels,),
        categorical_feature=list(range(train.inputs.numeric.shape[1], rows.shape[1])),
        callbacks=[lightgbm.early_stopping(settings.early_stopping_rounds, verbose=False)],
    )


def _of_code(examples: Labelled, column: int, code: int) -> Labelled:
    rows = np.flatnonzero(examples.inputs.categorical[:, column] == code)
    inputs = Coded(numeric=examples.inputs.numeric[rows], categorical=examples.inputs.categorical[rows])
    return Labelled(inputs=inputs, labels=examples.labels[rows])


def _first(inputs: Coded, n_rows: int) -> Coded:
    return Coded(numeric=inputs.numeric[:n_rows], categorical=inputs.categorical[:n_rows])


def _median_ms(model: bytes, rows: Coded) -> float:
    score_coded(model, rows)  # opens the session
    seconds = list[float]()
    for _ in range(N_CALLS):
        started = time.perf_counter()
        score_coded(model, rows)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _print(name: str, by: str, found: Measured) -> None:
    per_minute, per_minute_wall = (60 * found.n_fitted / seconds for seconds in (found.fit.cpu, found.fit.wall))
    ratio = f"{found.fit.cpu / found.plain.cpu:5.2f}" if found.plain else "    -"
    print(
        f"{name:<9} {by:<8} {found.n_fitted:>4}{found.n_own:>4}{found.n_segments:>5} {found.fit.cpu:>6.1f} "
        f"{per_minute:>7.1f} {per_minute_wall:>7.1f} {ratio} {found.roc_auc:>7.4f} {found.log_loss:>7.4f} "
        f"{found.megabytes:>6.2f} {found.one_row_ms:>6.2f} {found.thousand_rows_ms:>7.1f}",
        flush=True,
    )


def run(home: Path, trainers: Sequence[str], inputs_to_segment_by: Sequence[str]) -> None:
    """Print the table for the year landed below ``home``."""
    os.environ |= {"ML_ASSETS_HOME": str(home), "ML_ASSETS_TRACKER": "disabled"}
    environment = Environment.current()
    inputs = USE_CASE.inputs(feature_views_of(environment))
    life = Lifecycle(environment)
    land_year(life)
    training_set = freeze(life, inputs)
    signature = Signature.of(inputs, USE_CASE.output)
    coded = code_training_set(training_set, signature, Vocabulary.of(training_set.train, signature))
    print(f"{len(coded.train.labels):,} flights of train, {len(inputs)} features, as of {AS_OF}\n")
    print(f"{'':18} {'models':^13} {'CPU s':>6} {'models a minute':>15} {'of':>5}{'on the test part':>17}", end="")
    print(f"{'':>7}{'ms of a call':>15}")
    print(f"{'trainer':<9} {'by':<8} {'fit':>4}{'own':>4}{'of':>5} {'':>6} {'CPU':>7} {'wall':>7} plain", end="")
    print(f" {'ROC AUC':>7} {'loss':>7} {'MB':>6} {'1 row':>6} {'1,000':>7}")
    with tempfile.TemporaryDirectory() as work:
        for name in trainers:
            _print(name, "none", measure(name, inputs_to_segment_by[0], coded, Path(work), is_segmented=False))
            for by in inputs_to_segment_by:
                _print(name, by, measure(name, by, coded, Path(work), is_segmented=True))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="keep the landed year in this folder, and use it if it is there")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument("--by", nargs="+", choices=BY, default=list(BY))
    given = parser.parse_args()
    if given.home is not None:
        run(given.home.absolute(), given.trainers, given.by)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), given.trainers, given.by)
    return 0


if __name__ == "__main__":
    sys.exit(main())
