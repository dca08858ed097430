from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.core import candidates
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.errors import ArtifactMissing, InvalidDeclaration, PackageRefused
from ml_assets.core.package import CONTENT_FILES, save_package
from ml_assets.core.reproduction import Reproduction, reproduce
from ml_assets.core.trainers import FittedModel, Trainer
from ml_assets.core.training_sets import freeze

AS_OF = date(2013, 1, 31)
FILES = {"model.onnx", "portable.onnx", "weights.safetensors", "vocabulary.json", "signature.json", "reference.json"}
FILES = {f"model: {name}" for name in FILES | {"metrics.json", "expectations.json"}}


@pytest.fixture
def rebuilt(trained, examples, use_case, tmp_path: Path) -> Callable[..., Reproduction]:
    """Reproduce a version, that of the shared training unless named, and look that the store is left alone."""

    def _rebuilt(**changes: object) -> Reproduction:
        store = changes.pop("store", trained[2])
        rows = changes.pop("examples", examples)
        before = dict(store.files)
        arguments: dict[str, object] = {
            "use_case": use_case,
            "read_examples": lambda _use_case, _inputs, _as_of: rows,
            "scratch": type(store)(),
            "code_version": "c1",
            "work_folder": tmp_path,
            **changes,
        }
        found = reproduce(store, arguments.pop("version", trained[1].package.version), **arguments)
        assert store.files == before, "a reproduction never changes the store"
        return found

    return _rebuilt


def differing(found: Reproduction) -> set[str]:
    return {finding.what for finding in found.findings if not finding.is_identical}


def value_set(rows: pa.Table, decision: str, column: str, value: object) -> pa.Table:
    is_it = pc.equal(rows["decision_id"], decision)
    changed = pc.if_else(is_it, pa.scalar(value, rows[column].type), rows[column])
    return rows.set_column(rows.column_names.index(column), column, changed)


def test_training_set_and_model_come_out_the_same_to_the_last_bit(rebuilt, trained):
    found = rebuilt()
    assert found.is_identical
    assert (differing(found), found.days) == (set(), ())
    assert {f.what for f in found.findings if f.what.startswith("model: ")} == FILES
    fingerprint = next(f for f in found.findings if f.what == "training set: fingerprint")
    assert fingerprint.rebuilt == trained[0].fingerprint[:12]


def test_the_examples_are_read_by_the_record_and_not_by_todays_declaration(rebuilt, use_case, inputs, examples):
    asked = []

    def read(of_use_case, of_inputs, as_of):
        asked.append((of_use_case.split, of_use_case.question, of_inputs, as_of))
        return examples

    today = replace(
        use_case, question="Another?", split=replace(use_case.split, validation_days=2, train_days=9), seed=99
    )
    today = replace(today, hyperparameters={"layer_sizes": "8"})
    assert rebuilt(use_case=today, read_examples=read).is_identical
    assert asked == [(use_case.split, use_case.question, inputs, AS_OF)]


def test_a_changed_value_is_named_by_day_and_column_and_the_model_is_still_the_same(rebuilt, examples):
    # Row 105 is of the second day, and examples are named by their row.
    rows = value_set(examples, "UA-105", "wind_speed_mph", 99.5)
    rows = value_set(rows, "UA-7", "origin", "LAX")
    rows = value_set(value_set(rows, "UA-8", "origin", "LAX"), "UA-8", "is_holiday", None)
    found = rebuilt(examples=rows)
    assert not found.is_identical
    assert differing(found) == {"training set: content", "training set: fingerprint"}
    assert [(d.day, d.n_added, d.n_removed, d.n_changed, d.columns) for d in found.days] == [
        (date(2013, 1, 1), 0, 0, 2, {"is_holiday": 1, "origin": 2}),
        (date(2013, 1, 2), 0, 0, 1, {"wind_speed_mph": 1}),
    ]


def test_rows_that_came_and_went_are_counted(rebuilt, examples):
    late = examples.slice(0, 1).set_column(0, "decision_id", pa.array(["UA-late"]))
    found = rebuilt(examples=pa.concat_tables([examples.slice(3), late]))
    assert [(d.day, d.n_added, d.n_removed, d.n_changed) for d in found.days] == [(date(2013, 1, 1), 1, 3, 0)]
    assert "training set: examples" in differing(found)
    assert not differing(found) & FILES


def test_a_sample_is_drawn_again(rebuilt, trained, train, use_case, inputs, examples):
    store = type(trained[2])()
    sampled = freeze(
        examples, use_case=use_case, inputs=inputs, as_of=AS_OF, sample_fraction=0.4, code_version="c1", store=store
    )
    version = train(training_set=sampled, store=store).package.version
    found = rebuilt(store=store, version=version)
    assert found.is_identical
    assert (
        next(f for f in found.findings if f.what == "training set: examples").rebuilt
        == f"{sum(sampled.counts.values()):,}"
    )


def test_a_warm_started_model_starts_from_the_recorded_parent_again(
    rebuilt, trained, train, use_case, inputs, examples
):
    store = type(trained[2])(trained[2].files)
    fewer_days = replace(use_case, split=replace(use_case.split, test_days=5))
    later = freeze(examples, use_case=fewer_days, inputs=inputs, as_of=AS_OF, code_version="c1", store=store)
    champion = trained[1].package
    child = train(training_set=later, store=store, parent=champion).package
    assert child.manifest.is_warm_started

    assert rebuilt(store=store, version=child.version).is_identical
    for path in store.list(f"models/storm_delay/{champion.version}"):
        store.delete(path)
    with pytest.raises(ArtifactMissing, match=champion.version):
        rebuilt(store=store, version=child.version)


