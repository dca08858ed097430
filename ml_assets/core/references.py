"""What refers to what in the artifact store: the graph that says which packages and training sets must stay.

Only the kinds of files in ``_PATHS`` can ever be removed. Whatever else lies in the store (the ledger, the reports of
days, tuned parameters, ablations, records of experiments, kinds that come later) stays.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeVar

import msgspec

from ml_assets.core import registry
from ml_assets.core.errors import BadInput
from ml_assets.core.experiments import ENDED, FOLDER, STARTED
from ml_assets.core.names import identifier, table_name
from ml_assets.core.ports import ArtifactStore, StoredFile, Warehouse
from ml_assets.core.side_by_side import side_by_side

Kind = Literal["package", "training set", "candidate report", "candidate pointer", "training set pointer"]

_VERSION = r"\d{4}-\d{2}-\d{2}-[0-9a-f]{12}"
_PATHS: Mapping[Kind, re.Pattern[str]] = {
    "package": re.compile(rf"models/(?P<use_case>\w+)/(?P<name>{_VERSION})/[^/]+"),
    "training set": re.compile(r"training_sets/(?P<use_case>\w+)/(?P<name>[0-9a-f]{64})/[^/]+"),
    "candidate report": re.compile(rf"reports/(?P<use_case>\w+)/candidate-(?P<name>{_VERSION})\.html"),
    "candidate pointer": re.compile(r"candidates/(?P<use_case>\w+)/(?P<name>\d{4}-\d{2}-\d{2})\.json"),
    "training set pointer": re.compile(r"training_sets/(?P<use_case>\w+)/as_of/(?P<name>\d{4}-\d{2}-\d{2})\.json"),
}
_MANIFEST = "/manifest.json"
_POINTERS: tuple[Kind, ...] = ("candidate pointer", "training set pointer")
# The report of a day, and the page of an ablation: both name versions, and link to their candidates' reports.
_PAGE_THAT_STAYS = re.compile(r"reports/(?P<use_case>\w+)/(ablation-)?\d{4}-\d{2}-\d{2}\.html")
_ABLATION = re.compile(r"ablations/(?P<use_case>\w+)/\d{4}-\d{2}-\d{2}\.json")
_ATTEMPT = re.compile(rf"{FOLDER}/(?P<use_case>\w+)/[^/]+{re.escape(STARTED)}")
_TUNED = re.compile(r"tuned/(?P<use_case>\w+)/\d{4}-\d{2}-\d{2}\.json")
_LEDGER = re.compile(r"ledger/(?P<use_case>\w+)/[^/]+")
_MONITORING_TABLES = ("monitoring.drift", "monitoring.performance")

# A package or a training set is written within minutes; a day later nobody is going to finish it.
HALF_WRITTEN_AFTER = timedelta(days=1)
# Judgement: an attempt that began earlier and has no end was killed, and nobody is going to resume it.
LONGEST_ATTEMPT = timedelta(days=14)

# Use case -> the versions that rows of the warehouse name.
Predicted = Mapping[str, frozenset[str]]

_T = TypeVar("_T")


class Key(NamedTuple):
    """What names an artifact; ``name`` is a version, a fingerprint, or for a pointer its as-of date."""

    kind: Kind
    use_case: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The files that live and go together. ``refers_to`` is None where that cannot be read from a damaged file."""

    key: Key
    files: tuple[StoredFile, ...]
    refers_to: tuple[Key, ...] | None

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(file.size for file in self.files)

    @property
    def modified_at(self) -> datetime:
        """When the last of its files was written."""
        return max(file.modified_at for file in self.files)

    @property
    def is_half_written(self) -> bool:
        """Whether it ought to have a manifest and has none."""
        has_manifest = any(file.path.endswith(_MANIFEST) for file in self.files)
        return self.key.kind in ("package", "training set") and not has_manifest


@dataclass(frozen=True, kw_only=True)
class References:
    """Every artifact that could be removed, and those of them that must stay."""

    artifacts: Mapping[Key, Artifact]
    kept: frozenset[Key]


@dataclass(frozen=True)
class _Recipe:
    """What any release has written into the recipe of a package."""

    training_set: str
    parent_version: str | None = None


@dataclass(frozen=True)
class _Manifest:
    recipe: _Recipe


@dataclass(frozen=True)
class _OnTrainingSet:
    """What any release has written of tuned parameters, and of an ablation."""

    training_set: str


