"""Alerts by e-mail, against a server that this file starts."""

import traceback
from pathlib import Path

import pytest

from ml_assets.backends.smtp_alerter import SmtpAlerter
from ml_assets.core.errors import AlertFailed
from tests.servers.smtp import SmtpServer, self_signed

TO = ("oncall@example.com", "team@example.com")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate, as this machine's administrator would have installed it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return certificate


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_an_alert_is_one_message_sent_over_tls_after_a_login(scheme: str, trusted: Path):
    with SmtpServer(certificate=trusted, is_tls_from_start=scheme == "smtps", password="p@ss") as server:
        url = f"{scheme}://alerts%40example.com:p%40ss@{server.address}"
        SmtpAlerter(url, to=TO).send(title="severe drift", text="wind é\nhttps://reports/1.html")
    [mail] = server.mails
    assert (mail.sender, mail.recipients, mail.is_encrypted) == ("alerts@example.com", TO, True)
    assert (mail.message["Subject"], mail.message["To"]) == ("severe drift", ", ".join(TO))
    assert mail.message.get_content().split() == ["wind", "é", "https://reports/1.html"]
    assert mail.message.get_content_type() == "text/plain"


def test_a_password_is_never_sent_without_encryption():
    with SmtpServer(password="canary-smtp") as server:
        with pytest.raises(AlertFailed, match="offers no TLS, and a password is not sent without"):
            SmtpAlerter(f"smtp://me:canary-smtp@{server.address}", to=TO).send(title="a", text="b")
        assert (server.passwords, server.mails) == ([], [])


def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_password(certificate: Path):
    with SmtpServer(certificate=certificate, password="canary-smtp") as server:
        with pytest.raises(AlertFailed, match="has a certificate that is not valid"):
            SmtpAlerter(f"smtp://me:canary-smtp@{server.address}", to=TO).send(title="a", text="b")
        assert server.passwords == []


def test_a_relay_that_asks_for_no_password_needs_no_tls():
    with SmtpServer() as server:
        SmtpAlerter(f"smtp://{server.address}", to=TO).send(title="a", text="b")
    assert (server.mails[0].sender, server.mails[0].is_encrypted) == (TO[0], False)


def test_a_title_cannot_add_headers():
    with SmtpServer() as server:
        SmtpAlerter(f"smtp://{server.address}", to=TO).send(title="drift\r\nBcc: eve@example.com", text="b")
    assert server.mails[0].message["Subject"] == "drift Bcc: eve@example.com"
    assert (server.mails[0].message["Bcc"], server.mails[0].recipients) == (None, TO)


def test_a_recipient_that_is_refused_is_named_and_the_other_is_told():
    with SmtpServer(refused=TO[1:]) as server, pytest.raises(AlertFailed, match=f"refuses {TO[1]}"):
        SmtpAlerter(f"smtp://{server.address}", to=TO).send(title="a", text="b")
    assert server.mails[0].recipients == TO[:1]


def test_recipients_that_are_all_refused_are_named():
    with (
        SmtpServer(refused=TO) as server,
        pytest.raises(AlertFailed, match=r"refuses every one of oncall@example\.com"),
    ):
        SmtpAlerter(f"smtp://{server.address}", to=TO).send(title="a", text="b")
    assert server.mails == []


def test_no_text_of_a_failure_shows_the_password(trusted: Path):
    failures = list[AlertFailed]()
    with SmtpServer(certificate=trusted, password="another") as server:
        alerter = SmtpAlerter(f"smtp://me:canary-smtp@{server.address}", to=TO)
        with pytest.raises(AlertFailed, match=r"refuses the user me \(535\)") as wrong:
            alerter.send(title="a", text="b")
        failures.append(wrong.value)
    with SmtpServer(is_silent=True) as server:
        alerter = SmtpAlerter(f"smtp://me:canary-smtp@{server.address}", to=TO, seconds=0.05)
        with pytest.raises(AlertFailed, match="cannot be reached: SMTPServerDisconnected") as silent:
            alerter.send(title="a", text="b")
        failures.append(silent.value)
    with pytest.raises(AlertFailed, match="cannot be reached: ConnectionRefusedError") as gone:
        alerter.send(title="a", text="b")
    for failure in (*failures, gone.value):
        assert "canary-smtp" not in "".join(traceback.format_exception(failure)) + repr(alerter)
        assert failure.__context__ is None


def test_whether_the_server_would_take_an_alert_can_be_asked_without_sending_one(trusted: Path):
    with SmtpServer(certificate=trusted, password="p@ss", refused=TO[1:]) as server:
        url = f"smtp://alerts%40example.com:p%40ss@{server.address}"
        assert SmtpAlerter(url, to=TO[:1]).reach() == f"{server.address} takes mail for oncall@example.com"
        with pytest.raises(AlertFailed, match=f"refuses {TO[1]}; see ML_ASSETS_ALERT_EMAIL"):
            SmtpAlerter(url, to=TO).reach()
        with pytest.raises(AlertFailed, match=f"refuses every one of {TO[1]}"):
            SmtpAlerter(url, to=TO[1:]).reach()
        with pytest.raises(AlertFailed, match=r"refuses the user me \(535\)"):
            SmtpAlerter(f"smtp://me:wrong@{server.address}", to=TO).reach()
        with pytest.raises(AlertFailed, match=r"answers 530"):
            SmtpAlerter(f"smtp://{server.address}", to=TO).reach()
    assert server.mails == []
