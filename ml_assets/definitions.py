"""The one assembly point: everything in ``defs`` with the resources of this environment."""

import importlib
import pkgutil
import warnings
from collections.abc import Iterator

import dagster as dg
from dagster.components.definitions import LazyDefinitions

from ml_assets import defs as stages
from ml_assets.backends.environments import Environment
from ml_assets.pods import step_executor
from ml_assets.resources import resources_of
from ml_assets.use_cases import load_use_cases

# backfill_policy and freshness policies are marked beta in 1.13; one line for each of their hundred uses helps nobody.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """Load the asset graph of this environment."""
    environment = Environment.current()
    graph = dg.Definitions.merge(*_stages())
    return dg.Definitions.merge(
        graph, dg.Definitions(resources=resources_of(environment), executor=executor_of(environment, graph))
    )


def executor_of(environment: Environment, graph: dg.Definitions) -> dg.ExecutorDefinition:
    """Return what runs the steps of a run: a Kubernetes job each where there is Kubernetes, this process elsewhere.

    On a laptop DuckDB admits one writing process; a container, or Dagster+ Serverless, is one machine too.
    """
    if not environment.is_on_kubernetes:
        return dg.in_process_executor
    assets = [asset for asset in graph.assets or () if isinstance(asset, dg.AssetsDefinition)]
    return step_executor(assets, load_use_cases())


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
