import hashlib
from importlib.metadata import PathDistribution

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.core.fingerprints import content_hash, environment_hash


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


@settings(deadline=None)
@given(st.lists(st.none() | st.text(max_size=3), max_size=12), st.data())
def test_texts_are_hashed_as_they_read_however_they_lie_in_memory(texts: list[str | None], data: st.DataObject):
    utf8 = [(text or "").encode() for text in texts]
    sizes = np.array([len(text) for text in utf8], dtype="<i4").tobytes()
    is_valid = np.packbits(np.array([text is not None for text in texts], dtype=bool)).tobytes()
    expected = hashlib.sha256(f"{len(texts)}\0a\0string\0".encode() + is_valid + sizes + b"".join(utf8)).hexdigest()

    # Between others, in pieces that may be empty, and with something under each null.
    around = pa.array(["before", *texts, "after"], pa.string())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=3)))
    pieces = [around.slice(1 + a, b - a) for a, b in zip([0, *cuts], [*cuts, len(texts)], strict=True)]
    assert content_hash(pa.table({"a": pa.chunked_array(pieces, pa.string())})) == expected
    covered = pa.StringArray.from_buffers(
        len(texts),
        *pa.array([text or "hidden" for text in texts], pa.string()).buffers()[1:],
        pa.array([text is not None for text in texts], pa.bool_()).buffers()[1],
    )
    if "" not in texts:
        assert content_hash(pa.table({"a": covered})) == expected
