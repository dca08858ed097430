"""The checks of a day of a raw table: what was found, what the days before let expect, and how bad the difference is.

Limits are learnt from the recent days by medians, so that one odd day among them moves nothing, and have a floor, so
that very regular days do not make every difference an alarm. With less than a week of history only what no day may be
is a fault: empty, refused, or without any value of a column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from ml_assets.core.contracts import Contract
from ml_assets.core.data_quality.evidence import (
    CHECKS,
    FEWEST_DAYS,
    FEWEST_ROWS_OF_A_GROUP,
    Evidence,
    Finding,
    Severity,
)
from ml_assets.core.data_quality.nulls import nulls
from ml_assets.core.data_quality.profiles import DayProfile, Tally, quantities
from ml_assets.core.data_quality.units import other_unit
from ml_assets.core.days import LOCAL_ZONE_NAME

# Judgements, all of them; docs/data_quality.md says what they find and miss on the flights of 2013.
_FEWEST_SAME_WEEKDAYS = 2
_ROWS_MISSING: Mapping[Severity, float] = {"severe": 0.42, "warning": 0.35}
_MAD_TO_SD = 1.4826
_GROUP_IS_GONE = 0.25
_HOURS_MISSING: Mapping[Severity, float] = {"severe": 6.0, "warning": 2.0}
_DUPLICATES: Mapping[Severity, float] = {"severe": 0.2, "warning": 0.01}
_STRAYS: Mapping[Severity, float] = {"severe": 0.2, "warning": 0.01}
_GREW: float = 0.02


def findings(contract: Contract, found: Evidence) -> list[Finding]:
    """Return what every check says of a day: a row per fault, and one for each check without any."""
    judged = [_schema(found), *_volume(contract, found), *_duplicates(found), *_late(found)]
    if found.profile:
        today = found.profile
        judged += [
            *_freshness(contract, found, today),
            *nulls(contract, found, today),
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
        if column in contract.groups and usual >= FEWEST_ROWS_OF_A_GROUP and n_rows < _GROUP_IS_GONE * usual:
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
    return _usual([day.whole.n_rows for day in found.recent], found) if len(found.recent) >= FEWEST_DAYS else None


def _usual(by_day: Sequence[float], found: Evidence) -> float:
    """Return the median of the recent days of the same weekday, of all recent ones where these are too few."""
    if len(by_day) < FEWEST_DAYS:
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
    expected = float(median(recent)) if len(recent) >= FEWEST_DAYS else None
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
