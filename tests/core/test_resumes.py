from datetime import UTC, date, datetime

import pytest

from ml_assets.core.errors import AlreadyExists, BadInput, LedgerBroken
from ml_assets.core.resumes import resume, resumes
from tests.core.conftest import MemoryStore

MOMENT = datetime(2013, 7, 10, 12, tzinfo=UTC)


def say(store: MemoryStore, day: date = date(2013, 7, 10), reason: str = "the labels are mended", by: str = "ann"):
    return resume(store, "delay", day=day, reason=reason, recorded_at=MOMENT, recorded_by=by)


def test_what_was_said_is_kept_in_order_and_the_same_said_twice_once():
    store = MemoryStore()
    said = [say(store), say(store), say(store, date(2013, 8, 1)), say(store, by="ben")]
    assert resumes(store, "delay") == [said[0], said[2], said[3]]
    assert store.list("resumes/delay")[0] == "resumes/delay/000001.json"
    assert resumes(store, "other") == []


def test_of_two_who_speak_at_once_both_are_heard():
    class Racing(MemoryStore):
        def create(self, path: str, content: bytes) -> None:
            if not self.files:
                super().create(path, content.replace(b"ann", b"ben"))
                raise AlreadyExists(path)
            super().create(path, content)

    store = Racing()
    say(store)
    assert [one.recorded_by for one in resumes(store, "delay")] == ["ben", "ann"]


@pytest.mark.parametrize(("reason", "by"), [(" ", "ann"), ("mended", "")])
def test_nobody_resumes_without_a_name_and_a_reason(reason: str, by: str):
    with pytest.raises(BadInput, match="a name and a reason"):
        say(MemoryStore(), reason=reason, by=by)


def test_a_record_with_a_gap_or_a_broken_entry_is_named():
    store = MemoryStore()
    say(store), say(store, by="ben")
    del store.files["resumes/delay/000001.json"]
    with pytest.raises(LedgerBroken, match="000001"):
        resumes(store, "delay")
    store.files["resumes/delay/000001.json"] = b"{}"
    with pytest.raises(LedgerBroken, match="is no resume"):
        resumes(store, "delay")
