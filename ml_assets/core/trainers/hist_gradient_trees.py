"""scikit-learn's histogram gradient boosting behind the sklearn trainer: settings, fit, trees as plain data.

The trees are read from private attributes, for there are no public ones: the parity gate compares what was read with
the classifier itself, and a scikit-learn that changes them fails the tests.
"""

# pyright: reportPrivateUsage=false, reportOptionalMemberAccess=false
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from msgspec import Meta

from ml_assets.core.encoding import Task
from ml_assets.core.errors import BadInput
from ml_assets.core.trainers import Labelled, OnEpoch, versions_of
from ml_assets.core.trainers.boosting import CentredLabels, FittedTrees, Rounds, joined
from ml_assets.core.trainers.refusals import refuse_nan_loss
from ml_assets.core.trainers.tree_ensemble import Node, TreeEnsemble

_MOST_CATEGORIES = 255  # of the library


class _Predictor(Protocol):
    """One fitted tree: ``nodes`` is a structured array, each row of ``raw_left_cat_bitsets`` a set of 256 bits."""

    nodes: np.ndarray
    raw_left_cat_bitsets: np.ndarray


@dataclass(frozen=True, kw_only=True)
class HistGradientBoostingSettings:
    """The hyperparameters by scikit-learn's names; ``max_iter`` is the most trees there can be.

    Validation chooses how many are kept: training stops once its loss has not fallen for ``n_iter_no_change``
    rounds. The defaults are judgement.
    """

    max_iter: Annotated[int, Meta(ge=1, le=10_000)] = 500
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.05
    max_leaf_nodes: Annotated[int, Meta(ge=2, le=4096)] = 31
    min_samples_leaf: Annotated[int, Meta(ge=1)] = 20
    l2_regularization: Annotated[float, Meta(ge=0)] = 1.0
    max_features: Annotated[float, Meta(gt=0, le=1)] = 0.8
    n_iter_no_change: Annotated[int, Meta(ge=1)] = 30

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        cardinalities: Sequence[int],
        seed: int,
        on_epoch: OnEpoch,
        task: Task,
    ) -> FittedTrees:
        """Fit histogram gradient boosting for this task on train with as many trees as validation likes best.

        Raises BadInput for a column with more than 255 categories.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        _refuse_many_categories(train.inputs.categorical)
        n_numeric = train.inputs.numeric.shape[1]
        is_categorical = [False] * n_numeric + [True] * len(cardinalities)
        options: dict[str, Any] = {
            **asdict(self),
            "categorical_features": is_categorical if cardinalities else None,
            "early_stopping": True,
        }
        is_regression = task == "regression"
        labels = CentredLabels.of(train.labels, validation.labels, task=task)
        kind = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
        model = kind(**options, scoring="loss", tol=0.0, random_state=seed)
        rows = joined(train.inputs)
        # The library fails on a column without any number; on a constant one it never splits.
        rows[:, np.isnan(rows).all(axis=0)] = 0.0
        with threadpool_limits(1):
            model.fit(rows, labels.train, X_val=joined(validation.inputs), y_val=labels.validation)
        rounds = Rounds(on_epoch=on_epoch)
        # Both scores are negative: log losses, or halves of mean squared errors. They begin with those of no tree.
        losses = -np.stack([model.train_score_[1:], model.validation_score_[1:]], axis=1)
        for train_loss, validation_loss in (np.sqrt(2 * losses) if is_regression else losses).tolist():
            rounds.add(train_loss, validation_loss)
        refuse_nan_loss(rounds.epochs, hyperparameters=asdict(self), task=task)
        n_trees = 1 + int(np.argmax(model.validation_score_[1:]))
        model._predictors = model._predictors[:n_trees]
        known = model._preprocessor.named_transformers_["encoder"].categories_ if cardinalities else []
        ensemble = TreeEnsemble(
            trees=[_nodes(predictors[0], n_numeric, known, cardinalities) for predictors in model._predictors],
            base=float(model._baseline_prediction.item()) + labels.mean,
            comparison="<=",
            n_numeric=n_numeric,
            cardinalities=cardinalities,
            task=task,
        )

        def answer(rows: np.ndarray) -> np.ndarray:
            with threadpool_limits(1):
                if isinstance(model, HistGradientBoostingClassifier):
                    return model.predict_proba(rows)[:, 1]
                return model.predict(rows) + labels.mean

        return FittedTrees(
            ensemble=ensemble,
            answer=answer,
            history=tuple(rounds.epochs),
            libraries=versions_of("scikit-learn"),
        )


def _refuse_many_categories(categorical: np.ndarray) -> None:
    for column in range(categorical.shape[1]):
        n_codes = len(np.unique(categorical[:, column]))
        if n_codes > _MOST_CATEGORIES:
            raise BadInput(
                f"categorical input {column} has {n_codes} categories in train; hist_gradient_boosting takes at most "
                f"{_MOST_CATEGORIES}; choose estimator lightgbm or xgboost, or leave the input out"
            )


def _nodes(
    predictor: _Predictor, n_numeric: int, known: Sequence[np.ndarray], cardinalities: Sequence[int]
) -> Sequence[Node]:
    """Return the nodes of a tree. The library has moved the m categorical columns before the numeric ones."""
    nodes = list[Node]()
    for node in predictor.nodes:
        moved = int(node["feature_idx"])
        is_categorical = moved < len(cardinalities)
        column = n_numeric + moved if is_categorical else moved - len(cardinalities)
        left, right, is_null_left = int(node["left"]), int(node["right"]), bool(node["missing_go_to_left"])
        if node["is_leaf"]:
            nodes.append(Node(value=float(node["value"])))
        elif is_categorical:
            words = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
            codes = {int(c) for n, c in enumerate(known[moved]) if int(words[n // 32]) >> (n % 32) & 1}
            if is_null_left:
                # The library takes a category that train did not have for a null.
                codes |= set(range(cardinalities[moved])) - {int(code) for code in known[moved]}
            nodes.append(Node(column=column, codes=frozenset(codes), left=left, right=right))
        else:
            nodes.append(
                Node(
                    column=column,
                    threshold=float(node["num_threshold"]),
                    is_null_left=is_null_left,
                    left=left,
                    right=right,
                )
            )
    return nodes
