"""XGBoost behind the sklearn trainer: its settings, its fit, and its trees as plain data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from ml_assets.core.encoding import Task
from ml_assets.core.trainers import Labelled, OnEpoch
from ml_assets.core.trainers.boosting import CentredLabels, FittedTrees, Rounds, joined
from ml_assets.core.trainers.refusals import refuse_nan_loss
from ml_assets.core.trainers.tree_ensemble import Node, TreeEnsemble

_LARGEST = np.finfo(np.float32).max


class _Tree(msgspec.Struct):
    """A tree as XGBoost writes it: one entry per node, in a leaf ``split_conditions`` is its value."""

    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]
    default_left: list[int]
    split_type: list[int]
    categories: list[int]
    categories_nodes: list[int]
    categories_segments: list[int]
    categories_sizes: list[int]


class _Trees(msgspec.Struct):
    trees: list[_Tree]


class _Booster(msgspec.Struct):
    model: _Trees


class _Learner(msgspec.Struct):
    gradient_booster: _Booster
    learner_model_param: dict[str, str]


class _Document(msgspec.Struct):
    learner: _Learner


@dataclass(frozen=True, kw_only=True)
class XgboostSettings:
    """The hyperparameters by XGBoost's names; ``n_estimators`` is the most trees there can be.

    Validation chooses how many are kept: training stops once its loss has not fallen for ``early_stopping_rounds``.
    The defaults are judgement.
    """

    n_estimators: Annotated[int, Meta(ge=1, le=10_000)] = 500
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.05
    max_depth: Annotated[int, Meta(ge=1, le=16)] = 6
    min_child_weight: Annotated[float, Meta(ge=0)] = 5.0
    subsample: Annotated[float, Meta(gt=0, le=1)] = 0.9
    colsample_bytree: Annotated[float, Meta(gt=0, le=1)] = 0.8
    reg_lambda: Annotated[float, Meta(ge=0)] = 1.0
    early_stopping_rounds: Annotated[int, Meta(ge=1)] = 30

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
        """Fit an XGBClassifier or XGBRegressor on train with as many trees as validation likes best."""
        import xgboost
        from xgboost.callback import TrainingCallback

        rounds = Rounds(on_epoch=on_epoch)
        is_regression = task == "regression"
        metric = "rmse" if is_regression else "logloss"

        class Record(TrainingCallback):
            def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: TrainingCallback.EvalsLog) -> bool:
                rounds.add(_last(evals_log["validation_0"][metric]), _last(evals_log["validation_1"][metric]))
                return False

        n_numeric = train.inputs.numeric.shape[1]
        labels = CentredLabels.of(train.labels, validation.labels, task=task)
        model = (xgboost.XGBRegressor if is_regression else xgboost.XGBClassifier)(
            **asdict(self),
            tree_method="hist",
            enable_categorical=True,
            feature_types=["q"] * n_numeric + ["c"] * len(cardinalities),
            eval_metric=metric,
            random_state=seed,
            n_jobs=1,
            callbacks=[Record()],
        )
        x_train, x_validation = _finite(joined(train.inputs)), _finite(joined(validation.inputs))
        model.fit(
            x_train,
            labels.train,
            eval_set=[(x_train, labels.train), (x_validation, labels.validation)],
            verbose=False,
        )
        refuse_nan_loss(rounds.epochs, hyperparameters=asdict(self), task=task)
        document = model.get_booster()[: model.best_iteration + 1].save_raw("json")
        learner = msgspec.json.decode(bytes(document), type=_Document).learner
        start = float(learner.learner_model_param["base_score"].strip("[]"))
        ensemble = TreeEnsemble(
            trees=[_nodes(tree) for tree in learner.gradient_booster.model.trees],
            base=start + labels.mean if is_regression else float(np.log(start / (1 - start))),
            comparison="<",
            n_numeric=n_numeric,
            cardinalities=cardinalities,
            task=task,
        )

        def answer(rows: np.ndarray) -> np.ndarray:
            if isinstance(model, xgboost.XGBClassifier):
                return model.predict_proba(_finite(rows))[:, 1]
            return model.predict(_finite(rows)).astype(np.float64) + labels.mean

        return FittedTrees(
            ensemble=ensemble,
            answer=answer,
            history=tuple(rounds.epochs),
            libraries={"xgboost": xgboost.__version__},  # its distribution is xgboost or xgboost-cpu
        )


def _last(losses: Sequence[float] | Sequence[tuple[float, float]]) -> float:
    """Return the newest loss; a pair has its spread as well, which only cross-validation gives."""
    last = losses[-1]
    return last[0] if isinstance(last, tuple) else last


def _finite(rows: np.ndarray) -> np.ndarray:
    """Return rows with the largest float32 for infinity, which XGBoost refuses; no threshold lies between the two."""
    return np.clip(rows, -_LARGEST, _LARGEST)


def _nodes(tree: _Tree) -> Sequence[Node]:
    segments = zip(tree.categories_nodes, tree.categories_segments, tree.categories_sizes, strict=True)
    chosen = {node: frozenset(tree.categories[start : start + size]) for node, start, size in segments}
    nodes = list[Node]()
    for position, (left, right) in enumerate(zip(tree.left_children, tree.right_children, strict=True)):
        condition = float(np.float32(tree.split_conditions[position]))
        if left < 0:
            nodes.append(Node(value=condition))
        elif tree.split_type[position]:
            # The categories that XGBoost lists go right.
            column = tree.split_indices[position]
            nodes.append(Node(column=column, codes=chosen[position], left=right, right=left))
        else:
            nodes.append(
                Node(
                    column=tree.split_indices[position],
                    threshold=condition,
                    is_null_left=bool(tree.default_left[position]),
                    left=left,
                    right=right,
                )
            )
    return nodes
