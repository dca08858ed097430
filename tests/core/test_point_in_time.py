"""The point-in-time join against a brute-force join in Python, in both dialects.

BigQuery's SQL is parsed as such, turned into DuckDB's by sqlglot, and run: same rows, by another query.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache

import duckdb
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from ml_assets.core.errors import InvalidDeclaration, InvalidName
from ml_assets.core.feature_views import Aggregate, AggregateFunction, Feature, FeatureView, LatestView, WindowView
from ml_assets.core.point_in_time import Pruning, examples_query, join_query
from ml_assets.core.ports import Dialect
from ml_assets.core.spec import Decisions, Label, SplitRule, UseCase

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of sqlglotrs, which dagster-dbt's sqlglot installs
    import sqlglot

SEED = 20131123
DAY = date(2013, 7, 1)
START = datetime(2013, 7, 1, 12, tzinfo=UTC)
MAX_AGE = timedelta(hours=2)
WINDOWS = (timedelta(hours=1), timedelta(hours=3))
DIALECTS: tuple[Dialect, ...] = ("duckdb", "bigquery")

_ROW = "partition_on DATE, place VARCHAR, gate BIGINT, known_at TIMESTAMPTZ"
type_of = {
    "features.observed": f"{_ROW}, wind BIGINT, sky VARCHAR",
    "features.events": f"{_ROW}, delay DOUBLE, late BOOLEAN",
    "staging.decisions": "decision_id VARCHAR, partition_on DATE, place VARCHAR, gate BIGINT, event_at TIMESTAMPTZ",
    "labels.outcome": "decision_id VARCHAR, partition_on DATE, label BOOLEAN, label_known_at TIMESTAMPTZ, "
    "no_label_reason VARCHAR",
}
Row = tuple[object, ...]
Tables = Mapping[str, Sequence[Row]]


def feature(name: str, view: str) -> Feature:
    return Feature(name=name, kind="numeric", view=view)


def latest(*, entity: tuple[str, ...] = ("place", "gate"), max_age: timedelta = MAX_AGE) -> LatestView:
    return LatestView(
        name="sight",
        table="features.observed",
        entity=entity,
        known_at="known_at",
        max_age=max_age,
        features=(feature("wind", "sight"), feature("sky", "sight")),
    )


ALL_AGGREGATES: tuple[tuple[str, AggregateFunction, str | None], ...] = (
    ("n", "count", None),
    ("n_delay", "count", "delay"),
    ("n_late", "count", "late"),
    ("total", "sum", "delay"),
    ("mean", "mean", "delay"),
    ("late_share", "share", "late"),
)


def window(
    name: str = "recent",
    *,
    entity: tuple[str, ...] = ("place",),
    windows: tuple[timedelta, ...] = WINDOWS,
    aggregates: Sequence[tuple[str, AggregateFunction, str | None]] = ALL_AGGREGATES,
) -> WindowView:
    made = tuple(Aggregate(name=n, function=function, of=of) for n, function, of in aggregates)
    return WindowView(
        name=name,
        table="features.events",
        entity=entity,
        known_at="known_at",
        windows=windows,
        aggregates=made,
        features=tuple(feature(WindowView.feature_name(name, a.name, w), name) for w in windows for a in made),
    )


def use_case(*, lead_time: timedelta = timedelta(hours=2)) -> UseCase:
    return UseCase(
        name="windy",
        question="Is it?",
        owners=(),
        task="binary_classification",
        decisions=Decisions(table="staging.decisions", event_at="event_at", lead_time=lead_time),
        label=Label(table="labels.outcome"),
        features=(),
    )


def run(
    query: str, tables: Tables, *, dialect: Dialect, parameters: Mapping[str, date] | None = None
) -> list[dict[str, object]]:
    if dialect == "bigquery":
        (query,) = sqlglot.transpile(query, read="bigquery", write="duckdb")
    connection = _database()
    for table in type_of:
        connection.execute(f"DELETE FROM {table}")
        if rows := tables.get(table):
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    result = connection.execute(query, parameters or {})
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


@cache
def _database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
    for table, columns in type_of.items():
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.partition('.')[0]}; CREATE TABLE {table} ({columns})")
    return connection


def join(
    decisions: Sequence[Row], views: Sequence[FeatureView], *, dialect: Dialect, **rows: Sequence[Row]
) -> dict[object, dict[str, object]]:
    """Join (decision_id, place, gate, decided_at) with rows (place, gate, known_at, value, value) of the two tables."""
    tables = {f"features.{name}": [(known_at_day(row[2]), *row) for row in rows[name]] for name in rows}
    tables["staging.decisions"] = [(name, known_at_day(at), place, gate, at) for name, place, gate, at in decisions]
    sql = join_query(
        "SELECT decision_id, place, gate, event_at AS decided_at FROM staging.decisions",
        views,
        dialect=dialect,
        kept=("decision_id",),
    )
    found = run(sql, tables, dialect=dialect)
    assert sorted(str(row["decision_id"]) for row in found) == sorted(str(row[0]) for row in decisions)
    return {row.pop("decision_id"): row for row in found}


def known_at_day(moment: object) -> date | None:
    return moment.date() if isinstance(moment, datetime) else None


# --- brute force ------------------------------------------------------------------------------------------------------


def expected_latest(decision: Row, rows: Sequence[Row]) -> dict[str, object]:
    _, place, gate, decided_at = decision
    usable = [
        row
        for row in rows
        if None not in (place, gate, row[2])
        and row[:2] == (place, gate)
        and decided_at - MAX_AGE <= row[2] <= decided_at
    ]

    def rank(row: Row) -> tuple[object, ...]:
        _, _, known_at, wind, sky = row
        return known_at, wind is not None, wind or 0, sky is not None, sky or ""

    chosen = max(usable, key=rank) if usable else (None,) * 5
    return {"wind": chosen[3], "sky": chosen[4]}


def expected_window(decision: Row, rows: Sequence[Row], *, name: str, columns: tuple[int, ...]) -> dict[str, object]:
    answer: dict[str, object] = {}
    entity = [decision[1 + column] for column in columns]
    for length in WINDOWS:
        events = [
            row
            for row in rows
            if row[2] is not None
            and None not in entity
            and [row[column] for column in columns] == entity
            and decision[3] - length < row[2] <= decision[3]
        ]
        delays = [row[3] for row in events if row[3] is not None]
        lates = [row[4] for row in events if row[4] is not None]
        values = {
            "n": len(events),
            "n_delay": len(delays),
            "n_late": sum(lates),
            "total": float(sum(delays)),
            "mean": sum(delays) / len(delays) if delays else None,
            "late_share": sum(lates) / len(lates) if lates else None,
        }
        answer |= {f"{name}_{aggregate}_{length.seconds // 3600}h": value for aggregate, value in values.items()}
    return answer


moments = st.integers(0, 14).map(lambda n: START + timedelta(minutes=30 * n))
places, gates = st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None])
observations = st.tuples(
    places, gates, moments | st.none(), st.sampled_from([None, -1, 0, 3]), st.sampled_from([None, "", "clear", "fog"])
)
occurrences = st.tuples(
    places,
    gates,
    moments | st.none(),
    st.sampled_from([None, -2.5, 0.0, 7.0, 0.1]),
    st.sampled_from([None, True, False]),
)
asked = st.lists(st.tuples(places, gates, moments), max_size=6).map(
    lambda rows: [(f"d{number}", *row) for number, row in enumerate(rows)]
)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_join_equals_brute_force(dialect: Dialect):
    sys.stdout.write(f"seed {SEED}\n")
    views = [latest(), window(), window("gate_recent", entity=("place", "gate")), window("again")]

    @seed(SEED)
    @settings(max_examples=50, deadline=None, database=None)
    @given(
        decisions=asked,
        observed=st.lists(observations, max_size=12),
        events=st.lists(occurrences, max_size=12),
    )
    def check(decisions: list[Row], observed: list[Row], events: list[Row]):
        found = join(decisions, views, dialect=dialect, observed=observed, events=events)
        for decision in decisions:
            wanted = (
                expected_latest(decision, observed)
                | expected_window(decision, events, name="recent", columns=(0,))
                | expected_window(decision, events, name="gate_recent", columns=(0, 1))
                | expected_window(decision, events, name="again", columns=(0,))
            )
            assert found[decision[0]] == pytest.approx(wanted, abs=1e-8)

    check()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("age", "wind"),
    [
        (timedelta(microseconds=-1), None),
        (timedelta(0), 5),
        (MAX_AGE, 5),
        (MAX_AGE + timedelta(microseconds=1), None),
    ],
)
def test_a_row_serves_from_known_at_until_max_age_both_included(age: timedelta, wind: int | None, dialect: Dialect):
    rows = [("a", 1, START - age, 5, "fog")]
    assert join([("d", "a", 1, START)], [latest()], dialect=dialect, observed=rows)["d"]["wind"] == wind


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("age", "counts"),
    [
        (timedelta(microseconds=-1), (0, 0)),
        (timedelta(0), (1, 1)),
        (WINDOWS[0] - timedelta(microseconds=1), (1, 1)),
        (WINDOWS[0], (0, 1)),
        (WINDOWS[1], (0, 0)),
    ],
)
def test_a_window_is_open_at_its_start_and_closed_at_the_decision(
    age: timedelta, counts: tuple[int, int], dialect: Dialect
):
    rows = [("a", 1, START - age, 1.0, True)]
    found = join([("d", "a", 1, START)], [window()], dialect=dialect, events=rows)["d"]
    assert (found["recent_n_1h"], found["recent_n_3h"]) == counts


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_later_row_never_changes_the_join(dialect: Dialect):
    views = [latest(), window()]
    decisions = [("d", "a", 1, START)]
    observed, events = [("a", 1, START, 5, "fog")], [("a", 1, START, 2.0, False)]
    after = START + timedelta(microseconds=1)
    without = join(decisions, views, dialect=dialect, observed=observed, events=events)
    with_later = join(
        decisions,
        views,
        dialect=dialect,
        observed=[*observed, ("a", 1, after, 99, "storm")],
        events=[*events, ("a", 1, after, 99.0, True)],
    )
    assert without == with_later


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_null_of_the_newest_row_does_not_fall_back_to_an_older_row(dialect: Dialect):
    rows = [("a", 1, START - timedelta(hours=1), 5, "fog"), ("a", 1, START, None, None)]
    found = join([("d", "a", 1, START)], [latest()], dialect=dialect, observed=rows)
    assert found["d"] == {"wind": None, "sky": None}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_of_rows_known_together_the_greatest_values_win_whatever_their_order(dialect: Dialect):
    rows = [("a", 1, START, 5, None), ("a", 1, START, None, "storm"), ("a", 1, START, 5, "clear")]
    for shuffled in (rows, rows[::-1]):
        found = join([("d", "a", 1, START)], [latest()], dialect=dialect, observed=shuffled)
        assert found["d"] == {"wind": 5, "sky": "clear"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_empty_views_and_unknown_entities_give_nulls_and_zeros(dialect: Dialect):
    decisions = [("known", "a", 1, START), ("unknown", "z", 1, START), ("null", None, None, START)]
    for events in ([], [("b", 1, START, 1.0, True)]):
        for row in join(decisions, [latest(), window()], dialect=dialect, observed=[], events=events).values():
            assert (row["wind"], row["recent_n_3h"], row["recent_total_3h"], row["recent_mean_3h"]) == (
                None,
                0,
                0.0,
                None,
            )
    assert join(decisions, [], dialect=dialect) == {"known": {}, "unknown": {}, "null": {}}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_sums_of_whole_numbers_are_exact_after_huge_ones_have_left_the_window(dialect: Dialect):
    long_ago = START - timedelta(days=1)
    events = [("a", 1, long_ago, 1e17, None), ("a", 1, START, 1.0, None)]
    assert join([("d", "a", 1, START)], [window()], dialect=dialect, events=events)["d"]["recent_total_1h"] == 1.0


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("max_age", [timedelta(hours=1), timedelta(days=900)])
def test_rare_rows_and_crowded_rows_are_found_alike(max_age: timedelta, dialect: Dialect):
    crowd = [("a", 1, START - timedelta(seconds=n), n, None) for n in range(60)]
    rows = [*crowd, ("b", 1, START - timedelta(days=800), 800, None)]
    found = join(
        [("crowded", "a", 1, START - timedelta(seconds=30.5)), ("rare", "b", 1, START)],
        [latest(max_age=max_age)],
        dialect=dialect,
        observed=rows,
    )
    assert (found["crowded"]["wind"], found["rare"]["wind"]) == (31, 800 if max_age.days else None)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_event_with_the_text_false_counts_and_one_with_a_boolean_false_does_not(dialect: Dialect):
    """``count`` must tell a boolean from a text without being told the column's type."""
    view = window(aggregates=[("n_note", "count", "note"), ("n_late", "count", "late")])
    query = join_query(
        "SELECT 'd' AS decision_id, 'a' AS place, MAX(known_at) AS decided_at FROM features.events",
        [view],
        dialect=dialect,
        kept=("decision_id",),
    )
    noted = "(SELECT *, 'false' AS note FROM features.events)"
    query = query.replace(*(('"features"."events"', noted) if dialect == "duckdb" else ("`features`.`events`", noted)))
    (row,) = run(query, {"features.events": [(DAY, "a", 1, START, None, False)]}, dialect=dialect)
    assert (row["recent_n_note_3h"], row["recent_n_late_3h"]) == (1, 0)


