"""The PyTorch Lightning trainer: a small MLP over embeddings and piecewise-linear numbers, the same bits every time."""

import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from ml_assets.core.encoding import Coded, Signature, Vocabulary
from ml_assets.core.records import RecordedInputs, numbers_to_look_at
from ml_assets.core.trainers import Epoch, Hyperparameters, Labelled, OnEpoch, WarmStart, versions_of
from ml_assets.core.trainers.checkpoints import Checkpoints, fit_key
from ml_assets.core.trainers.launch import ONE_PROCESS, Launch
from ml_assets.core.trainers.refusals import refuse_nan_loss, refuse_unlearnable, settings_of
from ml_assets.core.trainers.warm_start import fill_absent

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import Callback

    from ml_assets.core.trainers.network import TabularNetwork
    from ml_assets.core.trainers.resuming import Progress
    from ml_assets.core.trainers.slices import SlicingLoader
    from ml_assets.core.trainers.streaming import StreamingLoader

_PREDICTION_ROWS = 8192
# Judgement: below 100 steps an epoch a small training set would hardly move the weights.
_STEPS_PER_EPOCH = 100
_SMALLEST_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class LightningSettings:
    """The hyperparameters and their defaults.

    They are judgement: eight settings tried on ``arrival_delay`` (January to September 2013, then October to December)
    lay within 0.003 of ROC AUC, and these are among the cheapest.

    Attributes:
        layer_sizes: units of the hidden layers, separated by commas.
        embedding_size: numbers per category.
        n_bins: quantile bins per number.
        dropout: share of hidden units switched off in training.
        unseen_share: share of the categories taken for unseen in training.
        learning_rate: the highest of the cycle.
        warm_start_factor: what the learning rate is multiplied with when the champion's weights are taken over.
        weight_decay: of AdamW, on weight matrices.
        batch_rows: at most; fewer where train is small, so that an epoch has about 100 steps.
        n_epochs: at most.
        patience: epochs without a lower validation loss after which training stops.
        accelerator: ``cpu`` is deterministic; ``gpu`` and ``auto`` as in Lightning.
    """

    layer_sizes: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*$")] = "128,64"
    embedding_size: Annotated[int, Meta(ge=1, le=256)] = 8
    n_bins: Annotated[int, Meta(ge=1, le=256)] = 8
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    unseen_share: Annotated[float, Meta(ge=0, lt=1)] = 0.01
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.002
    warm_start_factor: Annotated[float, Meta(gt=0, le=1)] = 0.5
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    batch_rows: Annotated[int, Meta(ge=1)] = 1024
    n_epochs: Annotated[int, Meta(ge=1, le=10_000)] = 5
    patience: Annotated[int, Meta(ge=1)] = 2
    accelerator: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class FittedNetwork:
    """A trained network with the weights of its best epoch."""

    network: "TabularNetwork"
    history: tuple[Epoch, ...]
    is_warm_started: bool

    @property
    def libraries(self) -> Mapping[str, str]:
        """The versions of Lightning and torch."""
        return versions_of("pytorch-lightning", "torch")

    @property
    def thresholds(self) -> Mapping[int, np.ndarray]:
        """The edges of the bins of each numeric column."""
        from ml_assets.core.trainers.network import bin_thresholds

        return bin_thresholds(self.network.lower.numpy(), self.network.width.numpy())

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return probabilities or numbers, float64 [n], computed by torch."""
        import torch

        from ml_assets.core.trainers.network import AnsweringNetwork

        model = AnsweringNetwork(self.network).eval()
        with torch.inference_mode():
            parts = [
                model(
                    torch.from_numpy(inputs.numeric[start : start + _PREDICTION_ROWS]),
                    torch.from_numpy(inputs.categorical[start : start + _PREDICTION_ROWS]),
                ).numpy()
                for start in range(0, len(inputs), _PREDICTION_ROWS)
            ]
        return np.concatenate([np.empty(0, dtype=np.float64), *parts])

    def to_onnx(self) -> bytes:
        """Return the ONNX graph of the network."""
        from ml_assets.core.trainers.network import INPUT_LIMIT
        from ml_assets.core.trainers.onnx_graph import to_onnx

        return to_onnx(self.weights(), n_categorical=len(self.network.embeddings), input_limit=INPUT_LIMIT)

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return every parameter and buffer of the network by its name in torch."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.network.state_dict().items()}


class LightningTrainer:
    """Fits a tabular network with PyTorch Lightning, in one process or in those of a launch together.

    With a launch it also keeps checkpoints below the work folder: the same fit, killed and called again, goes on after
    its last epoch and ends with the same weights, bit by bit. Without one (a trial of a study) it keeps none.
    """

    def __init__(self, launch: Launch | None = None) -> None:
        self._is_resumable = launch is not None
        self._launch = launch or ONE_PROCESS

    def resolve(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Return all hyperparameters, defaults filled in; raise InvalidDeclaration for an unknown or unusable one."""
        return asdict(_settings(hyperparameters))

    def fit(
        self,
        train: Labelled,
        validation: Labelled,
        *,
        signature: Signature,
        vocabulary: Vocabulary,
        hyperparameters: Hyperparameters,
        seed: int,
        warm_start: WarmStart | None,
        on_epoch: OnEpoch,
        work_folder: Path,
    ) -> FittedNetwork:
        """Fit on train, stop early by validation, and return the network of the best epoch."""
        import torch

        settings = _settings(hyperparameters)
        refuse_unlearnable(train, validation, task=signature.output.task)
        checkpoints = None
        if self._is_resumable:
            from ml_assets.core.trainers.resuming import Progress

            decisive = {**asdict(settings), "seed": seed, "n_processes": self._launch.n_processes}
            libraries = versions_of("pytorch-lightning", "torch")
            key = fit_key(train, validation, warm_start, settings=decisive, libraries=libraries)
            checkpoints = Checkpoints(work_folder, key=key, kind=Progress)
        with _quiet_and_deterministic(seed):
            network, is_warm = _network(train, signature, vocabulary, settings, warm_start)
            initial = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
            epochs = self._train(network, train, validation, settings, seed, is_warm, on_epoch, checkpoints)
            refuse_nan_loss(epochs, hyperparameters=asdict(settings), task=signature.output.task)
            network = network.to(torch.device("cpu")).eval()
            fill_absent(network, initial, train, is_warm=is_warm)
        return FittedNetwork(network=network, history=epochs, is_warm_started=is_warm)

    def _train(
        self,
        network: "TabularNetwork",
        train: Labelled,
        validation: Labelled,
        settings: LightningSettings,
        seed: int,
        is_warm: bool,
        on_epoch: OnEpoch,
        checkpoints: "Checkpoints[Progress] | None",
    ) -> tuple[Epoch, ...]:
        """Train in place, from the newest checkpoint on, and leave the weights of the best epoch."""
        from pytorch_lightning.callbacks import EarlyStopping

        from ml_assets.core.trainers.fitting import BestWeights, TabularModule
        from ml_assets.core.trainers.resuming import (
            EpochSeeds,
            KeptCheckpoints,
            go_on_from,
            refuse_disagreement,
            wait_for_all,
        )

        batch_rows = min(settings.batch_rows, max(_SMALLEST_BATCH, len(train.labels) // _STEPS_PER_EPOCH))
        share = self._launch.rank, self._launch.n_processes
        batches = loader(train, batch_rows=batch_rows, is_shuffled=True, seed=seed, share=share)
        module = TabularModule(
            network,
            learning_rate=settings.learning_rate * (settings.warm_start_factor if is_warm else 1.0),
            weight_decay=settings.weight_decay,
            unseen_share=settings.unseen_share,
            n_steps=len(batches) * settings.n_epochs,
        )
        best = BestWeights(on_epoch)
        # At the end of validation: a checkpoint, written at the end of the epoch, holds what it found.
        stopping = EarlyStopping("validation_loss", patience=settings.patience, check_on_train_epoch_end=False)
        callbacks: list[Callback] = [EpochSeeds(batches, seed=seed, rank=self._launch.rank), best, stopping]
        has_stopped = False
        if checkpoints:
            callbacks.append(KeptCheckpoints(checkpoints, best, stopping))
            wait_for_all(self._launch)
            newest = checkpoints.newest()
            has_stopped = newest is not None and go_on_from(newest, module, best, stopping)
        refuse_disagreement(self._launch, len(module.epochs))
        n_left = 0 if has_stopped else settings.n_epochs - len(module.epochs)
        if n_left:
            trainer = _lightning(callbacks, settings, self._launch, n_epochs=n_left)
            trainer.fit(module, batches, loader(validation, batch_rows=_PREDICTION_ROWS, is_shuffled=False))
        # Where every loss was NaN there is no best epoch.
        if best.state:
            network.load_state_dict(best.state)
        return tuple(module.epochs)


def _lightning(
    callbacks: "list[Callback]", settings: LightningSettings, launch: Launch, *, n_epochs: int
) -> "pl.Trainer":
    """Return Lightning's own trainer: silent, deterministic, without its checkpoints, which are pickles."""
    import pytorch_lightning as pl
    from pytorch_lightning.strategies import DDPStrategy

    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=launch.n_per_node,
        num_nodes=launch.n_nodes,
        # The only buffers are constants, and sums that each process has of its own.
        strategy=DDPStrategy(broadcast_buffers=False) if launch.n_processes > 1 else "auto",
        use_distributed_sampler=False,
        deterministic=True,
        max_epochs=n_epochs,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def loader(
    examples: Labelled, *, batch_rows: int, is_shuffled: bool, seed: int = 0, share: tuple[int, int] = (0, 1)
) -> "SlicingLoader | StreamingLoader":
    """Return the batches of these examples, or a share of each; shuffled ones in an order of seed and epoch.

    They are slices of arrays, or are read from a file that is larger than the memory for it.
    """
    import torch

    from ml_assets.core.trainers.slices import SlicingLoader
    from ml_assets.core.trainers.streaming import StreamingLoader

    if isinstance(examples.inputs, RecordedInputs):
        own_rows = -(-batch_rows // share[1])
        return StreamingLoader(examples.inputs, batch_rows=own_rows, is_shuffled=is_shuffled, seed=seed, share=share)
    return SlicingLoader(
        torch.from_numpy(examples.inputs.numeric),
        torch.from_numpy(examples.inputs.categorical),
        torch.from_numpy(examples.labels),
        batch_rows=batch_rows,
        is_shuffled=is_shuffled,
        seed=seed,
        share=share,
    )


def _settings(hyperparameters: Hyperparameters) -> LightningSettings:
    return settings_of(LightningSettings, hyperparameters, trainer="the lightning trainer")


def _network(
    train: Labelled,
    signature: Signature,
    vocabulary: Vocabulary,
    settings: LightningSettings,
    warm_start: WarmStart | None,
) -> tuple["TabularNetwork", bool]:
    """Return a new network, its bins laid on train, or with the earlier model's weights where they fit."""
    from ml_assets.core.trainers.network import TabularNetwork, bin_edges, label_scale_of
    from ml_assets.core.trainers.warm_start import take_over

    lower, width = bin_edges(numbers_to_look_at(train.inputs), settings.n_bins)
    network = TabularNetwork(
        lower,
        width,
        [vocabulary.cardinality(column.name) for column in signature.categorical],
        embedding_size=settings.embedding_size,
        layer_sizes=[int(size) for size in settings.layer_sizes.split(",")],
        dropout=settings.dropout,
        label_scale=label_scale_of(train.labels, signature.output.task),
    )
    is_warm = warm_start is not None and take_over(network, signature, vocabulary, warm_start)
    return network, is_warm


@contextmanager
def _quiet_and_deterministic(seed: int) -> Generator[None]:
    """Seed torch, ask it for one thread and deterministic algorithms, Lightning for silence; undo it all afterwards.

    On a network of this size threads mostly wait for each other, at full load: on two busy cores an epoch with two
    took five times the CPU and the time of an epoch with one. And the sums do not depend on how many cores there are.
    """
    import torch

    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    was_deterministic, n_threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with torch.random.fork_rng(), warnings.catch_warnings():
        # Lightning's advice is on DataLoader workers and on loggers, neither of which is used here.
        warnings.filterwarnings("ignore", module=r"pytorch_lightning.*")
        warnings.filterwarnings("ignore", module=r"lightning_fabric.*|lightning_utilities.*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            torch.use_deterministic_algorithms(was_deterministic)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
