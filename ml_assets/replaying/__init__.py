"""A replay with state of its own: the days are landed once, then each use case lives them day by day."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ml_assets.backends.environments import Environment, state_kept_in
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.calendar import refuse_unknown_partitions
from ml_assets.core.data_quality.verdicts import Fault, faults_between
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput
from ml_assets.core.fingerprints import environment_hash, json_hash
from ml_assets.core.replays.story import Story, record_of
from ml_assets.core.reports import replay_report
from ml_assets.core.scoring_days import rows_of_days
from ml_assets.core.training_sets import source_hash
from ml_assets.lifecycle import LANDING, Lifecycle, OnEvent, RunFailed
from ml_assets.replaying.lives import Life, OnDay, ReplayFailed, live_all
from ml_assets.resources import feature_views_of
from ml_assets.use_cases import code_version_of, load_use_cases

__all__ = ["PAGE", "RECORD", "Life", "Manifest", "Replay", "ReplayFailed"]

MANIFEST, RECORD, PAGE = "replay.json", "record.jsonl", "replay.html"
# Code that can change without changing what a replay records: it shows, serves, or examines.
_SHOWING = ("cli", "doctor", "serving", "core/reports", "replaying")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What replay.json says of a replay.

    ``held`` says which days have spoilt raw data and how to release them, ``faults`` are what was found in it: what
    depends on it is not made. ``wall_seconds`` has one number for each call that worked on it.
    """

    days: DayRange
    code_version: str
    use_cases: tuple[str, ...]
    is_landed: bool = False
    held: str = ""
    faults: tuple[Fault, ...] = ()
    is_finished: bool = False
    wall_seconds: tuple[float, ...] = ()


class Replay:
    """The days of one window, below ``replays/<first>_<last>`` of an environment's home.

    Raises BadInput where the folder holds a replay that other code began and did not finish: half of its days would be
    of the one and half of the other. A finished one stays what it is, whatever the code is by now.
    """

    def __init__(self, environment: Environment, days: DayRange, *, is_anew: bool = False) -> None:
        refuse_unknown_partitions(days)
        if environment.name != "local":
            raise BadInput(
                f"a replay keeps its tables in DuckDB files on this machine, and ML_ASSETS_ENV is {environment.name}; "
                "unset it, and name the places of the raw tables in ML_ASSETS_SOURCES"
            )
        self.days = days
        self.folder = environment.replays_folder / f"{days.first}_{days.last}"
        if is_anew and self.folder.exists():
            shutil.rmtree(self.folder)
        self._views = feature_views_of(environment)
        self._files = ObjectArtifactStore(self.folder.as_uri())
        self._code_version = _code_version(environment)
        self.manifest = self._found() or Manifest(
            days=days, code_version=self._code_version, use_cases=tuple(u.name for u in load_use_cases())
        )
        if not (self.is_of_this_code or self.manifest.is_finished):
            raise BadInput(
                f"{self.folder} holds a replay that other code began and did not finish; go back to that code, or "
                "begin it again with --anew"
            )

    @property
    def is_of_this_code(self) -> bool:
        """Whether what is recorded is what this code, with these libraries, records."""
        return self.manifest.code_version == self._code_version

    @property
    def lives(self) -> list[Life]:
        """The use cases that are lived."""
        return [
            Life(
                use_case=use_case,
                inputs=use_case.inputs(self._views),
                code_version=code_version_of(use_case),
                days=self.days,
                folder=self.folder / "lives" / use_case.name,
            )
            for use_case in load_use_cases()
            if use_case.name in self.manifest.use_cases
        ]

    def land(self, on_event: OnEvent) -> None:
        """Land the days through the asset graph, in a home of their own, and give each use case its examples.

        All days at once: an example holds what was known when its decision was taken, so that landing day by day comes
        to the same. Days of spoilt data are held as they are in production: ``Manifest.held`` says so, nobody predicts
        them, and all others are lived.
        """
        if self.manifest.is_landed:
            return
        held = ""
        with state_kept_in(self.folder / "landed"):
            lifecycle = Lifecycle(Environment.current(), on_event=on_event)
            try:
                lifecycle.run_groups(LANDING, self.days)
            except RunFailed as failure:
                if not failure.is_held:
                    raise
                held = str(failure)
        for life in self.lives:
            table = life.use_case.examples_table
            if lifecycle.warehouse.columns(table) is None:
                continue  # all days are held, and no example has ever been made
            life.warehouse.replace_days({table: rows_of_days(lifecycle.warehouse, table, self.days)}, self.days)
        faults = tuple(fault for fault in faults_between(lifecycle.warehouse, self.days) if not fault.released_by)
        self._keep(is_landed=True, held=held, faults=faults)

    def live(self, on_day: OnDay, *, n_at_once: int) -> None:
        """Live what is left of each use case, so many days at once; raise ReplayFailed where one cannot go on."""
        live_all(self.lives, on_day, n_at_once=n_at_once)

    def conclude(self) -> list[Story]:
        """Write record and page, and return what they tell."""
        stories = sorted((life.tell() for life in self.lives), key=lambda story: story.use_case.name)
        self._files.put(RECORD, record_of(stories, held=self.manifest.faults))
        page = replay_report(stories, days=self.days, held=self.manifest.faults)
        self._files.put(PAGE, page.encode())
        self._keep(is_finished=True)
        return stories

    def took(self, seconds: float) -> None:
        """Remember how long a call worked on it."""
        self._keep(wall_seconds=(*self.manifest.wall_seconds, seconds))

    def _found(self) -> Manifest | None:
        return msgspec.json.decode(self._files.get(MANIFEST), type=Manifest) if self._files.exists(MANIFEST) else None

    def _keep(self, **changes: bool | str | tuple[float, ...] | tuple[Fault, ...]) -> None:
        self.manifest = replace(self.manifest, **changes)  # pyright: ignore[reportArgumentType] - fields by name
        self._files.put(MANIFEST, msgspec.json.format(msgspec.json.encode(self.manifest)))


def _code_version(environment: Environment) -> str:
    """Return the sha256 of the source that shapes the record of a replay, and of the libraries it runs on."""
    package, models = Path(__file__).parents[1], environment.dbt_project_folder
    shown = tuple(package / folder for folder in _SHOWING)
    shaping = [path for path in package.rglob("*.py") if not any(path.is_relative_to(folder) for folder in shown)]
    shaping += [path for suffix in ("sql", "yml") for path in (models / "models").rglob(f"*.{suffix}")]
    return json_hash([source_hash(shaping), environment_hash()])
