import hashlib
from importlib.metadata import PathDistribution

from ml_assets.core.fingerprints import environment_hash


def _installed(folder, name: str, version: str) -> PathDistribution:
    found = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return PathDistribution(found)


def test_an_environment_is_its_sorted_lines_of_name_and_version(tmp_path):
    torch, yaml = _installed(tmp_path, "torch", "2.13.0"), _installed(tmp_path, "Types_PyYAML", "6.0")
    expected = hashlib.sha256(b"torch==2.13.0\ntypes-pyyaml==6.0").hexdigest()
    assert environment_hash([torch, yaml]) == environment_hash([yaml, torch, torch]) == expected
    assert environment_hash([_installed(tmp_path, "torch", "2.13.1"), yaml]) != expected
