"""Alerts by e-mail, through any server that speaks SMTP."""

import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from ml_assets.core.errors import AlertFailed

_SECONDS = 10.0
_PORTS = {"smtp": 587, "smtps": 465}
_OK, _WILL_FORWARD = 250, 251

# Recipients that a server takes nothing for, with what it says.
Refused = Mapping[str, tuple[int, bytes]]


class SmtpAlerter:
    """Fulfils the Alerter port by sending one plain text message per alert.

    ``url`` is ``smtps://USER:PASSWORD@HOST:PORT`` (TLS from the first byte, port 465) or ``smtp://...`` (STARTTLS, port
    587). A password is sent over TLS with a certificate that is valid, or not at all; only a relay that asks for none
    may do without.
    """

    def __init__(self, url: str, *, to: tuple[str, ...], seconds: float = _SECONDS) -> None:
        parts = urlsplit(url)
        self._scheme, self._host = parts.scheme, parts.hostname or ""
        self._port = parts.port or _PORTS[parts.scheme]
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._to, self._seconds = to, seconds
        self._sender = self._user if "@" in self._user else self._to[0]

    def __repr__(self) -> str:
        """Name the server and who is written to."""
        return f"SmtpAlerter({self._host}:{self._port}, to {', '.join(self._to)})"

    def send(self, *, title: str, text: str) -> None:
        """Hand the message to the server; raise AlertFailed where it takes it for nobody, or not for all."""
        message = EmailMessage()
        message["Subject"] = " ".join(title.split())
        message["From"] = self._sender
        message["To"] = ", ".join(self._to)
        message.set_content(text)
        self._talk(lambda server: server.send_message(message))

    def reach(self) -> str:
        """Log in and name sender and recipients, send nothing, and say who answered; raise AlertFailed as ``send``."""

        def name_them(server: smtplib.SMTP) -> Refused:
            server.ehlo_or_helo_if_needed()
            said = server.mail(self._sender)
            if said[0] != _OK:
                raise smtplib.SMTPSenderRefused(*said, self._sender)
            refused = {to: said for to in self._to if (said := server.rcpt(to))[0] not in (_OK, _WILL_FORWARD)}
            server.rset()
            if len(refused) == len(self._to):
                raise smtplib.SMTPRecipientsRefused(refused)
            return refused

        self._talk(name_them)
        return f"{self._host}:{self._port} takes mail for {', '.join(self._to)}"

    def _talk(self, speak: Callable[[smtplib.SMTP], Refused]) -> None:
        """Speak to the server; raise AlertFailed where it refuses all or, as what ``speak`` returns says, some."""
        failure = self._failure(speak)
        if failure:
            raise AlertFailed(f"{self._host}:{self._port} {failure}")

    def _failure(self, speak: Callable[[smtplib.SMTP], Refused]) -> str:
        """Return what went wrong; the errors themselves can hold what was said to the server."""
        try:
            with self._connect() as server:
                if self._password and not isinstance(server.sock, ssl.SSLSocket):
                    return "offers no TLS, and a password is not sent without; use smtps:// or another server"
                if self._password:
                    server.login(self._user, self._password)
                refused = speak(server)
        except ssl.SSLCertVerificationError as error:
            return f"has a certificate that is not valid: {error.verify_message}"
        except smtplib.SMTPAuthenticationError as error:
            return f"refuses the user {self._user} ({error.smtp_code}); set the password in ML_ASSETS_SMTP_URL"
        except smtplib.SMTPRecipientsRefused:
            return f"refuses every one of {', '.join(self._to)}; see ML_ASSETS_ALERT_EMAIL"
        except smtplib.SMTPResponseException as error:
            return f"answers {error.smtp_code}; it is tried again"
        except (OSError, smtplib.SMTPException) as error:
            return f"cannot be reached: {type(error).__name__}; it is tried again"
        return f"refuses {', '.join(refused)}; see ML_ASSETS_ALERT_EMAIL" if refused else ""

    def _connect(self) -> smtplib.SMTP:
        tls = ssl.create_default_context()
        if self._scheme == "smtps":
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._seconds, context=tls)
        server = smtplib.SMTP(self._host, self._port, timeout=self._seconds)
        try:
            server.ehlo()
            if server.has_extn("starttls"):
                server.starttls(context=tls)
                server.ehlo()
        except BaseException:
            server.close()
            raise
        return server
