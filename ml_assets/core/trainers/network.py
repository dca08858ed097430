"""The network of the Lightning trainer: embeddings and piecewise-linear bins in, one logit or standardised number out.

Every constant it needs is a buffer of the graph, so scoring computes nothing of its own. Imports torch: only
``trainers/lightning.py`` imports this module, inside its functions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ml_assets.core.encoding import Task

INPUT_LIMIT = 1e29  # numbers are clamped to plus and minus this
_NEVER_REACHED = np.float32(1e30)  # the lower edge of a bin that is not there: its share is 0 for any clamped number


def bin_edges(numeric: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lower edges and widths, float32 [k, n_bins], of quantile bins of each column of [n, k] with NaN for null.

    A column with few distinct values gets fewer bins; the rest of its row is never reached.

    >>> bin_edges(np.array([[0.0], [1.0], [1.0], [3.0]], dtype=np.float32), 2)[0].tolist()
    [[0.0, 1.0]]
    """
    lower = np.full((numeric.shape[1], n_bins), _NEVER_REACHED, dtype=np.float32)
    width = np.ones_like(lower)
    for column in range(numeric.shape[1]):
        values = numeric[:, column]
        values = values[np.isfinite(values)]
        if values.size == 0:
            continue
        edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, n_bins + 1)).astype(np.float32))
        if edges.size == 1:
            edges = np.array([edges[0], edges[0] + max(1.0, abs(edges[0]))], dtype=np.float32)
        lower[column, : edges.size - 1] = edges[:-1]
        width[column, : edges.size - 1] = np.diff(edges)
    return lower, width


def bin_thresholds(lower: np.ndarray, width: np.ndarray) -> Mapping[int, np.ndarray]:
    """Return where the shares of each column bend, ascending: the edges of the bins that are there.

    >>> lower, width = bin_edges(np.array([[0.0], [1.0], [1.0], [3.0]], dtype=np.float32), 2)
    >>> bin_thresholds(lower, width)[0].tolist()
    [0.0, 1.0, 3.0]
    """
    is_there = lower < _NEVER_REACHED
    upper = lower + width
    columns = {column: np.union1d(lower[column, there], upper[column, there]) for column, there in enumerate(is_there)}
    return {column: edges.astype(np.float64) for column, edges in columns.items() if edges.size}


class TabularNetwork(nn.Module):
    """An MLP over piecewise-linear encodings (Gorishniy et al. 2022, arXiv 2203.05556) and embeddings.

    ``label_scale``, the mean and the spread of train's labels, makes it a regression. A null number has all bins 0 and
    its own indicator 1. Numbers beyond the outer edges are clamped to them, so no
    input, however wrong its unit, can drive the logit beyond what training saw.
    """

    lower: Tensor
    width: Tensor
    label_mean: Tensor
    label_spread: Tensor

    def __init__(
        self,
        lower: np.ndarray,
        width: np.ndarray,
        cardinalities: Sequence[int],
        *,
        embedding_size: int,
        layer_sizes: Sequence[int],
        dropout: float,
        label_scale: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("lower", torch.from_numpy(lower.copy()))
        self.register_buffer("width", torch.from_numpy(width.copy()))
        self.is_regression = label_scale is not None
        if label_scale:
            self.register_buffer("label_mean", torch.tensor(label_scale[0], dtype=torch.float32))
            self.register_buffer("label_spread", torch.tensor(label_scale[1], dtype=torch.float32))
        sizes = [min(embedding_size, cardinality) for cardinality in cardinalities]
        self.embeddings = nn.ModuleList(
            nn.Embedding(cardinality, size) for cardinality, size in zip(cardinalities, sizes, strict=True)
        )
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.1)  # pyright: ignore[reportArgumentType] # ModuleList is untyped
        layers: list[nn.Module] = []
        n_in = lower.size + lower.shape[0] + sum(sizes)
        for n_out in layer_sizes:
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
            n_in = n_out
        self.layers = nn.Sequential(*layers, nn.Linear(n_in, 1))

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Return logits, or standardised answers of a regression, [n].

        The inputs are numbers [n, k] (NaN for null) and category codes [n, m].
        """
        is_null = torch.isnan(numeric)
        filled = torch.where(is_null, -INPUT_LIMIT, torch.clamp(numeric, -INPUT_LIMIT, INPUT_LIMIT))
        shares = torch.clamp((filled.unsqueeze(2) - self.lower) / self.width, 0.0, 1.0)
        parts = [shares.flatten(1), is_null.to(numeric.dtype)]
        parts += [embedding(categorical[:, column]) for column, embedding in enumerate(self.embeddings)]
        return self.layers(torch.cat(parts, dim=1)).squeeze(1)


class AnsweringNetwork(nn.Module):
    """What is exported: the probability instead of the logit, or the number in the unit of the label."""

    def __init__(self, network: TabularNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Return probabilities [n] between 0 and 1, or numbers [n]."""
        raw = self.network(numeric, categorical)
        if self.network.is_regression:
            return raw * self.network.label_spread + self.network.label_mean
        return torch.sigmoid(raw)


def label_scale_of(labels: np.ndarray, task: Task) -> tuple[float, float] | None:
    """Return the mean and the standard deviation of a regression's labels; None for a classification.

    >>> label_scale_of(np.array([1.0, 3.0], dtype=np.float32), "regression")
    (2.0, 1.0)
    """
    if task != "regression":
        return None
    return float(np.mean(labels, dtype=np.float64)), float(np.std(labels, dtype=np.float64))