# --- examples ---------------------------------------------------------------------------------------------------------


def examples(
    tables: Tables,
    views: Sequence[FeatureView],
    *,
    dialect: Dialect,
    first: date,
    last: date,
    lead_hours: int = 2,
    of: UseCase | None = None,
) -> list[dict[str, object]]:
    query = examples_query(of or use_case(lead_time=timedelta(hours=lead_hours)), views, dialect=dialect)
    return run(query, tables, dialect=dialect, parameters={"first_day": first, "last_day": last})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_examples_have_the_agreed_columns_and_the_state_of_every_label(dialect: Dialect):
    tables: Tables = {
        "staging.decisions": [
            *[(name, DAY, "a", 1, START) for name in ("landed", "cancelled", "flying")],
            ("another day", date(2013, 7, 2), "a", 1, START + timedelta(days=1)),
        ],
        "features.observed": [
            (DAY, "a", 1, START - timedelta(hours=2), 5, "fog"),
            (DAY, "a", 1, START, 9, "late news"),
        ],
        "labels.outcome": [("landed", DAY, True, START, None), ("cancelled", DAY, None, None, "cancelled")],
    }
    found = examples(tables, [latest()], dialect=dialect, first=DAY, last=DAY)
    common = {"partition_on": DAY, "decided_at": START - timedelta(hours=2), "wind": 5, "sky": "fog"}
    assert list(found[0]) == [
        "decision_id", "partition_on", "decided_at", "wind", "sky", "label", "label_known_at", "no_label_reason",
    ]  # fmt: skip
    assert sorted(found, key=lambda row: str(row["decision_id"])) == [
        {"decision_id": "cancelled", **common, "label": None, "label_known_at": None, "no_label_reason": "cancelled"},
        {"decision_id": "flying", **common, "label": None, "label_known_at": None, "no_label_reason": "not landed"},
        {"decision_id": "landed", **common, "label": True, "label_known_at": START, "no_label_reason": None},
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("day", "hours_of_the_day"), [(date(2013, 3, 10), 23), (date(2013, 11, 3), 25)])
def test_hours_are_real_hours_on_days_that_the_clock_changes(day: date, hours_of_the_day: int, dialect: Dialect):
    """The event is at 23:30 local; the first moment of the local day lies hours_of_the_day - 0.5 before it."""
    starts_at = datetime(day.year, day.month, day.day, 5 if hours_of_the_day == 23 else 4, tzinfo=UTC)
    event_at = starts_at + timedelta(hours=hours_of_the_day - 0.5)
    tables: Tables = {
        "staging.decisions": [("d", day, "a", 1, event_at)],
        "features.events": [(day, "a", 1, starts_at + timedelta(hours=n), 1.0, True) for n in range(hours_of_the_day)],
    }
    whole = window(windows=(timedelta(hours=24), timedelta(hours=3)))
    (found,) = examples(tables, [whole], dialect=dialect, first=day, last=day, lead_hours=0)
    assert (found["recent_n_24h"], found["recent_n_3h"]) == (min(hours_of_the_day, 24), 3)


