"""The real asset graph with one use case that asks for a GPU: what its author writes is the one line below."""

from dataclasses import replace

from ml_assets.core.compute import Compute
from ml_assets.use_cases import arrival_delay

arrival_delay.USE_CASE = replace(arrival_delay.USE_CASE, compute=Compute(cpus=4, memory_gb=32, gpus=1))

from ml_assets.definitions import defs  # noqa: E402, F401
