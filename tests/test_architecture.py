"""The rooms of the project and who may import whom, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ml_assets"

# Each room, and the rooms it may import. Dagster lives in the first list only.
ABOVE_THE_LINE = {
    "cli": {
        "doctor",
        "replaying",
        "lifecycle",
        "definitions",
        "resources",
        "calendar",
        "use_cases",
        "backends",
        "core",
    },
    "replaying": {"lifecycle", "resources", "calendar", "use_cases", "backends", "core"},
    "lifecycle": {"definitions", "defs", "local_instance", "resources", "calendar", "use_cases", "backends", "core"},
    "definitions": {"defs", "pods", "resources", "calendar", "use_cases", "backends", "core"},
    "defs": {"on_request", "resources", "calendar", "use_cases", "backends", "core"},
    "on_request": {"calendar", "backends", "core"},
    "pods": {"core"},
    "resources": {"calendar", "job_costs", "backends", "core"},
    "job_costs": {"backends", "core"},
    "calendar": {"core"},
    "local_instance": {"local_event_log"},
    "local_event_log": set[str](),
    "cloud_instance": {"backends", "core"},
    "doctor": {"cloud_instance", "resources", "calendar", "backends", "core"},
}
BELOW_THE_LINE = {"use_cases": {"core"}, "backends": {"core"}, "serving": {"backends", "core"}, "core": set[str]()}
MAY_IMPORT = {**ABOVE_THE_LINE, **BELOW_THE_LINE}

FOLDERS = {
    *(".", "cli", "doctor", "replaying", "use_cases", "backends", "backends/sources", "serving"),
    *("defs", "defs/features", "defs/monitoring"),
    *("core", "core/data_quality", "core/ml_test_score", "core/point_in_time", "core/replays", "core/trainers"),
    *("core/reports", "core/reports/templates"),
}
# What core is written with. A cloud SDK, a database driver or Dagster is not in it.
LIBRARIES_OF_CORE = {
    *("numpy", "pyarrow", "msgspec", "yaml", "sqlglot", "igraph", "jinja2", "markupsafe"),
    *("torch", "pytorch_lightning", "sklearn", "scipy", "onnx", "onnxruntime", "safetensors", "altair", "vl_convert"),
    *("lightgbm", "xgboost", "keras", "threadpoolctl"),
    "google.protobuf",
}
HEAVY = {
    *("torch", "pytorch_lightning", "lightning", "sklearn", "wandb", "optuna", "altair", "vl_convert", "onnx"),
    *("lightgbm", "xgboost", "keras"),
}
CLOCKS = {
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
    *("time.time", "time.time_ns", "time.monotonic", "time.localtime", "time.gmtime", "time.sleep"),
}
CODE_IN_DATA = {
    *("pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"),
    *("eval", "exec", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("torch.load", "torch.save", "torch.jit.load"),
}
# One technology may be spread over a module of its own and the contracts of what it yields.
PAIRS_OF_BACKENDS = {
    ("sources.nycflights13", "sources.nycflights13_contracts"),
    ("optuna_studies", "optuna_journal"),
    *(("bigquery_warehouse", f"bigquery_{part}") for part in ("jobs", "errors", "rows", "sql")),
    ("bigquery_jobs", "bigquery_errors"),
    *(("sources.bigquery_tables", f"bigquery_{part}") for part in ("jobs", "errors")),
    ("object_store", "object_store_connection"),
    ("object_store", "object_store_errors"),
}

_LOAD_AND_LIST = """
import os, sys
import ml_assets.core.scoring
from ml_assets.definitions import defs
defs()
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""


@dataclass(frozen=True, kw_only=True)
class Module:
    path: Path

    @property
    def name(self) -> str:
        parts = self.path.relative_to(PACKAGE).with_suffix("").parts
        return ".".join(part for part in parts if part != "__init__")

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    def imported(self, *, only_at_import: bool = False) -> set[str]:
        """Every imported name in full: ``from a import b`` is a.b."""
        nodes = _run_at_import(self.tree) if only_at_import else ast.walk(self.tree)
        found = set[str]()
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno} imports relative to itself"
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        return found

    def used(self) -> set[str]:
        """Every dotted name the code uses, with what an import renamed in full."""
        full = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                full |= {(a.asname or a.name.partition(".")[0]): (a.name if a.asname else a.name.partition(".")[0])
                         for a in node.names}  # fmt: skip
            elif isinstance(node, ast.ImportFrom):
                full |= {(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names}
        dotted = (_dotted(node) for node in ast.walk(self.tree) if isinstance(node, ast.Name | ast.Attribute))
        names = {name for name in dotted if name}
        return {".".join([full.get(head, head), *rest]) for head, *rest in (name.split(".") for name in names)}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs when the module is imported: neither functions nor what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_at_import(child)


MODULES = [Module(path=path) for path in sorted(PACKAGE.rglob("*.py"))]
NAMES = {module.name for module in MODULES}


def inner(imported: str) -> str | None:
    """The module of this package that an import names, or None for another package's."""
    if imported != "ml_assets" and not imported.startswith("ml_assets."):
        return None
    name = imported.removeprefix("ml_assets").removeprefix(".")
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name


def inner_imports(module: Module, *, only_at_import: bool = False) -> set[str]:
    names = (inner(imported) for imported in module.imported(only_at_import=only_at_import))
    return {name for name in names if name is not None} - {module.name}


def outer_imports(module: Module, *, only_at_import: bool = False) -> set[str]:
    packages = {_package(imported) for imported in module.imported(only_at_import=only_at_import)}
    return packages - {"ml_assets"} - sys.stdlib_module_names


def _package(imported: str) -> str:
    """google is a namespace of many packages: google.protobuf reaches no cloud, google.cloud does."""
    parts = imported.split(".")
    return ".".join(parts[:2]) if parts[0] == "google" else parts[0]


def matching(module: Module, forbidden: set[str]) -> set[str]:
    found = module.used() | module.imported()
    return {f"{module.name} uses {rule}" for name in found for rule in forbidden if f"{name}.".startswith(f"{rule}.")}


def test_every_module_lies_in_a_room_of_the_map():
    assert {module.room for module in MODULES} - {""} <= set(MAY_IMPORT)
    folders = {str(path.relative_to(PACKAGE)) for path in [PACKAGE, *PACKAGE.rglob("*")] if path.is_dir()}
    assert {folder for folder in folders if "__pycache__" not in folder} <= FOLDERS
    assert [module.name for module in MODULES if module.path.stem in {"utils", "util", "helpers", "common"}] == []


def test_the_tests_lie_in_the_rooms_of_what_they_test():
    rooms = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*") if path.is_dir()}
    known = {Path(folder) for folder in FOLDERS}
    known |= {
        Path(room)
        for room in ("dbt", "deploy", "scenarios", "servers", "servers/bigquery", "unattended", "unattended/startup")
    }
    assert {room for room in rooms if "__pycache__" not in room.parts} <= known


def test_rooms_import_along_the_arrows_only():
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES
        for name in inner_imports(module)
        if name and name.partition(".")[0] not in {module.room, *MAY_IMPORT.get(module.room, set())}
    ]
    assert wrong == []


