"""The one assembly point: everything in ``defs`` with the resources of this environment."""

import warnings
from pathlib import Path

import dagster as dg

from ml_assets.backends.environments import Environment
from ml_assets.resources import resources_of

# backfill_policy and freshness policies are marked beta in 1.13; one line for each of their hundred uses helps nobody.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """Load the asset graph of this environment."""
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(
            resources=resources_of(Environment.current()),
            # DuckDB admits one writing process; beyond one machine the run launcher fans partitions out instead.
            executor=dg.in_process_executor,
        ),
    )
