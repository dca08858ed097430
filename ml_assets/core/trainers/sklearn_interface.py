"""The trainer for anything with the sklearn interface: estimators by name, from a table, never by an import path."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from ml_assets.core.encoding import Signature, Task, Vocabulary
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.trainers import FittedModel, Hyperparameters, Labelled, OnEpoch, WarmStart
from ml_assets.core.trainers.hist_gradient_trees import HistGradientBoostingSettings
from ml_assets.core.trainers.lightgbm_trees import LightgbmSettings
from ml_assets.core.trainers.linear import LinearRegressionSettings, LogisticRegressionSettings
from ml_assets.core.trainers.refusals import refuse_unlearnable, settings_of
from ml_assets.core.trainers.xgboost_trees import XgboostSettings

ESTIMATOR = "estimator"  # the hyperparameter that names one


class _Settings(Protocol):
    """The hyperparameters of one estimator, which know how to fit it."""

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        cardinalities: Sequence[int],
        seed: int,
        on_epoch: OnEpoch,
        task: Task,
    ) -> FittedModel: ...


ESTIMATORS: Mapping[str, type[_Settings]] = {
    "hist_gradient_boosting": HistGradientBoostingSettings,
    "lightgbm": LightgbmSettings,
    "linear_regression": LinearRegressionSettings,
    "logistic_regression": LogisticRegressionSettings,
    "xgboost": XgboostSettings,
}


# What is not installed with ml-assets itself.
_EXTRAS = {"xgboost": "ml-assets[xgboost]"}


class SklearnTrainer:
    """Fits the estimator that the hyperparameter ``estimator`` names, with the others under its library's own names.

    One thread, seeded, the same bytes every time. Nothing is taken over from the champion.
    """

    def resolve(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Return all hyperparameters, defaults filled in; raise InvalidDeclaration for an unknown or unusable one."""
        name, settings = _chosen(hyperparameters)
        return {ESTIMATOR: name, **asdict(settings)}  # pyright: ignore[reportArgumentType] # all are dataclasses

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        signature: Signature,
        vocabulary: Vocabulary,
        hyperparameters: Hyperparameters,
        seed: int,
        warm_start: WarmStart | None,
        on_epoch: OnEpoch,
        work_folder: Path,
    ) -> FittedModel:
        """Fit on train; where there are rounds of boosting, validation chooses how many.

        Raises InvalidDeclaration where the estimator's library is not installed, or it cannot do this task.
        """
        name, settings = _chosen(hyperparameters)
        refuse_unlearnable(train, validation, task=signature.output.task)
        cardinalities = [vocabulary.cardinality(column.name) for column in signature.categorical]
        try:
            return settings.fit(
                train,
                validation,
                cardinalities=cardinalities,
                seed=seed,
                on_epoch=on_epoch,
                task=signature.output.task,
            )
        except ModuleNotFoundError as error:
            package = _EXTRAS.get(name, error.name)
            raise InvalidDeclaration(
                f"the estimator {name} needs {error.name}, which is not installed: pip install '{package}'"
            ) from error


def _chosen(hyperparameters: Hyperparameters) -> tuple[str, _Settings]:
    name = hyperparameters.get(ESTIMATOR)
    if name not in ESTIMATORS:
        raise InvalidDeclaration(f"the sklearn trainer has no estimator {name!r}; it has {sorted(ESTIMATORS)}")
    others = {key: value for key, value in hyperparameters.items() if key != ESTIMATOR}
    return str(name), settings_of(ESTIMATORS[str(name)], others, trainer=f"the estimator {name}")
