"""The environment this process runs in, and every address derived from its name: the only reader of ``os.environ``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from ml_assets.core.errors import BadInput
from ml_assets.core.trainers.launch import ONE_PROCESS, Launch

EnvironmentName = Literal["local", "staging", "production"]
TrackerMode = Literal["offline", "online", "disabled"]

_SUPPORTED: tuple[EnvironmentName, ...] = ("local",)
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where this process keeps its state, and whether past flights stand in for later days.

    Read from ``ML_ASSETS_ENV`` (``local`` unless set), ``ML_ASSETS_HOME`` (the folder of all state; ``data`` in the
    repository unless set), ``ML_ASSETS_REPLAY`` (yes or no; yes in ``local``) and ``ML_ASSETS_TRACKER`` (unless set
    ``online`` where W&B's key is in ``WANDB_API_KEY``, else ``offline``). ``ML_ASSETS_STUDIES`` is the URL of the
    storage that tuning workers share (a folder in the home unless set); it may hold a password, so it is not printed
    with the rest. The processes that ``torchrun`` started are told their number and place by its variables.
    """

    name: EnvironmentName
    home: Path
    is_replaying: bool
    tracker_mode: TrackerMode
    studies_url: str = field(repr=False)
    launch: Launch = ONE_PROCESS

    @classmethod
    def current(cls) -> "Environment":
        """Return the environment of this process; raise BadInput where a variable has no meaning.

        Keras reads its backend from ``KERAS_BACKEND`` when it is imported and looks for tensorflow where that is not
        set: here it is set to torch, unless someone has chosen.
        """
        os.environ.setdefault("KERAS_BACKEND", "torch")
        return cls.of(os.environ)

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "Environment":
        """Return the environment that these variables describe; raise BadInput where one has no meaning."""
        name = _one_of("ML_ASSETS_ENV", variables.get("ML_ASSETS_ENV") or "local", get_args(EnvironmentName))
        if name not in _SUPPORTED:
            raise BadInput(f"ML_ASSETS_ENV={name} is not built yet; there is {', '.join(_SUPPORTED)}")
        home = variables.get("ML_ASSETS_HOME") or str(_root() / "data")
        default_mode = "online" if variables.get("WANDB_API_KEY") else "offline"
        mode = _one_of("ML_ASSETS_TRACKER", variables.get("ML_ASSETS_TRACKER") or default_mode, get_args(TrackerMode))
        replay = _one_of("ML_ASSETS_REPLAY", (variables.get("ML_ASSETS_REPLAY") or "yes").lower(), (*_YES, *_NO))
        home = Path(home).expanduser().absolute()
        return cls(
            name=name,
            home=home,
            is_replaying=replay in _YES,
            tracker_mode=cast("TrackerMode", mode),
            studies_url=variables.get("ML_ASSETS_STUDIES") or (home / "studies").as_uri(),
            launch=_launch(variables),
        )

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB file."""
        return self.home / "warehouse.duckdb"

    @property
    def artifacts_url(self) -> str:
        """The URL of the artifact store."""
        return (self.home / "artifacts").as_uri()

    @property
    def work_folder(self) -> Path:
        """The folder of unfinished work, on the same disk as its results so that a rename finishes it."""
        return self.home / "work"

    @property
    def trainings_folder(self) -> Path:
        """The folder of the checkpoints of unfinished trainings, by use case and version."""
        return self.work_folder / "candidates"

    @property
    def records_folder(self) -> Path:
        """The folder of coded training sets, on this machine's disk whatever the store: written again when removed."""
        return self.home / "records"

    @property
    def dbt_project_folder(self) -> Path:
        """The dbt project of this repository."""
        return _root() / "dbt_project"

    @property
    def dagster_home(self) -> Path:
        """The folder that DAGSTER_HOME must name for runs and schedules to be remembered."""
        return self.home / "dagster"

    @property
    def wandb_folder(self) -> Path:
        """The folder of W&B's offline runs."""
        return self.home / "wandb"


def _root() -> Path:
    """Return the repository this file lies in, or the current folder where it is installed without one."""
    root = Path(__file__).parents[2]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def _launch(variables: Mapping[str, str]) -> Launch:
    """Return the launch that torchrun describes; one process without torchrun, whatever a cluster sets for its own."""
    if "TORCHELASTIC_RUN_ID" not in variables:
        return ONE_PROCESS
    names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK")
    try:
        n_processes, n_per_node, rank = (int(variables[name]) for name in names)
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"torchrun set no usable {', '.join(names)}: {error}; start the command with torchrun"
        ) from error
    if n_per_node < 1 or n_processes % n_per_node:
        raise BadInput(
            f"torchrun started {n_processes} processes, {n_per_node} of them on this node; expected equally many on "
            "each: give every node the same --nproc_per_node"
        )
    return Launch(n_nodes=n_processes // n_per_node, n_per_node=n_per_node, rank=rank)


def _one_of(variable: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise BadInput(f"{variable}={value!r} is unknown; expected one of {', '.join(known)}")
    return value
