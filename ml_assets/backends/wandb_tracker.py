"""Weights & Biases as the experiment tracker: offline by default, silent, and never in the way of a training."""

import atexit
import importlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Literal

from ml_assets.core.ports import ArtifactStore, JobType, Parameter, TrackedArtifact

_LOGGER = logging.getLogger(__name__)
_PROCESS = Path(__file__).with_name("wandb_process.py")
# Judgement: an offline run is written in 2 s, start included; a training is to lose less than 10 s to a dead tracker.
_MOST_SECONDS_WAITED = 8.0
# At exit: W&B's own limit of 60 s (see wandb_process), and what starting takes on a busy machine.
_MOST_SECONDS_AT_EXIT = 75.0
# Judgement: a server slower than this is not waited for, and the run is kept offline.
_INIT_SECONDS, _INIT_SECONDS_IF_AWAITED = 4.0, 30.0


class WandbRun:
    """One training, search or decision in W&B, which a process of its own writes.

    What it is told goes into a pipe, without waiting. ``finish`` gives that process 8 seconds to end; if it does not,
    it is left to itself, and ends when W&B's own time limits are over. After the first failure nothing is written.
    Where ``is_awaited`` is false it is left to itself at once, and given these seconds when this process ends: in a
    pod, its end is that of all others.
    """

    def __init__(self, process: "subprocess.Popen[bytes] | None", *, is_awaited: bool = True) -> None:
        self._process = process
        self._is_awaited = is_awaited
        if process and process.stdin:
            os.set_blocking(process.stdin.fileno(), False)

    def open(self, **settings: object) -> None:
        """Say what the run is, as ``wandb_process`` wants it, before anything else."""
        self._tell(settings)

    def used(self, artifact: TrackedArtifact) -> None:
        """Say what the run reads."""
        self._tell(_described(artifact, is_used=True))

    def made(self, artifact: TrackedArtifact) -> None:
        """Say what the run has made."""
        self._tell(_described(artifact, is_used=False))

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record metrics at a step (an epoch, a trial)."""
        self._tell({"metrics": dict(metrics), "step": step})

    def finish(self, summary: Mapping[str, float]) -> None:
        """Record the final metrics and close the run; without any it is marked as failed."""
        self._tell({"summary": dict(summary)})
        self._conclude()

    def _conclude(self) -> None:
        """Wait for the process a little, and say once what went wrong in it, if anything."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if not self._is_awaited:
            _left_behind.append(process)
            _unfinished.append(process)
            return
        try:
            answer, _ = process.communicate(timeout=_MOST_SECONDS_WAITED)
        except subprocess.TimeoutExpired:
            _LOGGER.warning(
                "W&B has not finished its run after %g s; the training goes on without it", _MOST_SECONDS_WAITED
            )
            _left_behind.append(process)
            _waited_in_vain.append(process)
        except OSError:
            _LOGGER.warning("W&B failed; the training goes on without it", exc_info=True)
        else:
            _report(answer)

    def _tell(self, message: Mapping[str, object]) -> None:
        """Write a line; the pipe holds some hundred of them while nobody reads, and then this run is given up."""
        if self._process is None or self._process.stdin is None:
            return
        line = json.dumps(message).encode() + b"\n"
        try:
            if os.write(self._process.stdin.fileno(), line) < len(line):
                raise BlockingIOError("the pipe is full")
        except BrokenPipeError:  # it has ended, and says why
            self._conclude()
        except OSError as error:  # the tracker is a witness: whatever fails in it, the training goes on
            _LOGGER.warning("W&B takes nothing any more (%s); the training goes on without it", error)
            _left_behind.append(self._process)
            self._process = None


# Popen complains of a process that is forgotten while it runs; those that ended are dropped as the next run starts.
_left_behind: list["subprocess.Popen[bytes]"] = []
# Of these: those that nobody has waited for yet, and those that were waited for in vain.
_unfinished: list["subprocess.Popen[bytes]"] = []
_waited_in_vain: list["subprocess.Popen[bytes]"] = []


@atexit.register
def _await_unfinished() -> None:
    """Give what was told last 8 seconds to arrive, unless a server that answers nothing has cost that already."""
    until = time.monotonic() + _MOST_SECONDS_WAITED
    if any(process.poll() is None for process in _waited_in_vain):
        return
    for process in _unfinished:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))


