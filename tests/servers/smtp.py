"""A server that takes mail: SMTP with STARTTLS or TLS from the first byte, with a login, a refusal, or a silence."""

import base64
import datetime
import ipaddress
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A message that was taken, from whom and to whom the envelope says, and whether the line was encrypted."""

    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage
    is_encrypted: bool


class SmtpServer:
    """Takes mail for one connection after the other; a context manager. ``mails`` are the messages it took.

    ``certificate`` is a file with key and certificate: without one no TLS is offered. With ``password`` nobody may send
    who has not shown it. ``refused`` are recipients that it knows not. With ``is_silent`` it never says a word.
    ``passwords`` are those that it was shown, whatever the line.
    """

    def __init__(
        self,
        *,
        certificate: Path | None = None,
        is_tls_from_start: bool = False,
        password: str = "",
        refused: tuple[str, ...] = (),
        is_silent: bool = False,
    ) -> None:
        self.mails, self.passwords = list[Mail](), list[str]()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._tls:
            self._tls.load_cert_chain(str(certificate))
        self._is_tls_from_start, self._password, self._refused = is_tls_from_start, password, refused
        self._is_silent, self._ended = is_silent, threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> "SmtpServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # An accept that waits is woken by a caller, not by closing the socket under it.
        socket.create_connection(self._socket.getsockname()).close()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            connection, _ = self._socket.accept()
            # The client may hang up, or dislike the certificate.
            with connection, suppress(OSError, ssl.SSLError), ExitStack() as wrapped:
                self._talk(connection, wrapped)

    def _talk(self, connection: socket.socket, wrapped: ExitStack) -> None:
        if self._ended.is_set():
            return
        if self._is_silent:
            self._ended.wait()
            return
        if self._tls and self._is_tls_from_start:
            connection = wrapped.enter_context(self._tls.wrap_socket(connection, server_side=True))
        lines = connection.makefile("rwb", buffering=0)
        sender, recipients, is_known = "", list[str](), not self._password

        def say(text: str) -> None:
            lines.write(f"{text}\r\n".encode())

        say("220 a server of the tests")
        while line := lines.readline().decode().strip():
            verb = line.partition(" ")[0].upper()
            is_encrypted = isinstance(connection, ssl.SSLSocket)
            if verb in ("EHLO", "HELO"):
                offers = ["127.0.0.1"]
                offers += ["STARTTLS"] if self._tls and not is_encrypted else []
                offers += ["AUTH PLAIN"] if self._password else []
                for offer in offers[:-1]:
                    say(f"250-{offer}")
                say(f"250 {offers[-1]}")
            elif verb == "STARTTLS" and self._tls:
                say("220 go ahead")
                connection = wrapped.enter_context(self._tls.wrap_socket(connection, server_side=True))
                lines = connection.makefile("rwb", buffering=0)
            elif verb == "AUTH":
                shown = base64.b64decode(line.split()[-1]).decode().split("\0")[-1]
                self.passwords.append(shown)
                is_known = shown == self._password
                say("235 welcome" if is_known else f"535 not with {shown}")
            elif verb == "MAIL":
                sender, recipients = line.partition("<")[2].partition(">")[0], []
                say("250 ok" if is_known else "530 log in first")
            elif verb == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                if address in self._refused:
                    say("550 unknown")
                else:
                    recipients.append(address)
                    say("250 ok")
            elif verb == "DATA":
                say("354 go on")
                content = b""
                while not content.endswith(b"\r\n.\r\n"):
                    content += lines.readline()
                message = message_from_bytes(content[:-3], policy=policy.default)
                found = cast("EmailMessage", message)
                self.mails.append(
                    Mail(sender=sender, recipients=tuple(recipients), message=found, is_encrypted=is_encrypted)
                )
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


def self_signed(path: Path) -> Path:
    """Write key and certificate of 127.0.0.1, which whoever is shown this file as a root trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
