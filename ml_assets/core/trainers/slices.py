"""Batches as slices of tensors in memory: what a tabular net needs instead of a DataLoader that collates rows."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]


class SlicingLoader:
    """Yields (numeric, categorical, label) batches; shuffled ones in a new order at every pass.

    Rows are shuffled once per pass and gathered batch by batch, so a pass copies every row once. The order depends on
    ``seed`` and the epoch alone, so that a resumed training and every process of a shared one see the same.

    ``share`` is (k, n): of each batch, every n-th row from the k-th on. The n shares of a batch are equally large, and
    together are the batch that a single process would see; up to n - 1 rows are left out of a pass, others each time.
    """

    def __init__(
        self,
        numeric: Tensor,
        categorical: Tensor,
        labels: Tensor,
        *,
        batch_rows: int,
        is_shuffled: bool,
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ):
        self._tensors = (numeric, categorical, labels)
        self._seed, self._share = seed, share
        self._n_rows = len(labels) // share[1] * share[1]
        self._batch_rows = -(-batch_rows // share[1]) * share[1]
        self._is_shuffled = is_shuffled
        self._n_all = len(labels)
        self._generator = torch.Generator()
        self.set_epoch(1)

    def set_epoch(self, number: int) -> None:
        """Let the next pass have the order of this epoch."""
        self._generator.manual_seed(int(np.random.default_rng([self._seed, number]).integers(2**63)))

    def __len__(self) -> int:
        return -(-self._n_rows // self._batch_rows)

    def __iter__(self) -> Iterator[Batch]:
        numeric, categorical, labels = self._tensors
        first, step = self._share
        order = torch.randperm(self._n_all, generator=self._generator) if self._is_shuffled else None
        for start in range(0, self._n_rows, self._batch_rows):
            end = min(start + self._batch_rows, self._n_rows)
            if order is None:
                rows = slice(start + first, end, step)
                yield numeric[rows], categorical[rows], labels[rows]
            else:
                rows = order[start + first : end : step]
                yield numeric.index_select(0, rows), categorical.index_select(0, rows), labels.index_select(0, rows)
