"""The baselines a model must beat: what takes no model worth the name, fitted on the training rows alone."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.errors import TrainingDataMissing
from ml_assets.core.evaluation import Floats

Encoded = npt.NDArray[np.float32]


def baseline_predictions(train: pa.Table, test: pa.Table, features: Sequence[str]) -> dict[str, Floats]:
    """Predict each row of ``test`` by two baselines of a classification, both fitted on ``train`` alone.

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
    x_train, x_test = _encoded(train, test, features)
    # newton-cholesky on float32: a few exact steps where rows far outnumber columns, a sixth of the CPU of lbfgs.
    model = LogisticRegression(solver="newton-cholesky").fit(x_train, y_train)
    logistic = cast("Floats", model.predict_proba(x_test)[:, 1])
    return {"base_rate": np.full(test.num_rows, positive_share), "logistic": logistic}


def regression_baselines(train: pa.Table, test: pa.Table, features: Sequence[str]) -> dict[str, Floats]:
    """Predict each row of ``test`` by two baselines of a regression, both fitted on ``train`` alone.

    ``mean`` predicts the mean label of the training rows for everyone. ``linear`` is a linear regression on the named
    columns, coded as for the logistic one, with a ridge of 1 so that columns that say the same do not matter. ``train``
    has a number as ``label`` without nulls.

    Raises TrainingDataMissing where there are no training rows.
    """
    from sklearn.linear_model import Ridge

    y_train = labels_of(train)
    if not len(y_train):
        raise TrainingDataMissing("there are no training rows; a baseline needs some: train on more days")
    x_train, x_test = _encoded(train, test, features)
    linear = Ridge(alpha=1.0, solver="cholesky").fit(x_train.astype(np.float64), y_train)
    predicted = np.asarray(linear.predict(x_test.astype(np.float64)), np.float64)
    return {"mean": np.full(test.num_rows, y_train.mean()), "linear": predicted}


def labels_of(table: pa.Table) -> Floats:
    """Return the labels as float64 [n]: 0 and 1 where they are booleans."""
    label = table.column("label")
    return np.asarray((label.cast(pa.int8()) if pa.types.is_boolean(label.type) else label).to_numpy(), np.float64)


def _encoded(train: pa.Table, test: pa.Table, features: Sequence[str]) -> tuple[Encoded, Encoded]:
    columns = [_encode(train.column(name), test.column(name)) for name in features]
    return np.hstack([column for column, _ in columns]), np.hstack([column for _, column in columns])


def _encode(train: pa.ChunkedArray, test: pa.ChunkedArray) -> tuple[Encoded, Encoded]:
    """Turn a column into standardised numbers or one-hot columns, shapes (n, k), by what the training rows show."""
    if pa.types.is_string(train.type) or pa.types.is_large_string(train.type) or pa.types.is_dictionary(train.type):
        categories = train.cast(pa.string()).unique().drop_null().sort()
        return _one_hot(train, categories), _one_hot(test, categories)
    fitted, other = _numbers(train), _numbers(test)
    is_known = np.isfinite(fitted)
    mean = fitted[is_known].mean() if is_known.any() else 0.0
    spread = fitted[is_known].std() if is_known.any() else 0.0
    scaled = [np.where(np.isfinite(x), (x - mean) / (spread or 1.0), 0.0)[:, np.newaxis] for x in (fitted, other)]
    return scaled[0].astype(np.float32), scaled[1].astype(np.float32)


def _numbers(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _one_hot(column: pa.ChunkedArray, categories: pa.Array) -> Encoded:
    options = pc.SetLookupOptions(value_set=categories)
    codes = pc.call_function("index_in", [column.cast(pa.string())], options).fill_null(-1).to_numpy()
    return np.asarray(codes[:, np.newaxis] == np.arange(len(categories)), np.float32)
