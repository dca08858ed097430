"""One file per technology, each fulfilling a port of ``ml_assets.core.ports``. No Dagster."""
