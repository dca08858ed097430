"""Warm start: what a new network takes over from an earlier one.

Imports torch: only ``trainers/lightning.py`` imports this module, inside its functions.
"""

import torch

from ml_assets.core.encoding import Signature, Vocabulary
from ml_assets.core.trainers import WarmStart
from ml_assets.core.trainers.network import TabularNetwork


def take_over(network: TabularNetwork, signature: Signature, vocabulary: Vocabulary, warm_start: WarmStart) -> bool:
    """Copy the earlier model's weights and bins into the network, embeddings value by value; tell whether they fit.

    They fit if both models read the same columns and all layers have the same shape. The bins come along, because the
    weights mean nothing without them. A new category keeps its initial embedding.
    """

    def names(of: Signature) -> tuple[list[str], list[str]]:
        return [column.name for column in of.numeric], [column.name for column in of.categorical]

    state = network.state_dict()
    earlier = {name: torch.from_numpy(array.copy()) for name, array in warm_start.weights.items()}
    embeddings = {f"embeddings.{n}.weight": column.name for n, column in enumerate(signature.categorical)}
    if names(signature) != names(warm_start.signature) or set(state) != set(earlier):
        return False
    # The first axis of an embedding is its vocabulary, which may grow.
    if any(
        earlier[n].shape[1:] != t.shape[1:] or (n not in embeddings and earlier[n].shape != t.shape)
        for n, t in state.items()
    ):
        return False
    for name in state:
        if name not in embeddings:
            state[name] = earlier[name]
            continue
        before, now = warm_start.vocabulary.codes(embeddings[name]), vocabulary.codes(embeddings[name])
        shared = [value for value in now if value in before]
        state[name][:2] = earlier[name][:2]
        state[name][[now[value] for value in shared]] = earlier[name][[before[value] for value in shared]]
    network.load_state_dict(state)
    return True