def evening_before() -> UseCase:
    """Decided at 18:00 in New York on the day before the event's local day."""
    when = Decisions(table="staging.decisions", event_at="event_at", decided_at_local=time(18), days_before=1)
    return replace(use_case(), decisions=when, split=SplitRule(gap_days=2))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("day", "decided_hour_utc"),
    [
        (date(2013, 1, 2), 23),  # 18:00 in winter time
        (date(2013, 7, 1), 22),  # in summer time
        (date(2013, 3, 10), 23),  # the clocks go forward on the day of the event: the evening before is still winter
        (date(2013, 3, 11), 22),  # on the day of the decision
        (date(2013, 11, 3), 22),  # the clocks go back on the day of the event
        (date(2013, 11, 4), 23),  # on the day of the decision
    ],
)
def test_all_events_of_a_local_day_are_decided_when_the_clock_shows_six_on_the_evening_before(
    day: date, decided_hour_utc: int, dialect: Dialect
):
    before = day - timedelta(days=1)
    decided_at = datetime(before.year, before.month, before.day, decided_hour_utc, tzinfo=UTC)
    tables: Tables = {
        "staging.decisions": [
            ("first", day, "a", 1, decided_at + timedelta(hours=6)),
            ("noon", day, "a", 1, decided_at + timedelta(hours=18)),
            ("last", day, "a", 1, decided_at + timedelta(hours=30)),
        ]
    }
    found = examples(tables, [], dialect=dialect, first=day, last=day, of=evening_before())
    assert {row["decision_id"]: row["decided_at"] for row in found} == dict.fromkeys(
        ("first", "noon", "last"), decided_at
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("day", [date(2013, 7, 1), date(2013, 3, 11), date(2013, 11, 4)])
def test_what_becomes_known_a_minute_after_six_on_the_evening_before_changes_nothing(day: date, dialect: Dialect):
    six = datetime(day.year, day.month, day.day, 23 if day.month == 11 else 22, tzinfo=UTC) - timedelta(days=1)
    late = six + timedelta(minutes=1)
    decision = ("d", day, "a", 1, six + timedelta(hours=30))
    observed = [(known_at_day(six), "a", 1, six, 5, "fog")]
    events = [(known_at_day(six), "a", 1, six, 2.0, True)]
    views = [latest(max_age=timedelta(hours=3)), window(windows=(timedelta(hours=3), timedelta(hours=24)))]
    on_time: Tables = {"staging.decisions": [decision], "features.observed": observed, "features.events": events}
    with_later = {
        "staging.decisions": [decision],
        "features.observed": [*observed, (known_at_day(late), "a", 1, late, 99, "storm")],
        "features.events": [*events, (known_at_day(late), "a", 1, late, 99.0, True)],
    }
    found = [
        examples(tables, views, dialect=dialect, first=day, last=day, of=evening_before())
        for tables in (on_time, with_later)
    ]
    assert found[0] == found[1]
    assert (found[0][0]["wind"], found[0][0]["recent_n_3h"], found[0][0]["recent_mean_24h"]) == (5, 1, 2.0)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pruning_by_day_keeps_the_oldest_row_of_a_decision_of_the_evening_before(dialect: Dialect):
    decided_at = datetime(2013, 6, 30, 22, tzinfo=UTC)
    oldest = date(2013, 6, 28) - timedelta(days=2)  # two days of age, known two days after its day
    tables: Tables = {
        "staging.decisions": [("d", DAY, "a", 1, datetime(2013, 7, 2, 3, 59, tzinfo=UTC))],
        "features.observed": [(oldest, "a", 1, decided_at - timedelta(days=2), 1, None)],
    }
    (found,) = examples(
        tables, [latest(max_age=timedelta(days=2))], dialect=dialect, first=DAY, last=DAY, of=evening_before()
    )
    assert found["wind"] == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pruning_by_day_loses_no_row_that_keeps_its_promise(dialect: Dialect):
    """The oldest partition a row can come from, and the newest, for a decision just after its local day begins."""
    decided_at = datetime(2013, 7, 1, 4, 30, tzinfo=UTC) - timedelta(hours=2)  # the event: 00:30 in New York
    old = date(2013, 6, 30) - timedelta(days=4)  # decided on the 30th, 2 days of age, known 2 days after its day
    tables: Tables = {
        "staging.decisions": [(name, DAY, name, 1, decided_at + timedelta(hours=2)) for name in ("old", "new")],
        "features.observed": [
            (old, "old", 1, decided_at - timedelta(days=2), 1, None),
            (date(2013, 7, 2), "new", 1, decided_at, 2, None),
        ],
    }
    found = examples(tables, [latest(max_age=timedelta(days=2))], dialect=dialect, first=DAY, last=DAY)
    assert {row["decision_id"]: row["wind"] for row in found} == {"old": 1, "new": 2}


def test_days_that_cannot_matter_are_not_read():
    pruning = Pruning(lead_time=timedelta(hours=2))
    assert (pruning.first_offset(timedelta(days=28)), pruning.last_offset()) == (-32, 1)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_examples_of_a_day_do_not_depend_on_the_range_they_are_made_in(dialect: Dialect):
    days = [date(2013, 7, n) for n in (1, 2, 3)]
    noon = [datetime(2013, 7, n, 16, tzinfo=UTC) for n in (1, 2, 3)]
    tables: Tables = {
        "staging.decisions": [(f"d{d}", d, "a", 1, at) for d, at in zip(days, noon, strict=True)],
        "features.events": [(d, "a", 1, at - timedelta(hours=h), 0.1, True)
                            for d, at in zip(days, noon, strict=True) for h in (2, 3, 4)],
    }  # fmt: skip
    views = [window(windows=(timedelta(hours=24), timedelta(days=2)))]
    whole = examples(tables, views, dialect=dialect, first=days[0], last=days[2])
    single = [row for d in days for row in examples(tables, views, dialect=dialect, first=d, last=d)]
    assert sorted(whole, key=lambda row: str(row["decision_id"])) == single


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("table", ["staging.decisions", "labels.outcome"])
def test_a_decision_or_a_label_that_is_there_twice_is_an_error_and_not_two_rows(table: str, dialect: Dialect):
    tables: dict[str, list[Row]] = {
        "staging.decisions": [("d", DAY, "a", 1, START)],
        "labels.outcome": [("d", DAY, True, START, None)],
    }
    assert len(examples(tables, [latest()], dialect=dialect, first=DAY, last=DAY)) == 1
    tables[table] *= 2
    with pytest.raises(duckdb.Error, match=f"{table} has a decision_id twice"):
        examples(tables, [latest()], dialect=dialect, first=DAY, last=DAY)


# --- declarations that are refused ------------------------------------------------------------------------------------

EVIL = 'wind"; DROP TABLE raw.flights; --'


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "view",
    [
        LatestView(name="v", table="features.observed", entity=(EVIL,), known_at="known_at", max_age=MAX_AGE,
                   features=(feature("wind", "v"),)),
        LatestView(name="v", table="features.observed", entity=("place",), known_at=EVIL, max_age=MAX_AGE,
                   features=(feature("wind", "v"),)),
        LatestView(name="v", table="features.observed", entity=("place",), known_at="known_at", max_age=MAX_AGE,
                   features=(feature(EVIL, "v"),)),
        LatestView(name="v", table=f"features.{EVIL}", entity=("place",), known_at="known_at", max_age=MAX_AGE,
                   features=(feature("wind", "v"),)),
        window(aggregates=[("mean", "mean", EVIL)]),
        window(entity=(EVIL,)),
    ],
)  # fmt: skip
def test_a_name_that_could_leave_its_place_in_the_sql_is_refused(view: FeatureView, dialect: Dialect):
    with pytest.raises(InvalidName):
        join_query("SELECT 1", [view], dialect=dialect)