def test_two_files_in_defs_never_import_each_other():
    wrong = [f"{m.name} imports {n}" for m in MODULES for n in inner_imports(m) if m.room == "defs" == n.split(".")[0]]
    assert wrong == []


def test_two_use_cases_know_nothing_of_each_other():
    of_use_cases = [module for module in MODULES if module.room == "use_cases"]
    assert [m.name for m in of_use_cases for n in inner_imports(m) if n.startswith("use_cases")] == []


def test_two_backends_know_nothing_of_each_other():
    pairs = {
        (module.name.removeprefix("backends."), name.removeprefix("backends."))
        for module in MODULES
        for name in inner_imports(module)
        if module.room == "backends" == name.split(".")[0]
    }
    assert pairs <= PAIRS_OF_BACKENDS


def test_dagster_stays_above_the_line():
    below = [module for module in MODULES if module.room in BELOW_THE_LINE]
    assert [m.name for m in below if any(package.startswith("dagster") for package in outer_imports(m))] == []


def test_core_is_written_with_libraries_that_reach_no_cloud_and_no_database():
    of_core = [module for module in MODULES if module.room == "core"]
    found = {f"{m.name} imports {package}" for m in of_core for package in outer_imports(m) - LIBRARIES_OF_CORE}
    assert found == set()


def test_the_environment_is_read_in_one_module():
    readers = {m.name for m in MODULES if matching(m, {"os.environ", "os.environb", "os.getenv", "os.putenv"})}
    assert readers == {"backends.environments"}


def test_core_and_use_cases_have_no_clock():
    found = [text for module in MODULES if module.room in {"core", "use_cases"} for text in matching(module, CLOCKS)]
    assert found == []


def test_core_draws_no_random_number_without_a_seed():
    seedless = []
    for module in (module for module in MODULES if module.room == "core"):
        seedless += matching(module, {"random", "secrets", "uuid", "os.urandom"})
        calls = (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))
        seedless += [
            f"{module.name}:{call.lineno}"
            for call in calls
            if _dotted(call.func).endswith("default_rng") and not call.args and not call.keywords
        ]
        numpy_random = {name for name in module.used() if name.startswith("numpy.random.")}
        seedless += [
            f"{module.name} uses {n}" for n in numpy_random if n.split(".")[2] not in {"default_rng", "Generator"}
        ]
    assert seedless == []


def test_nothing_that_is_read_can_run_code():
    assert [text for module in MODULES for text in matching(module, CODE_IN_DATA)] == []


def test_the_library_never_prints():
    assert [text for module in MODULES for text in matching(module, {"print"})] == []


def test_every_module_says_in_its_first_line_what_it_is():
    assert [
        m.name for m in MODULES if not (ast.get_docstring(m.tree) or "").partition("\n")[0].endswith((".", "?"))
    ] == []


def test_heavy_libraries_are_imported_inside_functions():
    # The network itself is a class of torch; the trainer imports these modules inside its functions.
    inside_the_trainer = {m.name for m in MODULES if m.name.startswith("core.trainers.")}
    at_import = {m.name for m in MODULES if outer_imports(m, only_at_import=True) & HEAVY}
    assert at_import <= inside_the_trainer
    pulled_in = {
        f"{module.name} imports {name}"
        for module in MODULES
        for name in inner_imports(module, only_at_import=True) & at_import
        if module.name not in at_import
    }
    assert pulled_in == set()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], Path]:
    """The heavy libraries that a process has loaded after it built the definitions, and its folder of state."""
    home = tmp_path_factory.mktemp("home") / "data"
    code = f"import os; os.environ['ML_ASSETS_HOME'] = {str(home)!r}\n{_LOAD_AND_LIST}"
    command = [sys.executable, "-c", code, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split()), home


def test_loading_the_code_location_and_the_scorer_loads_no_training_tracking_or_plotting(
    loaded: tuple[set[str], Path],
):
    assert loaded[0] == set()


def test_loading_the_code_location_writes_and_opens_nothing(loaded: tuple[set[str], Path]):
    assert not loaded[1].exists()
