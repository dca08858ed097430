"""The network of the Keras trainer: the layers of ``TabularNetwork``, its weights under the same names.

Imports Keras and torch: only ``trainers/keras.py`` imports this module, inside its functions.
"""

# Keras' types are inferred from the defaults of its arguments, for all of its backends at once.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportReturnType=false, reportCallIssue=false
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import torch

from ml_assets.core.encoding import Coded, Task
from ml_assets.core.records import answers
from ml_assets.core.trainers import Labelled
from ml_assets.core.trainers.network import INPUT_LIMIT

_PREDICTION_ROWS = 8192
_LAYERS_PER_LINEAR = 3  # torch counts the linear, the activation and the dropout


class PiecewiseLinear(keras.layers.Layer):
    """Numbers [n, k] with NaN for null -> the share of each bin that lies below them, and null indicators."""

    def __init__(self, lower: np.ndarray, width: np.ndarray) -> None:
        super().__init__()
        self.lower = self.add_weight(shape=lower.shape, trainable=False, initializer="zeros", name="lower")
        self.width = self.add_weight(shape=width.shape, trainable=False, initializer="ones", name="width")
        self.lower.assign(lower)
        self.width.assign(width)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return [n, k * n_bins + k]."""
        ops = keras.ops
        is_null = ops.isnan(inputs)
        filled = ops.where(is_null, -INPUT_LIMIT, ops.clip(inputs, -INPUT_LIMIT, INPUT_LIMIT))
        shares = ops.clip((ops.expand_dims(filled, 2) - self.lower) / self.width, 0.0, 1.0)
        n_shares = self.lower.shape[0] * self.lower.shape[1]
        return ops.concatenate([ops.reshape(shares, (-1, n_shares)), ops.cast(is_null, "float32")], axis=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """Return the shape of what ``call`` returns."""
        return input_shape[0], self.lower.shape[0] * (self.lower.shape[1] + 1)


class KerasNetwork:
    """An MLP over piecewise-linear numbers and embeddings, whose random draws all have seeds of their own.

    ``label_scale``, the mean and the spread of train's labels, makes it a regression.
    """

    def __init__(
        self,
        lower: np.ndarray,
        width: np.ndarray,
        cardinalities: Sequence[int],
        *,
        embedding_size: int,
        layer_sizes: Sequence[int],
        dropout: float,
        seed: int,
        label_scale: tuple[float, float] | None = None,
    ) -> None:
        layers = keras.layers
        self._label_scale = np.array(label_scale, dtype=np.float32) if label_scale else None
        self.n_categorical = len(cardinalities)
        numeric = keras.Input((len(lower),), dtype="float32")
        categorical = keras.Input((self.n_categorical,), dtype="int64")
        self._bins = PiecewiseLinear(lower, width)
        self._embeddings = [
            layers.Embedding(
                cardinality,
                embedding_size,
                embeddings_initializer=keras.initializers.RandomNormal(stddev=0.1, seed=_seed(seed, 0, number)),
            )
            for number, cardinality in enumerate(cardinalities)
        ]
        self._linear = [
            layers.Dense(
                size, activation="relu", kernel_initializer=keras.initializers.HeUniform(seed=_seed(seed, 1, number))
            )
            for number, size in enumerate(layer_sizes)
        ]
        parts = [self._bins(numeric)] if len(lower) else []
        parts += [embedding(categorical[:, number]) for number, embedding in enumerate(self._embeddings)]
        dropouts: list[keras.layers.Dropout] = []
        last = layers.Concatenate(axis=1)(parts) if len(parts) > 1 else parts[0]
        for number, linear in enumerate(self._linear):
            dropouts.append(layers.Dropout(dropout, seed=_seed(seed, 2, number)))
            last = dropouts[-1](linear(last))
        self._linear.append(
            layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=_seed(seed, 1, len(layer_sizes))))
        )
        self._dropouts: list[keras.layers.Dropout] = dropouts
        self._model = keras.Model([numeric, categorical], self._linear[-1](last))

    @property
    def task(self) -> Task:
        """What it answers."""
        return "binary_classification" if self._label_scale is None else "regression"

    @property
    def lower(self) -> np.ndarray:
        """The lower edges of the bins, float32 [k, n_bins]."""
        return _array(self._bins.lower)

    @property
    def width(self) -> np.ndarray:
        """The widths of the bins, float32 [k, n_bins]."""
        return _array(self._bins.width)

    def compile(self, *, learning_rate: float, weight_decay: float, n_steps: int) -> None:
        """Prepare training on its loss with AdamW, the learning rate falling along a cosine to 0 at the last step."""
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=n_steps)
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        is_regression = self._label_scale is not None
        loss = keras.losses.MeanSquaredError() if is_regression else keras.losses.BinaryCrossentropy(from_logits=True)
        self._model.compile(optimizer=optimizer, loss=loss, jit_compile=False)

    def seed_epoch(self, seed: int) -> None:
        """Let what is switched off from now on depend on this seed alone, not on what was trained before."""
        for number, dropout in enumerate(self._dropouts):
            if dropout.rate > 0:
                dropout.seed_generator.state.assign(np.array([_seed(seed, number), 0], dtype=np.uint32))

    def training_state(self) -> Mapping[str, np.ndarray]:
        """Return copies of what the next epoch needs: the network's state and the optimizer's."""
        network = {f"network.{name}": array for name, array in self.state().items()}
        variables = enumerate(self._model.optimizer.variables)
        return {**network, **{f"optimizer.{number}": _array(variable).copy() for number, variable in variables}}

    def load_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a ``training_state``; compile first."""
        self.load({name.removeprefix("network."): a for name, a in state.items() if name.startswith("network.")})
        self._model.optimizer.build(self._model.trainable_variables)
        for number, variable in enumerate(self._model.optimizer.variables):
            variable.assign(state[f"optimizer.{number}"])

    def fit_one_epoch(self, inputs: Coded, labels: np.ndarray, *, batch_rows: int) -> float:
        """Train on every row once, in the given order, and return the loss as ``Epoch`` measures it."""
        scale = self._label_scale
        done = self._model.fit(
            [inputs.numeric, inputs.categorical],
            (labels if scale is None else (labels - scale[0]) / scale[1])[:, None],
            batch_size=batch_rows,
            shuffle=False,
            verbose=0,
        )
        loss = float(done.history["loss"][0])
        return loss if scale is None else float(np.sqrt(loss) * scale[1])

    def predict(self, inputs: Coded) -> np.ndarray:
        """Return probabilities or numbers, float64 [n]."""
        parts = [np.empty(0, dtype=np.float64)]
        for start in range(0, len(inputs), _PREDICTION_ROWS):
            rows = slice(start, start + _PREDICTION_ROWS)
            tensors = [torch.from_numpy(inputs.numeric[rows]), torch.from_numpy(inputs.categorical[rows])]
            with torch.inference_mode():
                raw = self._model(tensors, training=False)[:, 0]
            scale = self._label_scale
            answer = torch.sigmoid(raw).numpy() if scale is None else raw.numpy() * scale[1] + scale[0]
            parts.append(answer.astype(np.float64))
        return np.concatenate(parts)

    def loss(self, examples: Labelled) -> float:
        """Return the loss on examples as ``Epoch`` measures it; NaN where a prediction is."""
        predicted = answers(self.predict, examples.inputs)
        if self._label_scale is not None:
            return float(np.sqrt(np.mean((predicted - examples.labels) ** 2)))
        smallest = np.finfo(np.float32).eps
        probability = np.clip(predicted, smallest, 1 - smallest)
        return float(-np.mean(np.log(np.where(examples.labels == 1, probability, 1 - probability))))

    def state(self) -> Mapping[str, np.ndarray]:
        """Return copies of the bins and weights, named and shaped as those of ``TabularNetwork``."""
        state = {"lower": self.lower, "width": self.width}
        if self._label_scale is not None:
            state |= {"label_mean": self._label_scale[0], "label_spread": self._label_scale[1]}
        for number, embedding in enumerate(self._embeddings):
            state[f"embeddings.{number}.weight"] = _array(embedding.embeddings)
        for number, linear in enumerate(self._linear):
            state[f"layers.{_LAYERS_PER_LINEAR * number}.weight"] = _array(linear.kernel).T
            state[f"layers.{_LAYERS_PER_LINEAR * number}.bias"] = _array(linear.bias)
        return {name: np.array(array, order="C") for name, array in state.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the bins and weights by those of a ``state``."""
        self._bins.lower.assign(state["lower"])
        self._bins.width.assign(state["width"])
        if self._label_scale is not None:
            self._label_scale = np.array([state["label_mean"], state["label_spread"]], dtype=np.float32)
        for number, embedding in enumerate(self._embeddings):
            embedding.embeddings.assign(state[f"embeddings.{number}.weight"])
        for number, linear in enumerate(self._linear):
            layer = f"layers.{_LAYERS_PER_LINEAR * number}"
            linear.kernel.assign(state[f"{layer}.weight"].T)
            linear.bias.assign(state[f"{layer}.bias"])


def _array(variable: keras.Variable) -> np.ndarray:
    # Keras' own conversion trips over a warning of numpy on tensors of torch.
    return variable.value.detach().cpu().numpy()


def _seed(seed: int, *position: int) -> int:
    """Return a seed of its own for each place that draws."""
    return int(np.random.default_rng([seed, *position]).integers(2**31))
