"""Alerts to Slack, against a server that this file starts: what is posted, when it is tried again, what is not told."""

import traceback

import pytest

from ml_assets.backends.slack_alerter import SlackAlerter
from ml_assets.core.errors import AlertFailed
from tests.servers.slack import SlackServer


def test_an_alert_is_one_message_with_the_title_in_bold():
    with SlackServer() as slack:
        SlackAlerter(slack.webhook).send(title="arrival_delay: severe drift", text="wind\nhttps://reports/1.html")
    assert slack.posted == [{"text": "*arrival_delay: severe drift*\nwind\nhttps://reports/1.html"}]


def test_markup_in_data_wakes_nobody():
    with SlackServer() as slack:
        SlackAlerter(slack.webhook).send(title="carrier", text="moved to <!channel> & <http://evil|here>")
    assert slack.posted[0]["text"] == "*carrier*\nmoved to &lt;!channel&gt; &amp; &lt;http://evil|here&gt;"


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_stumbles_is_asked_again(status: int):
    waits = list[float]()
    with SlackServer(status, status) as slack:
        SlackAlerter(slack.webhook, sleep=waits.append).send(title="a", text="b")
    assert (len(slack.posted), len(slack.taken), waits) == (3, 1, [1.0, 2.0])


def test_a_server_that_is_overloaded_is_asked_again_when_it_says():
    waits = list[float]()
    with SlackServer((429, {"Retry-After": "7"})) as slack:
        SlackAlerter(slack.webhook, sleep=waits.append).send(title="a", text="b")
    assert (len(slack.taken), waits) == (1, [7.0])


def test_a_server_that_wants_to_be_left_alone_for_long_is_left_alone():
    waits = list[float]()
    with SlackServer((429, {"Retry-After": "3600"})) as slack, pytest.raises(AlertFailed, match="alone for 3600 s"):
        SlackAlerter(slack.webhook, sleep=waits.append).send(title="a", text="b")
    assert (len(slack.posted), waits) == (1, [])


def test_a_webhook_that_is_gone_is_not_asked_again():
    with SlackServer(404) as slack, pytest.raises(AlertFailed, match="refuses the alert with 404"):
        SlackAlerter(slack.webhook, sleep=lambda _: None).send(title="a", text="b")
    assert len(slack.posted) == 1


def test_a_redirect_is_not_followed_with_the_alert():
    with SlackServer() as other, SlackServer((302, {"Location": other.webhook})) as slack:
        with pytest.raises(AlertFailed, match="refuses the alert with 302"):
            SlackAlerter(slack.webhook, sleep=lambda _: None).send(title="a", text="b")
        assert other.posted == []


def test_a_server_that_hangs_is_given_up_and_no_text_shows_the_webhook():
    with SlackServer("hang", "hang", "hang") as slack:
        alerter = SlackAlerter(slack.webhook, seconds=0.05, sleep=lambda _: None)
        with pytest.raises(AlertFailed, match="does not answer: ReadTimeout") as hung:
            alerter.send(title="a", text="b")
        assert len(slack.posted) == 3
    with pytest.raises(AlertFailed, match="does not answer: ConnectionError") as gone:
        alerter.send(title="a", text="b")
    for failure in (hung, gone):
        told = "".join(traceback.format_exception(failure.value)) + repr(alerter) + str(vars(failure.value))
        assert "canary-webhook" not in told
        assert failure.value.__context__ is None


def test_whether_somebody_answers_can_be_asked_without_posting():
    with SlackServer() as slack:
        alerter = SlackAlerter(slack.webhook)
        assert alerter.reach() == "127.0.0.1 answers"
    assert (slack.n_asked, slack.posted) == (1, [])
    with pytest.raises(AlertFailed, match=r"^127\.0\.0\.1 does not answer: ConnectionError$"):
        alerter.reach()
