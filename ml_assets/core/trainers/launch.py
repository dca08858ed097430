"""How a training is run: in how many processes. It decides how long a training takes, not what it is for."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ml_assets.core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The processes that train one model together, and which of them this one is; one unless a launcher says otherwise.

    No part of the recipe: the rows of each step are the same ones however many share them, so the quality is the same
    and a package trained by several is used again by one. The bits differ, so the manifest keeps the number.

    >>> Launch(n_nodes=2, n_per_node=4, rank=5).n_processes
    8
    """

    n_nodes: int = 1
    n_per_node: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.n_nodes < 1 or self.n_per_node < 1 or not 0 <= self.rank < self.n_processes:
            raise BadInput(f"{self} is no launch; expected at least one process, and a rank below their number")

    @property
    def n_processes(self) -> int:
        """How many processes there are in all."""
        return self.n_nodes * self.n_per_node

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes checkpoints, tracks, and saves the package."""
        return self.rank == 0


ONE_PROCESS = Launch()


@contextmanager
def process_group(launch: Launch) -> Generator[None]:
    """Connect the processes of a launch by torch's process group, at the address torchrun told them.

    gloo where the numbers lie in memory, NCCL where they lie on a GPU. Nothing is opened for a single process. After an
    error the group is not closed, for that waits for the others: torchrun ends them.
    """
    if launch.n_processes == 1:
        yield
        return
    import torch.distributed as dist

    dist.init_process_group()
    yield
    dist.destroy_process_group()
