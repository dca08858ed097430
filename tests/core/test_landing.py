"""A table read in parts lands as it would whole: the same rows accepted, the same set aside, the same warnings."""

import itertools
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.core import landing as module
from ml_assets.core.contract_checks import Checked, check
from ml_assets.core.contracts import Column, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import ContractBroken, StorageFull
from ml_assets.core.key_hashes import key_hashes
from ml_assets.core.landing import landing
from ml_assets.core.ports import Rows
from ml_assets.core.spool import Spool

MONDAY, TUESDAY, WEDNESDAY = date(2013, 7, 1), date(2013, 7, 2), date(2013, 7, 3)
DAYS = DayRange(first=MONDAY, last=TUESDAY)
FLIGHTS = Contract(
    table="flights",
    description="Flights.",
    columns=(
        Column(name="partition_on", type=pa.date32(), description="Local day."),
        Column(name="carrier", type=pa.string(), description="Airline.", nullable=True),
        Column(name="flight", type=pa.int64(), description="Number.", minimum=1, maximum=9999),
        Column(name="wind_mph", type=pa.float64(), description="Wind.", nullable=True, minimum=0, maximum=150),
    ),
    key=("carrier", "flight"),
    is_partitioned=True,
)
Row = tuple[date | None, str | None, int | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A source of tables as they are given."""

    parts: Sequence[pa.Table]
    asked: list[str] = field(default_factory=list)

    @property
    def contracts(self) -> Mapping[str, Contract]:
        return {"flights": FLIGHTS}

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        raise AssertionError("a source that offers parts is not read whole")

    def batches(self, table: str, days: DayRange | None = None) -> Iterator[pa.Table]:
        self.asked.append(f"{table} {days}")
        yield from self.parts

    def note(self, days: DayRange) -> str:
        return "made up"


def flights(*rows: Row) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(FLIGHTS.schema.names, row, strict=True)) for row in rows], schema=FLIGHTS.schema
    )


def told(checked: Checked[Rows]) -> dict[str, object]:
    """Everything a check says, with the quarantine in an order of its own."""
    accepted, quarantined = (
        rows.read_all() if isinstance(rows, pa.RecordBatchReader) else rows
        for rows in (checked.accepted, checked.quarantined)
    )
    return {
        "accepted": accepted.to_pylist(),
        "quarantined": sorted(quarantined.to_pylist(), key=lambda row: (row["row_json"], row["reason"])),
        "n_by_day": checked.n_by_day,
        "n_by_reason": {why: n for why, n in checked.n_by_reason.items() if n},
        "ignored_columns": checked.ignored_columns,
        "warnings": checked.warnings,
    }


def landed(parts: Sequence[pa.Table], folder: Path, *, whole_bytes: int = -1) -> dict[str, object]:
    """What landing these parts as a stream says."""
    with landing(Parts(parts=parts), FLIGHTS, DAYS, work_folder=folder, whole_bytes=whole_bytes) as checked:
        assert isinstance(checked.accepted, pa.RecordBatchReader) == (whole_bytes < 0)
        return told(checked)


def outcome(run: Callable[[], dict[str, object]]) -> dict[str, object] | str:
    """What a check says, or why it refuses the table."""
    try:
        return run()
    except ContractBroken as refusal:
        return str(refusal)


ROWS = st.lists(
    st.tuples(
        st.sampled_from([MONDAY, MONDAY, TUESDAY, WEDNESDAY, None]),
        st.sampled_from(["UA", "AA", None]),
        st.sampled_from([*range(1, 9), *range(1, 9), 0, None]),
        st.sampled_from([1.0, 2.0, None, None, 151.0, float("nan")]),
    )
    | st.tuples(st.just(MONDAY), st.just("DL"), st.integers(1, 60), st.just(3.0)),
    max_size=70,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS, cuts=st.lists(st.integers(0, 70), max_size=6), part_bytes=st.integers(1, 2000), group=st.integers(1, 9)
)
def test_in_parts_is_as_whole(tmp_path: Path, rows: list[Row], cuts: list[int], part_bytes: int, group: int):
    table, borders = flights(*rows), [0, *sorted(cuts), 70]
    parts = [table.slice(start, end - start) for start, end in itertools.pairwise(borders)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_PART_BYTES", part_bytes)
        patched.setattr(module, "_ROWS_COMPARED_AT_ONCE", group)
        whole = outcome(lambda: told(check(table, FLIGHTS, days=DAYS)))
        assert outcome(lambda: landed(parts, tmp_path)) == whole


def test_the_last_row_of_a_key_wins_over_all_parts(tmp_path: Path):
    first = flights((MONDAY, "UA", 1, 3.0), (MONDAY, "AA", 1, 5.0))
    later = flights((TUESDAY, "AA", 1, 6.0), (MONDAY, "UA", 1, 3.0))
    found = landed([first, later], tmp_path)
    assert found["accepted"] == later.to_pylist()
    assert found["n_by_day"] == {MONDAY: 1, TUESDAY: 1}
    assert found["n_by_reason"] == {
        "a copy of another row with the same carrier, flight": 1,
        "corrected by a later row with the same carrier, flight": 1,
    }


def test_bad_rows_of_one_day_add_up_over_the_parts(tmp_path: Path):
    numbers = range(1, 101)
    parts = [flights((MONDAY, "UA", number, 151.0 if number % 10 < 3 else 9.0)) for number in numbers]
    with pytest.raises(ContractBroken, match=r"30 of the 100 rows of 2013-07-01.*because wind_mph is above 150"):
        landed(parts, tmp_path)


def test_keys_that_only_seem_equal_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "key_hashes", lambda rows: np.zeros(rows.num_rows, np.uint64))
    rows = flights((MONDAY, "UA", 1, 3.0), (MONDAY, "UA", 2, 3.0), (MONDAY, "UA", 1, 3.0))
    assert landed([rows], tmp_path) == told(check(rows, FLIGHTS, days=DAYS))


def test_a_part_without_a_column_refuses_the_table_and_an_extra_one_is_named(tmp_path: Path):
    sound = flights((MONDAY, "UA", 1, 3.0))
    for whole_bytes in (-1, 10**6):
        with pytest.raises(ContractBroken, match="column 'wind_mph' is missing"):
            landed([sound, sound.drop_columns("wind_mph")], tmp_path, whole_bytes=whole_bytes)
        with_gate = flights((MONDAY, "UA", 2, 3.0)).append_column("gate", pa.array(["A7"]))
        assert landed([sound, with_gate], tmp_path, whole_bytes=whole_bytes)["ignored_columns"] == ("gate",)


def test_what_fits_in_memory_is_a_table_and_leaves_no_file(tmp_path: Path):
    rows = flights((MONDAY, "UA", 1, 3.0), (TUESDAY, "UA", 2, None))
    source = Parts(parts=[rows.slice(0, 1), rows.slice(1)])
    with landing(source, FLIGHTS, DAYS, work_folder=tmp_path / "work") as checked:
        assert told(checked) == told(check(rows, FLIGHTS, days=DAYS))
        assert isinstance(checked.accepted, pa.Table)
    assert source.asked == ["flights 2013-07-01..2013-07-02"]
    assert not (tmp_path / "work").exists()


def test_a_source_without_rows_lands_an_empty_day(tmp_path: Path):
    for whole_bytes in (-1, 10**6):
        found = landed([], tmp_path, whole_bytes=whole_bytes)
        assert found["accepted"] == []
        assert found["warnings"] == ("there are no rows on 2013-07-01, 2013-07-02",)


def test_a_source_that_offers_no_parts_is_read_whole(tmp_path: Path):
    class Whole:
        contracts: Mapping[str, Contract] = {"flights": FLIGHTS}

        def read(self, table: str, days: DayRange | None = None) -> pa.Table:
            return flights((MONDAY, "UA", 1, 3.0))

        def note(self, days: DayRange) -> str:
            return "made up"

    with landing(Whole(), FLIGHTS, DAYS, work_folder=tmp_path) as checked:
        assert told(checked)["n_by_day"] == {MONDAY: 1, TUESDAY: 0}


def test_the_file_has_no_name_and_is_read_as_often_as_needed(tmp_path: Path):
    rows = flights((MONDAY, "UA", 1, 3.0), (TUESDAY, None, 2, None))
    with Spool(tmp_path, FLIGHTS.schema) as spool:
        for part in (rows, rows.slice(0, 0), rows.slice(1)):
            spool.write(part)
        assert list(tmp_path.iterdir()) == []
        for _ in range(2):
            assert [table.to_pylist() for table in spool.tables()] == [rows.to_pylist(), rows.slice(1).to_pylist()]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, 1, None, 3, -1], pa.int64()),
        pa.array([3, 1, None, 3, 0], pa.uint8()),
        pa.array([0.5, 1.5, None, 0.5, -0.5], pa.float32()),
        pa.array(["aé", "éa", None, "aé", ""]),
        pa.array([b"\0", b"\0\0", None, b"\0", b""]),
        pa.array([MONDAY, TUESDAY, None, MONDAY, WEDNESDAY]),
        pa.array([1, 2, None, 1, 3], pa.timestamp("us", "UTC")),
        pa.array(["1.50", "1.05", None, "1.50", "9.00"]).cast(pa.decimal128(9, 2)),
        pa.array([True, False, None, True, False]),
    ],
    ids=lambda values: str(values.type),
)
def test_equal_keys_have_equal_hashes_wherever_they_stand(values: pa.Array):
    hashes = key_hashes(pa.table({"a": values}))
    assert hashes[0] == hashes[3] != hashes[1]
    assert key_hashes(pa.table({"a": values.slice(2)})).tolist() == hashes[2:].tolist()
    chunks = pa.chunked_array([values.slice(0, 2), values.slice(2)])
    assert key_hashes(pa.table({"a": chunks})).tolist() == hashes.tolist()


def test_minus_zero_may_equal_zero():
    assert len(set(key_hashes(pa.table({"a": [0.0, -0.0]})).tolist())) == 1


def test_a_full_disk_is_told_as_such(tmp_path: Path):
    noise = np.random.default_rng(1).random(200_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with (
            Spool(tmp_path, pa.schema([("a", pa.float64())])) as spool,
            pytest.raises(StorageFull, match="no room for the rows that are being landed"),
        ):
            spool.write(pa.table({"a": noise}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
