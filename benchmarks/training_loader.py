"""What one training epoch costs: a bare loop, Lightning with the slicing loader, Lightning with the usual DataLoader.

    python -m benchmarks.training_loader [--rows 180000]

Prints CPU seconds (user and system) of one epoch at batch 1024, medians of interleaved rounds, and the ratio of each to
the bare loop, which does the same arithmetic on the same network. The aim is at most 1.5 for Lightning with slices.
"""

import argparse
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Sized
from typing import Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ml_assets.core.encoding import UNSEEN_CODE, Coded
from ml_assets.core.trainers import Labelled
from ml_assets.core.trainers.fitting import TabularModule
from ml_assets.core.trainers.lightning import LightningSettings, loader
from ml_assets.core.trainers.network import TabularNetwork, bin_edges
from ml_assets.core.trainers.slices import Batch

N_NUMERIC, CARDINALITIES = 56, (18, 5, 107)  # of arrival_delay
BATCH_ROWS = 1024
LIMIT = 1.5


class Batches(Iterable[Batch], Sized, Protocol):
    """What an epoch reads."""


class EpochClock(pl.Callback):
    """Measures the CPU seconds between the start and the end of the training epoch."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self.seconds = -time.process_time()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        self.seconds += time.process_time()


def make_examples(n_rows: int) -> Labelled:
    """Return random examples of the shape of ``arrival_delay``."""
    draw = np.random.default_rng(1)
    numeric = draw.normal(size=(n_rows, N_NUMERIC)).astype(np.float32)
    numeric[draw.random(numeric.shape) < 0.05] = np.nan
    categorical = np.stack([draw.integers(2, cardinality, n_rows) for cardinality in CARDINALITIES], axis=1)
    return Labelled(
        inputs=Coded(numeric=numeric, categorical=categorical), labels=(draw.random(n_rows) < 0.24).astype(np.float32)
    )


def make_module(examples: Labelled, settings: LightningSettings, n_steps: int) -> TabularModule:
    """Return the module the Lightning trainer fits."""
    torch.manual_seed(1)
    lower, width = bin_edges(examples.inputs.numeric[:20_000], settings.n_bins)
    network = TabularNetwork(
        lower,
        width,
        CARDINALITIES,
        embedding_size=settings.embedding_size,
        layer_sizes=[int(size) for size in settings.layer_sizes.split(",")],
        dropout=settings.dropout,
    )
    return TabularModule(
        network,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        unseen_share=settings.unseen_share,
        n_steps=n_steps,
    )


def bare_epoch(examples: Labelled, settings: LightningSettings) -> float:
    """Return the CPU seconds of one epoch of a plain torch loop."""
    batches = loader(examples, batch_rows=BATCH_ROWS, is_shuffled=True)
    network = make_module(examples, settings, len(batches)).network.train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=len(batches))
    started = time.process_time()
    for numeric, categorical, labels in batches:
        is_hidden = torch.rand(categorical.shape) < settings.unseen_share
        logits = network(numeric, categorical.masked_fill(is_hidden, UNSEEN_CODE))
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - started


def lightning_epoch(examples: Labelled, settings: LightningSettings, batches: Batches) -> float:
    """Return the CPU seconds of one epoch under Lightning, whatever feeds it."""
    clock = EpochClock()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        deterministic=True,
        max_epochs=1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(make_module(examples, settings, len(batches)), batches)
    return clock.seconds


def usual_loader(examples: Labelled) -> Batches:
    """Return what a tutorial would write: a TensorDataset behind a shuffling DataLoader that collates rows."""
    arrays = examples.inputs.numeric, examples.inputs.categorical, examples.labels
    return DataLoader(TensorDataset(*map(torch.from_numpy, arrays)), batch_size=BATCH_ROWS, shuffle=True)


def main() -> int:
    """Measure and print; return 1 where the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=180_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning.*")
    examples, settings = make_examples(arguments.rows), LightningSettings()
    slices = loader(examples, batch_rows=BATCH_ROWS, is_shuffled=True)
    variants = {
        "bare loop": lambda: bare_epoch(examples, settings),
        "Lightning, slicing loader": lambda: lightning_epoch(examples, settings, slices),
        "Lightning, usual DataLoader": lambda: lightning_epoch(examples, settings, usual_loader(examples)),
    }
    bare_epoch(make_examples(20_000), settings)  # the first steps of a process pay for its thread pools
    rounds = [{name: measure() for name, measure in variants.items()} for _ in range(arguments.rounds)]
    medians = {name: statistics.median(times[name] for times in rounds) for name in variants}
    print(f"one epoch of {arguments.rows:,} rows at batch {BATCH_ROWS}, median of {arguments.rounds} rounds")
    for name, seconds in medians.items():
        print(f"{name:<28} {seconds:6.2f} CPU s  {seconds / medians['bare loop']:5.2f} x the bare loop")
    found = medians["Lightning, slicing loader"] / medians["bare loop"]
    print(f"Lightning with slices: {found:.2f} (limit {LIMIT}): {'held' if found <= LIMIT else 'MISSED'}")
    return 0 if found <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
