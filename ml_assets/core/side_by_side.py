"""Many small requests at once: a store in the cloud takes 50 ms for each, whatever its size."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ml_assets.core.ports import ArtifactStore

_A = TypeVar("_A")
_B = TypeVar("_B")


def side_by_side(store: ArtifactStore, read: Callable[[_A], _B], items: Iterable[_A]) -> list[_B]:
    """Return what ``read`` gives for each item, in their order; raise the first error.

    The store says for how many at a time it is asked: of a local folder one, since a thread takes longer than a file.
    """
    waiting = list(items)
    n_at_once = min(len(waiting), store.n_requests_at_once)
    if n_at_once < 2:
        return [read(item) for item in waiting]
    with ThreadPoolExecutor(n_at_once) as pool:
        return list(pool.map(read, waiting))
