"""The one assembly point: everything in ``defs`` with the resources of this environment."""

import importlib
import pkgutil
import warnings
from collections.abc import Iterator

import dagster as dg
from dagster.components.definitions import LazyDefinitions

from ml_assets import defs as stages
from ml_assets.backends.environments import Environment
from ml_assets.resources import resources_of

# backfill_policy and freshness policies are marked beta in 1.13; one line for each of their hundred uses helps nobody.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """Load the asset graph of this environment."""
    environment = Environment.current()
    return dg.Definitions.merge(
        *_stages(),
        dg.Definitions(resources=resources_of(environment), executor=executor_of(environment)),
    )


def executor_of(environment: Environment) -> dg.ExecutorDefinition:
    """Return what runs the steps of a run: this process, in every environment.

    DuckDB admits one writing process; beyond one machine the run launcher fans partitions out instead.
    """
    del environment
    return dg.in_process_executor


def _stages() -> Iterator[dg.Definitions]:
    """Yield what each file of ``defs`` defines: its ``@dg.definitions`` function, or the assets in it.

    ``dg.load_from_defs_folder`` would do the same and import every installed Dagster integration besides (1 CPU s).
    """
    for found in pkgutil.walk_packages(stages.__path__, f"{stages.__name__}."):
        module = importlib.import_module(found.name)
        lazy = [value for value in vars(module).values() if isinstance(value, LazyDefinitions)]
        if lazy:
            yield from (load() for load in lazy)
        else:
            yield dg.Definitions(assets=dg.load_assets_from_modules([module]))
