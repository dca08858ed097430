"""The life of one use case in a replay, and several of them at once, each in a process of its own."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

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


def live_all(lives: Sequence[Life], on_day: OnDay, *, n_at_once: int) -> None:
    """Live what is left of each, so many days at once; raise ReplayFailed where one cannot go on.

    One at once is one life after the other, in this process. Otherwise each life has a process of its own, which holds
    its models all the while, and whichever is furthest behind lives next: so they end together, and no core stands
    idle. The processes end when this one does, however it ends: what they have completed stays.
    """
    if n_at_once == 1:
        for life in lives:
            for lived in life.live():
                on_day(lived)
        return
    running = list[_Running]()
    try:
        for life in lives:
            running.append(_begin(life))
        while running:
            _give_turns(running, n_at_once=n_at_once)
            told = wait([one.link for one in running])
            for one in [one for one in running if one.link in told]:
                if _is_over(one, on_day):
                    running.remove(one)
    finally:
        for one in running:
            one.process.kill()
            one.process.join()


@dataclass(kw_only=True)
class _Running:
    """A process that lives a day whenever it is given its turn, and tells of it; ``reached`` is the last it told of.

    Before it has told of any, that is the day before the first.
    """

    life: Life
    process: SpawnProcess
    link: Connection
    reached: date
    has_turn: bool = False


def _begin(life: Life) -> _Running:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live_apart, args=(life, theirs), name=f"replay of {life.use_case.name}")
    process.start()
    theirs.close()
    return _Running(life=life, process=process, link=ours, reached=life.days.first - timedelta(days=1))


def _give_turns(running: Sequence[_Running], *, n_at_once: int) -> None:
    idle = sorted((one for one in running if not one.has_turn), key=lambda one: one.reached)
    for one in idle[: n_at_once - sum(one.has_turn for one in running)]:
        one.has_turn = True
        with suppress(ConnectionError):  # a process that has ended is told of by its link
            one.link.send("live")


def _is_over(running: _Running, on_day: OnDay) -> bool:
    """Pass on what a process tells, and return whether it has ended; raise ReplayFailed where it ended badly."""
    try:
        message: LivedDay | str = running.link.recv()
    except (EOFError, ConnectionError):
        running.process.join()
        if running.process.exitcode:
            raise ReplayFailed(
                f"the process that lives {running.life.use_case.name} ended with {running.process.exitcode}; run the "
                "command again, it goes on after the last complete day"
            ) from None
        return True
    if isinstance(message, str):
        raise ReplayFailed(f"{running.life.use_case.name}: {message}")
    running.has_turn, running.reached = False, message.partition_on
    on_day(message)
    return False


def _live_apart(life: Life, link: Connection) -> None:
    """Live in a process of its own, a day for each turn, and tell of it; a failure is told in words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is interrupted too, and ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        days = life.live()
        while link.recv() and (lived := next(days, None)):
            link.send(lived)
    except MlAssetsError as error:
        link.send(f"{type(error).__name__}: {error}")
    except (EOFError, ConnectionError):
        os._exit(1)  # the first process is gone
    # As at the end of any command: with torch loaded, DuckDB's binding prints a page about leaks that are none.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
