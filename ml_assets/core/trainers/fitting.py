"""The Lightning side of a fit: the module that trains the network and the callback that keeps its best weights.

Imports torch and Lightning: only ``trainers/lightning.py`` imports this module, inside its functions.
"""

import copy

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional

from ml_assets.core.encoding import UNSEEN_CODE
from ml_assets.core.trainers import Epoch, OnEpoch
from ml_assets.core.trainers.network import TabularNetwork
from ml_assets.core.trainers.slices import Batch


class TabularModule(pl.LightningModule):
    """Trains a network on log loss, a regression on squared error, with AdamW and one learning-rate cycle."""

    def __init__(
        self,
        network: TabularNetwork,
        *,
        learning_rate: float,
        weight_decay: float,
        unseen_share: float,
        n_steps: int,
    ) -> None:
        super().__init__()
        self.network = network
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._unseen_share = unseen_share
        self._n_steps = n_steps
        self._train_loss = torch.zeros(())
        self._validation_loss = torch.zeros(())
        self._n_rows = torch.zeros(2)
        self.epochs: list[Epoch] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch in which a small share of the categories is taken for unseen."""
        numeric, categorical, labels = batch
        # Otherwise the unseen code would keep its random initial embedding: train has no unseen category.
        is_hidden = torch.rand(categorical.shape, device=categorical.device) < self._unseen_share
        answers = self.network(numeric, categorical.masked_fill(is_hidden, UNSEEN_CODE))
        loss = self._loss(answers, labels)
        self._train_loss += loss.detach() * len(labels)
        self._n_rows[0] += len(labels)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss."""
        numeric, categorical, labels = batch
        answers = self.network(numeric, categorical)
        self._validation_loss += self._loss(answers, labels, reduction="sum")
        self._n_rows[1] += len(labels)

    def on_validation_epoch_end(self) -> None:
        """Record the epoch and offer its validation loss to the callbacks."""
        epoch = Epoch(
            number=self.current_epoch + 1,
            train_loss=self._told(self._train_loss / self._n_rows[0]),
            validation_loss=self._told(self._validation_loss / self._n_rows[1]),
        )
        self.epochs.append(epoch)
        self._train_loss, self._validation_loss, self._n_rows = torch.zeros(()), torch.zeros(()), torch.zeros(2)
        self.log("validation_loss", epoch.validation_loss)

    def _loss(self, answers: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
        if self.network.is_regression:
            standardised = (labels - self.network.label_mean) / self.network.label_spread
            return functional.mse_loss(answers, standardised, reduction=reduction)
        return functional.binary_cross_entropy_with_logits(answers, labels, reduction=reduction)

    def _told(self, mean_loss: Tensor) -> float:
        """Return a mean loss as ``Epoch`` measures it."""
        return float(mean_loss.sqrt() * self.network.label_spread if self.network.is_regression else mean_loss)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW, which decays weight matrices only, and its one-cycle schedule, stepped at every batch."""
        parameters = list(self.network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self._weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self._learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self._learning_rate, total_steps=self._n_steps, pct_start=0.15
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class BestWeights(pl.Callback):
    """Keeps the weights of the epoch with the lowest validation loss, in memory, and reports every epoch.

    There is no checkpoint file: Lightning's are pickles, and a fit killed half-way gives the undisturbed model only if
    it starts again from its seed.
    """

    def __init__(self, on_epoch: OnEpoch) -> None:
        super().__init__()
        self._on_epoch = on_epoch
        self._lowest = float("inf")
        self.state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the epoch with the best so far."""
        if not isinstance(pl_module, TabularModule):
            raise TypeError(f"expected a TabularModule, got {type(pl_module).__name__}")
        epoch = pl_module.epochs[-1]
        if epoch.validation_loss < self._lowest:
            self._lowest = epoch.validation_loss
            self.state = copy.deepcopy(pl_module.network.state_dict())
        metrics = {"train_loss": epoch.train_loss, "validation_loss": epoch.validation_loss}
        self._on_epoch(epoch.number, metrics)
