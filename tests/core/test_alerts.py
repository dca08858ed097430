"""Each receiver is told once of each incident, whoever is killed when: at every point between claim and record."""

from datetime import UTC, datetime, timedelta
from typing import Literal, cast

import pytest

from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.alerts import MOST_ATTEMPTS, MOST_MESSAGES, Notice, Receivers, tell
from ml_assets.core.errors import AlertFailed, StoreUnavailable

NOW = datetime(2013, 7, 2, 11, 0, tzinfo=UTC)
LINK = "https://reports/2013-07-01.html"


class Killed(BaseException):
    """What a signal does to a process: no handler of exceptions runs."""


class Receiver:
    """Remembers what it was told; ``fails`` holds what the next sends raise, before or after they are delivered."""

    def __init__(self, *fails: BaseException, is_delivered: bool = False) -> None:
        self.told, self._fails, self._is_delivered = list[tuple[str, str]](), list(fails), is_delivered

    def send(self, *, title: str, text: str) -> None:
        failure = self._fails.pop(0) if self._fails else None
        if failure is None or self._is_delivered:
            self.told.append((title, text))
        if failure is not None:
            raise failure


class KillingStore(ObjectArtifactStore):
    """Kills the process just before, or just after, it writes the file that says an alert is done."""

    point = ""

    def put(self, path: str, content: bytes) -> None:
        if self.point == "before done" and path.endswith(".done.json"):
            raise Killed
        super().put(path, content)
        if self.point == "after done" and path.endswith(".done.json"):
            raise Killed

    def create(self, path: str, content: bytes) -> None:
        if self.point == "before claim":
            raise Killed
        super().create(path, content)
        if self.point == "after claim":
            raise Killed


@pytest.fixture
def store() -> KillingStore:
    return KillingStore("memory://")


def notice(incident: str = "drift:wind:2013-07-01", severity: str = "warning") -> Notice:
    return Notice(
        topic="arrival_delay",
        incident=incident,
        severity=cast('Literal["warning", "severe", "over"]', severity),
        title=f"{severity} {incident}",
        text="31 % of the day's mass moved above the training range",
        link=LINK,
    )


def test_an_incident_is_told_once_with_its_link_however_often_it_is_seen(store: KillingStore):
    receiver = Receiver()
    assert tell(store, receiver, [notice()], now=NOW).n_told == 1
    for days in range(1, 4):
        told = tell(store, receiver, [notice()], now=NOW + timedelta(days=days))
        assert (told.n_told, told.is_pending) == (0, False)
    [(title, text)] = receiver.told
    assert title == "warning drift:wind:2013-07-01"
    assert text.splitlines()[-1] == LINK


def test_one_that_grows_worse_is_told_again_and_one_that_grows_better_is_not(store: KillingStore):
    receiver = Receiver()
    for severity in ("warning", "severe", "warning", "severe"):
        tell(store, receiver, [notice(severity=severity)], now=NOW)
    assert [title.split()[0] for title, _ in receiver.told] == ["warning", "severe"]


def test_the_end_is_told_once_to_whoever_was_told_of_the_beginning(store: KillingStore):
    was_told, was_down = Receiver(), Receiver(AlertFailed("hooks.example answers 503"))
    both = Receivers({"email": was_told, "slack": was_down})
    with pytest.raises(AlertFailed):
        tell(store, both, [notice()], now=NOW)
    for days in range(1, 3):
        tell(store, both, [notice(severity="over")], now=NOW + timedelta(days=days))
    assert [title.split()[0] for title, _ in was_told.told] == ["warning", "over"]
    assert was_down.told == []


def test_many_ends_are_told_after_what_is_new(store: KillingStore):
    receiver = Receiver()
    incidents = [f"drift:feature_{i}:2013-07-01" for i in range(4)]
    tell(store, receiver, [notice(incident) for incident in incidents], now=NOW)
    receiver.told.clear()
    news = [notice(incident, "over") for incident in incidents] + [notice("a"), notice("b", "severe")]
    tell(store, receiver, news, now=NOW)
    [(title, text)] = receiver.told
    assert title == "2 new alarms, 1 of them severe; 4 alarms are over"
    assert [line.split()[0] for line in text.splitlines()[:6]] == ["severe", "warning", *["over"] * 4]


def test_another_incident_is_another_alert(store: KillingStore):
    receiver = Receiver()
    tell(store, receiver, [notice(), notice("drift:wind:2013-08-01")], now=NOW)
    assert len(receiver.told) == 2


