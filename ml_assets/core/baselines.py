"""The baselines a model must beat: what takes no model worth the name, fitted on the training rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.errors import BadInput, TrainingDataMissing
from ml_assets.core.evaluation import Floats

Encoded = npt.NDArray[np.float32]

# Judgement: a baseline takes rarer values than the 256 most frequent ones for none of them.
_BASELINE_CATEGORIES = 256


@dataclass(frozen=True, kw_only=True)
class BaselineColumn:
    """What a baseline makes of one column, and what it weighs.

    A number is standardised by ``mean`` and ``spread``, a missing one is at the mean, and there is one coefficient.
    Text has one coefficient for each of ``categories``; an unseen or missing one weighs nothing.
    """

    name: str
    kind: Literal["number", "text"]
    mean: float = 0.0
    spread: float = 1.0
    categories: tuple[str, ...] = ()
    coefficients: tuple[float, ...] = ()

    def encode(self, values: pa.ChunkedArray) -> Encoded:
        """Return the column as the baseline reads it, float32 [n, k]."""
        if self.kind == "number":
            numbers = _numbers(values)
            scaled = np.where(np.isfinite(numbers), (numbers - self.mean) / self.spread, 0.0)
            return scaled[:, np.newaxis].astype(np.float32)
        codes = self._codes(values)
        return np.asarray(codes[:, np.newaxis] == np.arange(len(self.categories)), np.float32)

    def contribution(self, values: pa.ChunkedArray) -> Floats:
        """Return what the column adds to the prediction of each row, float64 [n]."""
        if self.kind == "number":
            return self.encode(values)[:, 0].astype(np.float64) * self.coefficients[0]
        return np.asarray([*self.coefficients, 0.0])[self._codes(values)]

    def _codes(self, values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        known = pc.SetLookupOptions(value_set=pa.array(self.categories, pa.string()))
        return pc.call_function("index_in", [values.cast(pa.string())], known).fill_null(-1).to_numpy()


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A baseline that was fitted: plain numbers, so that a model package can keep it and score later days with it.

    The prediction is ``intercept`` and what the columns add, for ``probability`` through the logistic function.
    """

    name: str
    answers: Literal["probability", "number"]
    intercept: float
    columns: tuple[BaselineColumn, ...] = ()

    def predict(self, rows: pa.Table) -> Floats:
        """Return the prediction of each row, float64 [n]; raise BadInput where the rows lack a column."""
        absent = [column.name for column in self.columns if column.name not in rows.column_names]
        if absent:
            raise BadInput(f"the examples lack the columns {absent} that the baseline {self.name!r} reads")
        total = np.full(rows.num_rows, self.intercept)
        for column in self.columns:
            total += column.contribution(rows.column(column.name))
        return total if self.answers == "number" else 1 / (1 + np.exp(-total))


def fit_classification_baselines(train: pa.Table, features: Sequence[str]) -> tuple[Baseline, Baseline]:
    """Fit the two baselines of a classification.

    ``base_rate`` predicts the positive share of the training rows for everyone. ``logistic`` is a logistic regression
    on the named columns: numbers standardised with a missing one at the training mean, text one-hot with an unseen or
    missing category as all zeros. ``train`` has a boolean ``label`` without nulls.

    Raises TrainingDataMissing where the training rows hold one class only.
    """
    from sklearn.linear_model import LogisticRegression

    y_train = labels_of(train)
    positive_share = float(y_train.mean()) if len(y_train) else 0.0
    if not 0 < positive_share < 1:
        raise TrainingDataMissing(
            f"the {len(y_train)} training rows hold {int(y_train.sum())} positive labels; a baseline needs rows "
            "of both classes: train on more days"
        )
    columns, x_train = _encoded(train, features)
    # newton-cholesky on float32: a few exact steps where rows far outnumber columns, a sixth of the CPU of lbfgs.
    model = LogisticRegression(solver="newton-cholesky").fit(x_train, y_train)
    base_rate = float(np.log(positive_share / (1 - positive_share)))
    return (
        Baseline(name="base_rate", answers="probability", intercept=base_rate),
        _fitted("logistic", "probability", float(model.intercept_[0]), np.asarray(model.coef_)[0], columns),
    )


