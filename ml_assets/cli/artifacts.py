"""The commands on what is stored: reproduce a model, list what nothing refers to, and remove it."""

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ml_assets.backends.environments import Environment
from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.cli.terminal import console, failures_in_words, known, store_of_environment, warehouse_of_environment
from ml_assets.core.errors import BadInput
from ml_assets.core.package import package_exists
from ml_assets.core.ports import ArtifactStore
from ml_assets.core.references import Predicted, predicted_versions, use_cases_in
from ml_assets.core.reproduction import Finding, Reproduction, examples_in
from ml_assets.core.reproduction import reproduce as rebuild
from ml_assets.core.retention import Unreferenced
from ml_assets.core.retention import prune as remove
from ml_assets.core.retention import unreferenced as list_unreferenced
from ml_assets.core.spec import UseCase
from ml_assets.use_cases import code_version_of, load_use_cases


def reproduce(
    version: Annotated[str, typer.Argument(help="The model's version, as `ml-assets history` prints it.")],
    use_case: Annotated[
        str | None, typer.Option("--use-case", help="Whose it is; found by the version unless given.")
    ] = None,
) -> None:
    """Rebuild a model's training set and the model itself from the record, and say whether they are identical.

    The exit code is 0 if they are, 1 if not. Nothing that is stored is changed.
    """
    with failures_in_words():
        store, warehouse = store_of_environment(), warehouse_of_environment()
        of = known(use_case) if use_case else _whose(store, version)
        work = Environment.current().work_folder
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as folder:
            found = rebuild(
                store,
                version,
                use_case=of,
                read_examples=examples_in(warehouse),
                scratch=ObjectArtifactStore((Path(folder) / "artifacts").as_uri()),
                code_version=code_version_of(of),
                work_folder=Path(folder),
            )
    _show(found, of.name)
    if not found.is_identical:
        raise typer.Exit(1)


Days = Annotated[int, typer.Option("--older-than", min=1, help="In days, since it was last written.")]


def unreferenced(older_than: Days = 1) -> None:
    """List what no champion, prediction or report refers to, and why: what `ml-assets prune` would remove."""
    with failures_in_words():
        store = store_of_environment()
        found = list_unreferenced(
            store, predicted=_predicted(store), now=datetime.now(UTC), older_than=timedelta(days=older_than)
        )
    _list(found)


def prune(
    older_than: Annotated[int, typer.Option("--older-than", min=1, help="In days, since it was last written.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only listed.")] = False,
) -> None:
    """Remove what `ml-assets unreferenced` lists, for good. A run that was interrupted is finished by the next."""
    if not yes:
        unreferenced(older_than)
        console.print("Nothing was removed: say --yes to remove it.")
        return
    with failures_in_words():
        store = store_of_environment()
        removed = remove(
            store,
            predicted=_predicted(store),
            now=datetime.now(UTC),
            older_than=timedelta(days=older_than),
            recorded_by=getuser(),
        )
        found = list(removed)
    _list(found)
    console.print(f"{len(found)} removed.")


def _whose(store: ArtifactStore, version: str) -> UseCase:
    found = [use_case for use_case in load_use_cases() if package_exists(store, use_case.name, version)]
    if len(found) != 1:
        names = ", ".join(use_case.name for use_case in found) or "no use case"
        raise BadInput(f"{names} has a model {version}; `ml-assets history` prints the versions, --use-case says whose")
    return found[0]


def _predicted(store: ArtifactStore) -> Predicted:
    names = {*use_cases_in(store), *(use_case.name for use_case in load_use_cases())}
    return predicted_versions(warehouse_of_environment(), sorted(names))


def _show(found: Reproduction, use_case: str) -> None:
    table = Table("", Column("recorded", overflow="fold"), Column("rebuilt", overflow="fold"), Column("", no_wrap=True))
    for finding in found.findings:
        table.add_row(finding.what, finding.recorded, finding.rebuilt, _verdict_on(finding))
    console.print(table)
    if found.days:
        table = Table("day", "added", "removed", "changed", "examples changed, by column")
        for one in found.days:
            columns = ", ".join(f"{name} {n:,}" for name, n in one.columns.items())
            table.add_row(str(one.day), f"{one.n_added:,}", f"{one.n_removed:,}", f"{one.n_changed:,}", columns)
        console.print(table)
    verdict = "identical to its record" if found.is_identical else "NOT identical to its record"
    console.print(f"{use_case} {found.version}, rebuilt, is {verdict}.", highlight=False)


def _verdict_on(finding: Finding) -> str:
    if finding.is_identical:
        return "identical"
    return "another by now" if finding.is_cause else "[red bold]differs"


def _list(found: Sequence[Unreferenced]) -> None:
    if found:
        table = Table(Column("what nothing refers to, and why", overflow="fold"), "MB", "days")
        for item in found:
            what = f"{_where(item)}\n[dim]{item.key.kind}: {item.reason}"
            table.add_row(what, f"{item.size / 1e6:,.2f}", str(item.age.days))
        console.print(table)
    total = sum(item.size for item in found) / 1e6
    console.print(f"Nothing refers to {len(found)} of the artifacts, which hold {total:,.1f} MB.", highlight=False)


def _where(item: Unreferenced) -> str:
    """Return its file or folder, a fingerprint cut to what tells it apart for people."""
    path, name = item.artifact.files[0].path, item.key.name
    folder = path.rpartition("/")[0]
    return f"{folder.removesuffix(name)}{name[:23]}/" if folder.endswith(name) else path
