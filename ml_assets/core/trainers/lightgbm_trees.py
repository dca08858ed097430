"""LightGBM behind the sklearn trainer: its settings, its fit, and its trees as plain data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict, cast

import numpy as np
from msgspec import Meta

from ml_assets.core.encoding import Task
from ml_assets.core.trainers import Labelled, OnEpoch, versions_of
from ml_assets.core.trainers.boosting import CentredLabels, FittedTrees, Rounds, joined
from ml_assets.core.trainers.refusals import refuse_nan_loss
from ml_assets.core.trainers.tree_ensemble import Node, TreeEnsemble

_ZERO = float(np.float32(1e-35))  # LightGBM takes any number this close to zero for zero
_INFINITY = 1e300  # what a dump writes for it: the threshold of a split that only a null does not pass

if TYPE_CHECKING:
    from lightgbm.callback import CallbackEnv


class _Dumped(TypedDict):
    """A node as ``Booster.dump_model`` describes it: a leaf has its value only, a split has all the others."""

    split_feature: int
    threshold: float | str
    decision_type: str
    default_left: bool
    missing_type: str
    left_child: "_Dumped"
    right_child: "_Dumped"
    leaf_value: float


@dataclass(frozen=True, kw_only=True)
class LightgbmSettings:
    """The hyperparameters by LightGBM's names; ``n_estimators`` is the most trees there can be.

    Validation chooses how many are kept: training stops once its loss has not fallen for ``early_stopping_rounds``.
    The defaults are judgement.
    """

    n_estimators: Annotated[int, Meta(ge=1, le=10_000)] = 500
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.05
    num_leaves: Annotated[int, Meta(ge=2, le=4096)] = 31
    min_child_samples: Annotated[int, Meta(ge=1)] = 20
    subsample: Annotated[float, Meta(gt=0, le=1)] = 0.9
    colsample_bytree: Annotated[float, Meta(gt=0, le=1)] = 0.8
    reg_lambda: Annotated[float, Meta(ge=0)] = 1.0
    cat_smooth: Annotated[float, Meta(ge=0)] = 10.0
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
        """Fit an LGBMModel on train with as many trees as validation likes best."""
        import lightgbm

        rounds = Rounds(on_epoch=on_epoch)

        def record(env: "CallbackEnv") -> None:
            losses = {str(result[0]): float(result[2]) for result in env.evaluation_result_list or ()}
            rounds.add(losses["train"], losses["validation"])

        n_numeric = train.inputs.numeric.shape[1]
        options = {name: value for name, value in asdict(self).items() if name != "early_stopping_rounds"}
        is_regression = task == "regression"
        metric = "rmse" if is_regression else "binary_logloss"
        labels = CentredLabels.of(train.labels, validation.labels, task=task)
        # Not LGBMClassifier: it codes the labels anew, and then takes the train rows for other ones to evaluate on.
        model = lightgbm.LGBMModel(
            objective="regression" if is_regression else "binary",
            **options,
            metric=metric,
            subsample_freq=1,
            random_state=seed,
            n_jobs=1,
            verbosity=-1,
            deterministic=True,
            force_row_wise=True,
        )
        x_train, x_validation = joined(train.inputs), joined(validation.inputs)
        model.fit(
            x_train,
            labels.train,
            eval_X=(x_train, x_validation),  # pyright: ignore[reportArgumentType] # declared as a tuple of one
            eval_y=(labels.train, labels.validation),  # pyright: ignore[reportArgumentType] # likewise
            eval_names=["train", "validation"],
            eval_metric=metric,
            categorical_feature=list(range(n_numeric, x_train.shape[1])),
            callbacks=[record, lightgbm.early_stopping(self.early_stopping_rounds, verbose=False)],
        )
        refuse_nan_loss(rounds.epochs, hyperparameters=asdict(self), task=task)
        booster = model.booster_
        trees = booster.dump_model(num_iteration=model.best_iteration_)["tree_info"]
        ensemble = TreeEnsemble(
            trees=[_nodes(cast("_Dumped", tree["tree_structure"])) for tree in trees],
            base=labels.mean,  # LightGBM adds its starting point to the leaves of the first tree
            comparison="<=",
            n_numeric=n_numeric,
            cardinalities=cardinalities,
            task=task,
        )
        return FittedTrees(
            ensemble=ensemble,
            answer=lambda rows: np.asarray(booster.predict(rows, num_iteration=model.best_iteration_)) + labels.mean,
            history=tuple(rounds.epochs),
            libraries=versions_of("lightgbm", "scikit-learn"),
        )


def _nodes(root: _Dumped) -> Sequence[Node]:
    """Return the nodes of a dumped tree, parents before children."""
    waiting, nodes = [root], list[Node]()
    while len(nodes) < len(waiting):
        dumped = waiting[len(nodes)]
        if "split_feature" not in dumped:
            nodes.append(Node(value=dumped["leaf_value"]))
            continue
        nodes.append(_split(dumped, left=len(waiting)))
        waiting += [dumped["left_child"], dumped["right_child"]]
    return nodes


def _split(dumped: _Dumped, *, left: int) -> Node:
    if dumped["decision_type"] == "==":
        codes = frozenset(int(code) for code in str(dumped["threshold"]).split("||"))
        return Node(column=dumped["split_feature"], codes=codes, left=left, right=left + 1)
    threshold = _decided(float(dumped["threshold"]))
    # Where train had no null in the column, LightGBM takes a later one for a zero.
    is_null_left = dumped["default_left"] if dumped["missing_type"] == "NaN" else threshold >= 0
    return Node(
        column=dumped["split_feature"], threshold=threshold, is_null_left=is_null_left, left=left, right=left + 1
    )


def _decided(threshold: float) -> float:
    """Return the threshold that decides for every number what LightGBM's decides once it has taken tiny ones for zero.

    >>> _decided(-1e-36) < -_ZERO, _decided(0.0) == _ZERO, _decided(2.5), _decided(1e300)
    (True, True, 2.5, inf)
    """
    if threshold >= _INFINITY:
        return float("inf")
    if -_ZERO <= threshold < 0:
        return float(np.nextafter(np.float32(-_ZERO), np.float32(-np.inf)))
    return max(threshold, _ZERO) if threshold >= 0 else threshold
