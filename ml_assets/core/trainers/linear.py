"""Logistic and linear regression behind the sklearn trainer: imputation, scaling, one-hot codes, their ONNX graph."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from ml_assets.core.encoding import Coded, Task
from ml_assets.core.errors import TrainingFailed
from ml_assets.core.trainers import Epoch, Labelled, OnEpoch, versions_of
from ml_assets.core.trainers.refusals import refuse_task

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import Pipeline

_OPSET = 17
_IR_VERSION = 8  # the newest that every supported onnxruntime reads


@dataclass(frozen=True, kw_only=True)
class LogisticRegressionSettings:
    """The hyperparameters by scikit-learn's names: ``C`` is the inverse of the L2 penalty."""

    C: Annotated[float, Meta(gt=0)] = 1.0
    max_iter: Annotated[int, Meta(ge=1, le=100_000)] = 1000

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        cardinalities: Sequence[int],
        seed: int,
        on_epoch: OnEpoch,
        task: Task,
    ) -> "FittedLinear":
        """Fit on train; validation chooses nothing here. Raises TrainingFailed where the fit does not converge."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        refuse_task(
            task,
            only="binary_classification",
            what="the estimator logistic_regression",
            instead="choose the estimator linear_regression",
        )
        lowest, highest = _bounds(train.inputs.numeric)
        model = LogisticRegression(**asdict(self), random_state=seed)
        pipeline = _pipeline(len(lowest), len(cardinalities), model)
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                pipeline.fit(_rows(train.inputs, lowest, highest), train.labels)
            except ConvergenceWarning as warning:
                raise TrainingFailed(
                    f"logistic regression did not converge within max_iter={self.max_iter}: {warning}; "
                    f"raise max_iter or lower C={self.C:g}"
                ) from warning
        return FittedLinear(
            pipeline=pipeline, lowest=lowest, highest=highest, cardinalities=tuple(cardinalities), task=task
        )


@dataclass(frozen=True, kw_only=True)
class LinearRegressionSettings:
    """Linear regression with an L2 penalty, ``alpha`` by scikit-learn's name (Ridge)."""

    alpha: Annotated[float, Meta(ge=0)] = 1.0

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        cardinalities: Sequence[int],
        seed: int,
        on_epoch: OnEpoch,
        task: Task,
    ) -> "FittedLinear":
        """Fit on train by conjugate gradients; validation chooses nothing here, and nothing is drawn."""
        from sklearn.linear_model import Ridge
        from threadpoolctl import threadpool_limits

        refuse_task(
            task,
            only="regression",
            what="the estimator linear_regression",
            instead="choose the estimator logistic_regression",
        )
        lowest, highest = _bounds(train.inputs.numeric)
        pipeline = _pipeline(len(lowest), len(cardinalities), Ridge(alpha=self.alpha, solver="sparse_cg", tol=1e-10))
        with threadpool_limits(1):
            pipeline.fit(_rows(train.inputs, lowest, highest), train.labels.astype(np.float64))
        return FittedLinear(
            pipeline=pipeline, lowest=lowest, highest=highest, cardinalities=tuple(cardinalities), task=task
        )


