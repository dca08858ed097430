"""The library: plain functions over Arrow tables and ports. No Dagster, no cloud SDK, no environment, no clock."""
