"""The Keras 3 trainer, on torch: a small MLP of the same shape as Lightning's, so that both share one ONNX graph."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from ml_assets.core.encoding import UNSEEN_CODE, Coded, Signature, Vocabulary
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.trainers import Epoch, Hyperparameters, Labelled, OnEpoch, WarmStart, versions_of
from ml_assets.core.trainers.refusals import refuse_nan_loss, refuse_unlearnable, settings_of

if TYPE_CHECKING:
    from ml_assets.core.trainers.keras_network import KerasNetwork

# Judgement, as for Lightning: below 100 steps an epoch a small training set would hardly move the weights.
_STEPS_PER_EPOCH = 100
_SMALLEST_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class KerasSettings:
    """The hyperparameters and their defaults, with the meaning they have for Lightning; the defaults are judgement."""

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

    @property
    def units(self) -> tuple[int, ...]:
        """The units of the hidden layers."""
        return tuple(int(size) for size in self.layer_sizes.split(","))


@dataclass(frozen=True, kw_only=True)
class FittedKeras:
    """A Keras network with the weights of its best epoch."""

    network: "KerasNetwork"
    history: tuple[Epoch, ...]
    is_warm_started: bool

    @property
    def libraries(self) -> Mapping[str, str]:
        """The versions of Keras and of torch, which computes for it."""
        return versions_of("keras", "torch")

    @property
    def thresholds(self) -> Mapping[int, np.ndarray]:
        """The edges of the bins of each numeric column."""
        from ml_assets.core.trainers.network import bin_thresholds

        return bin_thresholds(self.network.lower, self.network.width)

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return probabilities or numbers, float64 [n], computed by Keras."""
        with _deterministic():
            return self.network.predict(inputs)

    def to_onnx(self) -> bytes:
        """Return the ONNX graph of the network."""
        from ml_assets.core.trainers.network import INPUT_LIMIT
        from ml_assets.core.trainers.onnx_graph import to_onnx

        return to_onnx(self.weights(), n_categorical=self.network.n_categorical, input_limit=INPUT_LIMIT)

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return every weight and bin by the name and in the shape the Lightning network gives it."""
        return self.network.state()


class KerasTrainer:
    """Fits a tabular network with Keras 3 on torch: one thread, seeded, the same bytes every time on one machine."""

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
    ) -> FittedKeras:
        """Fit on train, stop early by validation, and return the network of the best epoch."""
        settings = _settings(hyperparameters)
        refuse_unlearnable(train, validation, task=signature.output.task)
        _require_keras_on_torch()
        from ml_assets.core.trainers.keras_network import KerasNetwork
        from ml_assets.core.trainers.network import bin_edges, label_scale_of
        from ml_assets.core.trainers.warm_start import taken_over

        with _deterministic():
            lower, width = bin_edges(train.inputs.numeric, settings.n_bins)
            network = KerasNetwork(
                lower,
                width,
                [vocabulary.cardinality(column.name) for column in signature.categorical],
                embedding_size=settings.embedding_size,
                layer_sizes=settings.units,
                dropout=settings.dropout,
                seed=seed,
                label_scale=label_scale_of(train.labels, signature.output.task),
            )
            earlier = taken_over(network.state(), signature, vocabulary, warm_start) if warm_start else None
            if earlier:
                network.load(earlier)
            history = _train(network, train, validation, settings, seed, earlier is not None, on_epoch)
        return FittedKeras(network=network, history=history, is_warm_started=earlier is not None)


def _train(
    network: "KerasNetwork",
    train: Labelled,
    validation: Labelled,
    settings: KerasSettings,
    seed: int,
    is_warm: bool,
    on_epoch: OnEpoch,
) -> tuple[Epoch, ...]:
    """Train in place, leave the weights of the epoch with the lowest validation loss, and return the epochs."""
    draw = np.random.default_rng(seed)
    n_rows = len(train.labels)
    batch_rows = min(settings.batch_rows, max(_SMALLEST_BATCH, n_rows // _STEPS_PER_EPOCH))
    network.compile(
        learning_rate=settings.learning_rate * (settings.warm_start_factor if is_warm else 1.0),
        weight_decay=settings.weight_decay,
        n_steps=settings.n_epochs * -(-n_rows // batch_rows),
    )
    epochs, best, state = list[Epoch](), 0, dict(network.state())
    for number in range(1, settings.n_epochs + 1):
        order = draw.permutation(n_rows)
        codes = train.inputs.categorical[order]
        # Otherwise the unseen code would keep its random initial embedding: train has no unseen category.
        codes = np.where(draw.random(codes.shape) < settings.unseen_share, UNSEEN_CODE, codes)
        inputs = Coded(numeric=train.inputs.numeric[order], categorical=codes)
        train_loss = network.fit_one_epoch(inputs, train.labels[order], batch_rows=batch_rows)
        losses = {"train_loss": train_loss, "validation_loss": network.loss(validation)}
        epochs.append(Epoch(number=number, **losses))
        refuse_nan_loss(epochs, hyperparameters=asdict(settings), task=network.task)
        on_epoch(number, losses)
        if number == 1 or epochs[-1].validation_loss < epochs[best].validation_loss:
            best, state = number - 1, dict(network.state())
        if number - 1 - best >= settings.patience:
            break
    network.load(state)
    return tuple(epochs)


def _settings(hyperparameters: Hyperparameters) -> KerasSettings:
    return settings_of(KerasSettings, hyperparameters, trainer="the keras trainer")


def _require_keras_on_torch() -> None:
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise InvalidDeclaration(
                "the keras trainer needs keras, which is not installed: pip install 'ml-assets[keras]'"
            ) from error
        raise InvalidDeclaration(
            f"Keras is set to a backend whose {error.name} is not installed; set KERAS_BACKEND=torch and start again"
        ) from error
    found = keras.backend.backend()
    if found != "torch":
        raise InvalidDeclaration(f"Keras runs on {found}, expected torch; set KERAS_BACKEND=torch and start again")


@contextmanager
def _deterministic() -> Generator[None]:
    """Ask torch for the CPU, one thread and deterministic algorithms; undo it afterwards. Draws are seeded."""
    import keras
    import torch

    was_deterministic, n_threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    try:
        with keras.device("cpu"):
            yield
    finally:
        torch.set_num_threads(n_threads)
        torch.use_deterministic_algorithms(was_deterministic)
