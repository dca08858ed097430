"""What each step asks of a Kubernetes node: small where the warehouse does the work, large where a model is trained."""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from ml_assets.core.compute import Compute
from ml_assets.core.spec import UseCase

# Judgement, by group. The rows of a day, or of a batch, are all that these hold in memory.
_OF_GROUP: Mapping[str, Compute] = {
    "raw": Compute(cpus=0.5, memory_gb=2),
    "features": Compute(cpus=1, memory_gb=2),
    "examples": Compute(cpus=0.5, memory_gb=1),
    "predictions": Compute(cpus=1, memory_gb=2),
    "monitoring": Compute(cpus=0.5, memory_gb=2),
}
_ELSE = Compute(cpus=0.5, memory_gb=1)
# Stages of a use case that run on the machine it asks for; those that train have its GPUs too.
_SIZED, _TRAINING = ("training_set", "champion"), ("candidate", "tuning", "ablation", "staleness", "ml_test_score")
# Judgement: of one run; what all runs may have together is the quota of the namespace.
_STEPS_AT_ONCE = 10


def compute_of(key: dg.AssetKey, group: str, use_cases: Sequence[UseCase]) -> Compute:
    """Return what the step of an asset gets."""
    asked = {tuple(u.key(stage)): u.compute for u in use_cases for stage in (*_SIZED, *_TRAINING)}
    machine = asked.get(tuple(key.path))
    if machine is None:
        return _OF_GROUP.get(group, _ELSE)
    return machine if key.path[-1] in _TRAINING else machine.without_gpus


def step_config(compute: Compute) -> dict[str, object]:
    """Return the ``dagster-k8s/config`` of a step on such a machine.

    Processors are asked for and not limited: a step may use what nobody else wants. A step that needs more memory than
    it asked for is ended, and not its neighbours. Nodes with GPUs are kept for those who ask for one, by their taint.
    """
    memory = f"{round(compute.memory_gb * 1024)}Mi"
    gpus = {"nvidia.com/gpu": str(compute.gpus)} if compute.gpus else {}
    resources = {
        "requests": {"cpu": f"{round(compute.cpus * 1000)}m", "memory": memory, **gpus},
        "limits": {"memory": memory, **gpus},
    }
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    return {
        "container_config": {"resources": resources},
        **({"pod_spec_config": {"tolerations": [toleration]}} if gpus else {}),
    }


def step_executor(assets: Iterable[dg.AssetsDefinition], use_cases: Sequence[UseCase]) -> dg.ExecutorDefinition:
    """Return the executor that starts a Kubernetes job for each step, on what its assets ask for."""
    from dagster_k8s import k8s_job_executor

    steps = {
        definition.op.name: step_config(
            max(
                (compute_of(key, definition.group_names_by_key.get(key, ""), use_cases) for key in definition.keys),
                key=lambda compute: compute.memory_gb,
            )
        )
        for definition in assets
        if definition.keys and definition.is_executable
    }
    return k8s_job_executor.configured(
        {
            "max_concurrent": _STEPS_AT_ONCE,
            "step_k8s_config": step_config(_ELSE),
            "per_step_k8s_config": steps,
        },
        name="k8s",
    )
