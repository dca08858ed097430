"""What a person asks for: assets that do nothing in a run of the whole graph, and the jobs that ask for them."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY
from ml_assets.core.spec import UseCase


def asset_on_request(use_case: UseCase, stage: str) -> dict[str, object]:
    """Return what all assets on request have in common; they belong to the stage models."""
    return {
        "key": use_case.key(stage),
        "group_name": "models",
        "partitions_def": DAILY,
        "output_required": False,
        "owners": list(use_case.owners),
        "tags": {"cadence": "on_request", "use_case": use_case.name},
    }


def job_on_request(
    use_case: UseCase, stage: str, form: Mapping[str, object], *, description: str, after: Sequence[str] = ()
) -> UnresolvedAssetJobDefinition:
    """Return the job that launches a stage with this form, filled in, and the stages that come before it."""
    keys = [dg.AssetKey(use_case.key(name)) for name in (*after, stage)]
    return dg.define_asset_job(
        f"{use_case.name}_{stage}",
        selection=dg.AssetSelection.assets(*keys),
        config={"ops": {keys[-1].to_python_identifier(): {"config": dict(form)}}},
        description=description,
    )


@contextmanager
def folder_for_work() -> Iterator[Path]:
    """Yield an empty folder, beside what it ends up in, which is gone when the context ends."""
    work = Environment.current().work_folder
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        yield Path(folder)
