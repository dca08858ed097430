"""Search spaces: which hyperparameters a study may vary and within what bounds, as plain data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ml_assets.core.errors import InvalidDeclaration

Value = float | int | str


def _refuse_bad_bounds(dimension: "FloatRange | IntRange") -> None:
    low, high = dimension.low, dimension.high
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidDeclaration(f"{dimension} is no range; expected two finite numbers, low below high")
    if dimension.is_log and low <= 0:
        raise InvalidDeclaration(f"{dimension} has no logarithm; expected low above 0, or is_log=False")


@dataclass(frozen=True, kw_only=True)
class FloatRange:
    """Numbers from ``low`` to ``high``, both included; ``is_log`` looks for the right order of magnitude.

    >>> FloatRange(low=1e-4, high=1e-2, is_log=True).contains(0.002)
    True
    """

    low: float
    high: float
    is_log: bool = False

    def __post_init__(self) -> None:
        _refuse_bad_bounds(self)

    def contains(self, value: Value) -> bool:
        """Tell whether a study could come upon this value."""
        return not isinstance(value, str) and self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both included."""

    low: int
    high: int
    is_log: bool = False

    def __post_init__(self) -> None:
        _refuse_bad_bounds(self)

    def contains(self, value: Value) -> bool:
        """Tell whether a study could come upon this value."""
        return not isinstance(value, str) and self.low <= value <= self.high and int(value) == value


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values without an order."""

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.options or len(set(self.options)) < len(self.options):
            raise InvalidDeclaration(f"{self} offers nothing, or something twice; name different options")

    def contains(self, value: Value) -> bool:
        """Tell whether a study could come upon this value."""
        return value in self.options


Dimension = FloatRange | IntRange | Choice
SearchSpace = Mapping[str, Dimension]

_NETWORK: SearchSpace = {
    "layer_sizes": Choice(options=("32", "64", "128", "64,32", "128,64", "256,128", "256,128,64")),
    "dropout": FloatRange(low=0.0, high=0.6),
    "learning_rate": FloatRange(low=3e-4, high=1e-2, is_log=True),
    "weight_decay": FloatRange(low=1e-4, high=0.3, is_log=True),
    "n_epochs": IntRange(low=2, high=10),
}

# What is searched where a use case declares no space of its own, by trainer; what a trainer does not have, or the
# estimator that it is told to use, is left out. The bounds are judgement: around each default, from a model too small
# to one that takes about five times as long to fit. Few, because twenty or fifty trials tell little about many.
DEFAULT_SPACES: Mapping[str, SearchSpace] = {
    "lightning": _NETWORK,
    "keras": _NETWORK,
    "sklearn": {
        "learning_rate": FloatRange(low=0.01, high=0.3, is_log=True),
        "num_leaves": IntRange(low=7, high=255, is_log=True),
        "max_leaf_nodes": IntRange(low=7, high=255, is_log=True),
        "max_depth": IntRange(low=3, high=10),
        "min_child_samples": IntRange(low=5, high=500, is_log=True),
        "min_samples_leaf": IntRange(low=5, high=500, is_log=True),
        "min_child_weight": FloatRange(low=1.0, high=200.0, is_log=True),
        "colsample_bytree": FloatRange(low=0.3, high=1.0),
        "max_features": FloatRange(low=0.3, high=1.0),
        "reg_lambda": FloatRange(low=0.01, high=100.0, is_log=True),
        "l2_regularization": FloatRange(low=0.01, high=100.0, is_log=True),
        "C": FloatRange(low=1e-3, high=100.0, is_log=True),
    },
}
