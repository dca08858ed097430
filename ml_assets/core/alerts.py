"""Telling people: every receiver once of each incident, when it grows worse and when it ends, whatever is killed when.

What was told is kept in the artifact store, under ``incidents/<use case>/<hash of the incident>/``. Whoever wants to
tell a receiver first takes a numbered attempt by conditional create, so that of two processes one tells. After it has
told, it writes that this is done. One that is killed in between leaves an attempt without an end: after ten minutes
another takes the next attempt, and says that it may be the second time. A person who hears of a fault twice is better
off than one who never does.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from ml_assets.core.errors import AlertFailed, AlreadyExists
from ml_assets.core.names import artifact_path, identifier
from ml_assets.core.ports import Alerter, ArtifactStore

# Judgement: no receiver takes ten minutes to answer; who has not ended by then was stopped.
LEASE = timedelta(minutes=10)
# Judgement: after a minute, two, four, up to an hour: a mail server that is down for a night still gets the evening's
# alarms. Each attempt that fails is a failed tick of the sensor; after the last a person must have seen one.
MOST_ATTEMPTS, _LONGEST_PAUSE = 16, timedelta(hours=1)
# Judgement: more messages at once than this are read by nobody.
MOST_MESSAGES = 5

_AGAIN = "This may be the second time you are told: the process that told it first was stopped before it could say so."


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One incident to tell: ``topic`` is the use case, or what else it is about, and the folder of what was told.

    The severity of one that has ended is ``over``.
    """

    topic: str
    incident: str
    severity: Literal["warning", "severe", "over"]
    title: str
    text: str
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What became of some notices: how many were told now, and whether some are in the hands of another process."""

    n_told: int
    is_pending: bool


class Receivers:
    """Fulfils the Alerter port by telling several receivers, by name; one that fails keeps none from being told."""

    def __init__(self, by_name: Mapping[str, Alerter]) -> None:
        self.by_name = dict(by_name)

    def __repr__(self) -> str:
        """Name the receivers, and nothing that opens them."""
        return f"Receivers({', '.join(self.by_name)})"

    def send(self, *, title: str, text: str) -> None:
        """Tell every receiver; raise AlertFailed, naming each that failed, when all have been tried."""
        failed = [
            failure for name, one in self.by_name.items() if (failure := _failure(name, one, title=title, text=text))
        ]
        if failed:
            raise AlertFailed("; ".join(failed))


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """What is kept of an attempt; ``failure`` is null as long as it has not failed."""

    at: datetime
    incident: str
    severity: str
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """An attempt that this process holds: it alone may tell this receiver of this incident now."""

    notice: Notice
    stem: str
    attempt: _Attempt
    number: int
    is_again: bool


def tell(store: ArtifactStore, alerter: Alerter, notices: Sequence[Notice], *, now: datetime) -> Told:
    """Tell each receiver what it has not been told: one message per incident, or one for all where there are many.

    An incident is told as a warning, as severe, or first as one and then as the other; one that was told as severe is
    not told again as a warning. That it is over is told to whom its beginning was. Raises AlertFailed after every
    receiver has been tried. What failed is tried again by a later call: after a minute, then two, then four, an hour at
    most, sixteen times in all.
    """
    by_name = alerter.by_name if isinstance(alerter, Receivers) else {"alerter": alerter}
    failures: list[str] = []
    n_told, is_pending = 0, False
    for name, one in by_name.items():
        claims: list[_Claim] = []
        for notice in notices:
            claim = _claim(store, identifier(name), notice, now)
            if claim == "pending":
                is_pending = True
            elif claim != "known":
                claims.append(claim)
        for message in _messages(claims):
            title, text = _words(message)
            failure = _failure(name, one, title=title, text=text)
            for claim in message:
                _end(store, claim, failure)
            if failure:
                failures.append(failure)
            else:
                n_told += len(message)
    if failures:
        raise AlertFailed("; ".join(failures))
    return Told(n_told=n_told, is_pending=is_pending)


def _claim(store: ArtifactStore, name: str, notice: Notice, now: datetime) -> _Claim | Literal["known", "pending"]:
    """Take the next attempt at telling a receiver, unless it knows or another process is at it."""
    digest = hashlib.sha256(notice.incident.encode()).hexdigest()[:16]
    folder = artifact_path(f"incidents/{identifier(notice.topic)}/{digest}")
    there = {path.rpartition("/")[2] for path in store.list(folder)}
    stem = f"{folder}/{name}.{notice.severity}"
    told = {severity for severity in ("warning", "severe", "over") if f"{name}.{severity}.done.json" in there}
    is_known = {"warning": bool(told), "severe": "severe" in told, "over": "over" in told or not told}
    if is_known[notice.severity]:
        return "known"
    number = sum(file.startswith(f"{name}.{notice.severity}.") for file in there)
    is_again = False
    if number:
        last = msgspec.json.decode(store.get(f"{stem}.{number}.json"), type=_Attempt)
        if number >= MOST_ATTEMPTS and last.failure is not None:
            return "known"
        pause = LEASE if last.failure is None else min(_LONGEST_PAUSE, timedelta(minutes=2 ** (number - 1)))
        if now - last.at < pause:
            return "pending"
        is_again = last.failure is None
    attempt = _Attempt(at=now, incident=notice.incident, severity=notice.severity)
    try:
        store.create(f"{stem}.{number + 1}.json", _document(attempt))
    except AlreadyExists:
        return "pending"
    return _Claim(notice=notice, stem=stem, attempt=attempt, number=number + 1, is_again=is_again)


def _end(store: ArtifactStore, claim: _Claim, failure: str | None) -> None:
    """Keep what became of an attempt."""
    if failure is None:
        store.put(f"{claim.stem}.done.json", _document(claim.attempt))
    else:
        store.put(f"{claim.stem}.{claim.number}.json", _document(replace(claim.attempt, failure=failure)))


def _document(attempt: _Attempt) -> bytes:
    return msgspec.json.format(msgspec.json.encode(attempt))


def _messages(claims: Sequence[_Claim]) -> Sequence[Sequence[_Claim]]:
    """Return what is told in one message: each incident by itself, or all of them where they are many."""
    if len(claims) <= MOST_MESSAGES:
        return [[claim] for claim in claims]
    return [sorted(claims, key=lambda claim: ("severe", "warning", "over").index(claim.notice.severity))]


def _words(message: Sequence[_Claim]) -> tuple[str, str]:
    """Return title and text of a message; the report is linked once where it is one."""
    notices = [claim.notice for claim in message]
    first = notices[0]
    n_severe, n_over = (sum(notice.severity == severity for notice in notices) for severity in ("severe", "over"))
    news = [f"{len(notices) - n_over} new alarms, {n_severe} of them severe"] if len(notices) > n_over else []
    news += [f"{n_over} alarms are over"] if n_over else []
    title = first.title if len(notices) == 1 else "; ".join(news)
    lines = [notice.text if len(notices) == 1 else f"{notice.title}: {notice.text}" for notice in notices]
    lines += [_AGAIN] if any(claim.is_again for claim in message) else []
    return title, "\n".join([*lines, *dict.fromkeys(notice.link for notice in notices if notice.link)])


def _failure(name: str, alerter: Alerter, *, title: str, text: str) -> str | None:
    """Tell one receiver; return why that failed, or None."""
    try:
        alerter.send(title=title, text=text)
    except AlertFailed as failed:
        return f"{name}: {failed}"
    except Exception as error:  # whatever is wrong with one receiver, the others are told, and then it is raised
        return f"{name}: {type(error).__name__}"
    return None
