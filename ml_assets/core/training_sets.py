"""The frozen examples of one training: immutable files under a fingerprint, split by time."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, cast

import msgspec
import pyarrow as pa

from ml_assets.core.encoding import Task
from ml_assets.core.errors import ArtifactMissing, BadInput, TrainingDataMissing
from ml_assets.core.feature_views import Feature
from ml_assets.core.fingerprints import content_hash, json_hash
from ml_assets.core.labelled_examples import (
    canonical,
    examples_parameters,
    examples_sql,
    is_sampled,
    of_days,
    refuse_bad_examples,
)
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.spec import Decisions, Label, SplitRule, UseCase
from ml_assets.core.splits import Split, split_days

__all__ = [
    "PARTS",
    "Declaration",
    "Part",
    "PartFile",
    "TrainingSet",
    "TrainingSetManifest",
    "examples_parameters",
    "examples_sql",
    "freeze",
    "load_training_set",
    "source_hash",
    "training_set_of",
]

Part = Literal["train", "validation", "test"]
# Judgement: a week without labels is an outage of the source; a model may still be of its season.
_MOST_DAYS_BEHIND = 7
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class PartFile:
    """One Arrow IPC file of a training set; ``size`` in bytes."""

    sha256: str
    size: int
    n_rows: int


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What of a use case shapes its training sets, as it was when one was frozen."""

    question: str
    task: Task
    decisions: Decisions
    label: Label
    split: SplitRule

    @staticmethod
    def of(use_case: UseCase) -> "Declaration":
        """Return what a use case declares now."""
        return Declaration(
            question=use_case.question,
            task=use_case.task,
            decisions=use_case.decisions,
            label=use_case.label,
            split=use_case.split,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSetManifest:
    """What manifest.json says of a training set. Written last: without it the folder is unfinished."""

    use_case: str
    declared: Declaration
    as_of: date
    fingerprint: str
    content_hash: str
    code_version: str
    sample_fraction: float
    inputs: tuple[Feature, ...]
    days: Split
    files: Mapping[Part, PartFile]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The examples of one training, by part, sorted by day and decision."""

    manifest: TrainingSetManifest
    train: pa.Table
    validation: pa.Table
    test: pa.Table

    @property
    def use_case(self) -> str:
        """The name of the use case."""
        return self.manifest.use_case

    @property
    def as_of(self) -> date:
        """The as-of date: everything known before that local day starts."""
        return self.manifest.as_of

    @property
    def fingerprint(self) -> str:
        """64 hex digits over content, use case, inputs, split and code."""
        return self.manifest.fingerprint

    @property
    def days(self) -> Split:
        """The local days of each part."""
        return self.manifest.days

    @property
    def counts(self) -> Mapping[Part, int]:
        """How many examples each part has."""
        return {part: file.n_rows for part, file in self.manifest.files.items()}

    @property
    def file_sizes(self) -> Mapping[Part, int]:
        """The bytes of each part's file."""
        return {part: file.size for part, file in self.manifest.files.items()}


def source_hash(paths: Iterable[Path]) -> str:
    """Return the sha256 over source files, by name and content: the ``code_version`` of what they shape."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: (path.name, path.parts)):
        digest.update(f"{path.name}\0".encode())
        # A checkout with Windows line ends is the same code.
        digest.update(hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).digest())
    return digest.hexdigest()


def freeze(
    examples: pa.Table,
    *,
    use_case: UseCase,
    inputs: Sequence[Feature],
    as_of: date,
    sample_fraction: float = 1.0,
    code_version: str,
    store: ArtifactStore,
) -> TrainingSet:
    """Split these labelled examples by time and write them once under their fingerprint.

    The same fingerprint already there is verified and used again; a damaged one is written anew. Raises
    TrainingDataMissing for too few days or none of the last week, BadInput for an example of the as-of date or later,
    without a label, or twice.
    """
    table = canonical(examples, inputs)
    refuse_bad_examples(table, as_of)
    days = split_days(cast("list[date]", table["partition_on"].unique().to_pylist()), use_case.split)
    _refuse_old_examples(days.test[-1], as_of, use_case)
    sampled = table if sample_fraction >= 1.0 else table.filter(is_sampled(table["decision_id"], sample_fraction))
    parts: dict[Part, pa.Table] = {
        part: of_days(sampled, part_days)
        for part, part_days in zip(PARTS, (days.train, days.validation, days.test), strict=True)
    }
    empty = [part for part, rows in parts.items() if rows.num_rows == 0]
    if empty:
        raise TrainingDataMissing(f"a sample of {sample_fraction} leaves no example for {empty}; raise sample_fraction")
    content = json_hash({part: content_hash(rows) for part, rows in parts.items()})
    fingerprint = json_hash(
        {
            "content": content,
            "use_case": (use_case.name, use_case.question, use_case.task, use_case.decisions, use_case.label),
            "inputs": inputs,
            "split": (use_case.split, days),
            "as_of": as_of,
            "sample_fraction": sample_fraction,
            "code_version": code_version,
        }
    )
    if not _is_intact(store, use_case.name, fingerprint):
        _write(
            store,
            parts,
            TrainingSetManifest(
                use_case=use_case.name,
                declared=Declaration.of(use_case),
                as_of=as_of,
                fingerprint=fingerprint,
                content_hash=content,
                code_version=code_version,
                sample_fraction=sample_fraction,
                inputs=tuple(inputs),
                days=days,
                files={},
            ),
        )
    pointer = msgspec.json.encode({"fingerprint": fingerprint})
    store.put(_pointer_path(use_case.name, as_of), pointer)
    return load_training_set(store, use_case.name, fingerprint)


def _refuse_old_examples(newest: date, as_of: date, use_case: UseCase) -> None:
    """Raise TrainingDataMissing where the newest example is so old that nothing is known of the days before as-of."""
    expected = as_of - timedelta(days=use_case.split.gap_days + 1)
    if (expected - newest).days > _MOST_DAYS_BEHIND:
        raise TrainingDataMissing(
            f"the newest labelled examples of {use_case.name} are of {newest}; a training as of {as_of} expects them "
            f"up to about {expected}: materialize the examples of the days between, or train as of an earlier date"
        )


def training_set_of(store: ArtifactStore, use_case_name: str, as_of: date) -> str:
    """Return the fingerprint last frozen for an as-of date; raise TrainingDataMissing where there is none."""
    try:
        pointer = store.get(_pointer_path(use_case_name, as_of))
    except ArtifactMissing as error:
        raise TrainingDataMissing(
            f"{use_case_name} has no training set as of {as_of}; materialize {use_case_name}/training_set for {as_of}"
        ) from error
    return msgspec.json.decode(pointer, type=dict[str, str])["fingerprint"]


def load_training_set(store: ArtifactStore, use_case_name: str, fingerprint: str) -> TrainingSet:
    """Read a training set; every file must have the hash its manifest names, or BadInput is raised."""
    folder = _folder(use_case_name, fingerprint)
    try:
        manifest = msgspec.json.decode(store.get(f"{folder}/manifest.json"), type=TrainingSetManifest)
    except msgspec.DecodeError as error:
        raise BadInput(f"{folder}/manifest.json is no training set manifest ({error}); freeze it again") from error
    if (manifest.use_case, manifest.fingerprint) != (use_case_name, fingerprint):
        raise BadInput(f"{folder}/manifest.json is of {manifest.use_case} {manifest.fingerprint}; freeze it again")
    tables: dict[Part, pa.Table] = {}
    for part in PARTS:
        content = store.get(f"{folder}/{part}.arrow")
        found = hashlib.sha256(content).hexdigest()
        if found != manifest.files[part].sha256:
            raise BadInput(
                f"{folder}/{part}.arrow has sha256 {found}; its manifest says {manifest.files[part].sha256}; "
                f"materialize {use_case_name}/training_set for {manifest.as_of} again"
            )
        tables[part] = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    return TrainingSet(manifest=manifest, train=tables["train"], validation=tables["validation"], test=tables["test"])


def _write(store: ArtifactStore, parts: Mapping[Part, pa.Table], manifest: TrainingSetManifest) -> None:
    folder = _folder(manifest.use_case, manifest.fingerprint)
    files: dict[Part, PartFile] = {}
    for part, rows in parts.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(rows)
        content = cast("bytes", sink.getvalue().to_pybytes())
        store.put(f"{folder}/{part}.arrow", content)
        files[part] = PartFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content), n_rows=rows.num_rows)
    store.put(f"{folder}/manifest.json", msgspec.json.format(msgspec.json.encode(replace(manifest, files=files))))


def _is_intact(store: ArtifactStore, use_case_name: str, fingerprint: str) -> bool:
    """Tell whether the files of this fingerprint are there and whole; freeze replaces them if not."""
    if not store.exists(f"{_folder(use_case_name, fingerprint)}/manifest.json"):
        return False
    try:
        load_training_set(store, use_case_name, fingerprint)
    except (BadInput, ArtifactMissing):
        return False
    return True


def _folder(use_case_name: str, fingerprint: str) -> str:
    return artifact_path(f"training_sets/{identifier(use_case_name)}/{fingerprint}")


def _pointer_path(use_case_name: str, as_of: date) -> str:
    return artifact_path(f"training_sets/{identifier(use_case_name)}/as_of/{as_of.isoformat()}.json")
