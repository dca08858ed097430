"""Batches as slices of tensors in memory: what a tabular net needs instead of a DataLoader that collates rows."""

from collections.abc import Iterator

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]


class SlicingLoader:
    """Yields (numeric, categorical, label) batches; shuffled ones in a new order at every pass.

    Rows are shuffled once per pass and gathered batch by batch, so a pass copies every row once. The order comes from
    torch's generator: seed it before the first pass.
    """

    def __init__(self, numeric: Tensor, categorical: Tensor, labels: Tensor, *, batch_rows: int, is_shuffled: bool):
        self._tensors = (numeric, categorical, labels)
        self._n_rows = len(labels)
        self._batch_rows = batch_rows
        self._is_shuffled = is_shuffled

    def __len__(self) -> int:
        return -(-self._n_rows // self._batch_rows)

    def __iter__(self) -> Iterator[Batch]:
        numeric, categorical, labels = self._tensors
        order = torch.randperm(self._n_rows) if self._is_shuffled else None
        for start in range(0, self._n_rows, self._batch_rows):
            end = start + self._batch_rows
            if order is None:
                yield numeric[start:end], categorical[start:end], labels[start:end]
            else:
                rows = order[start:end]
                yield numeric.index_select(0, rows), categorical.index_select(0, rows), labels.index_select(0, rows)
