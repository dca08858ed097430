"""The life of one use case in a replay, and several of them at once, each in a process of its own."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.backends.wandb_tracker import WandbTracker
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.days import DayRange, day_starts_at
from ml_assets.core.errors import MlAssetsError
from ml_assets.core.feature_views import Feature
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.promoting import Workshop
from ml_assets.core.replays.living import live
from ml_assets.core.replays.record import LivedDay, lived_days
from ml_assets.core.replays.story import Story, tell
from ml_assets.core.spec import UseCase

OnDay = Callable[[LivedDay], None]


class ReplayFailed(MlAssetsError):
    """The life of a use case ended before its last day; the message says of which, on which day, and why."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """One use case of a replay: what it lives, and the folder of its tables, models and ledger."""

    use_case: UseCase
    inputs: tuple[Feature, ...]
    code_version: str
    days: DayRange
    folder: Path

    @property
    def warehouse(self) -> DuckDBWarehouse:
        """Its tables: the landed examples, and all that is made of them."""
        return DuckDBWarehouse(self.folder / "warehouse.duckdb")

    @property
    def store(self) -> ArtifactStore:
        """Its training sets, models and ledger."""
        return ObjectArtifactStore((self.folder / "artifacts").as_uri())

    def lived(self) -> list[LivedDay]:
        """Return the days that are complete."""
        return lived_days(self.warehouse, self.use_case, self.days)

    def live(self) -> Iterator[LivedDay]:
        """Live the days that are left, holding the tables all the while; yield each day once it is complete."""
        warehouse = self.warehouse
        with warehouse.session():
            yield from live(warehouse, self.store, self.use_case, self.days, workshop=self.workshop)

    def tell(self) -> Story:
        """Return everything that is known of it."""
        warehouse = self.warehouse
        with warehouse.session():
            return tell(warehouse, self.store, self.use_case, self.days)

    @property
    def workshop(self) -> Workshop:
        """Where its models are trained. No experiment tracker is told: a replay is no experiment."""
        return Workshop(
            inputs=self.inputs,
            tracker=WandbTracker(self.folder / "wandb", mode="disabled", project="replay"),
            code_version=self.code_version,
            work_folder=self.folder / "work" / "candidates",
            records=RecordsFolder(kept=self.folder / "records", work=self.folder / "work"),
            now=lambda: day_starts_at(self.days.first),
        )


def live_all(lives: Sequence[Life], on_day: OnDay, *, n_processes: int) -> None:
    """Live what is left of each, in this order, so many at a time; raise ReplayFailed where one cannot go on.

    With one process it is this one. The others end when this one does, however it ends: what they have completed
    stays.
    """
    if n_processes == 1:
        for life in lives:
            for lived in life.live():
                on_day(lived)
        return
    waiting, running = list(lives), dict[Connection, _Running]()
    try:
        while waiting or running:
            while waiting and len(running) < n_processes:
                begun = _begin(waiting.pop(0))
                running[begun.told] = begun
            for told in wait(list(running)):
                connection = cast("Connection", told)
                if _is_over(running[connection], on_day):
                    del running[connection]
    finally:
        for begun in running.values():
            begun.process.kill()
            begun.process.join()


@dataclass(frozen=True, kw_only=True)
class _Running:
    life: Life
    process: SpawnProcess
    told: Connection


def _begin(life: Life) -> _Running:
    context = get_context("spawn")
    told, telling = context.Pipe(duplex=False)
    process = context.Process(target=_live_apart, args=(life, telling), name=f"replay of {life.use_case.name}")
    process.start()
    telling.close()
    return _Running(life=life, process=process, told=told)


def _is_over(running: _Running, on_day: OnDay) -> bool:
    """Pass on what a process tells, and return whether it has ended; raise ReplayFailed where it ended badly."""
    try:
        message: LivedDay | str = running.told.recv()
    except EOFError:
        running.process.join()
        if running.process.exitcode:
            raise ReplayFailed(
                f"the process that lives {running.life.use_case.name} ended with {running.process.exitcode}; run the "
                "command again, it goes on after the last complete day"
            ) from None
        return True
    if isinstance(message, str):
        raise ReplayFailed(f"{running.life.use_case.name}: {message}")
    on_day(message)
    return False


def _live_apart(life: Life, telling: Connection) -> None:
    """Live in a process of its own, and tell of each day; a failure is told in words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is interrupted too, and ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for lived in life.live():
            telling.send(lived)
    except MlAssetsError as error:
        telling.send(f"{type(error).__name__}: {error}")
    # As at the end of any command: with torch loaded, DuckDB's binding prints a page about leaks that are none.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
