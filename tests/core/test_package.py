import hashlib
import json
import os
import pickle
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.errors import AlreadyExists, ArtifactMissing, InvalidName, PackageRefused
from ml_assets.core.package import (
    CONTENT_FILES,
    MANIFEST,
    MODEL,
    PORTABLE,
    WEIGHTS,
    list_versions,
    load_package,
    package_exists,
    save_package,
)

from .conftest import MemoryStore

USE_CASE = "storm_delay"


@pytest.fixture
def saved(trained):
    """The shared package in a store of its own, its version and its folder."""
    _, candidate, shared, _ = trained
    store = type(shared)(shared.files)
    version = candidate.package.version
    return store, version, f"models/{USE_CASE}/{version}"


def _replace(store, folder: str, name: str, content: bytes) -> None:
    """Write a file and list its hash, as someone would who can write to the store."""
    manifest = json.loads(store.files[f"{folder}/{MANIFEST}"])
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    store.files[f"{folder}/{name}"] = content
    store.files[f"{folder}/{MANIFEST}"] = json.dumps(manifest).encode()


def test_a_package_reads_back_with_its_hash_and_its_recipe(saved, trained):
    store, version, folder = saved
    package = load_package(store, USE_CASE, version)
    assert package == trained[1].package
    assert package.package_hash == hashlib.sha256(store.files[f"{folder}/{MANIFEST}"]).hexdigest()
    assert version == package.manifest.recipe.version(package.as_of)
    assert version.startswith("2013-01-31-")
    assert package.manifest.recipe.training_set == trained[0].fingerprint
    assert package.manifest.last_train_day == trained[0].days.train[-1]
    assert (package_exists(store, USE_CASE, version), list_versions(store, USE_CASE)) == (True, [version])


@pytest.mark.parametrize("name", [*CONTENT_FILES, MANIFEST])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_flipped_bit_in_any_file_is_refused_or_changes_the_package_hash(saved, trained, name, where):
    store, version, folder = saved
    content = bytearray(store.files[f"{folder}/{name}"])
    content[int(where * (len(content) - 1))] ^= 1
    store.files[f"{folder}/{name}"] = bytes(content)
    if name != MANIFEST:
        with pytest.raises(PackageRefused, match=f"{name} is .* its manifest says"):
            load_package(store, USE_CASE, version)
        return
    try:
        found = load_package(store, USE_CASE, version).package_hash
    except PackageRefused:
        return
    assert found != trained[1].package.package_hash


def test_a_manifest_that_reads_well_and_is_not_the_one_put_in_charge_is_refused(saved, trained):
    store, version, folder = saved
    in_charge = trained[1].package.package_hash
    assert load_package(store, USE_CASE, version, expected_hash=in_charge) == trained[1].package
    _replace(store, folder, "vocabulary.json", store.files[f"{folder}/vocabulary.json"])  # the same, set otherwise
    assert load_package(store, USE_CASE, version).package_hash != in_charge
    with pytest.raises(PackageRefused, match=f"manifest.json has the hash .* put {in_charge[:12]} in charge"):
        load_package(store, USE_CASE, version, expected_hash=in_charge)


@pytest.mark.parametrize("name", CONTENT_FILES)
def test_a_missing_file_is_refused(saved, name):
    store, version, folder = saved
    del store.files[f"{folder}/{name}"]
    with pytest.raises(PackageRefused, match=r"expected .* in both"):
        load_package(store, USE_CASE, version)


def test_an_unlisted_file_is_refused(saved):
    store, version, folder = saved
    store.files[f"{folder}/weights.bin"] = b"surprise"
    with pytest.raises(PackageRefused, match=r"weights\.bin"):
        load_package(store, USE_CASE, version)


def test_a_truncated_and_an_oversized_file_are_refused(saved):
    store, version, folder = saved
    whole = store.files[f"{folder}/{MODEL}"]
    store.files[f"{folder}/{MODEL}"] = whole[:-1]
    with pytest.raises(PackageRefused, match=r"model\.onnx is"):
        load_package(store, USE_CASE, version)
    manifest = json.loads(store.files[f"{folder}/{MANIFEST}"])
    manifest["files"][MODEL]["size"] = 10**12
    store.files[f"{folder}/{MANIFEST}"] = json.dumps(manifest).encode()
    with pytest.raises(PackageRefused, match="listed with 1000000000000 bytes"):
        load_package(store, USE_CASE, version)


class _Counting(MemoryStore):
    """Remembers which files were read."""

    def __init__(self, files) -> None:
        super().__init__(files)
        self.read: list[str] = []

    def get(self, path: str) -> bytes:
        self.read.append(path)
        return super().get(path)

    def size(self, path: str) -> int:
        return len(self.files[path])


