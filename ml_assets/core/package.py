"""The model package: what a candidate is in the artifact store, written once and verified before it is opened."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Generic, TypeVar, cast

import msgspec

from ml_assets.core.encoding import Signature, Vocabulary
from ml_assets.core.errors import AlreadyExists, ArtifactMissing, BadInput, PackageRefused
from ml_assets.core.evaluation import Metrics
from ml_assets.core.expectations import Expectations, unknown_expectations
from ml_assets.core.fingerprints import json_hash
from ml_assets.core.intervals import Interval
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.onnx_safety import refuse_unsafe_model, refuse_unsafe_weights
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.reference import Reference
from ml_assets.core.regression import RegressionMetrics
from ml_assets.core.tasks import AnyMetrics
from ml_assets.core.trainers.segments import SegmentOutcome, Segments
from ml_assets.core.trainers.starts import WarmStartRecord

MODEL, PORTABLE, WEIGHTS, MANIFEST = "model.onnx", "portable.onnx", "weights.safetensors", "manifest.json"
VOCABULARY, SIGNATURE, REFERENCE, METRICS = "vocabulary.json", "signature.json", "reference.json", "metrics.json"
EXPECTATIONS = "expectations.json"
CONTENT_FILES = (MODEL, PORTABLE, WEIGHTS, VOCABULARY, SIGNATURE, REFERENCE, METRICS, EXPECTATIONS)
# What packages of earlier releases do not have.
_ADDED_LATER = frozenset({EXPECTATIONS})

# Judgement: a hundred times the largest package so far; anything larger is a mistake or an attack on memory.
_LARGEST_FILE_BYTES = 256 * 1024 * 1024
_LARGEST_MANIFEST_BYTES = 1024 * 1024

_T = TypeVar("_T")
_M = TypeVar("_M", bound=AnyMetrics, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training yields."""

    use_case: str
    training_set: str
    trainer: str
    hyperparameters: Mapping[str, float | int | str]
    seed: int
    code_version: str
    parent_version: str | None
    segments: Segments | None = None

    def version(self, as_of: date) -> str:
        """Return the version of the model this recipe yields: ``{as_of}-{12 hex digits of the recipe}``.

        A recipe without segments has the version it had before there were any, so that its package still loads.
        """
        document = cast("dict[str, object]", msgspec.to_builtins(self))
        if self.segments is None:
            del document["segments"]
        return f"{as_of.isoformat()}-{json_hash(document)[:12]}"


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """One file of a package; ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What manifest.json says of a package. Written last, by conditional create: without it there is no package.

    The weights were fitted on labels up to ``last_train_day`` and chosen by labels up to ``last_validation_day``.
    ``environment_hash`` stands for every installed distribution, ``libraries`` names those that matter most. As many
    as ``n_processes`` trained it together; with another number, training anew gives other bits of the same quality.
    So it does with another ``streaming_bytes``: the memory for the arrays of a part, where one was larger and was
    streamed from its file; 0 where all were held in memory.
    """

    version: str
    as_of: date
    recipe: Recipe
    last_train_day: date
    last_validation_day: date
    is_warm_started: bool
    libraries: Mapping[str, str]
    environment_hash: str
    files: Mapping[str, PackageFile]
    n_processes: int = 1
    streaming_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class PackageMetrics(Generic[_M]):
    """The quality of a candidate on its pinned holdout (the test days), beside the baselines on the same rows.

    Losses are as in ``Epoch``. ``epochs`` is the training curve, each (number, train loss, validation loss); empty in
    packages of releases that did not keep it. ``intervals`` are the 95 % intervals that ``confidence_intervals`` gives,
    resampled by days; one that the days cannot give is left out. ``largest_parity_difference`` is of probabilities, and
    for a regression in standard deviations of the training labels. ``warm_start`` says what the champion's weights were
    worth; null where there was no champion. ``segments`` says which segments have a model of their own, and why the
    others have none; empty without any.
    """

    holdout: _M
    intervals: Mapping[str, Interval]
    baselines: Mapping[str, _M]
    n_train: int
    n_validation: int
    n_epochs: int
    best_epoch: int
    validation_loss: float
    largest_parity_difference: float
    epochs: tuple[tuple[int, float, float], ...] = ()
    warm_start: WarmStartRecord | None = None
    segments: tuple[SegmentOutcome, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """A verified package in memory. ``package_hash`` is the sha256 of its manifest, which names all other hashes.

    ``model`` reads coded inputs and is what scores here; ``portable`` reads each feature by name, for other languages.
    ``expectations`` say nothing beyond the model itself in a package of a release that did not keep them.
    """

    manifest: Manifest
    package_hash: str
    signature: Signature
    vocabulary: Vocabulary
    reference: Reference
    metrics: PackageMetrics[AnyMetrics]
    expectations: Expectations
    model: bytes
    portable: bytes
    weights: bytes

    @property
    def use_case(self) -> str:
        """The name of the use case."""
        return self.manifest.recipe.use_case

    @property
    def version(self) -> str:
        """The version, unique within the use case."""
        return self.manifest.version

    @property
    def as_of(self) -> date:
        """The as-of date of its training set."""
        return self.manifest.as_of


def save_package(store: ArtifactStore, manifest: Manifest, content: Mapping[str, bytes]) -> ModelPackage:
    """Write the content files, then the manifest with their hashes, and return the package as read back and verified.

    ``manifest.files`` is filled in here. A folder without a manifest is an unfinished write and is replaced; damaged
    files of the same hashes are healed. Raises AlreadyExists where the version has a manifest with other hashes.
    """
    if set(content) != set(CONTENT_FILES):
        raise ValueError(f"a package has the files {sorted(CONTENT_FILES)}; these are {sorted(content)}")
    folder = package_folder(manifest.recipe.use_case, manifest.version)
    files = {name: _described(data) for name, data in sorted(content.items())}
    document = msgspec.json.format(msgspec.json.encode(replace(manifest, files=files), order="deterministic"))
    path = f"{folder}/{MANIFEST}"
    is_there = store.exists(path)
    if is_there and store.get(path) != document:
        raise AlreadyExists(f"{path} is there with other hashes; remove the folder {folder} to train the version anew")
    for name, data in content.items():
        store.put(f"{folder}/{name}", data)
    if not is_there:
        store.create(path, document)
    return load_package(store, manifest.recipe.use_case, manifest.version)


def package_folder(use_case_name: str, version: str) -> str:
    """Return the folder of the store that a version's files lie in."""
    return artifact_path(f"models/{identifier(use_case_name)}/{version}")


def package_exists(store: ArtifactStore, use_case_name: str, version: str) -> bool:
    """Tell whether a version was written to its end; whether it is whole, only ``load_package`` can say."""
    return store.exists(f"{package_folder(use_case_name, version)}/{MANIFEST}")


def list_versions(store: ArtifactStore, use_case_name: str) -> Sequence[str]:
    """Return the finished versions of a use case, sorted: by as-of date, then by recipe hash."""
    paths = store.list(f"models/{identifier(use_case_name)}")
    return sorted(path.split("/")[-2] for path in paths if path.endswith(f"/{MANIFEST}"))


def load_package(
    store: ArtifactStore, use_case_name: str, version: str, *, expected_hash: str | None = None
) -> ModelPackage:
    """Read a package. Every file is checked against the manifest before any of them is parsed.

    That it is the manifest itself is for the ledger to say: with ``expected_hash``, the ``package_hash`` of the entry
    that put it in charge, any other is refused before it is parsed.

    Raises ArtifactMissing where there is no such version, PackageRefused for one with a changed, missing, unlisted or
    oversized file, a manifest of another model, or an ONNX graph that reaches outside its own bytes.
    """
    folder = package_folder(use_case_name, version)
    if not package_exists(store, use_case_name, version):
        raise ArtifactMissing(
            f"{use_case_name} has no model {version}; there are {list_versions(store, use_case_name)}"
        )
    document = _within(store, f"{folder}/{MANIFEST}", _LARGEST_MANIFEST_BYTES)
    found = hashlib.sha256(document).hexdigest()
    if expected_hash is not None and found != expected_hash:
        raise PackageRefused(
            f"{folder}/{MANIFEST} has the hash {found[:12]}, and the ledger put {expected_hash[:12]} in charge; "
            "restore the package from a backup, or roll back"
        )
    manifest = _manifest(document, use_case_name, version)
    present = {path.removeprefix(f"{folder}/") for path in store.list(folder)} - {MANIFEST}
    is_complete = set(CONTENT_FILES) - _ADDED_LATER <= present <= set(CONTENT_FILES)
    if present != set(manifest.files) or not is_complete:
        raise PackageRefused(
            f"{folder} holds {sorted(present)} and its manifest lists {sorted(manifest.files)}; "
            f"expected {sorted(CONTENT_FILES)} in both; train the version again or roll back"
        )
    content = {name: _verified(store, f"{folder}/{name}", listed) for name, listed in sorted(manifest.files.items())}
    for name in (MODEL, PORTABLE):
        refuse_unsafe_model(content[name], name=f"{folder}/{name}")
    refuse_unsafe_weights(content[WEIGHTS], name=f"{folder}/{WEIGHTS}")
    signature = _parsed(content[SIGNATURE], Signature, f"{folder}/{SIGNATURE}")
    is_regression = signature.output.task == "regression"
    metrics_kind = PackageMetrics[RegressionMetrics] if is_regression else PackageMetrics[Metrics]
    expectations = (
        _parsed(content[EXPECTATIONS], Expectations, f"{folder}/{EXPECTATIONS}")
        if EXPECTATIONS in content
        else unknown_expectations(signature.output.task)
    )
    return ModelPackage(
        manifest=manifest,
        package_hash=found,
        signature=signature,
        vocabulary=_parsed(content[VOCABULARY], Vocabulary, f"{folder}/{VOCABULARY}"),
        reference=_parsed(content[REFERENCE], Reference, f"{folder}/{REFERENCE}"),
        metrics=_parsed(content[METRICS], metrics_kind, f"{folder}/{METRICS}"),
        expectations=expectations,
        model=content[MODEL],
        portable=content[PORTABLE],
        weights=content[WEIGHTS],
    )


def _manifest(document: bytes, use_case_name: str, version: str) -> Manifest:
    name = f"the manifest of {use_case_name} {version}"
    manifest = _parsed(document, Manifest, name)
    described = manifest.recipe.use_case, manifest.version, manifest.recipe.version(manifest.as_of)
    if described != (use_case_name, version, version):
        raise PackageRefused(f"{name} is of {described[0]} {described[1]} with the recipe of {described[2]}")
    return manifest


def _verified(store: ArtifactStore, path: str, listed: PackageFile) -> bytes:
    if listed.size > _LARGEST_FILE_BYTES:
        raise PackageRefused(f"{path} is listed with {listed.size} bytes; expected at most {_LARGEST_FILE_BYTES}")
    content = _within(store, path, listed.size)
    if (found := _described(content)) != listed:
        raise PackageRefused(f"{path} is {found}; its manifest says {listed}; train the version again or roll back")
    return content


def _within(store: ArtifactStore, path: str, largest: int) -> bytes:
    """Return a file's content, without reading one that is larger than it may be."""
    try:
        size = store.size(path)
    except BadInput as error:
        raise PackageRefused(f"{path} is no plain file: {error}") from error
    if size > largest:
        raise PackageRefused(f"{path} is of {size} bytes, expected at most {largest}; it was not read")
    return store.get(path)


def _described(content: bytes) -> PackageFile:
    """Return the hash and size of a file's content."""
    return PackageFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _parsed(content: bytes, kind: type[_T], name: str) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise PackageRefused(
            f"{name} is no {kind.__name__} of this release: {error}; train the version again or roll back"
        ) from error
