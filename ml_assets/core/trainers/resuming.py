"""What lets a Lightning training go on after a kill: seeds by epoch, a checkpoint after each, and its way back.

Imports torch and Lightning: only ``trainers/lightning.py`` imports this module, inside its functions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor

from ml_assets.core.errors import ProcessesDisagree
from ml_assets.core.trainers import Epoch
from ml_assets.core.trainers.checkpoints import Checkpoint, Checkpoints
from ml_assets.core.trainers.fitting import BestWeights, TabularModule
from ml_assets.core.trainers.launch import Launch
from ml_assets.core.trainers.slices import SlicingLoader
from ml_assets.core.trainers.streaming import StreamingLoader

_SCHEDULE = ("last_epoch", "_step_count", "_last_lr")  # the rest of OneCycleLR is as it was built


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a checkpoint says beside the arrays.

    Attributes:
        epochs: those that are done.
        lowest: the validation loss of the best of them.
        wait_count: epochs since the early stopping last saw a lower loss.
        stopping_score: the loss it last saw as lowest.
        groups: of the optimizer's parameters, with the learning rate and the momenta of the next step.
        schedule: how far the learning-rate cycle is.
    """

    epochs: tuple[Epoch, ...]
    lowest: float
    wait_count: int
    stopping_score: float
    groups: Sequence[Mapping[str, Any]]
    schedule: Mapping[str, Any]


class EpochSeeds(pl.Callback):
    """Seeds the order of the rows by seed and epoch, the network's noise by seed, epoch and process.

    So an epoch is the same whether the ones before it were trained in this process or before a kill.
    """

    def __init__(self, batches: SlicingLoader | StreamingLoader, *, seed: int, rank: int) -> None:
        self._batches, self._seed, self._rank = batches, seed, rank

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the epoch that begins."""
        number = len(_module(pl_module).epochs) + 1
        self._batches.set_epoch(number)
        draw = np.random.default_rng([self._seed, number, self._rank, 1])
        torch.manual_seed(int(draw.integers(2**63)))


class KeptCheckpoints(pl.Callback):
    """Writes a checkpoint after each epoch. List it after the callbacks whose state it keeps."""

    def __init__(self, checkpoints: Checkpoints[Progress], best: BestWeights, stopping: EarlyStopping) -> None:
        self._checkpoints, self._best, self._stopping = checkpoints, best, stopping

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, on the first process, unless a loss is no number: that training ends with an error anyway."""
        module = _module(pl_module)
        last = module.epochs[-1]
        if not trainer.is_global_zero or not math.isfinite(last.train_loss + last.validation_loss):
            return
        optimizer, schedule = trainer.optimizers[0].state_dict(), trainer.lr_scheduler_configs[0].scheduler.state_dict()
        arrays = {f"network.{name}": tensor for name, tensor in module.network.state_dict().items()}
        arrays |= {f"best.{name}": tensor for name, tensor in self._best.state.items()}
        for number, state in optimizer["state"].items():
            arrays |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
        progress = Progress(
            epochs=tuple(module.epochs),
            lowest=self._best.lowest,
            wait_count=self._stopping.wait_count,
            stopping_score=float(self._stopping.best_score),
            groups=optimizer["param_groups"],
            schedule={name: schedule[name] for name in _SCHEDULE},
        )
        numbers = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
        self._checkpoints.save(last.number, arrays=numbers, facts=progress)


def go_on_from(
    checkpoint: Checkpoint[Progress], module: TabularModule, best: BestWeights, stopping: EarlyStopping
) -> bool:
    """Put a training back to where its checkpoint was written; tell whether it had stopped there."""
    arrays, progress = checkpoint.arrays, checkpoint.facts
    module.network.load_state_dict(_tensors(arrays, "network."))
    module.epochs = list(progress.epochs)
    best.state, best.lowest = _tensors(arrays, "best."), progress.lowest
    stopping.wait_count, stopping.best_score = progress.wait_count, torch.tensor(progress.stopping_score)
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _tensors(arrays, "optimizer.").items():
        number, _, field = name.partition(".")
        states.setdefault(int(number), {})[field] = tensor
    module.earlier_optimizer = {"state": states, "param_groups": [dict(group) for group in progress.groups]}
    module.earlier_schedule = dict(progress.schedule)
    return progress.wait_count >= stopping.patience


def wait_for_all(launch: Launch) -> None:
    """Wait until every process of a training is here: what the first one writes of a fit before is then complete."""
    if launch.n_processes > 1:
        import torch.distributed as dist

        dist.barrier()


def refuse_disagreement(launch: Launch, n_epochs: int) -> None:
    """Raise ProcessesDisagree where the processes of a training would go on from different epochs.

    They would wait for each other for ever. Several processes need an open ``process_group``.
    """
    if launch.n_processes == 1:
        return
    import torch.distributed as dist

    found = [torch.zeros((), dtype=torch.int64) for _ in range(launch.n_processes)]
    dist.all_gather(found, torch.tensor(n_epochs))
    epochs = [int(number) for number in found]
    if len(set(epochs)) > 1:
        raise ProcessesDisagree(
            f"the processes would go on after the epochs {epochs}, by rank; expected the same everywhere: put "
            "ML_ASSETS_HOME on a disk that all of them share, or remove its folder work/candidates to begin anew"
        )


def _module(module: pl.LightningModule) -> TabularModule:
    if not isinstance(module, TabularModule):
        raise TypeError(f"expected a TabularModule, got {type(module).__name__}")
    return module


def _tensors(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(array.copy())
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
