import hashlib
import json
import re
import subprocess
import sys

import onnx
import pytest

from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.errors import PackageRefused
from ml_assets.core.portable_model import to_portable
from ml_assets.core.portable_parity import largest_portable_difference
from ml_assets.core.scoring import score


def test_the_portable_gate_sees_swapped_categories(trained, examples):
    package = trained[1].package
    swapped = Vocabulary(values={"origin": ("JFK", "EWR", "LGA")})
    portable = to_portable(package.model, signature=package.signature, vocabulary=swapped)
    answered = [(examples, score(package, examples))]
    with pytest.raises(PackageRefused, match=r"portable graph differs .* expected at most 1e-06"):
        largest_portable_difference(package.model, portable, answered, package.signature, package.vocabulary)
    difference = largest_portable_difference(
        package.model, package.portable, answered, package.signature, package.vocabulary
    )
    assert difference <= 1e-6


@pytest.mark.parametrize("attribute", ["default_int64", "cats_int64s"])
def test_the_portable_gate_sees_what_only_unseen_or_null_text_shows(trained, examples, attribute):
    package = trained[1].package
    portable = onnx.load_model_from_string(package.portable)
    lookup = next(node for node in portable.graph.node if node.op_type == "CategoryMapper")
    wrong = next(found for found in lookup.attribute if found.name == attribute)
    if attribute == "default_int64":
        wrong.i = 3
    else:
        wrong.ints[0] = 3
    complete = examples.filter(examples["origin"].is_valid())
    codes = set(encode(complete, package.signature, package.vocabulary).categorical.ravel().tolist())
    assert codes == {2, 3, 4}
    answered, coding = [(complete, score(package, complete))], (package.signature, package.vocabulary)
    with pytest.raises(PackageRefused, match="of 5; expected"):
        largest_portable_difference(package.model, portable.SerializeToString(), answered, *coding)


def test_a_broken_portable_graph_is_refused_and_nothing_is_saved(trained, train, monkeypatch):
    def without_lookup(model: bytes, *, signature: Signature, vocabulary: Vocabulary) -> bytes:
        return to_portable(model, signature=signature, vocabulary=Vocabulary(values={"origin": ()}))

    monkeypatch.setattr("ml_assets.core.portable_parity.to_portable", without_lookup)
    store = type(trained[2])()
    with pytest.raises(PackageRefused, match="portable graph differs"):
        train(store=store)
    assert store.files == {}


def test_the_manifest_stands_for_the_whole_environment_and_the_version_does_not(trained, train, monkeypatch):
    manifest = trained[1].package.manifest
    installed = subprocess.run([sys.executable, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    lines = {f"{re.sub('[-_.]+', '-', d['name']).lower()}=={d['version']}" for d in json.loads(installed.stdout)}
    assert manifest.environment_hash == hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    monkeypatch.setattr("ml_assets.core.candidates.environment_hash", lambda: "another")
    elsewhere = train().package
    assert elsewhere.version == trained[1].package.version
    assert elsewhere.package_hash != trained[1].package.package_hash
