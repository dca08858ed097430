"""One file = one use case: the question a model answers, as plain data. Adding a file adds its assets."""

import importlib
import pkgutil
import sys
from pathlib import Path

from ml_assets import core
from ml_assets.core.spec import UseCase
from ml_assets.core.training_sets import source_hash

# The modules of core that decide what a training set and a model hold; a change to any other retrains nothing.
_SHAPING = (
    "candidates.py encoding.py feature_views.py labelled_examples.py point_in_time.py point_in_time/*.py spec.py splits.py "
    "training_sets.py trainers/*.py"
)


def load_use_cases() -> tuple[UseCase, ...]:
    """Import every module of this package and return the ``USE_CASE`` of each, sorted by name."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return tuple(sorted((module.USE_CASE for module in modules), key=lambda use_case: use_case.name))


def code_version_of(use_case: UseCase) -> str:
    """Return the sha256 of the source that shapes its training sets and models: its own file, and parts of core."""
    folder = Path(str(core.__file__)).parent
    shaping = [path for pattern in _SHAPING.split() for path in folder.glob(pattern)]
    own = sys.modules[f"{__name__}.{use_case.name}"].__file__
    return source_hash([*shaping, Path(str(own))])
