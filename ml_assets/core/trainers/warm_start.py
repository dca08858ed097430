"""Warm start: what a new network takes over from an earlier one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ml_assets.core.encoding import UNSEEN_CODE, Signature, Vocabulary
from ml_assets.core.records import codes_that_occur
from ml_assets.core.trainers import Labelled, WarmStart

if TYPE_CHECKING:
    from ml_assets.core.trainers.network import TabularNetwork


def take_over(network: "TabularNetwork", signature: Signature, vocabulary: Vocabulary, warm_start: WarmStart) -> bool:
    """Copy the earlier model's weights and bins into a network of torch, and tell whether they fit."""
    import torch

    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    earlier = taken_over(state, signature, vocabulary, warm_start)
    if earlier is None:
        return False
    network.load_state_dict({name: torch.from_numpy(array) for name, array in earlier.items()})
    return True


def fill_absent(
    network: "TabularNetwork", initial: Mapping[str, np.ndarray], train: Labelled, *, is_warm: bool
) -> None:
    """Settle the embeddings of a fitted network of torch whose categories have no row in train, as ``filled`` does."""
    import torch

    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    settled = filled(state, initial, train, is_warm=is_warm)
    network.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in settled.items()})


def filled(
    state: Mapping[str, np.ndarray], initial: Mapping[str, np.ndarray], train: Labelled, *, is_warm: bool
) -> Mapping[str, np.ndarray]:
    """Return the state of a fitted network with the embeddings of categories that have no row in train settled.

    Such a category is known from the champion's days. After a warm start it keeps the champion's embedding, to the last
    bit: without rows, weight decay alone would have moved it. In a cold model it answers as an unseen one, whose
    embedding was trained, instead of at random.
    """
    settled = dict(state)
    for column, found in enumerate(codes_that_occur(train.inputs)):
        name = f"embeddings.{column}.weight"
        has_rows = np.zeros(len(state[name]), dtype=bool)
        has_rows[found] = True
        has_rows[: UNSEEN_CODE + 1] = True  # null and unseen are no categories of the vocabulary
        if not has_rows.all():
            settled[name] = state[name].copy()
            settled[name][~has_rows] = initial[name][~has_rows] if is_warm else state[name][UNSEEN_CODE]
    return settled


def taken_over(
    state: Mapping[str, np.ndarray], signature: Signature, vocabulary: Vocabulary, warm_start: WarmStart
) -> Mapping[str, np.ndarray] | None:
    """Return the weights a new network of this state should start from, embeddings value by value; None if none fit.

    They fit if both models read the same columns and all layers have the same shape. The bins come along, because the
    weights mean nothing without them. A new category keeps its initial embedding.
    """

    def names(of: Signature) -> tuple[list[str], list[str]]:
        return [column.name for column in of.numeric], [column.name for column in of.categorical]

    earlier = warm_start.weights
    embeddings = {f"embeddings.{n}.weight": column.name for n, column in enumerate(signature.categorical)}
    if names(signature) != names(warm_start.signature) or set(state) != set(earlier):
        return None
    # The first axis of an embedding is its vocabulary, which may grow.
    if any(
        earlier[n].shape[1:] != t.shape[1:] or (n not in embeddings and earlier[n].shape != t.shape)
        for n, t in state.items()
    ):
        return None
    start: dict[str, np.ndarray] = {}
    for name, initial in state.items():
        if name not in embeddings:
            start[name] = earlier[name].copy()
            continue
        before, now = warm_start.vocabulary.codes(embeddings[name]), vocabulary.codes(embeddings[name])
        shared = [value for value in now if value in before]
        start[name] = initial.copy()
        start[name][:2] = earlier[name][:2]
        start[name][[now[value] for value in shared]] = earlier[name][[before[value] for value in shared]]
    return start