def test_parameters_that_were_tuned_then_are_used_again_whatever_the_use_case_says_now(
    rebuilt, trained, train, use_case
):
    store = type(trained[2])(trained[2].files)
    then = replace(use_case, hyperparameters={"layer_sizes": "8", "n_epochs": 3, "learning_rate": 0.01})
    version = train(use_case=then, store=store).package.version
    assert rebuilt(store=store, version=version).is_identical


def test_other_code_and_other_libraries_are_named_as_causes_and_are_no_difference_themselves(rebuilt, monkeypatch):
    versions_of = candidates.versions_of
    monkeypatch.setattr(candidates, "environment_hash", lambda: "e" * 64)
    monkeypatch.setattr(candidates, "versions_of", lambda *names: {**versions_of(*names), "numpy": "9.9"})
    found = rebuilt(code_version="c2")
    assert differing(found) == {"code version", "training set: code version", "environment", "environment: numpy"}
    assert next(f.rebuilt for f in found.findings if f.what == "environment: numpy") == "9.9"
    assert found.is_identical


def test_a_model_of_streamed_parts_is_streamed_again_within_the_same_memory(rebuilt, trained, train, tmp_path):
    # Of the 1,800 training examples of 20 bytes 20 kB hold 1,000; validation and test, of 400 and 600, are held.
    (tmp_path / "work").mkdir()
    folder = RecordsFolder(kept=tmp_path / "kept", work=tmp_path / "work", memory_bytes=20_000)
    store = type(trained[2])(trained[2].files)
    for path in store.list("models"):
        store.delete(path)
    streamed = train(store=store, records=folder).package
    assert (streamed.manifest.streaming_bytes, trained[1].package.manifest.streaming_bytes) == (20_000, 0)
    assert streamed.version == trained[1].package.version
    assert streamed.weights != trained[1].package.weights

    found = rebuilt(store=store)
    assert found.is_identical
    assert differing(found) == set()


def test_the_number_of_processes_is_a_cause_that_says_how_to_have_the_same_bits(rebuilt, trained):
    store, package = type(trained[2])(trained[2].files), trained[1].package
    folder = f"models/storm_delay/{package.version}"
    content = {name: store.get(f"{folder}/{name}") for name in CONTENT_FILES}
    store.delete(f"{folder}/manifest.json")
    save_package(store, replace(package.manifest, n_processes=2), content)

    found = rebuilt(store=store)
    assert found.is_identical
    assert differing(found) == {"processes"}
    (finding,) = (finding for finding in found.findings if finding.what == "processes")
    assert (finding.recorded, finding.rebuilt) == (
        "2",
        "1; for the same bits train with as many, in a copy of ML_ASSETS_HOME without this package: torchrun "
        "--standalone --nproc_per_node=2 --no-python ml-assets train --use-case storm_delay --as-of 2013-01-31 --cold",
    )


@dataclass(frozen=True)
class FittedConstant(FittedModel):
    value: float

    def predict(self, inputs):
        return np.full(len(inputs), np.float32(self.value), dtype=np.float64)

    def to_onnx(self) -> bytes:
        from onnx import parser

        return parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
            constant (float[n, k] numeric, int64[n, m] categorical) => (float[n] prediction)
            <float[1] value = {{{self.value}}}, int64 first = {{0}}>
            {{ rows = Shape<end = 1>(numeric)  prediction = Expand(value, rows) }}""").SerializeToString()

    def weights(self):
        return {"value": np.array([self.value, 0.0])}


class Forgetful(Trainer):
    """Answers something else each time it is fitted, whatever the seed: 0.125, then 0.25, and so on."""

    n_fits = 0

    def fit(self, train, validation, **given):
        Forgetful.n_fits += 1
        return FittedConstant(value=0.125 * Forgetful.n_fits)


def test_a_trainer_that_cannot_repeat_itself_is_told_by_file_with_the_largest_differences(
    rebuilt, trained, train, use_case, monkeypatch
):
    monkeypatch.setattr(Forgetful, "n_fits", 0)
    store, forgetful = type(trained[2])(trained[2].files), replace(use_case, trainer=Forgetful, hyperparameters={})
    version = train(use_case=forgetful, store=store).package.version
    found = rebuilt(store=store, version=version, use_case=forgetful)
    assert not found.is_identical
    same = {"model: vocabulary.json", "model: signature.json"}
    largest = {"model: largest difference of a prediction", "model: largest difference of a weight"}
    assert differing(found) == FILES - same | largest
    assert {f.rebuilt for f in found.findings if f.what in largest} == {"0.125"}
    assert found.days == ()


def test_a_trainer_that_is_no_more_and_a_damaged_record_are_refused(rebuilt, trained, train, use_case):
    store = type(trained[2])(trained[2].files)
    version = train(use_case=replace(use_case, trainer=Forgetful, hyperparameters={}), store=store).package.version
    with pytest.raises(InvalidDeclaration, match="there is no trainer 'Forgetful'"):
        rebuilt(store=store, version=version)
    store.files[f"models/storm_delay/{version}/metrics.json"] += b" "
    with pytest.raises(PackageRefused):
        rebuilt(store=store, version=version)
    with pytest.raises(ArtifactMissing, match="has no model 2013-01-31-000000000000"):
        rebuilt(version="2013-01-31-000000000000")
