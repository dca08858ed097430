"""The check of missing values: of a column on a day, of all outcomes of its rows, and of a column in one group."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from ml_assets.core.contracts import Column, Contract
from ml_assets.core.data_quality.evidence import (
    FEWEST_DAYS,
    FEWEST_ROWS_OF_A_GROUP,
    Evidence,
    Finding,
    Severity,
)
from ml_assets.core.data_quality.profiles import DayProfile, Tally

# Judgements, all of them; docs/data_quality.md says what they find and miss on the flights of 2013.
_NULLS_MORE: Mapping[Severity, float] = {"severe": 0.35, "warning": 0.2}
_OUTCOMES_MISSING: Mapping[Severity, float] = {"severe": 0.9, "warning": 0.4}
_FEWEST_ROWS = 10


def nulls(contract: Contract, found: Evidence, today: DayProfile) -> list[Finding]:
    """Return the columns and groups that lost more values than on any recent day, or else the emptiest of all."""
    if found.n_rows < _FEWEST_ROWS:
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
    expected = median(shares) if len(shares) >= FEWEST_DAYS else None
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
    expected = median(shares) if len(shares) >= FEWEST_DAYS else None
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
        if tally.n_values[column.name] or tally.n_rows < FEWEST_ROWS_OF_A_GROUP or len(shares) < FEWEST_DAYS:
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
