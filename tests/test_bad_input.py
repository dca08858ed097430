"""Bad input through the whole graph: a clear error or a quarantined row, never a wrong table."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.cli import app
from ml_assets.core.ports import DayRange
from ml_assets.lifecycle import SERVING, RunFailed

pytestmark = pytest.mark.slow

SUNDAY, MONDAY, TUESDAY = date(2013, 1, 13), date(2013, 1, 14), date(2013, 1, 15)
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")

Deliver = Callable[..., None]


@pytest.fixture
def deliver(monkeypatch: pytest.MonkeyPatch) -> Deliver:
    """Let the source hand over something else than its rows for the tables named."""

    def _deliver(**changed: Callable[[pa.Table], pa.Table]) -> None:
        read = NycFlights13Source.read

        def read_changed(source: NycFlights13Source, table: str, days: DayRange | None = None) -> pa.Table:
            rows = read(source, table, days)
            return changed[table](rows) if table in changed else rows

        monkeypatch.setattr(NycFlights13Source, "read", read_changed)

    return _deliver


def differing(one: dict, other: dict) -> list[str]:
    """Return the names whose content is not the same in both."""
    return sorted(name for name in {*one, *other} if name not in one or name not in other or one[name] != other[name])


def on(day: date, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.field("partition_on") == pa.scalar(day))


def except_for(day: date, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.field("partition_on") != pa.scalar(day))


def retyped(rows: pa.Table, column: str, kind: pa.DataType) -> pa.Table:
    return rows.set_column(rows.column_names.index(column), column, rows[column].cast(kind))


def land_what_is_released(life, tables: Iterable[str], day: date, *, first: date, last: date) -> None:
    """Land days of which one is held for faults of these tables, let it pass as a person would, and land them again."""
    with pytest.raises(RunFailed, match="has a severe fault"):
        life.land(first, last)
    for table in tables:
        options = ["--table", table, "--day", str(day), "--by", "ana", "--reason", "it is so"]
        done = CliRunner().invoke(app, ["release", *options])
        assert done.exit_code == 0, done.output
    life.land(first, last)


@pytest.mark.parametrize("day", [MONDAY, TUESDAY], ids=["a day that is there", "a new day"])
def test_a_missing_column_stops_the_day_and_leaves_every_table_as_it_was(life, deliver: Deliver, day: date):
    before = life.home.tables()
    deliver(flights=lambda rows: rows.drop_columns("dep_delay"))

    with pytest.raises(RunFailed, match=r"raw__flights: .*flights: column 'dep_delay' is missing.*Nothing was written"):
        life.land(day)

    # The other raw tables are sound; nothing is built on them without the flights. That they were refused is on record.
    others = [f"raw.{name}{end}" for name in ("schedules", "weather") for end in ("", "_landings")]
    changed = [] if day == MONDAY else others
    assert differing(before, life.home.tables()) == ["raw.flights_landings", *changed]


def test_a_retyped_column_stops_the_day_and_leaves_every_table_as_it_was(life, deliver: Deliver):
    before = life.home.tables()
    deliver(
        schedules=lambda rows: retyped(rows, "distance", pa.string()),
        weather=lambda rows: retyped(rows, "temp", pa.float32()),
    )

    with pytest.raises(RunFailed) as failure:
        life.land(MONDAY)

    assert "column 'distance' is string, not int64" in str(failure.value)
    assert "column 'temp' is float, not double" in str(failure.value)
    # But for the record that these deliveries were refused.
    assert differing(before, life.home.tables()) == ["raw.schedules_landings", "raw.weather_landings"]


@pytest.mark.parametrize(
    ("first", "last"),
    [(date(2012, 12, 31), date(2012, 12, 31)), (date(2012, 12, 31), date(2013, 1, 1)), (TUESDAY, date(2999, 1, 1))],
    ids=["before the first day", "a range that begins before it", "a range that ends in the future"],
)
def test_an_unknown_partition_is_refused_and_leaves_every_table_as_it_was(life, first: date, last: date):
    before = life.home.tables()

    with pytest.raises(Exception, match=str(first if first.year == 2012 else last)) as failure:
        life.lifecycle.run_groups(("raw",), DayRange(first=first, last=last))

    assert "partition" in str(failure.value).lower()
    assert differing(before, life.home.tables()) == []


def test_a_day_that_the_source_now_says_was_empty_ends_empty_in_every_table(life, deliver: Deliver):
    before = life.home.tables()
    deliver(**dict.fromkeys(("schedules", "flights", "weather"), lambda rows: rows.slice(0, 0)))

    land_what_is_released(life, ("schedules", "flights", "weather"), MONDAY, first=MONDAY, last=MONDAY)
    life.serve(MONDAY)

    after = life.home.tables()
    # What landed, what was found in it, what the models once read, and that it is gone: these are told for good.
    records = {"monitoring.data_quality", "predictions.arrival_delay_served", "monitoring.skew"}
    records |= {f"raw.{name}_landings" for name in ("schedules", "flights", "weather")}
    for name, rows in before.items():
        if "partition_on" in rows.column_names and name != "features.feat_airport_network":
            assert name in records or on(MONDAY, after[name]).num_rows == 0, name
            assert except_for(MONDAY, after[name]) == except_for(MONDAY, rows), name
    # The network of a day is made of the 28 days before it, which are as they were.
    assert after["features.feat_airport_network"] == before["features.feat_airport_network"]
    has_rows = life.check("raw/flights", "has_rows")
    assert not has_rows.passed
    assert has_rows.metadata["empty_days"].value == "2013-01-14"


def test_an_empty_day_between_two_others_is_served_as_the_nothing_it_is(life, deliver: Deliver):
    deliver(
        schedules=lambda rows: except_for(TUESDAY, rows),
        flights=lambda rows: except_for(TUESDAY, rows),
        weather=lambda rows: except_for(TUESDAY, rows),
    )

    wednesday = date(2013, 1, 16)
    land_what_is_released(life, ("schedules", "flights", "weather"), TUESDAY, first=MONDAY, last=wednesday)
    life.serve(MONDAY, wednesday)

    tables = life.home.tables()
    n_flights = {day: on(day, tables["raw.flights"]).num_rows for day in (MONDAY, TUESDAY, date(2013, 1, 16))}
    assert list(n_flights.values()) == [928, 0, 901]
    for name in ("examples.arrival_delay", "predictions.arrival_delay"):
        assert {day: on(day, tables[name]).num_rows for day in n_flights} == n_flights
    assert [on(day, tables["monitoring.performance"]).num_rows for day in n_flights] == [1, 0, 1]


def test_duplicated_flights_are_set_aside_and_each_flight_is_counted_once(life, deliver: Deliver):
    before = life.home.tables()

    def twice(rows: pa.Table) -> pa.Table:
        return pa.concat_tables([rows, rows.slice(0, 100)])

    deliver(flights=twice, schedules=twice)

    life.land(MONDAY)
    life.serve(MONDAY)

    after = life.home.tables()
    for name in ("flights", "schedules"):
        quarantined = on(MONDAY, after[f"raw.{name}_quarantine"])
        assert quarantined.num_rows == 100
        assert quarantined["reason"].unique().to_pylist() == [
            "a copy of another row with the same carrier, flight, time_hour"
        ]
        assert after[f"raw.{name}"] == before[f"raw.{name}"]
        assert not life.check(f"raw/{name}", "contract_kept").passed
    told = {f"raw.{name}_quarantine" for name in ("flights", "schedules")} | {"monitoring.data_quality"}
    changed = differing(before, after)
    assert changed == sorted(told), "examples, predictions and monitoring are as without the copies"


def test_a_row_that_cannot_be_true_is_set_aside_and_its_flight_counts_as_not_landed(life, deliver: Deliver):
    first = life.home.tables()["raw.flights"].filter(pc.field("partition_on") == pa.scalar(MONDAY)).to_pylist()[0]

    def a_year_late(rows: pa.Table) -> pa.Table:
        is_it = pc.and_(pc.equal(rows["flight"], first["flight"]), pc.equal(rows["time_hour"], first["time_hour"]))
        is_it = pc.and_(is_it, pc.equal(rows["carrier"], first["carrier"]))
        delays = pc.if_else(is_it, pa.scalar(525_600), rows["dep_delay"])
        return rows.set_column(rows.column_names.index("dep_delay"), "dep_delay", delays)

    deliver(flights=a_year_late)

    life.land(MONDAY)
    life.serve(MONDAY)

    tables = life.home.tables()
    (quarantined,) = tables["raw.flights_quarantine"].to_pylist()
    assert quarantined["reason"] == "dep_delay is above 1800"
    assert '"dep_delay":525600' in quarantined["row_json"]
    decision = f"{first['carrier']}-{first['flight']}-{first['time_hour']:%Y%m%dT%H}"
    (example,) = tables["examples.arrival_delay"].filter(pc.field("decision_id") == decision).to_pylist()
    assert (example["label"], example["no_label_reason"]) == (None, "not landed")
    assert decision in tables["predictions.arrival_delay"]["decision_id"].to_pylist()
    (quality,) = on(MONDAY, tables["monitoring.performance"]).to_pylist()
    assert (quality["n_decisions"], quality["n_not_landed"]) == (928, 1)


def test_a_day_with_all_null_weather_is_scored_without_it_and_reported(life, deliver: Deliver):
    before = life.home.tables()

    def silent(rows: pa.Table) -> pa.Table:
        for name in WEATHER:
            rows = rows.set_column(rows.column_names.index(name), name, pa.nulls(rows.num_rows, pa.float64()))
        return rows

    deliver(weather=silent)

    land_what_is_released(life, ["weather"], MONDAY, first=MONDAY, last=MONDAY)
    life.serve(MONDAY)

    after = life.home.tables()
    assert on(MONDAY, after["raw.weather"])["temp"].null_count == 72
    assert after["raw.weather_quarantine"].num_rows == 0
    check = life.check("raw/weather", "contract_kept")
    assert not check.passed
    assert "temp is null in every row of 2013-01-14" in check.metadata["warnings"].value
    # The row of 23:00 the evening before is known at midnight and counts for three hours: then there is no weather.
    examples = on(MONDAY, after["examples.arrival_delay"])
    by_dawn = examples.filter(
        pc.field("decided_at") >= pa.scalar(datetime(2013, 1, 14, 9, tzinfo=UTC), pa.timestamp("us", tz="UTC"))
    )
    assert by_dawn.num_rows > 850
    assert by_dawn["temperature_f"].null_count == by_dawn.num_rows
    predictions = on(MONDAY, after["predictions.arrival_delay"])
    assert predictions.num_rows == 928
    assert pc.all(pc.is_finite(predictions["prediction"])).as_py()
    drift = {row["feature"]: row for row in on(MONDAY, after["monitoring.drift"]).to_pylist()}
    assert drift["temperature_f"]["missing_share"] > 0.9
    assert drift["temperature_f"]["is_drifted"]
    unchanged = differing(
        {n: except_for(MONDAY, t) for n, t in before.items() if "partition_on" in t.column_names},
        {n: except_for(MONDAY, t) for n, t in after.items() if "partition_on" in t.column_names},
    )
    assert unchanged == []


def test_without_a_champion_the_day_is_not_predicted_and_the_error_says_what_to_do(life):
    before = life.home.tables()
    for entry in life.lifecycle.store.list("ledger"):
        (life.home.path / "artifacts" / entry).unlink()

    with pytest.raises(
        RunFailed, match=r"no champion on 2013-01-14; materialize arrival_delay/champion for that as-of"
    ):
        life.serve(MONDAY)

    assert differing(before, life.home.tables()) == []


def test_a_use_case_that_nobody_is_in_charge_of_can_be_left_out_and_then_nothing_else_is_run(life):
    before = life.home.tables()

    life.lifecycle.run_groups(SERVING, DayRange(first=TUESDAY, last=TUESDAY), without=["arrival_delay"])

    assert [e for e in life.events if e.is_step_start and "arrival_delay" in (e.step_key or "")] == []
    assert differing(before, life.home.tables()) == []


def test_a_day_before_the_first_champion_is_not_predicted_with_a_later_one(life):
    before = life.home.tables()

    with pytest.raises(RunFailed, match="no champion on 2013-01-11"):
        life.serve(date(2013, 1, 11), SUNDAY)

    assert differing(before, life.home.tables()) == []


@pytest.mark.parametrize("name", ["model.onnx", "vocabulary.json", "reference.json", "manifest.json"])
def test_a_package_with_a_flipped_byte_predicts_nothing(life, name: str):
    before = life.home.tables()
    (package,) = (life.home.path / "artifacts" / "models" / "arrival_delay").glob("2013-01-14-*")
    content = bytearray((package / name).read_bytes())
    content[len(content) // 2] ^= 1
    (package / name).write_bytes(content)

    with pytest.raises(RunFailed, match=rf"predictions: .*{name.partition('.')[0]}.*") as failure:
        life.serve(MONDAY)

    assert "PackageRefused" in str(failure.value)
    assert differing(before, life.home.tables()) == []


def test_a_full_disk_stops_the_day_and_leaves_every_table_as_it_was(life, monkeypatch: pytest.MonkeyPatch):
    before = life.home.tables()
    monkeypatch.setattr(life.lifecycle.warehouse, "_free_bytes", lambda _folder: 3 * 2**20)

    with pytest.raises(
        RunFailed, match=r"has 3 MiB free and the write needs \d+; nothing was changed, free some space"
    ):
        life.land(TUESDAY)
    with pytest.raises(RunFailed, match=r"predictions: .*has 3 MiB free"):
        life.serve(MONDAY)

    assert differing(before, life.home.tables()) == []
