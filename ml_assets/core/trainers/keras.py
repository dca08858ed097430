"""The Keras 3 trainer, on torch: a small MLP of the same shape as Lightning's, so that both share one ONNX graph."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from ml_assets.core.encoding import UNSEEN_CODE, Coded, Signature, Vocabulary
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.records import RecordedInputs, Rows, numbers_to_look_at
from ml_assets.core.trainers import Epoch, Hyperparameters, Labelled, OnEpoch, WarmStart, versions_of
from ml_assets.core.trainers.checkpoints import Checkpoints, fit_key
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
    """Fits a tabular network with Keras 3 on torch: one thread, seeded, the same bytes every time on one machine.

    A resumable one keeps checkpoints below the work folder: the same fit, killed and called again, goes on after its
    last epoch and ends with the same weights, bit by bit.
    """

    def __init__(self, *, is_resumable: bool = False) -> None:
        self._is_resumable = is_resumable

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
        from ml_assets.core.trainers.warm_start import filled, taken_over

        checkpoints = None
        if self._is_resumable:
            decisive, libraries = {**asdict(settings), "seed": seed}, versions_of("keras", "torch")
            key = fit_key(train, validation, warm_start, settings=decisive, libraries=libraries)
            checkpoints = Checkpoints(work_folder, key=key, kind=tuple[Epoch, ...])
        with _deterministic():
            lower, width = bin_edges(numbers_to_look_at(train.inputs), settings.n_bins)
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
            initial = network.state()
            is_warm = earlier is not None
            history = _train(network, train, validation, settings, seed, is_warm, on_epoch, checkpoints)
            network.load(filled(network.state(), initial, train, is_warm=is_warm))
        return FittedKeras(network=network, history=history, is_warm_started=earlier is not None)


def _train(
    network: "KerasNetwork",
    train: Labelled,
    validation: Labelled,
    settings: KerasSettings,
    seed: int,
    is_warm: bool,
    on_epoch: OnEpoch,
    checkpoints: Checkpoints[tuple[Epoch, ...]] | None,
) -> tuple[Epoch, ...]:
    """Train in place, leave the weights of the epoch with the lowest validation loss, and return the epochs.

    Every draw is seeded by its epoch, so that an epoch after a checkpoint is the one it would have been.
    """
    n_rows = len(train.labels)
    batch_rows = min(settings.batch_rows, max(_SMALLEST_BATCH, n_rows // _STEPS_PER_EPOCH))
    network.compile(
        learning_rate=settings.learning_rate * (settings.warm_start_factor if is_warm else 1.0),
        weight_decay=settings.weight_decay,
        n_steps=settings.n_epochs * -(-n_rows // batch_rows),
    )
    epochs, state = list[Epoch](), dict(network.state())
    newest = checkpoints.newest() if checkpoints else None
    if newest:
        epochs, arrays = list(newest.facts), newest.arrays
        state = {name.removeprefix("best."): array for name, array in arrays.items() if name.startswith("best.")}
        network.load_training_state(arrays)
    while len(epochs) < settings.n_epochs and _epochs_since_best(epochs) < settings.patience:
        number, train_loss = len(epochs) + 1, 0.0
        draw = np.random.default_rng([seed, number])
        network.seed_epoch(int(draw.integers(2**31)))
        for numeric, categorical, labels in _shuffled(train, draw, batch_rows, epoch=number, seed=seed):
            # Otherwise the unseen code would keep its random initial embedding: train has no unseen category.
            codes = np.where(draw.random(categorical.shape) < settings.unseen_share, UNSEEN_CODE, categorical)
            loss = network.fit_one_epoch(Coded(numeric=numeric, categorical=codes), labels, batch_rows=batch_rows)
            train_loss += loss * (len(labels) / n_rows)
        losses = {"train_loss": train_loss, "validation_loss": network.loss(validation)}
        epochs.append(Epoch(number=number, **losses))
        refuse_nan_loss(epochs, hyperparameters=asdict(settings), task=network.task)
        on_epoch(number, losses)
        if _epochs_since_best(epochs) == 0:
            state = dict(network.state())
        if checkpoints:
            arrays = {**network.training_state(), **{f"best.{name}": array for name, array in state.items()}}
            checkpoints.save(number, arrays=arrays, facts=tuple(epochs))
    network.load(state)
    return tuple(epochs)


def _shuffled(train: Labelled, draw: np.random.Generator, batch_rows: int, *, epoch: int, seed: int) -> Iterator[Rows]:
    """Yield all rows in a new order, at once or where they are larger than the memory in parts of whole batches."""
    inputs = train.inputs
    if not isinstance(inputs, RecordedInputs):
        order = draw.permutation(len(train.labels))
        yield inputs.numeric[order], inputs.categorical[order], train.labels[order]
        return
    # A quarter of the memory for the buffer, and as much for each of the copies of what is drawn from it.
    memory_bytes = inputs.memory_bytes // 4
    n_rows = len(inputs) * memory_bytes // inputs.records.decoded_bytes
    part_rows = max(1, n_rows // batch_rows) * batch_rows
    yield from inputs.records.batches(
        batch_rows=part_rows, memory_bytes=memory_bytes, is_shuffled=True, seed=seed, epoch=epoch
    )


def _epochs_since_best(epochs: Sequence[Epoch]) -> int:
    """Return how many epochs have passed since the first with the lowest validation loss; 0 before the first."""
    losses = [epoch.validation_loss for epoch in epochs]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


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
