"""Checkpoints of one fit: after each epoch all that the next one needs, so that a killed training can go on."""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import numpy as np

from ml_assets.core.fingerprints import json_hash
from ml_assets.core.records import RecordedInputs
from ml_assets.core.trainers import Labelled, WarmStart

_LOGGER = logging.getLogger(__name__)
_SUFFIX, _UNFINISHED = ".checkpoint", ".unfinished"
_N_KEPT = 2  # the newest, and the one before for the case that the newest is damaged
_SECONDS_KEPT = 7 * 24 * 3600  # judgement: a training that was killed is run again within days, or never

_Facts = TypeVar("_Facts")


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Generic[_Facts]):
    """The state of a training after an epoch: its arrays by name, and its plain facts."""

    arrays: Mapping[str, np.ndarray]
    facts: _Facts


class Checkpoints(Generic[_Facts]):
    """The two newest checkpoints of one fit, below a folder that outlives the process.

    A file is the sha256 of all that follows, a line of JSON, and safetensors: nothing that can run code, and nothing
    that is parsed before its hash is right. It is written under another name and renamed, so a kill leaves the ones
    before. ``key`` stands for everything that decides the fit: another fit in the same folder has files of its own.
    """

    def __init__(self, folder: Path, *, key: str, kind: type[_Facts]) -> None:
        self._folder = folder / key
        self._kind = kind

    def save(self, number: int, *, arrays: Mapping[str, np.ndarray], facts: _Facts) -> None:
        """Write the checkpoint of an epoch and remove the one before the last.

        Where the disk refuses (it is full, say), a warning is logged and the training goes on: what it could resume
        from is then the last checkpoint that was written.
        """
        from safetensors.numpy import save

        tensors = save({name: np.asarray(array, order="C") for name, array in sorted(arrays.items())})
        content = msgspec.json.encode(facts) + b"\n" + tensors
        path = self._folder / f"{number:06d}{_SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write_whole(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            for old in self._paths()[_N_KEPT:]:
                old.unlink()
        except OSError as error:
            _LOGGER.warning(
                "epoch %d has no checkpoint (%s); the training goes on, and after a kill it would begin at an earlier "
                "epoch; make room in %s",
                number,
                error,
                self._folder,
            )

    def newest(self) -> Checkpoint[_Facts] | None:
        """Return the newest whole checkpoint, or None where there is none; a damaged one is passed over."""
        from safetensors.numpy import load

        for path in self._paths():
            digest, _, content = path.read_bytes().partition(b"\n")
            if digest != hashlib.sha256(content).hexdigest().encode():
                _LOGGER.warning("%s is damaged and is passed over", path)
                continue
            facts, _, tensors = content.partition(b"\n")
            return Checkpoint(arrays=load(tensors), facts=msgspec.json.decode(facts, type=self._kind))
        return None

    def _paths(self) -> list[Path]:
        """Return the finished files, newest first."""
        return sorted(self._folder.glob(f"*{_SUFFIX}"), reverse=True)


def fit_key(
    train: Labelled, validation: Labelled, warm_start: WarmStart | None, *, settings: object, libraries: object
) -> str:
    """Return 32 hex digits over the rows, what the fit starts from, and its settings (plain data, seed included).

    Rows that are streamed come in an order that depends on the memory for them, so that counts, too.
    """
    arrays: list[np.ndarray] = []
    for part in (train, validation):
        if isinstance(part.inputs, RecordedInputs):
            streamed = f"{part.inputs.records.content_hash} within {part.inputs.memory_bytes}"
            arrays.append(np.frombuffer(streamed.encode(), dtype=np.uint8))
        else:
            arrays += [part.inputs.numeric, part.inputs.categorical, part.labels]
    weights = sorted(warm_start.weights.items()) if warm_start else []
    names = [name for name, _ in weights] + [warm_start.signature, warm_start.vocabulary] if warm_start else []
    digest = hashlib.sha256(json_hash([settings, libraries, names]).encode())
    for array in [*arrays, *(array for _, array in weights)]:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def clear_checkpoints(folder: Path, version: str) -> None:
    """Remove the work of a version that is finished, and of those nobody has gone on with for a week before that.

    ``folder`` holds one folder per version. Another training may be running in any of the others.
    """
    own = folder / version
    if not own.is_dir():
        return
    written_at = own.stat().st_mtime
    for path in folder.glob("*"):
        if path == own or path.stat().st_mtime < written_at - _SECONDS_KEPT:
            shutil.rmtree(path, ignore_errors=True)


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that after a kill or a power cut there is all of it under its name, or nothing."""
    unfinished = path.with_suffix(_UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