def test_declarations_that_contradict_themselves_are_refused():
    with pytest.raises(InvalidDeclaration, match=r"\['sky', 'wind'\]"):
        join_query("SELECT 1", [latest(), latest(entity=("place",))], dialect="duckdb")
    with pytest.raises(InvalidDeclaration, match="no entity"):
        join_query("SELECT 1", [latest(entity=())], dialect="duckdb")
    with pytest.raises(InvalidDeclaration, match="mean of no column"):
        join_query("SELECT 1", [window(aggregates=[("mean", "mean", None)])], dialect="duckdb")


def test_bigquery_sees_no_null_under_distinct():
    """Found with Google's analyser: such a NULL is an INT64 there, and does not unite with a struct."""
    tree = sqlglot.parse_one(join_query("SELECT 1", [latest(), window()], dialect="bigquery"), read="bigquery")
    distinct = [select for select in tree.find_all(sqlglot.exp.Select) if select.args.get("distinct")]
    assert distinct
    assert not [select for select in distinct if any(column.find(sqlglot.exp.Null) for column in select.expressions)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_reserved_words_are_legal_column_names(dialect: Dialect):
    view = LatestView(name="v", table="features.observed", entity=("order",), known_at="at", max_age=MAX_AGE,
                      features=(feature("select", "v"),))  # fmt: skip
    assert sqlglot.parse_one(join_query("SELECT 1", [view], dialect=dialect), read=dialect)
