"""One check after the other: each within its time, none stopped by another's failure, no secret in what is told."""

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ml_assets.core.errors import MlAssetsError

Status = Literal["ok", "warn", "fail", "skipped"]

# Not those that an advice leaves to be filled in.
_PASSWORD = re.compile(r"(?<=://)(?!USER:PASSWORD@)[^/\s@]*:[^/\s@]+@")


class Trouble(MlAssetsError):
    """What a check found wrong, and a sentence that says what to do about it."""

    def __init__(self, found: str, *, do: str, status: Status = "fail") -> None:
        super().__init__(found)
        self.do = do
        self.status: Status = status


class Skipped(MlAssetsError):
    """There is nothing to look at; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Something to look at within ``seconds``: ``look`` returns what it found or raises Trouble or Skipped.

    ``do`` is the advice where it raises anything else, or does not answer. It is skipped where a check that it
    ``needs`` has failed.
    """

    name: str
    look: Callable[[], str]
    do: str
    seconds: float = 20.0
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a check; ``do`` is empty where nothing is to be done."""

    name: str
    status: Status
    seconds: float
    found: str
    do: str = ""


def examine(checks: Sequence[Check], *, on_result: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """Make every check in turn and return the results in that order; each is told as soon as it is there.

    What the clients log meanwhile is not shown: what matters of it is in the result.
    """
    results: dict[str, Result] = {}
    logging.disable(logging.CRITICAL)
    try:
        for check in checks:
            unmet = [n for n in check.needs if n in results and results[n].status == "fail"]
            result = _skipped(check, f"{unmet[0]} comes first") if unmet else _made(check)
            results[check.name] = result
            on_result(result)
    finally:
        logging.disable(logging.NOTSET)
    return list(results.values())


def _made(check: Check) -> Result:
    """Make a check in a thread of its own, which is left behind where it does not end."""
    answers: list[Result] = []
    begun = time.monotonic()
    thread = threading.Thread(target=lambda: answers.append(_answer(check)), name=f"doctor {check.name}", daemon=True)
    thread.start()
    thread.join(check.seconds)
    if not answers:
        found = f"no answer within {check.seconds:g} s: nothing refuses, and nothing answers"
        return Result(name=check.name, status="fail", seconds=time.monotonic() - begun, found=found, do=check.do)
    return answers[0]


def _answer(check: Check) -> Result:
    begun = time.monotonic()

    def result(status: Status, found: str, do: str = "") -> Result:
        seconds = time.monotonic() - begun
        return Result(name=check.name, status=status, seconds=seconds, found=_told(found), do=_told(do))

    try:
        return result("ok", check.look())
    except Skipped as skipped:
        return result("skipped", str(skipped))
    except Trouble as trouble:
        return result(trouble.status, str(trouble), trouble.do)
    except MlAssetsError as error:
        return result("fail", str(error), check.do)
    except Exception as error:  # whatever a client raises is what the check has found
        return result("fail", f"{type(error).__name__}: {error}", check.do)


def _skipped(check: Check, why: str) -> Result:
    return Result(name=check.name, status="skipped", seconds=0.0, found=why)


def _told(text: str) -> str:
    r"""Return a text as one line without the user and password of any URL in it.

    >>> _told("cannot reach\n postgresql://dagster:hunter2@db/dagster")
    'cannot reach postgresql://***@db/dagster'
    """
    return " ".join(_PASSWORD.sub("***@", text).split())
