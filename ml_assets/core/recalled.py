"""Packages that this process has verified before: read again only once a file of theirs was written since."""

from dataclasses import dataclass, field
from functools import lru_cache

from ml_assets.core.package import ModelPackage, load_package, package_folder
from ml_assets.core.ports import ArtifactStore, StoredFile


def recall_package(
    store: ArtifactStore, use_case_name: str, version: str, *, expected_hash: str | None = None
) -> ModelPackage:
    """Return what ``load_package`` does, from memory while the store describes the same files as when it was read.

    For whoever uses a package day after day: every package returned was verified, and one whose files were written
    since is verified anew. Damage that leaves a file's size, time and tag alone is found by ``load_package`` only.
    Raises what that does, and BadInput where the folder is a link.
    """
    folder = package_folder(use_case_name, version)
    files = _Files(address=store.address(folder), described=tuple(store.describe(folder)), store=store)
    package = _verified(files, use_case_name, version)
    if expected_hash not in (None, package.package_hash):
        return load_package(store, use_case_name, version, expected_hash=expected_hash)  # it says what is wrong
    return package


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The files of a folder, equal to those of an earlier look unless one was written, added or removed since."""

    address: str
    described: tuple[StoredFile, ...]
    store: ArtifactStore = field(compare=False)


# A day's work looks at the champion and two predecessors of each use case; a package is a few megabytes at most.
@lru_cache(maxsize=32)
def _verified(files: _Files, use_case_name: str, version: str) -> ModelPackage:
    return load_package(files.store, use_case_name, version)
