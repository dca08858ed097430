import hashlib
import json

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper

from ml_assets.core.errors import AlreadyExists, ArtifactMissing, InvalidName, PackageRefused
from ml_assets.core.package import (
    CONTENT_FILES,
    MANIFEST,
    MODEL,
    list_versions,
    load_package,
    package_exists,
    save_package,
)

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
    value = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n"])
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [value], [initializer])).SerializeToString()


def _external() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secrets.json")
    return tensor


def test_a_model_that_reaches_outside_its_own_bytes_is_refused_even_with_the_right_hash(saved):
    store, version, folder = saved
    plain = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    inner = helper.make_graph([], "inner", [], [], [_external()])
    models = {
        "in other files": _graph(_external()),
        r"tensors \['w'\] in other files": _graph(plain, helper.make_node("If", ["w"], ["x"], then_branch=inner)),
        "'w'": _graph(plain, helper.make_node("Constant", [], ["probability"], value=_external())),
        r"operators of \['evil'\]": _graph(plain, helper.make_node("Run", ["w"], ["probability"], domain="evil")),
        "no ONNX model": b"\xff not a model",
    }
    with_function = onnx.load_model_from_string(_graph(plain))
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    with_function.functions.append(helper.make_function("", "Hidden", ["x"], ["y"], [node], []))
    models["functions of its own"] = with_function.SerializeToString()
    for message, model in models.items():
        _replace(store, folder, MODEL, model)
        with pytest.raises(PackageRefused, match=message):
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
    assert [column["name"] for column in signature["numeric"]] == ["wind_speed_mph", "is_holiday"]
    assert msgspec.json.decode(store.files[f"{folder}/vocabulary.json"]) == {
        "values": {"origin": ["EWR", "JFK", "LGA"]}
    }


@pytest.mark.parametrize("version", ["../secrets", "a/../../b", "", ".hidden"])
def test_no_version_name_leaves_the_store(store, version):
    with pytest.raises(InvalidName):
        load_package(store, USE_CASE, version)
