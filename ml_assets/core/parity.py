"""The parity gate: a model's ONNX graph says what its library says, on every row and at learned thresholds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ml_assets.core.encoding import NULL_CODE, UNSEEN_CODE, Coded, Task
from ml_assets.core.errors import PackageRefused
from ml_assets.core.records import answers, in_batches
from ml_assets.core.scoring import score_coded
from ml_assets.core.trainers import FittedModel

LARGEST_PARITY_DIFFERENCE = 1e-5
# Judgement: a model of LightGBM's defaults has at most 254 for a column, a network its bins; of segments with models
# of their own there may be more, which are thinned. The gate adds 48,000 rows at most.
_THRESHOLDS_PER_COLUMN = 1000
_ROWS_PER_THRESHOLD = 16
_STEP_BETWEEN_ROWS = 7919  # a prime
_ROWS_PER_ODD_COLUMN = 64


def answer_scale(train_labels: np.ndarray, task: Task) -> float:
    """Return what a difference of 1 means: of probabilities 1, of a regression one standard deviation of the labels.

    A number of minutes in the hundreds has a rounding error of 1e-5 in float32 by itself; a model's use is in what it
    tells within the spread of the labels.

    >>> answer_scale(np.array([100.0, 300.0], dtype=np.float32), "regression")
    100.0
    """
    return float(np.std(train_labels, dtype=np.float64)) if task == "regression" else 1.0


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What came of comparing: the largest absolute difference, and what ONNX answers for the rows of each part.

    The difference is given in ``scale``, see ``answer_scale``; the answers are float64 [n].
    """

    largest_difference: float
    answers: Sequence[np.ndarray]


def compare(model: bytes, fitted: FittedModel, parts: Sequence[Coded], *, scale: float = 1.0) -> Parity:
    """Compare ONNX with the library; raise PackageRefused where they differ by more than 1e-5 of the scale.

    Next to the rows themselves it compares

    - each first row with every number null, every category null, every category unseen, and every number far outside
      of training;
    - some rows with one number null, or one category null or unseen, for each column;
    - rows of the largest part with their numbers at the thresholds the model has learned, the float32 below and above.

    Of a part that is larger than the memory all rows are compared in batches, and "some rows" are of its first batch.
    """
    largest = 0.0

    def verified(coded: Coded) -> np.ndarray:
        nonlocal largest
        found = _answers_of_graph(model, coded)
        difference = np.abs(found - _expected(fitted, coded)) / scale
        largest = max(largest, float(np.max(difference, initial=0.0)))
        # A comparison that is false for NaN would let one pass.
        if not bool(np.all(difference <= LARGEST_PARITY_DIFFERENCE)):
            row = int(np.argmax(np.nan_to_num(difference, nan=np.inf)))
            raise PackageRefused(
                f"the ONNX graph differs from the fitted model by {difference[row]:.2g} on row {row} of {len(coded)}; "
                f"expected at most {LARGEST_PARITY_DIFFERENCE:g}{in_scale(scale)}; the candidate is not saved"
            )
        return found

    answers_of_parts = [answers(verified, part) for part in parts]
    some = [next(in_batches(part)) for part in parts]
    beside = ((_odd_rows(part), *_one_column_odd(part)) for part in some)
    for coded in chain(*beside, _at_thresholds(max(some, key=len), fitted.thresholds)):
        verified(coded)
    return Parity(largest_difference=largest, answers=answers_of_parts)


def in_scale(scale: float) -> str:
    """Say what a difference is measured in; nothing where that is 1."""
    return "" if scale == 1.0 else f" times the spread {scale:.4g} of the training labels"


