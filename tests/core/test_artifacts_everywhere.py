"""A training set, a package, the ledger, the log and pruning on every kind of store, S3 and GCS over HTTP included."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.core import registry
from ml_assets.core.errors import StoreUnavailable
from ml_assets.core.experiment_rows import experiments
from ml_assets.core.experiments import ExperimentLog
from ml_assets.core.package import CONTENT_FILES, load_package, save_package
from ml_assets.core.retention import prune
from ml_assets.core.training_sets import PARTS, freeze, training_set_of

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_what_a_training_leaves_is_the_same_in_every_store(trained, examples, inputs, use_case, any_store):
    training_set, candidate, memory, _ = trained
    package = candidate.package
    frozen = freeze(
        examples, use_case=use_case, inputs=inputs, as_of=training_set.as_of, code_version="c1", store=any_store
    )
    assert (frozen.fingerprint, frozen.train) == (training_set.fingerprint, training_set.train)
    assert training_set_of(any_store, use_case.name, training_set.as_of) == training_set.fingerprint

    folder = f"models/{use_case.name}/{package.version}"
    content = {name: memory.get(f"{folder}/{name}") for name in CONTENT_FILES}
    assert save_package(any_store, package.manifest, content).package_hash == package.package_hash
    # Whatever else trains as of the same day in this session moves the pointer in its memory.
    as_of = f"training_sets/{use_case.name}/as_of/"
    written = {path: any_store.get(path) for path in any_store.list("") if not path.startswith(as_of)}
    of_this = (f"{folder}/", f"training_sets/{use_case.name}/{training_set.fingerprint}/")
    assert written == {path: found for path, found in memory.files.items() if path.startswith(of_this)}

    log = ExperimentLog(store=any_store, now=lambda: NOON, recorded_by="dagster", run_id="r1")
    log.begin(package.manifest.recipe, training_set).complete({"holdout_roc_auc": 0.7}, package)
    decision = {
        "use_case": use_case.name,
        "version": package.version,
        "package_hash": package.package_hash,
        "effective_from": package.as_of,
        "as_of": package.as_of,
        "reason": "too slow",
        "gates": (),
        "recorded_at": NOON + timedelta(minutes=1),
        "recorded_by": "gates",
    }
    refused = registry.refuse(any_store, **decision)
    assert list(registry.entries(any_store, use_case.name)) == [refused]
    rows = experiments(any_store)
    assert [(row.kind, row.status, row.version) for row in rows] == [
        ("promotion", "refuse", package.version),
        ("training", "complete", package.version),
    ]
    assert rows[1].metrics["roc_auc"] == 0.7

    # Two months on nobody refers to the refused package, nor to its training set but the newest pointer.
    later = datetime.now(UTC) + timedelta(days=60)
    arguments = {"predicted": {}, "now": later, "older_than": timedelta(days=30), "recorded_by": "test"}
    assert [item.key.kind for item in prune(any_store, **arguments)] == ["package"]
    assert list(any_store.list("models")) == []
    assert list(any_store.list("training_sets")) == sorted(
        [f"training_sets/{use_case.name}/as_of/{training_set.as_of}.json"]
        + [f"training_sets/{use_case.name}/{training_set.fingerprint}/{part}.arrow" for part in PARTS]
        + [f"training_sets/{use_case.name}/{training_set.fingerprint}/manifest.json"]
    )


def test_a_store_that_is_down_is_no_list_of_damaged_trainings(trained):
    class Down(type(trained[2])):
        def get(self, path: str) -> bytes:
            raise StoreUnavailable(path)

    with pytest.raises(StoreUnavailable):
        experiments(Down(trained[2].files))


def test_the_package_that_was_saved_is_the_one_that_is_loaded(trained, any_store):
    package = trained[1].package
    for path, content in trained[2].files.items():
        any_store.put(path, content)
    loaded = load_package(any_store, package.use_case, package.version, expected_hash=package.package_hash)
    assert (loaded.model, loaded.portable, loaded.weights) == (package.model, package.portable, package.weights)
