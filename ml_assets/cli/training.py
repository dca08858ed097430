"""The command that trains a candidate outside the graph, alone or in the processes that torchrun starts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from ml_assets.backends.environments import Environment
from ml_assets.cli.terminal import UseCaseName, console, failures_in_words, known, number
from ml_assets.core.candidates import assist_training, train_candidate
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.experiments import ExperimentLog
from ml_assets.core.feature_views import Feature
from ml_assets.core.package import ModelPackage
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import meaning_of
from ml_assets.core.trainers.launch import Launch, process_group
from ml_assets.core.training_sets import load_training_set, training_set_of
from ml_assets.core.trainings import champion_before
from ml_assets.resources import feature_views_of, resources_of
from ml_assets.use_cases import code_version_of


def train(
    as_of: Annotated[datetime, typer.Option("--as-of", formats=["%Y-%m-%d"], help="Known before this day starts.")],
    use_case: UseCaseName = "arrival_delay",
    is_warm: Annotated[bool, typer.Option("--warm/--cold", help="From the champion's weights too.")] = True,
) -> None:
    """Train the candidate of a day whose training set is there; its asset then uses the package and judges it.

    Started by torchrun, the processes train it together. Run it again after a kill: it goes on where it was.
    """
    with failures_in_words():
        environment = Environment.current()
    launch, resources = environment.launch, resources_of(environment)
    with failures_in_words(), process_group(launch):
        declared, day, store = known(use_case), as_of.date(), resources["store"]
        training_set = load_training_set(store, declared.name, training_set_of(store, declared.name, day))
        task = _Task(
            use_case=declared,
            inputs=declared.inputs(feature_views_of(environment)),
            store=store,
            code_version=code_version_of(declared),
            parent=champion_before(store, declared.name, day) if is_warm else None,
            work_folder=environment.trainings_folder,
            launch=launch,
            records=RecordsFolder(kept=environment.records_folder, work=environment.work_folder),
        )
        if not launch.is_first:
            assist_training(training_set, **task)
            return
        log = ExperimentLog(store=store, now=lambda: datetime.now(UTC), recorded_by=getuser())
        trained = train_candidate(training_set, **task, tracker=resources["tracker"], on_epoch=_say, experiments=log)
    package, record = trained.package, trained.package.metrics.warm_start
    how = "used again" if trained.is_reused else f"trained in {trained.seconds:.0f} s"
    console.print(
        f"{package.version}, {how} (processes: {package.manifest.n_processes}): validation loss "
        f"{number(package.metrics.validation_loss, 5)}; on the holdout "
        f"{meaning_of(declared.task).sentence(package.metrics.holdout, declared.label.unit)}.",
        highlight=False,
    )
    if record:
        console.print(f"Start: {record.chosen}; {record.reason}.", highlight=False)
    how_judged = f"Materialize {use_case}/candidate and {use_case}/champion for {day} to have it judged"
    # Without a parent its recipe is another than that of an asset that may start warm.
    console.print(how_judged + ("." if is_warm else "; with is_warm_started: false in the candidate's config."))


class _Task(TypedDict):
    use_case: UseCase
    inputs: tuple[Feature, ...]
    store: ArtifactStore
    code_version: str
    parent: ModelPackage | None
    work_folder: Path
    launch: Launch
    records: RecordsFolder


def _say(epoch: int, metrics: Mapping[str, float]) -> None:
    console.print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.5f}" for name, value in metrics.items()))