def test_a_file_larger_than_it_may_be_is_refused_before_it_is_read(saved):
    store, version, folder = saved
    counting = _Counting(store.files)
    counting.files[f"{folder}/{WEIGHTS}"] += b"0"
    with pytest.raises(PackageRefused, match=r"weights\.safetensors is of .* it was not read"):
        load_package(counting, USE_CASE, version)
    assert f"{folder}/{WEIGHTS}" not in counting.read
    counting.files[f"{folder}/{MANIFEST}"] = b" " * (1024 * 1024 + 1)
    counting.read.clear()
    with pytest.raises(PackageRefused, match=r"manifest\.json is of 1048577 bytes, expected at most 1048576"):
        load_package(counting, USE_CASE, version)
    assert counting.read == []


@pytest.mark.parametrize("listed", ["../../../secrets.json", "/etc/passwd", "..\\secrets.json", "model.onnx/../x"])
def test_a_manifest_that_lists_a_file_outside_its_folder_is_refused_before_anything_is_read(saved, listed):
    store, version, folder = saved
    secret = b"a secret"
    manifest = json.loads(store.files[f"{folder}/{MANIFEST}"])
    manifest["files"][listed] = {"sha256": hashlib.sha256(secret).hexdigest(), "size": len(secret)}
    del manifest["files"][WEIGHTS]
    counting = _Counting({**store.files, "secrets.json": secret})
    counting.files[f"{folder}/{MANIFEST}"] = json.dumps(manifest).encode()
    with pytest.raises(PackageRefused, match=r"expected .* in both"):
        load_package(counting, USE_CASE, version)
    assert counting.read == [f"{folder}/{MANIFEST}"]


class _WritesAFile:
    """What an attacker pickles: loading it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "code was run")


@pytest.mark.parametrize("name", CONTENT_FILES)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_in_the_place_of_any_file_is_refused_and_never_run(saved, tmp_path, name, protocol):
    store, version, folder = saved
    evil = pickle.dumps(_WritesAFile(tmp_path / "owned"), protocol=protocol)
    _replace(store, folder, name, evil)
    with pytest.raises(PackageRefused, match=f"{name} is no"):
        load_package(store, USE_CASE, version)
    assert not (tmp_path / "owned").exists()
    pickle.loads(evil)
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", CONTENT_FILES)
def test_an_empty_file_is_refused_even_with_the_right_hash(saved, name):
    store, version, folder = saved
    _replace(store, folder, name, b"")
    with pytest.raises(PackageRefused, match=f"{name} is no"):
        load_package(store, USE_CASE, version)


def test_weights_whose_header_lies_about_their_arrays_are_refused(saved):
    store, version, folder = saved
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}).encode()
    for content in (len(header).to_bytes(8, "little") + header + b"1234", (2**63).to_bytes(8, "little") + b"{}"):
        _replace(store, folder, WEIGHTS, content)
        with pytest.raises(PackageRefused, match=r"weights\.safetensors is not in the format safetensors"):
            load_package(store, USE_CASE, version)


@pytest.fixture
def on_disk(saved, tmp_path):
    """The shared package in a local folder: the store, the version and the package's folder on disk."""
    store, version, folder = saved
    local = ObjectArtifactStore((tmp_path / "artifacts").as_uri())
    for path, content in store.files.items():
        if path.startswith(folder):
            local.put(path, content)
    assert load_package(local, USE_CASE, version).version == version
    return local, version, tmp_path / "artifacts" / folder


@pytest.mark.parametrize("name", [*CONTENT_FILES, MANIFEST])
def test_a_symbolic_link_to_the_very_same_bytes_is_refused(on_disk, tmp_path, name):
    store, version, folder = on_disk
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageRefused, match=rf"{name} is no plain file: .* is lrwxrwxrwx"):
        load_package(store, USE_CASE, version)


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(on_disk):
    store, version, folder = on_disk
    (folder / "vocabulary.json").unlink()
    os.mkfifo(folder / "vocabulary.json")
    with pytest.raises(PackageRefused):
        load_package(store, USE_CASE, version)


@pytest.mark.parametrize("what", ["the package", "all models"])
def test_a_folder_that_is_a_link_is_refused(on_disk, tmp_path, what):
    store, version, folder = on_disk
    linked = folder if what == "the package" else folder.parents[1]
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageRefused, match="is no plain file"):
        load_package(store, USE_CASE, version)


def test_a_damaged_package_on_disk_is_refused_bit_by_bit(on_disk):
    store, version, folder = on_disk
    draw = np.random.default_rng(7)
    for name in CONTENT_FILES:
        whole = (folder / name).read_bytes()
        for bit in draw.integers(0, 8 * len(whole), 20):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << (bit % 8)
            (folder / name).write_bytes(flipped)
            with pytest.raises(PackageRefused, match=f"{name} is .* its manifest says"):
                load_package(store, USE_CASE, version)
        (folder / name).write_bytes(whole)
    assert load_package(store, USE_CASE, version).version == version


def test_a_package_of_an_earlier_release_is_refused_with_what_to_do(saved):
    store, version, folder = saved
    manifest = json.loads(store.files[f"{folder}/{MANIFEST}"])
    del manifest["environment_hash"]
    store.files[f"{folder}/{MANIFEST}"] = json.dumps(manifest).encode()
    with pytest.raises(PackageRefused, match=r"environment_hash.*; train the version again or roll back"):
        load_package(store, USE_CASE, version)


