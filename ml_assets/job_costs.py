"""What the warehouse's jobs say of the step that runs them, on the bill; and what they cost, on the asset in the UI."""

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import dagster as dg

from ml_assets.backends.bigquery_jobs import JobUsage

# The sums of each step that is running, kept no longer than the step.
_of_step: "WeakKeyDictionary[dg.AssetExecutionContext, JobUsage]" = WeakKeyDictionary()


def labels_of_step(environment: str) -> Mapping[str, str]:
    """Return the labels of a job: its environment, and inside a run the run, the step and the step's use case.

    >>> labels_of_step("staging")
    {'environment': 'staging'}
    """
    labels = {"environment": environment}
    context = _asset_context()
    if context is None:
        return labels
    of_use_case = {spec.tags["use_case"] for spec in context.assets_def.specs if "use_case" in spec.tags}
    use_case = {"use_case": of_use_case.pop()} if len(of_use_case) == 1 else {}
    return {**labels, **use_case, "step": context.op_execution_context.op.name, "run": context.run.run_id}


def add_to_materialization(usage: JobUsage) -> None:
    """Add what a job came to to the metadata of the asset whose step ran it; outside a step, do nothing.

    The sums are those of the whole step: a run of several days says them on each of its days. A step of several assets
    does not say which of them a job was for, so it is left out: its labels put it on the bill all the same.
    """
    context = _asset_context()
    if context is None or len(context.assets_def.keys) != 1:
        return
    before = _of_step.get(context)
    _of_step[context] = total = before + usage if before else usage
    context.add_asset_metadata(
        {
            "bigquery_jobs": total.n_jobs,
            "bigquery_bytes_billed": total.bytes_billed,
            "bigquery_slot_seconds": total.slot_seconds,
            "bigquery_usd_on_demand": total.usd,
        }
    )


def _asset_context() -> dg.AssetExecutionContext | None:
    """Return the context of the asset that this thread computes, or None outside of one."""
    try:
        return dg.AssetExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return None
