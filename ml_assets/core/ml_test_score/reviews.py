"""What a person has looked at and recorded, so that it counts: an append-only record under ``reviews/<use_case>/``.

A review is bound to the code that shapes training sets and models as it was then, and counts for a year: what has
changed since, or was looked at long ago, has not been reviewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import msgspec

from ml_assets.core.days import local_day
from ml_assets.core.errors import AlreadyExists, BadInput
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.ports import ArtifactStore

# Judgement: what nobody has looked at for a year is not known any more.
VALID = timedelta(days=365)


@dataclass(frozen=True, kw_only=True)
class Review:
    """What one person found of one test of the rubric. ``code_version`` is that of the use case then."""

    use_case: str
    test: str
    code_version: str
    finding: str
    reviewed_at: datetime
    reviewed_by: str


def record_review(store: ArtifactStore, review: Review) -> Review:
    """Write a review; raise BadInput without a name or a finding, or for a second one of the same moment."""
    if not review.finding.strip() or not review.reviewed_by.strip():
        raise BadInput("a review takes a name and what was found; they are kept for ever")
    if review.reviewed_at.tzinfo is None:
        raise ValueError(f"reviewed_at {review.reviewed_at} has no time zone; expected UTC")
    name = f"{review.test}-{review.reviewed_at:%Y%m%dt%H%M%S.%fz}"
    path = artifact_path(f"{_folder(review.use_case)}/{name}.json")
    try:
        store.create(path, msgspec.json.format(msgspec.json.encode(review), indent=2))
    except AlreadyExists as error:
        raise BadInput(f"{review.test} of {review.use_case} was reviewed in this very moment; say it again") from error
    return review


def reviews_of(store: ArtifactStore, use_case: str, test: str) -> Sequence[Review]:
    """Return the reviews of one test, oldest first; raise BadInput for a file that is none."""
    folder = _folder(use_case)
    paths = [path for path in store.list(folder) if path.startswith(f"{folder}/{identifier(test)}-")]
    return [_read(store, path) for path in paths]


def standing_review(store: ArtifactStore, use_case: str, test: str, *, code_version: str, day: date) -> Review | None:
    """Return the newest review of a test that counts on a day for this code, or None.

    One given after the day counts for it too, as long as the code is the same: reviews are about code, not about days.
    """
    found = [
        review
        for review in reviews_of(store, use_case, test)
        if review.code_version == code_version and day - local_day(review.reviewed_at) <= VALID
    ]
    return found[-1] if found else None


def _folder(use_case: str) -> str:
    return f"reviews/{identifier(use_case)}"


def _read(store: ArtifactStore, path: str) -> Review:
    try:
        return msgspec.json.decode(store.get(path), type=Review)
    except msgspec.DecodeError as error:
        raise BadInput(f"{store.address(path)} is no review ({error}); restore it, or remove it") from error
