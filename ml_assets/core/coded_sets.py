"""A training set as the model reads it: every part coded with one code book, once, and kept as files of records."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ml_assets.core import encoding, record_format, record_writer, records
from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.errors import BadInput
from ml_assets.core.fingerprints import json_hash
from ml_assets.core.names import identifier
from ml_assets.core.record_writer import write_records
from ml_assets.core.records import RecordedInputs, RecordFile
from ml_assets.core.trainers import Labelled
from ml_assets.core.training_sets import PARTS, Part, TrainingSet, source_hash

# Judgement: arrays of this size fit beside everything else on the smallest machine a training of theirs is given.
IN_MEMORY_BYTES = 2 * 1024**3
# Judgement: those of the last trainings; a training set that is trained on again later is coded again.
_N_SETS_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class CodedSet:
    """A training set as the model reads it, and the code book it was coded with.

    Parts that are larger than the memory for them are ``RecordedInputs``. That bounds the coded arrays only: the
    Arrow tables of the training set they are coded from are in memory, whole, as ``load_training_set`` reads them.
    """

    signature: Signature
    vocabulary: Vocabulary
    train: Labelled
    validation: Labelled
    test: Labelled

    @property
    def streaming_bytes(self) -> int:
        """The memory for the arrays of a part, where one is larger; 0 where all are held."""
        inputs = (part.inputs for part in (self.train, self.validation, self.test))
        return max((one.memory_bytes for one in inputs if isinstance(one, RecordedInputs)), default=0)


@dataclass(frozen=True, kw_only=True)
class RecordsFolder:
    """Where coded training sets are kept, and where unfinished ones are written: folders of one local disk.

    What is kept can be removed at any time: it is coded again when it is needed.
    """

    kept: Path
    work: Path
    memory_bytes: int = IN_MEMORY_BYTES


def code_training_set(
    training_set: TrainingSet, signature: Signature, vocabulary: Vocabulary, *, folder: RecordsFolder | None = None
) -> CodedSet:
    """Code the parts of a training set, each as ``code_part`` does."""
    parts = {part: code_part(training_set, part, signature, vocabulary, folder=folder) for part in PARTS}
    return CodedSet(signature=signature, vocabulary=vocabulary, **parts)


def code_part(
    training_set: TrainingSet,
    part: Part,
    signature: Signature,
    vocabulary: Vocabulary,
    *,
    folder: RecordsFolder | None = None,
) -> Labelled:
    """Code one part of a training set; labels as float32, 0 and 1 where they are booleans.

    With a ``folder`` it is coded once for all trainings, trials and processes, and read from its file; without, it is
    coded in memory. The arrays are the same, bit by bit. Those that are larger than the folder's ``memory_bytes`` are
    not decoded before they are asked for: see ``RecordedInputs``.
    """
    if folder is None:
        table: pa.Table = getattr(training_set, part)
        labels = table["label"].to_numpy().astype(np.float32)
        return Labelled(inputs=encode(table, signature, vocabulary), labels=labels)
    file = _recorded(training_set, part, signature, vocabulary, folder)
    is_larger = file.decoded_bytes > folder.memory_bytes
    inputs = RecordedInputs(file, memory_bytes=folder.memory_bytes) if is_larger else file.coded()
    return Labelled(inputs=inputs, labels=file.labels())


def _recorded(
    training_set: TrainingSet, part: Part, signature: Signature, vocabulary: Vocabulary, folder: RecordsFolder
) -> RecordFile:
    """Return the file of a part, written where it is not there, or damaged."""
    source = f"{training_set.fingerprint}/{part}"
    coding = json_hash([signature, vocabulary, _code_version()])
    sets = folder.kept / identifier(training_set.use_case)
    path = sets / f"{training_set.fingerprint[:16]}-{coding[:16]}" / f"{part}.records"
    found = _whole(path, source, coding) if path.exists() or path.is_symlink() else None
    if found:
        return found
    write_records(
        path,
        [getattr(training_set, part)],
        signature=signature,
        vocabulary=vocabulary,
        source=source,
        coding=coding,
        work_folder=folder.work,
    )
    _forget_all_but_the_last(sets)
    return RecordFile(path)


def _code_version() -> str:
    """Return the hash of what shapes the codes and the file: files of another release are not read."""
    modules = (encoding, record_format, record_writer, records)
    return source_hash(Path(module.__file__) for module in modules if module.__file__)


def _whole(path: Path, source: str, coding: str) -> RecordFile | None:
    """Return the file if it is whole and of these rows; a damaged or strange one is written anew."""
    try:
        file = RecordFile(path)
        file.verify()
    except BadInput:
        return None
    return file if (file.header.source, file.header.coding) == (source, coding) else None


def _forget_all_but_the_last(sets: Path) -> None:
    """Remove what was written longest ago; who reads it at this moment keeps what is mapped."""
    with suppress(FileNotFoundError):  # another process is about the same
        by_age = sorted(sets.iterdir(), key=lambda folder: (folder.stat().st_mtime_ns, folder.name))
        for folder in by_age[:-_N_SETS_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)
