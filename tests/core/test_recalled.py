"""A package that this process has read before: from memory, and never once a file of it was written since."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.errors import ArtifactMissing, PackageRefused
from ml_assets.core.package import CONTENT_FILES, MANIFEST, MODEL
from ml_assets.core.ports import StoredFile
from ml_assets.core.recalled import recall_package

from .conftest import MemoryStore

USE_CASE = "storm_delay"


class CountingStore(MemoryStore):
    """Counts how many files were read."""

    n_read = 0

    def get(self, path: str) -> bytes:
        self.n_read += 1
        return super().get(path)


@pytest.fixture
def saved(trained):
    """The shared package in a store of its own, its version and its folder."""
    version = trained[1].package.version
    return CountingStore(trained[2].files), version, f"models/{USE_CASE}/{version}"


def in_a_folder(saved, to: Path) -> ObjectArtifactStore:
    """The package alone, in a store on the disk."""
    memory, _, folder = saved
    store = ObjectArtifactStore(to.as_uri())
    for path, content in memory.files.items():
        if path.startswith(folder):
            store.put(path, content)
    return store


def test_a_package_is_read_once_and_is_what_was_saved(saved, trained):
    store, version, _ = saved
    first = recall_package(store, USE_CASE, version)
    n_read = store.n_read
    assert first == trained[1].package
    assert recall_package(store, USE_CASE, version, expected_hash=first.package_hash) is first
    assert store.n_read == n_read


@pytest.mark.parametrize("name", CONTENT_FILES)
def test_a_file_damaged_after_it_was_read_is_refused(saved, name):
    store, version, folder = saved
    recall_package(store, USE_CASE, version)
    content = bytearray(store.files[f"{folder}/{name}"])
    content[-1] ^= 1
    store.files[f"{folder}/{name}"] = bytes(content)
    with pytest.raises(PackageRefused, match=f"{name} is .* its manifest says"):
        recall_package(store, USE_CASE, version)


def test_a_file_of_a_local_folder_damaged_after_it_was_read_is_refused(saved, tmp_path: Path):
    _, version, folder = saved
    store = in_a_folder(saved, tmp_path)
    package = recall_package(ObjectArtifactStore(tmp_path.as_uri()), USE_CASE, version)
    assert recall_package(store, USE_CASE, version) is package, "another object of the same store"
    path = tmp_path / folder / MODEL
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(PackageRefused, match="its manifest says"):
        recall_package(store, USE_CASE, version)


class PlainStore(MemoryStore):
    """A store at an address of its own, which says nothing of its files but name, size and time."""

    def __init__(self, address: str, files: Mapping[str, bytes]) -> None:
        super().__init__(files)
        self._address = address

    def address(self, path: str) -> str:
        return f"{self._address}/{path}"

    def describe(self, prefix: str) -> Sequence[StoredFile]:
        return [replace(file, tag="") for file in super().describe(prefix)]


def test_the_package_of_another_store_is_not_recalled_however_alike_the_two_are(saved):
    memory, version, folder = saved
    damaged = {**memory.files, f"{folder}/{MODEL}": memory.files[f"{folder}/{MODEL}"][:-1] + b"?"}
    assert recall_package(PlainStore("memory://one", memory.files), USE_CASE, version).version == version
    with pytest.raises(PackageRefused, match="its manifest says"):
        recall_package(PlainStore("memory://other", damaged), USE_CASE, version)


def test_a_file_that_was_replaced_by_one_of_its_size_and_time_is_refused(saved, tmp_path: Path):
    _, version, folder = saved
    store = in_a_folder(saved, tmp_path)
    recall_package(store, USE_CASE, version)
    path, restored = tmp_path / folder / MODEL, tmp_path / "restored"
    restored.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(restored, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    restored.replace(path)
    with pytest.raises(PackageRefused, match="its manifest says"):
        recall_package(store, USE_CASE, version)


def test_a_package_that_is_gone_or_is_not_the_one_in_charge_is_not_recalled(saved):
    store, version, folder = saved
    in_charge = recall_package(store, USE_CASE, version).package_hash
    store.files[f"{folder}/{MANIFEST}"] += b"\n"
    with pytest.raises(PackageRefused, match=f"put {in_charge[:12]} in charge"):
        recall_package(store, USE_CASE, version, expected_hash=in_charge)
    del store.files[f"{folder}/{MANIFEST}"]
    with pytest.raises(ArtifactMissing):
        recall_package(store, USE_CASE, version)