class WandbTracker:
    """Writes runs below ``folder``; ``mode`` online also sends them, to ``project``.

    Where the server of an online run does not answer within 4 seconds, the run is kept offline: ``wandb sync`` later.

    ``outlasting`` is given where neither folder nor processes outlast this process, as in a pod. At exit it then waits
    for the processes of its runs, 75 seconds at most, and copies the runs that were kept offline below ``wandb/`` of
    this store. A server has 30 seconds to answer there, which a training does not wait for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: Literal["offline", "online", "disabled"] = "offline",
        project: str = "ml_assets",
        outlasting: ArtifactStore | None = None,
    ) -> None:
        self._folder = folder
        self._mode: Literal["offline", "online", "disabled"] = mode
        self._project = project
        self._outlasting = outlasting
        self._to_await: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *,
        use_case: str,
        run_name: str,
        parameters: Mapping[str, Parameter],
        job_type: JobType = "training",
    ) -> WandbRun:
        """Open a run; where that fails, log it once and return a run that records nothing."""
        if self._mode == "disabled":
            return WandbRun(None)
        _forget_the_ended()
        try:
            # Isolated: what lies beside that file must not stand in for a module that W&B imports.
            process = subprocess.Popen(  # noqa: S603 # a file of this package
                [sys.executable, "-P", str(_PROCESS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError:  # see WandbRun
            _LOGGER.warning("W&B could not start; the training goes on without it", exc_info=True)
            return WandbRun(None)
        if self._outlasting is not None:
            if not self._to_await:
                # boto3 brings it along, and it refuses to be imported as late as that.
                importlib.import_module("concurrent.futures.thread")
                atexit.register(self._outlast, self._outlasting)
            self._to_await.append(process)
        # A decision is in the ledger too, and may follow a training that has waited in vain already.
        run = WandbRun(process, is_awaited=job_type != "promotion")
        run.open(
            folder=str(self._folder),
            mode=self._mode,
            init_seconds=_INIT_SECONDS if self._outlasting is None else _INIT_SECONDS_IF_AWAITED,
            project=self._project,
            use_case=use_case,
            job_type=job_type,
            run_name=run_name,
            parameters=_as_json(parameters),
        )
        return run

    def _outlast(self, store: ArtifactStore) -> None:
        """Wait for the processes of all runs, and copy what W&B did not get into the store: here it ends with us."""
        deadline = time.monotonic() + _MOST_SECONDS_AT_EXIT
        unsent = ["offline-run-*"]
        for process in self._to_await:
            if process.stdout is None or process.stdout.closed:  # it has ended, and told how
                continue
            try:
                answer, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
                _report(answer)
            except (subprocess.TimeoutExpired, OSError):
                unsent = ["offline-run-*", "run-*"]
        files = sorted(file for kind in unsent for file in self._folder.glob(f"wandb/{kind}/*.wandb"))
        files = [file for file in files if not file.with_name(f"{file.name}.synced").exists()]
        try:
            for file in files:
                path = f"wandb/{file.parent.name}/{file.name}"
                store.put(path, file.read_bytes())
                _LOGGER.warning("W&B did not get a run: download %s and `wandb sync` it", store.address(path))
        except Exception:  # see WandbRun
            names = ", ".join(file.parent.name for file in files)
            _LOGGER.warning("W&B did not get these runs, and they end with this process: %s", names, exc_info=True)


def _described(artifact: TrackedArtifact, *, is_used: bool) -> Mapping[str, object]:
    """Return what ``wandb_process`` wants to know of an artifact."""
    is_local = artifact.address.startswith("/")
    return {
        "artifact": f"{artifact.use_case}-{artifact.kind}",
        "kind": artifact.kind,
        "version": artifact.version,
        "digest": artifact.digest,
        "reference": Path(artifact.address).as_uri() if is_local else artifact.address,
        "facts": _as_json({"version": artifact.version, "digest": artifact.digest, **artifact.facts}),
        "aliases": [artifact.version, *([artifact.alias] if artifact.alias else [])],
        "is_used": is_used,
    }


def _as_json(values: Mapping[str, Parameter]) -> Mapping[str, object]:
    return {name: str(value) if isinstance(value, date) else value for name, value in values.items()}


def _forget_the_ended() -> None:
    """Close what is left of the processes that have ended since."""
    for process in [process for process in _left_behind if process.poll() is not None]:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        for those in (_left_behind, _unfinished, _waited_in_vain):
            with suppress(ValueError):
                those.remove(process)


def _report(answer: bytes) -> None:
    """Say once what went wrong in the process, if anything."""
    try:
        outcome = json.loads(answer)
    except ValueError:
        outcome = {"mode": "", "trouble": "its process ended without a word"}
    if outcome["trouble"] and outcome["mode"] == "offline":
        _LOGGER.warning("W&B did not answer; its run is kept offline for `wandb sync`: %s", outcome["trouble"])
    elif outcome["trouble"]:
        _LOGGER.warning("W&B failed; the training went on without it: %s", outcome["trouble"])
