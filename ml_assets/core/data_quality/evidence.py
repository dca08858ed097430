"""What is known of a day of a raw table when it is judged, and what one check says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

from ml_assets.core.data_quality.landings import NEVER_LANDED, Landing
from ml_assets.core.data_quality.profiles import DayProfile

Severity = Literal["", "warning", "severe"]
CHECKS = ("volume", "freshness", "schema", "nulls", "units", "duplicates", "late")
HISTORY = timedelta(days=28)
# Judgements: with fewer days before it, little is expected of a day; smaller groups come and go.
FEWEST_DAYS, FEWEST_ROWS_OF_A_GROUP = 7, 20


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check says of a day; the severity is empty where all is well.

    ``column_name`` is empty where it is about the whole day; ``subject`` is the group, or the unit, that was found.
    ``value`` and ``expected`` are in the unit of the check: rows, hours between the last event and the end of the day,
    shares, the median of a quantity; ``expected`` is None where nothing is known yet.
    """

    check_name: str
    column_name: str = ""
    subject: str = ""
    value: float | None = None
    expected: float | None = None
    severity: Severity = ""
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """How many rows of a day's delivery went into quarantine, and why.

    ``n_copies`` had a twin that says the same in every column, ``n_corrected`` another row of their key that says
    something else, ``n_strays`` the day of another delivery.
    """

    n_copies: int = 0
    n_corrected: int = 0
    n_strays: int = 0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a day: itself (None without a row), the sound days before it, oldest first, its landing."""

    day: date
    profile: DayProfile | None
    recent: Sequence[DayProfile] = ()
    landing: Landing = NEVER_LANDED
    set_aside: SetAside = field(default_factory=SetAside)

    @property
    def n_rows(self) -> int:
        """How many rows the day has."""
        return self.profile.whole.n_rows if self.profile else 0