@dataclass(frozen=True, kw_only=True)
class FittedLinear:
    """A fitted pipeline; numbers are first clamped to what train had, ``lowest`` to ``highest`` of each column.

    So no number, however wrong its unit, drives the answer beyond what training saw.
    """

    pipeline: "Pipeline"
    lowest: np.ndarray
    highest: np.ndarray
    cardinalities: tuple[int, ...]
    task: Task
    history: tuple[Epoch, ...] = ()
    is_warm_started: bool = False

    @property
    def libraries(self) -> Mapping[str, str]:
        """The version of scikit-learn."""
        return versions_of("scikit-learn")

    @property
    def thresholds(self) -> Mapping[int, np.ndarray]:
        """Where the slope of each numeric column changes: its lowest and highest number in train."""
        return {n: np.unique([low, high]) for n, (low, high) in enumerate(zip(self.lowest, self.highest, strict=True))}

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return probabilities or numbers, float64 [n], computed by scikit-learn."""
        if not len(inputs):
            return np.empty(0, dtype=np.float64)
        rows = _rows(inputs, self.lowest, self.highest)
        if self.task == "regression":
            return np.asarray(self.pipeline.predict(rows), np.float64)
        return self.pipeline.predict_proba(rows)[:, 1]

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return nothing: the optimum does not depend on where the search begins."""
        return {}

    def to_onnx(self) -> bytes:
        """Return the ONNX graph, in float64 inside."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        constants = self._constants()
        steps = [("IsNaN", ["numbers"], "is_null"), ("Max", ["numbers", "lowest"], "raised")]
        steps += [("Min", ["raised", "highest"], "clamped")]
        steps += [("Where", ["is_null", "median", "clamped"], "filled"), ("Sub", ["filled", "mean"], "centred")]
        steps += [("Mul", ["centred", "slope"], "terms"), ("Where", ["is_null", "if_null", "zeros"], "null_terms")]
        nodes = [
            helper.make_node("Cast", ["numeric"], ["numbers"], to=TensorProto.DOUBLE),
            *(helper.make_node(kind, names, [name]) for kind, names, name in steps),
        ]
        parts = ["terms", "null_terms"]
        for column in range(len(self.cardinalities)):
            constants[f"column_{column}"] = np.array([column], dtype=np.int64)
            nodes.append(helper.make_node("Gather", ["categorical", f"column_{column}"], [f"codes_{column}"], axis=1))
            nodes.append(helper.make_node("Gather", [f"effects_{column}", f"codes_{column}"], [f"effect_{column}"]))
            parts.append(f"effect_{column}")
        nodes += [
            helper.make_node("Concat", parts, ["all_terms"], axis=1),
            helper.make_node("ReduceSum", ["all_terms", "axis_1"], ["sum"], keepdims=0),
            helper.make_node("Add", ["sum", "intercept"], ["answer"]),
            helper.make_node("Identity" if self.task == "regression" else "Sigmoid", ["answer"], ["precise"]),
            helper.make_node("Cast", ["precise"], ["prediction"], to=TensorProto.FLOAT),
        ]
        shapes = {"numeric": len(self.lowest), "categorical": len(self.cardinalities)}
        kinds = {"numeric": TensorProto.FLOAT, "categorical": TensorProto.INT64}
        graph = helper.make_graph(
            nodes,
            "linear_model",
            [helper.make_tensor_value_info(name, kinds[name], ["n", width]) for name, width in shapes.items()],
            [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n"])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="ml_assets"
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    def _constants(self) -> dict[str, np.ndarray]:
        """Return what the graph computes with, float64: per number a slope, per null and per category an effect."""
        columns, model = self.pipeline.named_steps["columns"], self.pipeline.named_steps["model"]
        n_numeric, n_categorical = len(self.lowest), len(self.cardinalities)
        weights = np.ravel(model.coef_)
        constants = {"intercept": np.array(np.ravel(model.intercept_)[0]), "axis_1": np.array([1], dtype=np.int64)}
        median = mean = slope = if_null = np.zeros(0)
        if n_numeric:
            numbers = columns.named_transformers_["numbers"]
            scaler, with_nulls = numbers.named_steps["scale"], numbers.named_steps["fill"].indicator_.features_
            # The scaler sees the k numbers and then the 0-or-1 indicators of the columns that had a null in train.
            slopes = weights[: len(scaler.scale_)] / scaler.scale_
            median, mean, slope = numbers.named_steps["fill"].statistics_, scaler.mean_[:n_numeric], slopes[:n_numeric]
            if_null = np.zeros(n_numeric)
            if_null[with_nulls] = slopes[n_numeric:]
            constants["intercept"] = constants["intercept"] - float(slopes[n_numeric:] @ scaler.mean_[n_numeric:])
        if n_categorical:
            known = columns.named_transformers_["codes"].categories_
            ends = len(weights) - np.cumsum([len(codes) for codes in reversed(known)])[::-1]
            for column, (codes, start) in enumerate(zip(known, ends, strict=True)):
                effects = np.zeros(self.cardinalities[column])
                effects[codes.astype(np.int64)] = weights[start : start + len(codes)]
                constants[f"effects_{column}"] = effects
        constants |= {"lowest": self.lowest, "highest": self.highest, "median": median, "mean": mean}
        return {**constants, "slope": slope, "if_null": if_null, "zeros": np.zeros(n_numeric)}


def _bounds(numeric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest finite number of each column of [n, k], float64 [k]; 0 where it has none."""
    finite = np.where(np.isfinite(numeric), numeric, np.nan).astype(np.float64)
    filled = np.where(np.isnan(finite).all(axis=0), 0.0, finite)
    return np.nanmin(filled, axis=0, initial=np.inf), np.nanmax(filled, axis=0, initial=-np.inf)


def _rows(inputs: Coded, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Return the clamped numbers (NaN for null) and the codes as one float64 array [n, k + m]."""
    clamped = np.clip(inputs.numeric.astype(np.float64), lowest, highest)
    return np.hstack([clamped, inputs.categorical.astype(np.float64)])


def _pipeline(n_numeric: int, n_categorical: int, model: "LogisticRegression | Ridge") -> "Pipeline":
    """Return medians for nulls with an indicator, scaling, one column per code of train (others have none), a fit."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    numbers = Pipeline([("fill", fill), ("scale", StandardScaler())])
    codes = OneHotEncoder(handle_unknown="ignore")
    numeric, categorical = list(range(n_numeric)), list(range(n_numeric, n_numeric + n_categorical))
    parts = [("numbers", numbers, numeric), ("codes", codes, categorical)]
    columns = ColumnTransformer([part for part in parts if part[2]])
    return Pipeline([("columns", columns), ("model", model)])
