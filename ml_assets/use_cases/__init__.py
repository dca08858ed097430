"""One file = one use case: the question a model answers, as plain data. Adding a file adds its assets."""

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from ml_assets import core
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.spec import UseCase
from ml_assets.core.training_sets import source_hash

# The modules of core that decide what a training set and a model hold; a change to any other retrains nothing.
_SHAPING = (
    "candidates.py encoding.py evaluation.py feature_views.py fingerprints.py intervals.py labelled_examples.py "
    "point_in_time/*.py portable_*.py reference.py spec.py splits.py training_sets.py trainers/*.py"
)


def load_use_cases() -> tuple[UseCase, ...]:
    """Import every module of this package and return the ``USE_CASE`` of each, sorted by name.

    Raises InvalidDeclaration for a module without one, or one that is not named after its file.
    """
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return tuple(_declared_in(importlib.import_module(f"{__name__}.{name}"), name) for name in names)


def code_version_of(use_case: UseCase) -> str:
    """Return the sha256 of the source that shapes its training sets and models: its own file, and parts of core."""
    folder = Path(str(core.__file__)).parent
    shaping = [path for pattern in _SHAPING.split() for path in folder.glob(pattern)]
    own = sys.modules[f"{__name__}.{use_case.name}"].__file__
    return source_hash([*shaping, Path(str(own))])


def _declared_in(module: ModuleType, name: str) -> UseCase:
    use_case = getattr(module, "USE_CASE", None)
    if not isinstance(use_case, UseCase) or use_case.name != name:
        raise InvalidDeclaration(f"use_cases/{name}.py must hold USE_CASE = UseCase(name={name!r}, ...)")
    return use_case