def _answers_of_graph(model: bytes, coded: Coded) -> np.ndarray:
    """Return what the graph says; raise PackageRefused for one that ONNX Runtime cannot run on the two inputs."""
    try:
        found = score_coded(model, coded)
    except MemoryError:
        raise
    except Exception as error:  # the errors of ONNX Runtime have no class in common
        raise PackageRefused(
            f"ONNX Runtime cannot run the graph: {error}; expected the inputs numeric (float32 [n, k]) and categorical "
            "(int64 [n, m]), the output prediction (float32 [n]) and an opset that it knows; the candidate is not saved"
        ) from error
    return _one_each(found, coded, whose="the ONNX graph")


def _expected(fitted: FittedModel, coded: Coded) -> np.ndarray:
    return _one_each(fitted.predict(coded), coded, whose="the fitted model")


def _one_each(found: np.ndarray, coded: Coded, *, whose: str) -> np.ndarray:
    if found.shape != (len(coded),):
        raise PackageRefused(
            f"{whose} gives answers of shape {found.shape} for {len(coded)} rows; expected one number each"
        )
    return found


def _odd_rows(part: Coded) -> Coded:
    numeric = np.repeat(part.numeric[:1], 5, axis=0)
    categorical = np.repeat(part.categorical[:1], 5, axis=0)
    numeric[0] = np.nan
    categorical[1] = NULL_CODE
    categorical[2] = UNSEEN_CODE
    numeric[3] = np.inf
    numeric[4] = -1e30
    return Coded(numeric=numeric, categorical=categorical)


def _one_column_odd(part: Coded) -> Iterator[Coded]:
    """Yield some rows, evenly spread, with one column null (or unseen) and the others as they are."""
    rows = np.unique(np.linspace(0, max(len(part) - 1, 0), _ROWS_PER_ODD_COLUMN).astype(np.int64))[: len(part)]
    for column in range(part.numeric.shape[1]):
        numeric = part.numeric[rows]
        numeric[:, column] = np.nan
        yield Coded(numeric=numeric, categorical=part.categorical[rows])
    for column in range(part.categorical.shape[1]):
        for code in (NULL_CODE, UNSEEN_CODE):
            categorical = part.categorical[rows]
            categorical[:, column] = code
            yield Coded(numeric=part.numeric[rows], categorical=categorical)


def _at_thresholds(part: Coded, thresholds: Mapping[int, np.ndarray]) -> Iterator[Coded]:
    """Yield rows with every number at a threshold of its column, or one float32 below or above it, if there is any.

    A threshold deep in a tree is reached by some rows only, so every value is tried on several rows, with other values
    of the other columns each time. These rows reach more splits than as many in which one number alone is at a
    threshold. What lies below a split that only nulls pass is reached by every other row, which keeps its nulls.
    """
    values = {column: _beside(found) for column, found in thresholds.items() if len(found)}
    if not values or not len(part):
        return
    draw = np.random.default_rng(0)
    # A step that shares no divisor with the number of rows visits them all in turn.
    n_rows = _ROWS_PER_THRESHOLD * max(len(of_column) for of_column in values.values())
    rows = (np.arange(n_rows) * _STEP_BETWEEN_ROWS) % len(part)
    numeric = part.numeric[rows]
    may_be_null = np.arange(n_rows) % 2 == 0
    for column, of_column in values.items():
        is_null = may_be_null & np.isnan(numeric[:, column])
        numeric[:, column] = np.where(is_null, np.nan, draw.permutation(np.resize(of_column, n_rows)))
    yield Coded(numeric=numeric, categorical=part.categorical[rows])


def _beside(thresholds: np.ndarray) -> np.ndarray:
    """Return thresholds as float32, with the numbers next to them; of too many, evenly spread ones."""
    kept = np.unique(np.linspace(0, len(thresholds) - 1, _THRESHOLDS_PER_COLUMN).astype(np.int64))
    with np.errstate(over="ignore"):
        nearest = thresholds[kept].astype(np.float32)
        below, above = (np.nextafter(nearest, np.float32(end)) for end in (-np.inf, np.inf))
    return np.unique([below, nearest, above])
