"""Alerts to an incoming webhook of Slack, or of anything that takes the same JSON: Mattermost, Rocket.Chat, a proxy."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ml_assets.core.errors import AlertFailed

if TYPE_CHECKING:
    from requests import Response

# Judgement: whoever tells has a minute, and others to tell.
_SECONDS, _ATTEMPTS, _LONGEST_WAIT = 5.0, 3, 10.0
# What a proxy answers for a server that is not there.
_AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
# Slack cuts what is longer than 40,000 characters; a person reads less.
_LONGEST_TEXT = 3000


class SlackAlerter:
    """Fulfils the Alerter port by posting one message per alert.

    The address of the webhook is the secret that opens it. It is in no text of this object nor of its errors.
    """

    def __init__(self, webhook: str, *, seconds: float = _SECONDS, sleep: Callable[[float], None] = time.sleep) -> None:
        self._webhook, self._seconds, self._sleep = webhook, seconds, sleep
        self._host = urlsplit(webhook).hostname or "the webhook"

    def __repr__(self) -> str:
        """Name the host, and not the path, which is the secret."""
        return f"SlackAlerter({self._host})"

    def send(self, *, title: str, text: str) -> None:
        """Post the alert, three times at most; raise AlertFailed where none was taken.

        A server that is overloaded says in ``Retry-After`` when to come again: within ten seconds it is waited for.
        """
        message = {"text": f"*{_plain(title)}*\n{_plain(text)}"[:_LONGEST_TEXT]}
        failure = ""
        for attempt in range(1, _ATTEMPTS + 1):
            answer = self._ask("POST", message)
            if isinstance(answer, str):
                failure, wait = f"{self._host} does not answer: {answer}", float(attempt)
            elif answer.status_code == HTTPStatus.OK:
                return
            elif answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                wait = _seconds_of(answer.headers.get("Retry-After"), default=float(attempt))
                failure = f"{self._host} asks to be left alone for {wait:.0f} s"
            elif answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                failure, wait = f"{self._host} answers {answer.status_code}", float(attempt)
            else:
                raise AlertFailed(
                    f"{self._host} refuses the alert with {answer.status_code}: is the webhook still there? "
                    "Make a new one and set ML_ASSETS_SLACK_WEBHOOK"
                )
            if wait > _LONGEST_WAIT or attempt == _ATTEMPTS:
                break
            self._sleep(wait)
        raise AlertFailed(f"{failure}; it is tried again")

    def reach(self) -> str:
        """Ask for the webhook's address, which posts nothing, and say who answered; raise AlertFailed where nobody did.

        What a server says to it differs, so that only a message shows whether the webhook is still there.
        """
        answer = self._ask("GET", None)
        if isinstance(answer, str):
            raise AlertFailed(f"{self._host} does not answer: {answer}")
        if answer.status_code in _AWAY:
            raise AlertFailed(f"{self._host} answers {answer.status_code}")
        return f"{self._host} answers"

    def _ask(self, method: str, message: dict[str, str] | None) -> "Response | str":
        """Return the answer, or the kind of error: its text would hold the address."""
        import requests

        try:
            return requests.request(method, self._webhook, json=message, timeout=self._seconds, allow_redirects=False)
        except requests.RequestException as error:
            return type(error).__name__


def _plain(text: str) -> str:
    """Return a text that Slack shows as it is: a category called ``<!channel>`` must wake nobody.

    >>> _plain("carrier: <!channel> & co")
    'carrier: &lt;!channel&gt; &amp; co'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seconds_of(header: str | None, *, default: float) -> float:
    """Return what a Retry-After asks for; a date, which Slack never sends, is the default.

    >>> _seconds_of("30", default=1.0), _seconds_of("soon", default=1.0)
    (30.0, 1.0)
    """
    return float(header) if header and header.isdigit() else default
