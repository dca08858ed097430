"""Permutation importance: how much worse a fitted model gets when it is lied to about a feature, or a feature view.

The values of a column are shuffled over the rows, so that they say nothing of the row any more, and everything else
stays (Breiman, Random Forests, 2001, section 10; Fisher, Rudin and Dominici, 2019, for a model of any kind). It tells
what this model leans on, not what a new model would miss: of two columns that say the same each may look unimportant,
since the other still tells, and a shuffled column can make rows that cannot be. The columns of a feature view are
shuffled together, which takes a fact away that several of them tell; ``core.ablation`` trains without them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_assets.core.encoding import Coded, Input, Signature, Task
from ml_assets.core.evaluation import Floats, log_losses
from ml_assets.core.paired_bootstrap import DayResamples, Estimate

N_REPEATS = 3
# Days are drawn for standard errors only; 200 draws tell one to a twentieth of itself.
_N_RESAMPLES = 200

Losses = Callable[[Floats, Floats], Floats]
Metric = Callable[[DayResamples, Floats, Floats], Floats]
Predict = Callable[[Coded], Floats]


def squared_errors(labels: Floats, predictions: Floats) -> Floats:
    """Return the squared error of each row, float64 [n], in the square of the label's unit."""
    return (labels - predictions) ** 2


# What a task is explained by: the loss of a row, and the metric of which more is better, if it has one.
LOSSES: Mapping[Task, Losses] = {"binary_classification": log_losses, "regression": squared_errors}
METRICS: Mapping[Task, Metric | None] = {"binary_classification": DayResamples.roc_auc, "regression": None}


@dataclass(frozen=True, kw_only=True)
class Importance:
    """A feature or a feature view: what its shuffling does to the loss, and to a metric of which more is better.

    Above 0 the model gets worse. The standard errors hold the noise of the days and that of the shuffling.
    """

    name: str
    loss_increase: Estimate
    metric_drop: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Importances:
    """All features and all feature views, each the largest loss increase first.

    ``loss`` is the mean loss of the rows as they are; ``n_rows`` were shuffled ``n_repeats`` times.
    """

    features: tuple[Importance, ...]
    views: tuple[Importance, ...]
    loss: float
    n_rows: int
    n_repeats: int


def permutation_importance(
    predict: Predict,
    inputs: Coded,
    labels: npt.ArrayLike,
    days: npt.ArrayLike,
    *,
    signature: Signature,
    losses: Losses,
    metric: Metric | None,
    seed: int,
    n_repeats: int = N_REPEATS,
    with_features: bool = True,
) -> Importances:
    """Shuffle every feature and every view by itself and measure what the model loses; the same seed, the same figures.

    Args:
        predict: coded rows to predictions, float64 [n].
        inputs: the rows, [n].
        labels: shape (n,).
        days: the local day of each row, shape (n,): the unit of the noise.
        signature: the names and views of the columns.
        losses: labels and predictions to the loss of each row, float64 [n].
        metric: such as ``DayResamples.roc_auc``; None for none.
        seed: of the shuffles and of the draws of days.
        n_repeats: shuffles of each, their mean counts.
        with_features: whether single features are shuffled as well, or views alone.
    """
    y = np.asarray(labels, np.float64)
    resamples = DayResamples.of(days, seed=seed, n_resamples=_N_RESAMPLES)
    own = predict(inputs)
    judge = _Judge(y=y, losses=losses, metric=metric, resamples=resamples, own=own)
    draw = np.random.default_rng(seed)
    orders = [draw.permutation(len(y)) for _ in range(n_repeats)]

    def measured(name: str, columns: Sequence[Input]) -> Importance:
        chosen = {column.name for column in columns}
        numeric = [place for place, column in enumerate(signature.numeric) if column.name in chosen]
        categorical = [place for place, column in enumerate(signature.categorical) if column.name in chosen]
        return judge.importance(name, [predict(_shuffled(inputs, numeric, categorical, order)) for order in orders])

    everything = (*signature.numeric, *signature.categorical)
    views = dict.fromkeys(column.view for column in everything)
    return Importances(
        features=_sorted([measured(column.name, [column]) for column in everything if with_features]),
        views=_sorted([measured(view, [c for c in everything if c.view == view]) for view in views]),
        loss=float(np.mean(losses(y, own))),
        n_rows=len(y),
        n_repeats=n_repeats,
    )


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """Holds the predictions of shuffled rows against those of the rows as they are."""

    y: Floats
    losses: Losses
    metric: Metric | None
    resamples: DayResamples
    own: Floats

    def importance(self, name: str, shuffled: Sequence[Floats]) -> Importance:
        own_loss = self.losses(self.y, self.own)
        increases = [self._mean(self.losses(self.y, predictions) - own_loss) for predictions in shuffled]
        increase = self._estimate(increases)
        if increase is None:
            raise ValueError("there are no rows to shuffle")
        drop = None
        if self.metric is not None:
            own_metric = self.metric(self.resamples, self.y, self.own)
            drop = self._estimate([own_metric - self.metric(self.resamples, self.y, p) for p in shuffled])
        return Importance(name=name, loss_increase=increase, metric_drop=drop)

    def _mean(self, values: Floats) -> Floats:
        """Return the mean of a value of each row, on the rows and on each draw of days, float64 [1 + b]."""
        day, weights = self.resamples.day, self.resamples.weights
        sums, counts = np.bincount(day, values, weights.shape[1]), np.bincount(day, minlength=weights.shape[1])
        return (weights @ sums) / (weights @ counts)

    def _estimate(self, figures: Sequence[Floats]) -> Estimate | None:
        """Return the mean over the shuffles; its error is that of the days and that of the shuffling together."""
        found = self.resamples.estimate(np.mean(figures, axis=0))
        if found is None or found.standard_error is None or len(figures) < 2:
            return found
        of_shuffling = np.std([figure[0] for figure in figures], ddof=1) / np.sqrt(len(figures))
        return Estimate(
            value=found.value,
            standard_error=float(np.hypot(found.standard_error, of_shuffling)),
            n_days=found.n_days,
        )


def _shuffled(inputs: Coded, numeric: Sequence[int], categorical: Sequence[int], order: npt.NDArray[np.int64]) -> Coded:
    """Return the rows with these columns, by place, taken from other rows: the same other row for all of them."""
    changed = Coded(numeric=inputs.numeric.copy(), categorical=inputs.categorical.copy())
    for place in numeric:
        changed.numeric[:, place] = inputs.numeric[order, place]
    for place in categorical:
        changed.categorical[:, place] = inputs.categorical[order, place]
    return changed


def _sorted(found: Sequence[Importance]) -> tuple[Importance, ...]:
    return tuple(sorted(found, key=lambda importance: (-importance.loss_increase.value, importance.name)))
