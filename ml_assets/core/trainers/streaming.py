"""Batches from a file of records that is larger than the memory for it: what ``SlicingLoader`` is for arrays."""

from collections.abc import Iterator

import torch

from ml_assets.core.records import RecordedInputs
from ml_assets.core.trainers.slices import Batch


class StreamingLoader:
    """Yields (numeric, categorical, label) batches; shuffled ones in a new order at every pass.

    See ``RecordFile.batches`` for how well they are shuffled, and for ``share`` (k, n). The order depends on ``seed``
    and the number of the epoch: passes count from 1, unless ``set_epoch`` says which is next. A quarter of the memory
    is left to the batches that are under way.
    """

    def __init__(
        self,
        inputs: RecordedInputs,
        *,
        batch_rows: int,
        is_shuffled: bool,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._records = inputs.records
        self._batch_rows = batch_rows
        self._is_shuffled = is_shuffled
        self._memory_bytes = inputs.memory_bytes // 4 * 3
        self._seed = seed
        self._share = share
        self._next_epoch = 1

    def set_epoch(self, number: int) -> None:
        """Let the next pass have the order of this epoch."""
        self._next_epoch = number

    def __len__(self) -> int:
        return self._records.n_batches(self._batch_rows, self._share)

    def __iter__(self) -> Iterator[Batch]:
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        for numeric, categorical, labels in self._records.batches(
            batch_rows=self._batch_rows,
            memory_bytes=self._memory_bytes,
            is_shuffled=self._is_shuffled,
            seed=self._seed,
            epoch=epoch,
            share=self._share,
        ):
            yield torch.from_numpy(numeric), torch.from_numpy(categorical), torch.from_numpy(labels)
