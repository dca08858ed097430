"""What the tracker is told of a training set and of a model package: names and facts of them, never their data."""

from datetime import date

from ml_assets.core.package import MANIFEST, ModelPackage
from ml_assets.core.ports import ArtifactStore, TrackedArtifact
from ml_assets.core.training_sets import TrainingSet


def tracked_training_set(training_set: TrainingSet, store: ArtifactStore) -> TrackedArtifact:
    """Describe the training set that a run reads."""
    manifest = f"training_sets/{training_set.use_case}/{training_set.fingerprint}/{MANIFEST}"
    return TrackedArtifact(
        kind="training_set",
        use_case=training_set.use_case,
        version=training_set.as_of.isoformat(),
        digest=training_set.fingerprint,
        address=store.address(manifest),
        facts={
            **{f"n_{part}": n_rows for part, n_rows in training_set.counts.items()},
            "first_day": training_set.days.train[0],
            "last_day": training_set.days.test[-1],
        },
    )


def tracked_package(package: ModelPackage, store: ArtifactStore) -> TrackedArtifact:
    """Describe the package that a training made."""
    return tracked_model(package.use_case, package.version, package.package_hash, package.as_of, store)


def tracked_model(
    use_case: str, version: str, package_hash: str, as_of: date, store: ArtifactStore, *, alias: str = "candidate"
) -> TrackedArtifact:
    """Describe a model by what the ledger knows of it; the same package is the same artifact, whoever names it."""
    return TrackedArtifact(
        kind="model",
        use_case=use_case,
        version=version,
        digest=package_hash,
        address=store.address(f"models/{use_case}/{version}/{MANIFEST}"),
        facts={"as_of": as_of},
        alias=alias,
    )
