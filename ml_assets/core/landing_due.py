"""Which days of a table are to land now: those whose files differ from what landed last, once each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ml_assets.core.day_files import DayFiles, FilesVersion

# Judgement: what fails three times needs a person, who is told each time; new files begin anew.
MOST_ATTEMPTS = 3

RunState = Literal["created", "running", "succeeded", "failed"]


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run that was asked for before: of which day, for which state of its files, and what became of it."""

    subject: str
    version: str
    state: RunState


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A run to ask for. Its key is the same however often one tick is repeated, and another one for each attempt."""

    subject: str
    version: str
    number: int

    @property
    def key(self) -> str:
        """What makes it one run: day, state of the files, attempt."""
        return f"{self.subject}:{self.version}:{self.number}"


def next_attempt(subject: str, version: str, runs: Sequence[PastRun]) -> Attempt | None:
    """Return the run to ask for so that this version takes effect; None while one is running, or after too many.

    A run that was created and never started is asked for again under its own key. Runs of other versions of the subject
    count as long as they run: two at once would race for the same rows.
    """
    own_subject = [run for run in runs if run.subject == subject]
    if any(run.state == "running" for run in own_subject):
        return None
    own = [run for run in own_subject if run.version == version]
    n_ended = sum(run.state != "created" for run in own)
    return Attempt(subject=subject, version=version, number=n_ended + 1) if n_ended < MOST_ATTEMPTS else None


def is_over(subject: str, version: str, runs: Sequence[PastRun]) -> bool:
    """Tell whether nothing more will be asked for: a run of this version succeeded, or too many failed."""
    states = [run.state for run in runs if (run.subject, run.version) == (subject, version)]
    return "succeeded" in states or states.count("failed") >= MOST_ATTEMPTS


@dataclass(frozen=True, kw_only=True)
class Due:
    """What a look at the files came to.

    ``settled`` are the days to land. ``differing`` are all whose files differ from what landed, with the fingerprint of
    the files: for the next look. ``remarks`` are sentences for whoever reads the log.
    """

    settled: tuple[DayFiles, ...]
    differing: Mapping[str, str]
    remarks: tuple[str, ...]


def due(
    found: Sequence[DayFiles], landed: Mapping[str, FilesVersion], seen: Mapping[str, str], *, marker: str | None = None
) -> Due:
    """Compare the files of days with what landed last (by day) and what the last look saw (fingerprint by day).

    A day lands when its files differ from those that landed, are all finished, and were the same at the last look. Days
    that only lost files are left as they are: where a life-cycle rule removes old files, their rows must stay.
    """
    settled: list[DayFiles] = []
    differing: dict[str, str] = {}
    remarks: list[str] = []
    for files in found:
        day, version, last = files.name, files.version, landed.get(files.name)
        if not files.data or (last and last.fingerprint == version.fingerprint):
            continue
        if last and version.only_lost_files_since(last):
            remarks.append(f"{day} lost {last.n_files - version.n_files} files; its rows stay until it is run by hand")
        elif files.unfinished:
            remarks.append(f"{day} waits: {files.unfinished[0].path} is still being written")
        elif marker and not files.has_marker(marker):
            remarks.append(f"{day} waits for its {marker}")
        else:
            differing[day] = version.fingerprint
            if seen.get(day) == version.fingerprint:
                settled.append(files)
    return Due(settled=tuple(settled), differing=differing, remarks=tuple(remarks))
