"""A training set is coded once, and what is read from its files is what would be coded in memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml_assets.core import coded_sets
from ml_assets.core.coded_sets import RecordsFolder, code_training_set
from ml_assets.core.encoding import Signature, Vocabulary
from ml_assets.core.records import RecordedInputs, RecordFile
from ml_assets.core.scoring import score
from ml_assets.core.trainers import Labelled
from ml_assets.core.trainers.checkpoints import fit_key
from ml_assets.core.training_sets import PARTS, TrainingSet, freeze


@pytest.fixture
def training_set(trained) -> TrainingSet:
    return trained[0]


@pytest.fixture
def signature(inputs) -> Signature:
    return Signature.of(inputs)


@pytest.fixture
def vocabulary(training_set, signature) -> Vocabulary:
    return Vocabulary.of(training_set.train, signature)


@pytest.fixture
def folder(tmp_path) -> RecordsFolder:
    (tmp_path / "work").mkdir()
    return RecordsFolder(kept=tmp_path / "kept", work=tmp_path / "work")


def _files(folder: RecordsFolder) -> dict[Path, int]:
    """The files that are kept, each with the number of its inode: a new one for each time it is written."""
    return {path: path.stat().st_ino for path in sorted(folder.kept.rglob("*.records"))}


def _bits(part: Labelled) -> list[bytes]:
    return [part.inputs.numeric.tobytes(), part.inputs.categorical.tobytes(), part.labels.tobytes()]


def test_the_arrays_from_files_are_those_coded_in_memory(training_set, signature, vocabulary, folder):
    in_memory = code_training_set(training_set, signature, vocabulary)
    from_files = code_training_set(training_set, signature, vocabulary, folder=folder)
    streamed = code_training_set(training_set, signature, vocabulary, folder=replace(folder, memory_bytes=1))
    for part in PARTS:
        expected = _bits(getattr(in_memory, part))
        assert _bits(getattr(from_files, part)) == expected == _bits(getattr(streamed, part))
        assert not isinstance(getattr(from_files, part).inputs, RecordedInputs)
        assert isinstance(getattr(streamed, part).inputs, RecordedInputs)
    assert [path.stem for path in _files(folder)] == ["test", "train", "validation"]
    assert list(folder.work.iterdir()) == []


def test_what_is_coded_is_not_coded_again_unless_it_is_damaged(training_set, signature, vocabulary, folder):
    code_training_set(training_set, signature, vocabulary, folder=folder)
    before = _files(folder)
    code_training_set(training_set, signature, vocabulary, folder=folder)
    assert _files(folder) == before
    test, train, validation = before
    train.write_bytes(train.read_bytes()[:-1])
    content = bytearray(validation.read_bytes())
    content[-100] ^= 1
    validation.write_bytes(content)
    code_training_set(training_set, signature, vocabulary, folder=folder)
    after = _files(folder)
    assert after[test] == before[test]
    assert after[train] != before[train]
    assert after[validation] != before[validation]
    for path in after:
        RecordFile(path).verify()


def test_a_file_of_other_rows_in_its_place_is_not_used(training_set, signature, vocabulary, folder):
    code_training_set(training_set, signature, vocabulary, folder=folder)
    test, train, _ = _files(folder)
    train.write_bytes(test.read_bytes())
    found = code_training_set(training_set, signature, vocabulary, folder=folder)
    assert len(found.train.labels) == len(found.train.inputs) == 1800
    assert RecordFile(train).header.source == f"{training_set.fingerprint}/train"


def test_another_code_book_or_training_set_has_files_of_its_own(training_set, signature, vocabulary, folder):
    grown = Vocabulary(values={"origin": ("ATL", *vocabulary.values["origin"])})
    renamed = replace(training_set, manifest=replace(training_set.manifest, fingerprint="f" * 64))
    code_training_set(training_set, signature, vocabulary, folder=folder)
    with_grown = code_training_set(training_set, signature, grown, folder=folder)
    code_training_set(renamed, signature, vocabulary, folder=folder)
    assert len(_files(folder)) == 9
    # ATL comes first of the values: every other code is one higher.
    plain = code_training_set(training_set, signature, vocabulary, folder=folder)
    assert np.array_equal(with_grown.train.inputs.categorical, plain.train.inputs.categorical + 1)


def test_only_the_sets_written_last_are_kept(training_set, signature, vocabulary, folder, monkeypatch):
    monkeypatch.setattr(coded_sets, "_N_SETS_KEPT", 2)
    for digit in "abc":
        of_digit = replace(training_set, manifest=replace(training_set.manifest, fingerprint=digit * 64))
        code_training_set(of_digit, signature, vocabulary, folder=folder)
    assert sorted({path.parent.name[0] for path in _files(folder)}) == ["b", "c"]


def test_a_candidate_trained_from_files_is_the_same_to_the_last_bit(trained, train, folder):
    first, second = (train(records=folder) for _ in range(2))
    assert not second.is_reused
    assert first.package.package_hash == second.package.package_hash == trained[1].package.package_hash
    assert len(_files(folder)) == 3


def test_a_candidate_streamed_from_files_is_as_good(trained, train, folder):
    # Of 1,800 examples of 24 bytes the memory holds 400.
    small = replace(folder, memory_bytes=400 * 24)
    first, second = (train(records=small) for _ in range(2))
    assert first.package.package_hash == second.package.package_hash != trained[1].package.package_hash
    whole = trained[1].package.metrics.holdout
    assert first.package.metrics.holdout.roc_auc == pytest.approx(whole.roc_auc, abs=0.02)
    assert first.package.metrics.holdout.log_loss == pytest.approx(whole.log_loss, abs=0.03)


@pytest.mark.parametrize("trainer", ["lightning", pytest.param("keras", marks=pytest.mark.slow)])
def test_a_candidate_of_streamed_parts_is_fitted_chosen_compared_and_judged_without_decoding_any(
    trainer, trained, train, use_case, inputs, examples, folder, monkeypatch
):
    if trainer == "keras":
        pytest.importorskip("keras")
    store = type(trained[2])()
    shifted = replace(use_case, split=replace(use_case.split, test_days=5))
    later = freeze(examples, use_case=shifted, inputs=inputs, as_of=trained[0].as_of, code_version="c1", store=store)
    monkeypatch.setattr(RecordFile, "coded", lambda _: pytest.fail("a whole part was decoded"))
    package = train(
        training_set=later,
        use_case=replace(use_case, trainer=trainer),
        store=store,
        parent=trained[1].package,  # so that both starts are compared by validation
        records=replace(folder, memory_bytes=100 * 20),
    ).package
    assert package.metrics.warm_start is not None
    assert package.metrics.warm_start.warm is not None
    assert (package.metrics.n_train, package.metrics.n_validation) == (1900, 400)
    y, p = later.validation["label"].to_numpy().astype(float), score(package, later.validation)
    log_loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert package.metrics.validation_loss == pytest.approx(log_loss, abs=1e-6)
    assert 0 < package.metrics.largest_parity_difference < 1e-5


def test_a_fit_of_streamed_rows_is_another_one_within_other_memory(training_set, signature, vocabulary, folder):
    def key(memory_bytes: int) -> str:
        coded = code_training_set(
            training_set, signature, vocabulary, folder=replace(folder, memory_bytes=memory_bytes)
        )
        return fit_key(coded.train, coded.validation, None, settings={}, libraries={})

    assert len({key(100 * 20), key(200 * 20), key(10_000 * 20), key(20_000 * 20)}) == 3  # the last two hold all rows
    assert key(100 * 20) == key(100 * 20)


def test_a_coded_set_says_within_which_memory_any_of_its_parts_is_streamed(training_set, signature, vocabulary, folder):
    # Rows of 20 bytes, two numbers, a code and the label: train has 1,800, test 600, validation 400.
    for memory_rows, n_streamed in {399: 3, 400: 2, 600: 1, 1800: 0}.items():
        memory_bytes = memory_rows * 20
        coded = code_training_set(
            training_set, signature, vocabulary, folder=replace(folder, memory_bytes=memory_bytes)
        )
        assert sum(isinstance(getattr(coded, part).inputs, RecordedInputs) for part in PARTS) == n_streamed
        assert coded.streaming_bytes == (memory_bytes if n_streamed else 0)
