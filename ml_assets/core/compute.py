"""What a step asks of the machine it runs on, where each step gets a machine of its own."""

from dataclasses import dataclass

from ml_assets.core.errors import InvalidDeclaration


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Processors, memory in 2**30 bytes, and GPUs; a laptop ignores them.

    No part of the recipe, as little as the number of processes: it decides how long a training takes, or whether it
    fits, not what it is for. A trainer still says itself that it uses a GPU.

    >>> Compute(cpus=4, memory_gb=16, gpus=1).without_gpus
    Compute(cpus=4, memory_gb=16, gpus=0)
    """

    cpus: float
    memory_gb: float
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.cpus < 0.1 or self.memory_gb < 0.25 or self.gpus < 0:
            raise InvalidDeclaration(
                f"{self} is no machine; ask for at least 0.1 processors and 0.25 GB, and for no or some GPUs"
            )

    @property
    def without_gpus(self) -> "Compute":
        """The same machine for a step that does not train."""
        return Compute(cpus=self.cpus, memory_gb=self.memory_gb)
