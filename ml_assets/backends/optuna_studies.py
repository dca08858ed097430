"""Studies of hyperparameters in Optuna: a journal file per study in a folder, or a database for several machines.

Importing Optuna takes most of a second: it is imported inside the functions.
"""

import socket
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil

from ml_assets.backends.optuna_journal import JournalFile
from ml_assets.core.errors import BadInput
from ml_assets.core.names import artifact_path
from ml_assets.core.search_spaces import Choice, Dimension, FloatRange, SearchSpace
from ml_assets.core.studies import SearchSettings, Study, Trial, TrialRecord, TrialState
from ml_assets.core.trainers import Hyperparameters

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

_SCHEMES = ("file", "postgresql", "sqlite", "memory")
# Judgement: longer than an epoch takes. A process of this machine is known to be gone at once; of another, after this.
_SILENCE = timedelta(hours=1)
# Judgement: parameters that took three processes down with them take no fourth.
_MOST_DEATHS = 3
_OWNER, _SEEN_AT, _REASON, _N_DEATHS = "owner", "seen_at", "reason", "n_deaths"
_SAME_START_SECONDS = 2.0


class OptunaStudies:
    """The Studies port: ``file:///folder`` holds one journal file per study; ``postgresql://...`` all of them.

    A journal file is for the processes of one machine; it costs a small part of what SQLite does (``sqlite:///file``),
    and its lock dies with the process that holds it. Those of several machines share a database. ``memory://`` forgets
    a study when it is closed. Nothing is opened before the first use.
    """

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme not in _SCHEMES:
            raise BadInput(
                f"the studies cannot be kept in a {urlsplit(url).scheme or 'nameless'} storage; "
                f"expected a URL that begins with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
            )
        self._url = url

    def open(self, name: str, *, space: SearchSpace, first: Hyperparameters, settings: SearchSettings) -> Study:
        """Return the study of this name, new or as others have left it; ``first`` are the parameters of its trial 0."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Judgement: against the median from the first epoch on, which says little, 23 of 30 trials of arrival_delay
        # were stopped, most for learning slowly.
        pruner = (
            optuna.pruners.PercentilePruner(75.0, n_startup_trials=4, n_warmup_steps=3)
            if settings.is_pruning
            else optuna.pruners.NopPruner()
        )
        storage, address = self._storage(artifact_path(name))
        study = optuna.create_study(
            study_name=name, storage=storage, pruner=pruner, direction="minimize", load_if_exists=True
        )
        return OptunaStudy(study, address=address, space=space, first=first, settings=settings)

    def _storage(self, name: str) -> "tuple[BaseStorage, str]":
        import optuna

        scheme, _, path, _, _ = parts = urlsplit(self._url)
        if scheme == "memory":
            return optuna.storages.InMemoryStorage(), f"memory://{name}"
        if scheme != "file":
            port = f":{parts.port}" if parts.port else ""
            address = f"{scheme}://{parts.hostname or ''}{port}{path}#{name}"
            return _database(self._url, address), address
        journal = Path(url2pathname(path)) / f"{name}.journal"
        journal.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFile(journal)
        return optuna.storages.JournalStorage(backend), journal.as_uri()  # pyright: ignore[reportArgumentType] # no subclass: that would import optuna


class OptunaStudy:
    """The Study port over one Optuna study."""

    def __init__(
        self,
        study: "optuna.Study",
        *,
        address: str,
        space: SearchSpace,
        first: Hyperparameters,
        settings: SearchSettings,
    ) -> None:
        self._study = study
        self._address = address
        self._distributions = {name: _distribution(dimension) for name, dimension in space.items()}
        self._first = dict(first)
        self._settings = settings
        self._asked: dict[int, optuna.Trial] = {}
        self._ended: list[TrialRecord] = []  # of the trials before the first that has not ended
        self._sampler = _sampler(settings)
        self._is_shared_by_machines = not address.startswith(("file:", "memory:"))

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self._study.study_name

    @property
    def address(self) -> str:
        """Where it is stored: without user and password."""
        return self._address

    def release_dead(self) -> int:
        """Abandon the running trials whose process is gone, offer their parameters again, and return how many."""
        from optuna.trial import TrialState as State

        now = datetime.now(UTC)
        dead = [t for t in self._study.get_trials(deepcopy=False, states=(State.RUNNING,)) if _is_dead(t, now)]
        for trial in dead:
            self._release(trial, is_offered_again=True, n_deaths=int(trial.user_attrs.get(_N_DEATHS, 0)) + 1)
        return len(dead)

    def ask(self) -> Trial:
        """Take a trial, which nobody else gets: the first one ever has the parameters the study was opened with."""
        trial = self._study.ask()
        trial.set_user_attr(_OWNER, _this_process())
        self._study.sampler = self._sampler_of(trial.number)
        self._asked[trial.number] = trial
        return Trial(
            number=trial.number,
            parameters={name: _suggest(trial, name, among) for name, among in self._distributions.items()},
        )

    def report(self, trial: Trial, *, epoch: int, loss: float) -> bool:
        """Record the validation loss after an epoch, and return whether the trial should be pruned."""
        asked = self._asked[trial.number]
        asked.report(loss, epoch)
        if self._is_shared_by_machines:
            asked.set_user_attr(_SEEN_AT, datetime.now(UTC).isoformat())
        return asked.should_prune()

    def complete(self, trial: Trial, loss: float) -> None:
        """Record the validation loss of the fitted model."""
        from optuna.trial import TrialState as State

        self._tell(trial, State.COMPLETE, loss)

    def prune(self, trial: Trial) -> None:
        """Record that the trial was stopped early."""
        from optuna.trial import TrialState as State

        self._tell(trial, State.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Record that the parameters could not be trained with, and why."""
        from optuna.trial import TrialState as State

        self._asked[trial.number].set_user_attr(_REASON, reason[:500])
        self._tell(trial, State.FAIL)

    def abandon(self, trial: Trial, *, is_offered_again: bool) -> None:
        """Give the trial up without a result; its parameters may be offered to the next who asks."""
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        self._asked.pop(trial.number)
        self._release(frozen, is_offered_again=is_offered_again, n_deaths=int(frozen.user_attrs.get(_N_DEATHS, 0)))

    def trials(self) -> Sequence[TrialRecord]:
        """Return all trials by number."""
        found = self._study.get_trials(deepcopy=False)
        for trial in found[len(self._ended) :]:
            if not trial.state.is_finished():
                break
            self._ended.append(_record(trial))
        return [*self._ended, *(_record(trial) for trial in found[len(self._ended) :])]

    def importances(self, seed: int) -> Mapping[str, float]:
        """Return the share of the loss's variance each parameter explains, largest first, by functional ANOVA.

        Hutter, Hoos, Leyton-Brown 2014. Empty for fewer than two complete trials or ones that all came to one loss.
        """
        import optuna
        from optuna.trial import TrialState as State

        complete = self._study.get_trials(deepcopy=False, states=(State.COMPLETE,))
        if len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}

    def _sampler_of(self, number: int) -> "optuna.samplers.BaseSampler":
        """Return the sampler as this trial draws from it; Optuna draws at a trial's first suggestion.

        The seed is the trial's: a study that was killed and goes on, or that two processes share, would draw the same
        parameters twice from one seed per process. The sampler is kept: a new one goes through all trials again.
        """
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import PartialFixedSampler

        _seed(self._sampler, (self._settings.seed * 1_000_003 + number) % 2**32)
        if number > 0:
            return self._sampler
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return PartialFixedSampler(self._first, self._sampler)

    def _tell(self, trial: Trial, state: "optuna.trial.TrialState", loss: float | None = None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._study.tell(self._asked.pop(trial.number), values=loss, state=state)
        except (UpdateFinishedTrialError, ValueError):
            # Others took this process for dead: it was silent for an hour. What they make of the parameters holds.
            if self.trials()[trial.number].state != "abandoned":
                raise

    def _release(self, trial: "optuna.trial.FrozenTrial", *, is_offered_again: bool, n_deaths: int) -> None:
        """Mark a trial as abandoned: failed for no reason. Of several who do so at once, one offers it again.

        A process killed between the two loses the parameters, not the count: a new trial takes its place.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState as State

        try:
            self._study.tell(trial.number, state=State.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return
        if is_offered_again and n_deaths < _MOST_DEATHS:
            self._study.enqueue_trial(self._first if trial.number == 0 else _given(trial), {_N_DEATHS: n_deaths})


def _database(url: str, address: str) -> "BaseStorage":
    import optuna
    from sqlalchemy.exc import OperationalError

    try:
        return optuna.storages.RDBStorage(
            # SQLAlchemy takes a bare postgresql:// for the driver of ten years ago.
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            engine_kwargs={"pool_pre_ping": True},
        )
    except ImportError as error:
        raise BadInput(f"{address} needs a driver: pip install 'ml-assets[postgres]'") from error
    except OperationalError as error:
        raise BadInput(f"the studies at {address} cannot be reached; check ML_ASSETS_STUDIES ({error.orig})") from error


def _given(trial: "optuna.trial.FrozenTrial") -> dict[str, float | int | str]:
    """Return what a trial was offered or has drawn; all of it, unless its process died while it drew."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _sampler(settings: SearchSettings) -> "optuna.samplers.BaseSampler":
    from optuna import samplers

    match settings.sampler:
        case "random":
            return samplers.RandomSampler(seed=settings.seed)
        case "gp":
            return samplers.GPSampler(seed=settings.seed)
        case "tpe":
            return samplers.TPESampler(seed=settings.seed)


def _seed(sampler: "optuna.samplers.BaseSampler", seed: int) -> None:
    """Set the generators of a sampler; its own ``reseed_rng`` takes no seed."""
    for name in ("_independent_sampler", "_random_sampler"):
        if hasattr(sampler, name):
            _seed(getattr(sampler, name), seed)
    sampler._rng.rng.seed(seed)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue] # see above


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna import distributions

    if isinstance(dimension, Choice):
        return distributions.CategoricalDistribution(dimension.options)
    if isinstance(dimension, FloatRange):
        return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)
    return distributions.IntDistribution(dimension.low, dimension.high, log=dimension.is_log)


