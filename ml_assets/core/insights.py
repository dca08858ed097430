"""What a model package leans on and how: its importances and partial dependences on a bounded sample of the holdout."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ml_assets.core.encoding import Coded, Output, encode
from ml_assets.core.evaluation import Floats
from ml_assets.core.importance import LOSSES, METRICS, N_REPEATS, Importances, permutation_importance
from ml_assets.core.labelled_examples import is_sampled
from ml_assets.core.package import ModelPackage
from ml_assets.core.partial_dependence import PartialDependence, partial_dependence
from ml_assets.core.scoring import score_coded
from ml_assets.core.training_sets import TrainingSet

# Judgement, for a few seconds of CPU whatever the size of the holdout: how many rows the model is asked in all.
_MOST_SCORED = 500_000
_N_CURVES = 6
_CURVE_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class Insights:
    """What a model leans on: of features and views, and the curves of the features it leans on most.

    ``output`` is what it answers; the curves are in its unit.
    """

    output: Output
    importances: Importances
    curves: tuple[PartialDependence, ...]


def insights_on(
    package: ModelPackage,
    training_set: TrainingSet,
    *,
    seed: int,
    most_scored: int = _MOST_SCORED,
) -> Insights:
    """Explain a package on its holdout, of which a sample by hash is taken where it is large.

    ``most_scored`` bounds how many rows are scored for the importances.
    """
    signature = package.signature
    n_columns = len(signature.numeric) + len(signature.categorical)
    n_views = len({column.view for column in (*signature.numeric, *signature.categorical)})
    judged = _sampled(training_set.test, most_scored // ((n_columns + n_views) * N_REPEATS + 1))
    inputs = encode(judged, signature, package.vocabulary)

    def predict(rows: Coded) -> Floats:
        return score_coded(package.model, rows)

    importances = permutation_importance(
        predict,
        inputs,
        judged["label"].to_numpy().astype(np.float64),
        judged["partition_on"].to_numpy(),
        signature=signature,
        losses=LOSSES[signature.output.task],
        metric=METRICS[signature.output.task],
        seed=seed,
    )
    train = encode(training_set.train, signature, package.vocabulary)
    background = encode(_sampled(training_set.test, _CURVE_ROWS), signature, package.vocabulary)
    return Insights(
        output=signature.output,
        importances=importances,
        curves=tuple(
            partial_dependence(
                predict,
                background,
                feature=found.name,
                train=train,
                signature=signature,
                vocabulary=package.vocabulary,
            )
            for found in importances.features[:_N_CURVES]
        ),
    )


def _sampled(rows: pa.Table, n_rows: int) -> pa.Table:
    """Return about ``n_rows`` of the rows, chosen by the hash of the decision: all where there are no more."""
    if rows.num_rows <= n_rows:
        return rows
    return rows.filter(is_sampled(rows["decision_id"], n_rows / rows.num_rows))
