"""The checks of a day of a raw table: what was found, what the days before let expect, and how bad the difference is.

Limits are learnt from the recent days by medians, so that one odd day among them moves nothing, and have a floor, so
that very regular days do not make every difference an alarm. With less than a week of history only what no day may be
is a fault: empty, refused, or without any value of a column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from statistics import median
from typing import Literal
from zoneinfo import ZoneInfo

from ml_assets.core.contracts import Column, Contract
from ml_assets.core.data_quality.landings import NEVER_LANDED, Landing
from ml_assets.core.data_quality.profiles import DayProfile, Tally, quantities
from ml_assets.core.data_quality.units import other_unit
from ml_assets.core.days import LOCAL_ZONE_NAME

Severity = Literal["", "warning", "severe"]
CHECKS = ("volume", "freshness", "schema", "nulls", "units", "duplicates", "late")
HISTORY = timedelta(days=28)

# Judgements, all of them; docs/data_quality.md says what they find and miss on the flights of 2013.
_FEWEST_DAYS = 7
_FEWEST_SAME_WEEKDAYS = 2
_ROWS_MISSING: Mapping[Severity, float] = {"severe": 0.42, "warning": 0.35}
_MAD_TO_SD = 1.4826
_FEWEST_ROWS_OF_A_GROUP = 20
_GROUP_IS_GONE = 0.25
_HOURS_MISSING: Mapping[Severity, float] = {"severe": 6.0, "warning": 2.0}
_NULLS_MORE: Mapping[Severity, float] = {"severe": 0.35, "warning": 0.2}
_OUTCOMES_MISSING: Mapping[Severity, float] = {"severe": 0.9, "warning": 0.4}
_FEWEST_ROWS_OF_NULLS = 10
_DUPLICATES: Mapping[Severity, float] = {"severe": 0.2, "warning": 0.01}
_STRAYS: Mapping[Severity, float] = {"severe": 0.2, "warning": 0.01}
_GREW: float = 0.02


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


def findings(contract: Contract, found: Evidence) -> list[Finding]:
    """Return what every check says of a day: a row per fault, and one for each check without any."""
    judged = [_schema(found), *_volume(contract, found), *_duplicates(found), *_late(found)]
    if found.profile:
        today = found.profile
        judged += [
            *_freshness(contract, found, today),
            *_nulls(contract, found, today),
            *_units(contract, found, today),
        ]
    sound = {name: Finding(check_name=name) for name in CHECKS}
    sound |= {each.check_name: each for each in judged if not each.severity}
    faults = [each for each in judged if each.severity]
    ordered = [*faults, *(each for name, each in sound.items() if name not in {fault.check_name for fault in faults})]
    return sorted(ordered, key=lambda each: (CHECKS.index(each.check_name), each.column_name))


def _schema(found: Evidence) -> Finding:
    refused = found.landing.refused
    if not refused:
        return Finding(check_name="schema", value=0.0, expected=0.0)
    rows = f"the {found.n_rows} rows there are those of a landing before" if found.n_rows else "there is no row"
    return Finding(
        check_name="schema",
        value=1.0,
        expected=0.0,
        severity="severe",
        subject=refused,
        explanation=f"the newest delivery was refused, {rows}: {refused}",
    )


def _volume(contract: Contract, found: Evidence) -> list[Finding]:
    if not found.n_rows:
        return [
            Finding(
                check_name="volume", value=0.0, expected=_usual_rows(found), severity="severe", explanation="no row"
            )
        ]
    expected = _usual_rows(found)
    whole = Finding(check_name="volume", value=float(found.n_rows), expected=expected)
    if expected is None:
        return [whole]
    share, spread = found.n_rows / expected, _spread_of_rows(found)
    judged = [whole]
    for severity, floor in _ROWS_MISSING.items():
        least = 1 - min(max(floor, 6 * spread), 0.9)
        if not least <= share <= 1 / least:
            words = f"{found.n_rows} rows, usually {expected:g} on such a day"
            judged = [replace(whole, severity=severity, explanation=words)]
            break
    return judged + _groups_gone(contract, found)


def _groups_gone(contract: Contract, found: Evidence) -> list[Finding]:
    gone: list[Finding] = []
    for column, value in sorted({group for day in found.recent for group in day.groups}):
        usual = _usual([_rows_of(day, (column, value)) for day in found.recent], found)
        n_rows = _rows_of(found.profile, (column, value))
        if column in contract.groups and usual >= _FEWEST_ROWS_OF_A_GROUP and n_rows < _GROUP_IS_GONE * usual:
            gone.append(
                Finding(
                    check_name="volume",
                    column_name=column,
                    subject=value,
                    value=float(n_rows),
                    expected=usual,
                    severity="severe",
                    explanation=f"{n_rows} rows of {column} {value}, usually {usual:g} on such a day",
                )
            )
    return gone


def _rows_of(day: DayProfile | None, group: tuple[str, str]) -> int:
    return day.groups[group].n_rows if day and group in day.groups else 0


def _usual_rows(found: Evidence) -> float | None:
    return _usual([day.whole.n_rows for day in found.recent], found) if len(found.recent) >= _FEWEST_DAYS else None


def _usual(by_day: Sequence[float], found: Evidence) -> float:
    """Return the median of the recent days of the same weekday, of all recent ones where these are too few."""
    if len(by_day) < _FEWEST_DAYS:
        return 0.0
    same = [n for day, n in zip(found.recent, by_day, strict=True) if day.day.weekday() == found.day.weekday()]
    return float(median(same if len(same) >= _FEWEST_SAME_WEEKDAYS else by_day))


def _spread_of_rows(found: Evidence) -> float:
    """Return by which share the rows of a recent day usually differ from those of its weekday."""
    by_weekday: dict[int, list[int]] = {}
    for day in found.recent:
        by_weekday.setdefault(day.day.weekday(), []).append(day.whole.n_rows)
    return _MAD_TO_SD * median(
        abs(day.whole.n_rows / median(by_weekday[day.day.weekday()]) - 1) for day in found.recent
    )


def _freshness(contract: Contract, found: Evidence, today: DayProfile) -> list[Finding]:
    hours = _hours_missing(today.whole, found.day)
    if not contract.event_at or hours is None:
        return []
    recent = [missing for day in found.recent if (missing := _hours_missing(day.whole, day.day)) is not None]
    expected = float(median(recent)) if len(recent) >= _FEWEST_DAYS else None
    spread = 6 * _MAD_TO_SD * median(abs(each - expected) for each in recent) if expected is not None else 0.0
    judged = Finding(check_name="freshness", column_name=contract.event_at, value=hours, expected=expected)
    for severity, floor in _HOURS_MISSING.items():
        if hours - (expected or 0.0) > max(floor, spread):
            words = (
                f"the newest {contract.event_at} is {today.whole.newest:%Y-%m-%d %H:%M} UTC, {hours:g} hours "
                f"before the end of the day; usual are {expected or 0:g}"
            )
            return [replace(judged, severity=severity, explanation=words)]
    return [judged]


def _hours_missing(tally: Tally, day: date) -> float | None:
    if tally.newest is None:
        return None
    ends_at = datetime.combine(day + timedelta(days=1), time.min, ZoneInfo(LOCAL_ZONE_NAME)).astimezone(UTC)
    return (ends_at - tally.newest).total_seconds() / 3600


def _nulls(contract: Contract, found: Evidence, today: DayProfile) -> list[Finding]:
    if found.n_rows < _FEWEST_ROWS_OF_NULLS:
        return []
    columns = [column for column in contract.columns if column.nullable and not column.is_sparse]
    judged = [_nulls_of(column, today, found.recent) for column in columns]
    outcomes = [column.name for column in columns if column.is_outcome]
    judged += [_outcomes(outcomes, today, found.recent)] if outcomes else []
    judged += [each for column in columns if not column.is_outcome for each in _silent_groups(column, found, today)]
    faults = [each for each in judged if each.severity]
    return faults or [max(judged, key=lambda each: each.value or 0.0)] if judged else []


def _nulls_of(column: Column, today: DayProfile, recent: Sequence[DayProfile]) -> Finding:
    """Judge the share of nulls; of an outcome that of rows in which other outcomes are there."""
    share = _null_share(column, today.whole)
    shares = [_null_share(column, day.whole) for day in recent]
    expected = median(shares) if len(shares) >= _FEWEST_DAYS else None
    judged = Finding(check_name="nulls", column_name=column.name, value=share, expected=expected)
    words = f"{column.name} is null in {share:.0%} of the rows"
    if column.is_outcome:
        words += " although most other outcomes are there"
    if expected is None:
        is_empty = share == 1 and not column.is_outcome
        return replace(judged, severity="severe" if is_empty else "", explanation=words)
    for severity, more in _NULLS_MORE.items():
        if share > max(shares) + more:
            words = f"{words}, in {expected:.0%} usually and in {max(shares):.0%} at most"
            return replace(judged, severity=severity, explanation=words)
    return judged


def _null_share(column: Column, tally: Tally) -> float:
    if column.is_outcome:
        return tally.n_alone.get(column.name, 0) / tally.n_rows
    return 1 - tally.n_values[column.name] / tally.n_rows


def _outcomes(names: Sequence[str], today: DayProfile, recent: Sequence[DayProfile]) -> Finding:
    """Judge the rows without any outcome: a storm cancels half of a day, nothing cancels nearly all of it."""

    def share(tally: Tally) -> float:
        return 1 - max(tally.n_values[name] for name in names) / tally.n_rows

    found, shares = share(today.whole), [share(day.whole) for day in recent]
    expected = median(shares) if len(shares) >= _FEWEST_DAYS else None
    judged = Finding(check_name="nulls", value=found, expected=expected)
    for severity, more in _OUTCOMES_MISSING.items():
        if found > more:
            words = f"{found:.0%} of the rows have no outcome at all ({', '.join(names)})"
            return replace(judged, severity=severity, explanation=words)
    return judged


def _silent_groups(column: Column, found: Evidence, today: DayProfile) -> list[Finding]:
    """Name the groups of which a column has no value on a day, such as a station that sends empty rows."""
    silent: list[Finding] = []
    for group, tally in today.groups.items():
        shares = [1 - day.groups[group].n_values[column.name] / day.groups[group].n_rows
                  for day in found.recent if group in day.groups]  # fmt: skip
        if tally.n_values[column.name] or tally.n_rows < _FEWEST_ROWS_OF_A_GROUP or len(shares) < _FEWEST_DAYS:
            continue
        if (expected := median(shares)) < 0.5:
            words = f"{column.name} is null in all {tally.n_rows} rows of {group[0]} {group[1]}"
            silent.append(
                Finding(
                    check_name="nulls",
                    column_name=column.name,
                    subject=group[1],
                    value=1.0,
                    expected=expected,
                    severity="severe",
                    explanation=words,
                )
            )
    return silent


def _units(contract: Contract, found: Evidence, today: DayProfile) -> list[Finding]:
    units = {column.name: column.unit for column in contract.columns}
    judged: list[Finding] = []
    for name in quantities(contract):
        recent = [day.values[name] for day in found.recent if name in day.values]
        if name not in today.values or not recent:
            continue
        other = other_unit(units[name], today.values[name], recent)
        if other:
            usual, here = median(day.median for day in recent), today.values[name].median
            judged.append(
                Finding(
                    check_name="units",
                    column_name=name,
                    subject=other.words,
                    value=here,
                    expected=usual,
                    severity="severe",
                    explanation=f"{name} looks like {other.words}: median {here:g}, usually {usual:g} {units[name]}",
                )
            )
    return judged


def _duplicates(found: Evidence) -> list[Finding]:
    """Judge the rows that came more than once. Copies only warn: whichever of them is kept, the day is the same."""
    copies, corrected = found.set_aside.n_copies, found.set_aside.n_corrected
    n_delivered = found.n_rows + copies + corrected
    words = f"{corrected} rows came again with other values; of each key the last one was kept"
    contradicted = _of_share("duplicates", corrected, n_delivered, _DUPLICATES, words)
    words = f"{copies} rows came again as they were; each is counted once"
    copied = _of_share("duplicates", copies, n_delivered, {"warning": _DUPLICATES["warning"]}, words)
    return [max(contradicted, copied, key=lambda each: (_RANK[each.severity], each.value or 0.0))]


def _late(found: Evidence) -> list[Finding]:
    """Judge rows of other days in this delivery, and rows that came after the first landing.

    The latter only warn: they are here now, and to hold the day would hold up the cure.
    """
    n = found.set_aside.n_strays
    strays = _of_share("late", n, found.n_rows + n, _STRAYS, f"{n} rows in the delivery are of other days")
    first = found.landing.n_at_first
    n_late = max(found.n_rows - first, 0) if first is not None else 0
    words = f"{n_late} of the {found.n_rows} rows came after the first landing"
    grown = _of_share("late", n_late, found.n_rows, {"warning": _GREW}, words)
    return [max(strays, grown, key=lambda each: (_RANK[each.severity], each.value or 0.0))]


_RANK: Mapping[Severity, int] = {"": 0, "warning": 1, "severe": 2}


def _of_share(name: str, n: int, of: int, limits: Mapping[Severity, float], words: str) -> Finding:
    share = n / of if of else 0.0
    passed: list[Severity] = [severity for severity, limit in limits.items() if share >= limit]
    severity = passed[0] if passed else ""
    return Finding(check_name=name, value=share, expected=0.0, severity=severity, explanation=words if severity else "")