def predicted_versions(warehouse: Warehouse, use_cases: Iterable[str]) -> Predicted:
    """Return the versions that predictions and monitoring of these use cases name; a table not there names none."""
    found: dict[str, set[str]] = {identifier(use_case): set() for use_case in use_cases}
    for use_case, versions in found.items():
        # A day that is scored again by another model loses its predictions; what the first one read stays on record.
        for table in (f"predictions.{use_case}{of}" for of in ("", "_served", "_shadow")):
            versions.update(str(version) for _, version in _versions_in(warehouse, table, use_case))
    for table in _MONITORING_TABLES:
        for use_case, version in _versions_in(warehouse, table, None):
            found.setdefault(str(use_case), set()).add(str(version))
    return {use_case: frozenset(versions) for use_case, versions in found.items()}


def use_cases_in(store: ArtifactStore) -> Sequence[str]:
    """Return the use cases that have packages or a ledger, those that no file declares any more included."""
    paths = [*store.list("models"), *store.list("ledger")]
    return sorted({path.split("/")[1] for path in paths})


def references(store: ArtifactStore, *, predicted: Predicted, now: datetime, older_than: timedelta) -> References:
    """Read the store and tell what must stay: what a root refers to, or what something that stays refers to.

    The roots are the versions that the ledger can put in charge or that wait for a person, that predictions,
    monitoring, the report of a day or the page of an ablation name; the training sets of the newest tuned parameters
    and of every ablation; training set and parent of each training or search that began within ``LONGEST_ATTEMPT`` and
    has not ended; what the newest pointers name; and everything younger than ``older_than``. From there on: a package
    refers to its training set, to the parent it started from and to its own report; that report to the versions it
    names; a young pointer to what it names. Any other pointer stays as long as what it names.

    Raises LedgerBroken for a damaged ledger, BadInput where the manifest of a package that stays, or one of the records
    above, cannot be read.
    """
    if older_than < HALF_WRITTEN_AFTER:
        raise BadInput(f"older than {older_than} is too young to be judged; choose at least {HALF_WRITTEN_AFTER}")
    files = store.describe("")
    artifacts = _artifacts(store, files)
    waiting = [*_roots(store, files, predicted), *_of_unfinished(store, files, now), *_newest_pointers(artifacts)]
    waiting += [key for key, one in artifacts.items() if not one.is_half_written and now - one.modified_at < older_than]
    kept: set[Key] = set()
    while waiting:
        key = waiting.pop()
        if key in kept:
            continue
        kept.add(key)
        if key in artifacts:
            refers_to = artifacts[key].refers_to
            if refers_to is None:
                raise BadInput(
                    f"the {key.kind} {key.name} of {key.use_case} is in use and its manifest is missing or unreadable, "
                    "so that nobody knows what it refers to; restore it from a backup before anything is removed"
                )
            waiting += refers_to
    pointing = {key: one.refers_to or () for key, one in artifacts.items() if key.kind in _POINTERS}
    kept |= {key for key, targets in pointing.items() if any(t in kept and t in artifacts for t in targets)}
    return References(artifacts=artifacts, kept=frozenset(kept & set(artifacts)))


def can_be_in_charge(known: Sequence[registry.LedgerEntry]) -> Mapping[str, registry.LedgerEntry]:
    """Return the versions that a ledger has put in charge, or that wait for a person, each with an entry that says so.

    Whoever was in charge once was so on some day, and can be rolled back to.
    """
    found = {entry.version: entry for entry in known if entry.action in registry.ACTING}
    for entry in known:
        if entry.action in ("wait", "approve") and not registry.decision_on(known, entry.version, entry.as_of):
            found.setdefault(entry.version, entry)
    return found


def _roots(store: ArtifactStore, files: Sequence[StoredFile], predicted: Predicted) -> list[Key]:
    roots = [Key("package", use_case, version) for use_case, versions in predicted.items() for version in versions]
    for use_case in sorted({found["use_case"] for file in files if (found := _LEDGER.fullmatch(file.path))}):
        roots += [Key("package", use_case, v) for v in can_be_in_charge(registry.entries(store, use_case))]
    newest_tuned: dict[str, str] = {}
    pages, ablations = list[re.Match[str]](), list[re.Match[str]]()
    for path in (file.path for file in files):
        if found := _PAGE_THAT_STAYS.fullmatch(path):
            pages.append(found)
        elif found := _ABLATION.fullmatch(path):
            ablations.append(found)
        elif found := _TUNED.fullmatch(path):
            newest_tuned[found["use_case"]] = path  # sorted by date
    for named in side_by_side(
        lambda page: _versions_named(store.get(page[0]), page["use_case"]), pages, n_at_once=store.n_reads_at_once
    ):
        roots += named
    for found in ablations:
        ablation = _read(store, found[0], _OnTrainingSet, "no ablation", "run it again")
        roots.append(Key("training set", found["use_case"], ablation.training_set))
    for use_case, path in newest_tuned.items():
        tuned = _read(store, path, _OnTrainingSet, "no tuned parameters", f"tune {use_case} again")
        roots.append(Key("training set", use_case, tuned.training_set))
    return roots


