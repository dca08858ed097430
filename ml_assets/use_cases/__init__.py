"""One file = one use case: the question a model answers, as plain data. Adding a file adds its assets."""

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from ml_assets import core
from ml_assets.core.errors import InvalidDeclaration
from ml_assets.core.spec import UseCase
from ml_assets.core.trainers import trainer_named
from ml_assets.core.training_sets import source_hash

# The modules of core that decide what a training set and a model hold; a change to any other retrains nothing.
_SHAPING = (
    "baselines.py candidates.py day_variation.py decisions.py encoding.py evaluation.py feature_views.py "
    "fingerprints.py intervals.py labelled_examples.py moments.py point_in_time/*.py portable_*.py reference.py "
    "regression.py spec.py splits.py tasks.py training_sets.py trainings.py trainers/*.py"
)


def load_use_cases() -> tuple[UseCase, ...]:
    """Import every module of this package and return the ``USE_CASE`` of each, sorted by name.

    Raises InvalidDeclaration for a module without one, or one that is not named after its file.
    """
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return tuple(_declared_in(importlib.import_module(f"{__name__}.{name}"), name) for name in names)


def code_version_of(use_case: UseCase) -> str:
    """Return the sha256 of the source that shapes its training sets and models.

    That is its own file, the file of a trainer of its own, and parts of core.
    """
    folder = Path(str(core.__file__)).parent
    shaping = [path for pattern in _SHAPING.split() for path in folder.glob(pattern)]
    modules = {f"{__name__}.{use_case.name}"}
    if not isinstance(use_case.trainer, str):
        trainer = use_case.trainer if isinstance(use_case.trainer, type) else type(use_case.trainer)
        modules.add(trainer.__module__)
    own = {Path(str(sys.modules[name].__file__)) for name in modules}
    return source_hash([*shaping, *sorted(own)])


def _declared_in(module: ModuleType, name: str) -> UseCase:
    use_case = getattr(module, "USE_CASE", None)
    if not isinstance(use_case, UseCase) or use_case.name != name:
        raise InvalidDeclaration(f"use_cases/{name}.py must hold USE_CASE = UseCase(name={name!r}, ...)")
    try:
        trainer_named(use_case.trainer).resolve(use_case.hyperparameters)
    except InvalidDeclaration as error:
        raise InvalidDeclaration(f"use_cases/{name}.py: {error}") from error
    return use_case