def _suggest(trial: "optuna.Trial", name: str, among: "BaseDistribution") -> float | int | str:
    from optuna import distributions

    if isinstance(among, distributions.CategoricalDistribution):
        return cast("float | int | str", trial.suggest_categorical(name, among.choices))
    if isinstance(among, distributions.FloatDistribution):
        return trial.suggest_float(name, among.low, among.high, log=among.log)
    if isinstance(among, distributions.IntDistribution):
        return trial.suggest_int(name, among.low, among.high, log=among.log)
    raise TypeError(f"{name} is searched in a {type(among).__name__}; expected one of _distribution")


def _record(trial: "optuna.trial.FrozenTrial") -> TrialRecord:
    reason = str(trial.user_attrs.get(_REASON, ""))
    state = trial.state.name.lower() if trial.state.name != "FAIL" else "failed" if reason else "abandoned"
    reported = trial.intermediate_values
    last = reported[max(reported)] if reported else None
    # Optuna's times are local and do not say so; as they are taken in this process or one beside it, so are these.
    started_at = trial.datetime_start.astimezone(UTC) if trial.datetime_start else None
    return TrialRecord(
        number=trial.number,
        state=cast("TrialState", state),
        parameters=_given(trial),
        loss=trial.value if state == "complete" else last,
        n_epochs=len(reported),
        reason=reason,
        started_at=started_at,
        seconds=trial.duration.total_seconds() if trial.duration else None,
    )


def _this_process() -> dict[str, str | int | float]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


def _is_dead(trial: "optuna.trial.FrozenTrial", now: datetime) -> bool:
    """Tell whether the process that runs a trial is gone: by its number here, by its silence elsewhere."""
    owner = trial.user_attrs.get(_OWNER)
    if owner and owner["host"] == socket.gethostname():
        try:
            started = psutil.Process(owner["pid"]).create_time()
        except psutil.NoSuchProcess:
            return True
        return abs(started - owner["started"]) > _SAME_START_SECONDS
    seen_at = trial.user_attrs.get(_SEEN_AT)
    last = datetime.fromisoformat(seen_at) if seen_at else _utc(trial.datetime_start)
    return now - last > _SILENCE


def _utc(local: datetime | None) -> datetime:
    return local.astimezone(UTC) if local else datetime.min.replace(tzinfo=UTC)
