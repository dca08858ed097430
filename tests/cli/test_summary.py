"""What a run says of the alarms of its days: the same as the reports and the checks, by incident."""

from datetime import date

import pyarrow as pa

from ml_assets.cli.summary import alarms_in_words
from ml_assets.core.alarms import ALARMS_SCHEMA


def alarms(subject: str, *days: int, severity: str = "warning") -> list[dict[str, object]]:
    since = date(2013, 7, days[0])
    fixed = {"kind": "drift", "subject": subject, "severity": severity, "since": since}
    return [
        {
            **fixed,
            "partition_on": date(2013, 7, day),
            "incident": f"drift:{subject}:{since}",
            "explanation": f"{subject} {day}",
        }
        for day in days
    ]


def words(*rows: list[dict[str, object]]) -> list[str]:
    found = sorted((row for of in rows for row in of), key=lambda row: str(row["partition_on"]))
    return alarms_in_words(pa.Table.from_pylist(found, schema=ALARMS_SCHEMA), 14).splitlines()


def test_days_without_an_alarm_are_said_to_have_none():
    assert words([]) == ["none on 14 days"]


def test_an_incident_is_told_once_with_its_days_and_its_newest_words():
    assert words(alarms("wind", 3, 4, 7)) == ["1 incident (none severe), on 3 of 14 days", "warning, 3 days: wind 7"]


def test_the_severe_and_the_long_ones_come_first_and_of_many_three_are_told():
    found = words(alarms("a", 1), alarms("b", 1, 2), alarms("c", 3), alarms("d", 5, severity="severe"))
    assert found == [
        "4 incidents (1 severe), on 4 of 14 days",
        "severe, 1 day: d 5",
        "warning, 2 days: b 2",
        "warning, 1 day: a 1",
        "and 1 more: see the report",
    ]