@pytest.mark.parametrize(
    ("point", "told_before", "told_in_all", "waits"),
    [
        ("before claim", 0, 1, timedelta()),
        ("after claim", 0, 1, timedelta(minutes=10)),
        ("before done", 1, 2, timedelta(minutes=10)),
        ("after done", 1, 1, timedelta()),
    ],
)
@pytest.mark.parametrize("severity", ["warning", "over"])
def test_a_kill_at_any_point_loses_no_alert(
    store: KillingStore, point: str, told_before: int, told_in_all: int, waits: timedelta, severity: str
):
    receiver, news = Receiver(), [notice(severity=severity)]
    if severity == "over":
        tell(store, receiver, [notice()], now=NOW)
        receiver.told.clear()
    store.point = point
    with pytest.raises(Killed):
        tell(store, receiver, news, now=NOW)
    assert len(receiver.told) == told_before
    store.point = ""
    if waits:
        early = tell(store, receiver, news, now=NOW + waits - timedelta(seconds=1))
        assert (early.n_told, early.is_pending) == (0, True)
    tell(store, receiver, news, now=NOW + waits)
    assert len(receiver.told) == told_in_all
    # Whoever takes over cannot know whether it was told, and says so.
    assert ("may be the second time" in receiver.told[-1][1]) == bool(waits)
    assert tell(store, receiver, news, now=NOW + timedelta(days=1)).n_told == 0
    assert len(receiver.told) == told_in_all


@pytest.mark.parametrize("is_delivered", [False, True])
def test_a_kill_while_sending_loses_no_alert(store: KillingStore, is_delivered: bool):
    receiver = Receiver(Killed(), is_delivered=is_delivered)
    with pytest.raises(Killed):
        tell(store, receiver, [notice()], now=NOW)
    tell(store, receiver, [notice()], now=NOW + timedelta(minutes=10))
    assert len(receiver.told) == 1 + is_delivered


def test_of_two_processes_one_tells(store: KillingStore):
    slow, quick = Receiver(), Receiver()

    class Overtaken:
        def send(self, *, title: str, text: str) -> None:
            seen = tell(store, quick, [notice()], now=NOW + timedelta(seconds=5))
            assert (seen.n_told, seen.is_pending) == (0, True)
            slow.send(title=title, text=text)

    tell(store, Overtaken(), [notice()], now=NOW)
    assert (len(slow.told), len(quick.told)) == (1, 0)


def test_a_receiver_that_fails_keeps_no_other_from_being_told_and_is_told_later(store: KillingStore):
    down, up = Receiver(AlertFailed("hooks.example answers 503")), Receiver()
    both = Receivers({"slack": down, "email": up})
    with pytest.raises(AlertFailed, match=r"slack: hooks\.example answers 503"):
        tell(store, both, [notice()], now=NOW)
    assert (len(down.told), len(up.told)) == (0, 1)
    assert tell(store, both, [notice()], now=NOW + timedelta(seconds=59)).is_pending
    tell(store, both, [notice()], now=NOW + timedelta(minutes=1))
    assert (len(down.told), len(up.told)) == (1, 1)
    assert "second time" not in down.told[0][1]


def test_a_receiver_that_is_broken_for_good_is_given_up_after_hours_not_minutes(store: KillingStore):
    broken, now, failures = Receiver(*[AlertFailed("gone")] * 100), NOW, 0
    for _ in range(24 * 60):
        now += timedelta(minutes=1)
        try:
            if not tell(store, broken, [notice()], now=now).is_pending:
                break
        except AlertFailed:
            failures += 1
    assert failures == MOST_ATTEMPTS
    assert timedelta(hours=8) < now - NOW < timedelta(hours=24)


def test_many_incidents_at_once_are_one_message_and_each_is_known_afterwards(store: KillingStore):
    receiver = Receiver()
    many = [
        notice(f"drift:feature_{i}:2013-07-01", "severe" if i == 3 else "warning") for i in range(MOST_MESSAGES + 1)
    ]
    tell(store, receiver, many, now=NOW)
    [(title, text)] = receiver.told
    assert title == "6 new alarms, 1 of them severe"
    assert text.splitlines()[0].startswith("severe drift:feature_3")
    assert (len(text.splitlines()), text.count(LINK)) == (7, 1)
    assert tell(store, receiver, many, now=NOW).n_told == 0


def test_everyone_is_tried_before_a_failure_is_raised_and_an_unknown_error_shows_its_kind_alone():
    up = Receiver()
    both = Receivers({"slack": Receiver(RuntimeError("https://hooks/secret")), "email": up})
    with pytest.raises(AlertFailed, match=r"^slack: RuntimeError$"):
        both.send(title="run failed", text="why")
    assert up.told == [("run failed", "why")]


def test_a_store_that_is_away_is_an_error_before_anyone_is_told(store: KillingStore, monkeypatch: pytest.MonkeyPatch):
    def away(path: str, content: bytes) -> None:
        raise StoreUnavailable("the bucket does not answer")

    receiver = Receiver()
    monkeypatch.setattr(store, "create", away)
    with pytest.raises(StoreUnavailable):
        tell(store, receiver, [notice()], now=NOW)
    assert receiver.told == []