def _of_unfinished(store: ArtifactStore, files: Sequence[StoredFile], now: datetime) -> Iterable[Key]:
    """Yield what the trainings and searches read that have begun, may still run, and have recorded no end."""
    ended = {file.path.removesuffix(ENDED) for file in files if file.path.endswith(ENDED)}
    for file in files:
        found = _ATTEMPT.fullmatch(file.path)
        if not found or file.path.removesuffix(STARTED) in ended or now - file.modified_at > LONGEST_ATTEMPT:
            continue
        # It has the recipe that the manifest of its package will have.
        recipe = _read(store, file.path, _Manifest, "no attempt that began", "remove it if nothing is trained").recipe
        yield Key("training set", found["use_case"], recipe.training_set)
        if recipe.parent_version:
            yield Key("package", found["use_case"], recipe.parent_version)


def _read(store: ArtifactStore, path: str, kind: type[_T], what: str, advice: str) -> _T:
    try:
        return msgspec.json.decode(store.get(path), type=kind)
    except msgspec.DecodeError as error:
        raise BadInput(f"{path} holds {what} ({error}); {advice}") from error


def _newest_pointers(artifacts: Mapping[Key, Artifact]) -> Iterable[Key]:
    """Return the pointers of the newest as-of date of each use case, which the next promotion reads."""
    newest: dict[tuple[Kind, str], Key] = {}
    for key in sorted(key for key in artifacts if key.kind in _POINTERS):
        newest[key.kind, key.use_case] = key
    return newest.values()


def _artifacts(store: ArtifactStore, files: Sequence[StoredFile]) -> Mapping[Key, Artifact]:
    grouped: dict[Key, list[StoredFile]] = {}
    for file in files:
        for kind, pattern in _PATHS.items():
            if found := pattern.fullmatch(file.path):
                grouped.setdefault(Key(kind, found["use_case"], found["name"]), []).append(file)
    targets = side_by_side(lambda item: _refers_to(store, *item), grouped.items(), n_at_once=store.n_reads_at_once)
    return {
        key: Artifact(key=key, files=tuple(own), refers_to=refers_to)
        for (key, own), refers_to in zip(grouped.items(), targets, strict=True)
    }


def _refers_to(store: ArtifactStore, key: Key, files: Sequence[StoredFile]) -> tuple[Key, ...] | None:
    kind, use_case, name = key
    path = next((file.path for file in files if file.path.endswith(_MANIFEST)), files[0].path)
    try:
        if kind == "package":
            if not path.endswith(_MANIFEST):
                return None
            own_report = Key("candidate report", use_case, name)
            recipe = msgspec.json.decode(store.get(path), type=_Manifest).recipe
            parent = (Key("package", use_case, recipe.parent_version),) if recipe.parent_version else ()
            return (own_report, Key("training set", use_case, recipe.training_set), *parent)
        if kind == "candidate report":
            return tuple(_versions_named(store.get(path), use_case, but=name))
        if kind == "candidate pointer":
            return (Key("package", use_case, msgspec.json.decode(store.get(path), type=str)),)
        if kind == "training set pointer":
            fingerprint = msgspec.json.decode(store.get(path), type=dict[str, str])["fingerprint"]
            return (Key("training set", use_case, fingerprint),)
    except (msgspec.DecodeError, KeyError):
        return None
    return ()


def _versions_named(page: bytes, use_case: str, *, but: str = "") -> list[Key]:
    named = {version.decode() for version in re.findall(_VERSION.encode(), page)} - {but}
    return [Key("package", use_case, version) for version in sorted(named)]


def _versions_in(warehouse: Warehouse, table: str, use_case: str | None) -> Iterable[tuple[object, object]]:
    """Return the pairs of use case and version in a table, which is of this use case, or of all for None."""
    if warehouse.columns(table) is None:
        return []
    columns = "model_version" if use_case else "use_case, model_version"
    rows = warehouse.query(f"SELECT DISTINCT {columns} FROM {table_name(table)} WHERE model_version IS NOT NULL")  # noqa: S608 # validated names
    whose = [use_case] * rows.num_rows if use_case else rows["use_case"].to_pylist()
    return zip(whose, rows["model_version"].to_pylist(), strict=True)