def fit_regression_baselines(train: pa.Table, features: Sequence[str]) -> tuple[Baseline, Baseline]:
    """Fit the two baselines of a regression.

    ``mean`` predicts the mean label of the training rows for everyone. ``linear`` is a linear regression on the named
    columns, coded as for the logistic one, with a ridge of 1 so that columns that say the same do not matter. ``train``
    has a number as ``label`` without nulls.

    Raises TrainingDataMissing where there are no training rows.
    """
    from sklearn.linear_model import Ridge

    y_train = labels_of(train)
    if not len(y_train):
        raise TrainingDataMissing("there are no training rows; a baseline needs some: train on more days")
    columns, x_train = _encoded(train, features)
    linear = Ridge(alpha=1.0, solver="cholesky").fit(x_train.astype(np.float64), y_train)
    return (
        Baseline(name="mean", answers="number", intercept=float(y_train.mean())),
        _fitted("linear", "number", float(linear.intercept_), np.asarray(linear.coef_), columns),
    )


def predictions_of(baselines: Sequence[Baseline], rows: pa.Table) -> dict[str, Floats]:
    """Return the predictions of each baseline by its name, float64 [n]."""
    return {baseline.name: baseline.predict(rows) for baseline in baselines}


def labels_of(table: pa.Table) -> Floats:
    """Return the labels as float64 [n]: 0 and 1 where they are booleans."""
    label = table.column("label")
    return np.asarray((label.cast(pa.int8()) if pa.types.is_boolean(label.type) else label).to_numpy(), np.float64)


def _encoded(train: pa.Table, features: Sequence[str]) -> tuple[Sequence[BaselineColumn], Encoded]:
    """Learn how to code each column from what the training rows show, and code them: float32 [n, k]."""
    columns = [_column(name, train.column(name)) for name in features]
    return columns, np.hstack([column.encode(train.column(column.name)) for column in columns])


def _column(name: str, train: pa.ChunkedArray) -> BaselineColumn:
    if pa.types.is_string(train.type) or pa.types.is_large_string(train.type) or pa.types.is_dictionary(train.type):
        return BaselineColumn(name=name, kind="text", categories=_most_frequent(train.cast(pa.string()).drop_null()))
    numbers = _numbers(train)
    known = numbers[np.isfinite(numbers)]
    mean, spread = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
    return BaselineColumn(name=name, kind="number", mean=mean, spread=spread or 1.0)


def _fitted(
    name: str,
    answers: Literal["probability", "number"],
    intercept: float,
    coefficients: np.ndarray,
    columns: Sequence[BaselineColumn],
) -> Baseline:
    """Give each column its part of the coefficients."""
    widths = [1 if column.kind == "number" else len(column.categories) for column in columns]
    parts = np.split(coefficients.astype(np.float64), np.cumsum(widths)[:-1])
    weighed = tuple(
        replace(column, coefficients=tuple(part.tolist())) for column, part in zip(columns, parts, strict=True)
    )
    return Baseline(name=name, answers=answers, intercept=intercept, columns=weighed)


def _most_frequent(values: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the most frequent values, sorted; a baseline does not need more, and one-hot columns are large."""
    counted = pa.Table.from_struct_array(values.value_counts())
    counted = counted.sort_by([("counts", "descending"), ("values", "ascending")]).slice(0, _BASELINE_CATEGORIES)
    return tuple(sorted(cast("list[str]", counted["values"].to_pylist())))


def _numbers(column: pa.ChunkedArray) -> Floats:
    """Return a column of numbers; one beyond float32 counts as infinite, as it does for the models."""
    numbers = np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    return np.where(np.abs(numbers) > np.finfo(np.float32).max, np.inf, numbers)
