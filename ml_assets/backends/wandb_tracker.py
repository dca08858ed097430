"""Weights & Biases as the experiment tracker: offline by default, silent, and never in the way of a training."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ml_assets.core.ports import Parameter

if TYPE_CHECKING:
    import wandb

_LOGGER = logging.getLogger(__name__)
# Judgement: online without a network, the first call would otherwise wait 91 s, and the last one for ever.
_INIT_TIMEOUT_SECONDS = 5.0
_FINISH_TIMEOUT_SECONDS = 30.0


class WandbRun:
    """One training in W&B. After the first failure it only swallows what it is given."""

    def __init__(self, run: "wandb.Run | None") -> None:
        self._run = run

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record metrics at a step (an epoch)."""
        self._try(lambda run: run.log(dict(metrics), step=step))

    def finish(self, summary: Mapping[str, float]) -> None:
        """Record the final metrics and close the run."""
        self._try(lambda run: run.summary.update(dict(summary)))  # pyright: ignore[reportUnknownMemberType] # untyped dict
        self._try(lambda run: run.finish())
        self._run = None

    def _try(self, call: "Callable[[wandb.Run], None]") -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception:  # the tracker is a witness: whatever fails in it, the training goes on
            _LOGGER.warning("W&B failed; the training goes on without it", exc_info=True)
            self._run = None


class WandbTracker:
    """Writes runs below ``folder``; ``mode`` online also sends them, to ``project``."""

    def __init__(
        self, folder: Path, *, mode: Literal["offline", "online", "disabled"] = "offline", project: str = "ml_assets"
    ) -> None:
        self._folder = folder
        self._mode: Literal["offline", "online", "disabled"] = mode
        self._project = project

    def start(self, *, use_case: str, run_name: str, parameters: Mapping[str, Parameter]) -> WandbRun:
        """Open a run; where that fails, log it once and return a run that records nothing."""
        try:
            return WandbRun(self._start(use_case, run_name, parameters))
        except Exception:  # see WandbRun
            _LOGGER.warning("W&B could not start; the training goes on without it", exc_info=True)
            return WandbRun(None)

    def _start(self, use_case: str, run_name: str, parameters: Mapping[str, Parameter]) -> "wandb.Run":
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=_INIT_TIMEOUT_SECONDS,
            finish_timeout=_FINISH_TIMEOUT_SECONDS,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        return wandb.init(
            project=self._project,
            group=use_case,
            name=run_name,
            config=dict(parameters),
            dir=self._folder,
            mode=self._mode,
            reinit="create_new",
            settings=settings,
        )
