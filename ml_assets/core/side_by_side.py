"""Many small requests at once: a store in the cloud takes 50 ms for each, whatever its size."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")


def side_by_side(ask: Callable[[_A], _B], items: Iterable[_A], *, n_at_once: int) -> list[_B]:
    """Return what ``ask`` gives for each item, in their order, so many at a time; raise the first error.

    >>> side_by_side(len, ["a", "bcd"], n_at_once=2)
    [1, 3]
    """
    waiting = list(items)
    n_threads = min(len(waiting), n_at_once)
    if n_threads < 2:
        return [ask(item) for item in waiting]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(ask, waiting))