def test_a_manifest_of_another_recipe_or_version_is_refused(saved):
    store, version, folder = saved
    manifest = json.loads(store.files[f"{folder}/{MANIFEST}"])
    manifest["recipe"]["seed"] += 1
    store.files[f"{folder}/{MANIFEST}"] = json.dumps(manifest).encode()
    with pytest.raises(PackageRefused, match="with the recipe of"):
        load_package(store, USE_CASE, version)
    store.files |= {path.replace(version, "2013-02-01-aaaa"): store.files[path] for path in store.list(folder)}
    with pytest.raises(PackageRefused, match="is of storm_delay"):
        load_package(store, USE_CASE, "2013-02-01-aaaa")


def _graph(initializer: TensorProto, *nodes: onnx.NodeProto) -> bytes:
    value = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["n"])
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [value], [initializer])).SerializeToString()


def _external() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secrets.json")
    return tensor


@pytest.mark.parametrize("name", [MODEL, PORTABLE])
def test_a_model_that_reaches_outside_its_own_bytes_is_refused_even_with_the_right_hash(saved, name):
    store, version, folder = saved
    plain = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    inner = helper.make_graph([], "inner", [], [], [_external()])
    models = {
        "in other files": _graph(_external()),
        r"tensors \['w'\] in other files": _graph(plain, helper.make_node("If", ["w"], ["x"], then_branch=inner)),
        "'w'": _graph(plain, helper.make_node("Constant", [], ["prediction"], value=_external())),
        r"operators of \['evil'\]": _graph(plain, helper.make_node("Run", ["w"], ["prediction"], domain="evil")),
        "no ONNX model": b"\xff not a model",
    }
    with_function = onnx.load_model_from_string(_graph(plain))
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    with_function.functions.append(helper.make_function("", "Hidden", ["x"], ["y"], [node], []))
    models["functions of its own"] = with_function.SerializeToString()
    for message, model in models.items():
        _replace(store, folder, name, model)
        with pytest.raises(PackageRefused, match=f"{name}.*{message}"):
            load_package(store, USE_CASE, version)


@pytest.mark.parametrize("name", [file for file in CONTENT_FILES if file.endswith(".json")])
def test_a_document_of_another_shape_is_refused_even_with_the_right_hash(saved, name):
    store, version, folder = saved
    _replace(store, folder, name, b'{"values": 3}')
    with pytest.raises(PackageRefused, match=f"{name} is no "):
        load_package(store, USE_CASE, version)


def test_an_unfinished_write_is_no_package_and_is_finished_by_the_next(saved, trained):
    store, version, folder = saved
    del store.files[f"{folder}/{MANIFEST}"]
    assert not package_exists(store, USE_CASE, version)
    assert list_versions(store, USE_CASE) == []
    with pytest.raises(ArtifactMissing, match="has no model"):
        load_package(store, USE_CASE, version)
    content = {name: store.files[f"{folder}/{name}"] for name in CONTENT_FILES}
    assert save_package(store, trained[1].package.manifest, content) == trained[1].package


def test_a_version_that_is_there_is_never_replaced_by_another_content(saved, trained):
    store, _, folder = saved
    content = {name: store.files[f"{folder}/{name}"] for name in CONTENT_FILES}
    before = dict(store.files)
    with pytest.raises(AlreadyExists, match="with other hashes"):
        save_package(store, trained[1].package.manifest, {**content, "metrics.json": b"{}"})
    assert store.files == before


def test_the_json_of_a_package_is_readable_by_anyone(saved):
    store, _, folder = saved
    signature = json.loads(store.files[f"{folder}/signature.json"])
    assert [(column["name"], column["kind"], column["unit"]) for column in signature["numeric"]] == [
        ("wind_speed_mph", "number", "mph"),
        ("is_holiday", "boolean", None),
    ]
    assert [(column["name"], column["kind"]) for column in signature["categorical"]] == [("origin", "text")]
    assert store.files[f"{folder}/signature.json"].count(b"\n") > 10
    intervals = json.loads(store.files[f"{folder}/metrics.json"])["intervals"]
    holdout = json.loads(store.files[f"{folder}/metrics.json"])["holdout"]
    assert set(intervals) == {"roc_auc", "pr_auc", "log_loss", "brier"}
    assert all(interval["low"] < holdout[name] < interval["high"] for name, interval in intervals.items())
    assert msgspec.json.decode(store.files[f"{folder}/vocabulary.json"]) == {
        "values": {"origin": ["EWR", "JFK", "LGA"]}
    }


@pytest.mark.parametrize("version", ["../secrets", "a/../../b", "", ".hidden"])
def test_no_version_name_leaves_the_store(store, version):
    with pytest.raises(InvalidName):
        load_package(store, USE_CASE, version)
